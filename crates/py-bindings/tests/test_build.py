"""`plan` and `build` on the emulator: what comes out, what comes in between, and what is left after a failure."""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import k3simage
import pytest
from conftest import INSTALLER
from test_signals import script

NAME = "alma9-k3-node-amd64-v1.29.0-v1"
Call = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls `build` or `plan` in one of its two forms."""

    async def plain(name: str, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(k3simage, name)(*args, **kwargs)

    async def awaited(name: str, /, *args: Any, **kwargs: Any) -> Any:
        return await getattr(k3simage, f"{name}_async")(*args, **kwargs)

    return plain if request.param == "sync" else awaited


def leftovers(pve: k3simage.Emulator) -> tuple[list[k3simage.Vm], list[str]]:
    """The VMs and the ISOs beside the installer's."""
    client = pve.client()
    isos = [volume.volid for volume in client.storage_content("pve", "local", content="iso")]
    return client.vms(), [volid for volid in isos if not volid.endswith(INSTALLER)]


async def test_build_of_a_folder(call: Call, pve: k3simage.Emulator, folder: Path, tmp_path: Path) -> None:
    events: list[k3simage.Event] = []
    threads: set[int] = set()

    def on_event(event: k3simage.Event) -> None:
        events.append(event)
        threads.add(threading.get_ident())

    manifest = tmp_path / "manifest.json"
    artifact = await call("build", folder, variables=pve.variables, on_event=on_event, manifest=manifest)

    assert (artifact.name, artifact.vmid, artifact.node) == (NAME, 9000, "pve")
    assert repr(artifact) == f"<k3simage.Artifact 9000 {NAME} on pve>"
    assert datetime.datetime.now(datetime.timezone.utc) - artifact.finished < datetime.timedelta(minutes=5)
    assert artifact.api_requests > 0
    client = pve.client()
    assert [(vm.vmid, vm.name) for vm in client.templates()] == [(9000, NAME)]
    assert leftovers(pve)[1] == []
    entry = json.loads(manifest.read_text())["builds"][0]
    assert (entry["artifact_id"], entry["k3simage"]["spec_hash"]) == ("9000", artifact.spec_hash)

    assert threads == {threading.get_ident()}, "events come in the caller's thread"
    assert (events[0].kind, events[-1].kind, events[-1].ok) == ("build_started", "build_finished", True)
    assert events[0].steps is not None
    started = [event.step for event in events if event.kind == "step_started"]
    finished = [event.step for event in events if event.kind == "step_finished" and event.ok]
    assert started == finished == events[0].steps
    assert artifact.timings[0][0] == started[0]
    scripts = {event.source for event in events if event.kind == "log"}
    assert "k3s-install.sh" in scripts

    guest = pve.guest(9000)
    assert guest is not None
    assert "k3s-install.sh" in json.dumps(guest)


async def test_build_of_keywords(call: Call, pve: k3simage.Emulator) -> None:
    artifact = await call(
        "build",
        k3s_version="v1.31.3+k3s1",
        node="pve",
        iso=f"local:iso/{INSTALLER}",
        ssh_port=pve.guest_ssh_port,
        url=pve.url,
        token=pve.token,
        fingerprint=pve.fingerprint,
    )
    assert artifact.name == "alma9-k3-node-amd64-v1.31.3-v1"


async def test_build_of_a_spec_takes_the_next_name(call: Call, pve: k3simage.Emulator) -> None:
    spec = k3simage.ImageSpec(
        k3s_version="v1.31.3+k3s1",
        node="pve",
        iso=f"local:iso/{INSTALLER}",
        ssh_port=pve.guest_ssh_port,
    )
    first = await call("build", spec=spec, client=pve.client())
    second = await call("build", spec=spec, client=pve.client())
    assert (first.name[-2:], second.name[-2:]) == ("v1", "v2")
    assert first.vmid != second.vmid
    assert first.spec_hash == second.spec_hash == spec.content_hash
    assert first != second


