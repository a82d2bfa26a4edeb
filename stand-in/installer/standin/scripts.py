"""Runs the scripts of a kickstart: outside or inside the installed system, with their log and their consequence."""

import os
import subprocess
from pathlib import Path

from pykickstart.parser import Script

from standin.errors import Fatal


def run(script: Script, sysroot: Path, log) -> None:
    """Runs one script. Raises `Fatal` if it fails and says --erroronfail; otherwise a failure is only written down."""
    inside = bool(script.inChroot)
    root = sysroot if inside else Path("/")
    folder = root / "tmp"
    folder.mkdir(mode=0o1777, exist_ok=True)
    name = f"ks-script-{os.urandom(4).hex()}"
    file = folder / name
    file.write_text(script.script)
    file.chmod(0o700)
    # The log lies where the script runs: inside the new system, or in the installer.
    output = root / script.logfile.lstrip("/") if script.logfile else folder / f"{name}.log"
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [*script.interp.split(), f"/tmp/{name}"]
    if inside:
        command = ["chroot", str(sysroot), *command]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "linux"}
    try:
        with output.open("a") as sink:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, cwd="/", check=False)
        code: int | str = done.returncode
    except OSError as error:
        code = str(error)
    file.unlink(missing_ok=True)
    text = output.read_text(errors="replace")
    log(f"script of line {script.lineno} ended with {code}\n{text}")
    if script.logfile is None:
        output.unlink(missing_ok=True)
    if code != 0 and script.errorOnFail:
        details = text.strip().splitlines()[-20:]
        raise Fatal(
            f"There was an error running the kickstart script at line {script.lineno}.  This is a fatal error and installation will be "
            "aborted.  The details of this error are:\n\n" + ("\n".join(details) or f"it ended with {code} and said nothing")
        )
