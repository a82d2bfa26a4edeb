"""What the readers of XFS, ext and FAT have in common, and which of them reads a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sealcheck.source import Source, Unreadable

FILE, DIRECTORY, LINK, OTHER = "file", "directory", "link", "other"
KINDS = {0x8000: FILE, 0x4000: DIRECTORY, 0xA000: LINK}
# A guest can write any size into an inode; more than this is never needed at once.
MAX_READ = 256 << 20


@dataclass(frozen=True)
class Extent:
    """`length` bytes at `logical` of a file lie at `physical` of the source."""

    logical: int
    physical: int
    length: int


@dataclass(frozen=True)
class Node:
    """A file, directory, link or something else (pipe, device). `number` is its inode's, or what serves as such."""

    number: int
    kind: str
    mode: int
    uid: int
    size: int
    # What the reader of this file system needs to find the content.
    inner: Any = field(repr=False, compare=False, default=None)


class FileSystem:
    """A file system on a source, read without trust in any of its numbers."""

    kind = ""
    # How names are compared.
    case_sensitive = True

    def __init__(self, source: Source) -> None:
        self.source = source
        self.uuid = ""
        self.label = ""
        # Why what is read may be older than what the guest wrote; "" if it was unmounted cleanly.
        self.unclean = ""

    def root(self) -> Node:
        raise NotImplementedError

    def node(self, number: int) -> Node:
        raise NotImplementedError

    def entries(self, node: Node) -> list[tuple[str, int]]:
        """Names and numbers in a directory, without `.` and `..`; bytes that are no UTF-8 become surrogates."""
        raise NotImplementedError

    def extents(self, node: Node) -> Iterator[Extent]:
        """Where the content of a file lies, in order; what was reserved and never written is left out."""
        raise NotImplementedError

    def inline(self, node: Node) -> bytes | None:
        """The content, where it lies in the inode itself."""
        return None

    def link(self, node: Node) -> str:
        """Where a symbolic link leads."""
        return self.read(node, 4096).decode(errors="surrogateescape")

    def read(self, node: Node, limit: int = MAX_READ) -> bytes:
        """The first `limit` bytes of a file, holes as zeros."""
        size = min(node.size, limit, MAX_READ)
        content = self.inline(node)
        if content is not None:
            return content[:size]
        result = bytearray()
        for extent in self.extents(node):
            if extent.logical >= size:
                break
            result.extend(bytes(max(0, extent.logical - len(result))))
            result.extend(self.source.read(extent.physical, min(extent.length, size - extent.logical)))
        result.extend(bytes(size - len(result)))
        return bytes(result)

    def read_at(self, node: Node, extents: list[Extent], offset: int, length: int) -> bytes:
        """Bytes from the middle of a file, of which the extents are at hand."""
        result = bytearray(length)
        for extent in extents:
            begin, end = max(offset, extent.logical), min(offset + length, extent.logical + extent.length)
            if begin < end:
                result[begin - offset : end - offset] = self.source.read(extent.physical + begin - extent.logical, end - begin)
        return bytes(result)


def kind_of(mode: int) -> str:
    return KINDS.get(mode & 0xF000, OTHER)


# What can be recognised but is not read: offset, mark, name.
STRANGERS = (
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "encrypted with LUKS"),
    (0x1000 + 0, b"\xfc\x4e\x2b\xa9", "bcache or md RAID"),
    (0x400, b"\x10\x20\xf5\xf2", "f2fs"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"NTFS    ", "NTFS"),
)


def stranger(source: Source) -> str:
    """The name of a format that is recognised and not read; "" if none is."""
    for offset, mark, name in STRANGERS:
        if source.size >= offset + len(mark) and source.read(offset, len(mark)) == mark:
            return name
    return ""


def open_filesystem(source: Source) -> FileSystem | None:
    """The file system on a source, or None where there is none that is known."""
    from sealcheck.ext import Ext
    from sealcheck.fat import Fat
    from sealcheck.xfs import Xfs

    if source.size >= 512 and source.read(0, 4) == b"XFSB":
        return Xfs(source)
    if source.size >= 2048 and source.read(1080, 2) == b"\x53\xef":
        return Ext(source)
    name = stranger(source)
    if name:
        raise Unreadable(f"it is {name}, which is not read here")
    if Fat.recognise(source):
        return Fat(source)
    return None
