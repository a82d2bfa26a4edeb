"""Exceptions: one family, attributes, causes, no secrets and no debug text."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Iterator

import k3simage
import pytest
from k3simage import _errors

TOKEN = "root@pam!build=5ec2e7c0-0000-4000-8000-c0ffee000001"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of the loopback at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_all_derive_from_one() -> None:
    for name in _errors.__all__:
        assert issubclass(getattr(k3simage, name), k3simage.Error), name
        assert getattr(k3simage, name).__module__ == "k3simage"
    assert issubclass(k3simage.InvalidInputError, ValueError)
    assert issubclass(k3simage.WaitTimeoutError, TimeoutError)


def test_connection_refused(closed_port: int) -> None:
    client = k3simage.Client(f"https://127.0.0.1:{closed_port}", token=TOKEN)
    with pytest.raises(k3simage.ConnectError) as caught:
        client.version()
    error = caught.value
    assert str(error).startswith(f"cannot connect to https://127.0.0.1:{closed_port} for GET /version")
    assert error.help is not None
    assert getattr(error, "__notes__", None) == [f"help: {error.help}"]
    assert error.status is None
    chain = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__
    assert isinstance(chain[-1], ConnectionRefusedError)
    assert all("{" not in str(link) for link in chain), "debug text"


async def test_connection_refused_async(closed_port: int) -> None:
    client = k3simage.Client(f"https://127.0.0.1:{closed_port}", token=TOKEN)
    with pytest.raises(k3simage.ConnectError):
        await client.version_async()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "proxmox_url: it is not set"),
        ({"url": "https://pve"}, "proxmox_username: it is not set"),
        ({"url": "http://pve", "token": TOKEN}, "proxmox_url: http would send the credentials in the clear"),
        ({"url": "https://pve", "token": "5ec2e7"}, "proxmox_username: it is not set"),
        ({"url": "https://pve", "token": TOKEN, "username": "root@pam!other"}, "proxmox_token: it has another name"),
        ({"url": "https://pve", "token": TOKEN, "fingerprint": "zz"}, "64 hexadecimal digits"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(k3simage.InvalidInputError) as caught:
        k3simage.Client(**arguments)  # type: ignore[arg-type]
    told = "\n".join([str(caught.value), *caught.value.findings])
    assert text in told
    assert "5ec2e7" not in told, "a secret in an exception"


def test_environment_fills_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PKR_VAR_proxmox_url", "https://pve.example:8006/api2/json")
    monkeypatch.setenv("PKR_VAR_proxmox_username", "packer@pve!build")
    monkeypatch.setenv("PKR_VAR_proxmox_token", "5ec2e7c0-0000-4000-8000-c0ffee000001")
    client = k3simage.Client()
    assert (client.url, client.identity) == ("https://pve.example:8006", "packer@pve!build")


def test_repr_holds_no_secret() -> None:
    client = k3simage.Client("https://pve:8006", token=TOKEN)
    assert repr(client) == "<k3simage.Client https://pve:8006 as root@pam!build>"


def test_exceptions_survive_pickling() -> None:
    error = k3simage.TaskError("failed")
    error.upid = "UPID:..."
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.upid) == ("failed", "UPID:...")


def test_coroutine_is_lazy_and_can_be_closed(closed_port: int) -> None:
    client = k3simage.Client(f"https://127.0.0.1:{closed_port}", token=TOKEN)
    coroutine = client.version_async()
    assert asyncio.iscoroutine(coroutine)
    coroutine.close()
