"""The command ``k3simage``, as the wheel carries it: ``python -m k3simage`` and the script of the same name."""

from __future__ import annotations

import signal
import sys

from k3simage import _k3simage


def main() -> int:
    """Run the command with this process's arguments and return its exit code."""
    # The command cancels and undoes by itself. Python's own handler would only note the signal and raise long after.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _k3simage.run_command(["k3simage", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
