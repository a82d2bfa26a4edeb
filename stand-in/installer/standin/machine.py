"""Doing things to the machine: commands, files, mounts. `DryMachine` only writes down what would be done."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from standin.errors import Fatal

SYSROOT = Path("/mnt/sysroot")


class Machine:
    """The machine itself. Every command and its output goes to `log`."""

    def __init__(self, log: Callable[[str], None], sysroot: Path = SYSROOT) -> None:
        self.log = log
        self.sysroot = sysroot

    def run(self, *argv: str, given: str = "", fails: str = "") -> str:
        """Runs a command and returns its standard output. `fails` says what was attempted, for the error."""
        self.log(f"+ {' '.join(argv)}")
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
        for line in (done.stdout + done.stderr).splitlines():
            self.log(f"  {line}")
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise Fatal(f"{fails or argv[0]}: {' '.join(argv)} ended with {done.returncode}\n" + "\n".join(said))
        return done.stdout

    def inside(self, *argv: str, given: str = "", fails: str = "") -> str:
        """Runs a command with the installed system as its root."""
        return self.run("chroot", str(self.sysroot), *argv, given=given, fails=fails)

    def path(self, inside: str) -> Path:
        return self.sysroot / inside.lstrip("/")

    def read(self, inside: str) -> str:
        try:
            return self.path(inside).read_text()
        except FileNotFoundError:
            return ""

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Writes a file of the installed system, never readable by more than `mode` says."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            file.write(text)
        path.chmod(mode)
        self.log(f"wrote {inside}")

    def link(self, inside: str, target: str) -> None:
        path = self.path(inside)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def exists(self, inside: str) -> bool:
        path = self.path(inside)
        return path.exists() or path.is_symlink()


class DryMachine(Machine):
    """Keeps a list of what would be done; files are those given and those written."""

    def __init__(self, files: dict[str, str] | None = None, answers: dict[str, str] | None = None) -> None:
        super().__init__(lambda _: None)
        self.done: list[str] = []
        self.files = dict(files or {})
        self.modes: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self.answers = answers or {}
        self.failing: set[str] = set()

    def run(self, *argv: str, given: str = "", fails: str = "") -> str:
        line = " ".join(argv)
        self.done.append(line)
        if line in self.failing:
            raise Fatal(f"{fails or argv[0]}: {line} ended with 1")
        return next((text for start, text in self.answers.items() if line.startswith(start)), "")

    def inside(self, *argv: str, given: str = "", fails: str = "") -> str:
        return self.run("chroot", *argv, given=given, fails=fails)

    def read(self, inside: str) -> str:
        return self.files.get(inside, "")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        self.files[inside] = text
        self.modes[inside] = mode

    def link(self, inside: str, target: str) -> None:
        self.links[inside] = target

    def exists(self, inside: str) -> bool:
        return inside in self.files or inside in self.links
