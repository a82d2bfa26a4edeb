//! `/nodes`: nodes, their status, networks and capabilities.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Call, Outcome, Routes, cluster};
use crate::schema::Schema;
use crate::state::World;
use crate::wire::Failure;

/// QEMU's CPU models as PVE 9.2 lists them, with their vendors.
const CPU_MODELS: &str = include_str!("cpu_models.json");

/// Memory of an emulated node, in bytes.
const MEMORY: u64 = 64 << 30;

/// Root file system of an emulated node, in bytes.
const ROOT_FS: u64 = 500 << 30;

/// CPUs of an emulated node.
const CPUS: u32 = 16;

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /nodes", list);
    routes.add("GET /nodes/{node}", async |_| {
        let hidden = ["execute", "vncwebsocket"];
        let names = Schema::get().children("/nodes/{node}").into_iter();
        let shown = names
            .filter(|n| !hidden.contains(&n.as_str()))
            .map(|n| json!({ "name": n }));
        Ok(Value::from(shown.collect::<Vec<Value>>()).into())
    });
    routes.add("GET /nodes/{node}/status", status);
    routes.add("GET /nodes/{node}/version", cluster::version);
    routes.add("GET /nodes/{node}/time", async |_| {
        let now = crate::state::now();
        Ok(json!({ "time": now, "localtime": now, "timezone": "UTC" }).into())
    });
    // There are no containers here, which is an answer: inventories ask every node for both kinds of guests.
    routes.add("GET /nodes/{node}/lxc", async |_| Ok(json!([]).into()));
    routes.add("GET /nodes/{node}/network", networks);
    routes.add("GET /nodes/{node}/network/{iface}", network);
    routes.add("GET /nodes/{node}/capabilities/qemu/cpu", cpus);
    routes.add("GET /nodes/{node}/capabilities/qemu/machines", machines);
}

/// The children of an API directory, each as `{"KEY": name}`.
pub(super) fn index(template: &str, key: &str) -> crate::wire::Answer {
    let names: Vec<Value> = Schema::get()
        .children(template)
        .into_iter()
        .map(|n| json!({ key: n }))
        .collect();
    Value::from(names).into()
}

fn models() -> &'static BTreeMap<String, String> {
    static MODELS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    MODELS.get_or_init(|| serde_json::from_str(CPU_MODELS).expect("embedded file, parsed by the tests"))
}

/// Names of the CPU models that a VM may have.
pub(crate) fn cpu_models() -> Vec<&'static str> {
    models().keys().map(String::as_str).collect()
}

/// The node's address in its own network; 192.0.2.0/24 is for documentation.
pub(super) fn address(index: usize) -> String {
    format!("192.0.2.{}", index + 2)
}

/// A node as lists show it to someone who may see its figures.
pub(super) fn entry(world: &World, node: &str) -> Value {
    if !world.nodes.online(node) {
        return json!({
            "id": format!("node/{node}"), "node": node, "type": "node", "status": "offline", "level": "",
            "ssl_fingerprint": world.settings.fingerprint,
        });
    }
    let running = used_memory(world, node);
    json!({
        "id": format!("node/{node}"), "node": node, "type": "node", "status": "online", "level": "",
        "ssl_fingerprint": world.settings.fingerprint, "uptime": world.settings.started.elapsed().as_secs() + 1,
        "cpu": 0.01, "maxcpu": CPUS, "mem": running, "maxmem": MEMORY, "disk": 8_u64 << 30, "maxdisk": ROOT_FS,
    })
}

fn used_memory(world: &World, node: &str) -> u64 {
    let own = 2_u64 << 30;
    let machines = world.machines();
    let of_node = machines.iter().filter(|(_, m)| m.node == node);
    let guests: u64 = of_node
        .filter_map(|(vmid, _)| world.engine.status(*vmid))
        .map(|s| s.mem_bytes)
        .sum();
    (own + guests).min(MEMORY)
}

async fn list(call: Call) -> Outcome {
    let access = call.world.access();
    let nodes: Vec<Value> = call
        .world
        .settings
        .nodes
        .iter()
        .map(|node| {
            let full = entry(&call.world, node);
            if access.has(&call.who, &format!("/nodes/{node}"), "Sys.Audit") {
                return full;
            }
            json!({
                "id": full["id"], "node": node, "type": "node", "status": full["status"], "level": "",
                "ssl_fingerprint": full["ssl_fingerprint"],
            })
        })
        .collect();
    Ok(Value::from(nodes).into())
}

