"""FAT12, FAT16 and FAT32 with long names. The format: Microsoft's "FAT: General Overview of On-Disk Format"."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sealcheck.filesystem import DIRECTORY, FILE, Extent, FileSystem, Node
from sealcheck.source import Source, Unreadable

LONG, VOLUME, FOLDER = 0x0F, 0x08, 0x10
# Number of the root directory, which has no entry of its own.
ROOT = 0


class Fat(FileSystem):
    """A FAT on a source. An entry is known by the offset of its short name."""

    kind = "vfat"
    case_sensitive = False

    @staticmethod
    def recognise(source: Source) -> bool:
        if source.size < 512:
            return False
        boot = source.read(0, 512)
        size, per_cluster, reserved, copies = struct.unpack_from("<HBHB", boot, 11)
        return (
            boot[510:] == b"\x55\xaa"
            and boot[0] in (0xEB, 0xE9)
            and size in (512, 1024, 2048, 4096)
            and per_cluster in (1, 2, 4, 8, 16, 32, 64, 128)
            and reserved > 0
            and copies in (1, 2)
        )

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        boot = source.read(0, 512)
        sector, per_cluster, reserved, copies, root_entries, small = struct.unpack_from("<HBHBHH", boot, 11)
        fat_size = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
        total = small or struct.unpack_from("<I", boot, 32)[0]
        self.cluster = sector * per_cluster
        self.root_start = (reserved + copies * fat_size) * sector
        self.root_size = root_entries * 32
        self.data = self.root_start + -(-self.root_size // sector) * sector
        clusters = (total * sector - self.data) // self.cluster
        self.bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
        at = 67 if self.bits == 32 else 39
        serial, label = struct.unpack_from("<I11s", boot, at)
        self.uuid = f"{serial >> 16:04X}-{serial & 0xFFFF:04X}"
        self.label = label.decode("ascii", "replace").rstrip()
        self.first = struct.unpack_from("<I", boot, 44)[0] if self.bits == 32 else 0
        self.table = source.read(reserved * sector, fat_size * sector)
        self.last = clusters + 1

    def root(self) -> Node:
        return Node(ROOT, DIRECTORY, 0o755, 0, 0, self.first)

    def node(self, number: int) -> Node:
        if number == ROOT:
            return self.root()
        raw = self.source.read(number, 32)
        (high,) = struct.unpack_from("<H", raw, 20)
        low, size = struct.unpack_from("<HI", raw, 26)
        folder = raw[11] & FOLDER
        return Node(number, DIRECTORY if folder else FILE, 0o755, 0, 0 if folder else size, low | high << 16)

    def _next(self, cluster: int) -> int:
        if self.bits == 32:
            return int(struct.unpack_from("<I", self.table, cluster * 4)[0]) & 0x0FFFFFFF
        if self.bits == 16:
            return int(struct.unpack_from("<H", self.table, cluster * 2)[0])
        (pair,) = struct.unpack_from("<H", self.table, cluster * 3 // 2)
        return int(pair >> 4 if cluster & 1 else pair & 0xFFF)

    def _chain(self, cluster: int) -> Iterator[int]:
        seen = 0
        while 2 <= cluster <= self.last:
            yield cluster
            seen += 1
            if seen > self.last:
                raise Unreadable("a chain of clusters does not end")
            cluster = self._next(cluster)

    def extents(self, node: Node) -> Iterator[Extent]:
        if node.number == ROOT and self.bits != 32:
            yield Extent(0, self.root_start, self.root_size)
            return
        for index, cluster in enumerate(self._chain(node.inner)):
            yield Extent(index * self.cluster, self.data + (cluster - 2) * self.cluster, self.cluster)

    def entries(self, node: Node) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        long: dict[int, bytes] = {}
        for extent in self.extents(node):
            raw = self.source.read(extent.physical, extent.length)
            for at in range(0, len(raw), 32):
                entry = raw[at : at + 32]
                if entry[0] == 0:
                    return found
                if entry[0] == 0xE5:
                    long = {}
                elif entry[11] == LONG:
                    long[entry[0] & 0x3F] = entry[1:11] + entry[14:26] + entry[28:32]
                elif entry[11] & VOLUME:
                    long = {}
                else:
                    name = self._name(entry, long)
                    long = {}
                    if name not in (".", ".."):
                        found.append((name, extent.physical + at))
        return found

    @staticmethod
    def _name(entry: bytes, long: dict[int, bytes]) -> str:
        if long:
            raw = b"".join(long[index] for index in sorted(long))
            return raw.decode("utf-16-le", "replace").split("\0", 1)[0]
        base, suffix = entry[:8].decode("cp437").rstrip(), entry[8:11].decode("cp437").rstrip()
        # Two bits say that Windows wrote the name in small letters.
        base = base.lower() if entry[12] & 0x08 else base
        suffix = suffix.lower() if entry[12] & 0x10 else suffix
        return f"{base}.{suffix}" if suffix else base
