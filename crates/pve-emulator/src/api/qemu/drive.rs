//! Drives: from what a call asks for to a volume on a storage.

use std::sync::Arc;

use super::options::{is_cdrom, is_cloudinit, parse};
use crate::api::{Call, images};
use crate::schema::PropertyString;
use crate::state::{ConfigMap, StorageKind, StorageSpec, Storages, World, parse_volume_name, size_text};
use crate::tasks::Worker;
use crate::wire::Failure;

/// EFI variables of OVMF: 4 MiB flash parts have this much, the old 2 MiB ones 128 KiB (recorded: 528K).
const EFI_4M: u64 = 540_672;
const EFI_2M: u64 = 131_072;
/// State of an emulated TPM.
const TPM_STATE: u64 = 4 << 20;
/// A cloud-init drive.
const CLOUDINIT: u64 = 4 << 20;
/// What a fresh one takes on a file system (recorded).
pub(super) const CLOUDINIT_USED: u64 = 266_240;
/// ext4 with 4 KiB blocks ends here; above it qemu-img fails.
pub(crate) const MAX_SIZE: u64 = 16 << 40;
/// LVM gives whole extents.
const EXTENT: u64 = 4 << 20;

/// What a drive option asks for.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    /// `STORAGE:SIZE`: a new disk.
    New {
        storage: String,
        size_bytes: u64,
        parts: PropertyString,
    },
    /// `STORAGE:cloudinit`.
    CloudInit { storage: String, parts: PropertyString },
    /// A volume that exists, or should.
    Existing { volid: String, parts: PropertyString },
    /// `none` or `cdrom`.
    Empty { parts: PropertyString },
}

/// Reads a drive option.
pub(super) fn plan(key: &str, text: &str) -> Result<Plan, Failure> {
    let mut parts = parse(key, text)?;
    let file = parts.get("file").unwrap_or_default().to_owned();
    if matches!(file.as_str(), "none" | "cdrom") {
        return Ok(Plan::Empty { parts });
    }
    let Some((storage, rest)) = file.split_once(':') else {
        return Err(Failure::die(format!("unable to parse volume ID '{file}'")));
    };
    let storage = storage.to_owned();
    if rest == "cloudinit" {
        return Ok(Plan::CloudInit { storage, parts });
    }
    let number = !rest.is_empty()
        && rest.split('.').count() <= 2
        && rest
            .split('.')
            .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    if number {
        let gib: f64 = rest.parse().unwrap_or_default();
        // PVE counts in whole KiB.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "sizes are positive; too large ones saturate and fail later"
        )]
        let size_bytes = ((gib * 1024.0 * 1024.0) as u64).saturating_mul(1024);
        // What the caller says of the size means nothing for a new disk (FACTS 34).
        parts.remove("size");
        if parts.get("import-from").is_some() && size_bytes > 0 {
            return Err(import_syntax(key));
        }
        return Ok(Plan::New {
            storage,
            size_bytes,
            parts,
        });
    }
    if parts.get("import-from").is_some() {
        return Err(import_syntax(key));
    }
    Ok(Plan::Existing { volid: file, parts })
}

fn import_syntax(key: &str) -> Failure {
    Failure::param(
        key,
        "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>",
    )
}

