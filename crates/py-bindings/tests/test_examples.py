"""The examples, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import k3simage
import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


def environment(pve: k3simage.Emulator) -> dict[str, str]:
    return {**os.environ, **{f"PKR_VAR_{name}": str(value) for name, value in pve.variables.items()}}


def run(name: str, *arguments: str, pve: k3simage.Emulator | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "python" / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(pve) if pve else None,
    )


def test_build_image() -> None:
    ended = run("build_image.py", str(EXAMPLES / "alma9-k3s-optimized"), "--emulator")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("simulated guest on https://127.0.0.1:")
    assert lines[1].startswith(" ok  preflight")
    assert lines[-1].startswith("template 9000 alma9-k3-node-amd64-v1.29.0-v1 on pve, ")


def test_build_image_says_what_is_wrong() -> None:
    ended = run("build_image.py", str(EXAMPLES / "alma9-k3s-optimized"), "--emulator", "--var", "k3s_version=v1.29.0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("InvalidInputError: ")
    assert "v1.29.0+k3s1" in ended.stderr


def test_prune_templates(pve: k3simage.Emulator, client: k3simage.Client) -> None:
    for vmid, name in [
        (201, "alma9-k3-node-amd64-v1.29.0-v9"),
        (202, "alma9-k3-node-amd64-v1.29.0-v10"),
        (203, "other"),
    ]:
        client.wait_task(client.request("POST", "/nodes/pve/qemu", vmid=vmid, name=name, scsi0="local:1"))
        client.wait_task(client.request("POST", f"/nodes/pve/qemu/{vmid}/template"))
    dry = run("prune_templates.py", "--keep", "1", pve=pve)
    assert (dry.returncode, dry.stderr) == (0, "")
    kept, old = dry.stdout.splitlines()
    assert kept.split() == ["keep", "alma9-k3-node-amd64-v1.29.0", "v10", "202", "on", "pve"]
    assert old.split() == ["would", "delete", "alma9-k3-node-amd64-v1.29.0", "v9", "201", "on", "pve"]
    assert [vm.vmid for vm in client.templates()] == [201, 202, 203]
    assert run("prune_templates.py", "--keep", "1", "--delete", pve=pve).returncode == 0
    assert [vm.vmid for vm in client.templates()] == [202, 203]


def test_upload_iso(pve: k3simage.Emulator, client: k3simage.Client, iso: Path) -> None:
    ended = run("upload_iso.py", "pve", "local", str(iso), pve=pve)
    assert (ended.returncode, ended.stdout, ended.stderr.endswith("bytes sent\n")) == (0, "local:iso/data.iso\n", True)
    assert "local:iso/data.iso" in [volume.volid for volume in client.storage_content("pve", "local")]


@pytest.mark.parametrize("name", ["prune_templates.py", "upload_iso.py"])
def test_without_a_cluster_they_say_so(name: str) -> None:
    ended = run(name, *(["pve", "local", "x.iso"] if name == "upload_iso.py" else []))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: invalid input: proxmox_url: it is not set")


def test_none_is_forgotten() -> None:
    assert {path.name for path in (EXAMPLES / "python").glob("*.py")} == {
        "build_image.py",
        "prune_templates.py",
        "upload_iso.py",
    }
