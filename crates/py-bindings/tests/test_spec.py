"""`ImageSpec`: keyword arguments, folders, and what is said about bad ones."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import k3simage
import pytest

KICKSTART = """
cdrom
lang en_US.UTF-8
timezone UTC
autopart
rootpw --lock
user --name=builder --plaintext --password=geheim
%packages
qemu-guest-agent
%end
reboot
"""


def test_keywords_and_preset() -> None:
    spec = k3simage.ImageSpec(k3s_version="v1.31.3+k3s1", node="pve")
    assert spec.name == "alma9-k3-node-amd64-v1.31.3-v1"
    assert (spec.node, spec.vmid, spec.k3s_version) == ("pve", None, "v1.31.3+k3s1")
    assert repr(spec) == "<k3simage.ImageSpec alma9-k3-node-amd64-v1.31.3-v1 on pve>"
    same = k3simage.ImageSpec(node="pve", k3s_version="v1.31.3+k3s1", tags=None)
    assert (spec == same, hash(spec) == hash(same), spec.content_hash == same.content_hash) == (
        True,
        True,
        True,
    )
    other = k3simage.ImageSpec(node="pve", k3s_version="v1.31.4+k3s1")
    assert spec != other
    assert spec.content_hash != other.content_hash


def test_every_field_arrives(tmp_path: Path) -> None:
    kickstart = tmp_path / "ks.cfg"
    kickstart.write_text(KICKSTART)
    spec = k3simage.ImageSpec(
        k3s_version="v1.31.3+k3s1",
        k3s_role="agent",
        k3s_mirror_url="https://mirror.example/k3s",
        hardening_oscap=True,
        name="alma9-k3-node-amd64-v1.31.3-v7",
        description="for the lab",
        tags=["zeta", "alpha"],
        node="n2",
        vmid=9001,
        pool="images",
        cores=4,
        memory_mib=8192,
        cpu_type="host",
        bios="ovmf",
        storage="fast",
        disk_gib=20,
        bridge="vmbr7",
        iso="local:iso/AlmaLinux-9.4-x86_64-dvd.iso",
        iso_storage="isos",
        kickstart=kickstart,
        boot_command="<up><enter>",
        boot_wait=timedelta(seconds=7),
        boot_key_interval=0.25,
        communicator="ssh",
        ssh_username="builder",
        ssh_password="geheim",
        ssh_host="10.0.0.9",
        ssh_port=2222,
        ssh_timeout=600,
        on_error="keep",
    )
    assert (spec.name, spec.node, spec.vmid, spec.tags) == (
        "alma9-k3-node-amd64-v1.31.3-v7",
        "n2",
        9001,
        ["alpha", "zeta"],
    )
    text = repr(spec.to_dict())
    for part in [
        "'role': 'agent'",
        "https://mirror.example/k3s",
        "for the lab",
        "'pool': 'images'",
        "'cores': 4",
        "8192",
        "'cpu_type': 'host'",
        "'bios': 'ovmf'",
        "'storage': 'fast'",
        "'size_gib': 20",
        "'bridge': 'vmbr7'",
        "local:iso/AlmaLinux-9.4-x86_64-dvd.iso",
        "'iso_storage': 'isos'",
        "ks.cfg",
        "'kind': 'ssh'",
        "'username': 'builder'",
        "'host': '10.0.0.9'",
        "'port': 2222",
        "'on_error': 'keep'",
    ]:
        assert part in text, part
    assert spec.to_dict()["installer"]["boot_wait"] == {"secs": 7, "nanos": 0}
    assert spec.to_dict()["installer"]["boot_key_interval"] == {"secs": 0, "nanos": 250_000_000}
    assert spec.to_dict()["communicator"]["ssh"]["timeout"] == {"secs": 600, "nanos": 0}
    assert "geheim" not in text + repr(spec)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"k3s_version": "v1.31.3"}, ["k3s_version", "v1.31.3", "+k3s1"]),
        ({"cpu_type": "kvm64"}, ["cpu", "kvm64", "x86-64-v2"]),
        ({"k3s_version": "v1.31.3+k3s1", "name": "alma9-k3-node-amd64-v1.30.0-v1"}, ["v1.30.0", "v1.31.3"]),
        ({"vmid": 7}, ["vmid", "7", "100"]),
        ({"bios": "efi"}, ["bios", "efi", "ovmf"]),
        ({"on_error": "shrug"}, ["on_error", "shrug"]),
        ({"iso": "https://m/x.iso", "iso_checksum": "sha256:abc123..."}, ["iso_checksum", "placeholder"]),
        ({"iso": "http://m/x.iso"}, ["iso_checksum", "http://", "proves nothing"]),
        ({"iso": "https://m/x.iso", "iso_checksum": "file:http://m/CHECKSUM"}, ["iso_checksum", "proves nothing"]),
        ({"iso": "https://me:geheim@m/x.iso"}, ["iso", "user or password"]),
        ({"iso_checksum": "sha256:" + "a" * 64}, ["iso_checksum", "no iso"]),
        ({"iso": "local:iso/x.iso", "iso_checksum": "a" * 64}, ["cannot tell the checksum"]),
        ({"boot_command": "<nosuchkey>"}, ["boot_command", "nosuchkey"]),
        ({"ssh_timeout": -1.0}, ["ssh_timeout", "-1"]),
        ({"ssh_timeout": float("nan")}, ["ssh_timeout"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_bad_values(fields: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(k3simage.InvalidInputError) as caught:
        k3simage.ImageSpec(**{"node": "pve", **fields})  # type: ignore[arg-type]
    told = "\n".join([str(caught.value), *caught.value.findings])
    for part in parts:
        assert part in told


def test_all_problems_at_once() -> None:
    with pytest.raises(k3simage.InvalidInputError) as caught:
        k3simage.ImageSpec(node="-bad-", vmid=7, cpu_type="kvm64", k3s_version="v1.31.3", bios="efi")  # type: ignore[arg-type]
    assert len(caught.value.findings) == 5
    assert str(caught.value).endswith("(and 4 more)")


def test_wrong_types_and_names() -> None:
    with pytest.raises(TypeError, match="'k3s_verison' is no field"):
        k3simage.ImageSpec(k3s_verison="v1.31.3+k3s1")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^cores: "):
        k3simage.ImageSpec(cores="four")  # type: ignore[arg-type]


def test_missing_kickstart_keeps_the_cause(tmp_path: Path) -> None:
    with pytest.raises(k3simage.FileError) as caught:
        k3simage.ImageSpec(node="pve", kickstart=tmp_path / "no.cfg")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_from_folder(folder: Path) -> None:
    spec = k3simage.ImageSpec.from_folder(
        folder,
        variables={
            "k3s_version": "v1.31.3+k3s1",
            "image_version": "alma9-k3-node-amd64-v1.31.3-v2",
            "vm_cores": 3,
            "tags": ["a", "b"],
            "proxmox_token": "x",
        },
    )
    assert (spec.name, spec.tags) == ("alma9-k3-node-amd64-v1.31.3-v2", ["a", "b"])
    assert spec.to_dict()["hardware"]["cores"] == 3


def test_var_files_and_environment(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PKR_VAR_proxmox_token", "secret")
    monkeypatch.setenv("PKR_VAR_vm_cores", "8")
    values = tmp_path / "more.pkrvars.hcl"
    values.write_text('vm_memory = 3072\nproxmox_node = "other"\n')
    spec = k3simage.ImageSpec.from_folder(folder, var_files=[values], variables={"proxmox_node": "mine"})
    hardware = spec.to_dict()["hardware"]
    assert (spec.node, hardware["cores"], hardware["memory"]) == ("mine", 8, 3072)
