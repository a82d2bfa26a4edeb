"""An emulator as strangers meet it, and an observer that shares nothing with them."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
INSTALLER = "local:iso/AlmaLinux-9.3-x86_64-minimal.iso"
"""The installer's ISO that the emulator brings along."""

PASSWORD = "a stranger's password: 7&%"
"""Of the user that strangers log in as; with what a form must escape."""

PATIENCE_S = 600
"""A stranger's whole run may take so long on a busy machine; it takes seconds on a quiet one."""


T = TypeVar("T")


class ApiError(Exception):
    """An answer of the API that is no success."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Pve:
    """A running emulator, and an observer of it: Python's own HTTP client with the emulator's CA, no library between."""

    host: str
    port: int
    token_id: str
    token_secret: str
    guest_ssh_port: int
    data: Path
    ca: Path
    unserved: list[str] = field(default_factory=list)
    """Paths that a test asks for although PVE has no such call."""

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    def call(self, method: str, path: str, /, **values: str | int | list[str]) -> Any:
        """One call with all rights; parameters go where PVE expects them, and its `data` comes back."""
        form = urlencode(values, doseq=True)
        target = f"/api2/json{path}"
        headers = {"Authorization": f"PVEAPIToken={self.token_id}={self.token_secret}"}
        body = None
        if method in {"POST", "PUT"}:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = form
        elif form:
            target += f"?{form}"
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection(self.host, self.port, context=context, timeout=PATIENCE_S)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ApiError(response.status, response.reason)
        return json.loads(text)["data"]

    def get(self, path: str, /, **values: str | int | list[str]) -> Any:
        """A reading call."""
        return self.call("GET", path, **values)

    def vms(self) -> dict[int, dict[str, Any]]:
        """The VMs of the cluster by vmid."""
        return {int(vm["vmid"]): vm for vm in self.get("/cluster/resources", type="vm")}

    def config(self, vmid: int) -> dict[str, Any]:
        """The configuration of a VM."""
        config: dict[str, Any] = self.get(f"/nodes/pve/qemu/{vmid}/config")
        return config

    def volumes(self, storage: str) -> set[str]:
        """What a storage holds."""
        return {volume["volid"] for volume in self.get(f"/nodes/pve/storage/{storage}/content")}

    def tasks(self) -> list[tuple[str, str, str]]:
        """Finished tasks, the oldest first: type, id, and how they ended."""
        tasks = self.get("/nodes/pve/tasks", limit=500)
        return [(task["type"], task["id"], task.get("status", "running")) for task in reversed(tasks)]

    def run(self, vmid: int, *command: str) -> str:
        """What a command prints inside a guest, run through its agent."""
        agent = f"/nodes/pve/qemu/{vmid}/agent"
        pid = self.call("POST", f"{agent}/exec", command=list(command))["pid"]
        result = wait_for(lambda: self.finished(agent, pid), f"{command} in guest {vmid}")
        assert result["exitcode"] == 0, result
        output: str = result.get("out-data", "")
        return output

    def agent_answers(self, vmid: int) -> bool | None:
        """Whether a guest's agent answers."""
        try:
            return self.call("POST", f"/nodes/pve/qemu/{vmid}/agent/ping") == {"result": {}}
        except ApiError as error:
            assert error.reason in {"QEMU guest agent is not running", f"VM {vmid} is not running"}
            return None

    def finished(self, agent: str, pid: int) -> dict[str, Any] | None:
        """How a command in a guest ended; a finished pid can be asked for once."""
        status: dict[str, Any] = self.get(f"{agent}/exec-status", pid=pid)
        return status if status["exited"] else None

    def add_user(self, userid: str, role: str) -> None:
        """A user with a password, who has a role on everything."""
        self.call("POST", "/access/users", userid=userid, password=PASSWORD)
        self.call("PUT", "/access/acl", path="/", users=userid, roles=role)

    def add_token(self, userid: str, name: str) -> str:
        """An API token with all rights of its user; its secret comes back."""
        secret: str = self.call("POST", f"/access/users/{userid}/token/{name}", privsep=0)["value"]
        return secret


def wait_for(ask: Callable[[], T | None], what: str) -> T:
    """Asks until there is an answer."""
    end = time.monotonic() + PATIENCE_S
    while (found := ask()) is None:
        assert time.monotonic() < end, f"{what} did not come within {PATIENCE_S} s"
        time.sleep(0.05)
    return found


def reach(process: subprocess.Popen[bytes], data: Path) -> Pve:
    """Reads where the emulator answers from its first event."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("event") == "emulator_started":
            host, _, port = event["url"].removeprefix("https://").rpartition(":")
            return Pve(
                host,
                int(port),
                event["token_id"],
                event["token_secret"],
                event["guest_ssh_port"],
                data,
                data / "pve-root-ca.pem",
            )
    raise AssertionError("the emulator ended before it said where it is")
