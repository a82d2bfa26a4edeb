"""`build(replace=...)`, plain and awaited: the new template takes the place of the old one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import k3simage
import pytest

NAME = "alma9-k3-node-amd64-v1.29.0-v1"
Build = Callable[..., Awaitable[k3simage.Artifact]]


@pytest.fixture(params=["sync", "async"])
def build(request: pytest.FixtureRequest) -> Build:
    """`build` in one of its two forms."""

    async def plain(*args: Any, **kwargs: Any) -> k3simage.Artifact:
        return k3simage.build(*args, **kwargs)

    async def awaited(*args: Any, **kwargs: Any) -> k3simage.Artifact:
        return await k3simage.build_async(*args, **kwargs)

    return plain if request.param == "sync" else awaited


def names(client: k3simage.Client) -> dict[int, str | None]:
    """What is on the cluster, by vmid."""
    return {vm.vmid: vm.name for vm in client.vms()}


@pytest.mark.parametrize("old", ["retire", "delete"])
async def test_the_new_one_takes_the_place(
    old: Literal["retire", "delete"], build: Build, pve: k3simage.Emulator, folder: Path
) -> None:
    variables = {**pve.variables, "vm_id": "0"}
    first = await build(folder, variables=variables)
    assert (first.replaced_vmid, first.retired_name) == (None, None)
    with pytest.raises(k3simage.PlanError, match="--replace"):
        await build(folder, variables=variables)
    plan = k3simage.plan(folder, variables=variables, replace=old)
    assert (plan.ok, plan.replaces) == (True, first.vmid)
    steps: list[str] = []
    second = await build(
        folder,
        variables=variables,
        replace=old,
        on_event=lambda event: steps.append(event.step or "") if event.kind == "step_finished" else None,
    )
    assert steps[-3 if old == "retire" else -4 :][:3] == ["verify", "retire", "publish"]
    assert second.replaced_vmid == first.vmid
    left = names(pve.client())
    assert left[second.vmid] == NAME
    if old == "retire":
        assert second.retired_name == f"{NAME}-retired-{second.build_id}"
        assert left == {second.vmid: NAME, first.vmid: second.retired_name}
    else:
        assert (second.retired_name, left) == (None, {second.vmid: NAME})


@pytest.mark.parametrize("old", ["retire", "delete"])
async def test_the_new_one_takes_the_vmid_too(
    old: Literal["retire", "delete"], build: Build, pve: k3simage.Emulator, folder: Path
) -> None:
    first = await build(folder, variables=pve.variables)
    plan = k3simage.plan(folder, variables=pve.variables, replace=old)
    assert (plan.ok, plan.replaces, plan.vmid) == (True, first.vmid, first.vmid)
    second = await build(folder, variables=pve.variables, replace=old, verify=False)
    assert second.vmid == first.vmid
    left = names(pve.client())
    assert left[second.vmid] == NAME
    if old == "retire":
        assert second.replaced_vmid not in (None, first.vmid)
        assert left == {second.vmid: NAME, second.replaced_vmid: second.retired_name}
    else:
        assert (second.replaced_vmid, second.retired_name, left) == (first.vmid, None, {second.vmid: NAME})


async def test_what_makes_no_sense_is_refused(build: Build, pve: k3simage.Emulator, folder: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"replace": "keep"}, "write retire or delete"),
        ({"verify": False}, "give replace too"),
        ({"ip_configs": ("ip=dhcp", "ip=dhcp")}, "give replace too"),
        ({"replace": "retire", "verify": False, "ip_configs": ("ip=dhcp", "ip=dhcp")}, "verify is False"),
        ({"verify_timeout": 60}, "give replace too"),
        ({"replace": "retire", "verify": False, "verify_timeout": 60}, "verify is False"),
        ({"replace": "retire", "verify_timeout": -1}, "verify_timeout"),
        ({"replace": "retire", "ip_configs": ("ip=10.0.0.5/24", "ip=10.0.0.5/24")}, "both clones"),
    ]
    for arguments, reason in cases:
        with pytest.raises((k3simage.InvalidInputError, k3simage.BuildError), match=reason):
            await build(folder, variables=pve.variables, **arguments)
    assert names(pve.client()) == {}
