"""os-update.sh, guest-agent.sh, hardening-oscap.sh, and the copies of all scripts in the example folder."""

import re
from pathlib import Path

import pytest
from conftest import REPO, SCRIPTS, Guest

OSCAP = """
case "$1" in
    info) printf 'xccdf_org.ssgproject.content_profile_cis_server_l1:CIS Server L1\\nxccdf_org.ssgproject.content_profile_stig:STIG\\n' ;;
    xccdf)
        while (($#)); do case "$1" in --results) results="$2" ;; --report) report="$2" ;; esac; shift; done
        echo '<score system="urn:xccdf:scoring:default" maximum="100">87.5</score>' >"$results"
        echo '<html>' >"$report"
        exit "$(cat "$STATE/oscap-code")" ;;
esac"""


def test_os_update_sets_a_node_up_and_a_second_run_changes_nothing(guest: Guest) -> None:
    fstab = "UUID=1 / xfs defaults 0 0\nUUID=2 none swap defaults 0 0\n# x swap swap\n"
    guest.write("etc/fstab", fstab)
    for unit in ("firewalld.service", "nm-cloud-setup.timer"):
        (guest.state / "units" / unit).touch()
        (guest.state / "enabled" / unit).touch()
    guest.ok("os-update.sh")
    assert guest.read("etc/fstab") == (
        "UUID=1 / xfs defaults 0 0\n# no swap beside the kubelet: UUID=2 none swap defaults 0 0\n# x swap swap\n"
    )
    assert guest.enabled() == {"chronyd.service"}
    assert "dnf -y --refresh --setopt=skip_if_unavailable=False upgrade" in guest.calls()
    assert "systemctl mask nm-cloud-setup.timer" in guest.calls()
    assert "systemctl mask nm-cloud-setup.service" not in guest.calls()
    assert "cni*" in guest.read("etc/NetworkManager/conf.d/90-k3s.conf")
    before = guest.listing()
    guest.ok("os-update.sh")
    assert guest.listing() == before


def test_os_update_can_leave_packages_alone_and_names_a_failure(guest: Guest) -> None:
    guest.ok("os-update.sh", OS_UPDATE="0")
    assert not any("upgrade" in call for call in guest.calls("dnf"))
    assert 'OS_UPDATE is "yes"; give 1 or 0' in guest.refused("os-update.sh", OS_UPDATE="yes")
    (guest.state / "dnf-fails").touch()
    assert "os-update: dnf could not update" in guest.refused("os-update.sh")


def test_guest_agent_is_installed_once_and_started_where_there_is_a_channel(guest: Guest) -> None:
    out = guest.ok("guest-agent.sh")
    assert "this VM offers it no channel" in out
    assert guest.calls("dnf") == ["dnf -y install qemu-guest-agent"]
    guest.write("dev/virtio-ports/org.qemu.guest_agent.0", "")
    guest.forget_calls()
    assert "guest-agent: running" in guest.ok("guest-agent.sh")
    assert guest.calls("dnf") == []
    assert guest.active() == guest.enabled() == {"qemu-guest-agent.service"}


def test_guest_agent_names_the_repository_it_needs(guest: Guest) -> None:
    (guest.state / "dnf-fails").touch()
    assert "it is in AppStream" in guest.refused("guest-agent.sh")


def test_hardening_is_off_unless_asked_for(guest: Guest) -> None:
    before = guest.listing()
    assert "off" in guest.ok("hardening-oscap.sh")
    assert guest.listing() == before
    assert guest.calls() == []


@pytest.mark.parametrize("code", ["0", "2"])
def test_hardening_keeps_the_report_and_tells_the_score(guest: Guest, code: str) -> None:
    guest.stand_in("oscap", OSCAP)
    (guest.state / "oscap-code").write_text(code)
    guest.write("usr/share/xml/scap/ssg/content/ssg-almalinux9-ds.xml", "<ds/>")
    out = guest.ok("hardening-oscap.sh", HARDENING_OSCAP="1")
    assert "profile cis_server_l1, score 87.5 of 100, report in /var/lib/k3simage/oscap" in out
    assert guest.exists("var/lib/k3simage/oscap/report.html") and guest.exists("var/lib/k3simage/oscap/results.xml")
    assert not any("--remediate" in call for call in guest.calls("oscap"))
    guest.ok("hardening-oscap.sh", HARDENING_OSCAP="1", HARDENING_PROFILE="stig", HARDENING_REMEDIATE="1")
    assert sum("--remediate" in call for call in guest.calls("oscap")) == 1


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ({"HARDENING_OSCAP": "on"}, 'HARDENING_OSCAP is "on"; give 1 or 0'),
        ({"HARDENING_REMEDIATE": "2"}, "HARDENING_REMEDIATE"),
        ({"HARDENING_PROFILE": "a b"}, "is no profile's name"),
        ({"HARDENING_PROFILE": "cis"}, "has no profile cis"),
        ({}, "oscap ended with 1"),
    ],
)
def test_hardening_refuses_what_it_cannot_do(guest: Guest, env: dict[str, str], part: str) -> None:
    guest.stand_in("oscap", OSCAP)
    (guest.state / "oscap-code").write_text("1")
    guest.write("usr/share/xml/scap/ssg/content/ssg-almalinux9-ds.xml", "<ds/>")
    assert part in guest.refused("hardening-oscap.sh", **({"HARDENING_OSCAP": "1"} | env))


def test_the_example_folder_carries_the_same_scripts() -> None:
    copies = REPO / "examples/alma9-k3s-optimized/scripts"
    ours = {path.name: path.read_text() for path in SCRIPTS.glob("*.sh")}
    assert {path.name: path.read_text() for path in copies.iterdir()} == ours, "make sync-example copies them"
    assert all(path.stat().st_mode & 0o111 for path in [*copies.iterdir(), *SCRIPTS.glob("*.sh")])
    assert len(ours) == 5


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_every_variable_that_a_script_reads_stands_in_its_header(script: Path) -> None:
    text = script.read_text()
    header = text.split("set -euo pipefail", 1)[0]
    body = text.split("FIRSTBOOT", 1)[0]
    read = set(re.findall(r"\$\{((?:K3S|K3SIMAGE|OS|HARDENING|SEAL)_[A-Z0-9_]+)", body)) - {"K3S_ARGS"}
    assert read, script
    assert {name for name in read if f"#   {name} " not in header} == set()