async def test_plan(call: Call, pve: k3simage.Emulator, folder: Path) -> None:
    report = await call("plan", folder, variables=pve.variables)
    assert (report.ok, report.image, report.node, report.vmid) == (True, NAME, "pve", 9000)
    assert all(finding.level != "error" for finding in report.findings)
    assert repr(report) == f"<k3simage.PlanReport {NAME} can be built on pve>"
    assert [request["method"] for request in pve.requests() if request["method"] != "GET"] == []

    bad = await call("plan", folder, variables={**pve.variables, "vm_storage_pool": "local-lvn"})
    assert not bad.ok
    (finding,) = [finding for finding in bad.findings if finding.level == "error"]
    assert "local-lvn" in finding.message
    assert "local-lvm" in str(finding)


async def test_what_the_cluster_lacks(call: Call, pve: k3simage.Emulator, folder: Path) -> None:
    with pytest.raises(k3simage.PlanError) as caught:
        await call("build", folder, variables={**pve.variables, "vm_storage_pool": "local-lvn"})
    assert caught.value.step == "preflight"
    assert any("local-lvn" in finding for finding in caught.value.findings)
    assert leftovers(pve) == ([], [])


async def test_bad_input_sends_nothing(call: Call, pve: k3simage.Emulator, folder: Path) -> None:
    with pytest.raises(k3simage.InvalidInputError) as caught:
        await call("build", folder, variables={**pve.variables, "k3s_version": "v1.29.0"})
    assert "v1.29.0+k3s1" in "\n".join(caught.value.findings)
    assert pve.requests() == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"node": "pve"}, TypeError, "'node' cannot be used here"),
        ({"spec": True}, k3simage.InvalidInputError, "both a folder and a spec"),
        ({"client": True, "url": "https://x"}, k3simage.InvalidInputError, "client already says"),
    ],
)
def test_arguments_that_exclude_each_other(
    pve: k3simage.Emulator,
    folder: Path,
    arguments: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    if "spec" in arguments:
        arguments = {**arguments, "spec": k3simage.ImageSpec(node="pve")}
    if "client" in arguments:
        arguments = {**arguments, "client": pve.client()}
    with pytest.raises(error, match=text):
        k3simage.build(folder, **arguments)


def test_variables_need_a_folder() -> None:
    with pytest.raises(k3simage.InvalidInputError, match="belong to a folder"):
        k3simage.plan(node="pve", variables={"vm_cores": 1}, url="https://x", token="a@b!c=d")


async def test_a_failure_comes_with_what_was_seen_of_the_guest(
    call: Call, pve: k3simage.Emulator, folder: Path, tmp_path: Path
) -> None:
    pve.fail_script("k3s-install.sh", 7)
    with pytest.raises(k3simage.BuildError) as caught:
        await call("build", folder, variables=pve.variables, manifest=tmp_path / "manifest.json")
    error = caught.value
    assert error.screen == tmp_path / "console.png"
    assert error.screen.read_bytes().startswith(b"\x89PNG\r\n")
    assert str(error) == f"provision failed (screen: {error.screen})"
    assert all(isinstance(line, str) for line in error.console)


async def test_a_script_that_fails(call: Call, pve: k3simage.Emulator, folder: Path) -> None:
    pve.fail_script("k3s-install.sh", 7)
    events: list[k3simage.Event] = []
    with pytest.raises(k3simage.BuildError) as caught:
        await call("build", folder, variables=pve.variables, on_event=events.append)
    error = caught.value
    assert (error.step, str(error)) == ("provision", "provision failed")
    assert str(error.__cause__).startswith("k3s-install.sh ended with exit code 7")
    assert error.log_tail, "what the script printed last"
    assert error.screen is None, "a picture of the screen stands beside a manifest"
    assert (events[-1].kind, events[-1].ok) == ("build_finished", False)
    assert events[-1].message is not None
    assert leftovers(pve) == ([], [])


async def test_what_could_not_be_removed_is_told(call: Call, pve: k3simage.Emulator, folder: Path) -> None:
    pve.fail_script("k3s-install.sh", 7)
    for _ in range(20):
        pve.fail_next("DELETE", "/nodes/pve/qemu/9000", 500, "no, it stays")
    with pytest.raises(k3simage.BuildError, match=r"not cleaned up: .*9000"):
        await call("build", folder, variables=pve.variables)
    assert [vm.vmid for vm in pve.client().vms()] == [9000]


async def test_a_callback_that_raises(call: Call, pve: k3simage.Emulator, folder: Path) -> None:
    class EnoughError(Exception):
        pass

    seen: list[str] = []

    def on_event(event: k3simage.Event) -> None:
        seen.append(event.kind)
        if event.kind == "step_started" and event.step == "install":
            raise EnoughError(event.step)

    with pytest.raises(EnoughError, match="install") as caught:
        await call("build", folder, variables=pve.variables, on_event=on_event)
    assert seen[-1] == "step_started", "no more events after the callback has raised"
    assert caught.value.__context__ is None, "the undo went well, so there is nothing to add"
    assert leftovers(pve) == ([], [])


async def test_a_stop_that_comes_too_late_says_what_stays(call: Call, pve: k3simage.Emulator, folder: Path) -> None:
    def on_event(event: k3simage.Event) -> None:
        if event.kind == "build_finished":
            raise LookupError("too late")

    with pytest.raises(LookupError, match="too late") as caught:
        await call("build", folder, variables=pve.variables, on_event=on_event)
    told = f"the build had ended all the same: template 9000 {NAME} on pve stays"
    assert getattr(caught.value, "__notes__", None) == [told]
    artifact = getattr(caught.value, "result", None)
    assert isinstance(artifact, k3simage.Artifact)
    assert (artifact.vmid, [vm.vmid for vm in pve.client().templates()]) == (9000, [9000])


async def test_what_stays_is_an_attribute(call: Call, pve: k3simage.Emulator, folder: Path, tmp_path: Path) -> None:
    pve.fail_script("k3s-install.sh", 7)
    screen = tmp_path / "seen.png"
    kept = {**pve.variables, "on_error": "keep"}
    with pytest.raises(k3simage.BuildError) as caught:
        await call("build", folder, variables=kept, screen=screen)
    assert caught.value.left == []
    assert "vm 9000 on pve" in caught.value.kept
    assert caught.value.screen == screen
    assert screen.read_bytes().startswith(b"\x89PNG")


async def test_what_could_not_be_removed_is_an_attribute(call: Call, pve: k3simage.Emulator, folder: Path) -> None:
    pve.fail_script("k3s-install.sh", 7)
    pve.fail_next("DELETE", "/nodes/pve/qemu/9000", 403, "Permission check failed (/, on purpose)")
    with pytest.raises(k3simage.BuildError) as caught:
        await call("build", folder, variables=pve.variables)
    assert caught.value.kept == []
    assert len(caught.value.left) == 1
    assert "9000" in caught.value.left[0]


async def test_cancelling_undoes_before_it_returns(folder: Path) -> None:
    async with k3simage.Emulator(timing=1.0) as pve:
        pve.add_installer_iso("local", INSTALLER)
        installing = asyncio.Event()

        def on_event(event: k3simage.Event) -> None:
            if event.kind == "step_started" and event.step == "install":
                installing.set()

        task = asyncio.create_task(k3simage.build_async(folder, variables=pve.variables, on_event=on_event))
        await asyncio.wait_for(installing.wait(), 30)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert leftovers(pve) == ([], [])


async def test_cancelling_twice_stops_waiting(pve: k3simage.Emulator, folder: Path) -> None:
    pve.hang_script("k3s-install.sh")
    pve.delay_next("DELETE", "/nodes/pve/qemu/9000", 3600)
    provisioning = asyncio.Event()

    def on_event(event: k3simage.Event) -> None:
        if event.kind == "progress" and event.step == "provision":
            provisioning.set()

    task = asyncio.create_task(k3simage.build_async(folder, variables=pve.variables, on_event=on_event))
    await asyncio.wait_for(provisioning.wait(), 30)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=0.5)
    assert not done, "the undo is waited for"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)


