//! `/storage` and `/nodes/{node}/storage`: what there is and what it holds.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::qemu::{MAX_SIZE, virtual_size};
use super::{Call, Outcome, Routes, images};
use crate::state::{StorageKind, StorageSpec, Storages, Volume, parse_volume_name};
use crate::wire::{Answer, Failure, Shape};

/// The index of a storage, in the order PVE lists it.
const DIRECTORY: [&str; 11] = [
    "content",
    "download-url",
    "file-restore",
    "import-metadata",
    "identity",
    "oci-registry-pull",
    "prunebackups",
    "rrd",
    "rrddata",
    "status",
    "upload",
];

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /storage", definitions);
    routes.add("GET /storage/{storage}", definition);
    routes.add("GET /nodes/{node}/storage", list);
    routes.add("GET /nodes/{node}/storage/{storage}", async |call: Call| {
        spec(&call)?;
        Ok(Value::from(DIRECTORY.map(|d| json!({ "subdir": d })).to_vec()).into())
    });
    routes.add("GET /nodes/{node}/storage/{storage}/import-metadata", import_metadata);
    routes.add("GET /nodes/{node}/storage/{storage}/status", status);
    routes.add("GET /nodes/{node}/storage/{storage}/content", content);
    routes.add("POST /nodes/{node}/storage/{storage}/content", allocate);
    routes.add("GET /nodes/{node}/storage/{storage}/content/{volume}", volume);
    routes.add("DELETE /nodes/{node}/storage/{storage}/content/{volume}", delete);
}

/// The storage of the path.
pub(super) fn spec(call: &Call) -> Result<StorageSpec, Failure> {
    let id = call.params.required("storage")?;
    call.world.storages().spec(&id).cloned().map_err(Failure::die)
}

fn definition_entry(spec: &StorageSpec) -> Value {
    let mut entry = json!({
        "storage": spec.id, "type": spec.type_name(), "content": spec.content.join(","),
        "digest": "fc39df3606e81f0365e2b6557391c6fa41014e0d",
    });
    match spec.kind {
        StorageKind::Dir => entry["path"] = spec.shown_path.as_str().into(),
        StorageKind::LvmThin => {
            entry["vgname"] = "pve".into();
            entry["thinpool"] = "data".into();
        }
    }
    if spec.shared {
        entry["shared"] = 1.into();
    }
    entry
}

async fn definitions(call: Call) -> Outcome {
    let access = call.world.access();
    let storages = call.world.storages();
    let wanted = call.params.text("type");
    let list: Vec<Value> = storages
        .specs()
        .iter()
        .filter(|s| wanted.as_deref().is_none_or(|w| w == s.type_name()))
        .filter(|s| visible(&access, &call, s))
        .map(definition_entry)
        .collect();
    Ok(Value::from(list).into())
}

fn visible(access: &crate::state::Access, call: &Call, spec: &StorageSpec) -> bool {
    access.has_any(
        &call.who,
        &format!("/storage/{}", spec.id),
        &["Datastore.Audit", "Datastore.AllocateSpace"],
    )
}

async fn definition(call: Call) -> Outcome {
    Ok(definition_entry(&spec(&call)?).into())
}

fn figures(storages: &Storages, node: &str, spec: &StorageSpec) -> Map<String, Value> {
    let used = storages.used(node, spec).min(spec.total_bytes);
    let entry = json!({
        "type": spec.type_name(), "content": spec.content.join(","), "active": 1, "enabled": 1,
        "shared": i32::from(spec.shared), "total": spec.total_bytes, "used": used, "avail": spec.total_bytes - used,
    });
    entry.as_object().cloned().unwrap_or_default()
}

async fn list(call: Call) -> Outcome {
    let access = call.world.access();
    let storages = call.world.storages();
    let contents = call.params.list("content");
    let wanted = call.params.text("storage");
    let list: Vec<Value> = storages
        .specs()
        .iter()
        .filter(|s| wanted.as_ref().is_none_or(|w| *w == s.id))
        .filter(|s| contents.is_empty() || contents.iter().any(|c| s.holds(c)))
        .filter(|s| visible(&access, &call, s))
        .map(|spec| {
            let mut entry = figures(&storages, &call.node(), spec);
            let used = storages.used(&call.node(), spec);
            entry.insert("storage".into(), spec.id.as_str().into());
            #[expect(clippy::cast_precision_loss, reason = "a fraction for people")]
            entry.insert("used_fraction".into(), (used as f64 / spec.total_bytes as f64).into());
            entry.into()
        })
        .collect();
    Ok(Value::from(list).into())
}

async fn status(call: Call) -> Outcome {
    let spec = spec(&call).map_err(|_| Failure::param("storage", "No such storage."))?;
    Ok(Value::from(figures(&call.world.storages(), &call.node(), &spec)).into())
}

