"""Carries a layout out: labels, volumes, file systems, mounts, fstab."""

from collections.abc import Callable

from standin.machine import Machine
from standin.storage import Layout, Request

Say = Callable[[str], None]


def carry_out(layout: Layout, machine: Machine, say: Say) -> None:
    """Writes the disks. What was on them is gone after the first line."""
    for disk in layout.wiped:
        say(f"Creating disklabel on /dev/{disk}")
        machine.run("wipefs", "--all", "--force", f"/dev/{disk}", fails="clearing the disk")
        machine.run("sfdisk", "--wipe=always", "--wipe-partitions=always", f"/dev/{disk}", given=layout.tables[disk], fails="writing the partition table")
    machine.run("udevadm", "settle", "--timeout=30")
    for name, members, extent in layout.groups:
        for member in members:
            say(f"Creating lvmpv on {member}")
            machine.run("lvm", "pvcreate", "--yes", "--force", member, fails="creating a physical volume")
        machine.run("lvm", "vgcreate", "--physicalextentsize", f"{extent}m", name, *members, fails="creating a volume group")
    for volume in layout.volumes:
        group, name = volume.lv
        machine.run("lvm", "lvcreate", "--yes", "--wipesignatures", "y", "--zero", "y", "--size", f"{volume.size}m", "--name", name, group, fails="creating a logical volume")
    machine.run("udevadm", "settle", "--timeout=30")
    for request in layout.formatted:
        say(f"Creating {request.fstype} on {request.device}")
        machine.run(*_mkfs(request), fails="creating a file system")
    for request in layout.mounts:
        target = f"{machine.sysroot}{request.mount}"
        machine.run("mkdir", "-p", target)
        machine.run("mount", *(["-o", request.options] if request.options else []), request.device, target, fails="mounting the new system")


def _mkfs(request: Request) -> list[str]:
    label = request.label
    extra = request.mkfs.split()
    if request.fstype == "xfs":
        return ["mkfs.xfs", "-f", *(["-L", label] if label else []), *extra, request.device]
    if request.fstype in {"ext2", "ext3", "ext4"}:
        return [f"mkfs.{request.fstype}", "-q", "-F", *(["-L", label] if label else []), *extra, request.device]
    if request.fstype == "swap":
        return ["mkswap", *(["-L", label] if label else []), request.device]
    return ["mkfs.vfat", "-F", "32", *(["-n", label] if label else []), *extra, request.device]


def fstab(layout: Layout, uuid: Callable[[str], str]) -> str:
    """The text of /etc/fstab, every file system by its UUID, volumes of LVM by name."""
    lines = ["# Written by the stand-in installer."]
    for request in layout.mounts + [r for r in layout.partitions + layout.volumes if r.fstype == "swap"]:
        source = f"/dev/mapper/{'-'.join(part.replace('-', '--') for part in request.lv)}" if request in layout.volumes else f"UUID={uuid(request.device)}"
        kind = "vfat" if request.fstype == "efi" else request.fstype
        options = request.options or ("umask=0077,shortname=winnt" if request.fstype == "efi" else "defaults")
        if request.mount != "/":
            # The 90 s that systemd gives a disk are not enough on an emulated machine of a busy host.
            options += ",x-systemd.device-timeout=600"
        check = "0 0" if request.fstype in {"xfs", "swap"} else "0 2" if request.mount != "/" else "1 1"
        mount = "none" if request.fstype == "swap" else request.mount
        lines.append(f"{source} {mount} {kind} {options} {check}")
    return "\n".join(lines) + "\n"
