"""The command that the wheel carries, as a module and as a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = [sys.executable, "-m", "k3simage"]
SCRIPT = [str(Path(sys.executable).with_name("k3simage"))]


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
def test_help_and_exit_codes(command: list[str], tmp_path: Path) -> None:
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "validate" in told.stdout
    made = subprocess.run([*command, "init", str(tmp_path / "image")], capture_output=True, text=True, check=True)
    assert made.stderr == ""
    assert (tmp_path / "image" / "variables.pkr.hcl").is_file()
    wrong = subprocess.run([*command, "nosuchcommand"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "nosuchcommand" in wrong.stderr