/// Checks storages and the caller's rights on them (`check_storage_access`).
pub(super) fn check_access(call: &Call, vmid: u32, key: &str, text: &str, plan: &Plan) -> Result<(), Failure> {
    let world = &call.world;
    match plan {
        Plan::Empty { parts } => {
            if parts.get("file") == Some("cdrom") {
                world.access().require(&call.who, "/", &["Sys.Console"])?;
            }
            Ok(())
        }
        Plan::New { storage, parts, .. } | Plan::CloudInit { storage, parts } => {
            world
                .access()
                .require(&call.who, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
            let spec = world.storages().spec(storage).cloned().map_err(Failure::die)?;
            if !spec.holds("images") {
                return Err(Failure::param(
                    "storage",
                    format!("storage '{storage}' does not support vm images"),
                ));
            }
            if let Some(source) = parts.get("import-from") {
                check_import(call, key, source)?;
            }
            Ok(())
        }
        Plan::Existing { volid, .. } => {
            let (storage, name) = volid.split_once(':').unwrap_or_default();
            let spec = world.storages().spec(storage).cloned().map_err(Failure::die)?;
            let (own, _) = parse_volume_name(spec.kind, name).map_err(Failure::die)?;
            let access = world.access();
            let path = format!("/storage/{storage}");
            if access.has(&call.who, &path, "Datastore.Allocate") {
                return Ok(());
            }
            let owner = owner_of(&own);
            if owner == Some(vmid) {
                // One's own disk: the privilege on the VM's disks decides.
                return Ok(());
            }
            match owner {
                Some(other) => access.require(&call.who, &format!("/vms/{other}"), &["VM.Config.Disk"]),
                None if is_cdrom(text) || own.starts_with("iso/") => {
                    access.require_any(&call.who, &path, &["Datastore.Audit", "Datastore.AllocateSpace"])
                }
                None => access.require(&call.who, &path, &["Datastore.AllocateSpace"]),
            }
        }
    }
}

fn check_import(call: &Call, key: &str, source: &str) -> Result<(), Failure> {
    if source.starts_with('/') {
        let text = "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651.";
        return Err(Failure::die(text));
    }
    let (storage, name) = source.split_once(':').unwrap_or_default();
    // The rights before the storages, as everywhere.
    let access = call.world.access();
    let storages = call.world.storages();
    let spec = storages.spec(storage).map_err(Failure::die)?;
    let (own, _) = parse_volume_name(spec.kind, name).map_err(Failure::die)?;
    if owner_of(&own).is_none() {
        let path = format!("/storage/{storage}");
        access.require_any(&call.who, &path, &["Datastore.Audit", "Datastore.AllocateSpace"])?;
    }
    // A volume that is not there fails later, in the task.
    let Some((_, volume)) = storages.find(&call.node(), source) else {
        return Ok(());
    };
    if !matches!(volume.content.as_str(), "images" | "import") {
        let text = format!(
            "{source} has wrong type '{}' - needs to be 'images' or 'import'",
            volume.content
        );
        return Err(Failure::param(key, text));
    }
    Ok(())
}

/// Size of an image to import as a guest sees it: a qcow2 file says so in its header.
pub(crate) fn virtual_size(file: &std::path::Path, volume: &crate::state::Volume) -> u64 {
    use std::io::Read as _;
    if volume.content == "images" || volume.format != "qcow2" {
        return volume.size_bytes;
    }
    let mut header = [0; 32];
    let read = std::fs::File::open(file).and_then(|mut f| f.read_exact(&mut header));
    match (read, header) {
        (Ok(()), [b'Q', b'F', b'I', 0xfb, .., _, _, _, _, _, _, _, _]) => {
            header[24..].iter().fold(0, |size, byte| size << 8 | u64::from(*byte))
        }
        _ => volume.size_bytes,
    }
}

/// The VM that a disk's name says it belongs to.
pub(super) fn owner_of(own: &str) -> Option<u32> {
    let file = own.rsplit('/').next().unwrap_or_default();
    file.strip_prefix("vm-")
        .or_else(|| file.strip_prefix("base-"))?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Carries a plan out and returns the option's text; new volumes are noted in `made`.
///
/// # Errors
/// PVE's text; volumes that were made stay for the caller to remove.
pub(super) async fn realise(
    world: &Arc<World>,
    node: &str,
    vmid: u32,
    key: &str,
    plan: &Plan,
    worker: Option<&Worker>,
    made: &mut Vec<String>,
) -> Result<String, String> {
    let log = |line: String| {
        if let Some(worker) = worker {
            worker.log(line);
        }
    };
    match plan {
        Plan::Empty { parts } => Ok(parts.print("file")),
        Plan::Existing { volid, parts } => {
            let storages = world.storages();
            let (_, volume) = storages
                .find(node, volid)
                .ok_or_else(|| format!("volume '{volid}' does not exist"))?;
            let mut parts = parts.clone();
            parts.set("size", size_text(volume.size_bytes.next_multiple_of(512)));
            Ok(parts.print("file"))
        }
        Plan::CloudInit { storage, parts } => {
            let spec = world.storages().spec(storage)?.clone();
            let name = cloudinit_name(&spec, vmid);
            let format = if spec.kind == StorageKind::Dir { "qcow2" } else { "raw" };
            log(allocation_line(&spec, &name, format, CLOUDINIT));
            let listed = world
                .storages_mut()
                .create_disk(node, &spec, vmid, &name, CLOUDINIT, CLOUDINIT_USED);
            listed.map_err(|e| e.to_string())?;
            images::make(world, node, &spec, &name, images::Content::Empty).await?;
            let volid = format!("{}:{name}", spec.id);
            made.push(volid.clone());
            log(format!("{key}: successfully created disk '{volid},media=cdrom'"));
            let mut parts = parts.clone();
            parts.set("file", volid);
            parts.set("media", "cdrom");
            Ok(parts.print("file"))
        }
        Plan::New {
            storage,
            size_bytes,
            parts,
        } => {
            let spec = world.storages().spec(storage)?.clone();
            let mut parts = parts.clone();
            let source = match parts.remove("import-from") {
                Some(volid) => {
                    let source = import_source(world, node, &volid)?;
                    log(format!("create full clone of drive ({volid})"));
                    Some(source)
                }
                None => None,
            };
            let given = parts.remove("format");
            if spec.kind == StorageKind::LvmThin && given.as_ref().is_some_and(|f| f != "raw") {
                return Err(format!("unsupported format '{}'", given.unwrap_or_default()));
            }
            let of_source = source.as_ref().map(|(_, format)| format.clone());
            let format = match spec.kind {
                StorageKind::LvmThin => "raw".to_owned(),
                StorageKind::Dir => given.or_else(|| of_source.clone()).unwrap_or_else(|| "raw".into()),
            };
            let size = match (key, &source) {
                ("efidisk0", _) => {
                    if parts.get("efitype") == Some("4m") {
                        EFI_4M
                    } else {
                        EFI_2M
                    }
                }
                ("tpmstate0", _) => TPM_STATE,
                (_, Some((image, _))) => image.size_bytes,
                _ => *size_bytes,
            };
            let name = world.storages().free_name(node, &spec, vmid, &format);
            if size > MAX_SIZE {
                // The tool says what it was about to do before it fails (recorded for files).
                log(allocation_line(&spec, &name, &format, size));
                let shown = Storages::shown_file(&spec, &name);
                return Err(format!(
                    "unable to create image: qemu-img: {shown}: The image size is too large for file format '{format}'"
                ));
            }
            let size = if spec.kind == StorageKind::LvmThin {
                size.next_multiple_of(EXTENT)
            } else {
                size
            };
            log(allocation_line(&spec, &name, &format, size));
            let used = if key == "efidisk0" { size } else { fresh_use(&format) };
            let listed = world.storages_mut().create_disk(node, &spec, vmid, &name, size, used);
            listed.map_err(|e| e.to_string())?;
            let volid = format!("{}:{name}", spec.id);
            let imported = source.is_some();
            let content = match source {
                Some((from, _)) => images::Content::Of(from),
                None if key == "efidisk0" => {
                    let keys = parts.get("pre-enrolled-keys") == Some("1");
                    let variables = world
                        .engine
                        .disks()
                        .efi_variables(parts.get("efitype") == Some("4m"), keys);
                    match variables {
                        Ok(Some(bytes)) => images::Content::Bytes(bytes),
                        Ok(None) => images::Content::Empty,
                        Err(error) => {
                            let gone = world.storages_mut().remove(node, &spec, &name);
                            gone.map_err(|e| format!("{error}; and then: {e}"))?;
                            return Err(error);
                        }
                    }
                }
                None => images::Content::Empty,
            };
            images::make(world, node, &spec, &name, content)
                .await
                .map_err(|e| format!("unable to create image: {e}"))?;
            made.push(volid.clone());
            if imported {
                log(format!("allocated target volume '{volid}'"));
                let text = human(size);
                log(format!("transferred 0.0 B of {text} (0.00%)"));
                log(format!("transferred {text} of {text} (100.00%)"));
                if of_source.as_deref() == Some("raw") {
                    log(format!("transferred {text} of {text} (100.00%)"));
                }
            }
            if key == "efidisk0" {
                let text = human(size);
                log(format!("transferred 0.0 B of {text} (0.00%)"));
                log(format!("transferred {text} of {text} (100.00%)"));
                log(format!("transferred {text} of {text} (100.00%)"));
            }
            parts.set("file", volid);
            parts.set("size", size_text(size));
            let text = parts.print("file");
            log(format!("{key}: successfully created disk '{text}'"));
            Ok(text)
        }
    }
}

/// The image to import, with its size as a guest sees it, and the format that its volume has.
fn import_source(world: &World, node: &str, volid: &str) -> Result<(crate::engine::Image, String), String> {
    let (storage, name) = volid.split_once(':').unwrap_or_default();
    let storages = world.storages();
    let from = storages.spec(storage)?;
    let Some((from, volume)) = storages.find(node, volid) else {
        return Err(format!("failed to stat '{}'", Storages::shown_file(from, name)));
    };
    let (from, volume) = (from.clone(), volume.clone());
    drop(storages);
    let mut image = images::image(world, node, &from, &volume);
    image.size_bytes = virtual_size(&image.path, &volume);
    Ok((image, volume.format))
}

/// Bytes that a fresh image takes on a file system (recorded).
pub(super) fn fresh_use(format: &str) -> u64 {
    if format == "qcow2" { 331_776 } else { 4096 }
}

pub(super) fn cloudinit_name(spec: &StorageSpec, vmid: u32) -> String {
    match spec.kind {
        StorageKind::Dir => format!("{vmid}/vm-{vmid}-cloudinit.qcow2"),
        StorageKind::LvmThin => format!("vm-{vmid}-cloudinit"),
    }
}

/// What the tool that makes the volume prints.
pub(super) fn allocation_line(spec: &StorageSpec, name: &str, format: &str, size: u64) -> String {
    let shown = Storages::shown_file(spec, name);
    match (spec.kind, format) {
        (StorageKind::LvmThin, _) => format!("  Logical volume \"{name}\" created."),
        (StorageKind::Dir, "qcow2") => format!(
            "Formatting '{shown}', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=metadata \
             compression_type=zlib size={size} lazy_refcounts=off refcount_bits=16"
        ),
        (StorageKind::Dir, "vmdk") => {
            format!("Formatting '{shown}', fmt=vmdk size={size} compat6=off hwversion=undefined")
        }
        (StorageKind::Dir, _) => format!("Formatting '{shown}', fmt=raw size={size} preallocation=off"),
    }
}

/// A size for people: `528.0 KiB`.
pub(super) fn human(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a text for people")]
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// The volid of a drive's or unused option's text, `None` for an empty drive.
pub(super) fn volid_of(text: &str) -> Option<&str> {
    let file = text.split(',').next()?;
    let file = file.strip_prefix("file=").unwrap_or(file);
    file.contains(':').then_some(file)
}

/// Volids of a VM's disks with their options: drives that are no CD-ROM.
pub(super) fn disks(config: &ConfigMap) -> Vec<(String, String)> {
    config
        .iter()
        .filter(|(key, text)| super::options::is_drive(key) && !is_cdrom(text) && !is_cloudinit(text))
        .filter_map(|(key, text)| Some((key.clone(), volid_of(text)?.to_owned())))
        .collect()
}

/// Removes a volume if it belongs to the VM; a missing one is fine.
pub(super) fn free(world: &World, node: &str, vmid: u32, volid: &str) -> Result<(), String> {
    let Some((storage, name)) = volid.split_once(':') else {
        return Ok(());
    };
    let spec = world.storages().spec(storage)?.clone();
    let (own, _) = parse_volume_name(spec.kind, name)?;
    if owner_of(&own) != Some(vmid) {
        return Ok(());
    }
    if !world.storages().children(node, &spec, &own).is_empty() {
        return Err(format!("base volume '{own}' is still in use by linked clones"));
    }
    images::remove(world, node, &spec, &own).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drive_texts_become_plans() {
        assert!(
            matches!(plan("scsi0", "local:32,discard=on").unwrap(), Plan::New { size_bytes, .. } if size_bytes == 32 << 30)
        );
        assert!(matches!(plan("scsi0", "local:0.5").unwrap(), Plan::New { size_bytes, .. } if size_bytes == 512 << 20));
        assert!(matches!(plan("ide2", "none,media=cdrom").unwrap(), Plan::Empty { .. }));
        assert!(matches!(
            plan("ide2", "local:cloudinit").unwrap(),
            Plan::CloudInit { .. }
        ));
        assert!(matches!(
            plan("ide2", "local:iso/a.iso,media=cdrom").unwrap(),
            Plan::Existing { .. }
        ));
        assert!(matches!(plan("scsi0", "local:32G").unwrap(), Plan::Existing { .. }));
    }

    #[test]
    fn owners_are_in_the_names() {
        for (name, owner) in [
            ("100/vm-100-disk-0.raw", Some(100)),
            ("220/base-220-disk-1.qcow2", Some(220)),
            ("vm-7-cloudinit", Some(7)),
            ("iso/a.iso", None),
        ] {
            assert_eq!(owner_of(name), owner, "{name}");
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0.0 B"),
            (540_672, "528.0 KiB"),
            (1 << 30, "1.0 GiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
