"""The identities that are known by the place where they lie. Those that need a look inside are in checks.py."""

from __future__ import annotations

from sealcheck.report import Identity

SHARED = "every clone would have the same"

K3S_STATE = Identity(
    "k3s-state",
    "state of a k3s that ran, or settings of one node",
    "clones would share cluster CA, tokens, datastore and node password, or be refused as the same node",
    "seal.sh, operation k3s-state",
    (
        "/var/lib/rancher/k3s/*",
        "/var/lib/rancher/rke2/*",
        "/etc/rancher/node/*",
        "/etc/rancher/k3s/k3s.yaml",
        "/var/lib/kubelet/*",
        "/var/lib/cni/*",
        "/etc/cni/net.d/*",
        "/var/lib/k3simage/firstboot.done",
        "/etc/k3simage/k3s.env",
        "/etc/k3simage/role.env",
        "/var/log/pods/*",
        "/var/log/containers/*",
        "/etc/kubernetes/*",
        "/var/lib/etcd/*",
    ),
    # Air-gap images, the same for every node, and a state of their import that is empty.
    spared=("/var/lib/rancher/k3s/agent/images",),
)
HOST_KEYS = Identity(
    "host-keys",
    "SSH host key",
    "who holds the key of one clone can pose as every other",
    "seal.sh, operation host-keys",
    ("/etc/ssh/ssh_host_*", "/etc/dropbear/*_host_key"),
)
RANDOM_SEED = Identity(
    "random-seed",
    "saved seed of the random number generator",
    "clones would start from the same seed, which their first keys may be made of",
    "seal.sh, operation random-seed",
    (
        "/var/lib/systemd/random-seed",
        "/var/lib/random-seed",
        "/var/lib/urandom/random-seed",
        "/boot/loader/random-seed",
        "/boot/efi/loader/random-seed",
        "/efi/loader/random-seed",
    ),
)
AUTHORIZED_KEYS = Identity(
    "authorized-keys",
    "keys that may log in",
    "whoever built the image could log in to every clone",
    "seal.sh, operation authorized-keys",
    ("~/.ssh/authorized_keys*", "/etc/ssh/authorized_keys*"),
)
SSH_CLIENT = Identity(
    "known-hosts",
    "hosts that the build's user knew, or how they were reached",
    "it tells of the network the image was built in, and clones would trust keys that others chose",
    "seal.sh, operation authorized-keys (it removes .ssh); rm /etc/ssh/ssh_known_hosts",
    ("~/.ssh/known_hosts*", "~/.ssh/environment", "/etc/ssh/ssh_known_hosts*"),
)
CREDENTIALS = Identity(
    "credentials",
    "credentials of a user",
    "every clone could act as whoever built the image",
    "seal.sh, operation credentials",
    (
        "~/.kube/*",
        "~/.docker/config.json",
        "~/.config/containers/auth.json",
        "~/.aws/credentials",
        "~/.netrc",
        "~/.git-credentials",
        "~/.config/gh/hosts.yml",
        "~/.pypirc",
        "~/.npmrc",
        "~/.vault-token",
        "~/.pgpass",
        "~/.my.cnf",
        "~/.gnupg/private-keys-v1.d/*",
        "~/.gnupg/secring.gpg",
    ),
)
GNUPG = Identity(
    "gnupg",
    "key ring and agent of GnuPG",
    "clones would trust the keys that the build imported, and share what its agent keeps",
    "seal.sh, operation credentials",
    ("~/.gnupg/*",),
)
HISTORIES = Identity(
    "shell-history",
    "history of a shell or program",
    "commands of the build, with what was typed into them",
    "seal.sh, operation shell-history",
    (
        "~/.*_history",
        "~/.*hist",
        "~/.*hst",
        "~/.history",
        "~/.viminfo",
        "~/.wget-hsts",
        "~/.recently-used*",
        "~/.local/share/fish/fish_history",
        "~/.local/share/nano/search_history",
        "~/.local/state/*history*",
        "~/.cache/*",
    ),
)
INSTALLER = Identity(
    "installer-files",
    "what the installer left",
    "a kickstart holds passwords and keys as they were given; its logs describe the machine it ran on",
    "seal.sh, operation installer-files",
    (
        "/root/*ks.cfg",
        "/root/ks-*.log",
        "/root/install.log*",
        "/root/anaconda*",
        "/root/preseed*",
        "/var/log/anaconda/*",
        "/var/log/installer/*",
        "/tmp/ks-script-*",
        "/tmp/anaconda*",
        "/var/tmp/k3s-install.*",
    ),
)
CLOUD_INIT = Identity(
    "cloud-init",
    "what cloud-init remembers of the machine that was built",
    "a clone with the same instance id would skip its own settings, and user data may hold passwords",
    "seal.sh, operation cloud-init",
    ("/var/lib/cloud/*", "/var/log/cloud-init*"),
)
LOGS = Identity(
    "logs",
    "log with content",
    "it tells of the build: addresses, users, hosts; and mixes with what a clone writes",
    "seal.sh, operation logs",
    # Behind the names of rsyslog and psacct lie the boot id of the build, and its processes.
    ("/var/log/**", "/var/lib/rsyslog/*", "/var/spool/rsyslog/*", "/var/account/*"),
)
PACKAGE_HISTORY = Identity(
    "package-history",
    "history, counters or cache of the package manager",
    "times and commands of the build; a counter that every clone goes on with",
    "seal.sh, operation package-history",
    (
        "/var/lib/dnf/history.sqlite*",
        "/var/lib/dnf/countme",
        "/var/lib/dnf/repos/*",
        "/var/cache/dnf/*",
        "/var/cache/yum/*",
        "/var/cache/libdnf5/*",
        "/usr/lib/sysimage/libdnf5/transaction_history.sqlite*",
        "/var/lib/yum/*",
        "/var/lib/rpm/__db.*",
    ),
)
NETWORK_STATE = Identity(
    "network-state",
    "lease or key of the network",
    "clones would ask for the build's address, and make the same stable addresses and DHCP ids",
    "seal.sh, operation network-state",
    (
        "/var/lib/NetworkManager/*",
        "/var/lib/dhclient/*",
        "/var/lib/dhcp/*",
        "/var/lib/dhcpcd/*",
        "/var/db/dhcpcd/*",
        "/etc/dhcpcd.duid",
        "/var/lib/systemd/network/*",
        "/etc/udev/rules.d/*-persistent-net.rules",
        "/etc/udev/rules.d/*-persistent-cd.rules",
    ),
    # What NetworkManager writes at every start, the same everywhere; which devices are on; and what is noted below.
    spared=(
        "/var/lib/NetworkManager/NetworkManager-intern.conf",
        "/var/lib/NetworkManager/NetworkManager.state",
        "/var/lib/NetworkManager/timestamps",
    ),
)
SYSTEMD_SECRETS = Identity(
    "systemd-secrets",
    "secret or description of one machine",
    "credentials that one clone encrypted could be opened by every other",
    "seal.sh, operation systemd-secrets",
    ("/var/lib/systemd/credential.secret", "/etc/machine-info", "/var/lib/systemd/tpm2*", "/var/lib/systemd/pcrlock*"),
)
SUBSCRIPTION = Identity(
    "subscription",
    "registration with a subscription service",
    "clones would count as one machine there, and one that unregisters takes the others along",
    "subscription-manager clean; insights-client --unregister; or rm the files in the last script before seal.sh",
    (
        "/etc/pki/consumer/*",
        "/etc/pki/entitlement/*",
        "/var/lib/rhsm/*",
        "/etc/sysconfig/rhn/systemid",
        "/etc/insights-client/machine-id",
        "/etc/insights-client/.registered",
        "/var/lib/insights/*",
        "/var/lib/ubuntu-advantage/private/*",
    ),
)
ENROLMENT = Identity(
    "enrolment",
    "identity in a management, directory or network service",
    "clones would fight for one place there, or be taken for each other",
    "remove it in the last script before seal.sh and enrol each clone at its first boot",
    (
        "/etc/krb5.keytab",
        "/var/lib/sss/db/*",
        "/var/lib/sss/secrets/*",
        "/var/lib/samba/private/*",
        "/etc/ipa/nssdb/*",
        "/etc/salt/minion_id",
        "/etc/salt/pki/*",
        "/etc/puppetlabs/puppet/ssl/*",
        "/etc/chef/client.pem",
        "/var/lib/tailscale/*",
        "/var/lib/zerotier-one/identity.*",
        "/etc/wireguard/*",
        "/var/lib/docker/engine-id",
        "/etc/docker/key.json",
        "/var/lib/docker/swarm/*",
        "/var/lib/fwupd/pki/*",
        "/var/lib/qemu-ga/*",
    ),
)
STORAGE_NAMES = Identity(
    "storage-names",
    "name of this machine towards a storage",
    "two clones with one name corrupt the volume that both may write to",
    "seal.sh, operation storage-names",
    ("/etc/nvme/hostnqn", "/etc/nvme/hostid"),
)
SPOOL = Identity(
    "spool",
    "mail or jobs that wait",
    "every clone would deliver or run them once more",
    "seal.sh, operation spool",
    ("/var/spool/mail/*", "/var/mail/*", "/var/spool/postfix/**", "/var/spool/mqueue/*", "/var/spool/clientmqueue/*", "/var/spool/at/*", "/var/spool/cups/*"),
    spared=("/var/spool/at/.SEQ", "/var/spool/postfix/pid", "/var/spool/postfix/etc", "/var/spool/postfix/lib"),
)
CRASHES = Identity(
    "crash-dumps",
    "memory of a program or kernel that crashed",
    "it may hold any secret that the program had",
    "seal.sh, operation crash-dumps",
    ("/var/crash/*", "/var/lib/systemd/coredump/*", "/var/spool/abrt/*", "/var/lib/systemd/pstore/*", "/core", "/root/core.*"),
)
TEMPORARY = Identity(
    "temporary-files",
    "temporary file that was left",
    "uploads and scripts of the build lie there, with what was written into them",
    "the script that made it; seal.sh sweeps them not, as it may be running from there",
    ("/tmp/**", "/var/tmp/**"),
)
# Fixed names above; the first of these that matches a path is the one it is reported as.
CATALOGUE = (
    K3S_STATE,
    HOST_KEYS,
    RANDOM_SEED,
    AUTHORIZED_KEYS,
    SSH_CLIENT,
    CREDENTIALS,
    GNUPG,
    HISTORIES,
    INSTALLER,
    CLOUD_INIT,
    PACKAGE_HISTORY,
    NETWORK_STATE,
    SYSTEMD_SECRETS,
    SUBSCRIPTION,
    ENROLMENT,
    STORAGE_NAMES,
    SPOOL,
    CRASHES,
    TEMPORARY,
    LOGS,
    Identity(
        "boot-entries",
        "boot entry that carries the build's machine-id in its name",
        "EL9 names them so and boots them whatever the machine's id is: a trace, shared, that does no harm",
        "nothing needs to; the next kernel of a clone is named by its own id",
        ("/boot/loader/entries/" + "[0-9a-f]" * 32 + "-*.conf", "/boot/efi/loader/entries/" + "[0-9a-f]" * 32 + "-*.conf"),
        note=True,
    ),
    Identity(
        "network-timestamps",
        "when NetworkManager last used which profile",
        "NetworkManager writes it when it stops, so after the seal: ids of profiles that a clone does not have",
        "nothing needs to",
        ("/var/lib/NetworkManager/timestamps",),
        note=True,
    ),
    Identity(
        "crontabs",
        "timed jobs of a user",
        "every clone runs them at the same minute, which may be meant",
        "rm them if the build put them there for itself",
        ("/var/spool/cron/*",),
        note=True,
    ),
    Identity(
        "clock-drift",
        "drift of this machine's clock",
        "a clone on another host starts from a wrong estimate, which chrony corrects",
        "rm the file while chronyd is stopped",
        ("/var/lib/chrony/drift", "/var/lib/ntp/drift", "/var/lib/systemd/timesync/*"),
        note=True,
    ),
    Identity(
        "lvm-devices",
        "names of disks as LVM knows them",
        "an entry by serial number or WWID does not match a clone's disk, and its volumes may not be found",
        "rm /etc/lvm/devices/system.devices, if the entries are not by devname",
        ("/etc/lvm/devices/system.devices", "/etc/lvm/backup/*", "/etc/lvm/archive/*"),
        note=True,
    ),
)
