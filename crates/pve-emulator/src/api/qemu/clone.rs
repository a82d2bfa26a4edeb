//! `POST /nodes/{node}/qemu/{vmid}/clone`.

use std::sync::Arc;
use std::time::Duration;

use super::create::renew_macs;
use super::drive::{CLOUDINIT_USED, allocation_line, cloudinit_name, disks, fresh_use, human, volid_of};
use super::options::{is_cloudinit, is_drive, is_unused, parse};
use super::unfinished::Unfinished;
use super::{check_lock, upid};
use crate::api::access::uuid;
use crate::api::{Call, Outcome, Routes, images};
use crate::state::{ConfigMap, Machine, StorageKind, StorageSpec, Storages, Volume, World, now, size_text};
use crate::tasks::Worker;
use crate::wire::Failure;

/// What the recordings show a linked clone to take on a file system before it differs from its base.
const LINKED_SMALL: u64 = 397_312;
const LINKED: u64 = 528_384;

pub(super) fn add(routes: &mut Routes) {
    routes.add("POST /nodes/{node}/qemu/{vmid}/clone", clone);
}

async fn clone(call: Call) -> Outcome {
    let (node, vmid) = (call.node(), call.vmid());
    let newid = call
        .params
        .int("newid")
        .and_then(|v| u32::try_from(v).ok())
        .unwrap_or_default();
    let pool = call.params.text("pool");
    let target = call.params.text("target").filter(|t| *t != node);
    let storage = call.params.text("storage");
    let format = call.params.text("format");
    if let Some(pool) = pool.as_ref().filter(|p| !call.world.access().pools.contains_key(*p)) {
        return Err(Failure::permission(&format!("pool '{pool}' does not exist")));
    }
    if let Some(target) = target.as_ref().filter(|t| !call.world.settings.nodes.contains(t)) {
        return Err(Failure::die(format!("no such cluster node '{target}'")));
    }
    if let Some(id) = &storage {
        let spec = call.world.storages().spec(id).cloned().map_err(Failure::die)?;
        if !spec.holds("images") {
            return Err(Failure::param(
                "storage",
                format!("storage '{id}' does not support vm images"),
            ));
        }
    }
    let machine = call.world.machine(&node, vmid).ok_or_else(|| {
        Failure::die(format!(
            "unable to find configuration file for VM {vmid} on node '{node}'"
        ))
    })?;
    check_lock(&machine.config, false).map_err(Failure::die)?;
    let snapname = call.params.text("snapname").filter(|s| s != "current");
    let source = match &snapname {
        Some(name) => {
            let snapshot = machine.snapshots.get(name);
            let snapshot = snapshot.ok_or_else(|| Failure::die(format!("snapshot '{name}' does not exist")))?;
            let mut config = snapshot.config.clone();
            // The clone is described as the snapshot was (recorded).
            config.remove("description");
            config.extend(snapshot.description.clone().map(|d| ("description".to_owned(), d)));
            config
        }
        None => machine.config.clone(),
    };
    let full = call.params.flag("full").unwrap_or(!machine.is_template());
    if !full {
        for (name, given) in [("storage", &storage), ("format", &format)] {
            if given.is_some() {
                return Err(Failure::die(format!(
                    "parameter '{name}' not allowed for linked clones"
                )));
            }
        }
    }
    // Who locks both takes the rights first, here and everywhere: two orders could wait for each other.
    for (key, volid) in disks(&source) {
        let access = call.world.access();
        let storages = call.world.storages();
        let own_storage = volid.split(':').next().unwrap_or_default().to_owned();
        let into = storage.as_ref().filter(|_| full).unwrap_or(&own_storage);
        access.require(&call.who, &format!("/storage/{into}"), &["Datastore.AllocateSpace"])?;
        let (_, volume) = storages
            .find(&node, &volid)
            .ok_or_else(|| Failure::die(format!("volume '{volid}' does not exist")))?;
        let is_base = volume.name.rsplit('/').next().is_some_and(|n| n.starts_with("base-"));
        if !full && !is_base {
            return Err(Failure::die(format!(
                "Linked clone feature is not supported for '{volid}' ({key})"
            )));
        }
        if let Some(target) = &target {
            let shared = storages.spec(into).is_ok_and(|s| s.shared);
            if !shared {
                return Err(Failure::die(format!(
                    "can't clone to non-shared storage '{into}' on node '{target}'"
                )));
            }
        }
    }
    for (key, text) in &source {
        super::options::check_bridge(&call, key, text)?;
    }
    let new_node = target.unwrap_or_else(|| node.clone());
    let placeholder = Machine {
        node: new_node.clone(),
        config: ConfigMap::from([("lock".to_owned(), "clone".to_owned())]),
        ..Machine::default()
    };
    if !call.world.insert_machine(newid, placeholder) {
        return Err(Failure::die(format!(
            "unable to create VM {newid}: config file already exists"
        )));
    }
    let name = call.params.text("name").unwrap_or_else(|| {
        source
            .get("name")
            .map_or_else(|| format!("Copy-of-VM-{vmid}"), |n| format!("Copy-of-VM-{n}"))
    });
    let description = call.params.text("description");
    let task = call.task("qmclone", &vmid.to_string(), |world, worker| {
        // Before its work begins: one that is stopped earlier leaves nothing either.
        let mut unfinished = Unfinished::new(&world, &worker, &new_node, newid);
        async move {
            worker.log(format!("creating a clone of VM {vmid} with ID {newid}"));
            let lock = world.lock_vm(vmid).await;
            let _lock = lock.map_err(|error| format!("clone failed: {error}"))?;
            world.spend(Duration::from_millis(500)).await;
            let copy = Copy {
                world: &world,
                worker: &worker,
                node: &node,
                newid,
                full,
                storage,
                format,
            };
            let copied = match worker.refused() {
                Ok(()) => copy.config(source, &mut unfinished.made).await,
                Err(error) => Err(error),
            };
            let mut config = copied.map_err(|error| format!("clone failed: {error}"))?;
            config.insert("name".into(), name);
            if let Some(description) = description {
                config.insert("description".into(), description.trim_end_matches('\n').to_owned());
            }
            world.change_machine(newid, |m| m.config = config);
            unfinished.finish();
            if let Some(pool) = pool {
                world.change_access(|access| access.pools.get_mut(&pool).map(|p| p.vms.insert(newid)));
            }
            Ok(())
        }
    });
    Ok(upid(task))
}

