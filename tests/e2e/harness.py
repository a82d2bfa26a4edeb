"""What the whole builds need: the medium's mirror, a cluster of real guests, the command as people run it, and eyes on the machine."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/alma9-k3s-optimized"
MEDIUM = Path(os.environ.get("STAND_IN_OUT", ROOT / "target/stand-in"))
COMMAND = os.environ.get("K3SIMAGE", str(ROOT / "target/debug/k3simage"))

ISO = "AlmaLinux-9.4-x86_64-dvd.iso"
K3S = "v1.29.0+k3s1"
"""The example's own release, which the medium's mirror has."""

HOST = "10.0.2.2"
"""Where a guest of the emulator finds this machine."""

GUESTS = range(0x7F400000, 0x7F800000)
"""127.64.0.0/10, where this machine finds the guests."""

PATIENCE_S = 3600
"""One build: some minutes on two idle cores without KVM; a busy machine may take many times that."""


GUESTS_STEPS = {"install", "connect", "provision", "seal", "shut_down"}
SETTLE_S = 1.25
"""How long a menu has to rest until a key is typed, and the look that sees it: SETTLED and LOOK of build/steps/install/menu.rs."""
LOOK_S = 2.0
"""Longest pause of a wait: LONGEST of build/pace.rs."""
AGENT_LOOK_S = 1.0
"""Longest pause between looks at a running command: LONGEST_LOOK of communicator/agent/run.rs."""


def _moment(event: dict[str, Any]) -> datetime:
    # Python 3.11 reads six digits behind the point; there are nine, or as many as are not zero.
    return datetime.fromisoformat(event["time"].rstrip("Z")[:26]).replace(tzinfo=UTC)


class Mirror(ThreadingHTTPServer):
    """The medium's mirror on loopback. It keeps what was asked, and breaks off when it is told to, by a guest too:

    /-/cut/N lets N more answers pass whole and breaks off each later one in its middle; /-/mend ends that.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.left: int | None = None
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def for_guests(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"


class _Handler(SimpleHTTPRequestHandler):
    server: Mirror

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, directory=str(MEDIUM / "mirror"))

    def do_GET(self) -> None:
        mirror = self.server
        with mirror.lock:
            if self.path.startswith("/-/"):
                _, _, what, *number = self.path.split("/")
                mirror.left = int(number[0]) if what == "cut" else None
                self.send_response(204)
                self.end_headers()
                return
            mirror.asked.append(self.path)
            broken = mirror.left == 0
            if mirror.left:
                mirror.left -= 1
        if not broken:
            super().do_GET()
            return
        file = Path(self.translate_path(self.path))
        body = file.read_bytes() if file.is_file() else b"nothing\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """What was asked is kept instead."""


class Eyes:
    """Watches this machine's connections to the SSH of one emulator's guests while a build runs."""

    def __init__(self, data: Path) -> None:
        self._port = data / "run/ssh-port"
        self.connections: set[str] = set()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Eyes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ends.wait(0.2):
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
                _, local, remote, state, *_ = line.split()
                address, port = remote.split(":")
                # Addresses stand there in the machine's byte order; 01 is an established connection. What is forwarded is SSH.
                number = int.from_bytes(int(address, 16).to_bytes(4, "little"), "big")
                if number in GUESTS and state == "01" and self._is_ours(int(port, 16)):
                    self.connections.add(local)

    def _is_ours(self, port: int) -> bool:
        """Guests of another emulator may run on this machine; each one has a port of its own for all of its guests."""
        return self._port.exists() and self._port.read_text() == str(port)


@dataclass
class Built:
    """One run of `k3simage build`."""

    code: int
    events: list[dict[str, Any]]
    errors: str
    seconds: float
    manifest: dict[str, Any] | None

    @property
    def artifact(self) -> dict[str, Any]:
        assert self.code == 0, f"exit {self.code}\n{self.errors}\n" + "\n".join(json.dumps(event) for event in self.events[-12:])
        return self._last("build_finished")["artifact"]

    @property
    def error(self) -> dict[str, Any]:
        """What the command says at the end of a build that failed."""
        assert self.code, "it ended well"
        return self._last("error")

    def step(self, name: str) -> dict[str, Any]:
        return next(event for event in self.events if event["event"] == "step_finished" and event["step"] == name)

    def steps(self) -> list[tuple[str, float]]:
        return [(event["step"], event["seconds"]) for event in self.events if event["event"] == "step_finished"]

    def waiting(self) -> float:
        """The most that our own waiting and our own work can have added to what the guest did, in seconds.

        All of the steps in which no guest works; what passed between a guest's last word and the end of a step; and where a guest
        says nothing at the end, the longest pause between two looks for each wait.
        """
        ours = [seconds for step, seconds in self.steps() if step not in GUESTS_STEPS]
        silent = SETTLE_S + LOOK_S * (1 if self._by_agent() else 2)
        if self._by_agent():
            silent += AGENT_LOOK_S * len([step for step in self.steps() if step[0] == "seal"])
            silent += AGENT_LOOK_S * len(self.step("provision")["summary"].split("; "))
        silent += 2 * LOOK_S * self.step("provision")["summary"].count("rebooted in")
        return sum(ours) + self._after("install", "Installation complete") + self._after("shut_down", "reboot: Power down") + silent

    def _by_agent(self) -> bool:
        return self.step("connect")["summary"].startswith("guest agent")

    def _after(self, step: str, words: str) -> float:
        """Seconds from a line of the console to the end of its step."""
        told = [event for event in self.events if event["event"] == "log" and event["step"] == step and words in event["line"]]
        assert told, f"the guest does not say {words!r}"
        return (_moment(self.step(step)) - _moment(told[-1])).total_seconds()

    def lines(self, source: str) -> list[str]:
        return [event["line"] for event in self.events if event["event"] == "log" and event["source"] == source]

    def _last(self, name: str) -> dict[str, Any]:
        return next(event for event in reversed(self.events) if event["event"] == name)


@dataclass
class Site:
    """A place for one build: a folder of data with the installer's ISO in it, and the mirror."""

    data: Path
    mirror: Mirror
    results: Path
    env: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        isos = self.data / "storage/pve/local/template/iso"
        isos.mkdir(parents=True)
        try:
            os.link(MEDIUM / ISO, isos / ISO)
        except OSError:
            shutil.copyfile(MEDIUM / ISO, isos / ISO)

    def variables(self) -> dict[str, str]:
        """What points the example to the medium and its mirror; nothing else of it is changed."""
        sums = (MEDIUM / "mirror/k3s" / K3S / "sha256sum-amd64.txt").read_text().splitlines()
        return {
            "alma_iso_url": f"local:iso/{ISO}",
            "alma_mirror_url": self.mirror.for_guests,
            "k3s_mirror_url": f"{self.mirror.for_guests}/k3s",
            # Over http the list of checksums proves nothing, so the binary's own is given.
            "k3s_sha256": next(line.split()[0] for line in sums if line.split()[1] == "k3s"),
            "vm_disk_size": "12G",
        }

    def build(self, folder: Path, *options: str, **variables: str) -> Built:
        manifest = self.results / "manifest.json"
        command = [COMMAND, "build", str(folder), "--json", "--manifest", str(manifest), *options]
        for name, value in (self.variables() | variables).items():
            command += ["-var", f"{name}={value}"]
        begun = time.monotonic()
        with (self.results / "build.jsonl").open("wb") as out, (self.results / "build.err").open("wb") as err:
            code = subprocess.run(command, stdout=out, stderr=err, env=os.environ | self.env, timeout=PATIENCE_S, check=False).returncode
        return Built(
            code=code,
            events=[json.loads(line) for line in (self.results / "build.jsonl").read_text().splitlines()],
            errors=(self.results / "build.err").read_text(),
            seconds=time.monotonic() - begun,
            manifest=json.loads(manifest.read_text()) if manifest.exists() else None,
        )


