"""Partition tables: GPT, and the older one of BIOS with its logical partitions."""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass

from sealcheck.source import Joined, Piece, Source, Unreadable

PROTECTIVE = 0xEE
EXTENDED = {0x05, 0x0F, 0x85}
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
# More logical partitions than any tool makes: a loop.
MAX_LOGICAL = 128


@dataclass
class Partition:
    """One partition; `name` as GRUB has it (gpt2, msdos5), `kind` a type GUID or a type byte in hexadecimal."""

    name: str
    number: int
    kind: str
    source: Source
    guid: str = ""
    label: str = ""


def partitions(disk: Source) -> list[Partition]:
    """The partitions of a disk; none if it has no table."""
    if disk.size < 512:
        return []
    boot = disk.read(0, 512)
    if boot[510:] != b"\x55\xaa":
        # A GPT without its protective record is still one.
        return gpt(disk) if has_gpt(disk) else []
    kinds = [boot[446 + 16 * i + 4] for i in range(4)]
    if PROTECTIVE in kinds or has_gpt(disk):
        return gpt(disk)
    # A boot sector of FAT ends in the same mark and has text where a table would be.
    if any(boot[446 + 16 * i] not in (0, 0x80) for i in range(4)) or not any(kinds):
        return []
    return msdos(disk, boot)


def part(disk: Source, start: int, length: int, name: str) -> Source:
    if length <= 0 or start < 0 or start + length > disk.size:
        raise Unreadable(f"partition {name} reaches from {start} to {start + length}, the disk only to {disk.size}")
    return Joined([Piece(disk, start, length)])


def msdos(disk: Source, boot: bytes) -> list[Partition]:
    found = []

    def entries(sector: bytes) -> list[tuple[int, int, int]]:
        return [(sector[at + 4], *struct.unpack_from("<II", sector, at + 8)) for at in range(446, 510, 16)]

    container = 0
    for index, (kind, start, count) in enumerate(entries(boot)):
        if kind in EXTENDED:
            container = start
        elif kind and count:
            name = f"msdos{index + 1}"
            found.append(Partition(name, index + 1, f"{kind:02x}", part(disk, start * 512, count * 512, name)))
    number, at = 5, container
    while at:
        if number > MAX_LOGICAL:
            raise Unreadable("the chain of logical partitions does not end")
        sector = disk.read(at * 512, 512)
        if sector[510:] != b"\x55\xaa":
            raise Unreadable(f"the chain of logical partitions is broken at sector {at}")
        (kind, start, count), (after, offset, _) = entries(sector)[:2]
        if kind and count:
            name = f"msdos{number}"
            found.append(Partition(name, number, f"{kind:02x}", part(disk, (at + start) * 512, count * 512, name)))
        number += 1
        at = container + offset if after in EXTENDED else 0
    return found


def has_gpt(disk: Source) -> bool:
    return any(disk.size >= 2 * sector and disk.read(sector, 8) == b"EFI PART" for sector in (512, 4096))


def gpt(disk: Source) -> list[Partition]:
    """By the first table whose checksums hold: the one in front, else the copy at the end."""
    for sector in (512, 4096):
        for at in (sector, disk.size - sector):
            table = gpt_table(disk, at, sector)
            if table is not None:
                return table
    raise Unreadable("the disk has a GPT, but neither copy of it is whole")


def gpt_table(disk: Source, at: int, sector: int) -> list[Partition] | None:
    if at < 0 or at + 512 > disk.size:
        return None
    header = disk.read(at, 512)
    size, crc = struct.unpack_from("<II", header, 12)
    if header[:8] != b"EFI PART" or not 92 <= size <= 512 or zlib.crc32(header[:16] + bytes(4) + header[20:size]) != crc:
        return None
    lba, count, width, entries_crc = struct.unpack_from("<QIII", header, 72)
    if width < 128 or count > 1024 or lba * sector + count * width > disk.size:
        return None
    entries = disk.read(lba * sector, count * width)
    if zlib.crc32(entries) != entries_crc:
        return None
    found = []
    for index in range(count):
        entry = entries[index * width : (index + 1) * width]
        if not any(entry[:16]):
            continue
        first, last = struct.unpack_from("<QQ", entry, 32)
        name = f"gpt{index + 1}"
        found.append(
            Partition(
                name,
                index + 1,
                str(uuid.UUID(bytes_le=entry[:16])),
                part(disk, first * sector, (last - first + 1) * sector, name),
                str(uuid.UUID(bytes_le=entry[16:32])),
                entry[56:128].decode("utf-16-le", "replace").split("\0", 1)[0],
            )
        )
    return found
