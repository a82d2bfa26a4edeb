"""The installation from kickstart to reboot, in the order and with the lines of the real installer's text mode."""

import contextlib
import os
import shutil
import subprocess
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from standin import accounts, bootloader, configure, disks, kickstart, network, payload, power, prepare, scripts, source, storage
from standin.cmdline import KernelLine
from standin.console import RULE, Console
from standin.errors import Fatal, Question, YesNo
from standin.kickstart import Kickstart
from standin.machine import SYSROOT, Machine

SYSTEM_IMAGE = "/run/install/system.img"
PROMPT = "Please make a selection from the above ['b' to begin installation, 'q' to quit, 'r' to refresh]: "
# How long the last words of command line mode stay on the screen before the machine starts anew.
CMDLINE_WAIT_SECONDS = 180
API_FILE_SYSTEMS = ("dev", "proc", "sys", "run")


class Installer:
    """One run. What is learnt on the way stays here for the end, whichever it is."""

    def __init__(self, line: KernelLine, console: Console, product: str) -> None:
        self.line = line
        self.console = console
        self.product = product
        self.say = console.say
        self.machine = Machine(console.log)
        self.network = network.LiveNetwork(console.log)
        self.uefi = Path("/sys/firmware/efi").is_dir()
        self.asks_nobody = line.asks_nobody
        self.text = ""
        self.kickstart: Kickstart | None = None

    def run(self) -> None:
        """Never returns: ends with the machine."""
        power.watch_button(str(SYSROOT))
        try:
            self._install()
        except Fatal as error:
            self._scripts("%onerror", lambda k: k.on_error)
            self._failed(str(error))
        except Exception:
            self._scripts("%traceback", lambda k: k.traceback)
            self._failed("An unknown error has occurred\n\n" + traceback.format_exc())
        self._finish()

    def _install(self) -> None:
        if self.line.unknown:
            raise Fatal(f"the stand-in does not carry out the boot option {', '.join(self.line.unknown)}")
        self.network.as_told(self.line)
        found = source.find(self.line, self.network.any, self._mounted)
        self.say(f"Starting installer, one moment...\nanaconda stand-in 1 for {self.product} started.")
        self.say(" * this is k3simage's stand-in for an installation medium, not AlmaLinux; see /etc/os-release")
        self.say(f" * installation log files are stored in /tmp during the installation\n * shell is available on TTY2\n{time.strftime('%H:%M:%S')}")
        if found is None:
            self._hub(_everything())
        where, self.text = found
        self.console.log(f"kickstart from {where}")
        self._run_all("Running pre-installation scripts", kickstart.pre_scripts(self.text))
        self.kickstart = kickstart.read(self.text)
        self.asks_nobody = self.asks_nobody or self.kickstart.asks_nobody
        self.say("Starting automated install..........")
        layout, repos, chosen = self._questions()
        self.say(f"{RULE}\n{RULE}\nProgress\n\nSetting up the installation environment\n.")
        self.say("Configuring storage")
        prepare.carry_out(layout, self.machine, self.say)
        self._run_all("Running pre-install scripts", self.kickstart.pre_install)
        self.say("Installing.\nStarting package installation process")
        self._unpack()
        self._packages(repos, chosen)
        self.say("Configuring installed system\n.")
        machine = self.machine
        machine.write("/etc/fstab", prepare.fstab(layout, self._uuid), 0o644)
        self.say("Installing boot loader\n.")
        bootloader.set_up(self.kickstart, layout, machine, self._uuid, uefi=self.uefi)
        self.say("Performing post-installation setup tasks\n.")
        accounts.set_up(self.kickstart, machine)
        self.say("Creating users\n.")
        configure.set_up(self.kickstart, machine, network.devices(), self.say)
        self.say("Storing configuration files and kickstarts\n.")
        for name in ("anaconda-ks.cfg", "original-ks.cfg"):
            machine.write(f"/root/{name}", self.text, 0o600)
        self._run_all("Running post-installation scripts", self.kickstart.post)
        self._keep_logs()
        self.say("Installation complete")

    def _questions(self) -> tuple[storage.Layout, list[payload.Repository], payload.Selection]:
        """Everything that the hub would ask, before the first change to a disk."""
        assert self.kickstart
        asked: list[Question] = []
        layout, chosen = None, None
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // disks.MIB
        self.say("Checking storage configuration...")
        try:
            layout = storage.plan(self.kickstart, disks.found(), uefi=self.uefi, memory=memory)
        except Question as question:
            asked.append(question)
        try:
            chosen = payload.selection(self.kickstart, uefi=self.uefi)
        except Question as question:
            asked.append(question)
        if missing := accounts.asked(self.kickstart):
            asked.append(missing)
        for command, where in (("lang", "Language settings"), ("timezone", "Time settings")):
            if command not in self.kickstart.used and self.asks_nobody:
                self.console.log(f"{where}: the default")
        repos = payload.repositories(self.kickstart, self.line.get("inst.repo"))
        try:
            self._network(repos)
        except Question as question:
            asked.append(question)
        if asked or layout is None or chosen is None:
            self._hub(asked)
        return layout, repos, chosen

    def _network(self, repos: list[payload.Repository]) -> None:
        """The network of the installer itself, as the kickstart says, and because repositories need it."""
        assert self.kickstart
        known = network.devices()
        for net in self.kickstart.handler.network.network:
            if not net.activate and net.device not in {"link", ""}:
                continue
            device = network.device_of(net.device, known, net.lineno)
            if net.bootProto == "static" and net.ip and net.netmask:
                self.network.static(device, net.ip, network.prefix(net.netmask), net.gateway, [s for s in (net.nameserver or "").split(",") if s])
            else:
                self.network.dhcp(device)
        remote = [repo for repo in repos if not (repo.baseurl or "file:").startswith("file:") or repo.mirrorlist or repo.metalink]
        if remote and not self.network.any():
            raise Question(payload.SOURCE, f"Error setting up software source: {remote[0].name} needs a network, and no device got an address")

    def _unpack(self) -> None:
        """The Debian system that lies under the RPMs."""
        self.machine.run("unsquashfs", "-force", "-no-progress", "-quiet", "-dest", str(SYSROOT), SYSTEM_IMAGE, fails="unpacking the base system")
        for name in API_FILE_SYSTEMS:
            (SYSROOT / name).mkdir(exist_ok=True)
            self.machine.run("mount", "--rbind", f"/{name}", str(SYSROOT / name))
        resolv = Path("/etc/resolv.conf")
        if resolv.exists():
            shutil.copy(resolv, SYSROOT / "etc/resolv.conf")

    def _packages(self, repos: list[payload.Repository], chosen: payload.Selection) -> None:
        ignore = False
        while True:
            try:
                payload.install(repos, chosen, str(SYSROOT), self.say, ignore_missing=ignore)
                break
            except YesNo as question:
                text = f"{question}\n\nWould you like to ignore this and continue with installation?"
                if self.asks_nobody:
                    raise Fatal(text) from question
                self.say(f"Question\n\n{text}\n")
                while (answer := self.console.ask("Please respond 'yes' or 'no': ").lower()) not in {"yes", "no"}:
                    continue
                if answer == "no":
                    raise Fatal(str(question)) from question
                ignore = True
            except Question as question:
                self._hub([question])
        installed = Path(payload.MEDIUM, "stand-in/mirror")
        target = SYSROOT / "usr/share/stand-in/mirror"
        if installed.is_dir():
            shutil.copytree(installed, target, dirs_exist_ok=True)
        for repo in repos:
            if repo.baseurl.startswith(("http://", "https://")) and repo.baseurl.rstrip("/").endswith("/BaseOS/x86_64/os"):
                # The installed system asks the same mirror, as a site's own mirror is asked.
                self.machine.write("/etc/dnf/vars/standin_mirror", repo.baseurl.rstrip("/").removesuffix("/BaseOS/x86_64/os") + "\n")

    def _hub(self, asked: list[Question]) -> None:
        """The hub: shows what is missing and waits for somebody. Nothing here can be answered, so it waits for good."""
        if self.asks_nobody:
            raise Fatal("\n".join(f"{q.where}: {q.what}" for q in asked))
        self.say(f"{RULE}\n{RULE}\nInstallation\n")
        for number, question in enumerate(asked, start=1):
            self.say(f"{number}) [!] {question.where}\n       ({question.what})")
        self.say("")
        while self.console.ask(PROMPT) != "q":
            self.say("The stand-in takes no answers here; only a kickstart that leaves nothing open installs.")
        power.end(power.REBOOT, str(SYSROOT))

    def _failed(self, text: str) -> None:
        self.say(f"\n{RULE}\nError\n\n{text}\n")
        if self.asks_nobody:
            self.say("The installation was stopped due to an error which occurred while running in non-interactive cmdline mode.\n\nThe installer will now terminate.")
            time.sleep(CMDLINE_WAIT_SECONDS)
            power.end(power.REBOOT, str(SYSROOT))
        self.console.ask("Press ENTER to exit: ")
        power.end(power.REBOOT, str(SYSROOT))

    def _finish(self) -> None:
        assert self.kickstart
        used = self.kickstart.used
        action = max((used[name], name) for name in ("reboot", "poweroff", "shutdown", "halt") if name in used) if used.keys() & {"reboot", "poweroff", "shutdown", "halt"} else (0, "")
        if getattr(self.kickstart.handler.reboot, "eject", False):
            problem = power.eject("/run/install/medium")
            if problem:
                self.console.log(f"eject: {problem}")
        if action[1] == "":
            self.console.ask("Installation complete. Press ENTER to quit: ")
        power.end({"halt": power.HALT, "poweroff": power.POWER_OFF, "shutdown": power.POWER_OFF}.get(action[1], power.REBOOT), str(SYSROOT))

    def _run_all(self, title: str, found) -> None:
        if not found:
            return
        self.say(f"{title}\n.")
        for script in found:
            scripts.run(script, SYSROOT, self.console.log)

    def _scripts(self, title: str, pick) -> None:
        """The scripts for a failed installation; they must not hide its cause."""
        with contextlib.suppress(Fatal):
            if self.kickstart:
                self._run_all(f"Running {title} scripts", pick(self.kickstart))

    def _keep_logs(self) -> None:
        target = SYSROOT / "var/log/anaconda"
        target.mkdir(parents=True, exist_ok=True)
        for path in Path("/tmp").glob("*.log"):
            shutil.copy(path, target / path.name)
            (target / path.name).chmod(0o600)
        # The kernel's entropy of now, for the first boot, as the real installer leaves it.
        seed = SYSROOT / "var/lib/systemd/random-seed"
        seed.parent.mkdir(parents=True, exist_ok=True)
        seed.write_bytes(os.urandom(512))
        seed.chmod(0o600)

    def _uuid(self, device: str) -> str:
        return self.machine.run("blkid", "--probe", "--output", "value", "--match-tag", "UUID", device, fails="reading a UUID").strip()

    @contextlib.contextmanager
    def _mounted(self, device: str) -> Iterator[Path]:
        folder = Path("/run/install/kickstart")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-o", "ro", device, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise source.unfetched(device, done.stderr.strip())
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=False)


def _everything() -> list[Question]:
    """The hub of an installation without a kickstart."""
    return [
        Question("Installation source", "Kickstart insufficient"),
        Question("Software selection", "Kickstart insufficient"),
        Question(storage.DESTINATION, "No disks selected"),
        Question("Root password", "Root account is disabled"),
        Question("User creation", "No user will be created"),
    ]
