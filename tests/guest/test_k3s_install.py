"""k3s-install.sh: verified, laid down, never started."""

import hashlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import K3S, MIRROR, VERSION, Guest

SCRIPT = "k3s-install.sh"


@contextmanager
def web(folder: Path, redirect_to: str) -> Iterator[int]:
    """A server on loopback with a certificate of its own (FOLDER/tls.pem), which redirects whoever asks."""

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", redirect_to)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing: the test reads what the script says."""

    pem = folder / "tls.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", str(pem), "-out", f"{pem}.crt"], check=True, capture_output=True)
    pem.write_text(pem.read_text() + Path(f"{pem}.crt").read_text())
    server = HTTPServer(("127.0.0.1", 0), Redirect)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_lays_down_the_binary_the_units_and_the_first_boot(guest: Guest) -> None:
    sha = guest.serve_k3s()
    out = guest.ok(SCRIPT, K3S_VERSION=VERSION, K3SIMAGE_NAME="alma9-k3-node-amd64-v1.29.0-v1", K3SIMAGE_BUILD_ID="7f3a")
    assert f"k3s {VERSION}, SHA-256 {sha}" in out
    assert guest.read("usr/local/bin/k3s") == K3S
    assert (guest.root / "usr/local/bin/k3s").stat().st_mode & 0o777 == 0o755
    assert [(guest.root / "usr/local/bin" / tool).readlink().name for tool in ("kubectl", "crictl", "ctr")] == ["k3s"] * 3
    assert guest.read("etc/k3simage/image.env").splitlines() == [
        "IMAGE_NAME=alma9-k3-node-amd64-v1.29.0-v1",
        "BUILD_ID=7f3a",
        f"K3S_VERSION={VERSION}",
        "K3S_ROLE=server",
    ]
    assert "ExecStart=/usr/local/bin/k3s server $K3S_ARGS\n" in guest.read("etc/systemd/system/k3s.service")
    assert "ExecStart=/usr/local/bin/k3s agent $K3S_ARGS\n" in guest.read("etc/systemd/system/k3s-agent.service")
    assert guest.enabled() == {"k3simage-firstboot.service"}
    assert guest.active() == set()
    assert not (guest.state / "started").exists()
    assert list((guest.root / "var/tmp").iterdir()) == []


def test_a_second_run_changes_nothing_and_fetches_only_the_list(guest: Guest) -> None:
    guest.serve_k3s()
    env = {"K3S_VERSION": VERSION, "K3S_AIRGAP_IMAGES": "1"}
    guest.ok(SCRIPT, **env)
    before = guest.listing()
    guest.forget_calls()
    guest.ok(SCRIPT, **env)
    assert guest.listing() == before
    assert [call.split("/")[-1] for call in guest.calls("curl")] == ["sha256sum-amd64.txt"]


def test_a_binary_that_is_not_what_the_list_says_is_not_installed(guest: Guest) -> None:
    guest.serve_k3s()
    guest.serve(f"{MIRROR}/k3s", b"something else")
    error = guest.refused(SCRIPT, K3S_VERSION=VERSION)
    assert "/k3s has SHA-256 " in error and ": not installed" in error
    assert not guest.exists("usr/local/bin/k3s")
    assert list((guest.root / "var/tmp").iterdir()) == []


def test_a_damaged_binary_in_place_is_replaced(guest: Guest) -> None:
    guest.serve_k3s()
    guest.write("usr/local/bin/k3s", "half a file")
    guest.ok(SCRIPT, K3S_VERSION=VERSION)
    assert guest.read("usr/local/bin/k3s") == K3S


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ({}, 'K3S_VERSION is ""; give a release such as v1.29.0+k3s1'),
        ({"K3S_VERSION": "v1.29.0"}, 'K3S_VERSION is "v1.29.0"'),
        ({"K3S_VERSION": "v1.29.0+k3s1/../x"}, "K3S_VERSION is"),
        ({"K3S_ROLE": "master"}, 'K3S_ROLE is "master"; give server, agent or none'),
        ({"K3S_MIRROR_URL": "ftp://x"}, "give an https:// address"),
        ({"K3S_MIRROR_URL": "http://mirror/k3s"}, "give K3S_SHA256 too"),
        (
            {"K3S_MIRROR_URL": "http://mirror/k3s", "K3S_SHA256": "0" * 64, "K3S_AIRGAP_IMAGES": "1"},
            "give K3S_AIRGAP_SHA256 too",
        ),
        ({"K3S_SHA256": "0" * 64}, "but K3S_SHA256 is 000"),
        ({"K3S_AIRGAP_IMAGES": "yes"}, "give 1 or 0"),
        ({"K3SIMAGE_NAME": "a\nK3S_ROLE=none"}, "may hold letters, digits"),
        ({"K3S_SELINUX_RPM_URL": "https://rpm/k3s-selinux.rpm"}, "belong together"),
        ({"K3S_SELINUX_RPM_SHA256": "0" * 64}, "belong together"),
    ],
)
def test_bad_input_is_refused_by_name_before_anything_is_written(guest: Guest, env: dict[str, str], part: str) -> None:
    guest.serve_k3s()
    before = guest.listing()
    defaults = {"K3S_VERSION": VERSION} if env else {}
    assert part in guest.refused(SCRIPT, **(defaults | env))
    assert guest.listing() == before


