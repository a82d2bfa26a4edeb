"""What the installer writes into the new system: passwords, keys, network, services; and how scripts are run."""

import subprocess
from pathlib import Path

import pytest
from pykickstart.parser import Script

from standin import accounts, bootloader, configure, console, kickstart, network, scripts, storage
from standin.disks import Disk
from standin.errors import Fatal
from standin.machine import DryMachine

SHADOW = "root:*:20782:0:99999:7:::\nops:!:20782::::::\n"


def done(text: str, files: dict[str, str] | None = None) -> DryMachine:
    machine = DryMachine({"/etc/shadow": SHADOW, **(files or {})})
    accounts.set_up(kickstart.read(text), machine)
    return machine


@pytest.mark.parametrize(
    ("command", "field"),
    [("rootpw --lock", "!!"), ("rootpw --iscrypted $6$a$b", "$6$a$b"), ("rootpw --lock --iscrypted $6$a$b", "!$6$a$b")],
)
def test_the_password_of_root(command: str, field: str) -> None:
    assert done(command + "\n").files["/etc/shadow"].splitlines()[0] == f"root:{field}:20782:0:99999:7:::"


def test_a_plain_password_is_hashed() -> None:
    stored = done("rootpw --plaintext packer\n").files["/etc/shadow"].split(":")[1]
    again = subprocess.run(["openssl", "passwd", "-6", "-salt", stored.split("$")[2], "packer"], capture_output=True, text=True, check=True)
    assert stored == again.stdout.strip()


def test_keys_and_users() -> None:
    machine = done('rootpw --lock\nsshkey --username=root "ssh-ed25519 A one"\nuser --name=ops --groups=wheel,adm --iscrypted --password=$6$x$y\n', {"/root/.ssh/authorized_keys": "ssh-rsa B\n"})
    assert machine.files["/root/.ssh/authorized_keys"] == "ssh-rsa B\nssh-ed25519 A one\n"
    assert machine.modes["/root/.ssh/authorized_keys"] == 0o600
    assert "chroot useradd --create-home --groups wheel,adm --shell /bin/bash ops" in machine.done
    assert machine.files["/etc/shadow"].splitlines()[1].startswith("ops:$6$x$y:")
    assert "/etc/ssh/sshd_config.d/01-permitrootlogin.conf" not in machine.files
    assert "PermitRootLogin yes" in done("rootpw --allow-ssh --plaintext x\n").files["/etc/ssh/sshd_config.d/01-permitrootlogin.conf"]


@pytest.mark.parametrize(("text", "asks"), [("rootpw --lock\n", False), ("text\n", True), ("user --name=a --groups=wheel --password=x\n", False), ("user --name=a --password=x\n", True)])
def test_somebody_must_be_able_to_get_in(text: str, asks: bool) -> None:
    assert (accounts.asked(kickstart.read(text)) is not None) == asks


def test_network_profiles() -> None:
    found = network.profiles(kickstart.read("network --bootproto=dhcp --device=link --activate --onboot=yes\n"), ["ens18"])
    ((path, text),) = found.items()
    assert path == "/etc/NetworkManager/system-connections/ens18.nmconnection"
    assert "interface-name=ens18\n" in text and "method=auto\n" in text and "autoconnect" not in text
    static = "network --bootproto=static --device=ens18 --ip=192.0.2.9 --netmask=255.255.255.0 --gateway=192.0.2.1 --nameserver=192.0.2.2,192.0.2.3 --hostname=a.b\n"
    ks = kickstart.read(static)
    ((_, text),) = network.profiles(ks, ["ens18"]).items()
    assert "address1=192.0.2.9/24,192.0.2.1\ndns=192.0.2.2;192.0.2.3;\nmethod=manual\n" in text
    assert network.hostname(ks) == "a.b"
    with pytest.raises(Fatal) as caught:
        network.profiles(kickstart.read("network --device=eth7\n"), ["ens18"])
    assert "Unable to configure device eth7" in str(caught.value)


