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
/// The release notes of PVE 8.4 (virtiofs) and 9.1 (Intel TDX). Of the others it is known that no PVE 8 has them, so 9.0.
const SINCE: &[(&str, (u32, u32))] = &[
    ("virtiofs", (8, 4)),
    ("allow-ksm", (9, 0)),
    ("ha-managed", (9, 0)),
    ("intel-tdx", (9, 1)),
];

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

pub(super) fn since(option: &str) -> Option<(u32, u32)> {
    let name = option.trim_end_matches(|c: char| c.is_ascii_digit());
    SINCE
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, release)| *release)
}
