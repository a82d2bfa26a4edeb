"""Secrets that a Python program hands over are in no text, event, exception or file that comes back."""

from __future__ import annotations

import base64
import pickle
import traceback
import urllib.parse
from pathlib import Path

import k3simage
import pytest

SECRET = "c4a9a7e0-7e57-4c4a-9a71-c0ffeec0ffee"
SSH_PASSWORD = "canary-ssh+W/ord=?8"
ROOT_PASSWORD = "canary-root+W/ord=9"
ALL = [SECRET, SSH_PASSWORD, ROOT_PASSWORD]


def clean(what: str, text: str) -> None:
    """Fails when a secret stands in the text, in any form."""
    for secret in ALL:
        raw = secret.encode()
        for form in (secret, raw.hex(), urllib.parse.quote(secret, safe=""), base64.b64encode(raw)[:-4].decode()):
            assert form.lower() not in text.lower(), f"{what} holds {secret!r}: {text}"


def told(error: BaseException) -> str:
    """All that an exception says: its text, attributes, notes, chain, and what a debugger shows of it."""
    texts = ["".join(traceback.format_exception(error)), repr(error), repr(vars(error)), repr(pickle.dumps(error))]
    if error.__cause__ is not None:
        texts.append(told(error.__cause__))
    return "\n".join(texts)


@pytest.fixture
def secret_folder(folder: Path) -> Path:
    """A folder whose kickstart carries a password of root."""
    (folder / "secrets.pkr.hcl").write_text('variable "root_password" {\n  type      = string\n  sensitive = true\n}\n')
    kickstart = folder / "http/ks.cfg.j2"
    text = kickstart.read_text()
    assert "rootpw --lock\n" in text
    kickstart.write_text(text.replace("rootpw --lock\n", "rootpw --allow-ssh {{ root_password | word }}\n"))
    return folder


@pytest.mark.parametrize("fails", [False, True])
def test_a_build(pve: k3simage.Emulator, secret_folder: Path, tmp_path: Path, fails: bool) -> None:
    if fails:
        script = secret_folder / "scripts/os-update.sh"
        script.write_text("#!/bin/bash\nset -x\nexit 7\n")
    events: list[object] = []
    manifest = tmp_path / "manifest.json"
    variables = {"root_password": ROOT_PASSWORD, "ssh_port": str(pve.guest_ssh_port)}
    spec = k3simage.ImageSpec.from_folder(secret_folder, variables=variables)
    clean("the image", repr(spec) + str(spec.to_dict()))
    try:
        k3simage.build(spec=spec, client=pve.client(), manifest=manifest, on_event=events.append)
        assert not fails
    except k3simage.Error as error:
        assert fails
        clean("the exception", told(error))
    assert events
    clean("the events", "\n".join(f"{event!r} {event}" for event in events))
    if manifest.exists():
        clean("the manifest", manifest.read_text())


def test_a_login_that_is_refused(pve: k3simage.Emulator) -> None:
    client = k3simage.Client(pve.url, token=f"root@pam!build={SECRET}", fingerprint=pve.fingerprint)
    clean("the client", repr(client))
    with pytest.raises(k3simage.Error) as caught:
        client.version()
    clean("the exception", told(caught.value))


def test_bad_input() -> None:
    for fields in (
        {"iso": f"https://me:{urllib.parse.quote(SSH_PASSWORD, safe='')}@m/x.iso"},
        {"k3s_mirror_url": f"https://me:{urllib.parse.quote(SSH_PASSWORD, safe='')}@m/k3s"},
        {"ssh_password": SSH_PASSWORD, "vmid": 7},
    ):
        with pytest.raises(k3simage.InvalidInputError) as caught:
            k3simage.ImageSpec(**{"node": "pve", **fields})  # type: ignore[arg-type]
        # The caller's own lines are in a traceback; what is said of them must not be.
        clean("the exception", f"{caught.value} {caught.value!r} {vars(caught.value)} {caught.value.findings}")
