//! The installed system: files, packages, units; kept as JSON in the disk's file, so that copies of the file carry it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use serde::{Deserialize, Serialize};

use super::files::{FileTree, Kind};
use super::packages;
use super::record::InstalledSummary;
use super::units;

/// First field of the JSON, so that a disk's file tells what it is.
const FORMAT: &str = "pve-emulator simulated system 1";

/// A unit's state on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) enabled: bool,
    #[serde(default)]
    pub(super) masked: bool,
}

/// How far the start of a unit with a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Asked for.
    Wanted,
    /// Under way.
    Running,
}

/// One line of the system's own log of script runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunNote {
    pub(super) script: String,
    pub(super) exit_code: Option<i32>,
}

/// The installed system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct System {
    format: String,
    pub(super) os: String,
    pub(super) release: String,
    pub(super) major: u32,
    pub(super) files: FileTree,
    /// Beyond the base system; groups as `@name`.
    pub(super) packages: BTreeSet<String>,
    pub(super) units: BTreeMap<String, Unit>,
    /// SELinux booleans that are on and were off in the distribution's policy.
    #[serde(default)]
    pub(super) selinux_booleans: BTreeSet<String>,
    /// Whether its boot loader gives the kernel `console=ttyS0`.
    #[serde(default)]
    pub(super) serial_console: bool,
    #[serde(default)]
    pub(super) runs: Vec<RunNote>,
    /// Units that run now.
    #[serde(skip)]
    pub(super) active: BTreeSet<String>,
    /// Units whose program is to run, or runs.
    #[serde(skip)]
    pub(super) starting: BTreeMap<String, Start>,
    /// Units whose program ended with an error.
    #[serde(skip)]
    pub(super) failed: BTreeSet<String>,
    /// `/etc/sysconfig/qemu-ga` as the running agent read it; `None` until its first command.
    #[serde(skip)]
    pub(super) agent_config: Option<String>,
}

impl System {
    /// A system as the installer leaves it before the kickstart's own wishes.
    pub(super) fn base(major: u32, release: &str) -> Self {
        let mut files = FileTree::default();
        for dir in [
            "/boot",
            "/dev",
            "/etc/ssh/sshd_config.d",
            "/etc/sysconfig",
            "/etc/systemd/system",
            "/etc/selinux",
            "/etc/rancher",
            "/etc/yum.repos.d",
            "/etc/NetworkManager/system-connections",
            "/etc/sudoers.d",
            "/home",
            "/mnt",
            "/opt",
            "/proc/sys/kernel/random",
            "/run",
            "/srv",
            "/usr/bin",
            "/usr/sbin",
            "/usr/lib/systemd/system",
            "/usr/lib64",
            "/usr/local/bin",
            "/usr/share",
            "/var/cache/dnf",
            "/var/lib/systemd",
            "/var/lib/rancher",
            "/var/lib/cloud",
            "/var/log",
        ] {
            files.make_dirs(dir, 0o755, "root");
        }
        for (path, mode) in [("/root", 0o550), ("/tmp", 0o1777), ("/var/tmp", 0o1777)] {
            files.insert(path.to_owned(), Kind::Dir, mode, "root");
        }
        for (link, target) in [
            ("/bin", "usr/bin"),
            ("/sbin", "usr/sbin"),
            ("/lib64", "usr/lib64"),
            ("/usr/bin/sh", "bash"),
        ] {
            files.insert(link.to_owned(), Kind::Link(target.to_owned()), 0o777, "root");
        }
        files.insert("/dev/null".to_owned(), Kind::Null, 0o666, "root");
        files.put("/usr/bin/bash", "", 0o755);
        files.put(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:Kernel Overflow User:/:/sbin/nologin\n",
            0o644,
        );
        files.put("/etc/group", "root:x:0:\nwheel:x:10:\nnobody:x:65534:\n", 0o644);
        // A locked root is what Anaconda leaves unless the kickstart says otherwise.
        files.put("/etc/shadow", "root:!::0:99999:7:::\nnobody:*::0:99999:7:::\n", 0o000);
        files.put("/etc/hostname", "localhost.localdomain\n", 0o644);
        files.put("/etc/machine-id", format!("{}\n", new_machine_id()), 0o444);
        files.put(
            "/etc/selinux/config",
            "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
            0o644,
        );
        files.put("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\nAuthorizedKeysFile .ssh/authorized_keys\nSubsystem sftp /usr/libexec/openssh/sftp-server\n", 0o600);
        let name = format!("AlmaLinux release {release}");
        files.put("/etc/almalinux-release", format!("{name}\n"), 0o644);
        files.put("/etc/redhat-release", format!("{name}\n"), 0o644);
        files.put(
            "/etc/os-release",
            format!(
                "NAME=\"AlmaLinux\"\nVERSION=\"{release}\"\nID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"{release}\"\nPLATFORM_ID=\"platform:el{major}\"\nPRETTY_NAME=\"AlmaLinux {release}\"\n"
            ),
            0o644,
        );
        let mut system = Self {
            format: FORMAT.to_owned(),
            os: "AlmaLinux".to_owned(),
            release: release.to_owned(),
            major,
            files,
            packages: BTreeSet::new(),
            units: BTreeMap::new(),
            selinux_booleans: BTreeSet::new(),
            agent_config: None,
            serial_console: false,
            runs: Vec::new(),
            active: BTreeSet::new(),
            starting: BTreeMap::new(),
            failed: BTreeSet::new(),
        };
        for unit in ["NetworkManager.service", "rsyslog.service", "crond.service"] {
            system.units.insert(
                unit.to_owned(),
                Unit {
                    enabled: true,
                    masked: false,
                },
            );
        }
        system
    }

