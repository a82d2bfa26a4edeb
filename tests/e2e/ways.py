"""The ways in which the example is built, and what is kept of each for its test."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import COMMAND, EXAMPLE, HOST, ROOT, Built, Cluster, Eyes, Site, cluster, files_in, processes_in

SCRIPTS = ["os-update.sh", "guest-agent.sh", "k3s-install.sh", "hardening-oscap.sh"]


@dataclass
class Outcome:
    """A build, and the machine and the cluster after it."""

    data: Path
    """Where the emulator keeps the cluster."""
    built: Built
    guests: list[dict[str, Any]]
    config: dict[str, Any]
    files: set[str]
    processes: list[str]
    connections: set[str]
    """Connections of this machine to the guest's SSH while it was built."""
    asked: list[str]
    """What the guest asked the mirror for."""
    seal: tuple[int, str]
    """Exit code and words of the checker that reads the image's disk from outside."""


def _look(site: Site, pve: Cluster, built: Built, eyes: Eyes) -> Outcome:
    vmid = built.artifact["vmid"]
    config = pve(f"/nodes/pve/qemu/{vmid}/config")
    (disk,) = (site.data / "storage").rglob(config["scsi0"].split(",")[0].split(":")[1].split("/")[-1])
    # What opens the cluster has never been in the guest, and a password was removed from it: neither may be anywhere on the disk,
    # nor, in free space, the private key that the guest had for the time of the build.
    forbidden = site.results / "forbidden"
    forbidden.touch(mode=0o600)
    forbidden.write_text("".join(f"{secret}\n" for secret in (pve.secret() | site.env).values()))
    checker = [ROOT / "seal-check/seal-check", "--strict", "--forbid-file", forbidden, disk]
    sealed = subprocess.run(checker, text=True, capture_output=True, check=False)
    forbidden.unlink()
    return Outcome(
        data=site.data,
        built=built,
        guests=pve("/nodes/pve/qemu"),
        config=config,
        files=files_in(site.data),
        # The emulator itself runs elsewhere.
        processes=processes_in(site.data / "run"),
        connections=eyes.connections,
        asked=site.mirror.asked,
        seal=(sealed.returncode, sealed.stdout + sealed.stderr),
    )


def _on_a_cluster(site: Site, folder: Path, **variables: str) -> Outcome:
    """On an emulator that runs for itself, told only what that one prints."""
    with cluster(site.data) as pve, Eyes(site.data) as eyes:
        site.env |= pve.secret()
        return _look(site, pve, site.build(folder, *pve.options(), **variables), eyes)


def bios_oemdrv_ssh(site: Site) -> Outcome:
    """The short way: one command, the emulator inside it; the image outlives it."""
    with Eyes(site.data) as eyes:
        built = site.build(EXAMPLE, "--emulator=qemu", "--data", str(site.data))
    left = processes_in(site.data)
    with cluster(site.data) as pve:
        outcome = _look(site, pve, built, eyes)
    outcome.processes += left
    return outcome


LOOK = r"""#!/usr/bin/env bash
# Looks at the file that was brought, and takes it away.
set -euo pipefail
file=/opt/e2e-file
printf '%s  %s\n' '@SUM@' "${file}" | sha256sum --check --quiet
[[ "$(stat -c '%a %U' "${file}")" == '600 root' ]]
rm "${file}"
"""

FILE_MIB = 16


def uefi_oemdrv_agent(site: Site) -> Outcome:
    """The API is the only way in, for a large file too."""
    folder = site.results / "folder"
    subprocess.run([COMMAND, "init", str(folder), "--quiet"], check=True, timeout=600)
    content = os.urandom(FILE_MIB << 20)
    (folder / "large").write_bytes(content)
    (folder / "scripts/look.sh").write_text(LOOK.replace("@SUM@", hashlib.sha256(content).hexdigest()))
    outcome = _on_a_cluster(
        site,
        folder,
        vm_bios="ovmf",
        communicator="agent",
        files='["large=/opt/e2e-file,0600"]',
        scripts="[" + ", ".join(f'"{name}"' for name in ["look.sh", *SCRIPTS]) + "]",
    )
    shutil.rmtree(folder)
    return outcome


