"""`python3 -m standin`: process 1 of the running medium, after its first script."""

from pathlib import Path

from standin import cmdline
from standin.console import Console
from standin.install import Installer


def main() -> None:
    line = cmdline.parse(Path("/proc/cmdline").read_text())
    product = Path("/usr/lib/stand-in/product").read_text().strip()
    Installer(line, Console(Path("/tmp/anaconda.log")), product).run()


main()
