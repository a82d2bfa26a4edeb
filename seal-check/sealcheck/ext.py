"""ext2, ext3 and ext4. The format: Documentation/filesystems/ext4 in the kernel's source."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from sealcheck.filesystem import LINK, Extent, FileSystem, Node, kind_of
from sealcheck.source import Source, Unreadable

RECOVER, META_GROUPS, WIDE = 0x4, 0x10, 0x80
# filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, dirdata, csum_seed, largedir, inline_data, encrypt, casefold
KNOWN = 0x2 | RECOVER | META_GROUPS | 0x40 | WIDE | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
ENCRYPTED, BY_EXTENTS, INLINE = 0x800, 0x80000, 0x10000000
UNWRITTEN = 32768
MAX_DEPTH = 5
SYSTEM = 7


class Ext(FileSystem):
    """An ext file system on a source. Its journal is not replayed: one that holds changes is said in `unclean`."""

    kind = "ext4"

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        block = source.read(1024, 1024)
        self.inodes, low = struct.unpack_from("<II", block)
        first, log = struct.unpack_from("<II", block, 20)
        per_group, _, self.inodes_per_group = struct.unpack_from("<III", block, 32)
        (old,) = struct.unpack_from("<I", block, 76)
        self.inode_size = struct.unpack_from("<H", block, 88)[0] if old else 128
        (self.incompatible,) = struct.unpack_from("<I", block, 96)
        self.uuid = str(uuid.UUID(bytes=block[104:120]))
        self.label = block[120:136].rstrip(b"\0").decode(errors="replace")
        if self.incompatible & ~KNOWN:
            raise Unreadable(f"this ext4 has features that are not known here ({self.incompatible & ~KNOWN:#x})")
        if log > 6 or self.inode_size < 128 or not per_group or not self.inodes_per_group:
            raise Unreadable("the superblock of this ext4 is damaged")
        self.block = 1024 << log
        if self.incompatible & RECOVER:
            self.unclean = "its journal holds changes that were not yet written to their places"
        wide = bool(self.incompatible & WIDE)
        self.descriptor = struct.unpack_from("<H", block, 254)[0] if wide else 32
        blocks = low | (struct.unpack_from("<I", block, 336)[0] << 32 if wide else 0)
        groups = -(-(blocks - first) // per_group)
        self.tables = [self._table(first, per_group, struct.unpack_from("<I", block, 260)[0], group) for group in range(groups)]

    def _table(self, first: int, per_group: int, first_meta: int, group: int) -> int:
        """Where the inodes of a group lie."""
        per_block = self.block // self.descriptor
        index, within = divmod(group, per_block)
        if self.incompatible & META_GROUPS and index >= first_meta:
            start = first + index * per_block * per_group
            # A group that holds a copy of the superblock has its descriptors behind it.
            block = start + (1 if has_super(index * per_block) else 0)
        else:
            block = first + 1 + index
        raw = self.source.read(block * self.block + within * self.descriptor, self.descriptor)
        (table,) = struct.unpack_from("<I", raw, 8)
        return table | (struct.unpack_from("<I", raw, 40)[0] << 32 if self.descriptor >= 64 else 0)

    def root(self) -> Node:
        return self.node(2)

    def node(self, number: int) -> Node:
        if not 1 <= number <= self.inodes:
            raise Unreadable(f"inode {number} lies outside of the file system")
        group, index = divmod(number - 1, self.inodes_per_group)
        raw = self.source.read(self.tables[group] * self.block + index * self.inode_size, self.inode_size)
        mode, uid = struct.unpack_from("<HH", raw)
        size = struct.unpack_from("<I", raw, 4)[0] | struct.unpack_from("<I", raw, 108)[0] << 32
        uid |= struct.unpack_from("<H", raw, 120)[0] << 16
        if not mode:
            raise Unreadable(f"inode {number} is not in use")
        return Node(number, kind_of(mode), mode & 0o7777, uid, size, raw)

    def _flags(self, node: Node) -> int:
        flags: int = struct.unpack_from("<I", node.inner, 32)[0]
        if flags & ENCRYPTED:
            raise Unreadable(f"inode {node.number} is encrypted")
        return flags

    def inline(self, node: Node) -> bytes | None:
        flags = self._flags(node)
        if flags & INLINE:
            return (node.inner[40:100] + self._attribute(node.inner, SYSTEM, b"data"))[: node.size]
        if node.kind == LINK and not flags & BY_EXTENTS and node.size < 60:
            content: bytes = node.inner[40 : 40 + node.size]
            return content
        return None

    @staticmethod
    def _attribute(raw: bytes, index: int, name: bytes) -> bytes:
        """An extended attribute that lies in the inode; b"" if there is none."""
        at = 128 + struct.unpack_from("<H", raw, 128)[0] if len(raw) > 130 else len(raw)
        if raw[at : at + 4] != b"\x00\x00\x02\xea":
            return b""
        base = at = at + 4
        while at + 16 <= len(raw) and raw[at : at + 4] != bytes(4):
            length, kind, offset = struct.unpack_from("<BBH", raw, at)
            (size,) = struct.unpack_from("<I", raw, at + 8)
            if kind == index and raw[at + 16 : at + 16 + length] == name:
                return raw[base + offset : base + offset + size]
            at += (16 + length + 3) & ~3
        return b""

    def extents(self, node: Node) -> Iterator[Extent]:
        flags = self._flags(node)
        if flags & INLINE:
            return
        if flags & BY_EXTENTS:
            yield from self._tree(node, node.inner[40:100], None)
            return
        for logical, block in enumerate(self._mapped(node)):
            if block:
                yield Extent(logical * self.block, block * self.block, self.block)

    def _tree(self, node: Node, raw: bytes, expected: int | None) -> Iterator[Extent]:
        mark, count, _, level = struct.unpack_from("<HHHH", raw)
        # A level that does not go down would go in a circle.
        if mark != 0xF30A or level > MAX_DEPTH or expected not in (None, level) or 12 + count * 12 > len(raw):
            raise Unreadable(f"the tree of extents of inode {node.number} is damaged")
        for at in range(12, 12 + count * 12, 12):
            if level:
                low, high = struct.unpack_from("<IH", raw, at + 4)
                yield from self._tree(node, self.source.read((low | high << 32) * self.block, self.block), level - 1)
                continue
            logical, length, high, low = struct.unpack_from("<IHHI", raw, at)
            if length <= UNWRITTEN:
                yield Extent(logical * self.block, (low | high << 32) * self.block, length * self.block)

    def _mapped(self, node: Node) -> Iterator[int]:
        """The block of each block of the file, 0 for a hole, as ext2 and ext3 note them."""
        wanted = -(-node.size // self.block)
        pointers = struct.unpack_from("<15I", node.inner, 40)
        per_block = self.block // 4

        def below(block: int, depth: int) -> Iterator[int]:
            if depth == 0:
                yield block
            elif not block:
                yield from (0 for _ in range(per_block**depth))
            else:
                for entry in struct.unpack(f"<{per_block}I", self.source.read(block * self.block, self.block)):
                    yield from below(entry, depth - 1)

        for index, pointer in enumerate(pointers):
            for block in below(pointer, max(0, index - 11)):
                if wanted <= 0:
                    return
                wanted -= 1
                yield block

    def entries(self, node: Node) -> list[tuple[str, int]]:
        content = self.inline(node)
        if content is not None:
            # The parent's number stands in place of `.` and `..`; what follows is in two parts, neither goes over the edge.
            parts = [content[4:60], content[60:]]
        else:
            whole = self.read(node)
            parts = [whole[at : at + self.block] for at in range(0, len(whole), self.block)]
        return [entry for part in parts for entry in self._block(node, part)]

    def _block(self, node: Node, raw: bytes) -> Iterator[tuple[str, int]]:
        at = 0
        while at + 8 <= len(raw):
            number, length, name_length = struct.unpack_from("<IHB", raw, at)
            if length < 8 or at + length > len(raw):
                raise Unreadable(f"a block of directory {node.number} is damaged")
            name = raw[at + 8 : at + 8 + name_length].decode(errors="surrogateescape")
            if number and name not in (".", ".."):
                yield name, number
            at += length


def has_super(group: int) -> bool:
    """Under sparse_super: groups 0, 1 and the powers of 3, 5 and 7."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False
