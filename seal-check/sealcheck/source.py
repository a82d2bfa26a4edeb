"""Bytes that can be read anywhere: a raw image or block device, a part of another source, parts put together."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class Unreadable(Exception):
    """Something on the image cannot be read, so that nothing can be said about it. The text says what and why."""


# What a reader raises when it follows numbers that a damaged or hostile image holds.
DAMAGED = (Unreadable, IndexError, KeyError, ValueError, OverflowError, struct.error)


def zeros(content: bytes) -> bool:
    return content == bytes(len(content))


def said(error: Exception) -> str:
    """The text of such an error."""
    return str(error) if isinstance(error, Unreadable) else f"what is there makes no sense ({error})"


class Source:
    """So many bytes, from 0 to `size`."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes; Unreadable where there are none."""
        raise NotImplementedError

    def data(self) -> Iterator[tuple[int, int]]:
        """Offset and length of what may be other than zeros, in order."""
        yield 0, self.size

    def check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Unreadable(f"bytes {offset} to {offset + length} lie outside of {self.size} bytes")


class Raw(Source):
    """A raw image or a block device."""

    def __init__(self, path: Path) -> None:
        try:
            self.file = os.open(path, os.O_RDONLY)
            self.size = os.lseek(self.file, 0, os.SEEK_END)
        except OSError as error:
            raise Unreadable(f"cannot open {path}: {error.strerror}") from error

    def read(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        pieces = []
        while length:
            try:
                piece = os.pread(self.file, length, offset)
            except OSError as error:
                raise Unreadable(f"cannot read {length} bytes at {offset}: {error.strerror}") from error
            if not piece:
                raise Unreadable(f"the image ended at {offset} while it was read")
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def data(self) -> Iterator[tuple[int, int]]:
        offset = 0
        while offset < self.size:
            try:
                start = os.lseek(self.file, offset, os.SEEK_DATA)
                end = os.lseek(self.file, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                # A file system or a device that knows no holes.
                start, end = offset, self.size
            yield start, end - start
            offset = end


@dataclass
class Piece:
    """`length` bytes of `source` from `start`."""

    source: Source
    start: int
    length: int


class Joined(Source):
    """Pieces of other sources, one behind the other: a partition, a logical volume."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.size = sum(piece.length for piece in pieces)
        for piece in pieces:
            piece.source.check(piece.start, piece.length)

    def parts(self, offset: int, length: int) -> Iterator[tuple[Piece, int, int]]:
        """The pieces that these bytes lie in: offset within the piece, and length."""
        base = 0
        for piece in self.pieces:
            begin, end = max(offset, base), min(offset + length, base + piece.length)
            if begin < end:
                yield piece, begin - base, end - begin
            base += piece.length
            if base >= offset + length:
                return

    def read(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        return b"".join(piece.source.read(piece.start + begin, count) for piece, begin, count in self.parts(offset, length))

    def data(self) -> Iterator[tuple[int, int]]:
        base = 0
        for piece in self.pieces:
            for start, length in piece.source.data():
                begin, end = max(start, piece.start), min(start + length, piece.start + piece.length)
                if begin < end:
                    yield base + begin - piece.start, end - begin
            base += piece.length

    def locate(self, offset: int, length: int) -> Iterator[tuple[Source, int, int]]:
        """Where these bytes lie on what is not itself put together: source, offset, length."""
        for piece, begin, count in self.parts(offset, length):
            if isinstance(piece.source, Joined):
                yield from piece.source.locate(piece.start + begin, count)
            else:
                yield piece.source, piece.start + begin, count


def open_image(path: Path) -> Source:
    """The disk in this file: qcow2 by its first bytes, else raw."""
    from sealcheck.qcow2 import MAGIC, Qcow2

    raw = Raw(path)
    if raw.size >= len(MAGIC) and raw.read(0, len(MAGIC)) == MAGIC:
        return Qcow2(raw, path)
    return raw
