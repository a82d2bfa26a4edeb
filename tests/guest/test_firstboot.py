"""The first boot of a clone: which role it takes, under which name, and what it refuses."""

from pathlib import Path

import pytest
from conftest import VERSION, Guest

IMAGE = "alma9-k3-node-amd64-v1.29.0-v1"
JOIN = "K3S_URL=https://cp-1.lan:6443\nK3S_TOKEN=K10abc::server:s3cret\n"


@pytest.fixture
def clone(guest: Guest) -> Guest:
    """A guest as the build leaves it, with a name of its own."""
    return made(guest, "server")


def made(guest: Guest, role: str) -> Guest:
    guest.serve_k3s()
    guest.ok("k3s-install.sh", K3S_VERSION=VERSION, K3S_ROLE=role, K3SIMAGE_NAME=IMAGE)
    (guest.state / "hostname").write_text("node-7\n")
    return guest


def program(guest: Guest) -> Path:
    return guest.root / "usr/local/libexec/k3simage/firstboot"


def volume(guest: Guest, text: str | None) -> None:
    (guest.state / "volume").mkdir()
    if text is not None:
        (guest.state / "volume/k3simage.env").write_text(text)


def env(guest: Guest) -> dict[str, str]:
    lines = guest.read("etc/k3simage/k3s.env").splitlines()
    return {key: value.strip('"') for key, value in (line.split("=", 1) for line in lines)}


def test_told_nothing_it_is_a_single_server_under_its_own_name(clone: Guest) -> None:
    out = clone.ok(program(clone))
    assert "firstboot: node node-7, role server, from the image default" in out
    assert env(clone) == {"K3S_NODE_NAME": "node-7", "K3S_ARGS": ""}
    assert clone.active() == {"k3s.service"}
    assert clone.enabled() == {"k3simage-firstboot.service", "k3s.service"}
    assert "systemctl start --no-block k3s.service" in clone.calls()
    assert clone.read("var/lib/k3simage/firstboot.done") == "server node-7\n"
    assert (clone.root / "etc/k3simage/k3s.env").stat().st_mode & 0o777 == 0o600
    assert list((clone.root / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "role", "unit"),
    [
        (f"K3S_ROLE=agent\n{JOIN}", "agent", "k3s-agent.service"),
        (f"K3S_ROLE=server\n{JOIN}", "server", "k3s.service"),
        (JOIN, "server", "k3s.service"),
    ],
)
@pytest.mark.parametrize("by", ["volume", "cloud-init"])
def test_told_to_join_it_joins(clone: Guest, text: str, role: str, unit: str, by: str) -> None:
    if by == "volume":
        volume(clone, text)
    else:
        clone.write("etc/k3simage/role.env", text)
    done = clone.run(program(clone))
    assert done.returncode == 0, done.stderr
    assert clone.active() == {unit}
    assert env(clone) == {
        "K3S_NODE_NAME": "node-7",
        "K3S_URL": "https://cp-1.lan:6443",
        "K3S_TOKEN": "K10abc::server:s3cret",
        "K3S_ARGS": "",
    }
    assert f"role {role} joining https://cp-1.lan:6443" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
    assert not any("s3cret" in call for call in clone.calls())


def test_the_volume_goes_before_cloud_init(clone: Guest) -> None:
    volume(clone, "K3S_ROLE=none\n")
    clone.write("etc/k3simage/role.env", f"K3S_ROLE=agent\n{JOIN}")
    assert "role none, from k3simage.env on the volume K3SIMAGE" in clone.ok(program(clone))
    assert clone.active() == set()


@pytest.mark.parametrize("role", ["none", "agent"])
def test_the_images_own_default(guest: Guest, role: str) -> None:
    made(guest, role)
    if role == "none":
        guest.ok(program(guest))
        assert guest.read("var/lib/k3simage/firstboot.done") == "none node-7\n"
    else:
        assert "an agent joins a server, but there is no K3S_URL" in guest.refused(program(guest))
        assert not guest.exists("var/lib/k3simage/firstboot.done")
    assert guest.active() == set()


