"""QCOW2, versions 2 and 3, with backing files. The format: docs/interop/qcow2.txt in QEMU's source."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sealcheck.source import Raw, Source, Unreadable

MAGIC = b"QFI\xfb"
DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION, EXTENDED_L2 = 1, 2, 4, 8, 16
BACKING_FORMAT, END = 0xE2792ACA, 0
ADDRESS = 0x00FFFFFFFFFFFE00
COMPRESSED = 1 << 62
ZERO = 1
# A chain of more is a loop.
MAX_DEPTH = 32


class Qcow2(Source):
    """The disk that the image presents. `snapshots` counts internal ones, which hold older states of the same disk."""

    def __init__(self, raw: Raw, path: Path, depth: int = 0) -> None:
        self.raw = raw
        header = raw.read(0, min(raw.size, 512)).ljust(512, b"\0")
        (version, backing, backing_size, bits, self.size, encryption, entries, table) = struct.unpack_from(">IQIIQIIQ", header, 4)
        if version not in (2, 3):
            raise Unreadable(f"{path} is QCOW2 of version {version}; known are 2 and 3")
        incompatible, header_size = (struct.unpack_from(">Q", header, 72)[0], struct.unpack_from(">I", header, 100)[0]) if version == 3 else (0, 72)
        if encryption:
            raise Unreadable(f"{path} is encrypted")
        for bit, what in ((EXTERNAL_DATA, "an external data file"), (EXTENDED_L2, "subclusters"), (CORRUPT, "the mark of a corrupt image")):
            if incompatible & bit:
                raise Unreadable(f"{path} has {what}, which is not read here; `qemu-img convert -O raw` makes an image that is")
        if incompatible & ~(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2):
            raise Unreadable(f"{path} has features that are not known here ({incompatible:#x})")
        self.zstd = bool(incompatible & COMPRESSION) and header[104] == 1
        self.snapshots = struct.unpack_from(">I", header, 60)[0]
        if not 9 <= bits <= 21:
            raise Unreadable(f"{path} has clusters of 2^{bits} bytes")
        self.bits = bits
        self.cluster = 1 << bits
        self.l1 = struct.unpack(f">{entries}Q", raw.read(table, 8 * entries))
        self.read_l2 = lru_cache(maxsize=64)(self._read_l2)
        self.backing = self._open_backing(path, backing, backing_size, header_size, depth)

    def _open_backing(self, path: Path, offset: int, size: int, header_size: int, depth: int) -> Source | None:
        if not offset:
            return None
        if depth >= MAX_DEPTH:
            raise Unreadable(f"{path}: the chain of backing files does not end")
        name = self.raw.read(offset, size).decode(errors="surrogateescape")
        if name.startswith("json:"):
            raise Unreadable(f"{path} names its backing file in JSON, which is not read here; `qemu-img convert -O raw` makes an image that is")
        form = ""
        at = header_size
        while at + 8 <= offset:
            kind, length = struct.unpack(">II", self.raw.read(at, 8))
            if kind == END:
                break
            if kind == BACKING_FORMAT:
                form = self.raw.read(at + 8, length).decode(errors="replace")
            at += 8 + (length + 7 & ~7)
        base = path.parent / name.removeprefix("file:")
        raw = Raw(base)
        if form != "raw" and raw.size >= 4 and raw.read(0, 4) == MAGIC:
            return Qcow2(raw, base, depth + 1)
        return raw

    def _read_l2(self, offset: int) -> tuple[int, ...]:
        return struct.unpack(f">{self.cluster // 8}Q", self.raw.read(offset, self.cluster))

    def _entry(self, cluster: int) -> int:
        index, within = divmod(cluster, self.cluster // 8)
        table = self.l1[index] & ADDRESS if index < len(self.l1) else 0
        return self.read_l2(table)[within] if table else 0

    def _inflate(self, entry: int) -> bytes:
        shift = 62 - (self.bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry >> shift & ((1 << (self.bits - 8)) - 1)) + 1
        length = min(sectors * 512 - offset % 512, self.raw.size - offset)
        packed = self.raw.read(offset, length)
        if self.zstd:
            raise Unreadable("a cluster is compressed with zstd, which is not read here; `qemu-img convert -O raw` makes an image that is")
        try:
            return zlib.decompressobj(-12).decompress(packed, self.cluster)
        except zlib.error as error:
            raise Unreadable(f"a compressed cluster at {offset} is damaged: {error}") from error

    def read(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        pieces = []
        while length:
            cluster, within = divmod(offset, self.cluster)
            count = min(length, self.cluster - within)
            entry = self._entry(cluster)
            if entry & COMPRESSED:
                piece = self._inflate(entry)[within : within + count]
            elif entry & ZERO:
                piece = bytes(count)
            elif entry & ADDRESS:
                piece = self.raw.read((entry & ADDRESS) + within, count)
            else:
                inside = min(count, max(0, self.backing.size - offset)) if self.backing else 0
                piece = self.backing.read(offset, inside) if self.backing and inside else b""
            pieces.append(piece.ljust(count, b"\0"))
            offset += count
            length -= count
        return b"".join(pieces)

    def data(self) -> Iterator[tuple[int, int]]:
        if not self.backing:
            yield from self._own()
            return
        # What lies in either, put together; a cluster of zeros over data of the backing file is only read in vain.
        start = end = 0
        for begin, length in sorted([*self._own(), *self.backing.data()]):
            if begin > end:
                if end > start:
                    yield start, end - start
                start = end = begin
            end = max(end, min(begin + length, self.size))
        if end > start:
            yield start, end - start

    def _own(self) -> Iterator[tuple[int, int]]:
        span = self.cluster * self.cluster // 8
        start = end = 0
        for index, table in enumerate(self.l1):
            if not table & ADDRESS:
                continue
            for within, entry in enumerate(self.read_l2(table & ADDRESS)):
                if not entry & (COMPRESSED | ADDRESS) or (entry & ZERO and not entry & COMPRESSED):
                    continue
                offset = index * span + within * self.cluster
                if offset >= self.size:
                    break
                if offset != end:
                    if end > start:
                        yield start, min(end, self.size) - start
                    start = offset
                end = offset + self.cluster
        if end > start:
            yield start, min(end, self.size) - start

    def host_clusters(self) -> set[int]:
        """The clusters of the file that hold the disk as it is now, as far as they are not compressed."""
        found = set()
        for table in self.l1:
            if table & ADDRESS:
                found.update((entry & ADDRESS) >> self.bits for entry in self.read_l2(table & ADDRESS) if not entry & (COMPRESSED | ZERO))
        return found
