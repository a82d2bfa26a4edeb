"""The disks of a template as the machine would see them: partitions, volumes, file systems, and where each is mounted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sealcheck import lvm
from sealcheck.filesystem import FileSystem, open_filesystem
from sealcheck.partitions import BIOS_BOOT, Partition, partitions
from sealcheck.source import DAMAGED, Joined, Piece, Source, said, zeros
from sealcheck.tree import Tree

SWAP_MARK = b"SWAPSPACE2"
PAGE = 4096
# What an fstab may name that is on no disk of the template.
ELSEWHERE = {
    "tmpfs",
    "proc",
    "sysfs",
    "devpts",
    "devtmpfs",
    "swap",
    "nfs",
    "nfs4",
    "cifs",
    "iso9660",
    "udf",
    "none",
    "overlay",
    "efivarfs",
    "hugetlbfs",
    "mqueue",
}
# Types of partitions that hold no file system: a BIOS boot partition, PowerPC's PReP, Windows' reserved one.
BARE = {BIOS_BOOT, "9e1a2d38-c612-4316-aa26-8b49521e5a8b", "e3c9e316-0b5c-4db8-817d-f92df00215ae"}


@dataclass
class Part:
    """A partition, a logical volume or a whole disk. `names` are those that an fstab may call it by."""

    name: str
    source: Source
    kind: str = ""
    names: set[str] = field(default_factory=set)
    filesystem: FileSystem | None = None


@dataclass
class Machine:
    """What the disks hold. `problems` are the places of which nothing can be said, and why."""

    parts: list[Part] = field(default_factory=list)
    swaps: list[Part] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    has_lvm: bool = False


def examine(disks: list[tuple[str, Source]]) -> Machine:
    """Takes the disks apart. What cannot be read becomes a problem, and the rest is gone on with."""
    machine = Machine()
    physicals = []
    for index, (name, disk) in enumerate(disks):
        prefix = f"{name}:" if len(disks) > 1 else ""
        try:
            table = partitions(disk)
        except DAMAGED as error:
            machine.problems.append((name, said(error)))
            continue
        parts = [of_partition(prefix, partition, index) for partition in table] or [Part(name, Joined([Piece(disk, 0, disk.size)]))]
        for part in parts:
            try:
                physical = lvm.physical(part.source)
            except DAMAGED as error:
                machine.problems.append((part.name, said(error)))
                continue
            if physical:
                physicals.append(physical)
            else:
                machine.parts.append(part)
    machine.has_lvm = bool(physicals)
    try:
        for volume in lvm.volumes(physicals):
            name = f"{volume.group}/{volume.name}"
            if volume.source is None:
                machine.problems.append((name, f"this logical volume {volume.kind}"))
                continue
            mapped = f"{volume.group.replace('-', '--')}-{volume.name.replace('-', '--')}"
            machine.parts.append(Part(name, volume.source, names={f"/dev/{name}", f"/dev/mapper/{mapped}"}))
    except DAMAGED as error:
        machine.problems.append(("LVM", f"its metadata is not understood: {said(error)}"))
    for part in machine.parts:
        recognise(machine, part)
    assemble(machine)
    return machine


def of_partition(prefix: str, partition: Partition, disk: int) -> Part:
    names = {f"PARTUUID={partition.guid}", f"PARTLABEL={partition.label}"} if partition.guid else set()
    letter = "abcdefghijklmnop"[disk : disk + 1]
    names |= {f"/dev/{kind}{letter}{partition.number}" for kind in ("sd", "vd", "hd", "xvd")} | {f"/dev/nvme{disk}n1p{partition.number}"}
    return Part(prefix + partition.name, partition.source, partition.kind, names)


def recognise(machine: Machine, part: Part) -> None:
    source = part.source
    try:
        if source.size >= PAGE and source.read(PAGE - len(SWAP_MARK), len(SWAP_MARK)) == SWAP_MARK:
            machine.swaps.append(part)
            return
        filesystem = open_filesystem(source)
        if filesystem:
            part.filesystem = filesystem
            part.names |= {f"UUID={filesystem.uuid}", f"LABEL={filesystem.label}"} if filesystem.label else {f"UUID={filesystem.uuid}"}
            if filesystem.unclean:
                machine.problems.append((part.name, f"not unmounted cleanly ({filesystem.unclean}): what is there may differ from what is seen"))
        elif part.kind not in BARE and not all_zero(source):
            machine.problems.append((part.name, "it holds data in no format that is known here"))
    except DAMAGED as error:
        machine.problems.append((part.name, said(error)))


def all_zero(source: Source) -> bool:
    return all(zeros(source.read(at, min(1 << 20, start + length - at))) for start, length in source.data() for at in range(start, start + length, 1 << 20))


def assemble(machine: Machine) -> None:
    """Every file system finds its place in the tree of the system that mounts it; one that finds none is a problem."""
    waiting = [part for part in machine.parts if part.filesystem]
    roots = [part for part in waiting if is_root(part.filesystem)]
    if not roots:
        machine.problems.append(("disk", "no root file system was found on it (none has etc/passwd)"))
    placed: set[str] = set()
    for root in roots:
        assert root.filesystem
        tree = Tree(root.filesystem, root.name, machine.problems)
        machine.trees.append(tree)
        placed.add(root.name)
        for device, where in mounts(tree):
            part = next((p for p in waiting if any(same(device, name) for name in p.names)), None)
            if part is None:
                machine.problems.append((where, f"fstab mounts {device} there, which is on none of the disks named"))
            elif part.filesystem and where != "/":
                tree.mount(where, part.filesystem, part.name)
                placed.add(part.name)
    for part in waiting:
        if part.name in placed or not part.filesystem:
            continue
        where = guess(part.filesystem)
        tree_without = next((tree for tree in machine.trees if where and where not in tree.mounts), None)
        if where and tree_without:
            tree_without.mount(where, part.filesystem, part.name)
        else:
            machine.problems.append((part.name, "no fstab on the disk says where this file system belongs, so it was not looked into"))


def same(device: str, name: str) -> bool:
    return device == name or (device.startswith(("UUID=", "PARTUUID=")) and device.lower() == name.lower())


def names_in(filesystem: FileSystem) -> set[str]:
    try:
        return {name for name, _ in filesystem.entries(filesystem.root())}
    except DAMAGED:
        return set()


def is_root(filesystem: FileSystem | None) -> bool:
    if filesystem is None or "etc" not in names_in(filesystem):
        return False
    return Tree(filesystem, "", []).lookup("/etc/passwd") is not None


def guess(filesystem: FileSystem) -> str:
    """Where a file system belongs that no fstab names: systemd mounts these two by themselves."""
    names = {name.lower() for name in names_in(filesystem)}
    if filesystem.kind == "vfat" and "efi" in names:
        return "/boot/efi"
    if names & {"grub", "grub2"} and any(name.startswith("vmlinuz") for name in names):
        return "/boot"
    return ""


def mounts(tree: Tree) -> list[tuple[str, str]]:
    """Device and place of each line of fstab, outer places first."""
    text = tree.text("/etc/fstab")
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not words[0].startswith("#") and words[1].startswith("/") and words[2] not in ELSEWHERE and "bind" not in words[3:4]:
            device = re.sub(r"^(\w+)=\"(.*)\"$", r"\1=\2", words[0])
            device = re.sub(r"^/dev/disk/by-(uuid|label|partuuid|partlabel)/", lambda m: m.group(1).upper() + "=", device)
            found.append((device, re.sub(r"\\(\d{3})", lambda m: chr(int(m.group(1), 8)), words[1]).rstrip("/") or "/"))
    return sorted(found, key=lambda pair: pair[1].count("/"))