def test_files_from_other_systems_and_quoted_values_are_read(clone: Guest) -> None:
    volume(clone, "# made on Windows\r\n\r\nK3S_NODE_NAME=\"edge-1\"\r\nK3S_ARGS='--disable=traefik --node-label=zone=a'\r\n")
    clone.ok(program(clone))
    assert env(clone) == {"K3S_NODE_NAME": "edge-1", "K3S_ARGS": "--disable=traefik --node-label=zone=a"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("K3S_ROLE=master\n", 'K3S_ROLE is "master"; give server, agent or none'),
        ("K3S_TOKN=x\n", '"K3S_TOKN" is no setting'),
        ("touch /tmp/pwned\n", '"touch /tmp/pwned" is no setting'),
        ("K3S_ROLE\n", '"K3S_ROLE" is no setting'),
        ("K3S_ROLE=agent\n", "there is no K3S_URL"),
        ("K3S_URL=https://cp:6443\n", "not the K3S_TOKEN to join with"),
        ("K3S_URL=http://cp:6443\nK3S_TOKEN=x\n", "give https://NAME:6443"),
        ("K3S_URL=https://cp:6443 -x\nK3S_TOKEN=x\n", "give https://NAME:6443"),
        ("K3S_TOKEN=$(id)\n", "K3S_TOKEN holds a character"),
        ('K3S_TOKEN=a"b\n', "K3S_TOKEN holds a character"),
        ("K3S_ARGS=$(reboot)\n", "give plain --flag=value words"),
        ("K3S_ARGS=--a `id`\n", "give plain --flag=value words"),
        ("K3S_ARGS=--a=$HOME\n", "give plain --flag=value words"),
        ("K3S_NODE_NAME=localhost\n", 'K3S_NODE_NAME "localhost" cannot be unique'),
        (f"K3S_NODE_NAME={IMAGE}\n", "cannot be unique"),
        ("K3S_NODE_NAME=Node_1\n", "cannot be unique in a cluster, or is no host name"),
    ],
)
def test_what_it_cannot_follow_it_refuses_and_starts_nothing(clone: Guest, text: str, part: str) -> None:
    volume(clone, text)
    error = clone.refused(program(clone))
    assert part in error
    assert "k3s is not started. Put it right, then: systemctl restart k3simage-firstboot" in error
    assert clone.active() == set()
    assert not clone.exists("var/lib/k3simage/firstboot.done")
    assert not clone.exists("etc/k3simage/k3s.env")
    assert list((clone.root / "run").iterdir()) == []


def test_a_volume_without_its_file_is_refused(clone: Guest) -> None:
    volume(clone, None)
    assert "holds no file k3simage.env" in clone.refused(program(clone))


def test_a_wrong_token_is_not_shown(clone: Guest) -> None:
    volume(clone, "K3S_TOKEN=s3cret!\n")
    assert "s3cret" not in clone.refused(program(clone))


@pytest.mark.parametrize("name", ["localhost", "localhost.localdomain", IMAGE, "alma9-k3-node-amd64-v1", "", "bad_name"])
def test_a_host_name_that_many_have_becomes_one_of_this_machine(clone: Guest, name: str) -> None:
    (clone.state / "hostname").write_text(f"{name}\n")
    out = clone.ok(program(clone))
    first = env(clone)["K3S_NODE_NAME"]
    assert f'the host name "{name}" cannot be unique, so this machine is now {first}' in out
    assert first.startswith("k3s-") and len(first) == 16
    assert "0123456789abcdef" not in first
    assert (clone.state / "hostname").read_text() == f"{first}\n"

    clone.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n")
    (clone.state / "hostname").write_text(f"{name}\n")
    clone.ok(program(clone))
    assert env(clone)["K3S_NODE_NAME"] != first


@pytest.mark.parametrize("machine", ["", "uninitialized\n"])
def test_without_a_machine_id_it_does_not_guess(clone: Guest, machine: str) -> None:
    clone.write("etc/machine-id", machine)
    assert "/etc/machine-id holds no id" in clone.refused(program(clone))
    assert clone.active() == set()


def test_upper_case_host_names_are_taken_as_kubernetes_takes_them(clone: Guest) -> None:
    (clone.state / "hostname").write_text("Node-7.LAN\n")
    clone.ok(program(clone))
    assert env(clone)["K3S_NODE_NAME"] == "node-7.lan"
