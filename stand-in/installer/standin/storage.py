"""The layout of the disk, planned from a kickstart without touching anything."""

from dataclasses import dataclass, field

from pykickstart.constants import CLEARPART_TYPE_ALL, CLEARPART_TYPE_LIST, CLEARPART_TYPE_NONE

from standin.disks import Disk, partition_path
from standin.errors import Fatal, Question
from standin.kickstart import Kickstart, not_carried_out

# Sizes in MiB that the installer of EL9 gives where the kickstart gives none [blivet and Anaconda, x86 and EFI platforms].
BIOSBOOT, EFI, BOOT = 1, 600, 1024
# First MiB of a disk belongs to its label, the last one to GPT's second copy.
EDGE = 1
DESTINATION = "Installation Destination"
TYPES = {
    "biosboot": "21686148-6449-6E6F-744E-656564454649",
    "efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "lvmpv": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
    "": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
}
DOS_TYPES = {"efi": "ef", "swap": "82", "lvmpv": "8e", "": "83"}
FILE_SYSTEMS = {"xfs", "ext2", "ext3", "ext4", "vfat", "efi", "swap", "biosboot", "lvmpv"}


@dataclass
class Request:
    """One partition or logical volume to be; `size` in MiB."""

    mount: str
    fstype: str
    size: int
    grow: bool = False
    limit: int = 0
    disk: str = ""
    label: str = ""
    options: str = ""
    mkfs: str = ""
    line: int = 0
    format: bool = True
    # Filled in by the layout.
    number: int = 0
    start: int = 0
    device: str = ""
    pv: str = ""
    lv: tuple[str, str] = ("", "")


@dataclass
class Layout:
    """What is done to the disks, in order; every list is complete before anything is done."""

    boot_disk: str
    wiped: list[str] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)
    groups: list[tuple[str, list[str], int]] = field(default_factory=list)
    volumes: list[Request] = field(default_factory=list)
    partitions: list[Request] = field(default_factory=list)

    @property
    def formatted(self) -> list[Request]:
        return [r for r in self.partitions + self.volumes if r.fstype not in {"biosboot", "lvmpv"} and r.format]

    @property
    def mounts(self) -> list[Request]:
        """Mount points, the outer ones first."""
        return sorted((r for r in self.partitions + self.volumes if r.mount.startswith("/")), key=lambda r: r.mount.rstrip("/").count("/"))


def plan(kickstart: Kickstart, disks: list[Disk], *, uefi: bool, memory: int = 2048) -> Layout:
    """Plans the layout. `memory` in MiB decides the size of an automatic swap.

    Raises `Question` for what the installer's hub would show, `Fatal` for what ends it.
    """
    chosen = _chosen(kickstart, disks)
    handler = kickstart.handler
    cleared, fresh = _cleared(kickstart, chosen)
    requests, volumes, groups = _requests(kickstart, uefi, memory)
    if not any(r.mount == "/" for r in requests + volumes):
        raise Question(DESTINATION, "You have not defined a root partition (/), which is required for installation to continue.")
    boot_disk = handler.bootloader.bootDrive or chosen[0].name
    if boot_disk not in {disk.name for disk in chosen}:
        raise Fatal(f'Disk "{boot_disk}" given in bootloader command does not exist.')
    layout = Layout(boot_disk)
    labels = {}
    for disk in chosen:
        given = {"msdos": "dos", "gpt": "gpt", "": ""}.get(handler.clearpart.disklabel)
        if given is None:
            raise not_carried_out(kickstart.used["clearpart"], f"clearpart --disklabel={handler.clearpart.disklabel}")
        label = (given or ("gpt" if uefi or disk.size >= 2 * 1024 * 1024 else "dos")) if disk.name in fresh else disk.label
        labels[disk.name] = label
    wanted = []
    for request in requests:
        if request.device:
            wanted.append(request)
            continue
        request.disk = request.disk or boot_disk
        if request.disk not in labels:
            raise Fatal(f'Disk "{request.disk}" given in part command does not exist.')
        # reqpart asks for this one everywhere; only GPT needs it.
        if request.fstype == "biosboot" and labels[request.disk] == "dos" and request.line == 0:
            continue
        wanted.append(request)
    for disk in chosen:
        own = [r for r in wanted if r.disk == disk.name and not r.device]
        if not own and disk.name not in fresh and disk.name not in cleared:
            continue
        if disk.partitions and disk.name not in cleared and own:
            raise Question(DESTINATION, "not enough free space on disks")
        if not labels[disk.name]:
            raise Question(DESTINATION, f"disk {disk.name} has no label, and the kickstart says neither zerombr nor clearpart --initlabel")
        layout.wiped.append(disk.name)
        layout.tables[disk.name] = _table(disk, labels[disk.name], own)
    layout.partitions = _ordered(wanted)
    _groups(layout, groups, volumes)
    _bootable(layout, labels, uefi)
    return layout


