//! The formats PVE knows by name, with the sentences it prints.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{PropertyString, Schema};

/// The content types a storage can hold.
fn content_types() -> &'static [&'static str] {
    &[
        "images", "rootdir", "vztmpl", "iso", "backup", "snippets", "none", "import",
    ]
}

/// Checks `text` against a named format; the error ends in a newline, as Perl's `die` texts do.
///
/// Formats of calls that the emulator does not serve are not checked.
pub(super) fn check_named(schema: &Schema, name: &str, text: &str, path: &str) -> Result<(), String> {
    if let Some(structure) = schema.named(name) {
        if name == "pve-vm-cpu-conf" {
            return check_cpu(schema, text, path);
        }
        return PropertyString::parse(schema, structure, text, path).map(|_| ());
    }
    if let Some(item) = name.strip_suffix("-list") {
        return split_list(text).try_for_each(|part| check_single(item, part));
    }
    if let Some(item) = name.strip_suffix("-opt") {
        return if text.is_empty() {
            Ok(())
        } else {
            check_single(item, text)
        };
    }
    check_single(name, text)
}

/// PVE's list separators: commas, semicolons, white space and NUL.
fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ';', ' ', '\t', '\n', '\r', '\0'])
        .filter(|part| !part.is_empty())
}

fn check_single(name: &str, text: &str) -> Result<(), String> {
    let ok = |valid: bool, message: String| if valid { Ok(()) } else { Err(message) };
    match name {
        "pve-vmid" => ok(valid_vmid(text), "value does not look like a valid VM ID\n".into()),
        "pve-node" => ok(valid_node(text), "value does not look like a valid node name\n".into()),
        "pve-storage-id" => ok(
            valid_storage_id(text),
            format!("storage ID '{text}' contains illegal characters\n"),
        ),
        "pve-storage-content" => ok(
            content_types().contains(&text),
            format!("invalid content type '{text}'\n"),
        ),
        "dns-name" => ok(valid_dns(text), "value does not look like a valid DNS name\n".into()),
        "pve-configid" => ok(
            text.len() > 1
                && text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)),
            format!("invalid configuration ID '{text}'\n"),
        ),
        "pve-poolid" => ok(
            !text.is_empty()
                && text.split('/').count() <= 3
                && text
                    .split('/')
                    .all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))),
            format!("value '{text}' does not look like a valid pool name\n"),
        ),
        "pve-userid" => ok(
            text.len() <= 64
                && text.rsplit_once('@').is_some_and(|(user, realm)| {
                    !user.is_empty() && !user.contains([' ', ':', '/', '\t', '\n']) && realm.len() > 1
                }),
            format!("value '{text}' does not look like a valid user name\n"),
        ),
        "pve-roleid" | "pve-groupid" => ok(
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
            format!(
                "{} '{text}' contains invalid characters\n",
                if name == "pve-roleid" {
                    "role name"
                } else {
                    "group name"
                }
            ),
        ),
        "pve-tag" => ok(
            text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-+.".contains(c)),
            "invalid characters in tag\n".into(),
        ),
        "pve-bridge-id" => ok(
            !text.is_empty()
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)),
            format!("invalid bridge ID '{text}'\n"),
        ),
        "mac-addr" => ok(
            valid_mac(text),
            "value does not look like a valid unicast MAC address\n".into(),
        ),
        "pve-volume-id" => check_volid(text),
        "pve-volume-id-or-qm-path" => {
            if matches!(text, "none" | "cdrom") || text.starts_with('/') {
                Ok(())
            } else {
                check_volid(text)
            }
        }
        "pve-volume-id-or-absolute-path" => {
            if text.starts_with('/') {
                Ok(())
            } else {
                check_volid(text)
            }
        }
        "pve-qm-bootdev" => ok(valid_bootdev(text), format!("invalid boot device '{text}'\n")),
        "pve-task-status-type" => ok(
            matches!(text, "unknown" | "error" | "warning" | "ok"),
            format!("invalid status '{text}'\n"),
        ),
        "ipv4" | "ip" | "ipv6" | "address" => ok(
            match name {
                "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
                "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
                "ip" => text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok(),
                _ => text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() || valid_dns(text),
            },
            match name {
                "ipv4" => "value does not look like a valid IPv4 address\n".into(),
                "ipv6" => "value does not look like a valid IPv6 address\n".into(),
                "ip" => "value does not look like a valid IP address\n".into(),
                _ => format!("value does not look like a valid address: {text}\n"),
            },
        ),
        "pve-ipv4-config" => ok(
            text == "dhcp" || cidr(text).is_some_and(|(a, bits)| a.parse::<Ipv4Addr>().is_ok() && bits <= 32),
            "value does not look like a valid ipv4 network configuration\n".into(),
        ),
        "pve-ipv6-config" => ok(
            matches!(text, "dhcp" | "auto")
                || cidr(text).is_some_and(|(a, bits)| a.parse::<Ipv6Addr>().is_ok() && bits <= 128),
            "value does not look like a valid ipv6 network configuration\n".into(),
        ),
        "urlencoded" => ok(
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"%-_.!~*'()".contains(&b)),
            format!("invalid urlencoded string: {text}\n"),
        ),
        "pve-hotplug-features" => {
            if matches!(text, "0" | "1") {
                return Ok(());
            }
            split_list(text).try_for_each(|feature| {
                ok(
                    matches!(feature, "network" | "disk" | "cpu" | "memory" | "usb" | "cloudinit"),
                    format!("value does not look like a valid hotplug option: '{feature}'\n"),
                )
            })
        }
        "pve-startup-order" => split_list(text).try_for_each(|part| {
            let number = ["order=", "up=", "down="]
                .iter()
                .find_map(|p| part.strip_prefix(p))
                .unwrap_or(part);
            ok(
                number.parse::<u32>().is_ok(),
                "unable to parse startup options\n".into(),
            )
        }),
        _ => Ok(()),
    }
}