/// Bytes that a volume takes: what the engine sees, or what was recorded of the real system.
fn used(call: &Call, storages: &Storages, spec: &StorageSpec, volume: &Volume) -> u64 {
    let file = storages.file(&call.node(), spec, &volume.name);
    let seen = call
        .world
        .engine
        .disks()
        .used_bytes(&file)
        .filter(|_| volume.vmid.is_some());
    seen.unwrap_or(volume.used_bytes)
}

fn content_entry(spec: &StorageSpec, volume: &Volume, used: u64) -> Value {
    let mut entry = json!({
        "volid": format!("{}:{}", spec.id, volume.shown()), "content": volume.content, "format": volume.format,
        "size": volume.size_bytes, "ctime": volume.ctime,
    });
    if let Some(vmid) = volume.vmid {
        entry["vmid"] = vmid.into();
        if spec.kind == StorageKind::Dir {
            entry["used"] = used.into();
            // A directory storage names the base as the image does: relative to the clone.
            entry["parent"] = volume.parent.as_ref().map_or(Value::Null, |p| format!("../{p}").into());
        } else if let Some(parent) = &volume.parent {
            entry["parent"] = parent.as_str().into();
        }
    }
    entry
}

async fn content(call: Call) -> Outcome {
    let spec = spec(&call)?;
    let wanted = call.params.text("content");
    let owner = call.params.int("vmid").and_then(|v| u32::try_from(v).ok());
    let access = call.world.access();
    let storages = call.world.storages();
    let path = format!("/storage/{}", spec.id);
    let may_see_disks = access.has(&call.who, &path, "Datastore.Allocate");
    let mut list: Vec<&Volume> = storages
        .volumes(&call.node(), &spec)
        .filter(|v| wanted.as_ref().is_none_or(|w| *w == v.content))
        .filter(|v| owner.is_none_or(|o| v.vmid == Some(o)))
        .filter(|v| match v.vmid {
            Some(vmid) => may_see_disks || access.has(&call.who, &format!("/vms/{vmid}"), "VM.Config.Disk"),
            None => true,
        })
        .collect();
    list.sort_by_key(|v| v.shown());
    let list: Vec<Value> = list
        .into_iter()
        .map(|v| content_entry(&spec, v, used(&call, &storages, &spec, v)))
        .collect();
    Ok(Value::from(list).into())
}

/// A volid as a path gives it: whole, or without the storage's id in front.
fn volid(call: &Call, spec: &StorageSpec) -> Result<(String, String), Failure> {
    let text = call.params.required("volume")?;
    match text.split_once(':') {
        Some((storage, name)) if storage == spec.id => Ok((text.clone(), name.to_owned())),
        Some((storage, _)) => Err(Failure::param(
            "volume",
            format!("storage ID mismatch ({storage} != {})\n", spec.id),
        )),
        None => Ok((format!("{}:{text}", spec.id), text)),
    }
}

/// Rights to read a volume (`PVE::Storage::check_volume_access`).
fn may_read(call: &Call, spec: &StorageSpec, name: &str) -> Result<(), Failure> {
    let access = call.world.access();
    let path = format!("/storage/{}", spec.id);
    let (own, _) = parse_volume_name(spec.kind, name).map_err(Failure::die)?;
    let is_disk = own
        .rsplit('/')
        .next()
        .is_some_and(|n| n.starts_with("vm-") || n.starts_with("base-"));
    if access.has(&call.who, &path, "Datastore.Allocate") {
        return Ok(());
    }
    if is_disk {
        let vmid = own
            .split(['-', '/'])
            .find_map(|p| p.parse::<u32>().ok())
            .unwrap_or_default();
        return access.require(&call.who, &format!("/vms/{vmid}"), &["VM.Config.Disk"]);
    }
    access.require_any(&call.who, &path, &["Datastore.Audit", "Datastore.AllocateSpace"])
}

async fn volume(call: Call) -> Outcome {
    let spec = spec(&call)?;
    let (volid, name) = volid(&call, &spec)?;
    may_read(&call, &spec, &name)?;
    let storages = call.world.storages();
    let Some((_, volume)) = storages.find(&call.node(), &volid) else {
        return Err(Failure::die(format!(
            "volume_size_info on '{volid}' failed - no format"
        )));
    };
    // What is no disk is asked of `qemu-img info`, which counts whole sectors and knows an image's own size (recorded).
    let file = storages.file(&call.node(), &spec, &volume.name);
    let (format, size) = match (volume.vmid, volume.format.as_str()) {
        (Some(_), format) => (format, volume.size_bytes),
        (None, "qcow2") => ("qcow2", virtual_size(&file, volume)),
        (None, _) => ("raw", volume.size_bytes.next_multiple_of(512)),
    };
    let mut entry = json!({
        "size": size, "used": used(&call, &storages, &spec, volume), "format": format,
        "path": Storages::shown_file(&spec, &volume.name),
    });
    if let Some(parent) = &volume.parent {
        entry["parent"] = format!("../{parent}").into();
    }
    Ok(entry.into())
}

