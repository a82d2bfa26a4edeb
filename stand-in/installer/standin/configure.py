"""What the kickstart says of the installed system beside its packages: names, clock, services, and records for people."""

import re

from pykickstart.constants import SELINUX_DISABLED, SELINUX_PERMISSIVE

from standin import network
from standin.errors import Fatal
from standin.kickstart import Kickstart
from standin.machine import Machine


def set_up(kickstart: Kickstart, machine: Machine, devices: list[str], say) -> None:
    """Writes the configuration; the packages are there already."""
    handler = kickstart.handler
    _clock(kickstart, machine)
    machine.write("/etc/locale.conf", f"LANG={handler.lang.lang or 'en_US.UTF-8'}\n")
    keyboard = handler.keyboard
    keymap = keyboard.vc_keymap or keyboard.keyboard or (keyboard.x_layouts[0].split()[0] if keyboard.x_layouts else "us")
    machine.write("/etc/vconsole.conf", f'KEYMAP="{keymap}"\nFONT="eurlatgr"\n')
    state = {SELINUX_DISABLED: "disabled", SELINUX_PERMISSIVE: "permissive"}.get(handler.selinux.selinux, "enforcing")
    machine.write(
        "/etc/selinux/config",
        f"# What the kickstart asked for. This stand-in has no SELinux policy, so nothing enforces it: see getenforce.\nSELINUX={state}\nSELINUXTYPE=targeted\n",
    )
    say("Writing network configuration")
    for path, text in network.profiles(kickstart, devices).items():
        machine.write(path, text, 0o600)
    if name := network.hostname(kickstart):
        machine.write("/etc/hostname", f"{name}\n")
    _services(kickstart, machine)
    if handler.firewall.enabled is False and machine.exists("/usr/lib/systemd/system/firewalld.service"):
        machine.inside("systemctl", "disable", "firewalld.service")
    # There is no desktop here, so nothing starts one, with skipx or without.
    machine.link("/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target")
    machine.run("systemd-machine-id-setup", f"--root={machine.sysroot}", fails="making the machine id")


def _clock(kickstart: Kickstart, machine: Machine) -> None:
    zone = kickstart.handler.timezone
    name = zone.timezone or "America/New_York"
    if not re.fullmatch(r"[A-Za-z0-9_+/-]+", name) or not machine.exists(f"/usr/share/zoneinfo/{name}"):
        raise Fatal(f'Timezone "{name}" given in kickstart is not valid.')
    machine.link("/etc/localtime", f"../usr/share/zoneinfo/{name}")
    machine.write("/etc/adjtime", f"0.0 0 0.0\n0\n{'UTC' if zone.isUtc else 'LOCAL'}\n")
    sources = kickstart.handler.timesource
    given = [line for data in getattr(sources, "timesource_list", []) for line in _sources(data)]
    if given:
        text = "".join(line + "\n" for line in machine.read("/etc/chrony.conf").splitlines() if not line.startswith(("pool ", "server ")))
        machine.write("/etc/chrony.conf", "".join(f"{line} iburst\n" for line in given) + text)


def _sources(data) -> list[str]:
    if data.ntp_server:
        return [f"server {data.ntp_server}"]
    return [f"pool {data.ntp_pool}"] if data.ntp_pool else []


def _services(kickstart: Kickstart, machine: Machine) -> None:
    services = kickstart.handler.services
    for unit in services.disabled:
        try:
            machine.inside("systemctl", "disable", unit)
        except Fatal as error:
            # A unit that is not there is as good as disabled; Anaconda goes on too.
            machine.log(f"not disabled: {error}")
    for unit in services.enabled:
        machine.inside("systemctl", "enable", unit, fails=f"Error enabling service {unit}")
