"""Two clients from npm: proxmox-api (forms) and @corsinvest/cv4pve-api-javascript (JSON), each through a VM's life."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import INSTALLER, PASSWORD, PATIENCE_S, Pve

FOLDER = Path(__file__).parent / "npm"
USER = "node@pve"


@pytest.fixture
def medium_url(oemdrv: Path) -> Iterator[str]:
    """The medium on a web server: neither client uploads files, so the node downloads it."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=oemdrv.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{oemdrv.name}"
        server.shutdown()


def run(pve: Pve, script: str, login: str, medium_url: str, medium: Path) -> dict[str, Any]:
    """Runs a client; proxmox-api checks the certificate, cv4pve has no way to."""
    pve.add_user(USER, "Administrator")
    name, realm = USER.split("@")
    environment = os.environ | {
        "NODE_EXTRA_CA_CERTS": str(pve.ca),
        "PVE_HOST": pve.host,
        "PVE_PORT": str(pve.port),
        "PVE_LOGIN": login,
        "PVE_USER": name,
        "PVE_REALM": realm,
        "PVE_PASSWORD": PASSWORD,
        "PVE_TOKEN_ID": pve.token_id if login == "token of the emulator" else f"{USER}!node",
        "PVE_TOKEN_SECRET": pve.token_secret if login == "token of the emulator" else pve.add_token(USER, "node"),
        "MEDIUM_URL": medium_url,
        "MEDIUM_SHA256": hashlib.sha256(medium.read_bytes()).hexdigest(),
        "INSTALLER": INSTALLER,
    }
    command = ["node", script]
    ended = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize(
    ("script", "login"),
    [
        ("proxmox-api.mjs", "token"),
        ("proxmox-api.mjs", "password"),
        # It refuses a secret that is not a UUID before it sends it.
        ("proxmox-api.mjs", "token of the emulator"),
        ("cv4pve.mjs", "token"),
        ("cv4pve.mjs", "password"),
    ],
)
def test_the_life_of_a_vm(pve: Pve, oemdrv: Path, medium_url: str, script: str, login: str) -> None:
    told = run(pve, script, login, medium_url, oemdrv)
    vmid = told["vmid"]
    assert told["version"] == "9.2"
    assert told["size"] == oemdrv.stat().st_size
    assert told["printed"] == "strangers\n"
    assert told["seen"] == [[vmid, "npm-stranger", 1], [vmid + 1, "npm-clone", 0]]
    missing, parameter, taken = (told["errors"][key] for key in ("missing", "parameter", "taken"))
    for error, status, text in (
        (missing, 500, "Configuration file 'nodes/pve/qemu-server/999.conf' does not exist"),
        (parameter, 400, "Parameter verification failed."),
        (taken, 500, f"unable to create VM {vmid} - VM {vmid} already exists on node 'pve'"),
    ):
        assert str(status) in str(error)
        assert text in str(error).replace("\\'", "'")
    assert "memory" in str(parameter)

    # What is left is the template, as another client sees it.
    assert {vm: (entry["name"], entry["template"]) for vm, entry in pve.vms().items()} == {vmid: ("npm-stranger", 1)}
    config = pve.config(vmid)
    assert config["scsi0"] == f"local-lvm:base-{vmid}-disk-0,size=8G"
    assert (config["tags"], config["description"], config["onboot"]) == ("golden;npm", "made by Node: ä <&> =", 1)
    assert {"ide2", "sata0"}.isdisjoint(config)
    assert pve.volumes("local-lvm") == {f"local-lvm:base-{vmid}-disk-0"}
    assert pve.volumes("local") == {INSTALLER}
