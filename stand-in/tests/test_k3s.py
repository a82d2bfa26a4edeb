"""The stand-in for k3s: its command line, and an identity that a second one is refused beside."""

import importlib.machinery
import importlib.util
import stat
from pathlib import Path
from types import ModuleType

import pytest
from conftest import STAND_IN


@pytest.fixture
def k3s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("k3s", str(STAND_IN / "k3s/k3s"))
    spec = importlib.util.spec_from_loader("k3s", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "ETC", tmp_path / "etc")
    for name in ("K3S_TOKEN", "K3S_URL", "K3S_NODE_NAME", "K3S_AGENT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_the_identity_stays_and_another_token_is_refused(k3s: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = k3s.Identity(tmp_path / "server", "")
    files = {path.relative_to(tmp_path / "server").as_posix() for path in (tmp_path / "server").rglob("*") if path.is_file()}
    assert {"token", "node-token", "db/state.db", "cred/passwd", "tls/server-ca.key", "tls/client-ca.crt", "tls/etcd/server-ca.crt"} <= files
    assert stat.S_IMODE((tmp_path / "server/tls/server-ca.key").stat().st_mode) == 0o600
    assert first.full == f"K10{first.ca_hash()}::server:{first.password}"
    again = k3s.Identity(tmp_path / "server", "")
    assert again.full == first.full
    # The certificates come back out of the datastore, as they do for a second server.
    (tmp_path / "server/tls/server-ca.crt").unlink()
    assert k3s.Identity(tmp_path / "server", "").ca_hash() == first.ca_hash()
    with pytest.raises(SystemExit):
        k3s.Identity(tmp_path / "server", "another")
    assert "bootstrap data already found and encrypted with different token" in capsys.readouterr().err


def test_a_node_name_belongs_to_the_password_it_came_with(k3s: ModuleType, tmp_path: Path) -> None:
    store = k3s.Datastore(tmp_path / "db/state.db")
    assert store.admit("n1", "a")
    assert store.admit("n1", "a")
    assert not store.admit("n1", "b")
    assert store.admit("n2", "b")


def test_options_come_from_files_flags_and_environment(k3s: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("node-name: from-file\ndisable:\n  - traefik\nselinux: true\n")
    monkeypatch.setenv("K3S_TOKEN", "secret")
    monkeypatch.setattr(k3s, "configured", lambda path: ["--node-name=from-file", "--disable=traefik"] if path == config else [])
    options = k3s.options_of("server", ["--config", str(config), "--tls-san", "a.example"])
    assert (options.node_name, options.token, options.disable, options.tls_san) == ("from-file", "secret", ["traefik"], ["a.example"])
    assert k3s.options_of("server", ["--config", str(config), "--node-name", "told"]).node_name == "told"
    with pytest.raises(SystemExit):
        k3s.options_of("agent", ["--no-such-flag"])


@pytest.mark.parametrize(("text", "password", "ca"), [("plain", "plain", ""), (f"K10{'a' * 64}::node:pw", "pw", "a" * 64)])
def test_tokens(k3s: ModuleType, text: str, password: str, ca: str) -> None:
    token = k3s.Token(text)
    assert (token.password, token.ca_hash) == (password, ca)


def test_a_broken_token_is_refused(k3s: ModuleType) -> None:
    with pytest.raises(SystemExit):
        k3s.Token("K10abc::node:")