def bios_http_typed(site: Site) -> Outcome:
    """The whole line is typed at the boot loader's prompt, and leads to the builder's own server; a password logs in, not a key."""
    folder = site.results / "folder"
    subprocess.run([COMMAND, "init", str(folder), "--quiet"], check=True, timeout=600)
    kickstart = folder / "http/ks.cfg.j2"
    text = kickstart.read_text()
    assert "rootpw --lock\n" in text
    kickstart.write_text(text.replace("rootpw --lock\n", "rootpw --allow-ssh {{ ssh_password | word }}\n"))
    site.env = {"PKR_VAR_ssh_password": f"e2e {secrets.token_urlsafe(16)}"}
    line = (
        '["<esc><wait3>", "vmlinuz initrd=initrd.img inst.stage2=hd:LABEL=AlmaLinux-9-4-x86_64-dvd ",'
        ' "inst.text inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg<enter>"]'
    )
    outcome = _on_a_cluster(site, folder, kickstart_delivery="http", boot_command=line)
    shutil.rmtree(folder)
    return outcome


RESTART = """#!/usr/bin/env bash
# Ends well, and its connection with it.
set -euo pipefail
systemctl reboot
"""

STATE = r"""#!/usr/bin/env bash
# What an image is made of: files of the system, packages, units. Kept at first, compared later.
set -euo pipefail
state() {
    find /etc /usr/local /usr/lib/systemd /root -xdev -type f ! -path /etc/resolv.conf -exec sha256sum {} + | LC_ALL=C sort -k 2
    rpm -qa | LC_ALL=C sort
    # From the files: a slow machine's systemd may be too busy for an answer, as after a reboot.
    systemctl --root=/ list-unit-files --no-legend | LC_ALL=C sort
    for _ in 1 2 3 4 5; do units="$(systemctl list-units --no-legend --plain --type=service --state=running)" && break; done
    # Some are started by whoever asks them, and end by themselves.
    printf '%s\n' "${units}" \
        | awk '$1 !~ /^systemd-(hostname|locale|timedate)d/ { print $1 }' | LC_ALL=C sort
}
kept=/var/tmp/e2e-state
if [[ ! -f "${kept}" ]]; then state >"${kept}"; exit 0; fi
state | diff "${kept}" - || { echo 'state: the second run changed the lines above' >&2; exit 1; }
rm "${kept}"
"""

TRY = r"""#!/usr/bin/env bash
# Scripts that download, with a mirror that breaks off: a clear error, and a second run that ends well.
set -euo pipefail
mirror=@MIRROR@
here="$(mktemp -d)"
trap 'rm -rf "${here}"' EXIT
@FILES@
# broken NAME WORDS ANSWERS: NAME fails with these words when the mirror breaks off after so many answers, then works
broken() {
    curl -fsS "${mirror}/-/cut/$3"
    if bash "${here}/$1" >"${here}/said" 2>&1; then cat "${here}/said"; echo "try: $1 did not notice" >&2; exit 1; fi
    tail -n 3 "${here}/said"
    grep -qF "$2" "${here}/said" || { echo "try: $1 does not say \"$2\"" >&2; exit 1; }
    curl -fsS "${mirror}/-/mend"
    bash "${here}/$1"
}
broken os-update.sh 'os-update: dnf could not update' 0
broken k3s-install.sh 'k3s-install: cannot fetch' 1
"""


def _folder(site: Site) -> Path:
    """The example as `init` writes it, with scripts of our own beside its own."""
    folder = site.results / "folder"
    subprocess.run([COMMAND, "init", str(folder), "--quiet"], check=True, timeout=600)
    files = "".join(
        f"cat >\"${{here}}/{name}\" <<'E2E_SCRIPT'\n{(folder / 'scripts' / name).read_text()}E2E_SCRIPT\n"
        for name in ("os-update.sh", "k3s-install.sh")
    )
    for name, text in {
        "restart.sh": RESTART,
        "state.sh": STATE,
        "try.sh": TRY.replace("@MIRROR@", f"http://{HOST}:{site.mirror.server_address[1]}").replace("@FILES@", files),
    }.items():
        (folder / "scripts" / name).write_text(text)
    return folder


def bios_reboot(site: Site) -> Outcome:
    """Reboots in the middle; each script runs twice, and with a network that fails."""
    folder = _folder(site)
    order = ["try.sh", *SCRIPTS, "restart.sh", "state.sh", *SCRIPTS, "state.sh"]
    outcome = _on_a_cluster(
        site,
        folder,
        scripts="[" + ", ".join(f'"{name}"' for name in order) + "]",
        expect_disconnect='["restart.sh"]',
        hardening_oscap="true",
    )
    shutil.rmtree(folder)
    return outcome


WAYS: dict[str, Callable[[Site], Outcome]] = {
    "bios": bios_oemdrv_ssh,
    "uefi": uefi_oemdrv_agent,
    "http": bios_http_typed,
    "reboot": bios_reboot,
}
