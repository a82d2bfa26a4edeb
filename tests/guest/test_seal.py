"""seal.sh: each identity that is planted is gone, nothing that the next boot needs is."""

from pathlib import Path

import pytest
from conftest import SCRIPTS, VERSION, Guest

RPCS = "guest-ping,guest-exec,guest-exec-status,guest-file-open,guest-shutdown"
# What lies in a guest after a build, by the operation that must take it away.
PLANTED = {
    "k3s-state": [
        "var/lib/rancher/k3s/server/token",
        "var/lib/rancher/k3s/server/cred/passwd",
        "var/lib/rancher/k3s/server/tls/server-ca.key",
        "var/lib/rancher/k3s/data/current/bin/k3s",
        "var/lib/rancher/k3s/agent/client-kubelet.key",
        "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        "etc/rancher/node/password",
        "etc/rancher/k3s/k3s.yaml",
        "var/lib/kubelet/pki/kubelet.key",
        "var/lib/cni/networks/cbr0/10.42.0.2",
        "etc/cni/net.d/10-flannel.conflist",
        "etc/k3simage/k3s.env",
        "etc/k3simage/role.env",
        "var/lib/k3simage/firstboot.done",
        "root/.kube/config",
    ],
    "machine-id": ["var/lib/dbus/machine-id"],
    "host-keys": ["etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub", "etc/ssh/ssh_host_rsa_key"],
    "random-seed": ["var/lib/systemd/random-seed", "boot/efi/loader/random-seed"],
    "systemd-secrets": ["var/lib/systemd/credential.secret", "etc/machine-info"],
    "hostname": ["etc/hostname"],
    "network-state": ["var/lib/NetworkManager/secret_key", "var/lib/NetworkManager/internal-0-eth0.lease"],
    "installer-files": ["root/anaconda-ks.cfg", "root/original-ks.cfg", "root/ks-post.log", "var/log/anaconda/anaconda.log"],
    "package-history": ["var/lib/dnf/history.sqlite", "var/lib/dnf/history.sqlite-wal", "var/cache/dnf/baseos/repodata/x"],
    "authorized-keys": ["root/.ssh/authorized_keys", "home/packer/.ssh/authorized_keys", "home/packer/.ssh/id_ed25519"],
    "passwords": ["etc/shadow-"],
    "guest-agent": ["etc/systemd/system/qemu-guest-agent.service.d/open.conf"],
    "cloud-init": ["var/lib/cloud/instance/user-data.txt", "var/lib/cloud/data/instance-id"],
    "shell-history": ["root/.bash_history", "home/packer/.bash_history", "root/.viminfo"],
    "logs": ["var/log/journal/0123/system.journal", "var/log/messages-20261101", "var/log/dnf.log.1", "var/log/secure.gz"],
}
KEPT = {
    "usr/local/bin/k3s": "binary",
    "etc/systemd/system/k3s.service": "unit",
    "etc/k3simage/image.env": "IMAGE_NAME=x\n",
    "etc/rancher/k3s/config.yaml.d/20-selinux.yaml": "selinux: true\n",
    "var/lib/rancher/k3s/agent/images/k3s-airgap-images-amd64.tar.zst": "images",
    "var/lib/rancher/k3s/agent/images/.cache.json": "",
    "var/lib/k3simage/oscap/report.html": "<html>",
    "etc/ssh/sshd_config": "Port 22\n",
    "tmp/k3simage-7f3a/seal.sh": "the script that runs",
    "var/tmp/upload.env": "of the uploader",
    "home/packer/.bashrc": "# shell\n",
}


@pytest.fixture
def built(guest: Guest) -> Guest:
    for paths in PLANTED.values():
        for path in paths:
            guest.write(path, "planted\n", 0o600)
    for path, text in KEPT.items():
        guest.write(path, text)
    guest.write(
        "etc/shadow",
        "root:$6$salt$hash:19700::::::\nbin:*:19700::::::\npacker:!$y$j9T$x$y:19700::::::\nold:ab1cdefghijkl:1::::::\nopen::1::::::\nops:!!:1::::::\n",
        0o000,
    )
    guest.write(
        "etc/sysconfig/qemu-ga", f'# agent\nFILTER_RPC_ARGS="--allow-rpcs={RPCS}"\nFSFREEZE_HOOK_PATHNAME=/etc/qemu-ga/fsfreeze-hook\n'
    )
    (guest.state / "bool/virt_qemu_ga_run_unconfined").write_text("on\n")
    guest.write(
        "etc/NetworkManager/system-connections/eth0.nmconnection",
        "[connection]\nid=eth0\nuuid=6f1d\ntype=ethernet\n[ethernet]\nmac-address=BC:24:11:00:00:01\n[ipv4]\nmethod=auto\n",
        0o600,
    )
    guest.write("var/log/messages", "lines\n", 0o600)
    for unit in ("rsyslog.service", "systemd-random-seed.service"):
        (guest.state / "active" / unit).touch()
    return guest


