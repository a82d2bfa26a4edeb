"""proxmoxer, the usual Python client: the life of a VM from its ISO to its end, by token and by password; errors as it raises them."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import INSTALLER, PASSWORD, PATIENCE_S, Pve, wait_for
from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException
from proxmoxer.tools import Files, Tasks

USER = "proxmoxer@pve"


def connect(pve: Pve, how: str) -> ProxmoxAPI:
    """Logs in, the certificate checked against the emulator's CA."""
    common = {"host": pve.host, "port": pve.port, "verify_ssl": str(pve.ca), "timeout": PATIENCE_S}
    if how == "password":
        return ProxmoxAPI(user=USER, password=PASSWORD, **common)
    return ProxmoxAPI(user=USER, token_name="build", token_value=pve.add_token(USER, "build"), **common)


def done(api: ProxmoxAPI, upid: str) -> None:
    """Waits for a task by proxmoxer's own means, which must see it end well."""
    assert Tasks.decode_upid(upid)["user"].startswith(USER)
    status = Tasks.blocking_status(api, upid, timeout=PATIENCE_S, polling_interval=0.05)
    assert status is not None
    assert status["status"] == "stopped"
    assert status["exitstatus"] == "OK", Tasks.decode_log(api.nodes("pve").tasks(upid).log.get())


@pytest.mark.parametrize("how", ["token", "password"])
def test_the_life_of_a_vm(pve: Pve, oemdrv: Path, large_iso: Path, how: str) -> None:
    pve.add_user(USER, "Administrator")
    api = connect(pve, how)
    node = api.nodes("pve")
    assert [entry["node"] for entry in api.nodes.get()] == ["pve"]
    assert api.version.get()["release"] == "9.2"

    # Both of its ways to send a file: whole in memory, and streamed when large; the sum is checked by the node.
    files = Files(api, "pve", "local")
    for iso in (oemdrv, large_iso):
        assert files.upload_local_file_to_storage(str(iso))["exitstatus"] == "OK"
        assert (pve.data / "storage/pve/local/template/iso" / iso.name).read_bytes() == iso.read_bytes()
    assert {f"local:iso/{oemdrv.name}", f"local:iso/{large_iso.name}"} <= pve.volumes("local")

    vmid = int(api.cluster.nextid.get())
    upid = node.qemu.post(
        vmid=vmid,
        name="stranger",
        memory=2048,
        cores=2,
        cpu="x86-64-v2-AES",
        agent=1,
        ostype="l26",
        scsihw="virtio-scsi-single",
        scsi0="local:8,format=qcow2",
        net0="virtio,bridge=vmbr0",
        ide2=f"{INSTALLER},media=cdrom",
        sata0=f"local:iso/{oemdrv.name},media=cdrom",
        boot="order=scsi0;ide2",
        reboot=0,
        description="made by proxmoxer: ä, <b> & =",
    )
    done(api, upid)
    config = pve.config(vmid)
    assert config["scsi0"] == f"local:{vmid}/vm-{vmid}-disk-0.qcow2,size=8G"
    assert config["description"] == "made by proxmoxer: ä, <b> & ="

    # The installer's reboot is a power-off, since reboot=0.
    vm = node.qemu(vmid)
    done(api, vm.status.start.post())
    wait_for(lambda: vm.status.current.get()["status"] == "stopped" or None, "the end of the installation")
    vm.config.put(delete="ide2,sata0,reboot")
    assert {"ide2", "sata0", "reboot"}.isdisjoint(pve.config(vmid))

    done(api, vm.status.start.post())
    wait_for(lambda: answers(vm), "the guest's agent")
    # proxmoxer splits a command as a shell would.
    pid = vm.agent.exec.post(command="cat '/etc/strangers-were-here'")["pid"]
    result = wait_for(lambda: ended(vm, pid), "the command")
    assert (result["exitcode"], result["out-data"]) == (0, "strangers\n")
    assert pve.run(vmid, "hostname") == "strangers.example\n"

    done(api, vm.status.shutdown.post(timeout=60))
    done(api, vm.status.start.post())
    done(api, vm.status.stop.post())
    assert pve.vms()[vmid]["status"] == "stopped"

    done(api, vm.template.post())
    assert pve.config(vmid)["scsi0"] == f"local:{vmid}/base-{vmid}-disk-0.qcow2,size=8G"
    assert pve.vms()[vmid]["template"] == 1

    for newid, full, disk in (
        (vmid + 1, 0, f"local:{vmid}/base-{vmid}-disk-0.qcow2/{vmid + 1}/vm-{vmid + 1}-disk-0.qcow2"),
        (vmid + 2, 1, f"local:{vmid + 2}/vm-{vmid + 2}-disk-0.qcow2"),
    ):
        done(api, vm.clone.post(newid=newid, name=f"clone-{newid}", full=full))
        assert pve.config(newid)["scsi0"].split(",")[0] == disk
        clone = node.qemu(newid)
        done(api, clone.status.start.post())
        wait_for(lambda clone=clone: answers(clone), "the clone's agent")
        assert pve.run(newid, "cat", "/etc/strangers-were-here") == "strangers\n"
        done(api, clone.status.stop.post())

    # A base that a linked clone stands on stays; without the clone it goes.
    refused = Tasks.blocking_status(api, vm.delete(), timeout=PATIENCE_S, polling_interval=0.05)
    assert "base volume" in refused["exitstatus"]
    for gone in (vmid + 1, vmid + 2, vmid):
        done(api, node.qemu(gone).delete(purge=1))
    assert pve.vms() == {}
    for iso in (oemdrv, large_iso):
        done(api, node.storage("local").content(f"local:iso/{iso.name}").delete())
    assert pve.volumes("local") == {INSTALLER}


