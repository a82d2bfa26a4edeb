//! Options of a VM: their names, their values, and which server knows them.

use std::collections::BTreeMap;

use crate::{
    error::Error,
    types::{property::drive::Drive, tags::normalise_tags, vm_config::is_drive_slot},
};

/// The most characters that PVE takes as a description (`FACTS` 31).
pub const DESCRIPTION_MAX: usize = 8192;

/// The least memory of a VM in MiB (`minimum` of the API schema).
const MEMORY_MIN_MIB: u64 = 16;

/// Options that only a newer server knows: name without its number, and the least release that can know it. An older one would
/// refuse the whole request with `property is not defined in schema`.
///
/// # Source
/// The dumps that PVE makes of its own API, `api-viewer/apidata.js` of pve-docs: that of 8.3 (commit `cc9dad4f0132`) has no
/// `virtiofs`, that of 8.4 (commit `5ba4beea554c`) has it, and none of the others. 9.2 has all (`pve/api-schema.json`). Which
/// of 9.0 and 9.1 brought each is not known: such a server says by itself what it lacks.
const SINCE: &[(&str, (u32, u32))] = &[
    ("virtiofs", (8, 4)),
    ("allow-ksm", (9, 0)),
    ("ha-managed", (9, 0)),
    ("intel-tdx", (9, 0)),
];

/// As [`SINCE`], for a key of an option that is a property string.
const KEYS_SINCE: &[(&[&str], &str, (u32, u32))] = &[
    (&["efidisk"], "ms-cert", (9, 0)),
    (&["agent"], "freeze-fs", (9, 0)),
    (&["agent"], "guest-fsfreeze", (9, 0)),
];

/// Keys that 8.4 takes and 9.2 does not: the geometry of a disk. From the same dumps as [`SINCE`].
const KEYS_GONE: &[(&[&str], &str, (u32, u32))] = &[
    (DISKS, "cyls", (9, 2)),
    (DISKS, "heads", (9, 2)),
    (DISKS, "secs", (9, 2)),
    (DISKS, "trans", (9, 2)),
];

const DISKS: &[&str] = &["ide", "sata", "scsi", "virtio"];

/// Which servers know an option, or a key in its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The option or `option: key` needs at least this release.
    Since(String, (u32, u32)),
    /// A server of this release or later no longer takes it.
    Gone(String, (u32, u32)),
}

pub(super) fn checked_options(
    options: &BTreeMap<String, String>,
    reserved: &[&str],
) -> Result<Vec<(String, String)>, Error> {
    let mut params = Vec::new();
    for (option, value) in options {
        check_option_name(option)?;
        if reserved.contains(&option.as_str()) {
            return Err(Error::invalid(
                option,
                "it is not an option of the VM; there is a method of its own for it",
            ));
        }
        params.push((option.clone(), checked_value(option, value)?));
    }
    Ok(params)
}

pub(super) fn check_option_name(option: &str) -> Result<(), Error> {
    let first_ok = option.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !first_ok
        || option.len() < 2
        || !option
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    {
        return Err(Error::invalid(
            "option",
            format!("{option:?} is not the name of a VM option such as scsi0 or memory"),
        ));
    }
    Ok(())
}

fn checked_value(option: &str, value: &str) -> Result<String, Error> {
    match option {
        "tags" => return normalise_tags(value.split([';', ',']).filter(|tag| !tag.trim().is_empty())),
        "name" => check_dns_name(value)?,
        "description" => check_description(value)?,
        "cores" | "sockets" if value == "0" => return Err(Error::invalid(option, "a VM has at least one")),
        "memory" if value.parse().is_ok_and(|mib: u64| mib < MEMORY_MIN_MIB) => {
            return Err(Error::invalid(
                option,
                format!("{value} MiB are too little: PVE takes {MEMORY_MIN_MIB} and more"),
            ));
        }
        "smbios1" if value.len() > 512 => {
            return Err(Error::invalid(
                option,
                format!("{} characters are too long: PVE takes at most 512", value.len()),
            ));
        }
        slot if is_drive_slot(slot) => {
            value
                .parse::<Drive>()
                .map_err(|error| Error::invalid(option, error.to_string()))?;
        }
        _ => {}
    }
    // A description and cloud-init keys may have lines; elsewhere a line break would start a new option in PVE's file.
    let lines_allowed = matches!(option, "description" | "sshkeys");
    if value
        .chars()
        .any(|c| c.is_control() && !(lines_allowed && matches!(c, '\n' | '\t' | '\r')))
    {
        return Err(Error::invalid(option, "it holds control characters"));
    }
    Ok(value.to_owned())
}

pub(super) fn check_description(description: &str) -> Result<(), Error> {
    let length = description.chars().count();
    if length > DESCRIPTION_MAX {
        return Err(Error::invalid(
            "description",
            format!("{length} characters are too long: PVE takes at most {DESCRIPTION_MAX}"),
        ));
    }
    Ok(())
}

/// Format `dns-name` of the API schema.
pub(super) fn check_dns_name(name: &str) -> Result<(), Error> {
    let label_ok = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= 63
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    if name.split('.').all(label_ok) {
        Ok(())
    } else {
        Err(Error::invalid(
            "name",
            format!("{name:?} is not a DNS name: letters, digits and `-`, labels divided by dots"),
        ))
    }
}

/// What limits the servers that an option with this value can be sent to.
pub(super) fn bounds(option: &str, value: &str) -> Vec<Bound> {
    let name = option.trim_end_matches(|c: char| c.is_ascii_digit());
    let mut bounds = Vec::new();
    if let Some((_, release)) = SINCE.iter().find(|(known, _)| *known == name) {
        bounds.push(Bound::Since(option.to_owned(), *release));
    }
    for (key, _) in value.split(',').filter_map(|part| part.split_once('=')) {
        let of = |table: &[(&[&str], &str, (u32, u32))]| {
            let found = table
                .iter()
                .find(|(names, known, _)| names.contains(&name) && *known == key);
            found.map(|(_, _, release)| *release)
        };
        let what = || format!("{option}: {key}");
        bounds.extend(of(KEYS_SINCE).map(|release| Bound::Since(what(), release)));
        bounds.extend(of(KEYS_GONE).map(|release| Bound::Gone(what(), release)));
    }
    bounds
}