@dataclass
class Cluster:
    """A running `k3simage emulator --engine qemu`."""

    facts: dict[str, Any]
    data: Path

    def __call__(self, path: str, method: str = "GET", **values: str) -> Any:
        """One call with all rights, by Python's own client and the emulator's CA."""
        host, port = self.facts["url"].removeprefix("https://").rsplit(":", 1)
        trust = ssl.create_default_context(cafile=str(self.data / "pve-root-ca.pem"))
        connection = http.client.HTTPSConnection(host, int(port), context=trust, timeout=120)
        head = {"Authorization": f"PVEAPIToken={self.facts['token_id']}={self.facts['token_secret']}"}
        query = f"?{urlencode(values)}" if values and method == "GET" else ""
        body = urlencode(values) if values and method != "GET" else None
        connection.request(method, f"/api2/json{path}{query}", body=body, headers=head)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.reason}"
        return json.loads(text)["data"]

    def options(self) -> list[str]:
        """What the emulator itself says that a build on it must be told."""
        return [word for name, value in self.facts["variables"].items() if name != "proxmox_token" for word in ("-var", f"{name}={value}")]

    def secret(self) -> dict[str, str]:
        return {"PKR_VAR_proxmox_token": self.facts["token_secret"]}


@contextmanager
def cluster(data: Path) -> Iterator[Cluster]:
    """Starts the emulator on a data directory, and ends it as Ctrl-C does."""
    command = [COMMAND, "emulator", "--engine", "qemu", "--json", "--listen", "127.0.0.1:0", "--data", str(data)]
    with (data.parent / "emulator.err").open("ab") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        try:
            assert process.stdout
            first = process.stdout.readline()
            assert first, (data.parent / "emulator.err").read_text()
            yield Cluster(json.loads(first), data)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=120)
            finally:
                process.kill()


def processes_in(folder: Path) -> list[str]:
    """Programs that run with a folder below this one as their own, or name one: what a build left running."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            at = process.joinpath("cwd").readlink()
            words = process.joinpath("cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if int(process.name) != os.getpid() and (at.is_relative_to(folder) or ("qemu" in words and str(folder) in words)):
            found.append(f"{process.name} {words}")
    return found


def files_in(data: Path) -> set[str]:
    """The volumes of a data directory, and what lies where guests run and uploads are put together; not the emulator's list and port."""
    folders, own = ("storage", "run", "tmp"), {"volumes.json", "ssh-port"}
    found = (path for name in folders for path in (data / name).rglob("*") if path.is_file() and path.name not in own)
    return {str(path.relative_to(data)) for path in found}
