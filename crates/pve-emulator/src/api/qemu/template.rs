//! `POST /nodes/{node}/qemu/{vmid}/template`.

use std::time::Duration;

use super::{check_lock, drive, upid};
use crate::api::{Call, Outcome, Routes, images};
use crate::state::StorageKind;
use crate::wire::Failure;

pub(super) fn add(routes: &mut Routes) {
    routes.add("POST /nodes/{node}/qemu/{vmid}/template", template);
}

async fn template(call: Call) -> Outcome {
    let machine = call.machine()?;
    let (node, vmid) = (call.node(), call.vmid());
    let only = call.params.text("disk");
    if !machine.snapshots.is_empty() {
        return Err(Failure::die("unable to create template, because VM contains snapshots"));
    }
    check_lock(&machine.config, false).map_err(Failure::die)?;
    if machine.is_template() && only.is_none() {
        return Err(Failure::die("you can't convert a template to a template"));
    }
    if call.world.engine.status(vmid).is_some() {
        return Err(Failure::die("you can't convert a VM to template if VM is running"));
    }
    let task = call.task("qmtemplate", &vmid.to_string(), |world, _| async move {
        let _lock = world.lock_vm(vmid).await?;
        world.spend(Duration::from_millis(300)).await;
        let machine = world.machine(&node, vmid).ok_or("the VM is gone")?;
        check_lock(&machine.config, false)?;
        // Written disk by disk, as PVE does, so that an end in between leaves few names that no longer fit.
        world.change_machine(vmid, |m| m.config.insert("template".into(), "1".into()));
        for (key, volid) in drive::disks(&machine.config) {
            if only.as_ref().is_some_and(|o| *o != key) {
                continue;
            }
            let new = to_base(&world, &node, &volid).await?;
            world.change_machine(vmid, |m| {
                if let Some(text) = m.config.get_mut(&key) {
                    *text = text.replacen(&volid, &new, 1);
                }
            });
        }
        Ok(())
    });
    Ok(upid(task))
}

/// Renames a disk to `base-...` and returns its new volid; a base stays what it is.
async fn to_base(world: &crate::state::World, node: &str, volid: &str) -> Result<String, String> {
    let found = world.storages().find(node, volid).map(|(s, v)| (s.clone(), v.clone()));
    let (spec, volume) = found.ok_or_else(|| format!("volume '{volid}' does not exist"))?;
    let own = volume.name;
    let new = match (spec.kind, own.rsplit_once('/')) {
        (StorageKind::Dir, Some((dir, file))) => match file.strip_prefix("vm-") {
            Some(rest) => format!("{dir}/base-{rest}"),
            None => return Ok(volid.to_owned()),
        },
        _ => match own.strip_prefix("vm-") {
            Some(rest) => format!("base-{rest}"),
            None => return Ok(volid.to_owned()),
        },
    };
    let renamed = world.storages_mut().rename(node, &spec, &own, &new);
    renamed.map_err(|e| e.to_string())?;
    let volume = world.storages().volumes(node, &spec).find(|v| v.name == new).cloned();
    let volume = volume.ok_or_else(|| format!("volume '{new}' does not exist"))?;
    world
        .engine
        .disks()
        .freeze(&images::image(world, node, &spec, &volume))
        .await?;
    Ok(format!("{}:{}", spec.id, volume.shown()))
}
