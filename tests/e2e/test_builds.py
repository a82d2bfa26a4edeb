"""Whole builds of the example on real guests: every one ends in a template, and in nothing else."""

from __future__ import annotations

import pytest
from harness import ISO, K3S
from ways import SCRIPTS, WAYS, Outcome

STEPS = [
    "preflight",
    "reserve",
    "media",
    "create",
    "install",
    "connect",
    "provision",
    "seal",
    "shut_down",
    "finalise",
    "template",
    "publish",
    "manifest",
]


def ways(*names: str) -> pytest.MarkDecorator:
    """The test runs once for each of these ways."""
    return pytest.mark.parametrize("way", [pytest.param(name, marks=pytest.mark.way(name), id=name) for name in names])


@ways(*WAYS)
def test_it_ends_in_a_template(way: str, outcome: Outcome) -> None:
    artifact, config = outcome.built.artifact, outcome.config
    assert [(guest["vmid"], guest["status"], guest["template"]) for guest in outcome.guests] == [(artifact["vmid"], "stopped", 1)]
    assert config["name"] == artifact["name"] == "alma9-k3-node-amd64-v1.29.0-v1"
    assert config["bios"] == ("ovmf" if way == "uefi" else "seabios")
    # No trace of the installation: neither its media nor the option that told its end.
    assert config["boot"] == "order=scsi0"
    assert not {"ide2", "ide3", "reboot", "lock"} & config.keys()
    assert "cloudinit" in config["scsi1"] and config["scsi0"].split(":")[1].startswith(f"base-{artifact['vmid']}-disk-")
    assert {"k3simage", "k3s", "alma9", K3S} <= set(config["tags"].split(";"))
    assert artifact["build_id"] in config["description"]


@ways(*WAYS)
def test_the_manifest_tells_it(way: str, outcome: Outcome) -> None:
    built, artifact = outcome.built, outcome.built.artifact
    assert built.manifest
    (entry,) = built.manifest["builds"]
    assert (entry["artifact_id"], entry["name"]) == (str(artifact["vmid"]), artifact["name"])
    assert built.manifest["last_run_uuid"] == entry["packer_run_uuid"] == artifact["run_uuid"]
    assert "simulated" not in entry["custom_data"]
    assert [step for step, _ in built.steps()] == STEPS
    assert [timing["step"] for timing in entry["k3simage"]["timings"]] == STEPS[:-1]


@ways(*WAYS)
def test_nothing_else_is_left(way: str, outcome: Outcome) -> None:
    vmid = outcome.built.artifact["vmid"]
    disks = 2 if way == "uefi" else 1
    volumes = {f"base-{vmid}-disk-{number}" for number in range(disks)} | {f"vm-{vmid}-cloudinit"}
    assert outcome.files == {
        f"storage/pve/local/template/iso/{ISO}",
        *(f"storage/pve/local-lvm/images/{volume}" for volume in volumes),
    }
    assert outcome.processes == []


@ways(*WAYS)
def test_no_identity_is_left_on_its_disk(way: str, outcome: Outcome) -> None:
    code, said = outcome.seal
    assert code == 0, said


@ways(*WAYS)
def test_its_scripts_ran_in_the_guest(way: str, outcome: Outcome) -> None:
    built = outcome.built
    assert "k3s-install: wrote /etc/k3simage/image.env" in built.lines("k3s-install.sh") + built.lines("try.sh")
    assert any(line.startswith("k3s-install: v1.29.0+k3s1 is in place and not started") for line in built.lines("k3s-install.sh"))
    assert built.lines("os-update.sh")[-1] == "os-update: done"
    assert built.lines("seal.sh")[-1] == "seal: done; the next boot makes an identity of its own"
    # The installer and dnf asked for the repositories, the script for k3s.
    for part in ("/BaseOS/x86_64/os/repodata/repomd.xml", "/AppStream/x86_64/os/repodata/repomd.xml", "/k3s/v1.29.0%2Bk3s1/k3s"):
        assert part in outcome.asked


@ways("bios", "http", "reboot")
def test_it_went_by_ssh(way: str, outcome: Outcome) -> None:
    assert outcome.built.step("connect")["summary"].startswith("ssh root@127.")
    assert outcome.connections, "the eyes see what is there"


@ways("uefi")
def test_nothing_but_the_api_was_spoken_to(way: str, outcome: Outcome) -> None:
    assert outcome.built.step("connect")["summary"] == f"guest agent of vm {outcome.built.artifact['vmid']}"
    assert outcome.connections == set()
    assert len(outcome.config["efidisk0"]) > 0


@ways("uefi")
def test_a_large_file_came_on_a_medium(way: str, outcome: Outcome) -> None:
    """That it is the same file a script has looked at in the guest."""
    summary = outcome.built.step("provision")["summary"]
    assert summary.startswith("large to /opt/e2e-file, 16 MiB on a medium in "), summary


@ways("http")
def test_the_kickstart_was_fetched_and_never_lay_on_a_storage(way: str, outcome: Outcome) -> None:
    built = outcome.built
    assert [line.split(" asked ")[1] for line in built.lines("http")] == ["GET /***/ks.cfg: 200"]
    assert built.step("media")["summary"].startswith("kickstart served on 10.0.2.2:")
    typed = int(built.step("install")["summary"].split(" keys typed")[0].split()[-1])
    assert typed > 120, "the whole line"


@ways("reboot")
def test_it_goes_on_after_a_reboot(way: str, outcome: Outcome) -> None:
    assert "rebooted in" in outcome.built.step("provision")["summary"]


@ways("reboot")
def test_a_second_run_changes_nothing(way: str, outcome: Outcome) -> None:
    """The script that compares would have ended the build; here is what each second run says."""
    built = outcome.built
    assert built.lines("state.sh") == []
    for name in SCRIPTS:
        assert name in built.step("provision")["summary"]
    assert [line for line in built.lines("k3s-install.sh") if " wrote " in line or "SHA-256" in line] == []
    assert [line for line in built.lines("os-update.sh") if " wrote " in line] == []


@ways("reboot")
def test_a_network_that_fails_is_told_and_can_be_gone_on_from(way: str, outcome: Outcome) -> None:
    said = outcome.built.lines("try.sh")
    failed = [said.index(line) for line in said if "dnf could not update" in line or "cannot fetch" in line]
    done = [said.index(line) for line in said if line == "os-update: done" or "is in place and not started" in line]
    assert len(failed) == len(done) == 2
    assert failed[0] < done[0] < failed[1] < done[1]