    /// Installs a package or group with what it brings; `false` if it was there.
    pub(super) fn install(&mut self, name: &str) -> bool {
        if !self.packages.insert(name.to_owned()) {
            return false;
        }
        for member in packages::members(name) {
            self.install(member);
        }
        for unit in packages::units(name) {
            self.units.entry((*unit).to_owned()).or_insert(Unit {
                enabled: true,
                masked: false,
            });
            self.files
                .put(&unit_file(unit), format!("[Unit]\nDescription={name}\n"), 0o644);
        }
        for (path, text, mode) in packages::files(name) {
            if !self.files.exists(path) {
                self.files.put(path, *text, *mode);
            }
        }
        true
    }

    /// Removes a package with its unit.
    pub(super) fn uninstall(&mut self, name: &str) -> bool {
        for unit in packages::units(name) {
            self.units.remove(*unit);
            self.active.remove(*unit);
            // A unit file that somebody removed before is as gone.
            let _ = self.files.remove(&unit_file(unit), false);
        }
        self.packages.remove(name)
    }

    /// `sshd` and `sshd.service` are one unit; a unit file in the tree is one too.
    pub(super) fn unit_name(name: &str) -> String {
        if name.contains('.') {
            name.to_owned()
        } else {
            format!("{name}.service")
        }
    }

    pub(super) fn has_unit(&self, unit: &str) -> bool {
        self.units.contains_key(unit)
            || [
                "/etc/systemd/system",
                "/usr/lib/systemd/system",
                "/usr/local/lib/systemd/system",
            ]
            .iter()
            .any(|dir| self.files.exists(&format!("{dir}/{unit}")))
    }

    pub(super) fn unit_mut(&mut self, unit: &str) -> &mut Unit {
        self.units.entry(unit.to_owned()).or_default()
    }

