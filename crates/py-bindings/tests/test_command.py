"""The command that the wheel carries, as a module and as a script."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import k3simage
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


def test_ctrl_c_is_the_commands_own(tmp_path: Path) -> None:
    k3simage.init(tmp_path / "image")
    process = subprocess.Popen(
        [*MODULE, "--json", "build", str(tmp_path / "image"), "--emulator"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if '"step_started"' in line and '"install"' in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert '"build_finished"' in out
    assert "Traceback" not in err
