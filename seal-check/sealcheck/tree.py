"""The files of one system, over all of its mounted file systems: looked up, matched and walked as the machine would."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from sealcheck.filesystem import DIRECTORY, FILE, LINK, MAX_READ, FileSystem, Node
from sealcheck.source import DAMAGED, Unreadable, said

MAX_LINKS = 40


@dataclass(frozen=True)
class Entry:
    """A file where it was found; links are not followed in it."""

    path: str
    filesystem: FileSystem
    node: Node


class Tree:
    """A root file system and what is mounted in it. Places that cannot be read are added to `problems`."""

    def __init__(self, root: FileSystem, name: str, problems: list[tuple[str, str]]) -> None:
        self.name = name
        self.problems = problems
        self.mounts: dict[str, tuple[FileSystem, str]] = {"/": (root, name)}
        self.listings: dict[tuple[int, int], dict[str, int]] = {}

    def mount(self, where: str, filesystem: FileSystem, name: str) -> None:
        self.mounts[where] = (filesystem, name)

    def problem(self, path: str, error: Exception) -> None:
        entry = (path, said(error))
        if entry not in self.problems:
            self.problems.append(entry)

    def _listing(self, entry: Entry) -> dict[str, int]:
        key = (id(entry.filesystem), entry.node.number)
        if key not in self.listings:
            try:
                self.listings[key] = dict(entry.filesystem.entries(entry.node))
            except DAMAGED as error:
                self.problem(entry.path, error)
                self.listings[key] = {}
        return self.listings[key]

    def top(self) -> Entry:
        filesystem = self.mounts["/"][0]
        return Entry("/", filesystem, filesystem.root())

    def child(self, entry: Entry, name: str) -> Entry | None:
        """What a directory holds under a name, or what is mounted there."""
        path = entry.path.rstrip("/") + "/" + name
        if path in self.mounts:
            filesystem = self.mounts[path][0]
            return Entry(path, filesystem, filesystem.root())
        return self._below(entry, name, path)

    def _below(self, entry: Entry, name: str, path: str) -> Entry | None:
        listing = self._listing(entry)
        number = listing.get(name)
        if number is None and not entry.filesystem.case_sensitive:
            number = next((value for key, value in listing.items() if key.lower() == name.lower()), None)
        if number is None:
            return None
        try:
            return Entry(path, entry.filesystem, entry.filesystem.node(number))
        except DAMAGED as error:
            self.problem(path, error)
            return None

    def children(self, entry: Entry) -> list[Entry]:
        prefix = entry.path.rstrip("/") + "/"
        mounted = {path[len(prefix) :] for path in self.mounts if path.startswith(prefix) and "/" not in path[len(prefix) :]} - {""}
        found = (self.child(entry, name) for name in sorted(set(self._listing(entry)) | mounted))
        return [child for child in found if child]

    def hidden(self) -> Iterator[Entry]:
        """What lies in a directory that another file system is mounted over."""
        for where in self.mounts:
            if where == "/":
                continue
            parent = self.lookup(where.rsplit("/", 1)[0] or "/")
            name = where.rsplit("/", 1)[1]
            if parent and parent.node.kind == DIRECTORY:
                below = self._below(parent, name, where)
                if below and below.node.kind == DIRECTORY:
                    for inner in sorted(self._listing(below)):
                        entry = self._below(below, inner, f"{where}/{inner}")
                        if entry:
                            yield entry

    def lookup(self, path: str, follow: bool = True, links: int = 0) -> Entry | None:
        """The file at a path, seen from the root; links on the way are followed, one at its end if wanted."""
        trail = [self.top()]
        words = [word for word in path.split("/") if word not in ("", ".")]
        for index, word in enumerate(words):
            if word == "..":
                trail = trail[:-1] or trail
                continue
            if trail[-1].node.kind != DIRECTORY:
                return None
            entry = self.child(trail[-1], word)
            if entry is None:
                return None
            if entry.node.kind == LINK and (follow or index < len(words) - 1):
                if links >= MAX_LINKS:
                    return None
                try:
                    target = entry.filesystem.link(entry.node)
                except DAMAGED as error:
                    self.problem(entry.path, error)
                    return None
                start = "" if target.startswith("/") else trail[-1].path
                return self.lookup("/".join([start, target, *words[index + 1 :]]), follow, links + 1)
            trail.append(entry)
        return trail[-1]

    def match(self, pattern: str) -> list[Entry]:
        """Files whose path has this form: `*`, `?`, `[..]` within a name, hidden names too; `**` at the end is everything below."""
        words = pattern.strip("/").split("/")
        found = [self.top()]
        for index, word in enumerate(words):
            if word == "**":
                return [below for entry in found for below in self.walk(entry)]
            following: list[Entry] = []
            for entry in found:
                directory = self.lookup(entry.path) if entry.node.kind == LINK else entry
                if directory is None or directory.node.kind != DIRECTORY:
                    continue
                if any(character in word for character in "*?["):
                    following += [child for child in self.children(directory) if fnmatch.fnmatchcase(child.path.rsplit("/", 1)[1], word)]
                else:
                    child = self.child(directory, word)
                    following += [child] if child else []
            found = following
            if index < len(words) - 1 and not found:
                return []
        return found

    def walk(self, start: Entry | None = None) -> Iterator[Entry]:
        """Everything below a directory, what is mounted there too; links are not followed."""
        waiting = [start or self.top()]
        seen: set[tuple[int, int]] = set()
        while waiting:
            entry = waiting.pop()
            if entry.node.kind != DIRECTORY:
                continue
            key = (id(entry.filesystem), entry.node.number)
            if key in seen:
                self.problem(entry.path, Unreadable("this directory was met before: directories go in a circle"))
                continue
            seen.add(key)
            children = self.children(entry)
            yield from children
            waiting += reversed(children)

    def read(self, entry: Entry, limit: int = MAX_READ) -> bytes:
        """The start of a file, through a link at its end; nothing of what is no file."""
        target = self.lookup(entry.path) if entry.node.kind == LINK else entry
        if target is None or target.node.kind != FILE:
            return b""
        try:
            return target.filesystem.read(target.node, limit)
        except DAMAGED as error:
            self.problem(target.path, error)
            return b""

    def text(self, path: str, limit: int = 1 << 20) -> str:
        """The text at a path; empty if there is none."""
        entry = self.lookup(path)
        return self.read(entry, limit).decode(errors="replace") if entry else ""
