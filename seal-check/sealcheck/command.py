"""The command `seal-check`: its words, its exit codes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sealcheck import checks, inspect, scan
from sealcheck.catalogue import CATALOGUE
from sealcheck.report import Identity
from sealcheck.scan import Forbidden
from sealcheck.source import DAMAGED, Source, Unreadable, open_image, said

DESCRIPTION = (
    "Lists the identities that the disk of a sealed template still holds. "
    "The disk is read from outside: nothing of the guest runs, nothing is mounted, no root is needed."
)
EPILOG = "Exit codes: 0 no identity is left, 1 some are, 2 something could not be read (or the call is wrong)."


def identities() -> dict[str, Identity]:
    """Every identity that is known, by name."""
    found = list(CATALOGUE)
    for module in (checks, inspect, scan):
        found += [value for value in vars(module).values() if isinstance(value, Identity)]
    return {identity.name: identity for identity in sorted(found, key=lambda identity: identity.name)}


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="seal-check", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("disks", nargs="*", type=Path, metavar="DISK", help="qcow2, raw image or block device; all disks of one template")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--allow", action="append", default=[], metavar="IDENTITY", help="an identity that is meant to be in the image: it becomes a note")
    parser.add_argument(
        "--forbid", action="append", default=[], metavar="TEXT", help="a text that must be nowhere on the disk; others see it among the processes, so better:"
    )
    parser.add_argument("--forbid-file", action="append", default=[], type=Path, metavar="FILE", help="such texts, one a line")
    parser.add_argument("--strict", action="store_true", help="secrets of removed files, in free space, count as findings")
    parser.add_argument("--list", action="store_true", help="print the identities that are looked for, and end")
    arguments = parser.parse_args(words)
    if not arguments.disks and not arguments.list:
        parser.error("name a disk")
    unknown = sorted(set(arguments.allow) - set(identities()))
    if unknown:
        parser.error(f"--allow names {', '.join(unknown)}; the identities are: {', '.join(identities())}")
    return arguments


def forbidden(arguments: argparse.Namespace) -> list[Forbidden]:
    """The texts to look for, with names that do not give them away."""
    found = [Forbidden(f"--forbid number {number}", text.encode(errors="surrogateescape")) for number, text in enumerate(arguments.forbid, 1)]
    for path in arguments.forbid_file:
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise Unreadable(f"cannot read {path}: {error.strerror}") from error
        found += [Forbidden(f"line {number} of {path.name}", line) for number, line in enumerate(lines, 1) if line.strip()]
        if not any(line.strip() for line in lines):
            raise Unreadable(f"{path} names no text")
    short = [item.name for item in found if len(item.text) < 4]
    if short:
        raise Unreadable(f"{short[0]} is shorter than four bytes, which any disk holds by chance")
    return found


def main(words: list[str] | None = None) -> int:
    arguments = parse(words)
    if arguments.list:
        for identity in identities().values():
            print(f"{identity.name:<18}{'note  ' if identity.note else '      '}{identity.what}")
        return 0
    try:
        texts = forbidden(arguments)
        disks: list[tuple[str, Source]] = [(path.name, open_image(path)) for path in arguments.disks]
    except DAMAGED as error:
        print(f"seal-check: {said(error)}", file=sys.stderr)
        return 2
    report = inspect.inspect(disks, frozenset(arguments.allow), texts, strict=arguments.strict)
    try:
        print(report.as_json() if arguments.json else report.as_text())
    except BrokenPipeError:
        # Whoever read has seen enough; the exit code still counts.
        sys.stderr.close()
    return report.exit_code
