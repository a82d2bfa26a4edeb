"""`Emulator` as a context manager."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import k3simage
import pytest


def test_it_runs_inside_the_block() -> None:
    emulator = k3simage.Emulator()
    assert repr(emulator) == "<k3simage.Emulator not running>"
    with pytest.raises(k3simage.InvalidInputError, match="does not run"):
        _ = emulator.url
    with emulator as pve:
        assert pve is emulator
        assert pve.url.startswith("https://127.0.0.1:")
        assert repr(pve) == f"<k3simage.Emulator {pve.url}>"
        assert pve.token not in repr(pve)
        client = pve.client()
        client.version()
        assert pve.requests()[0]["path"] == "/version"
        assert pve.guest(100) is None
    with pytest.raises(k3simage.ConnectError):
        client.nodes()
    with emulator as again:
        again.client().version()


async def test_it_runs_inside_an_async_block() -> None:
    async with k3simage.Emulator() as pve:
        version = await pve.client().version_async()
        assert version.version
    with pytest.raises(k3simage.InvalidInputError):
        pve.requests()


def test_it_cannot_run_twice() -> None:
    with (
        k3simage.Emulator() as pve,
        pytest.raises(k3simage.InvalidInputError, match="runs already"),
        pve,
    ):
        pass


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"engine": "xen"}, "simulated"),
        ({"accel": "kvm"}, "belongs to engine"),
        ({"engine": "qemu", "accel": "hvf"}, "hvf"),
    ],
)
def test_a_bad_engine(values: dict[str, Any], says: str) -> None:
    with pytest.raises(k3simage.InvalidInputError, match=says):
        k3simage.Emulator(**values)


def test_real_guests(tmp_path: Path) -> None:
    """No VM is needed to see which engine it is; QEMU is, and its lack is said at the start."""
    emulator = k3simage.Emulator(engine="qemu", accel="tcg", data_dir=tmp_path)
    if shutil.which("qemu-system-x86_64") is None or shutil.which("qemu-img") is None:
        with pytest.raises(k3simage.Error, match="apt-get install qemu"), emulator:
            raise AssertionError("it runs without QEMU")
        return
    with emulator as pve:
        assert pve.variables["http_address"] == "10.0.2.2"
        assert (tmp_path / "run/ssh-port").read_text() == str(pve.guest_ssh_port)


@pytest.mark.parametrize("timing", ["slow", 0, -1.0, float("nan"), float("inf")])
def test_bad_timing(timing: object) -> None:
    with pytest.raises(k3simage.InvalidInputError, match="timing"):
        k3simage.Emulator(timing=timing)  # type: ignore[arg-type]


def test_data_dir_is_used(tmp_path: Path) -> None:
    with k3simage.Emulator(data_dir=tmp_path / "data") as pve:
        pve.add_installer_iso("local", "AlmaLinux-9.3-x86_64-minimal.iso")
    assert list((tmp_path / "data").rglob("AlmaLinux-9.3-x86_64-minimal.iso"))


def test_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(k3simage.EmulatorError) as caught, k3simage.Emulator(data_dir=tmp_path / "file"):
        pass
    assert str(tmp_path / "file") in str(caught.value)


def test_nodes_and_storages() -> None:
    with k3simage.Emulator(nodes=["n1", "n2"], storages={"fast": "lvmthin", "isos": "dir"}) as pve:
        client = pve.client()
        assert sorted(node.name for node in client.nodes()) == ["n1", "n2"]
        storages = {entry["storage"]: entry["type"] for entry in client.request("GET", "/nodes/n2/storage")}
        assert storages == {"local": "dir", "local-lvm": "lvmthin", "fast": "lvmthin", "isos": "dir"}
    with pytest.raises(k3simage.InvalidInputError, match="fast"):
        k3simage.Emulator(storages={"fast": "zfs"})  # type: ignore[dict-item]


def test_faults(pve: k3simage.Emulator, client: k3simage.Client) -> None:
    pve.fail_next("GET", "/nodes/*/storage", 500, "the disk is on fire")
    with pytest.raises(k3simage.ServerError, match="the disk is on fire") as caught:
        client.request("GET", "/nodes/pve/storage")
    assert caught.value.status == 500
    client.request("GET", "/nodes/pve/storage")
    pve.lose_next_answer("POST", "/nodes/pve/qemu")
    with pytest.raises(k3simage.TransportError, match="may have been carried out"):
        client.request("POST", "/nodes/pve/qemu", vmid=500)


def test_a_cluster_with_a_node_that_goes_away(tmp_path: Path) -> None:
    with k3simage.Emulator(nodes=3, pve_version="9.1", listen="127.0.0.1:0") as pve:
        client = pve.client()
        assert client.version().release == "9.1"
        assert [node.name for node in client.nodes()] == ["pve", "pve2", "pve3"]
        assert pve.node_url("pve") == pve.url
        assert pve.node_url("pve2") != pve.url
        shared = [s["storage"] for s in client.request("GET", "/storage") if s.get("shared")]
        assert shared == ["shared"]
        pve.node_offline("pve2")
        with pytest.raises(k3simage.Error, match="No route to host"):
            client.request("GET", "/nodes/pve2/status")
        pve.node_online("pve2")
        client.request("GET", "/nodes/pve2/status")
        pve.node_slow("pve2", 0.01)
        with pytest.raises(k3simage.InvalidInputError, match="no node"):
            pve.node_offline("pve9")
        faults = tmp_path / "faults.toml"
        faults.write_text('[[node]]\nname = "pve3"\noffline = true\n')
        pve.read_faults(faults)
        states = {entry["node"]: entry["status"] for entry in client.request("GET", "/nodes")}
        assert states == {"pve": "online", "pve2": "online", "pve3": "offline"}


def test_a_faults_file_and_a_task_that_fails(tmp_path: Path) -> None:
    faults = tmp_path / "faults.toml"
    faults.write_text('[[fault]]\ncall = "GET /nodes"\nthen = { answer = { status = 500, reason = "on fire" } }\n')
    with k3simage.Emulator(faults=faults) as pve:
        client = pve.client()
        with pytest.raises(k3simage.ServerError, match="on fire"):
            client.nodes()
        pve.fail_task("POST", "/nodes/*/qemu", "no space")
        upid = client.request("POST", "/nodes/pve/qemu", vmid=100)
        with pytest.raises(k3simage.TaskError, match="no space"):
            client.wait_task(upid, timeout=60)
    faults.write_text("[[fault]]\nthem = 1\n")
    with pytest.raises(k3simage.EmulatorError, match="line 2"):
        k3simage.Emulator(faults=faults)


@pytest.mark.parametrize(
    ("options", "part"),
    [({"nodes": 0}, "1 to 32"), ({"nodes": 33}, "1 to 32"), ({"listen": "here"}, "address and a port")],
)
def test_bad_options(options: dict[str, object], part: str) -> None:
    with pytest.raises(k3simage.InvalidInputError, match=part):
        k3simage.Emulator(**options)  # type: ignore[arg-type]
