"""The files of a sealed template, and what may be left in it: each identity with the files that are it."""

from pathlib import Path

KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    + "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n" * 3
    + "-----END OPENSSH PRIVATE KEY-----\n"
)
ID = "0123456789abcdef0123456789abcdef"
FSTAB = """# made by the installer
UUID=4d3c2b1a-0000-4000-8000-000000000001 / auto defaults 0 0
UUID=4d3c2b1a-0000-4000-8000-000000000002 /boot ext4 defaults 1 2
UUID=1234-ABCD /boot/efi vfat umask=0077,shortname=winnt 0 2
"""
PASSWD = (
    "root:x:0:0:root:/root:/bin/bash\nbin:x:1:1:bin:/bin:/sbin/nologin\nbackup:x:987:987::/srv/backup:/bin/sh\npacker:x:1000:1000::/home/packer:/bin/bash\n"
)
SHADOW = "root:!!:19700::::::\nbin:*:19700::::::\nbackup:!:19700::::::\npacker:!!:19700::::::\n"
AGENT = 'FILTER_RPC_ARGS="--allow-rpcs=guest-ping,guest-shutdown"\n'
# A template after seal.sh, as it should be. What looks like an identity here is none.
CLEAN = {
    "etc/passwd": PASSWD,
    "etc/shadow": SHADOW,
    "etc/gshadow": "root:::\nbin:!::\npacker:!::\n",
    "etc/fstab": FSTAB,
    "etc/machine-id": "",
    "etc/hosts": "127.0.0.1   localhost localhost.localdomain localhost4 localhost4.localdomain4\n::1 localhost ip6-loopback\n",
    "etc/os-release": "ID=almalinux\n",
    "etc/ssh/sshd_config": "#AuthorizedKeysFile none\nAuthorizedKeysFile .ssh/authorized_keys\nInclude /etc/ssh/sshd_config.d/*.conf\n",
    "etc/ssh/moduli": "20230101 2 6 100 2047 5 F8\n",
    "etc/sysconfig/qemu-ga": f"# {AGENT}{AGENT}FSFREEZE_HOOK_PATHNAME=/etc/qemu-ga/fsfreeze-hook\n",
    "etc/NetworkManager/system-connections/eth0.nmconnection": (
        "[connection]\nid=eth0\ntype=ethernet\n[ethernet]\ncloned-mac-address=preserve\n[ipv4]\nmethod=auto\n"
    ),
    "etc/chrony.keys": "# 1 SHA1 HEX:1dc764e0791b11fa67efc7ecbc4b0d73f68a070c\n",
    "etc/iscsi/initiatorname.iscsi": "GenerateName=yes\n",
    "etc/rancher/k3s/config.yaml.d/20-selinux.yaml": "selinux: true\n# token: none\n",
    "etc/systemd/system/k3s.service": "[Service]\nEnvironmentFile=-/etc/k3simage/k3s.env\nExecStart=/usr/local/bin/k3s server\n",
    "etc/k3simage/image.env": "IMAGE_NAME=x\n",
    "etc/k3simage/sealed": "IMAGE_NAME=x\nBUILD_ID=7f3a\n",
    "var/lib/rancher/k3s/agent/images/k3s-airgap-images-amd64.tar.zst": "images",
    "var/lib/rancher/k3s/agent/images/.cache.json": "",
    "var/lib/NetworkManager/NetworkManager.state": "[main]\nNetworkingEnabled=true\n",
    "var/lib/rpm/rpmdb.sqlite": "SQLite format 3",
    "var/log/messages": "",
    "var/log/wtmp": "",
    "var/log/journal/.keep": "",
    "var/spool/at/.SEQ": "0000",
    "root/.bashrc": "# .bashrc\n",
    "home/packer/.bash_profile": "# .bash_profile\n",
    "srv/backup/.profile": "# shell\n",
    "tmp/.X11-unix/.keep": "",
    "usr/share/doc/cloud-init/examples/keys.txt": f"ssh_keys:\n{KEY}",
    "usr/local/bin/k3s": "\x7fELF K10 -----BEGIN OPENSSH PRIVATE KEY-----",
    "boot/vmlinuz-5.14.0": "kernel",
    "boot/grub2/grub.cfg": "set timeout=1\n",
    "boot/efi/EFI/almalinux/shimx64.efi": "MZ",
}
LINKS = {
    "var/lib/dbus/machine-id": "/etc/machine-id",
    "var/log/README": "../../usr/share/doc/cloud-init/examples/keys.txt",
    "etc/resolv.conf": "/run/NetworkManager/resolv.conf",
    "var/run": "../run",
    "etc/self": "self",
}
# By identity: what is put where. Each line alone must be found under that name, and nothing else with it.
PLANTED = {
    "machine-id": {
        "etc/machine-id": f"{ID}\n",
        "var/lib/dbus/machine-id": f"{ID}\n",
        f"var/log/journal/{ID}/.keep": "",
    },
    "host-keys": {"etc/ssh/ssh_host_ed25519_key": KEY, "etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAA root@build\n"},
    "random-seed": {"var/lib/systemd/random-seed": "\x01" * 512, "boot/efi/loader/random-seed": "\x01" * 32, "boot/loader/random-seed": "\x01" * 32},
    "systemd-secrets": {"var/lib/systemd/credential.secret": "secret", "etc/machine-info": "PRETTY_HOSTNAME=build\n"},
    "authorized-keys": {
        "root/.ssh/authorized_keys": "ssh-ed25519 AAAA build\n",
        "home/packer/.ssh/authorized_keys2": "ssh-ed25519 AAAA build\n",
        # A home that only /etc/passwd tells of, and a user without a line in it.
        "srv/backup/.ssh/authorized_keys": "ssh-ed25519 AAAA build\n",
        "home/gone/.ssh/authorized_keys": "ssh-ed25519 AAAA build\n",
    },
    "private-keys": {
        "root/.ssh/id_ed25519": KEY,
        "home/packer/.ssh/build": KEY,
        "etc/pki/tls/private/localhost.key": KEY.replace("OPENSSH ", ""),
        "opt/app/settings.yaml": f"tls:\n  {KEY}",
        "usr/local/etc/key.pem": f"# ours\n{KEY.replace('OPENSSH', 'EC')}",
        "usr/lib/ssl/private.pem": KEY,
    },
    "known-hosts": {"root/.ssh/known_hosts": "10.0.0.1 ssh-ed25519 AAAA\n", "etc/ssh/ssh_known_hosts": "10.0.0.1 ssh-ed25519 AAAA\n"},
    "passwords": {
        "etc/shadow": SHADOW.replace("packer:!!", "packer:$6$salt$hash"),
        "etc/shadow-": SHADOW.replace("root:!!", "root:$y$j9T$x$y"),
        "etc/gshadow": "root:::\npacker:$6$salt$hash::\n",
        "etc/passwd": PASSWD.replace("packer:x", "packer:ab1cdefghijkl"),
        "etc/security/opasswd": "root:0:1:$6$salt$hash\n",
    },
    "hostname": {"etc/hostname": "build-7f3a\n"},
    "network-profiles": {
        "etc/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nuuid=6f1d9a4c-2a6c-4d0e-9b59-7c4e0b1c1f11\n",
        "etc/NetworkManager/system-connections/wired": "[ethernet]\nmac-address=BC:24:11:00:00:01\n",
        "etc/sysconfig/network-scripts/ifcfg-eth0": 'DEVICE=eth0\nHWADDR="BC:24:11:00:00:01"\n',
        "etc/systemd/network/10-eth0.link": "[Match]\nMACAddress=bc:24:11:00:00:01\n",
    },
    "network-secrets": {"etc/NetworkManager/system-connections/office.nmconnection": "[wifi-security]\nkey-mgmt=wpa-psk\npsk=correct horse\n"},
    "network-state": {
        "var/lib/NetworkManager/secret_key": "nm-v2:\x01",
        "var/lib/NetworkManager/internal-6f1d-eth0.lease": "ADDRESS=10.0.0.7\n",
        "var/lib/dhclient/dhclient.leases": "lease {}\n",
        "etc/udev/rules.d/70-persistent-net.rules": 'SUBSYSTEM=="net"\n',
    },
    "storage-names": {
        "etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.1994-05.com.redhat:8a2f\n",
        "etc/nvme/hostid": "6f1d9a4c\n",
        "etc/nvme/hostnqn": "nqn.2014-08.org.nvmexpress:uuid:6f1d\n",
    },
    "k3s-state": {
        "var/lib/rancher/k3s/server/token": "K10abc::server:x\n",
        "var/lib/rancher/k3s/server/tls/server-ca.key": KEY,
        "var/lib/rancher/k3s/agent/client-kubelet.key": KEY,
        "var/lib/rancher/k3s/agent/internal.json": "{}",
        "etc/rancher/node/password": "abc\n",
        "etc/rancher/k3s/k3s.yaml": "apiVersion: v1\n",
        "var/lib/kubelet/pki/kubelet.key": KEY,
        "var/lib/cni/networks/cbr0/10.42.0.2": "x",
        "etc/k3simage/role.env": "K3S_ROLE=agent\n",
        "var/lib/k3simage/firstboot.done": "done\n",
    },
    "k3s-token": {
        "etc/rancher/k3s/config.yaml": 'write-kubeconfig-mode: "0644"\ntoken: secret\n',
        "etc/rancher/k3s/config.yaml.d/10.yaml": "agent-token: secret\n",
        "etc/rancher/k3s/registries.yaml": "configs:\n  r:\n    auth:\n      password: secret\n",
        "etc/systemd/system/k3s-agent.service.env": "K3S_TOKEN='secret'\n",
        "etc/systemd/system/k3s.service.d/token.conf": "[Service]\nExecStart=\nExecStart=/usr/local/bin/k3s server --token secret\n",
    },
    "cloud-init": {
        "var/lib/cloud/data/instance-id": "build\n",
        "var/lib/cloud/instances/i-1/user-data.txt": "#cloud-config\n",
        "var/lib/cloud/sem/config_scripts_per_once.once": "1\n",
        "var/log/cloud-init.log": "started\n",
    },
    "installer-files": {
        "root/anaconda-ks.cfg": "rootpw --plaintext packer\n",
        "root/original-ks.cfg": "text\n",
        "root/ks-post.log": "line\n",
        "var/log/anaconda/anaconda.log": "line\n",
        "var/tmp/k3s-install.x/k3s": "binary",
    },
    "logs": {
        "var/log/messages": "line\n",
        "var/log/secure-20261101": "line\n",
        "var/log/wtmp": "\x02" * 384,
        "var/log/lastlog": "\x02" * 292,
        "var/log/audit/audit.log": "line\n",
        "var/log/dnf.log": "line\n",
        "var/log/journal/system.journal": "LPKSHHRH",
        "var/log/chrony/.hidden": "line\n",
        "var/lib/rsyslog/imjournal.state": f"s=1;b={ID}\n",
    },
    "shell-history": {
        "root/.bash_history": "ls\n",
        "home/packer/.viminfo": "# viminfo\n",
        "root/.lesshst": ".less-history-file:\n",
        "srv/backup/.python_history": "import os\n",
        "home/packer/.cache/motd.legal-displayed": "x",
    },
    "package-history": {"var/lib/dnf/history.sqlite": "SQLite", "var/lib/dnf/repos/baseos-1/countme": "x", "var/cache/dnf/baseos.solv": "x"},
    "temporary-files": {"tmp/upload.sh": "#!/bin/sh\n", "var/tmp/dnf-1/log": "x", "tmp/.hidden": "x"},
    "crash-dumps": {"var/crash/127.0.0.1/vmcore": "x", "var/lib/systemd/coredump/core.k3s.0.zst": "x"},
    "spool": {"var/spool/mail/root": "From root\n", "var/spool/postfix/maildrop/1": "x", "var/spool/at/a00001": "x"},
    "subscription": {"etc/pki/consumer/cert.pem": "x", "etc/insights-client/machine-id": "x", "var/lib/rhsm/facts/facts.json": "{}"},
    "enrolment": {"etc/krb5.keytab": "\x05\x02", "var/lib/sss/db/cache_x.ldb": "TDB", "etc/salt/minion_id": "build\n", "var/lib/qemu-ga/qga.state": "x"},
    "credentials": {"root/.kube/config": "apiVersion: v1\n", "home/packer/.netrc": "machine x\n", "root/.docker/config.json": "{}"},
    "gnupg": {"root/.gnupg/pubring.kbx": "x"},
    "chrony-keys": {"etc/chrony.keys": "1 SHA1 HEX:1dc764e0791b11fa67efc7ecbc4b0d73f68a070c\n"},
    "open-agent": {
        "etc/sysconfig/qemu-ga": "FILTER_RPC_ARGS=\n",
        "etc/systemd/system/qemu-guest-agent.service.d/open.conf": "[Service]\n",
        "etc/sysconfig/qemu-ga.k3simage": AGENT,
    },
}
# The same for what is only noted.
NOTED = {
    "boot-entries": {f"boot/loader/entries/{ID}-5.14.0.conf": "title AlmaLinux\n"},
    "network-timestamps": {"var/lib/NetworkManager/timestamps": "[timestamps]\n18f6d772-5aad-3022-b5aa-b455dd7bfb02=1795656771\n"},
    "crontabs": {"var/spool/cron/root": "0 * * * * true\n"},
    "clock-drift": {"var/lib/chrony/drift": "1.0 0.1\n"},
    "lvm-devices": {"etc/lvm/devices/system.devices": "IDTYPE=devname\n"},
    "fixed-address": {"etc/NetworkManager/system-connections/eth0.nmconnection": "[ipv4]\naddress1=10.0.0.5/24,10.0.0.1\nmethod=manual\n"},
    "hosts": {"etc/hosts": "127.0.0.1 localhost\n127.0.1.1 build-7f3a\n"},
    "resolver": {"etc/resolv.conf": "# Generated by NetworkManager\nnameserver 10.0.0.1\n"},
    "cloud-init-sudo": {"etc/sudoers.d/90-cloud-init-users": "packer ALL=(ALL) NOPASSWD:ALL\n"},
}


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink():
        file.unlink()
    file.write_bytes(text.encode("latin-1"))


def clean(root: Path) -> Path:
    for path, text in CLEAN.items():
        put(root, path, text)
    for path, target in LINKS.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)
    (root / "etc/shadow").chmod(0)
    return root
