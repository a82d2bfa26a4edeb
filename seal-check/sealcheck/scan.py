"""Every byte of the disk, free space too: forbidden texts anywhere, and secrets in what no file holds any more."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sealcheck.qcow2 import Qcow2
from sealcheck.report import Identity, Report
from sealcheck.source import DAMAGED, Joined, Source, said
from sealcheck.tree import Entry

FORBIDDEN = Identity(
    "forbidden-text",
    "a text that must not be in the image",
    "it was named as a secret of the build",
    "find out what wrote it; in free space: overwrite the file before it is removed, then fstrim with discard=on",
)
REMAINS = Identity(
    "remains",
    "secret of a file that was removed, in space that is free now",
    "no clone uses it, but root of any clone can read it from its disk",
    "fstrim --all at the end of the last script, on a disk with discard=on; or allow no secret on the disk in the first place",
    note=True,
)
CHUNK = 4 << 20
# A secret may lie over the edge of two chunks.
OVERLAP = 4096
# The first bytes to look for, which is fast; what must follow; what it is.
SHAPES = (
    (b"-----BEGIN ", re.compile(rb"-----BEGIN ([A-Z0-9]+ )?PRIVATE KEY-----\r?\n[A-Za-z0-9+/=]{40}"), "private key"),
    (b":$", re.compile(rb":\$(1|2[abxy]|5|6|7|y|gy)\$[./A-Za-z0-9$,=]{20,}:\d+:"), "line of a shadow file"),
    (b"K10", re.compile(rb"K10[0-9a-f]{64}::[a-z0-9:]*[0-9a-f]{16}"), "k3s token"),
)


@dataclass(frozen=True)
class Forbidden:
    """A text to look for; `name` stands for it in the report, which must not repeat it."""

    name: str
    text: bytes


@dataclass
class Owners:
    """Which bytes of which disk belong to which file, as far as something was written there."""

    ranges: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)
    ordered: bool = False

    def add(self, entry: Entry) -> None:
        filesystem = entry.filesystem
        if filesystem.inline(entry.node) is not None:
            return
        for extent in filesystem.extents(entry.node):
            length = min(extent.length, entry.node.size - extent.logical)
            if length <= 0:
                continue
            source = filesystem.source
            for disk, start, count in source.locate(extent.physical, length) if isinstance(source, Joined) else [(source, extent.physical, length)]:
                self.ranges.setdefault(id(disk), []).append((start, start + count, entry.path))
        self.ordered = False

    def owner(self, disk: Source, offset: int) -> str:
        """The file that this byte belongs to; "" if it is in none."""
        if not self.ordered:
            for ranges in self.ranges.values():
                ranges.sort()
            self.ordered = True
        ranges = self.ranges.get(id(disk), [])
        index = bisect.bisect_right(ranges, (offset, 1 << 63, "")) - 1
        # Files may share their blocks (reflink); the nearest start that reaches so far is enough.
        for start, end, path in ranges[max(0, index - 16) : index + 1][::-1]:
            if start <= offset < end:
                return path
        return ""


def chunks(source: Source) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of all that may be other than zeros, each with the end of the one before."""
    for start, length in source.data():
        for at in range(start, start + length, CHUNK):
            begin = max(start, at - OVERLAP)
            yield begin, source.read(begin, min(at + CHUNK, start + length) - begin)


def hits(chunk: bytes, text: bytes) -> Iterator[int]:
    at = chunk.find(text)
    while at >= 0:
        yield at
        at = chunk.find(text, at + 1)


def scan(name: str, disk: Source, owners: Owners, forbidden: list[Forbidden], report: Report) -> None:
    try:
        scan_disk(name, disk, owners, forbidden, report)
        if isinstance(disk, Qcow2):
            scan_beside(name, disk, forbidden, report)
    except DAMAGED as error:
        report.problems.append((name, f"it could not be read to its end: {said(error)}"))


def scan_disk(name: str, disk: Source, owners: Owners, forbidden: list[Forbidden], report: Report) -> None:
    seen: set[tuple[str, int]] = set()
    for base, chunk in chunks(disk):
        for item in forbidden:
            for at in hits(chunk, item.text):
                if (item.name, base + at) not in seen:
                    seen.add((item.name, base + at))
                    owner = owners.owner(disk, base + at)
                    report.add(FORBIDDEN, owner or f"{name}, byte {base + at}", item.name if owner else f"{item.name}, in no file")
        for mark, shape, what in SHAPES:
            for at in hits(chunk, mark):
                if (what, base + at) not in seen and shape.match(chunk, at) and not owners.owner(disk, base + at):
                    seen.add((what, base + at))
                    report.add(REMAINS, f"{name}, byte {base + at}", what)


def scan_beside(name: str, disk: Qcow2, forbidden: list[Forbidden], report: Report) -> None:
    """What an image file holds beside the disk that it presents: snapshots, and clusters that were given up."""
    if disk.snapshots:
        report.problems.append(
            (name, f"it holds {disk.snapshots} internal snapshot(s) with older states of the disk, which are searched only for forbidden texts")
        )
    if not forbidden:
        return
    current = disk.host_clusters()
    for base, chunk in chunks(disk.raw):
        for item in forbidden:
            for at in hits(chunk, item.text):
                if (base + at) // disk.cluster not in current:
                    report.add(FORBIDDEN, f"{name}, byte {base + at} of the file", f"{item.name}, beside the disk it presents")