def test_configuration_and_services() -> None:
    text = "lang de_DE.UTF-8\nkeyboard us\ntimezone Etc/UTC --utc\nselinux --permissive\nskipx\nservices --enabled=sshd --disabled=kdump\nnetwork --hostname=n1\n"
    machine = DryMachine({"/usr/share/zoneinfo/Etc/UTC": ""})
    machine.failing = {"chroot systemctl disable kdump"}
    configure.set_up(kickstart.read(text), machine, ["eth0"], lambda _: None)
    assert machine.files["/etc/locale.conf"] == "LANG=de_DE.UTF-8\n"
    assert machine.files["/etc/vconsole.conf"].startswith('KEYMAP="us"')
    assert "\nSELINUX=permissive\n" in machine.files["/etc/selinux/config"]
    assert machine.links["/etc/localtime"] == "../usr/share/zoneinfo/Etc/UTC"
    assert machine.links["/etc/systemd/system/default.target"] == "/usr/lib/systemd/system/multi-user.target"
    assert machine.files["/etc/hostname"] == "n1\n"
    assert [line for line in machine.done if "systemctl" in line] == ["chroot systemctl disable kdump", "chroot systemctl enable sshd"]
    machine.failing = {"chroot systemctl enable sshd"}
    with pytest.raises(Fatal, match="Error enabling service sshd"):
        configure.set_up(kickstart.read(text), machine, ["eth0"], lambda _: None)
    with pytest.raises(Fatal, match="Timezone"):
        configure.set_up(kickstart.read("timezone No/Where\n"), machine, ["eth0"], lambda _: None)


@pytest.mark.parametrize("uefi", [False, True])
def test_the_boot_loader(uefi: bool) -> None:
    ks = kickstart.read('zerombr\nclearpart --all --initlabel --disklabel=gpt\nreqpart --add-boot\npart / --size=2000\nbootloader --timeout=1 --append="console=ttyS0"\n')
    layout = storage.plan(ks, [Disk("sda", 9000)], uefi=uefi)
    machine = DryMachine()
    bootloader.set_up(ks, layout, machine, lambda device: f"of-{device[5:]}", uefi=uefi)
    assert "GRUB_TIMEOUT=1\n" in machine.files["/etc/default/grub"]
    assert machine.files["/etc/kernel/cmdline"] == "root=UUID=of-sda3 ro console=ttyS0\n"
    assert machine.done[-1] == "chroot grub2-mkconfig -o /boot/grub2/grub.cfg"
    if uefi:
        assert "--fs-uuid --set=dev of-sda2\nset prefix=($dev)/grub2" in machine.files["/boot/efi/EFI/almalinux/grub.cfg"]
        assert machine.done[0].startswith("efibootmgr --create --disk /dev/sda --part 1 ")
    else:
        assert machine.done[0] == "chroot grub2-install --target=i386-pc /dev/sda"


def script(text: str, **more: object) -> Script:
    return Script(text, **{"interp": "/bin/bash", "inChroot": False, "lineno": 7, **more})


def test_scripts_write_their_log_and_fail_only_when_told_to(tmp_path: Path) -> None:
    log, kept = tmp_path / "post.log", []
    scripts.run(script("echo one; echo two >&2; exit 3", logfile=str(log)), tmp_path, kept.append)
    assert log.read_text() == "one\ntwo\n"
    assert "ended with 3" in kept[0]
    with pytest.raises(Fatal) as caught:
        scripts.run(script("echo cause; exit 3", errorOnFail=True), tmp_path, kept.append)
    assert "There was an error running the kickstart script at line 7." in str(caught.value)
    assert str(caught.value).endswith("\n\ncause")
    with pytest.raises(Fatal, match="No such file"):
        scripts.run(script("x", interp="/bin/none", errorOnFail=True), tmp_path, kept.append)


@pytest.mark.parametrize(("active", "names"), [("tty0\n", ["tty1"]), ("tty0 ttyS0\n", ["tty1", "ttyS0"]), ("ttyS0\n", ["tty1", "ttyS0"]), ("", ["tty1"])])
def test_a_serial_line_is_used_only_if_the_kernel_was_told_of_it(active: str, names: list[str]) -> None:
    assert console.names(active) == names
