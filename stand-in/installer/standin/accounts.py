"""Passwords, users and their keys, as the kickstart sets them."""

import shlex
import subprocess

from standin.errors import Question
from standin.kickstart import Kickstart
from standin.machine import Machine


def asked(kickstart: Kickstart) -> Question | None:
    """What is missing for anybody to get in, as the hub asks for it."""
    handler = kickstart.handler
    root = handler.rootpw
    if "rootpw" in kickstart.used:
        return None
    if any("wheel" in user.groups and (user.password or user.name) for user in handler.user.userList):
        return None
    return Question("Root password", "Root account is disabled" if not root.lock else "Password is not set")


def hashed(password: str, encrypted: bool) -> str:
    """The field of /etc/shadow; a plain password goes through a pipe, so that no list of processes shows it."""
    if encrypted:
        return password
    return subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True, check=True).stdout.strip()


def with_password(shadow: str, user: str, value: str) -> str:
    """The text of /etc/shadow with this user's second field set."""
    lines = []
    for line in shadow.splitlines():
        fields = line.split(":")
        if fields[0] == user and len(fields) > 1:
            fields[1] = value
        lines.append(":".join(fields))
    return "\n".join(lines) + "\n"


def set_up(kickstart: Kickstart, machine: Machine) -> None:
    handler = kickstart.handler
    root = handler.rootpw
    value = hashed(root.password, root.isCrypted) if root.password else ""
    _password(machine, "root", f"!{value}" if root.lock and value else value or "!!")
    if root.allow_ssh:
        machine.write("/etc/ssh/sshd_config.d/01-permitrootlogin.conf", "# Written by the installer, as the kickstart says (rootpw --allow-ssh).\nPermitRootLogin yes\n", 0o600)
    for group in handler.group.groupList:
        machine.inside("groupadd", "--force", *(["--gid", str(group.gid)] if group.gid is not None else []), group.name)
    for user in handler.user.userList:
        groups = [name.split("(")[0].strip() for name in user.groups]
        for name in groups:
            machine.inside("groupadd", "--force", name)
        machine.inside(
            "useradd",
            "--create-home",
            *(["--groups", ",".join(groups)] if groups else []),
            *(["--home-dir", user.homedir] if user.homedir else []),
            *(["--uid", str(user.uid)] if user.uid is not None else []),
            *(["--comment", user.gecos] if user.gecos else []),
            "--shell",
            user.shell or "/bin/bash",
            user.name,
            fails=f"creating the user {user.name}",
        )
        value = hashed(user.password, user.isCrypted) if user.password else ""
        _password(machine, user.name, f"!{value}" if user.lock and value else value or "!!")
    for key in handler.sshkey.sshUserList:
        _authorise(machine, key.username, key.key)


def _password(machine: Machine, user: str, value: str) -> None:
    machine.write("/etc/shadow", with_password(machine.read("/etc/shadow"), user, value), 0o640)


def _authorise(machine: Machine, user: str, key: str) -> None:
    home = "/root"
    if user != "root":
        home = machine.inside("sh", "-c", f"getent passwd {shlex.quote(user)} | cut -d: -f6").strip() or f"/home/{user}"
    file = f"{home}/.ssh/authorized_keys"
    machine.write(file, machine.read(file) + key.rstrip("\n") + "\n", 0o600)
    machine.inside("chmod", "0700", f"{home}/.ssh")
    machine.inside("chown", "-R", f"{user}:", f"{home}/.ssh", fails=f"giving {user} its keys")
