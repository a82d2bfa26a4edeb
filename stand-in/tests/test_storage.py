"""Layouts planned from kickstarts: which partitions, how large, and what is refused or asked."""

import pytest
from conftest import STAND_IN

from standin import kickstart, prepare, storage
from standin.disks import Disk, Partition
from standin.errors import Fatal, Question
from standin.machine import DryMachine

REPO = STAND_IN.parent
EXAMPLE = (REPO / "kickstart/alma9.ks.cfg").read_text()
GPT = {"bios": "21686148-6449-6E6F-744E-656564454649", "efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "linux": "0FC63DAF-8483-4772-8E79-3D69D8477DE4"}
CLEAN = "zerombr\nclearpart --all --initlabel --disklabel=gpt\nbootloader --timeout=1\n"


def plan(text: str, *, uefi: bool = False, disks: list[Disk] | None = None) -> storage.Layout:
    return storage.plan(kickstart.read(text), disks or [Disk("sda", 12288)], uefi=uefi, memory=2048)


def test_the_example_under_bios() -> None:
    layout = plan(EXAMPLE)
    assert layout.boot_disk == "sda"
    assert layout.wiped == ["sda"]
    assert layout.tables["sda"].splitlines() == [
        "label: gpt",
        f"start=1MiB, size=1MiB, type={GPT['bios']}",
        f"start=2MiB, size=1024MiB, type={GPT['linux']}",
        f"start=1026MiB, size=11261MiB, type={GPT['linux']}",
    ]
    assert [(r.device, r.mount, r.fstype) for r in layout.mounts] == [("/dev/sda3", "/", "xfs"), ("/dev/sda2", "/boot", "xfs")]


def test_the_example_under_uefi() -> None:
    layout = plan(EXAMPLE, uefi=True)
    assert layout.tables["sda"].splitlines() == [
        "label: gpt",
        f"start=1MiB, size=600MiB, type={GPT['efi']}",
        f"start=601MiB, size=1024MiB, type={GPT['linux']}",
        f"start=1625MiB, size=10662MiB, type={GPT['linux']}",
    ]
    assert [(r.device, r.mount, r.fstype) for r in layout.mounts] == [("/dev/sda3", "/", "xfs"), ("/dev/sda2", "/boot", "xfs"), ("/dev/sda1", "/boot/efi", "efi")]


def test_no_disklabel_is_msdos_under_bios_and_needs_no_biosboot() -> None:
    layout = plan("zerombr\nclearpart --all --initlabel\nreqpart --add-boot\npart / --size=2048 --grow\n", disks=[Disk("vda", 8192)])
    assert layout.tables["vda"].splitlines() == ["label: dos", "start=1MiB, size=1024MiB, type=83, bootable", "start=1025MiB, size=7166MiB, type=83"]


def test_automatic_layout_on_lvm() -> None:
    layout = plan(CLEAN + "autopart\n")
    assert [(r.mount, r.fstype, r.size) for r in layout.partitions] == [("", "biosboot", 1), ("/boot", "xfs", 1024), ("", "lvmpv", 11261)]
    assert layout.groups == [("almalinux", ["/dev/sda3"], 4)]
    assert [(v.lv, v.fstype, v.size) for v in layout.volumes] == [(("almalinux", "swap"), "swap", 4096), (("almalinux", "root"), "xfs", 7160)]


def test_automatic_layout_plain_without_swap() -> None:
    layout = plan(CLEAN + "autopart --type=plain --noswap\n", uefi=True)
    assert [(r.mount, r.fstype) for r in layout.partitions] == [("/boot/efi", "efi"), ("/boot", "xfs"), ("/", "xfs")]
    assert layout.groups == []


def test_volumes_share_what_is_left_up_to_their_limit() -> None:
    layout = plan(
        CLEAN + "reqpart --add-boot\npart pv.01 --size=4096\nvolgroup sys pv.01\n"
        "logvol / --vgname=sys --name=root --size=1024 --grow --fstype=ext4\nlogvol /var --vgname=sys --name=var --size=512 --grow --maxsize=1024\n"
        "logvol swap --vgname=sys --name=swap --size=256\n"
    )
    assert [(v.lv[1], v.size) for v in layout.volumes] == [("root", 2812), ("var", 1024), ("swap", 256)]
    assert [r.mount for r in layout.mounts] == ["/", "/boot", "/var"]


def test_partitions_made_before_are_used_and_nothing_is_wiped() -> None:
    """What the library's own kickstart does: `%pre` lays the disk out, `part --onpart` takes it as it is."""
    made = Disk("sda", 12288, "gpt", [Partition(n, 100) for n in range(1, 5)])
    text = (
        "ignoredisk --only-use=sda\nbootloader --location=mbr --boot-drive=sda --timeout=1\npart biosboot --fstype=biosboot --onpart=sda1\n"
        "part /boot/efi --fstype=efi --onpart=sda2\npart /boot --fstype=xfs --onpart=sda3\npart / --fstype=xfs --onpart=sda4\n"
    )
    for uefi in (False, True):
        layout = plan(text, uefi=uefi, disks=[made])
        assert layout.wiped == [] and layout.tables == {}
        assert [(r.device, r.mount, r.fstype) for r in layout.partitions] == [
            ("/dev/sda1", "", "biosboot"),
            ("/dev/sda2", "/boot/efi", "efi"),
            ("/dev/sda3", "/boot", "xfs"),
            ("/dev/sda4", "/", "xfs"),
        ]


def test_only_the_named_disk_is_touched() -> None:
    layout = plan(EXAMPLE.replace("zerombr\n", "zerombr\nignoredisk --only-use=vdb\n"), disks=[Disk("vda", 12288, "gpt", [Partition(1, 12000)]), Disk("vdb", 12288)])
    assert layout.wiped == ["vdb"]
    assert layout.boot_disk == "vdb"


FATAL = {
    "a disk that is not there": (CLEAN + "ignoredisk --only-use=vda\nautopart\n", 'Disk "vda" given in ignoredisk command does not exist.'),
    "a boot disk that is not there": (EXAMPLE.replace("bootloader ", "bootloader --boot-drive=sdz "), 'Disk "sdz" given in bootloader command'),
    "a group of nothing": (CLEAN + "reqpart\nvolgroup sys pv.01\nlogvol / --vgname=sys --name=root --size=1024\n", 'Physical volume "pv.01" is not specified'),
    "a volume of no group": (CLEAN + "reqpart\npart pv.1 --size=99\nvolgroup a pv.1\nlogvol / --vgname=b --name=root --size=10\n", 'No volume group exists with the name "b"'),
    "a part without a size": (CLEAN + "reqpart\npart /\n", "part needs --size, or --onpart"),
    "a file system it has not": (CLEAN + "reqpart\npart / --fstype=jfs --size=2000\n", "the stand-in does not carry out part --fstype=jfs"),
    "clearpart --linux": ("zerombr\nclearpart --linux\nreqpart\npart / --size=2000\n", "the stand-in does not carry out clearpart --linux"),
    "too many for msdos": ("zerombr\nclearpart --all --initlabel\n" + "".join(f"part /{n} --size=100\n" for n in ("", "a", "b", "c", "d")), "more than four partitions"),
}


@pytest.mark.parametrize(("text", "reason"), FATAL.values(), ids=FATAL)
def test_what_ends_the_installation(text: str, reason: str) -> None:
    with pytest.raises(Fatal) as caught:
        plan(text)
    assert reason in str(caught.value)


ASKED = {
    "no root": (CLEAN + "reqpart --add-boot\n", False, "You have not defined a root partition (/)"),
    "no biosboot": (CLEAN + "part / --size=2000\n", False, "Your BIOS-based system needs a special partition"),
    "no EFI partition": (CLEAN + "part / --size=2000\n", True, "For a UEFI installation, you must include an EFI System Partition"),
    "too large": (CLEAN + "reqpart\npart / --size=99999\n", False, "Unable to allocate requested partition scheme"),
    "a blank disk, and no word of it": ("clearpart --all\nreqpart\npart / --size=2000\n", False, "has no label"),
}


@pytest.mark.parametrize(("text", "uefi", "reason"), ASKED.values(), ids=ASKED)
def test_what_the_hub_asks(text: str, uefi: bool, reason: str) -> None:
    with pytest.raises(Question) as caught:
        plan(text, uefi=uefi)
    assert caught.value.where == "Installation Destination"
    assert reason in caught.value.what


def test_a_full_disk_is_not_emptied_without_clearpart() -> None:
    with pytest.raises(Question) as caught:
        plan("zerombr\nreqpart\npart / --size=2000\n", disks=[Disk("sda", 12288, "gpt", [Partition(1, 12000)])])
    assert caught.value.what == "not enough free space on disks"


def test_carrying_it_out_in_order() -> None:
    layout = plan(EXAMPLE, uefi=True)
    machine, said = DryMachine(), []
    prepare.carry_out(layout, machine, said.append)
    assert machine.done == [
        "wipefs --all --force /dev/sda",
        "sfdisk --wipe=always --wipe-partitions=always /dev/sda",
        "udevadm settle --timeout=30",
        "udevadm settle --timeout=30",
        "mkfs.vfat -F 32 /dev/sda1",
        "mkfs.xfs -f /dev/sda2",
        "mkfs.xfs -f /dev/sda3",
        "mkdir -p /mnt/sysroot/",
        "mount /dev/sda3 /mnt/sysroot/",
        "mkdir -p /mnt/sysroot/boot",
        "mount /dev/sda2 /mnt/sysroot/boot",
        "mkdir -p /mnt/sysroot/boot/efi",
        "mount /dev/sda1 /mnt/sysroot/boot/efi",
    ]
    assert said == ["Creating disklabel on /dev/sda", "Creating efi on /dev/sda1", "Creating xfs on /dev/sda2", "Creating xfs on /dev/sda3"]
    assert prepare.fstab(layout, lambda device: f"of-{device[5:]}").splitlines()[1:] == [
        "UUID=of-sda3 / xfs defaults 0 0",
        "UUID=of-sda2 /boot xfs defaults,x-systemd.device-timeout=600 0 0",
        "UUID=of-sda1 /boot/efi vfat umask=0077,shortname=winnt,x-systemd.device-timeout=600 0 2",
    ]
