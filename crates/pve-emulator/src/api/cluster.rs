//! `/version` and `/cluster`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::qemu::summary;
use super::{Call, Outcome, Routes, nodes};
use crate::state::World;
use crate::wire::Failure;

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /version", version);
    routes.add("GET /cluster", async |_| {
        Ok(json!(
            [
                "backup",
                "config",
                "firewall",
                "ha",
                "jobs",
                "log",
                "mapping",
                "metrics",
                "nextid",
                "notifications",
                "options",
                "replication",
                "resources",
                "sdn",
                "status",
                "tasks"
            ]
            .map(|n| json!({ "name": n }))
        )
        .into())
    });
    routes.add("GET /cluster/nextid", next_id);
    routes.add("GET /cluster/resources", resources);
    routes.add("GET /cluster/status", status);
    routes.add("GET /cluster/tasks", super::tasks::cluster_tasks);
    routes.add("GET /cluster/options", async |_| Ok(json!({}).into()));
}

/// The answer of `/version`, which `/nodes/{node}/version` repeats.
pub(super) async fn version(call: Call) -> Outcome {
    let settings = &call.world.settings;
    Ok(
        json!({ "version": settings.version, "release": settings.release(), "repoid": settings.edition.repoid() })
            .into(),
    )
}

async fn next_id(call: Call) -> Outcome {
    let machines = call.world.machines();
    if let Some(wanted) = call.params.int("vmid").and_then(|v| u32::try_from(v).ok()) {
        if machines.contains_key(&wanted) {
            return Err(Failure::param("vmid", format!("VM {wanted} already exists")));
        }
        return Ok(wanted.to_string().into());
    }
    let free = (100..1_000_000).find(|id| !machines.contains_key(id));
    free.map(|id| id.to_string().into())
        .ok_or_else(|| Failure::die("unable to get any free VMID in range [100, 1000000]"))
}

/// The entries of all VMs, with their vmids.
pub(super) fn vm_resources(world: &Arc<World>) -> Vec<(u32, Value)> {
    let machines = world.machines();
    machines
        .iter()
        .map(|(vmid, machine)| {
            let s = summary(world, *vmid, machine);
            let mut entry = json!({
                "id": format!("qemu/{vmid}"), "type": "qemu", "vmid": vmid, "node": machine.node,
                "name": s.name, "status": s.status, "template": i32::from(machine.is_template()),
                "maxcpu": s.cpus, "cpu": s.cpu, "maxmem": s.maxmem, "mem": s.mem, "memhost": s.mem,
                "maxdisk": s.maxdisk, "disk": 0, "uptime": s.uptime, "netin": 0, "netout": 0,
                "diskread": s.diskread, "diskwrite": s.diskwrite,
            });
            if let Some(tags) = machine.config.get("tags") {
                entry["tags"] = tags.as_str().into();
            }
            if let Some(lock) = machine.config.get("lock") {
                entry["lock"] = lock.as_str().into();
            }
            // Nobody hears of the guests of a node that is away.
            if !world.nodes.online(&machine.node) {
                entry = away(&entry);
            }
            (*vmid, entry)
        })
        .collect()
}

/// What is left of a guest's entry when its node is away: where it is, not how it does.
///
/// # Source
/// `PVE::API2Tools::extract_vm_stats`: figures come with the node's own broadcasts, and without them the status is
/// `unknown`. Name, tags and lock stand in the configuration, which every node has.
fn away(entry: &Value) -> Value {
    let mut left = json!({ "status": "unknown" });
    for key in ["id", "type", "vmid", "node", "name", "template", "tags", "lock"] {
        if let Some(value) = entry.get(key) {
            left[key] = value.clone();
        }
    }
    left
}

async fn resources(call: Call) -> Outcome {
    let kind = call.params.text("type");
    let wants = |name: &str| kind.as_deref().is_none_or(|k| k == name);
    let mut list: Vec<Value> = Vec::new();
    if wants("vm") {
        let access = call.world.access();
        let pool_of = |vmid: u32| access.pools.iter().find(|(_, pool)| pool.vms.contains(&vmid));
        let shown = access.on_vms(&call.who, "VM.Audit");
        for (vmid, mut entry) in vm_resources(&call.world) {
            if !shown(vmid) {
                continue;
            }
            if let Some((pool, _)) = pool_of(vmid) {
                entry["pool"] = pool.as_str().into();
            }
            list.push(entry);
        }
    }
    if wants("node") {
        let access = call.world.access();
        for node in &call.world.settings.nodes {
            let mut entry = nodes::entry(&call.world, node);
            if !call.world.nodes.online(node) {
                // The entry of a node that is away has no figures.
            } else if access.has(&call.who, &format!("/nodes/{node}"), "Sys.Audit") {
                entry["cgroup-mode"] = 1.into();
            } else {
                entry = json!({ "id": entry["id"], "node": node, "type": "node", "status": "online", "level": "", "cgroup-mode": 1 });
            }
            if let Some(map) = entry.as_object_mut() {
                map.remove("ssl_fingerprint");
            }
            list.push(entry);
        }
    }
    if wants("storage") {
        let access = call.world.access();
        let storages = call.world.storages();
        for spec in storages.specs() {
            if !access.has(&call.who, &format!("/storage/{}", spec.id), "Datastore.Audit") {
                continue;
            }
            for node in &call.world.settings.nodes {
                if !call.world.nodes.online(node) {
                    list.push(json!({
                        "id": format!("storage/{node}/{}", spec.id), "type": "storage", "storage": spec.id, "node": node,
                        "status": "unknown", "plugintype": spec.type_name(), "content": spec.content.join(","),
                        "shared": i32::from(spec.shared),
                    }));
                    continue;
                }
                list.push(json!({
                    "id": format!("storage/{node}/{}", spec.id), "type": "storage", "storage": spec.id, "node": node,
                    "status": "available", "plugintype": spec.type_name(), "content": spec.content.join(","),
                    "shared": i32::from(spec.shared), "maxdisk": spec.total_bytes, "disk": storages.used(node, spec),
                }));
            }
        }
    }
    // The zone of the node's own bridges stands in the whole list and under its own type.
    if kind.is_none() || kind.as_deref() == Some("sdn") {
        let access = call.world.access();
        for node in &call.world.settings.nodes {
            let online = call.world.nodes.online(node);
            if online && access.has_any(&call.who, "/sdn/zones/localnetwork", &["SDN.Audit"]) {
                list.push(json!({
                    "id": format!("network/{node}/zone/localnetwork"), "type": "network", "network": "localnetwork",
                    "network-type": "zone", "node": node, "status": "ok",
                }));
            }
        }
    }
    Ok(Value::from(list).into())
}

async fn status(call: Call) -> Outcome {
    let nodes = &call.world.settings.nodes;
    let several = nodes.len() > 1;
    let mut list: Vec<Value> = Vec::new();
    if several {
        list.push(json!({ "type": "cluster", "id": "cluster", "name": "emulated", "version": 1, "nodes": nodes.len(), "quorate": i32::from(call.world.nodes.quorate()) }));
    }
    for (index, node) in nodes.iter().enumerate() {
        list.push(json!({
            "type": "node", "id": format!("node/{node}"), "name": node, "online": i32::from(call.world.nodes.online(node)), "level": "",
            "ip": nodes::address(index), "local": i32::from(**node == *call.local),
            // A node on its own has no number.
            "nodeid": if several { index + 1 } else { 0 },
        }));
    }
    Ok(Value::from(list).into())
}