def test_a_list_with_no_or_two_checksums_for_the_binary_is_refused(guest: Guest) -> None:
    for text in (b"", b"abc  k3s\n", b"0" * 64 + b"  k3s\n" + b"1" * 64 + b"  k3s\n"):
        guest.serve_k3s()
        guest.serve(f"{MIRROR}/sha256sum-amd64.txt", text)
        assert "has no single SHA-256 for k3s" in guest.refused(SCRIPT, K3S_VERSION=VERSION)


def test_a_failing_network_names_the_address_and_a_later_run_succeeds(guest: Guest) -> None:
    guest.serve_k3s()
    (guest.state / "network-fails").touch()
    error = guest.refused(SCRIPT, K3S_VERSION=VERSION)
    assert f"cannot fetch https://{MIRROR}/sha256sum-amd64.txt" in error
    (guest.state / "network-fails").unlink()
    guest.ok(SCRIPT, K3S_VERSION=VERSION)


def test_a_mirror_is_used_in_place_of_the_release_page(guest: Guest) -> None:
    sha = guest.serve_k3s(mirror="mirror.lan/k3s/v1.29.0%2Bk3s1")
    guest.ok(SCRIPT, K3S_VERSION=VERSION, K3S_MIRROR_URL="http://mirror.lan/k3s/", K3S_SHA256=sha.upper())
    assert all("http://mirror.lan/k3s/v1.29.0%2Bk3s1/" in call for call in guest.calls("curl"))


def test_the_images_of_a_plain_mirror_are_what_was_asked_for_or_are_not_laid_down(guest: Guest) -> None:
    sha = guest.serve_k3s(mirror="mirror.lan/k3s/v1.29.0%2Bk3s1")
    env = {"K3S_VERSION": VERSION, "K3S_MIRROR_URL": "http://mirror.lan/k3s", "K3S_SHA256": sha, "K3S_AIRGAP_IMAGES": "1"}
    archive = "var/lib/rancher/k3s/agent/images/k3s-airgap-images-amd64.tar.zst"
    assert "but K3S_AIRGAP_SHA256 is 000" in guest.refused(SCRIPT, **env, K3S_AIRGAP_SHA256="0" * 64)
    assert not guest.exists(archive)
    guest.ok(SCRIPT, **env, K3S_AIRGAP_SHA256=hashlib.sha256(b"images\n").hexdigest())
    assert guest.exists(archive)


def test_no_redirect_leads_from_tls_to_a_plain_place(guest: Guest, tmp_path: Path) -> None:
    """The real curl, against a server that redirects to http://."""
    guest.serve_k3s()
    with web(tmp_path, redirect_to="http://127.0.0.1:9/") as port:
        real = shutil.which("curl", path="/usr/bin:/bin")
        guest.stand_in("curl", f'exec {real} --cacert {tmp_path}/tls.pem "$@"')
        error = guest.refused(SCRIPT, K3S_VERSION=VERSION, K3S_MIRROR_URL=f"https://127.0.0.1:{port}/k3s")
    assert 'Protocol "http" not supported or disabled' in error or "Unsupported protocol" in error, error
    assert "cannot fetch https://127.0.0.1" in error
    assert not guest.exists("usr/local/bin/k3s")