    /// What systemd does at boot: every enabled unit that is not masked starts.
    pub(super) fn start_enabled(&mut self) {
        self.active.clear();
        self.starting.clear();
        self.failed.clear();
        let enabled: Vec<String> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.enabled && !unit.masked)
            .map(|(name, _)| name.clone())
            .collect();
        for unit in enabled {
            self.start_unit(&unit);
        }
    }

    /// Starts a unit: at once, or by its program where it has one that this simulation runs.
    pub(super) fn start_unit(&mut self, unit: &str) {
        if units::UnitFile::of(self, unit).is_some_and(|file| file.program(self).is_some()) {
            if !self.active.contains(unit) {
                self.failed.remove(unit);
                self.starting.entry(unit.to_owned()).or_insert(Start::Wanted);
            }
        } else {
            self.active.insert(unit.to_owned());
        }
    }

    /// Stops a unit; a program that runs ends without effect.
    pub(super) fn stop_unit(&mut self, unit: &str) {
        self.active.remove(unit);
        self.starting.remove(unit);
        self.failed.remove(unit);
    }

    /// State of a unit as `systemctl is-active` words it.
    pub(super) fn unit_state(&self, unit: &str) -> &'static str {
        if self.active.contains(unit) {
            "active"
        } else if self.starting.contains_key(unit) {
            "activating"
        } else if self.failed.contains(unit) {
            "failed"
        } else {
            "inactive"
        }
    }

    pub(super) fn is_active(&self, unit: &str) -> bool {
        self.active.contains(unit)
    }

    /// The fixed address that a connection profile of NetworkManager sets, if one does.
    pub(super) fn fixed_address(&self) -> Option<Ipv4Addr> {
        let profiles = self.files.glob("/etc/NetworkManager/system-connections/*.nmconnection");
        profiles.iter().find_map(|profile| {
            self.files.text(profile).lines().find_map(|line| {
                let value = line.strip_prefix("address1=")?;
                value.split(['/', ',']).next()?.parse().ok()
            })
        })
    }

    pub(super) fn hostname(&self) -> String {
        let name = self.files.text("/etc/hostname").trim().to_owned();
        if name.is_empty() { "localhost".to_owned() } else { name }
    }

    /// The machine's id; empty on a sealed system and where the file says `uninitialized`.
    pub(super) fn machine_id(&self) -> String {
        let text = self.files.text("/etc/machine-id");
        match text.trim() {
            "uninitialized" => String::new(),
            id => id.to_owned(),
        }
    }

    /// First boot of a sealed system: systemd makes a new machine-id. `true` if it was one.
    pub(super) fn first_boot(&mut self) -> bool {
        let first = self.machine_id().is_empty();
        if first {
            self.files
                .put("/etc/machine-id", format!("{}\n", new_machine_id()), 0o444);
        }
        first
    }

    /// sshd's host keys. Makes an ed25519 key if there is none of that kind, as `sshd-keygen@ed25519` does; its RSA and
    /// ECDSA siblings are left out, because making them takes longer than a simulated boot.
    pub(super) fn ssh_host_keys(&mut self) -> Vec<PrivateKey> {
        const ED25519: &str = "/etc/ssh/ssh_host_ed25519_key";
        if !self.files.exists(ED25519)
            && let Ok(key) = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
            && let (Ok(private), Ok(public)) = (key.to_openssh(LineEnding::LF), key.public_key().to_openssh())
        {
            self.files.put(ED25519, private.as_bytes().to_vec(), 0o600);
            self.files
                .put("/etc/ssh/ssh_host_ed25519_key.pub", format!("{public}\n"), 0o644);
        }
        self.files
            .glob("/etc/ssh/ssh_host_*_key")
            .iter()
            .filter_map(|path| PrivateKey::from_openssh(self.files.text(path)).ok())
            .collect()
    }

    pub(super) fn selinux_enforcing(&self) -> bool {
        self.files
            .text("/etc/selinux/config")
            .lines()
            .any(|line| line.trim() == "SELINUX=enforcing")
    }

    pub(super) fn summary(&self) -> InstalledSummary {
        let host_key = self
            .files
            .glob("/etc/ssh/ssh_host_*_key")
            .iter()
            .find_map(|path| PrivateKey::from_openssh(self.files.text(path)).ok())
            .and_then(|key| {
                let mut public = key.public_key().clone();
                public.set_comment("");
                public.to_openssh().ok()
            });
        InstalledSummary {
            os: format!("{} {}", self.os, self.release),
            hostname: self.hostname(),
            machine_id: self.machine_id(),
            ssh_host_key: host_key,
            packages: self.packages.iter().cloned().collect(),
            enabled_units: self
                .units
                .iter()
                .filter(|(_, unit)| unit.enabled && !unit.masked)
                .map(|(name, _)| name.clone())
                .collect(),
            users: self.login_users(),
        }
    }

    /// Reads the system on a disk; `None` for a disk without one.
    ///
    /// # Errors
    /// The file cannot be read, or holds a damaged system.
    pub(super) fn load(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let mut first = [0];
        if file.read(&mut first)? == 0 || first != *b"{" {
            return Ok(None);
        }
        file.rewind()?;
        // A disk that was grown after the system was written has zeros behind the JSON.
        let mut values = serde_json::Deserializer::from_reader(BufReader::new(file)).into_iter::<Self>();
        match values.next() {
            Some(Ok(system)) if system.format == FORMAT => Ok(Some(system)),
            Some(Err(error)) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            _ => Ok(None),
        }
    }

    /// Writes the system to a disk, whole or not at all.
    ///
    /// # Errors
    /// The disk's file is gone, or its folder cannot be written.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        if !path.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
        let mut writer = io::BufWriter::new(temporary.as_file_mut());
        serde_json::to_writer(&mut writer, self)?;
        writer.flush()?;
        drop(writer);
        temporary.persist(path)?;
        Ok(())
    }
}

