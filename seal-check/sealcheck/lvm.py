"""LVM2: physical volumes and the logical volumes on them, linear and striped. The format: lib/format_text in LVM2's source."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

from sealcheck.source import Joined, Piece, Source, Unreadable

SECTOR = 512
LABEL, KIND = b"LABELONE", b"LVM2 001"
TOKEN = re.compile(r'\s+|#[^\n]*|"((?:[^"\\]|\\.)*)"|([A-Za-z0-9_.+-]+)|([={}\[\],])')
# Segments that lie on the disks as they are; the data of others (thin, raid, cache, ..) is arranged in ways not read here.
PLAIN = "striped"


@dataclass
class Physical:
    """A physical volume: its id, and the text that describes its group."""

    id: str
    source: Source
    text: str


@dataclass
class Volume:
    """A logical volume; `source` is None where its data is arranged in a way that is not read here, which `kind` names."""

    group: str
    name: str
    source: Source | None
    kind: str


def physical(source: Source) -> Physical | None:
    """What the label in the first four sectors says; None if there is none."""
    for sector in range(4):
        if source.size < (sector + 1) * SECTOR:
            return None
        label = source.read(sector * SECTOR, SECTOR)
        if label[:8] == LABEL and label[24:32] == KIND:
            break
    else:
        return None
    at = struct.unpack_from("<I", label, 20)[0]
    name = label[at : at + 32].decode("ascii", "replace")
    at += 40
    areas: list[list[tuple[int, int]]] = [[], []]
    for group in areas:
        while at + 16 <= SECTOR:
            start, size = struct.unpack_from("<QQ", label, at)
            at += 16
            if not start:
                break
            group.append((start, size))
    for start, _ in areas[1]:
        text = metadata(source, start)
        if text:
            return Physical(name, source, text)
    return Physical(name, source, "")


def metadata(source: Source, start: int) -> str:
    """The text of one metadata area, which is a ring behind its first sector."""
    header = source.read(start, SECTOR)
    if header[4:20] != b" LVM2 x[5A%r0N*>":
        raise Unreadable("the metadata of an LVM physical volume is damaged")
    size = struct.unpack_from("<Q", header, 32)[0]
    offset, length = struct.unpack_from("<QQ", header, 40)
    if not offset or not length:
        return ""
    first = min(length, size - offset)
    text = source.read(start + offset, first)
    if length > first:
        text += source.read(start + SECTOR, length - first)
    return text.rstrip(b"\0").decode("utf-8", "replace")


def parse(text: str) -> dict[str, Any]:
    """The text as nested dicts; values are strings, lists of strings."""
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise Unreadable(f"the metadata of LVM has {text[at : at + 20]!r}, which is not understood")
        at = match.end()
        if match.group(1) is not None:
            tokens.append(("value", re.sub(r"\\(.)", r"\1", match.group(1))))
        elif match.group(2) is not None:
            tokens.append(("value", match.group(2)))
        elif match.group(3):
            tokens.append((match.group(3), match.group(3)))
    stack: list[dict[str, Any]] = [{}]
    i = 0
    try:
        while i < len(tokens):
            kind, word = tokens[i]
            if kind == "}":
                stack.pop()
                i += 1
            elif tokens[i + 1][0] == "{":
                inner: dict[str, Any] = {}
                stack[-1][word] = inner
                stack.append(inner)
                i += 2
            elif tokens[i + 1][0] == "=" and tokens[i + 2][0] == "[":
                end = next(j for j in range(i + 3, len(tokens)) if tokens[j][0] == "]")
                stack[-1][word] = [value for kind, value in tokens[i + 3 : end] if kind == "value"]
                i = end + 1
            elif tokens[i + 1][0] == "=":
                stack[-1][word] = tokens[i + 2][1]
                i += 3
            else:
                raise Unreadable(f"the metadata of LVM has {word!r} where a name is expected")
    except (IndexError, StopIteration) as error:
        raise Unreadable("the metadata of LVM ends in the middle") from error
    return stack[0]


def volumes(disks: list[Physical]) -> list[Volume]:
    """Every logical volume that a machine with these disks has."""
    by_id = {disk.id: disk.source for disk in disks}
    groups: dict[str, tuple[int, dict[str, Any]]] = {}
    for disk in disks:
        for name, value in parse(disk.text).items() if disk.text else ():
            if isinstance(value, dict) and "extent_size" in value:
                sequence = int(value.get("seqno", "0"))
                # Copies on several disks may differ in age.
                if name not in groups or sequence > groups[name][0]:
                    groups[name] = (sequence, value)
    found = []
    for group, (_, text) in groups.items():
        extent = int(text["extent_size"]) * SECTOR
        places = {name: (by_id.get(value["id"].replace("-", "")), int(value["pe_start"]) * SECTOR) for name, value in text.get("physical_volumes", {}).items()}
        for name, value in text.get("logical_volumes", {}).items():
            if "VISIBLE" in value.get("status", []):
                found.append(volume(group, name, value, places, extent))
    return found


def volume(group: str, name: str, text: dict[str, Any], places: dict[str, tuple[Source | None, int]], extent: int) -> Volume:
    pieces: list[Piece] = []
    segments = sorted((value for key, value in text.items() if re.fullmatch(r"segment\d+", key)), key=lambda s: int(s["start_extent"]))
    for segment in segments:
        kind = segment["type"]
        if kind != PLAIN:
            return Volume(group, name, None, f"is of type {kind}")
        stripes = list(zip(segment["stripes"][::2], segment["stripes"][1::2]))
        length = int(segment["extent_count"]) * extent
        # One stripe is laid out whole, several in turns.
        chunk = int(segment["stripe_size"]) * SECTOR if len(stripes) > 1 else length
        for turn in range(length // chunk // len(stripes)):
            for place, first in stripes:
                source, start = places[place]
                if source is None:
                    return Volume(group, name, None, f"needs the disk of its physical volume {place}; name every disk of the template")
                pieces.append(Piece(source, start + int(first) * extent + turn * chunk, chunk))
    return Volume(group, name, Joined(pieces), "linear or striped")
