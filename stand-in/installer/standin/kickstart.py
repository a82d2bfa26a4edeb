"""Reads a kickstart with pykickstart, and refuses what this installer does not carry out."""

from dataclasses import dataclass, field

from pykickstart.constants import KS_SCRIPT_ONERROR, KS_SCRIPT_POST, KS_SCRIPT_PRE, KS_SCRIPT_PREINSTALL, KS_SCRIPT_TRACEBACK
from pykickstart.errors import KickstartError
from pykickstart.parser import KickstartParser, Script
from pykickstart.sections import NullSection, PreScriptSection
from pykickstart.version import RHEL9, makeVersion

from standin.errors import Fatal

# What is carried out. Everything else that the grammar knows is refused by name.
CARRIED_OUT = {
    "autopart",
    "bootloader",
    "cdrom",
    "clearpart",
    "cmdline",
    "eula",
    "firewall",
    "firstboot",
    "graphical",
    "group",
    "halt",
    "ignoredisk",
    "keyboard",
    "lang",
    "logging",
    "logvol",
    "network",
    "part",
    "partition",
    "poweroff",
    "reboot",
    "repo",
    "reqpart",
    "rootpw",
    "selinux",
    "services",
    "shutdown",
    "skipx",
    "sshkey",
    "text",
    "timesource",
    "timezone",
    "url",
    "user",
    "volgroup",
    "zerombr",
}

LOGVOL_REFUSED = {
    "encrypted": "--encrypted",
    "resize": "--resize",
    "thin_pool": "--thinpool",
    "thin_volume": "--thin",
    "cache_size": "--cachesize",
    "preexist": "--useexisting",
}


@dataclass
class Kickstart:
    """A kickstart as read: pykickstart's handler, the commands that stand in the text, and the add-ons."""

    handler: object
    used: dict[str, int] = field(default_factory=dict)
    addons: list[tuple[int, list[str]]] = field(default_factory=list)

    def scripts(self, kind: int) -> list[Script]:
        return [script for script in self.handler.scripts if script.type == kind]

    @property
    def post(self) -> list[Script]:
        return self.scripts(KS_SCRIPT_POST)

    @property
    def pre_install(self) -> list[Script]:
        return self.scripts(KS_SCRIPT_PREINSTALL)

    @property
    def on_error(self) -> list[Script]:
        return self.scripts(KS_SCRIPT_ONERROR)

    @property
    def traceback(self) -> list[Script]:
        return self.scripts(KS_SCRIPT_TRACEBACK)

    @property
    def asks_nobody(self) -> bool:
        return "cmdline" in self.used or bool(getattr(self.handler.displaymode, "nonInteractive", False))


class _AddonSection(NullSection):
    def handleHeader(self, lineno: int, args: list[str]) -> None:  # noqa: N802  # pykickstart's name
        super().handleHeader(lineno, args)
        self.handler.standin.addons.append((lineno, args[1:]))


class _Parser(KickstartParser):
    def setupSections(self) -> None:  # noqa: N802
        super().setupSections()
        self.registerSection(_AddonSection(self.handler, sectionOpen="%addon"))

    def handleCommand(self, lineno: int, args: list[str]) -> object:  # noqa: N802
        # The position in the whole text; a command that stands twice keeps its last line.
        self.handler.standin.used[args[0]] = lineno
        return super().handleCommand(lineno, args)


class _PreParser(KickstartParser):
    """Only `%pre`: it runs before the rest is read, since the rest may include what it writes."""

    def setupSections(self) -> None:  # noqa: N802
        self._sections = {}
        self.registerSection(PreScriptSection(self.handler, dataObj=Script))
        for name in ("%pre-install", "%post", "%onerror", "%traceback", "%packages", "%addon", "%anaconda", "%certificate"):
            self.registerSection(NullSection(self.handler, sectionOpen=name))

    def handleCommand(self, lineno: int, args: list[str]) -> None:  # noqa: N802
        pass


def pre_scripts(text: str) -> list[Script]:
    """The `%pre` scripts of a text."""
    parser = _PreParser(makeVersion(RHEL9), missingIncludeIsFatal=False)
    try:
        parser.readKickstartFromString(text)
    except KickstartError as error:
        raise Fatal(problem(error)) from error
    return [script for script in parser.handler.scripts if script.type == KS_SCRIPT_PRE]


def read(text: str) -> Kickstart:
    """Reads the whole text. Raises `Fatal` at a mistake, or at something legal that is not carried out here."""
    handler = makeVersion(RHEL9)
    kickstart = Kickstart(handler)
    handler.standin = kickstart
    try:
        _Parser(handler).readKickstartFromString(text)
    except KickstartError as error:
        raise Fatal(problem(error)) from error
    _refuse(kickstart)
    return kickstart


def problem(error: KickstartError) -> str:
    """An error of the parser, in the words that the installer shows."""
    line = getattr(error, "lineno", None)
    message = str(getattr(error, "message", "") or error)
    where = f"on line {line} of the kickstart file" if line else "in the kickstart file"
    return f"The following problem occurred {where}:\n\n{message}"


def not_carried_out(line: int, what: str) -> Fatal:
    return Fatal(f"The following problem occurred on line {line} of the kickstart file:\n\nthe stand-in does not carry out {what}")


def _refuse(kickstart: Kickstart) -> None:
    handler = kickstart.handler
    for name, line in sorted(kickstart.used.items(), key=lambda item: item[1]):
        if name not in CARRIED_OUT:
            raise not_carried_out(line, f'the command "{name}"')
    for line, args in kickstart.addons:
        # kdump is not there to be switched off, so switching it off is carried out by doing nothing.
        if args != ["com_redhat_kdump", "--disable"]:
            raise not_carried_out(line, f'the add-on "{" ".join(args)}"')
    used = kickstart.used
    for part in handler.partition.partitions:
        for option, name in (("encrypted", "--encrypted"), ("resize", "--resize"), ("hibernation", "--hibernation"), ("onbiosdisk", "--onbiosdisk")):
            if getattr(part, option, None):
                raise not_carried_out(part.lineno, f"part {name}")
    for volume in handler.logvol.lvList:
        for option, name in LOGVOL_REFUSED.items():
            if getattr(volume, option, None):
                raise not_carried_out(volume.lineno, f"logvol {name}")
    for group in handler.volgroup.vgList:
        if getattr(group, "preexist", False):
            raise not_carried_out(group.lineno, "volgroup --useexisting")
    if handler.autopart.autopart and handler.autopart.encrypted:
        raise not_carried_out(used.get("autopart", 0), "autopart --encrypted")
    boot = handler.bootloader
    if boot.password or boot.extlinux or boot.disabled or (boot.location == "none" and "bootloader" in used) or boot.location == "partition":
        raise not_carried_out(used.get("bootloader", 0), "bootloader with a password, --extlinux, --disabled, or outside the MBR")
    if handler.firewall.enabled:
        raise not_carried_out(used.get("firewall", 0), "firewall --enabled (it holds no firewalld)")
    for net in handler.network.network:
        for option in ("essid", "bondslaves", "vlanid", "teamslaves", "bridgeslaves", "ipv6", "bindto", "dhcpclass", "ethtool"):
            if getattr(net, option, None) and getattr(net, option) != "auto":
                raise not_carried_out(net.lineno, f"network --{option}")
    if handler.reboot.kexec if hasattr(handler.reboot, "kexec") else False:
        raise not_carried_out(used.get("reboot", 0), "reboot --kexec")
    if handler.packages.seen and handler.packages.instLangs is not None:
        raise not_carried_out(0, "%packages --inst-langs")
