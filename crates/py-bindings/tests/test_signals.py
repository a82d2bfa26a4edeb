"""Ctrl-C as a terminal sends it: a real SIGINT to a process that waits in native code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import k3simage
import pytest


@contextmanager
def script(text: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `text`; ended when the test is over."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(text), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


CALL = """
    import sys, k3simage
    client = k3simage.Client(sys.argv[1], token="root@pam!build=00000000-0000-4000-8000-000000000000")
    try:
        client.version()
    except KeyboardInterrupt as interrupt:
        print("interrupted", interrupt.__context__)
"""

AWAITED_CALL = """
    import asyncio, sys, k3simage
    client = k3simage.Client(sys.argv[1], token="root@pam!build=00000000-0000-4000-8000-000000000000")
    try:
        asyncio.run(client.version_async())
    except KeyboardInterrupt:
        print("interrupted None")
"""


@pytest.mark.parametrize("text", [CALL, AWAITED_CALL], ids=["sync", "async"])
def test_ctrl_c_ends_a_call(silent_server: socket.socket, text: str) -> None:
    url = f"https://127.0.0.1:{silent_server.getsockname()[1]}"
    with script(text, url) as process:
        connection, _ = silent_server.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("interrupted None\n", "", 0)


def test_a_closed_terminal_can_be_made_a_ctrl_c(silent_server: socket.socket) -> None:
    handled = "    import signal\n    signal.signal(signal.SIGHUP, signal.default_int_handler)\n"
    url = f"https://127.0.0.1:{silent_server.getsockname()[1]}"
    with script(handled + CALL, url) as process:
        connection, _ = silent_server.accept()
        with connection:
            process.send_signal(signal.SIGHUP)
            out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("interrupted None\n", "", 0)


def test_a_handler_that_does_not_raise_stops_nothing(silent_server: socket.socket) -> None:
    text = """
        import signal, sys, k3simage
        client = k3simage.Client(sys.argv[1], token="root@pam!build=00000000-0000-4000-8000-000000000000")
        signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
        try:
            client.version()
        except k3simage.Error as error:
            print(type(error).__name__)
    """
    url = f"https://127.0.0.1:{silent_server.getsockname()[1]}"
    with script(text, url) as process:
        connection, _ = silent_server.accept()
        assert process.stdout is not None
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "handled\n"
        # The end of the handshake's peer ends the call, and then the client tries again elsewhere in vain.
        silent_server.close()
        connection.close()
        assert process.stdout.readline() in {"ConnectError\n", "TlsError\n", "TransportError\n"}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork_there_is_an_error_and_no_hang() -> None:
    client = k3simage.Client("https://127.0.0.1:1", token="root@pam!build=00000000-0000-4000-8000-000000000000")
    with pytest.raises(k3simage.ConnectError):
        client.version()
    child = os.fork()
    if child == 0:
        try:
            client.version()
        except k3simage.Error as error:
            os._exit(0 if error.help is not None and "spawn" in error.help else 2)
        os._exit(3)
    assert os.waitpid(child, 0)[1] == 0


LAST_AWAIT = """
    import asyncio, sys, k3simage
    client = k3simage.Client(sys.argv[1], token=sys.argv[2], fingerprint=sys.argv[3])
    async def main():
        await asyncio.gather(*(client.version_async() for _ in range(4)))
    asyncio.run(main())
"""


def test_the_interpreter_ends_in_order_right_after_an_await(pve: k3simage.Emulator) -> None:
    """A worker that wakes a coroutine while the interpreter goes used to crash it, two times out of three."""
    for _ in range(8):
        with script(LAST_AWAIT, pve.url, pve.token, pve.fingerprint) as process:
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")


def test_at_exit_there_is_an_error_and_no_hang(pve: k3simage.Emulator) -> None:
    text = """
        import atexit, sys, k3simage
        client = k3simage.Client(sys.argv[1], token=sys.argv[2], fingerprint=sys.argv[3])
        def late():
            try:
                client.version()
            except k3simage.Error as error:
                print(error)
        atexit.register(late)
        client.nodes()
    """
    with script(text, pve.url, pve.token, pve.fingerprint) as process:
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("k3simage cannot be used any more: the interpreter is ending\n", "")
