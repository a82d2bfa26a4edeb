"""Ansible's collection community.proxmox: uploads, makes, changes, stops, converts, clones and removes, each twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import INSTALLER, PATIENCE_S, ROOT, Pve, wait_for

FOLDER = Path(__file__).parent / "ansible"
USER = "ansible@pve"
VMID = 300


@pytest.fixture
def ansible(pve: Pve, oemdrv: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs one of Ansible's programs as an API token that may all that its user may, the certificate checked."""
    pve.add_user(USER, "Administrator")
    environment = os.environ | {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "target/strangers"),
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_NOCOLOR": "true",
        "ANSIBLE_PIPELINING": "true",
        "LC_ALL": "C.UTF-8",
        # The modules take host and port, the inventory takes the URL.
        "PROXMOX_HOST": pve.host,
        "PROXMOX_PORT": str(pve.port),
        "PROXMOX_URL": pve.url,
        "PROXMOX_USER": USER,
        "PROXMOX_TOKEN_ID": "play",
        "PROXMOX_TOKEN_SECRET": pve.add_token(USER, "play"),
        "PROXMOX_VALIDATE_CERTS": "true",
        "REQUESTS_CA_BUNDLE": str(pve.ca),
    }
    variables = {
        "ansible_python_interpreter": sys.executable,
        "installer": INSTALLER,
        "medium": str(oemdrv),
        "vmid": str(VMID),
    }
    given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]

    def run(program: str, *arguments: str) -> str:
        command = [str(Path(sys.executable).with_name(program)), *given, *arguments]
        ended = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run


def plain(text: str | dict[str, str]) -> str:
    """A text from an inventory, which marks those that no template may be made of."""
    return text["__ansible_unsafe"] if isinstance(text, dict) else text


def test_each_state_and_each_twice(pve: Pve, oemdrv: Path, ansible: Callable[..., str]) -> None:
    medium = f"local:iso/{oemdrv.name}"
    ansible("ansible-playbook", "up.yml")
    assert {vmid: vm["status"] for vmid, vm in pve.vms().items()} == {VMID: "running"}
    assert medium in pve.volumes("local")
    config = pve.config(VMID)
    assert (config["name"], config["description"], config["tags"]) == ("ansible-stranger", "made by Ansible", "ansible;golden")

    # The guest installs itself, reboots, and its agent comes up: nothing that Ansible waits for.
    wait_for(lambda: pve.agent_answers(VMID), "the guest's agent")
    assert pve.run(VMID, "cat", "/etc/strangers-were-here") == "strangers\n"

    # The inventory plugin goes its own way to the API, and asks for containers too.
    inventory = json.loads(ansible("ansible-inventory", "-i", "lab.proxmox.yml", "--list"))
    assert inventory["proxmox_all_running"]["hosts"] == ["ansible-stranger"]
    facts = inventory["_meta"]["hostvars"]["ansible-stranger"]
    assert (facts["proxmox_vmid"], plain(facts["proxmox_node"]), facts["proxmox_cores"]) == (VMID, "pve", 2)
    assert [plain(interface["name"]) for interface in facts["proxmox_agent_interfaces"]] == ["lo", "eth0"]

    ansible("ansible-playbook", "down.yml")
    assert {vmid: (vm["name"], vm["template"], vm["status"]) for vmid, vm in pve.vms().items()} == {
        VMID: ("ansible-stranger", 1, "stopped"),
        VMID + 1: ("ansible-clone", 0, "stopped"),
    }
    assert pve.config(VMID)["scsi0"] == f"local-lvm:base-{VMID}-disk-0,size=8G"
    # The guest shut itself down: no stop was needed.
    kinds = [kind for kind, vmid, _ in pve.tasks() if vmid == str(VMID)]
    assert kinds == ["qmcreate", "qmstart", "qmshutdown", "qmtemplate", "qmclone"]

    ansible("ansible-playbook", "gone.yml")
    assert pve.vms() == {}
    assert pve.volumes("local-lvm") == set()
    assert pve.volumes("local") == {INSTALLER}
    assert {how for _, _, how in pve.tasks()} == {"OK"}
