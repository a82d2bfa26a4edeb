"""Finds the kickstart: where the kernel line says, else on a volume labelled OEMDRV."""

import contextlib
import glob
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from standin.cmdline import KernelLine
from standin.errors import Fatal

LABEL = "OEMDRV"
# How long a volume may take to appear, and how often a server is asked: the network of a bridge needs its time.
PATIENCE_SECONDS = 5.0
HTTP_TRIES = 5


def unfetched(where: str, why: str) -> Fatal:
    return Fatal(f"dracut-initqueue: {why}\ndracut-initqueue: Warning: anaconda: failed to fetch kickstart from {where}\nWarning: Kickstart file could not be fetched. Entering emergency mode.")


def find(line: KernelLine, network_up: Callable[[], bool], mounted: Callable[[str], contextlib.AbstractContextManager[Path]]) -> tuple[str, str] | None:
    """Where the kickstart was found, and its text; None if nothing names one. `mounted` gives a device's files."""
    told = line.get("inst.ks")
    if told is None:
        device = by_label(LABEL)
        if device is None:
            return None
        with mounted(device) as folder:
            file = folder / "ks.cfg"
            return (f"hd:LABEL={LABEL}:/ks.cfg", file.read_text()) if file.is_file() else None
    if told.startswith(("http://", "https://", "ftp://")):
        if not network_up():
            raise unfetched(told, "no network device got an address")
        return told, _download(told)
    if told.startswith("file:"):
        return told, Path("/" + told.removeprefix("file:").lstrip("/")).read_text()
    device, path = place(told)
    for candidate in candidates(device):
        with mounted(candidate) as folder:
            file = folder / path.lstrip("/")
            if file.is_file():
                return told, file.read_text()
    raise unfetched(told, f"{path}: no such file on {device or 'any CD-ROM'}")


def place(told: str) -> tuple[str, str]:
    """Device and path of `hd:LABEL=X:/ks.cfg`, `hd:sr1:/ks.cfg`, `cdrom:/ks.cfg` and `cdrom:sr0:/ks.cfg`."""
    kind, _, rest = told.partition(":")
    if kind not in {"hd", "cdrom"}:
        raise unfetched(told, f"unknown kickstart source {kind}")
    if rest.startswith("/") or not rest:
        if kind == "hd":
            raise unfetched(told, "hd: needs a device")
        return "", rest or "/ks.cfg"
    device, _, path = rest.partition(":")
    return device, path or "/ks.cfg"


def candidates(device: str) -> Iterator[str]:
    if not device:
        yield from sorted(glob.glob("/dev/sr*"))
        return
    if device.startswith("LABEL="):
        found = by_label(device.removeprefix("LABEL="))
    elif device.startswith("UUID="):
        found = _blkid("-U", device.removeprefix("UUID="))
    else:
        found = f"/dev/{device.removeprefix('/dev/')}"
    if found and os.path.exists(found):
        yield found


def by_label(label: str) -> str | None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        device = _blkid("-L", label)
        if device or time.monotonic() > deadline:
            return device
        time.sleep(0.5)


def _blkid(option: str, value: str) -> str | None:
    done = subprocess.run(["blkid", option, value], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _download(url: str) -> str:
    problem = ""
    for attempt in range(HTTP_TRIES):
        if attempt:
            time.sleep(2)
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            problem = f"The requested URL returned error: {error.code}"
            # What the server refuses once it refuses again.
            if error.code < 500:
                break
        except OSError as error:
            problem = str(getattr(error, "reason", error))
        except UnicodeDecodeError as error:
            problem = f"not a text file: {error}"
            break
    raise unfetched(url, problem)
