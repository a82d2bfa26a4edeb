"""The ends of an installer: reboot, power-off, halt; the tray; the power button."""

import ctypes
import fcntl
import glob
import os
import select
import struct
import subprocess
import threading
import time

# reboot(2): LINUX_REBOOT_CMD_*.
REBOOT, POWER_OFF, HALT = 0x01234567, 0x4321FEDC, 0xCDEF0123
# ioctl(2) of a CD-ROM drive: CDROM_LOCKDOOR, CDROMEJECT [linux/cdrom.h].
LOCK_DOOR, EJECT = 0x5329, 0x5309
# struct input_event with 64-bit times; EV_KEY, KEY_POWER [linux/input-event-codes.h].
EVENT = struct.Struct("llHHi")
KEY, POWER_KEY = 1, 116


def eject(device: str) -> str:
    """Opens the tray although the medium is mounted, as the installer does. Answers with what went wrong, or nothing."""
    try:
        file = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.ioctl(file, LOCK_DOOR, 0)
            fcntl.ioctl(file, EJECT, 0)
        finally:
            os.close(file)
    except OSError as error:
        return str(error)
    return ""


def end(how: int, sysroot: str) -> None:
    """Takes the new system down in order and never returns."""
    os.sync()
    subprocess.run(["umount", "--recursive", sysroot], check=False, capture_output=True)
    os.sync()
    ctypes.CDLL(None, use_errno=True).reboot(how)
    while True:
        time.sleep(60)


def watch_button(sysroot: str) -> None:
    """Powers off when the ACPI button is pressed, as systemd does in the real installer."""

    def watch() -> None:
        files = []
        for path in glob.glob("/dev/input/event*"):
            try:
                files.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            except OSError:
                continue
        while files:
            ready, _, _ = select.select(files, [], [])
            for file in ready:
                data = os.read(file, EVENT.size * 16)
                for _, _, kind, code, value in EVENT.iter_unpack(data[: len(data) // EVENT.size * EVENT.size]):
                    if (kind, code, value) == (KEY, POWER_KEY, 1):
                        end(POWER_OFF, sysroot)

    threading.Thread(target=watch, daemon=True).start()
