"""`Client` against the emulator, each call in both forms."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import k3simage
import pytest

Call = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, client: k3simage.Client) -> Call:
    """Calls a method of the client by name, in one of its two forms."""

    async def plain(name: str, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(client, name)(*args, **kwargs)

    async def awaited(name: str, /, *args: Any, **kwargs: Any) -> Any:
        return await getattr(client, f"{name}_async")(*args, **kwargs)

    return plain if request.param == "sync" else awaited


def test_every_call_has_a_twin() -> None:
    names = {name for name in dir(k3simage.Client) if not name.startswith("_")} - {"url", "identity"}
    plain = {name for name in names if not name.endswith("_async")}
    assert {f"{name}_async" for name in plain} == names - plain
    for name in plain:
        twin = getattr(k3simage.Client, f"{name}_async")
        assert str(inspect.signature(getattr(k3simage.Client, name))) == str(inspect.signature(twin)), name


async def make_vm(call: Call, vmid: int, **options: object) -> None:
    upid = await call("request", "POST", "/nodes/pve/qemu", vmid=vmid, memory=512, **options)
    assert await call("wait_task", upid) == []


async def test_version_and_nodes(call: Call) -> None:
    version = await call("version")
    assert (version.release, str(version)) == (version.version.rsplit(".", 1)[0], version.version)
    nodes = await call("nodes")
    assert [(node.name, node.online) for node in nodes] == [("pve", True)]


async def test_vms_and_templates(call: Call) -> None:
    await make_vm(call, 200, name="plain", scsi0="local:1")
    await make_vm(call, 201, name="golden", scsi0="local:1", tags="k3s;alma")
    upid = await call("request", "POST", "/nodes/pve/qemu/201/template")
    await call("wait_task", upid, timeout=timedelta(seconds=30))
    vms = {vm.vmid: vm for vm in await call("vms")}
    assert (vms[200].template, vms[201].template) == (False, True)
    templates = await call("templates")
    assert [(vm.vmid, vm.name, vm.node, vm.tags) for vm in templates] == [(201, "golden", "pve", ["alma", "k3s"])]
    assert repr(templates[0]) == "<k3simage.Vm template 201 golden>"
    config = await call("vm_config", "pve", 200)
    assert (config["name"], config["memory"]) == ("plain", "512")
    with pytest.raises(k3simage.InvalidInputError, match="200 is no template"):
        await call("delete_template", "pve", 200)
    assert await call("delete_template", "pve", 201) == []
    assert await call("delete_vm", "pve", 200) == []
    assert await call("vms") == []


async def test_upload_tells_and_arrives(call: Call, iso: Path) -> None:
    told: list[tuple[int, int]] = []
    volid = await call("upload_iso", "pve", "local", iso, on_progress=lambda done, total: told.append((done, total)))
    assert volid == "local:iso/data.iso"
    assert told[-1][0] == told[-1][1] >= iso.stat().st_size
    assert told == sorted(told)
    volumes = {volume.volid: volume for volume in await call("storage_content", "pve", "local", content="iso")}
    assert volumes[volid].size_bytes == iso.stat().st_size
    assert await call("delete_volume", "pve", volid) == []
    left = await call("storage_content", "pve", "local")
    assert volid not in [volume.volid for volume in left]


async def test_upload_with_a_wrong_checksum(call: Call, iso: Path) -> None:
    with pytest.raises(k3simage.TaskError) as caught:
        await call("upload_iso", "pve", "local", iso, name="x.iso", checksum="sha256:" + "0" * 64)
    error = caught.value
    assert error.upid is not None
    assert error.upid.startswith("UPID:pve:")
    assert any("checksum" in line for line in error.log_tail)


async def test_a_progress_callback_that_raises_ends_the_upload(call: Call, iso: Path) -> None:
    def refuse(done: int, total: int) -> None:
        raise RuntimeError(f"enough at {done} of {total}")

    with pytest.raises(RuntimeError, match="enough at"):
        await call("upload_iso", "pve", "local", iso, on_progress=refuse)


async def test_missing_local_file(call: Call, tmp_path: Path) -> None:
    with pytest.raises(k3simage.FileError) as caught:
        await call("upload_iso", "pve", "local", tmp_path / "no.iso")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_what_is_not_there(call: Call) -> None:
    with pytest.raises(k3simage.NotFoundError) as caught:
        await call("vm_config", "pve", 999)
    assert caught.value.status == 500


async def test_refused_parameters(call: Call) -> None:
    with pytest.raises(k3simage.ParameterError) as caught:
        await call("request", "POST", "/nodes/pve/qemu", vmid=300, cores="many")
    error = caught.value
    assert error.status == 400
    assert "cores" in error.params
    assert "cores: " in str(error)


async def test_what_exists_already(call: Call) -> None:
    await make_vm(call, 310)
    with pytest.raises(k3simage.AlreadyExistsError):
        await call("request", "POST", "/nodes/pve/qemu", vmid=310)


async def test_a_change_in_between(call: Call) -> None:
    await make_vm(call, 320)
    with pytest.raises(k3simage.ConflictError):
        await call("request", "PUT", "/nodes/pve/qemu/320/config", cores=2, digest="0" * 40)


async def test_agent_of_a_vm_without_one(call: Call) -> None:
    await make_vm(call, 330)
    with pytest.raises((k3simage.AgentError, k3simage.StateError)):
        await call("request", "POST", "/nodes/pve/qemu/330/agent/ping")


async def test_delete_of_a_running_vm(call: Call) -> None:
    await make_vm(call, 340)
    await call("wait_task", await call("request", "POST", "/nodes/pve/qemu/340/status/start"))
    with pytest.raises(k3simage.StateError):
        await call("delete_vm", "pve", 340)


async def test_unknown_call(call: Call) -> None:
    with pytest.raises(k3simage.ServerError) as caught:
        await call("request", "GET", "/no/such/path")
    assert caught.value.status == 501


async def test_raw_parameters(call: Call, pve: k3simage.Emulator) -> None:
    await make_vm(call, 350, onboot=True, description=None, **{"net0": "virtio,bridge=vmbr0"})
    config = await call("vm_config", "pve", 350, view="current")
    assert config["onboot"] == "1"
    assert "description" not in config
    with pytest.raises(TypeError, match="parameter cores is a object"):
        await call("request", "PUT", "/nodes/pve/qemu/350/config", cores=object())
    with pytest.raises(k3simage.InvalidInputError):
        await call("vm_config", "pve", 350, view="past")
    with pytest.raises(k3simage.InvalidInputError, match="timeout"):
        await call("wait_task", "UPID:pve:00000001:00000001:00000001:x::root@pam:", timeout=-1)
    assert {"POST", "GET"} <= {request["method"] for request in pve.requests()}


def test_bad_token(pve: k3simage.Emulator) -> None:
    client = k3simage.Client(pve.url, token="root@pam!nosuch=0", fingerprint=pve.fingerprint)
    with pytest.raises(k3simage.AuthError) as caught:
        client.nodes()
    assert caught.value.status == 401
    assert caught.value.help is not None


def test_certificate_that_does_not_match(pve: k3simage.Emulator) -> None:
    client = k3simage.Client(pve.url, token=pve.token, fingerprint="00" * 32)
    with pytest.raises(k3simage.TlsError) as caught:
        client.version()
    assert isinstance(caught.value, k3simage.ConnectError)
    assert pve.fingerprint.lower() in str(caught.value).lower()


def test_missing_privilege(pve: k3simage.Emulator, client: k3simage.Client) -> None:
    client.request("POST", "/access/users", userid="limited@pve")
    made = client.request("POST", "/access/users/limited@pve/token/narrow", privsep=0)
    limited = k3simage.Client(pve.url, token=f"limited@pve!narrow={made['value']}", fingerprint=pve.fingerprint)
    with pytest.raises(k3simage.PermissionDeniedError) as caught:
        limited.request("POST", "/nodes/pve/qemu/100/status/start")
    error = caught.value
    assert (error.status, error.path, error.privileges) == (403, "/vms/100", ["VM.PowerMgmt"])


def test_a_wait_has_a_limit(pve: k3simage.Emulator) -> None:
    """Waiting for a task that takes longer than the caller has time."""
    with k3simage.Emulator(timing="real") as slow:
        client = slow.client()
        upid = client.request("POST", "/nodes/pve/qemu", vmid=400, memory=512, scsi0="local:1")
        with pytest.raises(k3simage.WaitTimeoutError) as caught:
            client.wait_task(upid, timeout=0.001)
        assert isinstance(caught.value, TimeoutError)
