"""XFS, versions 4 and 5. The format: "XFS Algorithms & Data Structures" of the kernel's documentation."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from sealcheck.filesystem import Extent, FileSystem, Node, kind_of
from sealcheck.source import Source, Unreadable

LOCAL, EXTENTS, BTREE = 1, 2, 3
# Features of the superblock that change how things are read: those known here, and what the others are called.
FTYPE, META_UUID, BIGTIME, NREXT64 = 0x1, 0x4, 0x8, 0x20
KNOWN = FTYPE | 0x2 | META_UUID | BIGTIME | NREXT64 | 0x40 | 0x80
NEEDS_REPAIR = 0x10
REALTIME = 1
BIG_EXTENT_COUNT = 1 << 4
# A directory's blocks lie below this offset, its index above.
LEAF = 1 << 35
UNMOUNT = 0x20


class Xfs(FileSystem):
    """An XFS on a source. Its log is not replayed: one that holds changes is said in `unclean`."""

    kind = "xfs"

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        block = source.read(0, 512)
        (self.block, self.blocks) = struct.unpack_from(">IQ", block, 4)
        self.uuid = str(uuid.UUID(bytes=block[32:48]))
        log, self.root_number = struct.unpack_from(">QQ", block, 48)
        self.group_blocks, self.groups, _, log_blocks, version = struct.unpack_from(">IIIIH", block, 84)
        (self.inode_size,) = struct.unpack_from(">H", block, 104)
        self.label = block[108:120].rstrip(b"\0").decode(errors="replace")
        self.inodes_log, self.group_log, self.dir_log = block[123], block[124], block[192]
        self.v5 = version & 0xF == 5
        incompatible = struct.unpack_from(">I", block, 216)[0] if self.v5 else 0
        if not self.v5 and version & 0xF != 4:
            raise Unreadable(f"XFS of version {version & 0xF}; known are 4 and 5")
        if incompatible & NEEDS_REPAIR:
            raise Unreadable("this XFS is marked as needing xfs_repair")
        if incompatible & ~KNOWN:
            raise Unreadable(f"this XFS has features that are not known here ({incompatible & ~KNOWN:#x})")
        if not 512 <= self.block <= 65536 or not 256 <= self.inode_size <= 2048 or self.dir_log > 7 or not self.group_blocks:
            raise Unreadable("the superblock of this XFS is damaged")
        self.ftype = bool(incompatible & FTYPE) or (not self.v5 and bool(struct.unpack_from(">I", block, 200)[0] & 0x200))
        self.core = 176 if self.v5 else 100
        if not log:
            self.unclean = "its log is on another device"
        else:
            self.unclean = self._log(self._address(log), log_blocks * self.block)

    def _address(self, block: int) -> int:
        group, within = block >> self.group_log, block & (1 << self.group_log) - 1
        return (group * self.group_blocks + within) * self.block

    def _log(self, start: int, length: int) -> str:
        """A log that ends in the record of an unmount holds nothing that is not in its place."""
        log = self.source.read(start, length)
        newest, at = (0, 0), -1
        mark = log.find(b"\xfe\xed\xba\xbe")
        while mark >= 0:
            if mark % 512 == 0:
                number = struct.unpack_from(">II", log, mark + 16)
                if number >= newest:
                    newest, at = number, mark
            mark = log.find(b"\xfe\xed\xba\xbe", mark + 4)
        if at < 0:
            return ""
        (operations,) = struct.unpack_from(">I", log, at + 40)
        (size,) = struct.unpack_from(">I", log, at + 320)
        # Version 2 of the log may have a header of several sectors.
        headers = max(1, -(-size // 32768)) if struct.unpack_from(">I", log, at + 8)[0] & 2 else 1
        body = (at + 512 * headers) % length
        if operations == 1 and log[body + 9] & UNMOUNT:
            return ""
        return "its log holds changes that were not yet written to their places"

    def root(self) -> Node:
        return self.node(self.root_number)

    def node(self, number: int) -> Node:
        group = number >> (self.group_log + self.inodes_log)
        block = number >> self.inodes_log & (1 << self.group_log) - 1
        index = number & (1 << self.inodes_log) - 1
        if group >= self.groups or block >= self.group_blocks:
            raise Unreadable(f"inode {number} lies outside of the file system")
        at = (group * self.group_blocks + block) * self.block + index * self.inode_size
        raw = self.source.read(at, self.inode_size)
        if raw[:2] != b"IN":
            raise Unreadable(f"inode {number} is none")
        (mode,) = struct.unpack_from(">H", raw, 2)
        (uid,) = struct.unpack_from(">I", raw, 8)
        (size,) = struct.unpack_from(">Q", raw, 56)
        if struct.unpack_from(">H", raw, 90)[0] & REALTIME:
            raise Unreadable(f"the content of inode {number} lies on a realtime device")
        return Node(number, kind_of(mode), mode & 0o7777, uid, size, raw)

    def _fork(self, raw: bytes) -> bytes:
        """The part of the inode that tells of its content."""
        size = raw[82] * 8 or self.inode_size - self.core
        return raw[self.core : self.core + size]

    def inline(self, node: Node) -> bytes | None:
        return self._fork(node.inner)[: node.size] if node.inner[5] == LOCAL else None

    def _records(self, node: Node) -> Iterator[tuple[int, int, int, bool]]:
        """First block in the file, block on the disk, blocks, whether written."""
        raw = node.inner
        fork = self._fork(raw)
        if raw[5] == EXTENTS:
            big = self.v5 and struct.unpack_from(">Q", raw, 120)[0] & BIG_EXTENT_COUNT
            count = struct.unpack_from(">Q", raw, 24)[0] if big else struct.unpack_from(">I", raw, 76)[0]
            if count * 16 > len(fork):
                raise Unreadable(f"inode {node.number} has more extents than fit")
            yield from self._unpack(fork, count)
        elif raw[5] == BTREE:
            level, count = struct.unpack_from(">HH", fork)
            pointers = 4 + (len(fork) - 4) // 16 * 8
            for index in range(count):
                (block,) = struct.unpack_from(">Q", fork, pointers + index * 8)
                yield from self._tree(node, block, level - 1)
        elif raw[5] != LOCAL:
            raise Unreadable(f"inode {node.number} has content of kind {raw[5]}")

    def _tree(self, node: Node, block: int, expected: int) -> Iterator[tuple[int, int, int, bool]]:
        raw = self.source.read(self._address(block), self.block)
        level, count = struct.unpack_from(">HH", raw, 4)
        # A level that does not go down would go in a circle.
        if raw[:4] != (b"BMA3" if self.v5 else b"BMAP") or level != expected:
            raise Unreadable(f"the tree of extents of inode {node.number} is damaged")
        header = 72 if self.v5 else 24
        if level == 0:
            yield from self._unpack(raw[header:], count)
            return
        pointers = header + (self.block - header) // 16 * 8
        for index in range(count):
            yield from self._tree(node, struct.unpack_from(">Q", raw, pointers + index * 8)[0], level - 1)

    @staticmethod
    def _unpack(raw: bytes, count: int) -> Iterator[tuple[int, int, int, bool]]:
        for index in range(min(count, len(raw) // 16)):
            high, low = struct.unpack_from(">QQ", raw, index * 16)
            yield high >> 9 & (1 << 54) - 1, (high & 0x1FF) << 43 | low >> 21, low & (1 << 21) - 1, not high >> 63

    def extents(self, node: Node) -> Iterator[Extent]:
        for first, block, count, written in self._records(node):
            if written:
                yield Extent(first * self.block, self._address(block), count * self.block)

    def link(self, node: Node) -> str:
        content = self.inline(node)
        if content is None:
            content = b""
            for extent in self.extents(node):
                for at in range(0, extent.length, self.block):
                    raw = self.source.read(extent.physical + at, self.block)
                    content += raw[56 : 56 + struct.unpack_from(">I", raw, 8)[0]] if raw[:4] == b"XSLM" else raw
        return content[: node.size].decode(errors="surrogateescape")

    def entries(self, node: Node) -> list[tuple[str, int]]:
        content = self.inline(node)
        if content is not None:
            return list(self._short(content))
        found: list[tuple[str, int]] = []
        size = self.block << self.dir_log
        extents = [extent for extent in self.extents(node) if extent.logical < LEAF]
        offsets = {at // size * size for extent in extents for at in range(extent.logical, extent.logical + extent.length, self.block)}
        for offset in sorted(offsets):
            found.extend(self._block(node, self.read_at(node, extents, offset, size)))
        return [(name, number) for name, number in found if name not in (".", "..")]

    def _short(self, raw: bytes) -> Iterator[tuple[str, int]]:
        count, wide = raw[0], raw[1] > 0
        width = 8 if wide else 4
        at = 2 + width
        for _ in range(count):
            length = raw[at]
            name = raw[at + 3 : at + 3 + length]
            at += 3 + length + (1 if self.ftype else 0)
            number = int.from_bytes(raw[at : at + width], "big")
            at += width
            yield name.decode(errors="surrogateescape"), number

    def _block(self, node: Node, raw: bytes) -> Iterator[tuple[str, int]]:
        mark, end = raw[:4], len(raw)
        if mark in (b"XDB3", b"XD2B"):
            end -= 8 + 8 * struct.unpack_from(">I", raw, len(raw) - 8)[0]
        elif mark not in (b"XDD3", b"XD2D"):
            raise Unreadable(f"a block of directory {node.number} is damaged")
        at = 64 if mark in (b"XDB3", b"XDD3") else 16
        while at + 12 <= end:
            if raw[at : at + 2] == b"\xff\xff":
                length = struct.unpack_from(">H", raw, at + 2)[0]
                if length < 8:
                    raise Unreadable(f"a block of directory {node.number} is damaged")
                at += length
                continue
            number, length = struct.unpack_from(">QB", raw, at)
            yield raw[at + 9 : at + 9 + length].decode(errors="surrogateescape"), number
            at += (9 + length + (1 if self.ftype else 0) + 2 + 7) & ~7
