//! `/nodes/{node}/qemu/{vmid}/snapshot`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::drive::disks;
use super::power;
use super::{check_lock, upid};
use crate::api::access::uuid;
use crate::api::{Call, Outcome, Routes, images};
use crate::engine::SnapshotAction;
use crate::state::{Snapshot, now, typed_map};
use crate::wire::{Answer, Failure, Shape};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /nodes/{node}/qemu/{vmid}/snapshot", list);
    routes.add("POST /nodes/{node}/qemu/{vmid}/snapshot", create);
    routes.add(
        "GET /nodes/{node}/qemu/{vmid}/snapshot/{snapname}",
        async |call: Call| {
            find(&call)?;
            Ok(json!([{ "cmd": "config" }, { "cmd": "rollback" }]).into())
        },
    );
    routes.add("GET /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config", config);
    routes.add("PUT /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config", describe);
    routes.add("POST /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback", rollback);
    routes.add("DELETE /nodes/{node}/qemu/{vmid}/snapshot/{snapname}", delete);
}

fn no_such(name: &str) -> String {
    format!("snapshot '{name}' does not exist")
}

fn find(call: &Call) -> Result<Snapshot, Failure> {
    let name = call.params.required("snapname")?;
    let machine = call.machine()?;
    machine
        .snapshots
        .get(&name)
        .cloned()
        .ok_or_else(|| Failure::die(no_such(&name)))
}

/// A snapshot's configuration with what the snapshot itself carries.
pub(super) fn shown(snapshot: &Snapshot) -> Map<String, Value> {
    let mut body = typed_map(&snapshot.config);
    body.insert("snaptime".into(), snapshot.time.into());
    if let Some(parent) = &snapshot.parent {
        body.insert("parent".into(), parent.as_str().into());
    }
    match &snapshot.description {
        Some(text) => body.insert("description".into(), text.as_str().into()),
        None => body.remove("description"),
    };
    body
}

async fn list(call: Call) -> Outcome {
    let machine = call.machine()?;
    let mut list: Vec<Value> = Vec::new();
    for (name, snapshot) in &machine.snapshots {
        let mut entry = json!({
            "name": name, "snaptime": snapshot.time, "vmstate": i32::from(snapshot.vmstate),
            "description": snapshot.description.as_deref().unwrap_or_default(),
        });
        if let Some(parent) = &snapshot.parent {
            entry["parent"] = parent.as_str().into();
        }
        list.push(entry);
    }
    let running = call.world.engine.status(call.vmid()).is_some();
    let mut current = json!({
        "name": "current", "description": "You are here!", "digest": machine.digest(), "running": i32::from(running),
    });
    if let Some(parent) = machine.config.get("parent") {
        current["parent"] = parent.as_str().into();
    }
    list.push(current);
    Ok(Value::from(list).into())
}

async fn config(call: Call) -> Outcome {
    Ok(Value::from(shown(&find(&call)?)).into())
}

async fn describe(call: Call) -> Outcome {
    find(&call)?;
    let name = call.params.required("snapname")?;
    let description = call.params.text("description");
    call.world.change_machine(call.vmid(), |m| {
        if let Some(snapshot) = m.snapshots.get_mut(&name) {
            snapshot.description = description;
        }
    });
    Ok(Answer::null())
}

