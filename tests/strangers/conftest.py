"""Fixtures: the command `k3simage emulator`, and media for it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PATIENCE_S, ROOT, Pve, reach


@pytest.fixture
def pve(tmp_path: Path) -> Iterator[Pve]:
    """A fresh emulator, started as people start it. At its end no call may have been left unanswered."""
    command = os.environ.get("K3SIMAGE", str(ROOT / "target/debug/k3simage"))
    data = tmp_path / "pve"
    log = tmp_path / "emulator.log"
    arguments = ["emulator", "--json", "-v", "--listen", "127.0.0.1:0", "--time-scale", "0", "--data", str(data)]
    with log.open("wb") as errors, subprocess.Popen([command, *arguments], stdout=subprocess.PIPE, stderr=errors) as process:
        try:
            running = reach(process, data)
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
    said = log.read_text()
    assert process.returncode == 0, said
    assert "panicked" not in said, said
    # What a stranger asks and the emulator lacks is to be implemented, not worked around.
    unserved = [line for line in said.splitlines() if "not emulated" in line or "unknown call" in line]
    assert [line for line in unserved if not any(path in line for path in running.unserved)] == []


@pytest.fixture(scope="session")
def kickstart() -> str:
    """A kickstart that installs without a question."""
    return (Path(__file__).parent / "ks.cfg").read_text()


@pytest.fixture(scope="session")
def oemdrv(tmp_path_factory: pytest.TempPathFactory, kickstart: str) -> Path:
    """A small ISO that the installer finds by its label, made by xorriso."""
    folder = tmp_path_factory.mktemp("oemdrv")
    (folder / "ks.cfg").write_text(kickstart)
    iso = folder / "strangers.iso"
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "OEMDRV", "-J", "-R", "-o", str(iso), str(folder / "ks.cfg")]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    return iso


@pytest.fixture(scope="session")
def large_iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ISO of 24 MiB: clients that send large files in pieces take their other path. Not a real medium."""
    path = tmp_path_factory.mktemp("large") / "large.iso"
    path.write_bytes(bytes(range(256)) * (24 * 4096))
    return path
