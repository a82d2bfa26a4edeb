"""A guest to run the scripts in: a folder as its root, and stand-ins for the programs that would reach outside it."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
SCRIPTS = REPO / "scripts"
# The checker of sealed disks, and what makes disks for it.
sys.path += [str(REPO / "seal-check"), str(REPO / "seal-check/tests")]

# Each stand-in writes down how it was called; the few that scripts ask questions answer from files in $STATE.
STANDINS = {
    "systemctl": """
        units=(); for word in "${@:2}"; do [[ "$word" == -* ]] || units+=("$word"); done
        case "$1" in
            enable) for unit in "${units[@]}"; do touch "$STATE/enabled/$unit"; done ;;
            disable|mask) for unit in "${units[@]}"; do rm -f "$STATE/enabled/$unit"; done ;;
            start) for unit in "${units[@]}"; do touch "$STATE/active/$unit"; done ;;
            stop) for unit in "${units[@]}"; do rm -f "$STATE/active/$unit"; done ;;
            is-active) [[ -e "$STATE/active/${units[0]}" ]] ;;
            list-unit-files) if [[ -e "$STATE/units/${units[0]}" ]]; then echo "${units[0]} enabled"; fi ;;
            daemon-reload) ;;
            *) echo "systemctl: unknown $1" >&2; exit 64 ;;
        esac""",
    "rpm": '[[ "$1" == -q ]] || exit 64; [[ -e "$STATE/packages/$2" ]]',
    "dnf": """
        [[ ! -e "$STATE/dnf-fails" ]] || { echo 'Error: Failed to download metadata for repo' >&2; exit 1; }
        for word in "$@"; do
            package="${word##*/}"
            case "$word" in -*|install|upgrade|clean|all) ;; *) touch "$STATE/packages/${package%.rpm}" ;; esac
        done""",
    "curl": """
        [[ ! -e "$STATE/network-fails" ]] || { echo 'curl: (6) Could not resolve host' >&2; exit 6; }
        while (($#)); do
            case "$1" in --output) out="$2"; shift ;; --proto|--proto-redir|--retry|--connect-timeout) shift ;; -*) ;; *) url="$1" ;; esac
            shift
        done
        file="$STATE/web/${url#*://}"
        [[ -f "$file" ]] || { echo "curl: (22) The requested URL returned error: 404" >&2; exit 22; }
        cp "$file" "$out" """,
    "blkid": '[[ "$*" == "-L K3SIMAGE" && -d "$STATE/volume" ]] || exit 2; echo /dev/sr1',
    "mount": 'cp -r "$STATE/volume/." "${!#}"',
    "umount": 'rm -rf "${1:?}"/*',
    "hostname": 'cat "$STATE/hostname"',
    "hostnamectl": '[[ "$1" == set-hostname ]] || exit 64; echo "$2" >"$STATE/hostname"',
    "getsebool": 'echo "$1 --> $(cat "$STATE/bool/$1")"',
    "setsebool": '[[ "$1" == -P ]] || exit 64; echo "$3" >"$STATE/bool/$2"',
    "semodule": 'cat "$STATE/semodules"',
    "restorecon": "",
    "cloud-init": "",
    "journalctl": "",
    "auditctl": "",
    "service": "",
    "swapoff": "",
    "sync": "",
}

K3S = """#!/bin/sh
[ "$1" = --version ] || { echo "k3s was started: $*" >>"$STATE/started"; exit 1; }
echo "k3s version v1.29.0+k3s1 (3190a5fa)"
echo "go version go1.21.4"
"""
VERSION = "v1.29.0+k3s1"
MIRROR = "github.com/k3s-io/k3s/releases/download/v1.29.0%2Bk3s1"


class Guest:
    """The folder that stands for a guest's root, and what its programs remember."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.state = folder / "state"
        self.bin = folder / "bin"
        for path in ("enabled", "active", "units", "packages", "web", "bool"):
            (self.state / path).mkdir(parents=True)
        for path in ("etc/ssh", "var/tmp", "var/log", "var/lib", "run", "root", "home", "tmp"):
            (self.root / path).mkdir(parents=True)
        self.bin.mkdir()
        for name, body in STANDINS.items():
            self.stand_in(name, body)
        self.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        self.write("etc/shadow", "root:!!:19700::::::\nbin:*:19700::::::\n")
        (self.state / "hostname").write_text("localhost.localdomain\n")
        (self.state / "bool/virt_qemu_ga_run_unconfined").write_text("off\n")
        (self.state / "semodules").write_text("container\nk3s\n")

    def stand_in(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/usr/bin/env bash\nset -uo pipefail\necho "{name} $*" >>"$STATE/calls"\n{body}\n')
        path.chmod(0o755)

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.root / path)

    def serve(self, path: str, content: bytes) -> str:
        """Puts a file behind the stand-in of curl; returns its SHA-256."""
        file = self.state / "web" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def serve_k3s(self, mirror: str = MIRROR, binary: str = K3S) -> str:
        """A release as it lies on the release page."""
        images = self.serve(f"{mirror}/k3s-airgap-images-amd64.tar.zst", b"images\n")
        k3s = self.serve(f"{mirror}/k3s", binary.encode())
        self.serve(f"{mirror}/sha256sum-amd64.txt", f"{images}  k3s-airgap-images-amd64.tar.zst\n{k3s}  k3s\n".encode())
        return k3s

    def run(self, script: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        path = SCRIPTS / script if isinstance(script, str) else script
        return subprocess.run(
            ["bash", str(path)],
            env={
                "PATH": f"{self.bin}:/usr/bin:/bin:/usr/sbin:/sbin",
                "STATE": str(self.state),
                "K3SIMAGE_ROOT": str(self.root),
                "LC_ALL": "C.UTF-8",
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def ok(self, script: str | Path, **env: str) -> str:
        done = self.run(script, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, script: str | Path, **env: str) -> str:
        """Runs it and returns its last word, which must be an error's."""
        done = self.run(script, **env)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stderr

    def calls(self, start: str = "") -> list[str]:
        log = self.state / "calls"
        return [line for line in log.read_text().splitlines() if line.startswith(start)] if log.exists() else []

    def forget_calls(self) -> None:
        (self.state / "calls").unlink(missing_ok=True)

    def listing(self) -> dict[str, tuple[int, int, bytes]]:
        """Every file with its inode, mode and content: what a second run must leave alone."""
        files = {}
        for path in sorted(self.root.rglob("*")):
            info = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            inode = info.st_ino if not stat.S_ISDIR(info.st_mode) else 0
            files[str(path.relative_to(self.root))] = (inode, stat.S_IMODE(info.st_mode), content)
        return files

    def enabled(self) -> set[str]:
        return {path.name for path in (self.state / "enabled").iterdir()}

    def active(self) -> set[str]:
        return {path.name for path in (self.state / "active").iterdir()}


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)