async def test_a_limit_on_a_build(folder: Path) -> None:
    async with k3simage.Emulator(timing=1.0) as pve:
        pve.add_installer_iso("local", INSTALLER)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(k3simage.build_async(folder, variables=pve.variables), 2)
        assert leftovers(pve) == ([], [])


async def test_the_loop_runs_on_during_a_build(pve: k3simage.Emulator, folder: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.create_task(count())
    await k3simage.build_async(folder, variables=pve.variables)
    counter.cancel()
    assert turns > 100


def test_other_threads_run_during_a_build(pve: k3simage.Emulator, folder: Path) -> None:
    turns, ended = 0, threading.Event()

    def count() -> None:
        nonlocal turns
        while not ended.wait(0.001):
            turns += 1

    counter = threading.Thread(target=count)
    counter.start()
    k3simage.build(folder, variables=pve.variables)
    ended.set()
    counter.join()
    assert turns > 2


async def test_several_builds_at_once(pve: k3simage.Emulator) -> None:
    specs = [
        k3simage.ImageSpec(
            k3s_version=f"v1.31.{patch}+k3s1",
            node="pve",
            iso=f"local:iso/{INSTALLER}",
            ssh_port=pve.guest_ssh_port,
        )
        for patch in range(1, 5)
    ]
    client = pve.client()
    artifacts = await asyncio.gather(*(k3simage.build_async(spec=spec, client=client) for spec in specs))
    assert sorted(artifact.name for artifact in artifacts) == [spec.name for spec in specs]
    assert len({artifact.vmid for artifact in artifacts}) == 4


INTERRUPTED = """
    import sys, k3simage
    folder, pve = sys.argv[1], k3simage.Emulator(timing=1.0)
    with pve:
        pve.add_installer_iso("local", sys.argv[2])
        def on_event(event):
            if event.kind == "step_started":
                print(event.step)
        try:
            k3simage.build(folder, variables=pve.variables, on_event=on_event)
        except KeyboardInterrupt as interrupt:
            vms = pve.client().vms()
            isos = pve.client().storage_content("pve", "local", content="iso")
            print("interrupted", interrupt.__context__, vms, len(isos))
"""


def test_ctrl_c_undoes_the_build(folder: Path) -> None:
    with script(INTERRUPTED, str(folder), INSTALLER) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "install":
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out.splitlines()[-1:], err) == (["interrupted None [] 1"], "")


INTERRUPTED_TWICE = """
    import sys, threading, k3simage
    pve, ended = k3simage.Emulator(), threading.Event()
    def watch():
        while not ended.wait(0.01):
            if any(request["path"].endswith("/status/stop") for request in pve.requests()):
                print("undoing")
                break
    with pve:
        pve.add_installer_iso("local", sys.argv[2])
        pve.hang_script("k3s-install.sh")
        pve.delay_next("DELETE", "/nodes/pve/qemu/9000", 3600)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            k3simage.build(sys.argv[1], variables=pve.variables, on_event=lambda event: print(event.kind, event.step))
        except KeyboardInterrupt:
            print("interrupted", [vm.vmid for vm in pve.client().vms()])
        ended.set()
        watcher.join()
"""


def test_a_second_ctrl_c_stops_waiting(folder: Path) -> None:
    with script(INTERRUPTED_TWICE, str(folder), INSTALLER) as process:
        assert process.stdout is not None
        for awaited in ["progress provision", "undoing"]:
            for line in process.stdout:
                if line.strip() == awaited:
                    break
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out.splitlines(), err) == (["interrupted [9000]"], "")