def test_every_planted_identity_is_gone(built: Guest) -> None:
    out = built.ok("seal.sh", K3SIMAGE_NAME="x", K3SIMAGE_BUILD_ID="7f3a")
    left = [path for paths in PLANTED.values() for path in paths if built.exists(path)]
    assert left == []
    for operation in PLANTED:
        assert f"seal: {operation:<17} ok\n" in out
    assert built.read("etc/machine-id") == ""
    assert (
        built.read("etc/shadow")
        == "root:!!:19700::::::\nbin:*:19700::::::\npacker:!!:19700::::::\nold:!!:1::::::\nopen:!!:1::::::\nops:!!:1::::::\n"
    )
    assert built.read("var/log/messages") == ""
    agent = built.read("etc/sysconfig/qemu-ga")
    assert "guest-exec" not in agent and "guest-file" not in agent
    assert agent.count('FILTER_RPC_ARGS="--allow-rpcs=guest-sync-delimited,') == 1
    assert "FSFREEZE_HOOK_PATHNAME=/etc/qemu-ga/fsfreeze-hook\n" in agent
    assert (built.state / "bool/virt_qemu_ga_run_unconfined").read_text() == "off\n"
    profile = built.read("etc/NetworkManager/system-connections/eth0.nmconnection")
    assert profile == "[connection]\nid=eth0\ntype=ethernet\n[ethernet]\n[ipv4]\nmethod=auto\n"
    assert built.read("etc/k3simage/sealed") == "IMAGE_NAME=x\nBUILD_ID=7f3a\n"


def test_what_the_running_script_and_the_next_boot_need_stays(built: Guest) -> None:
    built.ok("seal.sh")
    assert {path: built.read(path) for path in KEPT} == KEPT
    assert built.active() == set()
    # A seed is written again by a service that stops later.
    calls = built.calls("systemctl stop")
    assert "systemctl stop systemd-random-seed.service" in calls


def test_a_second_run_changes_nothing(built: Guest) -> None:
    built.ok("seal.sh")
    before = built.listing()
    built.ok("seal.sh")
    after = built.listing()
    assert {path: (mode, content) for path, (_, mode, content) in after.items()} == {
        path: (mode, content) for path, (_, mode, content) in before.items()
    }


@pytest.mark.parametrize("operation", sorted(PLANTED))
def test_an_operation_that_fails_to_remove_is_found_by_its_own_check(built: Guest, operation: str, tmp_path: Path) -> None:
    """The check must not lean on the removal: with the removal taken out, it has to stop the seal by name."""
    lame = tmp_path / "seal.sh"
    text = (SCRIPTS / "seal.sh").read_text()
    marker = "for kept in ${SEAL_KEEP:-}"
    assert text.count(marker) == 1
    lame.write_text(text.replace(marker, f"do_{operation}() {{ :; }}\n{marker}"))
    assert f"seal: {operation}: something is left after its removal" in built.refused(lame)
    assert not built.exists("etc/k3simage/sealed")


@pytest.mark.parametrize(
    "config",
    [
        "FILTER_RPC_ARGS=\n",
        'FILTER_RPC_ARGS=""\n',
        "# FILTER_RPC_ARGS=--allow-rpcs=guest-ping\n",
        'FILTER_RPC_ARGS="--allow-rpcs=guest-ping,guest-exec"\n',
        'FILTER_RPC_ARGS="--block-rpcs=guest-file-open"\n',
        "BLACKLIST_RPC=\n",
        'FILTER_RPC_ARGS="--allow-rpcs=guest-ping"\nFILTER_RPC_ARGS=\n',
    ],
)
def test_an_opened_agent_is_closed_whatever_way_it_was_opened(built: Guest, config: str) -> None:
    built.write("etc/sysconfig/qemu-ga", config)
    built.ok("seal.sh")
    lines = [line for line in built.read("etc/sysconfig/qemu-ga").splitlines() if line and not line.startswith("#")]
    assert len(lines) == 1 and lines[0].startswith('FILTER_RPC_ARGS="--allow-rpcs=guest-sync')


def test_the_agents_own_list_comes_back_where_it_was_kept(built: Guest) -> None:
    own = '# shipped\nFILTER_RPC_ARGS="--allow-rpcs=guest-ping,guest-suspend-ram"\n'
    built.write("etc/sysconfig/qemu-ga", "FILTER_RPC_ARGS=\n")
    built.write("etc/sysconfig/qemu-ga.k3simage", own)
    built.ok("seal.sh")
    assert built.read("etc/sysconfig/qemu-ga") == own
    assert not built.exists("etc/sysconfig/qemu-ga.k3simage")


def test_a_running_k3s_is_refused_and_nothing_is_removed(built: Guest) -> None:
    (built.state / "active/k3s.service").touch()
    assert "k3s is running" in built.refused("seal.sh")
    assert built.exists("var/lib/rancher/k3s/server/token")
    assert not built.exists("etc/k3simage/sealed")


def test_operations_can_be_kept_by_name(built: Guest) -> None:
    out = built.ok("seal.sh", SEAL_KEEP="passwords authorized-keys")
    assert "seal: passwords         kept (SEAL_KEEP)" in out
    assert built.exists("home/packer/.ssh/authorized_keys")
    assert "$6$salt$hash" in built.read("etc/shadow")
    assert 'SEAL_KEEP names "nonsense"' in built.refused("seal.sh", SEAL_KEEP="nonsense")


def test_a_fixed_address_is_pointed_out(built: Guest) -> None:
    built.write("etc/NetworkManager/system-connections/eth0.nmconnection", "[ipv4]\naddress1=10.0.0.5/24\nmethod=manual\n", 0o600)
    assert "eth0.nmconnection holds a fixed address, which every clone will have" in built.ok("seal.sh")


def test_the_whole_way_from_install_to_first_boot(guest: Guest) -> None:
    guest.serve_k3s()
    guest.ok("k3s-install.sh", K3S_VERSION=VERSION, K3SIMAGE_NAME="alma9-k3-node-amd64-v1.29.0-v1")
    guest.ok("seal.sh")
    guest.write("etc/machine-id", "ffffffffffffffffffffffffffffffff\n")
    guest.ok(guest.root / "usr/local/libexec/k3simage/firstboot")
    assert guest.active() == {"k3s.service"}