/// The work of one clone.
struct Copy<'a> {
    world: &'a Arc<World>,
    worker: &'a Worker,
    node: &'a str,
    newid: u32,
    full: bool,
    storage: Option<String>,
    format: Option<String>,
}

impl Copy<'_> {
    /// The clone's configuration with its new disks; what was made is noted in `made`.
    async fn config(&self, source: ConfigMap, made: &mut Vec<String>) -> Result<ConfigMap, String> {
        let mut config = ConfigMap::new();
        for (key, text) in source {
            if is_unused(&key) || matches!(key.as_str(), "template" | "lock" | "vmstate" | "parent" | "snaptime") {
                continue;
            }
            let disk = is_drive(&key) && !super::options::is_cdrom(&text) && volid_of(&text).is_some();
            let text = if is_cloudinit(&text) {
                self.cloudinit(&key, &text, made).await?
            } else if disk {
                self.disk(&key, &text, made).await?
            } else {
                text
            };
            config.insert(key, text);
        }
        renew_macs(&mut config).map_err(|f| f.message)?;
        config.insert("vmgenid".into(), uuid());
        let mut smbios = config
            .get("smbios1")
            .map(|text| parse("smbios1", text))
            .transpose()
            .map_err(|f| f.message)?
            .unwrap_or_default();
        smbios.set("uuid", uuid());
        config.insert("smbios1".into(), smbios.print(""));
        Ok(config)
    }

    async fn cloudinit(&self, key: &str, text: &str, made: &mut Vec<String>) -> Result<String, String> {
        let volid = volid_of(text).unwrap_or_default();
        let own = volid.split(':').next().unwrap_or_default().to_owned();
        let spec = self
            .world
            .storages()
            .spec(self.storage.as_ref().unwrap_or(&own))?
            .clone();
        let size = self
            .world
            .storages()
            .find(self.node, volid)
            .map_or(4 << 20, |(_, v)| v.size_bytes);
        let name = cloudinit_name(&spec, self.newid);
        let format = if spec.kind == StorageKind::Dir { "qcow2" } else { "raw" };
        self.worker.log(format!("create full clone of drive {key} ({volid})"));
        self.worker.log(allocation_line(&spec, &name, format, size));
        let listed = self
            .world
            .storages_mut()
            .create_disk(self.node, &spec, self.newid, &name, size, CLOUDINIT_USED);
        listed.map_err(|e| e.to_string())?;
        images::make(self.world, self.node, &spec, &name, images::Content::Empty).await?;
        made.push(format!("{}:{name}", spec.id));
        self.worker.log(format!("allocated target volume '{}:{name}'", spec.id));
        let mut parts = parse(key, text).map_err(|f| f.message)?;
        parts.set("file", format!("{}:{name}", spec.id));
        parts.set("size", size_text(size));
        Ok(parts.print("file"))
    }

    async fn disk(&self, key: &str, text: &str, made: &mut Vec<String>) -> Result<String, String> {
        let volid = volid_of(text).unwrap_or_default();
        let (from_spec, base) = {
            let storages = self.world.storages();
            let (spec, volume) = storages
                .find(self.node, volid)
                .ok_or_else(|| format!("volume '{volid}' does not exist"))?;
            (spec.clone(), volume.clone())
        };
        let (spec, name) = if self.full {
            self.worker.log(format!("create full clone of drive {key} ({volid})"));
            self.full_copy(key, &from_spec, &base)?
        } else {
            self.worker.log(format!("create linked clone of drive {key} ({volid})"));
            self.linked(&from_spec, &base, volid)?
        };
        // The copy is made outside the lock: it can be large.
        let from = images::image(self.world, self.node, &from_spec, &base);
        let content = if self.full {
            images::Content::Of(from)
        } else {
            images::Content::OnTopOf(from)
        };
        images::make(self.world, self.node, &spec, &name, content).await?;
        made.push(format!("{}:{name}", spec.id));
        let shown = {
            let storages = self.world.storages();
            storages
                .volumes(self.node, &spec)
                .find(|v| v.name == name)
                .map(Volume::shown)
                .unwrap_or(name)
        };
        if self.full && key != "efidisk0" && base.size_bytes > 0 {
            let size = human(base.size_bytes);
            self.worker.log(format!("transferred 0.0 B of {size} (0.00%)"));
            self.worker.log(format!("transferred {size} of {size} (100.00%)"));
            if base.format == "raw" {
                self.worker.log(format!("transferred {size} of {size} (100.00%)"));
            }
        }
        let mut parts = parse(key, text).map_err(|f| f.message)?;
        parts.set("file", format!("{}:{shown}", spec.id));
        Ok(parts.print("file"))
    }

    fn full_copy(&self, key: &str, from: &StorageSpec, base: &Volume) -> Result<(StorageSpec, String), String> {
        let mut storages = self.world.storages_mut();
        let spec = storages.spec(self.storage.as_ref().unwrap_or(&from.id))?.clone();
        let format = match spec.kind {
            StorageKind::LvmThin => "raw".to_owned(),
            StorageKind::Dir if key == "efidisk0" => base.format.clone(),
            StorageKind::Dir => self.format.clone().unwrap_or_else(|| base.format.clone()),
        };
        let name = storages.free_name(self.node, &spec, self.newid, &format);
        self.worker.log(allocation_line(&spec, &name, &format, base.size_bytes));
        let used = if key == "efidisk0" {
            base.size_bytes
        } else if format == "raw" {
            0
        } else {
            fresh_use(&format)
        };
        storages
            .create_disk(self.node, &spec, self.newid, &name, base.size_bytes, used)
            .map_err(|e| e.to_string())?;
        self.worker.log(format!("allocated target volume '{}:{name}'", spec.id));
        Ok((spec, name))
    }

    fn linked(&self, spec: &StorageSpec, base: &Volume, volid: &str) -> Result<(StorageSpec, String), String> {
        let mut storages = self.world.storages_mut();
        let shown_base = volid.split_once(':').map_or(volid, |(_, name)| name).to_owned();
        let name = storages.free_name(self.node, spec, self.newid, "qcow2");
        let file = storages.file(self.node, spec, &name);
        let parent = match spec.kind {
            StorageKind::Dir => {
                let own = name.rsplit('/').next().unwrap_or_default();
                self.worker.log(format!(
                    "clone {shown_base}: images, {own}, {} to {own} (base=../{})",
                    self.newid, base.name
                ));
                let preallocation = if base.format == "qcow2" { "metadata" } else { "off" };
                self.worker.log(format!(
                    "Formatting '{}', fmt=qcow2 cluster_size=131072 extended_l2=on preallocation={preallocation} \
                     compression_type=zlib size={} backing_file=../{} backing_fmt={} lazy_refcounts=off refcount_bits=16",
                    Storages::shown_file(spec, &name),
                    base.size_bytes,
                    base.name,
                    base.format
                ));
                Some(base.name.clone())
            }
            StorageKind::LvmThin => {
                self.worker.log(format!("  Logical volume \"{name}\" created."));
                None
            }
        };
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
        }
        let volume = Volume {
            name: name.clone(),
            content: "images".into(),
            vmid: Some(self.newid),
            format: if spec.kind == StorageKind::Dir {
                "qcow2".into()
            } else {
                "raw".into()
            },
            size_bytes: base.size_bytes,
            used_bytes: if base.format == "qcow2" { LINKED } else { LINKED_SMALL },
            ctime: now(),
            parent,
            origins: images::origins(self.world, spec, &name, base),
        };
        storages.insert(self.node, spec, volume).map_err(|e| e.to_string())?;
        Ok((spec.clone(), name))
    }
}
