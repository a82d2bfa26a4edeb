"""The kickstarts, read by pykickstart: the parser that Anaconda itself uses."""

import subprocess
from pathlib import Path

import jinja2
import pytest
from conftest import REPO
from pykickstart.parser import KickstartParser
from pykickstart.version import RHEL9, makeVersion

EXAMPLE = REPO / "examples/alma9-k3s-optimized/http/ks.cfg.j2"
PLAIN = REPO / "kickstart/alma9.ks.cfg"
TEMPLATE = REPO / "kickstart/alma9.ks.cfg.j2"


def rendered(template: Path = TEMPLATE, **values: str) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    # The library's own filter; these values need no quotes. How it quotes, test_rendered_kickstart.py sees.
    environment.filters["word"] = str
    return environment.from_string(template.read_text()).render(**values)


def parsed(text: str):
    parser = KickstartParser(makeVersion(RHEL9))
    parser.readKickstartFromString(text)
    return parser


TEXTS = {
    "example": rendered(EXAMPLE, alma_mirror_url=""),
    "example with a mirror": rendered(EXAMPLE, alma_mirror_url="https://mirror.lan/alma/9"),
    "template": rendered(),
    "template with values": rendered(
        ks_lang="de_DE.UTF-8", ks_keyboard="de", ks_timezone="Europe/Vienna", alma_mirror_url="https://mirror.lan/alma/9", ks_root_fs="ext4"
    ),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_ksvalidator_accepts_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / "ks.cfg"
    file.write_text(text)
    done = subprocess.run(["ksvalidator", "-e", "-v", "RHEL9", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_build_can_reach_what_it_installs(text: str) -> None:
    ks = parsed(text)
    assert {"qemu-guest-agent", "openssh-server", "cloud-init", "chrony"} <= set(ks.handler.packages.packageList)
    assert {"sshd", "qemu-guest-agent"} <= set(ks.handler.services.enabled)
    assert ks.handler.network.network[0].bootProto == "dhcp"
    # Only a reboot or a power-off tells the build that the installation has ended.
    assert ks.handler.reboot.action is not None and ks.handler.reboot.eject


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_password_opens_it_and_selinux_enforces(text: str) -> None:
    ks = parsed(text)
    assert ks.handler.rootpw.lock and not ks.handler.rootpw.password
    assert ks.handler.user.userList == []
    assert ks.handler.selinux.selinux == 1
    assert ks.handler.eula.agreed


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_one_disk_for_either_firmware_without_swap(text: str) -> None:
    ks = parsed(text)
    assert ks.handler.reqpart.reqpart and ks.handler.reqpart.addBoot
    assert [part.mountpoint for part in ks.handler.partition.partitions] == ["/"]
    assert ks.handler.partition.partitions[-1].grow
    assert ks.handler.clearpart.disklabel == "gpt"
    assert "console=ttyS0" in ks.handler.bootloader.appendLine


def test_the_example_without_a_mirror_is_the_plain_kickstart() -> None:
    assert TEXTS["example"] == PLAIN.read_text()


def test_a_mirror_takes_the_place_of_the_projects_own_list() -> None:
    repos = {repo.name: repo for repo in parsed(TEXTS["example with a mirror"]).handler.repo.repoList}
    assert {name: repo.baseurl for name, repo in repos.items()} == {
        "BaseOS": "https://mirror.lan/alma/9/BaseOS/x86_64/os/",
        "AppStream": "https://mirror.lan/alma/9/AppStream/x86_64/os/",
    }
    assert not any(repo.mirrorlist for repo in repos.values())


def test_the_template_without_values_is_the_example() -> None:
    def commands(text: str) -> list[str]:
        return [line.replace('"', "") for line in text.splitlines() if line and not line.startswith("#")]

    assert commands(rendered()) == commands(PLAIN.read_text())
