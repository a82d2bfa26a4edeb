"""Builds that cannot end well on a real guest: each ends soon with its cause, the last console lines and a picture, and leaves nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import COMMAND, ISO, MEDIUM, Built, Mirror, Site, files_in, processes_in

SOON_S = 900
"""The longest silence that a build waits for is 300 s; the rest is a machine without KVM, and other work on it."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(data=tmp_path / "pve", mirror=Mirror(), results=tmp_path)
    yield site
    site.mirror.shutdown()
    site.mirror.server_close()


def _folder(site: Site) -> Path:
    folder = site.results / "folder"
    subprocess.run([COMMAND, "init", str(folder), "--quiet"], check=True, timeout=600)
    return folder


def _build(site: Site, folder: Path, **variables: str) -> Built:
    return site.build(folder, "--emulator=qemu", "--data", str(site.data), **variables)


def _ended_well(site: Site, built: Built, *words: str, isos: tuple[str, ...] = (ISO,)) -> None:
    """What every failure has to have."""
    assert built.code == 1
    for word in words:
        assert word in built.error["message"], f"{word}: {built.error}"
    assert built.seconds < SOON_S
    assert built.manifest is None
    assert processes_in(site.data) == []
    assert files_in(site.data) == {f"storage/pve/local/template/iso/{name}" for name in isos}


def _has_a_picture(site: Site, built: Built) -> None:
    (picture,) = site.results.glob("*.png")
    assert built.error["screen"] == str(picture) and picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.bad
def test_a_medium_that_does_not_boot(site: Site) -> None:
    site.prepare()
    iso = site.data / "storage/pve/local/template/iso/blank.iso"
    iso.write_bytes(bytes(16 << 20))
    built = _build(site, _folder(site), alma_iso_url="local:iso/blank.iso")
    # Nothing is to be seen of a machine that is off: Proxmox VE's firmware gives up after a second, and a restart is a stop here.
    _ended_well(site, built, "had written nothing to its disk", isos=(ISO, "blank.iso"))
    assert built.seconds < SOON_S / 3


@pytest.mark.bad
def test_a_kickstart_that_the_installer_refuses(site: Site) -> None:
    """Its grammar is right: only the installer knows the disk."""
    site.prepare()
    folder = _folder(site)
    kickstart = folder / "http/ks.cfg.j2"
    text = kickstart.read_text()
    assert "--size=6144 --grow" in text
    kickstart.write_text(text.replace("--size=6144 --grow", "--size=614400"))
    built = _build(site, folder)
    _ended_well(site, built, "console")
    _has_a_picture(site, built)
    assert built.seconds < SOON_S / 2, "the installer says so, and no silence needs to be waited for"


@pytest.mark.bad
def test_a_storage_without_room(site: Site) -> None:
    """A file system of its own, as small as that: mounted, so it needs the rights that building the medium needs."""
    site.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320m,mode=0700", "tmpfs", str(site.data)], check=True)
    try:
        isos = site.data / "storage/pve/local/template/iso"
        isos.mkdir(parents=True)
        shutil.copyfile(MEDIUM / ISO, isos / ISO)
        built = _build(site, _folder(site))
        _ended_well(site, built, "io-error", "the storage is full")
        _has_a_picture(site, built)
    finally:
        subprocess.run(["umount", str(site.data)], check=True)
