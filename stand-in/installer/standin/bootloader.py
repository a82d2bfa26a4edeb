"""The boot loader of the installed system: GRUB in the BIOS boot partition or in the EFI system partition."""

from collections.abc import Callable

from standin.kickstart import Kickstart
from standin.machine import Machine
from standin.storage import Layout

DEFAULT_TIMEOUT = 5


def set_up(kickstart: Kickstart, layout: Layout, machine: Machine, uuid: Callable[[str], str], *, uefi: bool) -> None:
    options = kickstart.handler.bootloader
    timeout = DEFAULT_TIMEOUT if options.timeout is None else options.timeout
    root = next(r for r in layout.mounts if r.mount == "/")
    source = f"/dev/mapper/{'-'.join(part.replace('-', '--') for part in root.lv)}" if root in layout.volumes else f"UUID={uuid(root.device)}"
    machine.write(
        "/etc/default/grub",
        f"GRUB_TIMEOUT={timeout}\nGRUB_DISTRIBUTOR=\"$(sed 's, release .*$,,g' /etc/system-release)\"\nGRUB_DEFAULT=saved\nGRUB_DISABLE_SUBMENU=true\n"
        f'GRUB_TERMINAL_OUTPUT="console"\nGRUB_CMDLINE_LINUX="{options.appendLine or ""}"\nGRUB_DISABLE_RECOVERY="true"\nGRUB_ENABLE_BLSCFG=true\n',
    )
    machine.write("/etc/kernel/cmdline", f"root={source} ro {options.appendLine or ''}".rstrip() + "\n")
    if uefi:
        boot = next((r for r in layout.mounts if r.mount == "/boot"), root)
        folder = "/grub2" if boot.mount == "/boot" else "/boot/grub2"
        machine.write(
            "/boot/efi/EFI/almalinux/grub.cfg",
            f"search --no-floppy --fs-uuid --set=dev {uuid(boot.device)}\nset prefix=($dev){folder}\nexport $prefix\nconfigfile $prefix/grub.cfg\n",
            0o700,
        )
        esp = next(r for r in layout.mounts if r.mount == "/boot/efi")
        machine.run(
            "efibootmgr", "--create", "--disk", f"/dev/{esp.disk or layout.boot_disk}", "--part", str(esp.number or 1), "--label", "AlmaLinux stand-in",
            "--loader", "\\EFI\\almalinux\\shimx64.efi", "--quiet", fails="failed to set new efi boot target. This is most likely a kernel or firmware bug",
        )  # fmt: skip
    else:
        machine.inside("grub2-install", "--target=i386-pc", f"/dev/{layout.boot_disk}", fails="boot loader install failed")
    machine.inside("grub2-mkconfig", "-o", "/boot/grub2/grub.cfg", fails="failed to write boot loader configuration")
