"""The identities that need a look inside a file: accounts, names, network profiles, settings with secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sealcheck.catalogue import AUTHORIZED_KEYS, STORAGE_NAMES
from sealcheck.filesystem import DIRECTORY, FILE, LINK
from sealcheck.report import Identity, Report
from sealcheck.tree import Entry, Tree

MACHINE_ID = Identity(
    "machine-id",
    "machine-id",
    "clones would share DHCP leases, generated hardware addresses and journals",
    "seal.sh, operation machine-id",
)
PASSWORDS = Identity(
    "passwords",
    "password",
    "a password of the build would open every clone; an empty one needs not even be known",
    "seal.sh, operation passwords",
)
HOSTNAME = Identity(
    "hostname",
    "name of the machine that was built",
    "clones would come up under one name, and k3s takes the second for the first",
    "seal.sh, operation hostname",
)
HOSTS = Identity(
    "hosts",
    "names in /etc/hosts",
    "if one is the build's own, every clone resolves it to itself or to the build's address",
    "remove the line, unless it is meant for every clone",
    note=True,
)
RESOLVER = Identity(
    "resolver",
    "name servers of the build's network",
    "NetworkManager and cloud-init write them anew at a clone's first boot",
    "truncate --size 0 /etc/resolv.conf in the last script before seal.sh",
    note=True,
)
PROFILES = Identity(
    "network-profiles",
    "network profile",
    "clones would share the connection's id, or be tied to the hardware address of the machine that was built",
    "seal.sh, operation network-profiles",
)
PROFILE_SECRETS = Identity(
    "network-secrets",
    "network profile with a secret",
    "every clone could join the network with the build's credentials",
    "remove the profile in the last script before seal.sh",
)
FIXED_ADDRESS = Identity(
    "fixed-address",
    "network profile with a fixed address",
    "every clone has it, unless cloud-init gives it one of its own",
    "use DHCP in the kickstart, or give each clone an address by cloud-init",
    note=True,
)
K3S_TOKEN = Identity(
    "k3s-token",
    "setting of k3s with a secret",
    "whoever holds one clone holds the key to the cluster of all",
    "leave it out of the image; a clone is told by cloud-init or its configuration volume",
)
CHRONY_KEYS = Identity(
    "chrony-keys",
    "keys between this machine and a time server",
    "clones would share them",
    "remove the lines from the file, and let each clone get keys of its own",
)
OPEN_AGENT = Identity(
    "open-agent",
    "guest agent that runs programs or touches files for the hypervisor",
    "whoever may use the agent through the API is root in every clone; EL9 ships it locked",
    "seal.sh, operation guest-agent",
)
CLOUD_SUDO = Identity(
    "cloud-init-sudo",
    "rights of the user that cloud-init made for the build",
    "a clone whose user has the same name gets them without being told",
    "rm the file, unless every clone is to have that user",
    note=True,
)
PRIVATE_KEYS = Identity(
    "private-keys",
    "private key",
    "who holds the key of one clone can pose as every other",
    "remove it in the last script before seal.sh, or have each clone make its own",
)
HIDDEN = Identity(
    "hidden-files",
    "file below a mounted file system",
    "no program of a clone sees it, and nothing of the build removed it",
    "umount the file system in a script, and remove what lies below",
)
CHECKS: list[Callable[[Tree, Report], None]] = []
Check = Callable[[Tree, Report], None]


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


def files(tree: Tree, *patterns: str) -> Iterator[tuple[Entry, str]]:
    """Each file of these patterns that has content, with its text."""
    for pattern in patterns:
        for entry in tree.match(pattern):
            text = tree.read(entry, 1 << 20).decode(errors="replace")
            if text.strip():
                yield entry, text


def lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith(("#", ";")):
            yield line.strip()


def accounts(tree: Tree) -> list[tuple[str, str]]:
    """Name and home of each account."""
    fields = [line.split(":") for line in tree.text("/etc/passwd").splitlines()]
    return [(account[0], account[5].rstrip("/") or "/") for account in fields if len(account) >= 6]


def homes(tree: Tree) -> list[str]:
    """Every home: of the accounts, and what lies where homes lie."""
    found = [home for _, home in accounts(tree)] + ["/root"] + [entry.path for entry in tree.match("/home/*")]
    return [*list(dict.fromkeys(home for home in found if home.startswith("/") and home != "/")), "/"]


@check
def machine_id(tree: Tree, report: Report) -> None:
    for entry, text in files(tree, "/etc/machine-id", "/var/lib/dbus/machine-id"):
        if text.strip() != "uninitialized" and not (entry.node.kind == LINK and entry.path.endswith("/dbus/machine-id")):
            report.add(MACHINE_ID, entry.path)


@check
def passwords(tree: Tree, report: Report) -> None:
    for path, group in (("/etc/shadow", False), ("/etc/shadow-", False), ("/etc/gshadow", True), ("/etc/gshadow-", True)):
        for line in lines(tree.text(path, 16 << 20)):
            name, _, rest = line.partition(":")
            word = rest.split(":")[0]
            # Of a group, an empty one means that nobody needs a password to be in it and nobody can join by one.
            if not word and not group:
                report.add(PASSWORDS, path, f"{name} has an empty one")
            elif word.strip("!*"):
                locked = ", locked, which anybody with root undoes" if word.startswith("!") else ""
                report.add(PASSWORDS, path, f"hash of {'group ' if group else ''}{name}{locked}")
    for path in ("/etc/passwd", "/etc/passwd-"):
        for line in lines(tree.text(path, 16 << 20)):
            words = line.split(":")
            if len(words) > 2 and words[1] not in ("x", "*", "!", "!!"):
                report.add(PASSWORDS, path, f"{words[0]} has {'an empty one' if not words[1] else 'a hash'} in a file that all may read")
    for entry, _ in files(tree, "/etc/security/opasswd", "/etc/shadow.*", "/etc/shadow~", "/etc/gshadow.*"):
        report.add(PASSWORDS, entry.path, "former ones")


@check
def authorized_keys(tree: Tree, report: Report) -> None:
    """Where sshd is told to look, beside where it looks by itself."""
    for _, text in files(tree, "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*.conf"):
        for line in lines(text):
            words = re.split(r"[\s=]+", line.replace('"', ""))
            if words[0].lower() != "authorizedkeysfile":
                continue
            for word in words[1:]:
                for user, home in accounts(tree):
                    path = word.replace("%%", "%").replace("%h", home).replace("%u", user)
                    path = path if path.startswith("/") else f"{home}/{path}"
                    entry = tree.lookup(path, follow=False)
                    if entry and not report.knows(path) and any(lines(tree.read(entry).decode(errors="replace"))):
                        report.add(AUTHORIZED_KEYS, path)


@check
def names(tree: Tree, report: Report) -> None:
    for entry, text in files(tree, "/etc/hostname"):
        name = next(lines(text), "")
        if name and not name.startswith("localhost"):
            report.add(HOSTNAME, entry.path)
    usual = re.compile(r"localhost.*|ip6-.*|broadcasthost")
    for line in lines(tree.text("/etc/hosts")):
        if any(not usual.fullmatch(word) for word in line.split("#")[0].split()[1:]):
            report.add(HOSTS, "/etc/hosts", line)
    for entry, text in files(tree, "/etc/resolv.conf"):
        if entry.node.kind == FILE and any(line.startswith(("nameserver", "search", "domain")) for line in lines(text)):
            report.add(RESOLVER, entry.path)


# Keys of NetworkManager's profiles, of ifcfg files, of systemd-networkd, netplan and ifupdown.
PROFILE_FILES = (
    "/etc/NetworkManager/system-connections/*",
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/sysconfig/network-scripts/keys-*",
    "/etc/systemd/network/*",
    "/etc/netplan/*",
    "/etc/network/interfaces",
    "/etc/network/interfaces.d/*",
)
IDS = re.compile(
    r"(uuid|mac-address|cloned-mac-address|hwaddr|macaddr|macaddress|permanentmacaddress|hwaddress)\s*[=: ]\s*\"?([0-9a-fA-F:.-]{4,}|ether\s.*)", re.I
)
SECRETS = re.compile(
    r"(psk|password|wep-key\d|private-key-password|leap-password|pin|secret|key\d?|passphrase|wireguard.*private-key|private-key)\s*[=:]\s*\S+", re.I
)
FIXED = re.compile(r"(address\d*|addresses|ipaddr\d*)\s*[=: ]\s*[\[\"]?([0-9a-f]+[.:][0-9a-f.:]+)", re.I)


@check
def network_profiles(tree: Tree, report: Report) -> None:
    for entry, text in files(tree, *PROFILE_FILES):
        for line in lines(text):
            if (match := IDS.match(line)) or (match := re.match(r"(match|set-name|macaddress):\s*.*([0-9a-f]{2}(:[0-9a-f]{2}){5})", line, re.I)):
                report.add(PROFILES, entry.path, match.group(1).lower())
            elif match := SECRETS.match(line):
                report.add(PROFILE_SECRETS, entry.path, match.group(1).lower())
            elif (match := FIXED.match(line)) and not match.group(2).startswith("127."):
                report.add(FIXED_ADDRESS, entry.path, match.group(2))


@check
def k3s_settings(tree: Tree, report: Report) -> None:
    settings = re.compile(r"[\"']?(token|agent-token|server-token|datastore-endpoint|etcd-s3-secret-key|vpn-auth)[\"']?\s*:\s*\S+")
    for entry, text in files(tree, "/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/config.yaml.d/*"):
        for line in lines(text):
            if match := settings.match(line):
                report.add(K3S_TOKEN, entry.path, match.group(1))
    for entry, text in files(tree, "/etc/rancher/k3s/registries.yaml"):
        if any(re.match(r"(password|auth|identity_?token)\s*:\s*\S+", line) for line in lines(text)):
            report.add(K3S_TOKEN, entry.path, "credentials of a registry")
    units = ("/etc/systemd/system/k3s*", "/etc/systemd/system/k3s*/*", "/etc/default/k3s*", "/etc/sysconfig/k3s*")
    for entry, text in files(tree, *units):
        for line in lines(text):
            if match := re.search(r"(K3S_(?:AGENT_)?TOKEN|K3S_CLUSTER_SECRET|K3S_DATASTORE_ENDPOINT)[\"']?=[\"']?[^\s\"']|--(?:agent-)?token[= ]\S", line):
                report.add(K3S_TOKEN, entry.path, match.group(1) or "--token")


@check
def others(tree: Tree, report: Report) -> None:
    for entry, text in files(tree, "/etc/iscsi/initiatorname.iscsi"):
        if any(line.startswith("InitiatorName=") and len(line) > len("InitiatorName=") for line in lines(text)):
            report.add(STORAGE_NAMES, entry.path)
    for entry, text in files(tree, "/etc/chrony.keys", "/etc/chrony/chrony.keys", "/etc/ntp.keys", "/etc/ntp/keys"):
        if any(lines(text)):
            report.add(CHRONY_KEYS, entry.path)
    for entry, _ in files(tree, "/etc/sudoers.d/*cloud-init*"):
        report.add(CLOUD_SUDO, entry.path)
    for entry in tree.match("/var/log/journal/*"):
        # Its name is the machine-id, also when it is empty.
        if entry.node.kind == DIRECTORY and re.fullmatch(r"[0-9a-f]{32}", entry.path.rsplit("/", 1)[1]):
            report.add(MACHINE_ID, entry.path, "as the name of a journal")


@check
def agent(tree: Tree, report: Report) -> None:
    """As the agent's unit reads it on EL9: of two lines the last one counts, an empty list allows all."""
    path = "/etc/sysconfig/qemu-ga"
    entry = tree.lookup(path)
    if entry:
        text = tree.read(entry).decode(errors="replace")
        words = [line.partition("=")[2].strip("\"' ") for line in lines(text) if line.startswith("FILTER_RPC_ARGS=")]
        blocked = [line for line in lines(text) if line.startswith(("BLACKLIST_RPC=", "BLOCK_RPCS="))]
        opened = not words[-1].startswith("--allow-rpcs=") or re.search(r"guest-(exec|file-|set-user-password|ssh-)", words[-1]) if words else not blocked
        if opened or (not words and "guest-exec" not in blocked[-1]):
            report.add(OPEN_AGENT, path)
    for entry, _ in files(tree, "/etc/systemd/system/qemu-guest-agent.service.d/*", "/etc/sysconfig/qemu-ga.k3simage"):
        report.add(OPEN_AGENT, entry.path, "put there for the build")


@check
def hidden(tree: Tree, report: Report) -> None:
    for entry in tree.hidden():
        report.add(HIDDEN, entry.path)
