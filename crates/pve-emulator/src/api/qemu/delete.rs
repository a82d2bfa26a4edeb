//! `DELETE /nodes/{node}/qemu/{vmid}`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::options::{boot_order, is_drive, is_unused};
use super::{check_lock, drive, skiplock, upid};
use crate::api::{Call, Outcome, Routes};
use crate::state::parse_volume_name;
use crate::wire::Failure;

pub(super) fn add(routes: &mut Routes) {
    routes.add("DELETE /nodes/{node}/qemu/{vmid}", delete);
}

async fn delete(call: Call) -> Outcome {
    let skiplock = skiplock(&call)?;
    let machine = call.machine()?;
    let (node, vmid) = (call.node(), call.vmid());
    if machine.config.get("protection").is_some_and(|p| p == "1") {
        return Err(Failure::die(format!(
            "can't remove VM {vmid} - protection mode enabled"
        )));
    }
    if call.world.engine.status(vmid).is_some() {
        return Err(Failure::die(format!("VM {vmid} is running - destroy failed")));
    }
    let purge = call.params.flag("purge") == Some(true);
    let strays = call.params.flag("destroy-unreferenced-disks") == Some(true);
    let task = call.task("qmdestroy", &vmid.to_string(), |world, worker| async move {
        let _lock = world.lock_vm(vmid).await?;
        let machine = world
            .machine(&node, vmid)
            .ok_or_else(|| format!("Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist"))?;
        check_lock(&machine.config, skiplock)?;
        if world.engine.status(vmid).is_some() {
            return Err(format!("VM {vmid} is running - destroy failed"));
        }
        let mut volids: BTreeSet<String> = machine
            .config
            .iter()
            .filter(|(key, _)| is_drive(key) || is_unused(key))
            .filter_map(|(_, text)| drive::volid_of(text).map(str::to_owned))
            .collect();
        // All bases are looked at before anything goes.
        let order = boot_order(&machine.config);
        let boot = order
            .iter()
            .filter_map(|d| machine.config.get(d).and_then(|t| drive::volid_of(t)));
        let boot: Vec<String> = boot.map(str::to_owned).collect();
        for volid in boot.iter().chain(&volids) {
            let storages = world.storages();
            let Some((storage, name)) = volid.split_once(':') else {
                continue;
            };
            let Ok(spec) = storages.spec(storage) else { continue };
            let Ok((own, _)) = parse_volume_name(spec.kind, name) else {
                continue;
            };
            if drive::owner_of(&own) == Some(vmid) && !storages.children(&node, spec, &own).is_empty() {
                return Err(format!("base volume '{volid}' is still in use by linked cloned"));
            }
        }
        world.spend(Duration::from_millis(300)).await;
        if strays {
            let storages = world.storages();
            for spec in storages.specs() {
                let own = storages.volumes(&node, spec).filter(|v| v.vmid == Some(vmid));
                volids.extend(own.map(|v| format!("{}:{}", spec.id, v.shown())));
            }
        }
        // Disks that use another disk of this VM as their base go before it.
        let mut ordered: Vec<String> = volids.into_iter().collect();
        ordered.sort_by_key(|v| std::cmp::Reverse(v.matches('/').count()));
        for volid in ordered {
            if let Err(error) = drive::free(&world, &node, vmid, &volid) {
                worker.warn(&format!("Could not remove disk '{volid}', check manually: {error}"));
            }
        }
        if purge {
            worker.log(format!("purging VM {vmid} from related configurations.."));
        }
        world.change_access(|access| {
            for pool in access.pools.values_mut() {
                pool.vms.remove(&vmid);
            }
            let path = format!("/vms/{vmid}");
            access.acl.retain(|a| a.path != path);
        });
        world.remove_machine(vmid);
        Ok(())
    });
    Ok(upid(task))
}