def _chosen(kickstart: Kickstart, disks: list[Disk]) -> list[Disk]:
    handler = kickstart.handler
    names = {disk.name for disk in disks}
    for command, given in (
        ("ignoredisk", handler.ignoredisk.onlyuse),
        ("ignoredisk", handler.ignoredisk.ignoredisk),
        ("clearpart", handler.clearpart.drives),
    ):
        for name in given:
            if name.removeprefix("/dev/") not in names:
                raise Fatal(f'Disk "{name}" given in {command} command does not exist.')
    only = [name.removeprefix("/dev/") for name in handler.ignoredisk.onlyuse]
    ignored = {name.removeprefix("/dev/") for name in handler.ignoredisk.ignoredisk}
    chosen = [disk for disk in disks if disk.name not in ignored and (not only or disk.name in only)]
    if not chosen:
        raise Question(DESTINATION, "No disks selected")
    return chosen


def _cleared(kickstart: Kickstart, chosen: list[Disk]) -> tuple[set[str], set[str]]:
    """Names of the disks whose partitions go, and of those that get a new label."""
    clear = kickstart.handler.clearpart
    cleared: set[str] = set()
    if "clearpart" in kickstart.used and clear.type not in {None, CLEARPART_TYPE_NONE}:
        if clear.type == CLEARPART_TYPE_LIST:
            raise not_carried_out(kickstart.used["clearpart"], "clearpart --list")
        if clear.type != CLEARPART_TYPE_ALL:
            raise not_carried_out(kickstart.used["clearpart"], "clearpart --linux")
        drives = {name.removeprefix("/dev/") for name in clear.drives}
        cleared = {disk.name for disk in chosen if not drives or disk.name in drives}
    fresh = set(cleared) if clear.initAll else set()
    fresh |= {disk.name for disk in chosen if not disk.label and kickstart.handler.zerombr.zerombr}
    return cleared, fresh


