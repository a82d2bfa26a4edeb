//! `VerifySpec`: which template to verify, and how.

use std::time::Duration;

use proxmox_client::{PoolId, StorageId};

use crate::diagnostic::{Diagnostic, Diagnostics};

/// How long a clone may take from its start to an SSH login.
const BOOT_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long k3s may take from the login until its unit is active.
const K3S_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Limit of one task: a full clone copies the disk.
const TASK_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Limit of the removal of the clones.
const UNDO_LIMIT: Duration = Duration::from_secs(5 * 60);

/// What to verify, and how. [`VerifySpec::new`] has the defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifySpec {
    /// Name or vmid of the template.
    pub template: String,
    /// Storage for the small ISO that tells the second clone to join.
    pub iso_storage: StorageId,
    /// Copies the disks instead of cloning them linked.
    pub full: bool,
    /// Where the disks of full clones go; the template's own storages without it.
    pub storage: Option<StorageId>,
    /// Pool that the clones join.
    pub pool: Option<PoolId>,
    /// `ipconfig0` of the two clones (`ip=10.0.0.5/24,gw=10.0.0.1`), for networks without DHCP. Without it that of the
    /// template, else `ip=dhcp`.
    pub ip_configs: Option<[String; 2]>,
    /// Port of the clones' SSH server.
    pub ssh_port: u16,
    /// The limits of waiting.
    pub timeouts: VerifyTimeouts,
}

/// How long a verification waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyTimeouts {
    /// From the start of a clone to the login.
    pub boot: Duration,
    /// From the login until the k3s unit is active.
    pub k3s: Duration,
    /// One task of PVE.
    pub task: Duration,
    /// The removal of the clones.
    pub undo: Duration,
}

impl Default for VerifyTimeouts {
    fn default() -> Self {
        Self {
            boot: BOOT_LIMIT,
            k3s: K3S_LIMIT,
            task: TASK_LIMIT,
            undo: UNDO_LIMIT,
        }
    }
}

impl VerifySpec {
    /// The template of this name or vmid, with linked clones, addresses by DHCP, and the ISO on the storage `local`.
    ///
    /// # Panics
    /// Never: the storage's name is a constant that a test checks.
    pub fn new(template: impl Into<String>) -> Self {
        Self {
            template: template.into(),
            iso_storage: crate::preset::ISO_STORAGE
                .parse()
                .expect("a constant that a test checks"),
            full: false,
            storage: None,
            pool: None,
            ip_configs: None,
            ssh_port: 22,
            timeouts: VerifyTimeouts::default(),
        }
    }

    /// What is wrong with it, before anything is asked of a cluster.
    pub(crate) fn check(&self) -> Result<(), Diagnostics> {
        let mut found = Diagnostics::new();
        if self.template.trim().is_empty() {
            found.push(Diagnostic::error("template", "is empty").help("give the name or the vmid of a template"));
        }
        if self.storage.is_some() && !self.full {
            found.push(
                Diagnostic::error("storage", "is for full clones; linked ones lie with the template")
                    .help("set full too"),
            );
        }
        if self.ssh_port == 0 {
            found.push(Diagnostic::error("ssh_port", "is 0, where no server listens").help("give 1 to 65535"));
        }
        for config in self.ip_configs.iter().flatten() {
            if let Some(reason) = ip_config_fault(config) {
                found.push(
                    Diagnostic::error("ip_configs", format!("{config:?} {reason}"))
                        .help("write ip=dhcp, or ip=192.0.2.9/24,gw=192.0.2.1"),
                );
            }
        }
        if let Some([first, second]) = &self.ip_configs {
            let address = |config: &str| address_of(config).map(str::to_owned);
            if let (Some(a), Some(b)) = (address(first), address(second))
                && a == b
                && a != "dhcp"
            {
                found.push(
                    Diagnostic::error("ip_configs", format!("gives both clones the address {a}"))
                        .help("give each one of its own"),
                );
            }
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

/// Why a text is no `ipconfigN`.
///
/// # Source
/// `ipconfig[n]` in the API schema.
fn ip_config_fault(config: &str) -> Option<&'static str> {
    const KEYS: [&str; 4] = ["ip", "gw", "ip6", "gw6"];
    let fits = |c: char| c.is_ascii_hexdigit() || ".:/".contains(c);
    if config.is_empty() {
        return Some("is empty");
    }
    let mut seen = Vec::new();
    for field in config.split(',') {
        let Some((key, value)) = field.split_once('=').map(|(key, value)| (key.trim(), value)) else {
            return Some("is no list of KEY=VALUE");
        };
        if !KEYS.contains(&key) || seen.contains(&key) {
            return Some("has another key than ip, gw, ip6 and gw6, or one twice");
        }
        if !matches!(value, "dhcp" | "auto") && (value.is_empty() || !value.chars().all(fits)) {
            return Some("holds a value that is no address");
        }
        seen.push(key);
    }
    None
}

/// The IPv4 address of an `ipconfigN` text, without its mask; `dhcp` when it says so.
pub(super) fn address_of(ip_config: &str) -> Option<&str> {
    let value = ip_config
        .split(',')
        .find_map(|field| field.trim().strip_prefix("ip="))?;
    value.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_checked_as_a_whole() {
        VerifySpec::new("alma9").check().unwrap();
        let mut spec = VerifySpec::new(" ");
        spec.storage = Some("local-lvm".parse().unwrap());
        spec.ssh_port = 0;
        spec.ip_configs = Some(["ip=10.0.0.5/24", "gw=10.0.0.1,ip=10.0.0.5/16"].map(str::to_owned));
        assert_eq!(spec.check().unwrap_err().iter().count(), 4);
        spec = VerifySpec::new("9000");
        for good in [
            "ip=dhcp",
            "ip=192.0.2.9/24,gw=192.0.2.1",
            "ip6=auto",
            "ip6=2001:db8::9/64,gw6=2001:db8::1",
        ] {
            spec.ip_configs = Some([good.to_owned(), good.replace("2.9", "2.8").replace("::9", "::8")]);
            spec.check().unwrap();
        }
        for bad in [
            "",
            "dhcp",
            "ip=dhcp\nciuser: root",
            "ip=dhcp,user=x",
            "ip=dhcp,ip=dhcp",
            "ip=$(id)",
            "ip=",
        ] {
            spec.ip_configs = Some([bad.to_owned(), "ip=dhcp".to_owned()]);
            let found = spec.check().expect_err(bad);
            assert!(found.to_string().contains("ip_configs"), "{found}");
        }
    }
}
