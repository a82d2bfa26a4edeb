"""The kickstarts that the library renders, with the block that a build appends, read by pykickstart."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPO
from pykickstart.parser import KickstartParser
from pykickstart.version import RHEL9, makeVersion

NAMES = ["preset.ks.cfg", "unusual.ks.cfg", "folder.ks.cfg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kickstarts")
    cargo = shutil.which("cargo")
    assert cargo, "cargo is not on PATH: the library's own example writes the kickstarts"
    command = [cargo, "run", "--quiet", "-p", "k3simage-image-build", "--example", "render_kickstart", "--", str(folder)]
    subprocess.run(command, cwd=REPO, check=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_ksvalidator_accepts_it(folder: Path, name: str) -> None:
    done = subprocess.run(["ksvalidator", "-e", "-v", "RHEL9", str(folder / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_values_arrive_as_they_were_given(folder: Path) -> None:
    parser = KickstartParser(makeVersion(RHEL9))
    parser.readKickstart(str(folder / "unusual.ks.cfg"))
    handler = parser.handler
    assert handler.url.url == 'https://mirror.example.com/alma linux/9/?a=b&c="d"'
    assert handler.bootloader.appendLine == "quiet it's=#1\\"
    assert [key.key for key in handler.sshkey.sshUserList if key.username == "root"] == ['ssh-ed25519 AAAA it\'s "me" #1 $(id) \\']
    assert [(user.name, user.groups, user.isCrypted) for user in handler.user.userList] == [("ops", ["wheel", "adm"], True)]
    assert handler.network.network[0].ip == "192.0.2.9"
    assert handler.reboot.eject


@pytest.mark.parametrize("name", NAMES)
def test_the_block_brings_both_keys(folder: Path, name: str) -> None:
    parser = KickstartParser(makeVersion(RHEL9))
    parser.readKickstart(str(folder / name))
    block = parser.handler.scripts[-1]
    assert block.errorOnFail
    assert "/etc/ssh/ssh_host_ed25519_key <<" in block.script
    by_command = any("one-build" in key.key for key in parser.handler.sshkey.sshUserList)
    assert by_command or "one-build" in block.script
