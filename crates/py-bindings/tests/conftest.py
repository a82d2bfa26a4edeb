"""Fixtures: an emulator with a node that can build, and a template folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import k3simage
import pytest

INSTALLER = "AlmaLinux-9.3-x86_64-minimal.iso"


# In the background of a script (`&`) SIGINT is ignored, and so it would be in what the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the machine that runs the tests must not reach a build."""
    for name in list(os.environ):
        if name.startswith("PKR_VAR_"):
            monkeypatch.delenv(name)


@pytest.fixture
def pve() -> Iterator[k3simage.Emulator]:
    """A running emulator that holds the installer's ISO."""
    with k3simage.Emulator() as emulator:
        emulator.add_installer_iso("local", INSTALLER)
        yield emulator


@pytest.fixture
def client(pve: k3simage.Emulator) -> k3simage.Client:
    """A client of the emulator with all rights."""
    return pve.client()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A fresh template folder."""
    target = tmp_path / "image"
    k3simage.init(target)
    return target


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    """A file that is large enough for several reports of progress."""
    path = tmp_path / "data.iso"
    path.write_bytes(bytes(range(256)) * 8192)
    return path
