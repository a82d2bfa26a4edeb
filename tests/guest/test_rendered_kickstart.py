"""The kickstarts that the library renders, with the block that a build appends, read by pykickstart."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPO
from pykickstart.parser import KickstartParser
from pykickstart.version import RHEL9, makeVersion

NAMES = ["preset.ks.cfg", "unusual.ks.cfg", "folder.ks.cfg"]


# What a kickstart, a shell or a person takes for its own, and what none does.
PIECES = [
    "x",
    "Etc/UTC",
    " ",
    "\n",
    "\r",
    "\t",
    '"',
    "'",
    "\\",
    "#",
    "%",
    "%end",
    "%include /x",
    "-",
    "--nontp",
    "=",
    "$(id)",
    "`",
    ";",
    "&",
]
PIECES += ["ü", "\u2028", "\x85", "\x07", "\x1b", "\U0001f600", "rootpw --plaintext x", "@", "\ufdd0", "<", ">", "|", "*", "~", "{{ x }}"]


def hostile() -> list[str]:
    """Texts that would be something else than a value, if that could be."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    return [*PIECES, *("".join(chance.choices(PIECES, k=chance.randint(1, 6))) for _ in range(120))]


TEXTS = hostile()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kickstarts")
    texts = tmp_path_factory.mktemp("texts") / "texts.json"
    texts.write_text(json.dumps(TEXTS))
    cargo = shutil.which("cargo")
    assert cargo, "cargo is not on PATH: the library's own example writes the kickstarts"
    command = [cargo, "run", "--quiet", "-p", "k3simage-image-build", "--example", "render_kickstart", "--", str(folder), str(texts)]
    subprocess.run(command, cwd=REPO, check=True)
    assert {path.name for path in folder.iterdir()} >= set(NAMES)
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


def read(path: Path) -> KickstartParser:
    parser = KickstartParser(makeVersion(RHEL9))
    parser.readKickstart(str(path))
    return parser


def shape(parser: KickstartParser) -> object:
    """What a value could change beside itself."""
    handler = parser.handler
    return (
        (handler.rootpw.lock, handler.rootpw.password, handler.selinux.selinux, handler.reboot.eject, handler.timezone.isUtc),
        (handler.timezone.nontp, [repo.name for repo in handler.repo.repoList], handler.url.noverifyssl),
        (len(handler.users if hasattr(handler, "users") else handler.user.userList), [script.script for script in parser.handler.scripts]),
        sorted(handler.packages.packageList),
    )


def test_any_text_arrives_as_data_or_is_refused(folder: Path) -> None:
    taken = {"template": 0, "model": 0}
    plain = {kind: shape(read(folder / f"{kind}-0.ks.cfg")) for kind in taken}
    for number, text in enumerate(TEXTS):
        for kind in taken:
            path = folder / f"{kind}-{number}.ks.cfg"
            if not path.exists():
                continue
            taken[kind] += 1
            parser = read(path)
            handler = parser.handler
            assert shape(parser) == plain[kind], (kind, text)
            if kind == "template":
                value = text.strip()
                assert handler.timezone.timezone == text, (kind, text)
                assert value == "" or handler.repo.repoList[0].baseurl == f"{text}/BaseOS/x86_64/os/", (kind, text)
            else:
                assert handler.url.url == text and handler.bootloader.appendLine == text, (kind, text)
                assert [key.key for key in handler.sshkey.sshUserList] == [f"ssh-ed25519 AAAA {text}".strip()], (kind, text)
    # The plain ones at least; and some that had to be quoted.
    assert min(taken.values()) > 10, taken