/// Where a package puts its unit.
fn unit_file(unit: &str) -> String {
    format!("/usr/lib/systemd/system/{unit}")
}

fn new_machine_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_live_in_their_files() {
        let mut system = System::base(9, "9.4");
        assert!(system.add_user("packer", &["wheel"], "/bin/bash"));
        assert!(!system.add_user("packer", &[], "/bin/bash"));
        let user = system.user("packer").unwrap();
        assert_eq!((user.uid, user.home.as_str()), (1000, "/home/packer"));
        assert_eq!(
            system.groups_of("packer"),
            [(1000, "packer".into()), (10, "wheel".into())]
        );
        assert_eq!(system.password_hash("packer").as_deref(), Some("!!"));
        system.set_password_hash("packer", "$6$x");
        assert_eq!(system.password_hash("packer").as_deref(), Some("$6$x"));
        assert_eq!(system.password_hash("root").as_deref(), Some("!"));
        assert!(system.authorise_key("packer", "ssh-ed25519 AAAA"));
        assert!(!system.authorise_key("nobody-else", "ssh-ed25519 AAAA"));
        assert_eq!(
            system.files.get("/home/packer/.ssh/authorized_keys").unwrap().owner,
            "packer"
        );
        assert_eq!(system.login_users(), ["root", "packer"]);
    }

    #[test]
    fn a_disk_carries_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm-100-disk-0.raw");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(System::load(&path).unwrap(), None);
        let mut system = System::base(9, "9.4");
        system.install("openssh-server");
        system.save(&path).unwrap();
        assert_eq!(System::load(&path).unwrap(), Some(system));
        let grown = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        grown.set_len(1 << 20).unwrap();
        assert!(System::load(&path).unwrap().is_some());
        std::fs::write(&path, b"{\"format\":").unwrap();
        assert!(System::load(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(
            System::base(9, "9").save(&path).is_err(),
            "a deleted disk does not come back"
        );
    }

    #[test]
    fn first_boot_makes_new_identities() {
        let mut system = System::base(9, "9.4");
        assert!(!system.first_boot());
        let old = system.ssh_host_keys()[0].public_key().clone();
        assert_eq!(*system.ssh_host_keys()[0].public_key(), old);
        for sealed in ["", "uninitialized\n"] {
            system.files.put("/etc/machine-id", sealed, 0o444);
            assert!(system.first_boot());
            assert_eq!(system.machine_id().len(), 32);
        }
        system.files.remove("/etc/ssh/ssh_host_ed25519_key", false).unwrap();
        assert_ne!(*system.ssh_host_keys()[0].public_key(), old);
    }

    #[test]
    fn packages_bring_units() {
        let mut system = System::base(9, "9.4");
        system.install("@guest-agents");
        assert!(system.units["qemu-guest-agent.service"].enabled);
        system.start_enabled();
        assert!(system.is_active("qemu-guest-agent.service"));
        assert!(system.uninstall("qemu-guest-agent"));
        assert!(!system.is_active("qemu-guest-agent.service"));
    }
}
