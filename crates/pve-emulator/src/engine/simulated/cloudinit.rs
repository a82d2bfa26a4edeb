//! cloud-init at the boot of a simulated system: the data source NoCloud as Proxmox VE writes it, and what its usual settings do.
//!
//! Only what a drive of Proxmox VE says is carried out; a setting beyond that is named on the console and left out.
//!
//! # Source
//! cloud-init's documentation: NoCloud finds a volume labelled `cidata`; per-instance modules run once an instance id;
//! `ssh_deletekeys` is on unless a configuration says otherwise; `hostname`, `user`, `password`, `ssh_authorized_keys`; network
//! configuration version 1.

use std::path::PathBuf;

use super::iso::Iso;
use super::system::System;

/// Where the id of the instance is kept.
const INSTANCE: &str = "/var/lib/cloud/data/instance-id";
/// The user of EL's `cloud.cfg` when none is named.
const DEFAULT_USER: &str = "cloud-user";
/// Settings that are right as they are here.
const WITHOUT_EFFECT: [&str; 8] = [
    "manage_etc_hosts",
    "chpasswd",
    "expire",
    "users",
    "package_upgrade",
    "disable_root",
    "- default",
    "#cloud-config",
];

/// The documents of a drive.
#[derive(Debug, Default)]
struct Documents {
    user: String,
    meta: String,
    network: String,
}

/// Runs cloud-init if the system has it and there is a drive for it. Lines for the console.
pub(super) fn run(system: &mut System, media: &[PathBuf]) -> Vec<String> {
    let enabled = |unit: &str| system.units.get(unit).is_some_and(|unit| unit.enabled && !unit.masked);
    if !enabled("cloud-init.service") {
        return Vec::new();
    }
    let Some(documents) = find(media) else {
        return vec!["cloud-init: no data source found".to_owned()];
    };
    let id = value(&documents.meta, "instance-id").unwrap_or_default();
    if system.files.text(INSTANCE).trim() == id {
        return Vec::new();
    }
    let lines = new_instance(system, &documents);
    system.files.put(INSTANCE, format!("{id}\n"), 0o644);
    lines
}

fn find(media: &[PathBuf]) -> Option<Documents> {
    let mut open = media.iter().filter_map(|path| Iso::open(path).ok());
    let mut iso = open.find(|iso| iso.label().eq_ignore_ascii_case("cidata"))?;
    let mut read = |name: &str| {
        let bytes = iso.read(name).ok().flatten().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Some(Documents {
        user: read("/user-data"),
        meta: read("/meta-data"),
        network: read("/network-config"),
    })
}

/// The value of a key at the top level.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(':')?.trim();
        (!value.is_empty()).then(|| value.trim_matches(['"', '\'']).to_owned())
    })
}

/// The entries of a list at the top level.
fn list(text: &str, key: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| *line != format!("{key}:"));
    lines.next();
    lines
        .map_while(|line| line.trim_start().strip_prefix("- ").filter(|_| line.starts_with(' ')))
        .map(|entry| entry.trim().to_owned())
        .collect()
}

fn new_instance(system: &mut System, documents: &Documents) -> Vec<String> {
    let mut lines = Vec::new();
    let user_data = &documents.user;
    if let Some(name) = value(user_data, "fqdn").or_else(|| value(user_data, "hostname")) {
        system.files.put("/etc/hostname", format!("{name}\n"), 0o644);
    }
    if deletes_host_keys(system) {
        for path in system.files.glob("/etc/ssh/ssh_host_*") {
            // Listed a moment ago.
            let _ = system.files.remove(&path, false);
        }
    }
    let user = value(user_data, "user").unwrap_or_else(|| DEFAULT_USER.to_owned());
    let keys = list(user_data, "ssh_authorized_keys");
    if system.user(&user).is_none() {
        system.add_user(&user, &["wheel"], "/bin/bash");
        let rule = format!("{user} ALL=(ALL) NOPASSWD:ALL\n");
        system.files.put("/etc/sudoers.d/90-cloud-init-users", rule, 0o440);
    }
    for key in &keys {
        system.authorise_key(&user, key);
    }
    if let Some(hash) = value(user_data, "password").filter(|hash| hash.starts_with('$')) {
        system.set_password_hash(&user, &hash);
    }
    if let Some(profile) = static_address(&documents.network) {
        let path = "/etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection";
        system.files.put(path, profile, 0o600);
    }
    let known = ["hostname", "fqdn", "user", "password", "ssh_authorized_keys"];
    let strangers = user_data.lines().filter(|line| {
        let key = line.trim();
        !key.is_empty()
            && !keys.iter().any(|known| key.ends_with(known.as_str()))
            && !known.iter().chain(&WITHOUT_EFFECT).any(|known| key.starts_with(known))
    });
    lines.extend(strangers.map(|line| format!("cloud-init: not simulated: {}", line.trim())));
    lines.push(format!("cloud-init: authorised {} keys for {user}", keys.len()));
    lines
}

