//! Volumes and their images: the storage layer lists a volume, the engine makes its bytes.
//!
//! A volume is put on the list first, which reserves its name, and taken off again when its image cannot be made.

use crate::engine::{Image, SnapshotAction};
use crate::state::{StorageKind, StorageSpec, Volume, World};

/// Where a new image's content comes from.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing is in it.
    Empty,
    /// These bytes, and zeros behind them.
    Bytes(Vec<u8>),
    /// A copy.
    Of(Image),
    /// A linked clone.
    OnTopOf(Image),
}

/// The image of a volume.
pub(super) fn image(world: &World, node: &str, spec: &StorageSpec, volume: &Volume) -> Image {
    let path = world.storages().file(node, spec, &volume.name);
    let thin = spec.kind == StorageKind::LvmThin;
    let format = if volume.content == "images" {
        world.engine.disks().layout(&volume.format, thin)
    } else if matches!(volume.format.as_str(), "qcow2" | "vmdk") {
        volume.format.clone()
    } else {
        "raw".to_owned()
    };
    Image {
        path,
        format,
        size_bytes: volume.size_bytes,
    }
}

/// The image of a volume by its volid.
pub(super) fn find(world: &World, node: &str, volid: &str) -> Result<Image, String> {
    let found = world.storages().find(node, volid).map(|(s, v)| (s.clone(), v.clone()));
    let (spec, volume) = found.ok_or_else(|| format!("volume '{volid}' does not exist"))?;
    Ok(image(world, node, &spec, &volume))
}

/// Makes the image of a volume that is on the list.
///
/// # Errors
/// The engine's text. The volume is off the list then, and no file is left.
pub(super) async fn make(
    world: &World,
    node: &str,
    spec: &StorageSpec,
    name: &str,
    content: Content,
) -> Result<(), String> {
    let volid = format!("{}:{name}", spec.id);
    let listed = world.storages().volumes(node, spec).find(|v| v.name == name).cloned();
    let volume = listed.ok_or_else(|| format!("volume '{volid}' does not exist"))?;
    let image = image(world, node, spec, &volume);
    let disks = world.engine.disks();
    let made = match content {
        Content::Empty => disks.create(&image).await,
        Content::Bytes(bytes) => match disks.create(&image).await {
            Ok(()) => disks.fill(&image, &bytes).await,
            Err(error) => Err(error),
        },
        Content::Of(from) => disks.copy(&from, &image).await,
        Content::OnTopOf(mut base) => match volume.origins.first() {
            None => disks.link(&base, &image).await,
            Some(origin) => {
                let file = world.storages().file(node, spec, origin);
                match std::fs::hard_link(&base.path, &file) {
                    Ok(()) => {
                        base.path = file;
                        disks.link(&base, &image).await
                    }
                    Err(error) => Err(format!("naming {} as an origin: {error}", base.path.display())),
                }
            }
        },
    };
    // A copy takes its time, in which the volume may have been deleted.
    let listed = world.storages().volumes(node, spec).any(|v| v.name == name);
    let made = match made {
        Ok(()) if !listed => {
            std::fs::remove_file(&image.path).map_err(|e| e.to_string())?;
            Err(format!("volume '{volid}' does not exist"))
        }
        made => made,
    };
    if let Err(error) = made {
        remove(world, node, spec, name).map_err(|e| format!("{error}; and then: {e}"))?;
        return Err(error);
    }
    Ok(())
}

/// The files that a linked clone of `base` in a thin pool stands on. LVM's thin volumes are independent by nature: their origin may
/// go at any time. So the clone gets a name of its own for the file of its base, which lives as long as anybody has a name for
/// it; and what the base stands on, the clone does too.
pub(super) fn origins(world: &World, spec: &StorageSpec, name: &str, base: &Volume) -> Vec<String> {
    let layered = world.engine.disks().layout("raw", true) != "raw";
    if spec.kind != StorageKind::LvmThin || !layered {
        return Vec::new();
    }
    let mut origins = vec![format!(".{name}.origin")];
    origins.extend(base.origins.clone());
    origins
}

/// Removes a volume and its image; `false` when there was none.
///
/// # Errors
/// The system's text; then the volume may still be there.
pub(super) fn remove(world: &World, node: &str, spec: &StorageSpec, own: &str) -> Result<bool, String> {
    let mut storages = world.storages_mut();
    let volume = storages.volumes(node, spec).find(|v| v.name == own).cloned();
    let known = storages.remove(node, spec, own).map_err(|e| e.to_string())?;
    for origin in volume.into_iter().flat_map(|v| v.origins) {
        if storages.volumes(node, spec).any(|v| v.origins.contains(&origin)) {
            continue;
        }
        let file = storages.file(node, spec, &origin);
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("removing {}: {e}", file.display()));
            }
            _ => {}
        }
    }
    Ok(known)
}

/// Works on the snapshots of a VM's disks, given by slot and volid: through the guest when it runs, else on the images.
///
/// # Errors
/// The engine's text; of the disks before the failing one some may be changed.
pub(super) async fn snapshot(
    world: &World,
    node: &str,
    vmid: u32,
    disks: &[(String, String)],
    name: &str,
    action: SnapshotAction,
) -> Result<(), String> {
    if world.engine.status(vmid).is_some() {
        let slots: Vec<String> = disks.iter().map(|(slot, _)| slot.clone()).collect();
        return world.engine.snapshot(vmid, &slots, name, action).await;
    }
    for (_, volid) in disks {
        let image = find(world, node, volid)?;
        world.engine.disks().snapshot(&image, name, action).await?;
    }
    Ok(())
}
