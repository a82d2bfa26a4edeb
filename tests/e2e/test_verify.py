"""Clones of the image that was built for real: they boot, become what they were told, and share nothing."""

from __future__ import annotations

import json
import subprocess

import pytest
from harness import COMMAND, files_in, processes_in
from ways import Outcome


@pytest.mark.parametrize("way", [pytest.param("uefi", marks=pytest.mark.way("uefi"), id="uefi")])
def test_clones_of_it_share_no_identity(way: str, outcome: Outcome) -> None:
    """Of the image whose firmware leaves the most drives switched off."""
    before = files_in(outcome.data)
    report = outcome.data.parent / "verify.json"
    command = [COMMAND, "verify", outcome.built.artifact["name"], "--emulator=qemu", "--data", outcome.data, "--report", report]
    ran = subprocess.run(command, text=True, capture_output=True, timeout=3600, check=False)
    (outcome.data.parent / "verify.txt").write_text(ran.stdout + ran.stderr)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(report.read_text())
    results = {check["name"]: check["outcome"] for check in told["checks"]}
    assert len(results) >= 17
    # The emulator's clones do not reach each other, and there is no SELinux below the stand-in.
    assert {name for name, result in results.items() if result != "ok"} <= {"k3s joined", "selinux"}, results
    assert files_in(outcome.data) == before
    assert processes_in(outcome.data) == []