def _requests(kickstart: Kickstart, uefi: bool, memory: int) -> tuple[list[Request], list[Request], list[tuple[str, list[str], int]]]:
    handler = kickstart.handler
    requests: list[Request] = []
    volumes: list[Request] = []
    groups: list[tuple[str, list[str], int]] = []
    automatic = handler.autopart
    if handler.reqpart.reqpart or automatic.autopart:
        requests.append(Request("/boot/efi", "efi", EFI) if uefi else Request("", "biosboot", BIOSBOOT))
        if (automatic.autopart and not automatic.noboot) or handler.reqpart.addBoot:
            requests.append(Request("/boot", "xfs", BOOT))
    if automatic.autopart:
        # 0 plain, 2 LVM; None is the default, LVM [pykickstart.constants AUTOPART_TYPE_*].
        if automatic.type not in {None, 0, 2}:
            raise not_carried_out(kickstart.used["autopart"], "autopart of a type other than lvm and plain")
        fstype = automatic.fstype or "xfs"
        into = requests
        if automatic.type != 0:
            requests.append(Request("", "lvmpv", 2048, grow=True, pv="pv.auto"))
            groups.append(("almalinux", ["pv.auto"], 4))
            into = volumes
        root = Request("/", fstype, 1024, grow=True, lv=("almalinux", "root"))
        if not automatic.noswap:
            swap = memory * 2 if memory <= 2048 else memory if memory <= 8192 else memory // 2
            into.append(Request("swap", "swap", swap, lv=("almalinux", "swap")))
        into.append(root)
    for part in handler.partition.partitions:
        requests.append(_from_part(part))
    for group in handler.volgroup.vgList:
        groups.append((group.vgname, list(group.physvols), int((group.pesize or 4096) // 1024)))
    for volume in handler.logvol.lvList:
        fstype = "swap" if volume.mountpoint == "swap" else volume.fstype or "xfs"
        _file_system(fstype, volume.lineno, "logvol")
        request = Request(volume.mountpoint, fstype, volume.size or 0, grow=bool(volume.grow), limit=volume.maxSizeMB or 0, line=volume.lineno)
        request.lv = (volume.vgname, volume.name)
        request.options, request.mkfs = volume.fsopts or "", volume.mkfsopts or ""
        if volume.percent:
            request.size, request.limit = 0, -int(volume.percent)
        elif not request.size:
            raise Fatal(f"The following problem occurred on line {volume.lineno} of the kickstart file:\n\nlogvol needs --size or --percent")
        volumes.append(request)
    return requests, volumes, groups


def _file_system(fstype: str, line: int, command: str) -> None:
    if fstype not in FILE_SYSTEMS:
        raise not_carried_out(line, f"{command} --fstype={fstype}")


def _from_part(part) -> Request:
    mount, fstype = part.mountpoint, part.fstype
    request = Request(mount if mount.startswith("/") else "", fstype, part.size or 0, grow=part.grow, limit=part.maxSizeMB or 0, line=part.lineno)
    if mount.startswith("pv."):
        request.pv, request.fstype = mount, "lvmpv"
    elif mount == "swap" or fstype == "swap":
        request.mount, request.fstype = "swap", "swap"
        if part.recommended and not request.size:
            request.size = 2048
    elif mount == "biosboot":
        request.fstype = "biosboot"
    elif mount == "/boot/efi" and fstype in {"", "vfat", "efi"}:
        request.fstype = "efi"
    elif not mount.startswith("/"):
        raise not_carried_out(part.lineno, f"part {mount}")
    request.fstype = request.fstype or "xfs"
    _file_system(request.fstype, part.lineno, "part")
    request.label, request.options, request.mkfs = part.label or "", part.fsopts or "", part.mkfsopts or ""
    request.format = bool(part.format)
    request.disk = part.disk.removeprefix("/dev/") if part.disk else ""
    if part.onPart:
        request.device = f"/dev/{part.onPart.removeprefix('/dev/')}"
    elif not request.size:
        raise Fatal(f"The following problem occurred on line {part.lineno} of the kickstart file:\n\npart needs --size, or --onpart")
    return request


def _ordered(requests: list[Request]) -> list[Request]:
    """What the firmware needs first, what grows last; so the growing one can be made larger later."""

    def rank(request: Request) -> int:
        if request.fstype == "biosboot":
            return 0
        if request.mount == "/boot/efi":
            return 1
        if request.mount == "/boot":
            return 2
        return 4 if request.grow else 3

    return sorted(requests, key=rank)


def _grown(sizes: list[Request], free: int) -> None:
    """Shares `free` MiB among those that grow, each up to its limit."""
    growing = [r for r in sizes if r.grow]
    while free > 0 and growing:
        share = max(free // len(growing), 1)
        for request in list(growing):
            more = min(share, free, request.limit - request.size if request.limit > 0 else share)
            request.size += more
            free -= more
            if request.limit > 0 and request.size >= request.limit:
                growing.remove(request)
            if free <= 0:
                break


def _table(disk: Disk, label: str, requests: list[Request]) -> str:
    """sfdisk's script for this disk."""
    ordered = _ordered(requests)
    if label == "dos" and len(ordered) > 4:
        raise Fatal("the stand-in does not lay out more than four partitions on an msdos label; use clearpart --disklabel=gpt")
    room = disk.size - 2 * EDGE
    needed = sum(r.size for r in ordered)
    if needed > room:
        raise Question(DESTINATION, f"Unable to allocate requested partition scheme: {needed} MiB wanted, disk {disk.name} has {room} MiB")
    _grown(ordered, room - needed)
    lines = [f"label: {label}"]
    at = EDGE
    types = TYPES if label == "gpt" else DOS_TYPES
    for number, request in enumerate(ordered, start=1):
        request.number, request.start = number, at
        request.device = partition_path(disk.name, number)
        kind = types.get(request.fstype, types[""])
        boot = ", bootable" if label == "dos" and request.mount == ("/boot" if any(r.mount == "/boot" for r in ordered) else "/") else ""
        lines.append(f"start={at}MiB, size={request.size}MiB, type={kind}{boot}")
        at += request.size
    return "\n".join(lines) + "\n"


def _groups(layout: Layout, groups: list[tuple[str, list[str], int]], volumes: list[Request]) -> None:
    members = {r.pv: r for r in layout.partitions if r.pv}
    for name, pvs, extent in groups:
        for pv in pvs:
            if pv not in members:
                raise Fatal(f'Physical volume "{pv}" is not specified anywhere, but volume group "{name}" is to be made of it.')
        layout.groups.append((name, [members[pv].device for pv in pvs], extent))
        own = [v for v in volumes if v.lv[0] == name]
        # One extent of each member holds LVM's own data.
        room = sum((members[pv].size // extent - 1) * extent for pv in pvs)
        for volume in own:
            if volume.limit < 0:
                volume.size, volume.limit = room * -volume.limit // 100, 0
            volume.size = -(-volume.size // extent) * extent
        needed = sum(v.size for v in own)
        if needed > room:
            raise Question(DESTINATION, f"Unable to allocate requested partition scheme: volume group {name} has {room} MiB, {needed} are wanted")
        _grown(own, room - needed)
        for volume in own:
            volume.size = volume.size // extent * extent
            volume.device = f"/dev/{name}/{volume.lv[1]}"
    known = {name for name, _, _ in groups}
    for volume in volumes:
        if volume.lv[0] not in known:
            raise Fatal(f'No volume group exists with the name "{volume.lv[0]}". Specify volume groups before logical volumes.')
    layout.volumes = volumes


def _bootable(layout: Layout, labels: dict[str, str], uefi: bool) -> None:
    if uefi:
        if not any(r.mount == "/boot/efi" for r in layout.partitions):
            raise Question(DESTINATION, "For a UEFI installation, you must include an EFI System Partition on a GPT-formatted disk, mounted at /boot/efi.")
    elif labels[layout.boot_disk] == "gpt" and not any(r.fstype == "biosboot" for r in layout.partitions):
        raise Question(
            DESTINATION,
            f"Your BIOS-based system needs a special partition to boot from a GPT disk label. To continue, please create a 1MiB 'biosboot' type partition on the {layout.boot_disk} disk.",
        )
