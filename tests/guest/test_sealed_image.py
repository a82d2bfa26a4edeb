"""seal.sh, judged from outside: its result is made into a disk, and the checker of disks finds no identity on it."""

import json
import tempfile
from pathlib import Path

import pytest
import trees
from conftest import Guest
from images import blank, ext, memory
from sealcheck import command

# What seal.sh cannot know to be no part of the image: the checker names it, and whoever put it there decides.
LEFT_TO_OTHERS = {"private-keys", "temporary-files", "k3s-token", "network-secrets", "chrony-keys", "subscription", "enrolment"}
LEFT_PATHS = {"etc/ssh/ssh_known_hosts", "etc/systemd/network/10-eth0.link"}
# And what of these it does remove, for the place it lies in.
SEALED = {"root/.ssh/id_ed25519", "home/packer/.ssh/build", "var/tmp/k3s-install.x/k3s"}
PLANTED = [
    (identity, path)
    for identity, files in trees.PLANTED.items()
    for path in files
    if path not in LEFT_PATHS and (identity not in LEFT_TO_OTHERS or path in SEALED)
]


def look(capsys: pytest.CaptureFixture[str], guest: Guest, folder: Path) -> tuple[int, list[tuple[str, str]], list[dict]]:
    with tempfile.TemporaryDirectory(dir=memory() or folder) as place:
        disk = Path(place, "disk")
        blank(disk, 32)
        ext(guest.root, disk, 0, 32)
        capsys.readouterr()
        code = command.main([str(disk), "--json"])
    report = json.loads(capsys.readouterr().out)
    return code, [(entry["identity"], entry["path"]) for entry in report["findings"]], report["problems"]


@pytest.fixture
def built(guest: Guest) -> Guest:
    trees.clean(guest.root)
    trees.put(guest.root, "etc/fstab", "")
    for identity, path in PLANTED:
        trees.put(guest.root, path, trees.PLANTED[identity][path])
    # /var/run leads out of a folder that is no root.
    (guest.root / "var/run").unlink()
    return guest


def test_the_seal_leaves_nothing_that_the_checker_finds(built: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, before, problems = look(capsys, built, tmp_path)
    assert (code, problems) == (1, [])
    found = [path for _, path in before]
    assert [path for _, path in PLANTED if not any(f"/{path}".startswith(place) for place in found)] == []
    built.ok("seal.sh")
    assert look(capsys, built, tmp_path) == (0, [], [])


# What is found when an operation is left out, if it has another name than the operation.
KEPT = {
    "machine-id": {"machine-id"},
    "host-keys": {"host-keys"},
    "random-seed": {"random-seed"},
    "systemd-secrets": {"systemd-secrets"},
    "storage-names": {"storage-names"},
    "hostname": {"hostname"},
    "network-profiles": {"network-profiles"},
    "network-state": {"network-state"},
    "installer-files": {"installer-files"},
    "package-history": {"package-history"},
    "credentials": {"credentials", "gnupg"},
    "authorized-keys": {"authorized-keys", "private-keys", "known-hosts"},
    "passwords": {"passwords"},
    "guest-agent": {"open-agent"},
    "cloud-init": {"cloud-init"},
    "shell-history": {"shell-history"},
    "spool": {"spool"},
    "crash-dumps": {"crash-dumps"},
    # A journal's name is the machine-id, and cloud-init's log is a log.
    "logs": {"logs", "machine-id", "cloud-init"},
    "k3s-state": {"k3s-state", "credentials"},
}


@pytest.mark.parametrize("operation", KEPT)
def test_what_the_seal_was_told_to_keep_is_found(built: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str], operation: str) -> None:
    built.ok("seal.sh", SEAL_KEEP=operation)
    code, found, problems = look(capsys, built, tmp_path)
    assert (code, problems) == (1, [])
    assert {identity for identity, _ in found} == KEPT[operation]


def test_what_is_removed_is_overwritten_before(built: Guest) -> None:
    """A second name of each file shows what became of its bytes."""
    secrets = [
        "etc/ssh/ssh_host_ed25519_key",
        "root/.ssh/id_ed25519",
        "etc/shadow",
        "etc/shadow-",
        "var/lib/systemd/random-seed",
        "root/anaconda-ks.cfg",
    ]
    secrets += ["var/lib/rancher/k3s/server/token", "var/lib/systemd/credential.secret", "root/.kube/config", "root/.bash_history"]
    names = [built.root / path for path in secrets]
    kept = [built.root / f"kept-{index}" for index in range(len(names))]
    for name, second in zip(names, kept, strict=True):
        second.hardlink_to(name)
    built.ok("seal.sh")
    assert [path for path, second in zip(secrets, kept, strict=True) if second.read_bytes().strip(b"\0")] == []