def test_a_binary_of_another_version_is_found_out(guest: Guest) -> None:
    guest.serve_k3s(binary=K3S.replace("v1.29.0", "v1.28.5"))
    assert "not v1.29.0+k3s1" in guest.refused(SCRIPT, K3S_VERSION=VERSION)


@pytest.mark.parametrize(
    ("version", "cached"),
    [
        ("v1.29.0", False),
        ("v1.31.8", False),
        ("v1.31.9", True),
        ("v1.32.4", False),
        ("v1.32.10", True),
        ("v1.33.0", False),
        ("v1.33.1", True),
        ("v1.34.0", True),
    ],
)
def test_air_gap_images_with_the_cache_file_where_k3s_knows_it(guest: Guest, version: str, cached: bool) -> None:
    guest.serve_k3s(mirror=f"github.com/k3s-io/k3s/releases/download/{version}%2Bk3s1", binary=K3S.replace("v1.29.0", version))
    guest.ok(SCRIPT, K3S_VERSION=f"{version}+k3s1", K3S_AIRGAP_IMAGES="1")
    images = "var/lib/rancher/k3s/agent/images"
    assert guest.read(f"{images}/k3s-airgap-images-amd64.tar.zst") == "images\n"
    assert guest.exists(f"{images}/.cache.json") == cached


def test_selinux_policy_is_installed_after_its_base_and_proven_loaded(guest: Guest) -> None:
    guest.serve_k3s()
    sha = guest.serve("rpm.lan/k3s-selinux.rpm", b"rpm")
    guest.stand_in("stat", 'echo "system_u:object_r:container_runtime_exec_t:s0"')
    env = {"K3S_VERSION": VERSION, "K3S_SELINUX_RPM_URL": "https://rpm.lan/k3s-selinux.rpm", "K3S_SELINUX_RPM_SHA256": sha}
    guest.ok(SCRIPT, **env)
    assert [call.split()[-1].rsplit("/", 1)[-1] for call in guest.calls("dnf")] == ["container-selinux", "k3s-selinux.rpm"]
    assert guest.read("etc/rancher/k3s/config.yaml.d/20-selinux.yaml") == "selinux: true\n"
    (guest.state / "semodules").write_text("container\nk3s-old\n")
    assert "its policy is not loaded" in guest.refused(SCRIPT, **env)
    (guest.state / "semodules").write_text("container\nk3s\n")
    guest.stand_in("stat", 'echo "system_u:object_r:bin_t:s0"')
    assert "is not labelled container_runtime_exec_t" in guest.refused(SCRIPT, **env)


def test_a_wrong_rpm_is_not_installed(guest: Guest) -> None:
    guest.serve_k3s()
    guest.serve("rpm.lan/k3s-selinux.rpm", b"rpm")
    env = {"K3S_SELINUX_RPM_URL": "https://rpm.lan/k3s-selinux.rpm", "K3S_SELINUX_RPM_SHA256": "0" * 64}
    assert "not installed" in guest.refused(SCRIPT, K3S_VERSION=VERSION, **env)
    assert guest.calls("dnf") == []


def test_systemd_accepts_the_units(guest: Guest) -> None:
    guest.serve_k3s()
    guest.ok(SCRIPT, K3S_VERSION=VERSION)
    units = guest.root / "etc/systemd/system"
    for unit in ("k3s.service", "k3s-agent.service", "k3simage-firstboot.service"):
        text = (units / unit).read_text()
        keys = {line.split("=")[0] for line in text.splitlines() if "=" in line and not line.startswith("#")}
        assert {"Description", "ExecStart", "Type", "WantedBy"} <= keys, unit
        assert text.count("[Unit]") == text.count("[Service]") == text.count("[Install]") == 1
    firstboot = (units / "k3simage-firstboot.service").read_text()
    assert "ConditionPathExists=/etc/k3simage/sealed\n" in firstboot
    for unit in ("k3s.service", "k3s-agent.service"):
        assert "AssertPathExists=/var/lib/k3simage/firstboot.done\n" in (units / unit).read_text()


def test_shellcheck_accepts_the_program_that_it_writes(guest: Guest) -> None:
    guest.serve_k3s()
    guest.ok(SCRIPT, K3S_VERSION=VERSION)
    program = guest.root / "usr/local/libexec/k3simage/firstboot"
    done = subprocess.run(
        ["shellcheck", "--enable=all", "--exclude=SC2310,SC2311,SC2312", str(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
