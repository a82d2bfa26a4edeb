"""What the checks say: findings, notes and problems, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Identity:
    """One kind of thing that must not be cloned. `patterns` are the files that are it by lying there with content."""

    name: str
    what: str
    why: str
    remove: str
    patterns: tuple[str, ...] = ()
    # Not matched although a pattern does.
    spared: tuple[str, ...] = ()
    # True: worth knowing, but no reason to reject the image.
    note: bool = False


@dataclass(frozen=True)
class Finding:
    """One identity in one place."""

    identity: str
    path: str
    what: str
    why: str
    remove: str


@dataclass
class Report:
    """All that was found. `allowed` are identities that were asked not to count."""

    allowed: frozenset[str] = frozenset()
    # Secrets in free space count too.
    strict: bool = False
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    looked_at: list[str] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def add(self, identity: Identity, path: str, detail: str = "") -> None:
        self.paths.add(path)
        what = f"{identity.what}: {detail}" if detail else identity.what
        finding = Finding(identity.name, path, what, identity.why, identity.remove)
        note = identity.note and not (self.strict and identity.name == "remains")
        where = self.notes if note or identity.name in self.allowed else self.findings
        if finding not in where:
            where.append(finding)

    def knows(self, path: str) -> bool:
        """Was this path found already, or a directory that it lies in?"""
        parts = path.split("/")
        return any("/".join(parts[:count]) in self.paths for count in range(2, len(parts) + 1))

    @property
    def verdict(self) -> str:
        return "unread" if self.problems else "found" if self.findings else "clean"

    @property
    def exit_code(self) -> int:
        return {"clean": 0, "found": 1, "unread": 2}[self.verdict]

    def as_json(self) -> str:
        return json.dumps(
            {
                "verdict": self.verdict,
                "findings": [asdict(finding) for finding in self.findings],
                "notes": [asdict(note) for note in self.notes],
                "problems": [{"where": printable(where), "why": why} for where, why in self.problems],
                "looked_at": self.looked_at,
            },
            indent=2,
        )

    def as_text(self, width: int = 0) -> str:
        width = width or shutil.get_terminal_size((120, 24)).columns
        lines = [f"looked at  {place}" for place in self.looked_at]
        for identity in dict.fromkeys(finding.identity for finding in self.findings):
            group = [finding for finding in self.findings if finding.identity == identity]
            lines.append(f"\nFOUND      {identity}")
            for finding in group:
                lines += wrapped("           ", f"{finding.path}  {finding.what}", width)
            lines += wrapped("           why:    ", group[0].why, width)
            lines += wrapped("           remove: ", group[0].remove, width)
        if self.notes:
            lines.append("")
        for note in self.notes:
            lines += wrapped(f"note       {note.identity:<18} ", f"{note.path}  {note.what}", width)
        for where, why in self.problems:
            lines += ["", *wrapped("NOT READ   ", f"{printable(where)}: {why}", width)]
        count = len(self.findings)
        summary = {
            "clean": "clean: no identity is left",
            "found": f"{count} {'identity is' if count == 1 else 'identities are'} left; each clone of this image would share {'it' if count == 1 else 'them'}",
            "unread": f"not everything could be read, so the image cannot be called clean ({count} found so far)",
        }[self.verdict]
        return "\n".join([*lines, "", summary])


def wrapped(indent: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(printable(text), max(60, width), initial_indent=indent, subsequent_indent=" " * len(indent), break_long_words=False)


def printable(text: str) -> str:
    """Names come from the image: nothing in them may steer a terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
