"""The consoles that the installer speaks on and listens to: tty1, and a serial one where the kernel was told of it."""

import os
import select
from pathlib import Path

# The installer of EL9 speaks on a serial line only if the kernel line names it (console=ttyS0); so does this one, or a
# build would learn to read lines that the real medium never sends.
ACTIVE = Path("/sys/class/tty/console/active")
RULE = "=" * 80


def names(active: str) -> list[str]:
    """Device names for the text of /sys/class/tty/console/active."""
    found = ["tty1"]
    for word in active.split():
        name = "tty1" if word in {"tty0", "tty1"} else word
        if name not in found:
            found.append(name)
    return found


class Console:
    """Text mode: lines out, and at an end or a question the wait for Enter."""

    def __init__(self, log_path: Path) -> None:
        self.log_file = log_path.open("a", buffering=1)
        self.files = []
        for name in names(ACTIVE.read_text() if ACTIVE.exists() else ""):
            try:
                self.files.append(os.open(f"/dev/{name}", os.O_RDWR | os.O_NOCTTY))
            except OSError as error:
                self.log(f"no console {name}: {error}")

    def log(self, text: str) -> None:
        self.log_file.write(text.rstrip("\n") + "\n")

    def say(self, text: str, *, quiet: bool = False) -> None:
        """A line for people; a quiet one only for the log."""
        self.log(text)
        if quiet:
            return
        for file in self.files:
            try:
                os.write(file, (text.replace("\n", "\r\n") + "\r\n").encode(errors="replace"))
            except OSError:
                continue

    def ask(self, prompt: str) -> str:
        """Shows a prompt and waits for a line on any console."""
        for file in self.files:
            os.write(file, prompt.encode())
        self.log(prompt)
        typed = b""
        while b"\n" not in typed and b"\r" not in typed:
            ready, _, _ = select.select(self.files, [], [])
            for file in ready:
                typed += os.read(file, 256)
        answer = typed.decode(errors="replace").strip()
        self.say(f" {answer}")
        return answer