def answers(vm: ProxmoxAPI) -> bool | None:
    """Whether the guest agent answers a ping, as proxmoxer tells it."""
    try:
        return vm.agent.ping.post() == {"result": {}}
    except ResourceException as error:
        assert (error.status_code, error.content) == (500, "QEMU guest agent is not running")
        return None


def ended(vm: ProxmoxAPI, pid: int) -> dict[str, object] | None:
    """How a command in the guest ended."""
    status: dict[str, object] = vm.agent("exec-status").get(pid=pid)
    return status if status["exited"] else None


def test_errors_arrive_as_it_raises_them(pve: Pve) -> None:
    pve.unserved.append("/nothing/here")
    pve.add_user(USER, "PVEAuditor")
    pve.add_user("admin@pve", "Administrator")
    auditor = connect(pve, "token")
    admin = ProxmoxAPI(pve.host, port=pve.port, user="admin@pve", password=PASSWORD, verify_ssl=str(pve.ca), timeout=PATIENCE_S)
    node = admin.nodes("pve")

    for ask, status, message in (
        (node.qemu(999).config.get, 500, "Configuration file 'nodes/pve/qemu-server/999.conf' does not exist"),
        (admin.nodes("nowhere").status.get, 500, "hostname lookup 'nowhere' failed - failed to get address info for: nowhere: "),
        (admin.pools("none").get, 500, "pool 'none' does not exist"),
        (admin.nothing.here.get, 501, "Method 'GET /nothing/here' not implemented"),
    ):
        with pytest.raises(ResourceException) as caught:
            ask()
        assert caught.value.status_code == status
        assert caught.value.content.startswith(message), caught.value

    with pytest.raises(ResourceException) as caught:
        node.qemu.post(vmid=200, memory="much", cores=0)
    assert (caught.value.status_code, caught.value.content.partition(" - ")[0]) == (400, "Parameter verification failed.")
    assert set(caught.value.errors) == {"memory", "cores"}

    with pytest.raises(ResourceException) as caught:
        auditor.nodes("pve").qemu.post(vmid=200)
    assert (caught.value.status_code, caught.value.content.partition(" - ")[0]) == (403, "Permission check failed")

    # What fails later fails in its task.
    status = Tasks.blocking_status(admin, node.qemu.post(vmid=200, ide2="local:iso/none.iso,media=cdrom"), PATIENCE_S, 0.05)
    assert "local:iso/none.iso" in status["exitstatus"]

    with pytest.raises(AuthenticationError, match="code: 401"):
        ProxmoxAPI(pve.host, port=pve.port, user=USER, password="wrong", verify_ssl=str(pve.ca), timeout=PATIENCE_S)
    with pytest.raises(ResourceException) as caught:
        ProxmoxAPI(pve.host, port=pve.port, user=USER, token_name="build", token_value="wrong", verify_ssl=str(pve.ca)).version.get()
    assert caught.value.status_code == 401
    assert pve.vms() == {}