async fn create(call: Call) -> Outcome {
    let name = call.params.required("snapname")?;
    if matches!(name.as_str(), "current" | "pending") {
        return Err(Failure::die(format!(
            "unable to use snapshot name '{name}' (reserved name)"
        )));
    }
    if call.params.flag("vmstate") == Some(true) {
        return Err(Failure::new(501, "snapshots with memory are not emulated").with_shape(Shape::JsonBare));
    }
    let description = call.params.text("description");
    let (node, vmid) = (call.node(), call.vmid());
    let task = call.task("qmsnapshot", &vmid.to_string(), |world, worker| async move {
        let _lock = world.lock_vm(vmid).await?;
        let machine = world
            .machine(&node, vmid)
            .ok_or_else(|| format!("Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist"))?;
        check_lock(&machine.config, false)?;
        if machine.snapshots.contains_key(&name) {
            return Err(format!("snapshot name '{name}' already used"));
        }
        let disks = disks(&machine.config);
        // Raw files cannot hold snapshots, thin volumes and qcow2 can.
        for (_, volid) in &disks {
            let storages = world.storages();
            let able = storages.find(&node, volid).is_some_and(|(spec, volume)| {
                volume.format != "raw" || spec.kind == crate::state::StorageKind::LvmThin
            });
            if !able {
                return Err("snapshot feature is not available".into());
            }
        }
        world.spend(Duration::from_millis(300)).await;
        for (key, volid) in &disks {
            worker.log(format!("snapshotting 'drive-{key}' ({volid})"));
        }
        images::snapshot(&world, &node, vmid, &disks, &name, SnapshotAction::Take).await?;
        world.change_machine(vmid, |machine| {
            let mut config = machine.config.clone();
            let parent = config.remove("parent");
            machine.snapshots.insert(
                name.clone(),
                Snapshot {
                    config,
                    time: now(),
                    description,
                    parent,
                    vmstate: false,
                },
            );
            machine.config.insert("parent".into(), name);
        });
        Ok(())
    });
    Ok(upid(task))
}

async fn rollback(call: Call) -> Outcome {
    let name = call.params.required("snapname")?;
    let (node, vmid, who) = (call.node(), call.vmid(), call.who.clone());
    let start = call.params.flag("start") == Some(true);
    let task = call.task("qmrollback", &vmid.to_string(), |world, _| async move {
        let _lock = world.lock_vm(vmid).await?;
        let machine = world.machine(&node, vmid).ok_or("the VM is gone")?;
        let snapshot = machine.snapshots.get(&name).cloned().ok_or_else(|| no_such(&name))?;
        if machine.is_template() {
            return Err("unable to rollback - VM is a template".into());
        }
        check_lock(&machine.config, false)?;
        world.engine.stop(vmid).await;
        world.spend(Duration::from_millis(300)).await;
        let kept = disks(&snapshot.config);
        images::snapshot(&world, &node, vmid, &kept, &name, SnapshotAction::Restore).await?;
        world.change_machine(vmid, |machine| {
            // The VM's own description outlives a rollback (recorded).
            let description = machine.config.get("description").cloned();
            machine.config = snapshot.config;
            machine.config.remove("description");
            if let Some(description) = description {
                machine.config.insert("description".into(), description);
            }
            machine.config.insert("parent".into(), name);
            machine.config.insert("vmgenid".into(), uuid());
            machine.pending.clear();
            machine.pending_delete.clear();
        });
        if start {
            power::spawn_start(&world, &node, vmid, &who, power::StartOptions::default());
        }
        Ok(())
    });
    Ok(upid(task))
}

async fn delete(call: Call) -> Outcome {
    let name = call.params.required("snapname")?;
    let (node, vmid) = (call.node(), call.vmid());
    let task = call.task("qmdelsnapshot", &vmid.to_string(), |world, _| async move {
        let _lock = world.lock_vm(vmid).await?;
        let machine = world.machine(&node, vmid).ok_or("the VM is gone")?;
        let snapshot = machine.snapshots.get(&name).cloned().ok_or_else(|| no_such(&name))?;
        check_lock(&machine.config, false)?;
        world.spend(Duration::from_millis(200)).await;
        let kept = disks(&snapshot.config);
        images::snapshot(&world, &node, vmid, &kept, &name, SnapshotAction::Drop).await?;
        world.change_machine(vmid, |machine| {
            machine.snapshots.remove(&name);
            let heir = snapshot.parent;
            for other in machine
                .snapshots
                .values_mut()
                .filter(|s| s.parent.as_ref() == Some(&name))
            {
                other.parent.clone_from(&heir);
            }
            if machine.config.get("parent") == Some(&name) {
                machine.config.remove("parent");
                if let Some(heir) = heir {
                    machine.config.insert("parent".into(), heir);
                }
            }
        });
        Ok(())
    });
    Ok(upid(task))
}
