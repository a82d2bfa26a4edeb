"""The whole look: what lies in known places, what has to be read, every file, swap, and every byte of the disk."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sealcheck.catalogue import CATALOGUE
from sealcheck.checks import CHECKS, PRIVATE_KEYS, homes
from sealcheck.filesystem import DIRECTORY, FILE, LINK
from sealcheck.machine import PAGE, Machine, Part, examine
from sealcheck.report import Identity, Report
from sealcheck.scan import Forbidden, Owners, scan
from sealcheck.source import DAMAGED, Source, said, zeros
from sealcheck.tree import Entry, Tree

SWAP = Identity(
    "swap",
    "swap space that was used",
    "memory of the machine that was built, with any secret in it",
    "swapoff, then mkswap over zeros, in the last script before seal.sh; better no swap: the kubelet refuses it",
)
DISK_NAMES = Identity(
    "disk-names",
    "UUID of a file system, volume or swap space",
    "the same in every clone, as with any copied disk; two clones' disks cannot be told apart in one machine",
    "nothing needs to: a clone's fstab and boot loader find its disk by them",
    note=True,
)
KEY_MARK = re.compile(rb"^[ \t]*-----BEGIN ([A-Z0-9]+ )?PRIVATE KEY-----", re.M)
# Larger ones are no keys, and of smaller ones all is read.
KEY_FILE = 64 << 10


def inspect(disks: list[tuple[str, Source]], allowed: frozenset[str], forbidden: list[Forbidden], strict: bool = False) -> Report:
    """Everything that can be said about these disks; `strict` makes findings of secrets in free space."""
    report = Report(allowed, strict=strict)
    machine = examine(disks)
    report.problems = machine.problems
    owners = Owners()
    for part in machine.parts:
        if part.filesystem:
            where = next((path for tree in machine.trees for path, (_, name) in tree.mounts.items() if name == part.name), "not mounted")
            report.looked_at.append(f"{part.name}: {part.filesystem.kind}, {where}")
    for tree in machine.trees:
        places(tree, report)
        for check in CHECKS:
            check(tree, report)
        swap_files(tree, report)
        sweep(tree, report, owners)
    for part in machine.swaps:
        swap(part, report)
    disk_names(machine, report)
    for name, disk in disks:
        scan(name, disk, owners, forbidden, report)
    return report


def places(tree: Tree, report: Report) -> None:
    """Files that are an identity by lying in a known place."""
    where = homes(tree)
    for identity in CATALOGUE:
        for pattern in identity.patterns:
            for path in [f"{home.rstrip('/')}{pattern[1:]}" for home in where] if pattern.startswith("~") else [pattern]:
                for entry in tree.match(path):
                    if entry.path in identity.spared or report.knows(entry.path):
                        continue
                    if entry.node.kind != DIRECTORY:
                        if has_content(tree, entry):
                            report.add(identity, entry.path)
                    # What a pattern of everything below finds in it is named on its own.
                    elif not pattern.endswith("**"):
                        count = sum(1 for below in tree.walk(entry) if has_content(tree, below) and not spared(below.path, identity))
                        if count:
                            report.add(identity, entry.path, f"{count} file{'s' if count > 1 else ''} in it")


def spared(path: str, identity: Identity) -> bool:
    return any(path == kept or path.startswith(f"{kept}/") for kept in identity.spared)


def has_content(tree: Tree, entry: Entry) -> bool:
    """Is there something in this file? Of a link, in the file that it leads to, unless that is one of the system's own."""
    if entry.node.kind == LINK:
        target = tree.lookup(entry.path)
        return target is not None and target.node.kind == FILE and target.node.size > 0 and not target.path.startswith(("/usr/", "/proc/", "/run/"))
    return entry.node.kind == FILE and entry.node.size > 0


def sweep(tree: Tree, report: Report, owners: Owners) -> None:
    """Every file once: private keys wherever they are, and which bytes of the disk are whose."""
    for entry in tree.walk():
        if entry.node.kind != FILE:
            continue
        try:
            owners.add(entry)
            size = entry.node.size
            if size < 64 or report.knows(entry.path):
                continue
            # Programs and examples of packages have the mark somewhere; a key has it at its start.
            packaged = entry.path.startswith("/usr/") and not entry.path.startswith("/usr/local/")
            head = entry.filesystem.read(entry.node, 256 if packaged or size > KEY_FILE else size)
            match = KEY_MARK.search(head)
            if match and (match.start() == 0 or not packaged):
                report.add(PRIVATE_KEYS, entry.path)
        except DAMAGED as error:
            tree.problem(entry.path, error)


def used(source: Source, start: int) -> bool:
    """Is there anything but zeros behind `start`?"""
    for at, length in source.data():
        for offset in range(max(at, start), at + length, 1 << 20):
            if not zeros(source.read(offset, min(1 << 20, at + length - offset))):
                return True
    return False


def swap(part: Part, report: Report) -> None:
    try:
        if used(part.source, PAGE):
            report.add(SWAP, part.name)
    except DAMAGED as error:
        report.problems.append((part.name, said(error)))


def swap_files(tree: Tree, report: Report) -> None:
    for line in tree.text("/etc/fstab").splitlines():
        words = line.split()
        entry = tree.lookup(words[0]) if len(words) > 2 and words[2] == "swap" and words[0].startswith("/") else None
        if entry and entry.node.kind == FILE:
            try:
                if not all(zeros(piece) for piece in pieces(entry, PAGE)):
                    report.add(SWAP, entry.path)
            except DAMAGED as error:
                tree.problem(entry.path, error)


def pieces(entry: Entry, start: int) -> Iterator[bytes]:
    """What is written in a file behind `start`."""
    for extent in entry.filesystem.extents(entry.node):
        for offset in range(max(0, start - extent.logical), extent.length, 1 << 20):
            yield entry.filesystem.source.read(extent.physical + offset, min(1 << 20, extent.length - offset))


def disk_names(machine: Machine, report: Report) -> None:
    for part in machine.parts:
        if part.filesystem and part.filesystem.uuid:
            report.add(DISK_NAMES, part.name, f"{part.filesystem.kind} {part.filesystem.uuid}")
    if machine.has_lvm:
        report.add(DISK_NAMES, "LVM", "of its volumes; its metadata also names the machine and the time they were made by")
