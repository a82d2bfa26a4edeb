"""`resume` and `gc`, plain and awaited: builds whose process was killed are gone on with or removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import k3simage
import pytest

NAME = "alma9-k3-node-amd64-v1.29.0-v1"
Resume = Callable[..., Awaitable[k3simage.Artifact]]
Gc = Callable[..., Awaitable[list[k3simage.Leftover]]]


@pytest.fixture(params=["sync", "async"])
def form(request: pytest.FixtureRequest) -> str:
    """One of the two forms of a call."""
    return str(request.param)


@pytest.fixture
def resume(form: str) -> Resume:
    """`resume` in that form."""

    async def plain(*args: Any, **kwargs: Any) -> k3simage.Artifact:
        return k3simage.resume(*args, **kwargs)

    async def awaited(*args: Any, **kwargs: Any) -> k3simage.Artifact:
        return await k3simage.resume_async(*args, **kwargs)

    return plain if form == "sync" else awaited


@pytest.fixture
def gc(form: str) -> Gc:
    """`gc` in that form."""

    async def plain(*args: Any, **kwargs: Any) -> list[k3simage.Leftover]:
        return k3simage.gc(*args, **kwargs)

    async def awaited(*args: Any, **kwargs: Any) -> list[k3simage.Leftover]:
        return await k3simage.gc_async(*args, **kwargs)

    return plain if form == "sync" else awaited


BUILD = """
import json, sys, k3simage

def told(event):
    print(json.dumps(event.to_dict()), flush=True)

k3simage.build(sys.argv[1], variables=json.loads(sys.argv[2]), lease=1, on_event=told)
"""


# The call of each step that a build does not get past, however late it is killed.
HELD = {
    "install": "/nodes/*/qemu/*/status/start",
    "provision": "/nodes/*/qemu/*/status/shutdown",
}


def killed_at(step: str, pve: k3simage.Emulator, folder: Path) -> str:
    """The id of a build whose process was killed when that step began."""
    arguments = [sys.executable, "-c", BUILD, os.fspath(folder), json.dumps(pve.variables)]
    pve.delay_next("POST", HELD[step], 600)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "step_started" and event["step"] == step:
                process.kill()
                break
        else:
            raise AssertionError(f"the build ended before {step}")
    # It may have been killed before that call, which is another build's then.
    none = folder.parent / "none.toml"
    none.write_text("", encoding="utf-8")
    pve.read_faults(none)
    return str(event["build"])


def until_dead(client: k3simage.Client) -> k3simage.Leftover:
    """The one build that has not ended, once its lease has."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (found,) = k3simage.gc(client=client)
        if found.state == "dead":
            return found
    raise AssertionError(found.because)


async def test_a_dead_build_is_gone_on_with(
    resume: Resume, gc: Gc, pve: k3simage.Emulator, folder: Path, client: k3simage.Client
) -> None:
    build = killed_at("provision", pve, folder)
    found = until_dead(client)
    assert (found.id, found.of, found.image, found.state) == (build, "build", NAME, "dead")
    assert (found.things, found.removed) == (["vm 9000 on pve"], [])
    assert repr(found) == f"<k3simage.Leftover build {build}: dead>"
    assert found.to_dict()["step"] == found.step

    events: list[k3simage.Event] = []
    variables = pve.variables
    with pytest.raises(k3simage.BuildError, match="changed since it began: hardware"):
        await resume(build, folder, variables={**variables, "vm_cores": 3})
    artifact = await resume(build, folder, variables=variables, on_event=events.append)
    assert (artifact.build_id, artifact.name, artifact.vmid) == (build, NAME, 9000)
    assert (events[0].kind, events[-1].kind, events[-1].ok) == ("build_started", "build_finished", True)
    assert await gc(client=client) == []
    with pytest.raises(k3simage.BuildError, match="it has ended"):
        await resume(build, folder, variables=variables)


async def test_what_a_dead_build_left_is_removed(
    gc: Gc, pve: k3simage.Emulator, folder: Path, client: k3simage.Client
) -> None:
    before = {volume.volid for volume in client.storage_content("pve", "local")}
    killed_at("install", pve, folder)
    until_dead(client)
    (found,) = await gc(client=client, remove=True, volume_age=0)
    assert sorted(found.removed) == sorted(found.things)
    assert client.vms() == []
    assert {volume.volid for volume in client.storage_content("pve", "local")} == before
    assert await gc(client=client, remove=True, volume_age=0) == []


async def test_what_is_gone_is_told_also_when_something_fails_later(
    gc: Gc, pve: k3simage.Emulator, folder: Path, client: k3simage.Client
) -> None:
    build = killed_at("install", pve, folder)
    until_dead(client)
    pve.fail_next("DELETE", "/nodes/pve/storage/*", 403, "Permission check failed (/, on purpose)")
    with pytest.raises(k3simage.PermissionDeniedError) as caught:
        await gc(client=client, remove=True, volume_age=0)
    (found,) = caught.value.leftovers
    assert (found.id, found.removed) == (build, ["vm 9000 on pve"])
    assert client.vms() == []
    (found,) = await gc(client=client, remove=True, volume_age=0)
    assert [thing.endswith(".iso on pve") for thing in found.removed] == [True]


async def test_the_connection_may_come_from_a_folder_or_from_variables(
    gc: Gc, pve: k3simage.Emulator, folder: Path
) -> None:
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in pve.variables.items() if name.startswith("proxmox_")]
    (folder / "zz.auto.pkrvars.hcl").write_text("".join(lines))
    assert await gc(folder=folder) == []
    connection = {name: value for name, value in pve.variables.items() if name.startswith("proxmox_")}
    assert await gc(variables=connection) == []
    with pytest.raises(k3simage.AuthError):
        await gc(folder=folder, token="root@pam!build=00000000-0000-4000-8000-000000000000")


async def test_bad_input_is_refused(resume: Resume, gc: Gc, client: k3simage.Client, folder: Path) -> None:
    with pytest.raises(k3simage.InvalidInputError, match="eight hexadecimal digits"):
        await resume("nosuch", spec=k3simage.ImageSpec(node="pve"), client=client)
    with pytest.raises(k3simage.BuildError, match="bears its tag"):
        await resume("0123abcd", spec=k3simage.ImageSpec(node="pve"), client=client)
    with pytest.raises(k3simage.InvalidInputError, match="no argument node"):
        await gc(client=client, node="pve")
    with pytest.raises(k3simage.InvalidInputError, match="client already says"):
        await gc(client=client, folder=folder)
    with pytest.raises(k3simage.InvalidInputError, match="client already says"):
        await gc(client=client, variables={})
    with pytest.raises(k3simage.FileError, match="nosuch"):
        await gc(folder=folder / "nosuch", url="https://pve:8006", token="root@pam!a=5ec2e7")
    with pytest.raises(k3simage.InvalidInputError, match="client already says"):
        await gc(client=client, url="https://pve:8006")
    with pytest.raises(k3simage.InvalidInputError, match="volume_age"):
        await gc(client=client, volume_age=-1)
