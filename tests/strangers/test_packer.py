"""Packer 1.6.6, Debian's: the seed's kind of build, from kickstart over HTTP and typed keys to the template; and one that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import INSTALLER, PASSWORD, PATIENCE_S, Pve, wait_for

USER = "packer@pve"
IMAGE = "alma9-k3-node-amd64-v1.29.0-v1"
VMID = 9000
ADDRESS = "127.64.77.7"


@pytest.fixture
def folder(tmp_path: Path, kickstart: str) -> Path:
    """The template folder, with the kickstart that it serves: that of the others, but for a fixed address."""
    folder = tmp_path / "image"
    fixed = f"--bootproto=static --ip={ADDRESS} --netmask=255.192.0.0 --gateway=127.64.0.1 --nameserver=127.64.0.1"
    assert "--bootproto=dhcp" in kickstart
    shutil.copytree(Path(__file__).parent / "packer", folder)
    (folder / "http").mkdir()
    (folder / "http/ks.cfg").write_text(kickstart.replace("--bootproto=dhcp", fixed))
    return folder


def packer(pve: Pve, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `packer build`. Go reads the CA from the environment, so the certificate is checked; a password is all that 1.6.6 knows."""
    variables = {
        "proxmox_url": f"{pve.url}/api2/json",
        "proxmox_username": USER,
        # Packer takes no loopback address from the agent, and every simulated guest is on loopback: so the kickstart sets one.
        "ssh_host": ADDRESS,
        "ssh_port": str(pve.guest_ssh_port),
        "vm_id": str(VMID),
    }
    given = [word for name, value in variables.items() for word in ("-var", f"{name}={value}")]
    environment = os.environ | {
        "PKR_VAR_proxmox_password": PASSWORD,
        "SSL_CERT_FILE": str(pve.ca),
        "CHECKPOINT_DISABLE": "1",
        "PACKER_CONFIG_DIR": str(folder),
        "PACKER_CACHE_DIR": str(folder / "cache"),
    }
    command = ["packer", "build", "-color=false", *given, *arguments, "."]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_whole_build(pve: Pve, folder: Path) -> None:
    pve.add_user(USER, "Administrator")
    run = packer(pve, folder)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    for line in (
        "provisioning begins",
        "installing k3s",
        "Converting VM to template",
        f"A template was created: {VMID}",
    ):
        assert line in said
    assert PASSWORD not in said

    # The template, as another client sees it.
    assert {vmid: (vm["name"], vm["template"], vm["status"]) for vmid, vm in pve.vms().items()} == {VMID: (IMAGE, 1, "stopped")}
    config = pve.config(VMID)
    assert config["scsi0"].startswith(f"local-lvm:base-{VMID}-disk-0,")
    assert config["description"] == "k3s v1.29.0+k3s1, made by Packer"
    assert (config["template"], config["cores"], config["memory"], config["cpu"]) == (1, 2, "4096", "x86-64-v2-AES")
    # Packer adds the medium as it was asked to, and leaves it in the drive unless told otherwise.
    assert config["ide2"].startswith(f"{INSTALLER},media=cdrom")
    assert pve.volumes("local-lvm") == {f"local-lvm:base-{VMID}-disk-0"}
    assert INSTALLER in pve.volumes("local")
    assert {task[2] for task in pve.tasks()} == {"OK"}

    # What the kickstart and the provisioners did is on the disk: a clone shows it.
    pve.call("POST", f"/nodes/pve/qemu/{VMID}/clone", newid=101, name="clone")
    wait_for(lambda: (101 in pve.vms() and "lock" not in pve.config(101)) or None, "the clone")
    pve.call("POST", "/nodes/pve/qemu/101/status/start")
    wait_for(lambda: pve.agent_answers(101), "the clone's agent")
    assert pve.run(101, "cat", "/root/anaconda-ks.cfg") == (folder / "http/ks.cfg").read_text()
    assert pve.run(101, "cat", "/etc/rancher/config.yaml") == (folder / "files/config.yaml").read_text()
    assert pve.run(101, "cat", "/etc/strangers-were-here") == "strangers\n"
    assert pve.run(101, "rpm", "-q", "tar", "container-selinux").split() != []


def test_what_this_packer_cannot_do_on_a_real_pve_either(pve: Pve, folder: Path) -> None:
    """PVE writes `size=` behind `media=cdrom`, and 1.6.6 looks for the latter at the end: packer-plugin-proxmox issue 83."""
    pve.add_user(USER, "Administrator")
    run = packer(pve, folder, "-var", "unmount_iso=true")
    said = run.stdout + run.stderr
    assert run.returncode == 1, said
    assert "Cannot eject ISO from cdrom drive, ide2 is not present, or not a cdrom media" in said
    # By then it counts the build as done and cleans nothing up: the template stays, its medium in the drive.
    assert "Deleting VM" not in said
    assert pve.vms()[VMID]["template"] == 1
    assert pve.config(VMID)["ide2"].startswith(f"{INSTALLER},media=cdrom,size=")


def test_a_script_that_fails(pve: Pve, folder: Path) -> None:
    pve.add_user(USER, "Administrator")
    run = packer(pve, folder, "-var", "last_script=scripts/fails.sh")
    said = run.stdout + run.stderr
    assert run.returncode == 1, said
    assert "no route to the mirror" in said
    assert "Script exited with non-zero exit status: 1" in said
    assert "Deleting VM" in said
    # Packer's own clean-up: it stops the VM and deletes it, and its disk goes along.
    assert pve.vms() == {}
    assert pve.volumes("local-lvm") == set()
    assert INSTALLER in pve.volumes("local")
