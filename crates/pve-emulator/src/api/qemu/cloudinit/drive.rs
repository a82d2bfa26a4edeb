//! The cloud-init drive itself: a small ISO 9660 volume that cloud-init's data source NoCloud finds by its label.
//!
//! # Source
//! `generate_nocloud` and `commit_cloudinit_disk` of PVE::QemuServer::Cloudinit: label `cidata`, Rock Ridge names, four files whose
//! sizes are at most 3 MiB together.

use std::io::Cursor;

use hadris_iso::read::PathSeparator;
use hadris_iso::rrip::RripOptions;
use hadris_iso::write::options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{InputEntry, InputTree, IsoImageWriter};

use super::{meta_data_of, network_data, user_data};
use crate::api::images;
use crate::api::qemu::drive::volid_of;
use crate::api::qemu::options::{is_cloudinit, parse};
use crate::state::{ConfigMap, Machine, World};

/// Most bytes of all files together.
const MAX_BYTES: usize = 3 << 20;
/// Bytes of a sector.
const SECTOR: usize = 2048;

/// The files of a drive.
#[derive(Debug, PartialEq, Eq)]
struct Documents {
    user: String,
    network: String,
    meta: String,
    vendor: String,
}

/// Makes the drive of a VM anew from its options, `true` if it has one. A running guest has the drive closed meanwhile.
///
/// # Errors
/// A text for the task: a snippet that is missing, a format that is not emulated, or the engine's complaint.
pub(in crate::api::qemu) async fn write(
    world: &World,
    node: &str,
    vmid: u32,
    machine: &Machine,
) -> Result<bool, String> {
    let config = &machine.config;
    let Some((slot, text)) = config.iter().find(|(_, text)| is_cloudinit(text)) else {
        return Ok(false);
    };
    let volid = volid_of(text).ok_or_else(|| format!("drive '{slot}' has no volume"))?;
    let documents = documents(world, node, vmid, config)?;
    let bytes = volume(&documents)?;
    let image = images::find(world, node, volid)?;
    let running = world.engine.status(vmid).is_some();
    if running {
        world.engine.change_medium(vmid, slot, None).await?;
    }
    world.engine.disks().fill(&image, &bytes).await?;
    if running {
        let medium = crate::api::qemu::power::medium(world, node, slot, text, volid)?;
        world.engine.change_medium(vmid, slot, Some(&medium)).await?;
    }
    Ok(true)
}

fn documents(world: &World, node: &str, vmid: u32, config: &ConfigMap) -> Result<Documents, String> {
    let windows = config.get("ostype").is_some_and(|os| os.starts_with('w'));
    let kind = config
        .get("citype")
        .map_or(if windows { "configdrive2" } else { "nocloud" }, String::as_str);
    if kind != "nocloud" {
        return Err(format!(
            "the cloud-init format '{kind}' is not emulated: set citype=nocloud, which Linux guests take"
        ));
    }
    let custom = match config.get("cicustom") {
        Some(text) => parse("cicustom", text).map_err(|f| f.message)?,
        None => crate::schema::PropertyString::default(),
    };
    let snippet = |part: &str| -> Result<Option<String>, String> {
        let Some(volid) = custom.get(part) else { return Ok(None) };
        let image = images::find(world, node, volid)?;
        let text = std::fs::read_to_string(&image.path).map_err(|e| format!("reading '{volid}': {e}"))?;
        Ok(Some(text))
    };
    let user = match snippet("user")? {
        Some(text) => text,
        None => user_data(config, vmid, true),
    };
    let network = match snippet("network")? {
        Some(text) => text,
        None => network_data(config),
    };
    let meta = match snippet("meta")? {
        Some(text) => text,
        None => meta_data_of(&user, &network, config),
    };
    let vendor = snippet("vendor")?.unwrap_or_default();
    if user.len() + network.len() + meta.len() + vendor.len() > MAX_BYTES {
        return Err("Cloud-Init sum of snippets too big (> 3 MiB)".into());
    }
    Ok(Documents {
        user,
        network,
        meta,
        vendor,
    })
}

/// The bytes of the volume.
fn volume(documents: &Documents) -> Result<Vec<u8>, String> {
    let file = |name: &str, text: &str| InputEntry::file(name, text.as_bytes().to_vec());
    let tree = InputTree::new(
        PathSeparator::ForwardSlash,
        vec![
            file("meta-data", &documents.meta),
            file("network-config", &documents.network),
            file("user-data", &documents.user),
            file("vendor-data", &documents.vendor),
        ],
    );
    let options = IsoFormatOptions {
        volume_name: "cidata".to_owned(),
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: None,
        sector_size: SECTOR,
        features: CreationFeatures {
            filenames: BaseIsoLevel::Level2 {
                supports_lowercase: false,
                supports_rrip: true,
            },
            rock_ridge: Some(RripOptions::default()),
            ..CreationFeatures::default()
        },
        path_separator: PathSeparator::ForwardSlash,
        strict_charset: false,
    };
    let image = IsoImageWriter::create(Cursor::new(Vec::new()), tree, options)
        .map_err(|e| format!("laying out the cloud-init drive: {e}"))?;
    let mut bytes = image.into_inner();
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stranger_reads_the_files_back() {
        let documents = Documents {
            user: "#cloud-config\nhostname: node-1\n".into(),
            network: "version: 1\nconfig:\n".into(),
            meta: "instance-id: 1\n".into(),
            vendor: String::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ci.iso");
        let bytes = volume(&documents).unwrap();
        assert_eq!(bytes.len() % SECTOR, 0);
        // cloud-init looks for `cidata` or `CIDATA`.
        assert_eq!(bytes[16 * SECTOR + 40..16 * SECTOR + 72].trim_ascii_end(), b"cidata");
        std::fs::write(&file, bytes).unwrap();
        let read = |name: &str| {
            let output = Command::new("isoinfo")
                .args(["-R", "-x", name, "-i"])
                .arg(&file)
                .output()
                .ok()?;
            assert!(output.status.success(), "{output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        };
        let Some(user) = read("/user-data") else {
            let required = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!required, "isoinfo is missing: apt-get install genisoimage");
            println!("SKIPPED: isoinfo is not installed");
            return;
        };
        assert_eq!(user, documents.user);
        assert_eq!(read("/network-config").unwrap(), documents.network);
        assert_eq!(read("/meta-data").unwrap(), documents.meta);
        assert_eq!(read("/vendor-data").unwrap(), "");
    }
}
