"""`verify` on the emulator, plain and awaited: what it reports, what it refuses, and that its clones are gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import k3simage
import pytest

NAME = "alma9-k3-node-amd64-v1.29.0-v1"
Verify = Callable[..., Awaitable[k3simage.VerifyReport]]


@pytest.fixture(params=["sync", "async"])
def verify(request: pytest.FixtureRequest) -> Verify:
    """`verify` in one of its two forms."""

    async def plain(*args: Any, **kwargs: Any) -> k3simage.VerifyReport:
        return k3simage.verify(*args, **kwargs)

    async def awaited(*args: Any, **kwargs: Any) -> k3simage.VerifyReport:
        return await k3simage.verify_async(*args, **kwargs)

    return plain if request.param == "sync" else awaited


def vmids(pve: k3simage.Emulator) -> list[int]:
    return [vm.vmid for vm in pve.client().vms()]


async def test_a_good_template(verify: Verify, pve: k3simage.Emulator, folder: Path, tmp_path: Path) -> None:
    k3simage.build(folder, variables=pve.variables)
    events: list[k3simage.Event] = []
    path = tmp_path / "verify.json"
    report = await verify(NAME, client=pve.client(), ssh_port=pve.guest_ssh_port, report=path, on_event=events.append)
    assert report.ok, str(report)
    assert (report.template, report.vmid, report.node, report.shared, report.failed) == (NAME, 9000, "pve", [], [])
    assert {check.outcome for check in report.checks} == {"ok"}
    assert repr(report) == f"<k3simage.VerifyReport {NAME}: {len(report.checks)} checks passed>"
    assert len(report.ssh_seconds) == 2
    assert all(seconds is not None for seconds in report.k3s_seconds)
    assert json.loads(path.read_text()) == report.to_dict()
    assert vmids(pve) == [9000]
    assert (events[0].kind, events[-1].kind, events[-1].ok) == ("verify_started", "verify_finished", True)


async def test_what_is_shared_is_named(verify: Verify, pve: k3simage.Emulator, folder: Path) -> None:
    seal = folder / "scripts/seal.sh"
    seal.write_text(seal.read_text().replace(': >"${root}/etc/machine-id"', "true"))
    k3simage.build(folder, variables=pve.variables)
    # The port of the guests' SSH is one of the variables.
    report = await verify("9000", variables=pve.variables, timeout=60)
    assert not report.ok
    assert report.shared == ["machine id"]
    assert str(report) == "the clones share: machine id"
    found = [check for check in report.checks if check.outcome == "shared"]
    assert repr(found[0]) == "<k3simage.Check machine id: shared>"
    assert found[0].first == found[0].second
    assert vmids(pve) == [9000]


async def test_bad_input_is_refused(verify: Verify, pve: k3simage.Emulator) -> None:
    client = pve.client()
    with pytest.raises(k3simage.PlanError, match="there is no template `nosuch`"):
        await verify("nosuch", client=client)
    with pytest.raises(k3simage.InvalidInputError, match="storage"):
        await verify("x", client=client, storage="local-lvm")
    with pytest.raises(k3simage.InvalidInputError, match="no argument nodes"):
        await verify("x", client=client, nodes=3)
    with pytest.raises(k3simage.InvalidInputError, match="client already says"):
        await verify("x", client=client, url="https://pve:8006")


async def test_a_cancelled_one_leaves_nothing(pve: k3simage.Emulator, folder: Path) -> None:
    k3simage.build(folder, variables=pve.variables)
    cloned = asyncio.Event()

    def on_event(event: k3simage.Event) -> None:
        if event.kind == "step_started" and event.step == "first":
            cloned.set()

    call = k3simage.verify_async(NAME, client=pve.client(), ssh_port=pve.guest_ssh_port, on_event=on_event)
    task = asyncio.ensure_future(call)
    await cloned.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert vmids(pve) == [9000]