async fn status(call: Call) -> Outcome {
    let world = &call.world;
    let used = used_memory(world, &call.node());
    let version = &world.settings.version;
    let disk_used = 8_u64 << 30;
    Ok(json!({
        "cpu": 0.01, "wait": 0, "idle": 0, "uptime": world.settings.started.elapsed().as_secs() + 1,
        "loadavg": ["0.00", "0.00", "0.00"], "ksm": { "shared": 0 },
        "memory": { "total": MEMORY, "used": used, "free": MEMORY - used, "available": MEMORY - used },
        "swap": { "total": 0, "used": 0, "free": 0 },
        "rootfs": { "total": ROOT_FS, "used": disk_used, "free": ROOT_FS - disk_used, "avail": ROOT_FS - disk_used },
        "boot-info": { "mode": "efi", "secureboot": 0 },
        "cpuinfo": {
            "model": "Emulated CPU", "vendor": "AuthenticAMD", "family": "25", "sockets": 1, "cores": CPUS, "cpus": CPUS,
            "mhz": "3000.000", "hvm": "1", "user_hz": 100,
            "flags": "fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt aes avx avx2 bmi1 bmi2 fma movbe svm",
        },
        "current-kernel": {
            "sysname": "Linux", "release": "6.17.2-1-pve", "machine": "x86_64",
            "version": "#1 SMP PREEMPT_DYNAMIC PMX 6.17.2-1",
        },
        "kversion": "Linux 6.17.2-1-pve #1 SMP PREEMPT_DYNAMIC PMX 6.17.2-1",
        "pveversion": format!("pve-manager/{version}/{}", world.settings.edition.repoid()),
    })
    .into())
}

/// The network interfaces of a node: a port and the bridge that every installation has.
fn interfaces(call: &Call) -> Vec<Value> {
    let index = call
        .world
        .settings
        .nodes
        .iter()
        .position(|n| *n == call.node())
        .unwrap_or_default();
    let address = address(index);
    vec![
        json!({
            "iface": "eth0", "type": "eth", "active": 1, "exists": 1, "method": "manual", "method6": "manual",
            "families": ["inet"],
        }),
        json!({
            "iface": "vmbr0", "type": "bridge", "active": 1, "autostart": 1, "method": "static", "method6": "manual",
            "families": ["inet"], "address": address, "netmask": "24", "cidr": format!("{address}/24"),
            "bridge_ports": "", "bridge_stp": "off", "bridge_fd": "0", "priority": 3,
        }),
    ]
}

async fn networks(call: Call) -> Outcome {
    let kind = call.params.text("type");
    let fits = |interface: &Value| match kind.as_deref() {
        None => true,
        Some("any_bridge" | "any_local_bridge" | "include_sdn") => interface["type"] == "bridge",
        Some(kind) => interface["type"] == kind,
    };
    let access = call.world.access();
    let visible = |interface: &Value| {
        let path = format!(
            "/sdn/zones/localnetwork/{}",
            interface["iface"].as_str().unwrap_or_default()
        );
        kind.is_none() || access.has_any(&call.who, &path, &["SDN.Audit", "SDN.Use"])
    };
    let list: Vec<Value> = interfaces(&call)
        .into_iter()
        .filter(|i| fits(i) && visible(i))
        .collect();
    Ok(Value::from(list).into())
}

async fn network(call: Call) -> Outcome {
    let wanted = call.params.required("iface")?;
    let found = interfaces(&call).into_iter().find(|i| i["iface"] == wanted.as_str());
    let mut interface = found.ok_or_else(|| Failure::param("iface", "interface does not exist"))?;
    if let Some(map) = interface.as_object_mut() {
        map.remove("iface");
        map.remove("exists");
    }
    Ok(interface.into())
}

async fn cpus(_call: Call) -> Outcome {
    let list: Vec<Value> = models()
        .iter()
        .map(|(name, vendor)| json!({ "name": name, "vendor": vendor, "custom": 0 }))
        .collect();
    Ok(Value::from(list).into())
}

async fn machines(_call: Call) -> Outcome {
    let mut list: Vec<Value> = Vec::new();
    for version in ["10.1", "10.0+pve1", "10.0"] {
        for (kind, prefix) in [("i440fx", "pc-i440fx"), ("q35", "pc-q35")] {
            let mut entry = json!({ "id": format!("{prefix}-{version}"), "type": kind, "version": version });
            if version.ends_with("+pve1") {
                entry["changes"] = "Set host_mtu vNIC option even with default value for migration compat.".into();
            }
            list.push(entry);
        }
    }
    Ok(Value::from(list).into())
}