fn check_cpu(schema: &Schema, text: &str, path: &str) -> Result<(), String> {
    let structure = schema.named("pve-vm-cpu-conf").expect("present in formats.json");
    let parsed = PropertyString::parse(schema, structure, text, path)?;
    match parsed.get("cputype") {
        Some(cpu) if cpu.starts_with("custom-") || crate::api::cpu_models().contains(&cpu) => Ok(()),
        None => Ok(()),
        Some(cpu) => Err(format!(
            "Built-in cputype '{cpu}' is not defined (missing 'custom-' prefix?)\n"
        )),
    }
}

fn cidr(text: &str) -> Option<(&str, u32)> {
    let (address, bits) = text.split_once('/')?;
    Some((address, bits.parse().ok()?))
}

fn check_volid(text: &str) -> Result<(), String> {
    // `^([a-z][a-z0-9\-\_\.]*[a-z0-9]):(.+)$` without regard to case, where `.` is no line end.
    let fits = text
        .split_once(':')
        .is_some_and(|(storage, name)| valid_storage_id(storage) && !name.is_empty() && !name.contains('\n'));
    if fits {
        Ok(())
    } else {
        Err(format!("unable to parse volume ID '{text}'\n"))
    }
}

fn valid_storage_id(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn valid_vmid(text: &str) -> bool {
    (3..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')
}

fn valid_node(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn valid_dns(text: &str) -> bool {
    !text.is_empty()
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

/// Six hexadecimal pairs with the multicast bit clear.
pub(crate) fn valid_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
        && u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 0)
}

fn valid_bootdev(text: &str) -> bool {
    let family = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let Ok(index) = text[family.len()..].parse::<u32>() else {
        return false;
    };
    let count = match family {
        "scsi" => 31,
        "virtio" | "hostpci" => 16,
        "sata" => 6,
        "ide" => 4,
        "net" => 32,
        "usb" => 14,
        _ => 0,
    };
    index < count
}
