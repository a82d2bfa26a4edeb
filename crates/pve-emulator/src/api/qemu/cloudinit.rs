//! `/nodes/{node}/qemu/{vmid}/cloudinit`: what the drive tells the guest.

mod drive;

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use sha1::{Digest, Sha1};

use super::options::{indexed, is_cloudinit, parse};
use crate::api::{Call, Outcome, Routes};
use crate::state::{ConfigMap, Machine, World, typed};
use crate::wire::{Answer, Failure};

pub(super) use drive::write;

/// The options that `GET cloudinit` compares.
const OPTIONS: [&str; 8] = [
    "cicustom",
    "cipassword",
    "citype",
    "ciupgrade",
    "ciuser",
    "nameserver",
    "searchdomain",
    "sshkeys",
];

/// How a password is shown.
const HIDDEN: &str = "**********";

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /nodes/{node}/qemu/{vmid}/cloudinit", state);
    routes.add("PUT /nodes/{node}/qemu/{vmid}/cloudinit", regenerate);
    routes.add("GET /nodes/{node}/qemu/{vmid}/cloudinit/dump", dump);
}

/// The options that a drive is made from.
fn relevant(config: &ConfigMap) -> ConfigMap {
    let wanted = |key: &str| OPTIONS.contains(&key) || key == "name";
    config
        .iter()
        .filter(|(k, _)| wanted(k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Whether the VM has a cloud-init drive.
pub(super) fn has_drive(config: &ConfigMap) -> bool {
    config.values().any(|text| is_cloudinit(text))
}

/// Notes what the drive of a starting VM was made from.
pub(super) fn generated(world: &World, vmid: u32) {
    world.change_machine(vmid, |machine| {
        machine.cloudinit = has_drive(&machine.config).then(|| relevant(&machine.config));
    });
}

async fn state(call: Call) -> Outcome {
    let machine = call.machine()?;
    let now = relevant(&machine.effective());
    let drive = machine.cloudinit.as_ref().unwrap_or(&now);
    let mut list: Vec<Value> = Vec::new();
    let shown = |key: &str, text: &str| {
        if key == "cipassword" {
            HIDDEN.into()
        } else {
            typed(key, text)
        }
    };
    for key in OPTIONS {
        let mut entry = Map::new();
        // `0` counts as not set: that is how Perl asks (recorded for ciupgrade).
        let (old, new) = (drive.get(key).filter(|v| *v != "0"), now.get(key).filter(|v| *v != "0"));
        if old.is_none() && new.is_none() {
            continue;
        }
        entry.insert("key".into(), key.into());
        if let Some(old) = old {
            entry.insert("value".into(), shown(key, old));
        }
        match new {
            Some(new) if old != Some(new) => {
                entry.insert("pending".into(), shown(key, new));
            }
            None => {
                entry.insert("delete".into(), 1.into());
            }
            Some(_) => {}
        }
        list.push(entry.into());
    }
    Ok(Value::from(list).into())
}

async fn regenerate(call: Call) -> Outcome {
    let machine = call.machine()?;
    let (node, vmid) = (call.node(), call.vmid());
    write(&call.world, &node, vmid, &machine).await.map_err(Failure::die)?;
    if call.world.engine.status(vmid).is_some() {
        generated(&call.world, vmid);
    }
    Ok(Answer::null())
}

async fn dump(call: Call) -> Outcome {
    let machine = call.machine()?;
    let config = machine.effective();
    let text = match call.params.required("type")?.as_str() {
        "user" => {
            let path = format!("/vms/{}", call.vmid());
            let may_see = call.world.access().has(&call.who, &path, "VM.Config.Cloudinit");
            user_data(&config, call.vmid(), may_see)
        }
        "network" => network_data(&config),
        _ => meta_data(&config, call.vmid(), &machine),
    };
    Ok(text.into())
}

fn user_data(config: &ConfigMap, vmid: u32, show_password: bool) -> String {
    let name = config.get("name").cloned().unwrap_or_else(|| format!("VM{vmid}"));
    let host = name.split('.').next().unwrap_or(&name);
    let mut text = format!("#cloud-config\nhostname: {host}\nmanage_etc_hosts: true\n");
    match config.get("searchdomain") {
        Some(domain) if !name.contains('.') => {
            let _ = writeln!(text, "fqdn: {name}.{domain}");
        }
        _ if name.contains('.') => {
            let _ = writeln!(text, "fqdn: {name}");
        }
        _ => {}
    }
    if let Some(user) = config.get("ciuser") {
        let _ = writeln!(text, "user: {user}");
        // Else cloud-init's own default would put a refusal in front of root's keys.
        if user == "root" {
            text.push_str("disable_root: False\n");
        }
    }
    if let Some(password) = config.get("cipassword") {
        let password = if show_password { password } else { HIDDEN };
        let _ = writeln!(text, "password: {password}");
    }
    if let Some(keys) = config.get("sshkeys") {
        text.push_str("ssh_authorized_keys:\n");
        let keys = percent_decode_str(keys).decode_utf8_lossy().into_owned();
        for key in keys.lines().filter(|k| !k.trim().is_empty()) {
            let _ = writeln!(text, "  - {key}");
        }
    }
    text.push_str("chpasswd:\n  expire: False\n");
    if config.get("ciuser").is_none_or(|u| u != "root") {
        text.push_str("users:\n  - default\n");
    }
    if config.get("ciupgrade").is_none_or(|u| u == "1") {
        text.push_str("package_upgrade: true\n");
    }
    text
}

fn network_data(config: &ConfigMap) -> String {
    let mut text = String::from("version: 1\nconfig:\n");
    let mut nets: Vec<(u32, &String)> = config
        .iter()
        .filter_map(|(k, v)| indexed(k).filter(|(family, _)| *family == "net").map(|(_, i)| (i, v)))
        .collect();
    nets.sort();
    for (index, net) in nets {
        let Some(ip) = config.get(&format!("ipconfig{index}")) else {
            continue;
        };
        let Ok(ip) = parse(&format!("ipconfig{index}"), ip) else {
            continue;
        };
        let mac = net
            .split(',')
            .next()
            .and_then(|m| m.split_once('='))
            .map_or("", |(_, m)| m)
            .to_lowercase();
        let _ = writeln!(
            text,
            "    - type: physical\n      name: eth{index}\n      mac_address: '{mac}'\n      subnets:"
        );
        match ip.get("ip") {
            Some("dhcp") => text.push_str("      - type: dhcp4\n"),
            Some(cidr) => {
                let (address, bits) = cidr.split_once('/').unwrap_or((cidr, "32"));
                let bits: u32 = bits.parse().unwrap_or(32).min(32);
                let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0));
                let _ = writeln!(
                    text,
                    "      - type: static\n        address: '{address}'\n        netmask: '{mask}'"
                );
                if let Some(gateway) = ip.get("gw") {
                    let _ = writeln!(text, "        gateway: '{gateway}'");
                }
            }
            None => {}
        }
        match ip.get("ip6") {
            Some("auto") => text.push_str("      - type: ipv6_slaac\n"),
            Some("dhcp") => text.push_str("      - type: dhcp6\n"),
            Some(cidr) => {
                let _ = writeln!(text, "      - type: static6\n        address: '{cidr}'");
                if let Some(gateway) = ip.get("gw6") {
                    let _ = writeln!(text, "        gateway: '{gateway}'");
                }
            }
            None => {}
        }
    }
    let names = |key: &str| -> Vec<String> {
        let text = config.get(key).map(String::as_str).unwrap_or_default();
        text.split([' ', ',', ';'])
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (servers, domains) = (names("nameserver"), names("searchdomain"));
    if !servers.is_empty() || !domains.is_empty() {
        text.push_str("    - type: nameserver\n");
        for (title, list) in [("address", servers), ("search", domains)] {
            if !list.is_empty() {
                let _ = writeln!(text, "      {title}:");
                for item in list {
                    let _ = writeln!(text, "      - '{item}'");
                }
            }
        }
    }
    text
}

/// The instance changes its id when what it is told changes.
fn meta_data(config: &ConfigMap, vmid: u32, machine: &Machine) -> String {
    meta_data_of(&user_data(config, vmid, true), &network_data(config), &machine.config)
}

fn meta_data_of(user: &str, network: &str, config: &ConfigMap) -> String {
    let mut digest = Sha1::new();
    digest.update(user);
    digest.update(network);
    digest.update(config.get("vmgenid").map(String::as_str).unwrap_or_default());
    format!("instance-id: {}\n", hex::encode(digest.finalize()))
}

/// Checks the text of the option `sshkeys`, which is percent-encoded.
pub(super) fn check_keys(text: &str) -> Result<(), Failure> {
    let decoded = percent_decode_str(text).decode_utf8_lossy().into_owned();
    let known = |line: &str| {
        let kind = line
            .split_whitespace()
            .find(|w| w.starts_with("ssh-") || w.starts_with("ecdsa-") || w.starts_with("sk-"));
        kind.is_some() && line.split_whitespace().any(|w| w.starts_with("AAAA"))
    };
    let mut lines = decoded
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    if lines.all(known) {
        Ok(())
    } else {
        Err(Failure::die("SSH public key validation error"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_data_speaks_version_1() {
        let config = ConfigMap::from([
            ("net0".to_owned(), "virtio=BC:24:11:00:06:00,bridge=vmbr0".to_owned()),
            ("ipconfig0".to_owned(), "ip=192.0.2.50/24,gw=192.0.2.1".to_owned()),
        ]);
        assert_eq!(
            network_data(&config),
            "version: 1\nconfig:\n    - type: physical\n      name: eth0\n      mac_address: 'bc:24:11:00:06:00'\n      \
             subnets:\n      - type: static\n        address: '192.0.2.50'\n        netmask: '255.255.255.0'\n        \
             gateway: '192.0.2.1'\n"
        );
    }

    #[test]
    fn keys_are_looked_at() {
        assert!(check_keys("ssh-ed25519%20AAAAC3%20a%40b%0A").is_ok());
        assert!(check_keys("not%20a%20key").is_err());
    }
}