/// What an appliance to import holds. PVE 9.2 takes the volume's name without its storage only; what it then says of an
/// OVA is not emulated.
async fn import_metadata(call: Call) -> Outcome {
    let spec = spec(&call)?;
    let volume = call.params.required("volume")?;
    parse_volume_name(spec.kind, &volume).map_err(Failure::die)?;
    tracing::warn!(volume, "import-metadata is not emulated");
    Err(Failure::new(501, "import-metadata is not emulated").with_shape(Shape::JsonBare))
}

async fn allocate(call: Call) -> Outcome {
    let spec = spec(&call)?;
    let (vmid, node) = (call.vmid(), call.node());
    let filename = call.params.required("filename")?;
    let size = call.params.required("size")?;
    let format = call
        .params
        .text("format")
        .unwrap_or_else(|| filename.rsplit_once('.').map_or("raw", |(_, e)| e).to_owned());
    let unit = size.chars().last().unwrap_or_default();
    let (number, shift) = match unit {
        'M' => (&size[..size.len() - 1], 20),
        'G' => (&size[..size.len() - 1], 30),
        // A bare number is KiB.
        _ => (size.as_str(), 10),
    };
    let kind = spec.kind;
    let name = match kind {
        StorageKind::Dir => format!("{vmid}/{filename}"),
        StorageKind::LvmThin => filename.clone(),
    };
    let own = filename.starts_with(&format!("vm-{vmid}-")) && parse_volume_name(kind, &name).is_ok();
    if !own {
        return Err(Failure::die(format!(
            "illegal name '{filename}' - should be 'vm-{vmid}-*'"
        )));
    }
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| *n <= MAX_SIZE);
    let bytes = bytes.ok_or_else(|| Failure::param("size", "value does not match the regex pattern"))?;
    if kind == StorageKind::LvmThin && format != "raw" {
        return Err(Failure::die(format!("unsupported format '{format}'")));
    }
    let volid = format!("{}:{name}", spec.id);
    if call.world.storages().find(&node, &volid).is_some() {
        let shown = Storages::shown_file(&spec, &name);
        return Err(Failure::die(format!("disk image '{shown}' already exists")));
    }
    let listed = call
        .world
        .storages_mut()
        .create_disk(&node, &spec, vmid, &name, bytes, 4096);
    listed.map_err(|e| Failure::die(e.to_string()))?;
    images::make(&call.world, &node, &spec, &name, images::Content::Empty)
        .await
        .map_err(Failure::die)?;
    Ok(volid.into())
}

async fn delete(call: Call) -> Outcome {
    let spec = spec(&call)?;
    let (volid, name) = volid(&call, &spec)?;
    let (own, _) = parse_volume_name(spec.kind, &name).map_err(Failure::die)?;
    let owner = call
        .world
        .storages()
        .find(&call.node(), &volid)
        .and_then(|(_, v)| v.vmid)
        .or_else(|| own.split_once('/').and_then(|(id, _)| id.parse().ok()));
    {
        let access = call.world.access();
        let allowed = owner.is_some_and(|vmid| access.has(&call.who, &format!("/vms/{vmid}"), "VM.Config.Disk"));
        let path = format!("/storage/{}", spec.id);
        if !(allowed && access.has(&call.who, &path, "Datastore.AllocateSpace")) {
            access.require(&call.who, &path, &["Datastore.Allocate"])?;
        }
    }
    let id = owner.map_or_else(|| spec.id.clone(), |vmid| format!("{vmid}@{}", spec.id));
    let node = call.node();
    let upid = call.task("imgdel", &id, |world, worker| async move {
        world.spend(Duration::from_millis(200)).await;
        if !world.storages().children(&node, &spec, &own).is_empty() {
            return Err(format!("base volume '{own}' is still in use by linked clones"));
        }
        let shown = Storages::shown_file(&spec, &own);
        if !images::remove(&world, &node, &spec, &own)? {
            worker.log(format!("disk image '{shown}' does not exist"));
        }
        worker.log(format!("Removed volume '{volid}'"));
        Ok(())
    });
    // With `delay` the answer is null if the work is done in time (FACTS 58).
    if let Some(delay) = call.params.int("delay").and_then(|d| u64::try_from(d).ok())
        && let Some(task) = call.world.tasks.get(&upid)
        && task.wait(Duration::from_secs(delay)).await
    {
        return match task.end() {
            Some((_, exit)) if exit == "OK" || exit.starts_with("WARNINGS: ") => Ok(Answer::null()),
            Some((_, exit)) => Err(Failure::die(exit)),
            None => Ok(upid.into()),
        };
    }
    Ok(upid.into())
}
