"""The network: of the running installer, and of the system that is installed."""

import ipaddress
import subprocess
import uuid
from pathlib import Path

from standin.cmdline import KernelLine
from standin.errors import Fatal
from standin.kickstart import Kickstart, not_carried_out

UDHCPC = "/usr/lib/stand-in/udhcpc"


def devices(sys_net: Path = Path("/sys/class/net")) -> list[str]:
    """Ethernet devices in the order of their names."""
    return sorted(device.name for device in sys_net.iterdir() if (device / "device").exists())


def prefix(netmask: str) -> int:
    return ipaddress.IPv4Network(f"0.0.0.0/{netmask}").prefixlen


class LiveNetwork:
    """Brings devices up in the installer, at most once each way."""

    def __init__(self, log) -> None:
        self.log = log
        self.up: set[str] = set()

    def dhcp(self, device: str) -> bool:
        if device in self.up:
            return True
        self._ip("link", "set", device, "up")
        command = ["busybox", "udhcpc", "-i", device, "-s", UDHCPC, "-n", "-q", "-f", "-t", "8", "-T", "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.log(f"+ {' '.join(command)}\n{done.stdout}{done.stderr}")
        if done.returncode == 0:
            self.up.add(device)
        return done.returncode == 0

    def static(self, device: str, address: str, bits: int, gateway: str, servers: list[str]) -> None:
        self._ip("link", "set", device, "up")
        self._ip("addr", "replace", f"{address}/{bits}", "dev", device)
        if gateway:
            self._ip("route", "replace", "default", "via", gateway)
        if servers:
            Path("/etc/resolv.conf").write_text("".join(f"nameserver {server}\n" for server in servers))
        self.up.add(device)

    def any(self) -> bool:
        """One device with an address, as a kickstart over the network needs."""
        if self.up:
            return True
        return any(self.dhcp(device) for device in devices())

    def as_told(self, line: KernelLine) -> None:
        """Carries out `ip=` of the kernel's line."""
        servers = [word.removeprefix("nameserver=") for word in line.words if word.startswith("nameserver=")]
        for word in line.words:
            if not word.startswith("ip="):
                continue
            value = word.removeprefix("ip=")
            if value in {"dhcp", "on", "any"}:
                self.any()
                continue
            fields = (value.split(":") + [""] * 7)[:7]
            if fields[1] in {"dhcp", "on"} and not fields[2]:
                self.dhcp(fields[0])
                continue
            address, _, gateway, netmask, _, device, method = fields
            if method not in {"none", "off", "static", ""}:
                self.dhcp(device or devices()[0])
                continue
            try:
                bits = int(netmask) if netmask.isdigit() else prefix(netmask)
                self.static(device or devices()[0], str(ipaddress.IPv4Address(address)), bits, gateway, servers)
            except (ValueError, IndexError) as error:
                raise Fatal(f"the kernel line says {word}, which is no address: {error}") from error

    def _ip(self, *args: str) -> None:
        done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
        self.log(f"+ ip {' '.join(args)}\n{done.stderr}")


def device_of(name: str, known: list[str], line: int) -> str:
    """The device that `--device` means: a name, a hardware address, or the first one with a link."""
    if name in {"", "link", "ibft", "bootif"}:
        if not known:
            raise Fatal("the kickstart sets up the network, but this machine has no network device")
        return known[0]
    if ":" in name:
        for device in known:
            if Path(f"/sys/class/net/{device}/address").read_text().strip().lower() == name.lower():
                return device
        raise Fatal(f"The following problem occurred on line {line} of the kickstart file:\n\nno network device has the address {name}")
    if name not in known:
        raise Fatal(f"The following problem occurred on line {line} of the kickstart file:\n\nUnable to configure device {name}: there is no such device")
    return name


def profiles(kickstart: Kickstart, known: list[str]) -> dict[str, str]:
    """Connection files of NetworkManager by path; without a `network` line the first device asks DHCP."""
    files = {}
    lines = [net for net in kickstart.handler.network.network if net.device or net.ip or net.bootProto != "dhcp" or not net.hostname]
    if not kickstart.handler.network.network and known:
        files[_path(known[0])] = _profile(known[0], "auto", onboot=True)
    for net in lines:
        device = device_of(net.device, known, net.lineno)
        if net.bootProto == "dhcp":
            files[_path(device)] = _profile(device, "auto", onboot=net.onboot, servers=net.nameserver)
        elif net.bootProto == "static":
            if not net.ip or not net.netmask:
                raise Fatal(f"The following problem occurred on line {net.lineno} of the kickstart file:\n\nnetwork --bootproto=static needs --ip and --netmask")
            address = f"{net.ip}/{prefix(net.netmask)}" + (f",{net.gateway}" if net.gateway else "")
            files[_path(device)] = _profile(device, "manual", address, onboot=net.onboot, servers=net.nameserver)
        else:
            raise not_carried_out(net.lineno, f"network --bootproto={net.bootProto}")
    return files


def _path(device: str) -> str:
    return f"/etc/NetworkManager/system-connections/{device}.nmconnection"


def _profile(device: str, method: str, address: str = "", *, onboot: bool, servers: str = "") -> str:
    text = f"[connection]\nid={device}\nuuid={uuid.uuid4()}\ntype=ethernet\n"
    if not onboot:
        text += "autoconnect=false\n"
    text += f"interface-name={device}\n\n[ethernet]\n\n[ipv4]\n"
    if address:
        text += f"address1={address}\n"
    if servers:
        text += f"dns={servers.replace(',', ';')};\n"
    return text + f"method={method}\n\n[ipv6]\naddr-gen-mode=eui64\nmethod={'auto' if method == 'auto' else 'ignore'}\n\n[proxy]\n"


def hostname(kickstart: Kickstart) -> str:
    names = [net.hostname for net in kickstart.handler.network.network if net.hostname]
    return names[-1] if names else ""
