"""The kernel's command line, as the installer reads it: `inst.` options, `ip=` and the volume of the second stage."""

import shlex
from dataclasses import dataclass, field

# Each is carried out, or has no effect on what is installed. Any other `inst.` option is refused: an option that is
# accepted and ignored would prove a boot command that does something else on the real medium.
KNOWN = {
    "inst.stage2",
    "inst.ks",
    "inst.ks.sendmac",
    "inst.ks.sendsn",
    "inst.repo",
    "inst.text",
    "inst.cmdline",
    "inst.graphical",
    "inst.noninteractive",
    "inst.ksstrict",
    "inst.gpt",
    "inst.loglevel",
    "inst.lang",
    "inst.keymap",
    "inst.nosave",
    "inst.waitfornet",
    "inst.xdriver",
    "inst.sshd",
}


@dataclass
class KernelLine:
    """What the kernel was told; `values` keeps the last value of each word, `words` all of them in order."""

    words: list[str]
    values: dict[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    @property
    def unknown(self) -> list[str]:
        return sorted(name for name in self.values if name.startswith("inst.") and name not in KNOWN)

    @property
    def asks_nobody(self) -> bool:
        """Command line mode: every question is the end of the installation."""
        return self.has("inst.cmdline") or self.has("inst.noninteractive")


def parse(text: str) -> KernelLine:
    """Reads the text of /proc/cmdline. A quote that does not close belongs to its word, as for the kernel."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    line = KernelLine(words)
    for word in words:
        name, _, value = word.partition("=")
        line.values[name] = value
    return line