/// What `cloud.cfg` and the files beside it say of old host keys; the last one counts.
fn deletes_host_keys(system: &System) -> bool {
    let mut files = vec!["/etc/cloud/cloud.cfg".to_owned()];
    files.extend(system.files.glob("/etc/cloud/cloud.cfg.d/*.cfg"));
    let said = files
        .iter()
        .filter_map(|file| value(&system.files.text(file), "ssh_deletekeys"))
        .next_back();
    !matches!(said.as_deref(), Some("0" | "false" | "False" | "no"))
}

/// A NetworkManager profile for the first static address of a network configuration.
fn static_address(network: &str) -> Option<String> {
    let field = |name: &str| {
        let line = network
            .lines()
            .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().trim_matches('\'').to_owned())
    };
    if !network.contains("type: static\n") {
        return None;
    }
    let address = field("address")?;
    let mask: std::net::Ipv4Addr = field("netmask")?.parse().ok()?;
    let bits = u32::from(mask).count_ones();
    let gateway = field("gateway")
        .map(|gateway| format!(",{gateway}"))
        .unwrap_or_default();
    Some(format!(
        "[connection]\nid=cloud-init eth0\ntype=ethernet\n\n[ipv4]\nmethod=manual\naddress1={address}/{bits}{gateway}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "#cloud-config\nhostname: node-1\nmanage_etc_hosts: true\nuser: root\ndisable_root: False\nssh_authorized_keys:\n  - ssh-ed25519 AAAA one\n  - ssh-ed25519 BBBB two\nchpasswd:\n  expire: False\n";

    fn documents() -> Documents {
        Documents {
            user: USER.to_owned(),
            meta: "instance-id: 1\n".to_owned(),
            network: "version: 1\nconfig:\n    - type: physical\n      name: eth0\n      subnets:\n      - type: static\n        address: '127.64.3.3'\n        netmask: '255.192.0.0'\n".to_owned(),
        }
    }

    #[test]
    fn a_new_instance_gets_name_keys_and_address() {
        let mut system = System::base(9, "9.3");
        system.files.put("/etc/ssh/ssh_host_ed25519_key", "old", 0o600);
        let lines = new_instance(&mut system, &documents());
        assert_eq!(lines, ["cloud-init: authorised 2 keys for root"]);
        assert_eq!(system.hostname(), "node-1");
        assert_eq!(
            system.files.text("/root/.ssh/authorized_keys"),
            "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
        );
        assert!(!system.files.exists("/etc/ssh/ssh_host_ed25519_key"));
        assert_eq!(system.fixed_address(), Some("127.64.3.3".parse().unwrap()));
    }

    #[test]
    fn host_keys_stay_where_a_configuration_says_so() {
        let mut system = System::base(9, "9.3");
        system.files.put("/etc/ssh/ssh_host_ed25519_key", "old", 0o600);
        system
            .files
            .put("/etc/cloud/cloud.cfg.d/99-keys.cfg", "ssh_deletekeys: false\n", 0o644);
        let mut with_more = documents();
        with_more.user.push_str("runcmd:\n  - touch /x\n");
        let lines = new_instance(&mut system, &with_more);
        assert!(system.files.exists("/etc/ssh/ssh_host_ed25519_key"));
        assert_eq!(lines[0], "cloud-init: not simulated: runcmd:");
    }
}
