//! `GET /nodes/{node}/qemu` and `status/current`.

use serde_json::{Map, Value, json};

use super::drive::{disks, volid_of};
use super::options::{boot_order, indexed, is_cdrom, is_cloudinit};
use crate::api::{Call, Outcome, Routes};
use crate::engine::{DriveCounters, Running};
use crate::schema::parse_boolean;
use crate::state::{Machine, World};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /nodes/{node}/qemu", list);
    routes.add("GET /nodes/{node}/qemu/{vmid}/status/current", current);
}

/// The figures of a VM that several calls show.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) name: String,
    pub(crate) status: &'static str,
    pub(crate) cpus: u64,
    pub(crate) cpu: f64,
    /// Bytes.
    pub(crate) maxmem: u64,
    pub(crate) mem: u64,
    pub(crate) maxdisk: u64,
    /// Seconds.
    pub(crate) uptime: u64,
    pub(crate) diskread: u64,
    pub(crate) diskwrite: u64,
    running: Option<Running>,
}

/// Reads the figures of a VM.
pub(crate) fn summary(world: &World, vmid: u32, machine: &Machine) -> Summary {
    let config = &machine.config;
    let running = world.engine.status(vmid);
    let number = |key: &str| config.get(key).and_then(|v| v.parse::<u64>().ok());
    // The schema has no upper end.
    let cores = number("cores")
        .unwrap_or(1)
        .saturating_mul(number("sockets").unwrap_or(1));
    let memory = config.get("memory").and_then(|m| {
        let text = m.split(',').next().unwrap_or_default();
        text.strip_prefix("current=").unwrap_or(text).parse::<u64>().ok()
    });
    // The first disk of the boot order is the one whose size counts.
    let order = boot_order(config);
    let boot_disk = order
        .iter()
        .filter_map(|device| config.get(device).map(|text| (device, text)))
        .find(|(device, text)| {
            matches!(indexed(device), Some(("ide" | "scsi" | "virtio" | "sata", _)))
                && !is_cdrom(text)
                && !is_cloudinit(text)
        })
        .and_then(|(_, text)| volid_of(text));
    let maxdisk = boot_disk
        .and_then(|volid| world.storages().find(&machine.node, volid).map(|(_, v)| v.size_bytes))
        .unwrap_or(0);
    let counters =
        |pick: fn(&DriveCounters) -> u64| running.as_ref().map_or(0, |r| r.drive_bytes.values().map(pick).sum());
    Summary {
        name: machine.name(vmid),
        status: if running.is_some() { "running" } else { "stopped" },
        cpus: number("vcpus").unwrap_or(cores),
        cpu: running.as_ref().map_or(0.0, |r| r.cpu),
        maxmem: memory.unwrap_or(512).saturating_mul(1 << 20),
        mem: running.as_ref().map_or(0, |r| r.mem_bytes),
        maxdisk,
        uptime: running.as_ref().map_or(0, |r| r.uptime_s),
        diskread: counters(|c| c.read),
        diskwrite: counters(|c| c.written),
        running,
    }
}

/// An entry of the list; `status/current` adds to it.
fn entry(world: &World, vmid: u32, machine: &Machine) -> (Map<String, Value>, Summary) {
    let s = summary(world, vmid, machine);
    let config = &machine.config;
    let body = json!({
        "vmid": vmid, "name": s.name, "status": s.status, "cpus": s.cpus, "cpu": s.cpu, "maxmem": s.maxmem,
        "mem": s.mem, "memhost": s.mem, "maxdisk": s.maxdisk, "disk": 0, "uptime": s.uptime, "netin": 0, "netout": 0,
    });
    let mut body = body.as_object().cloned().unwrap_or_default();
    for key in ["tags", "lock"] {
        if let Some(text) = config.get(key) {
            body.insert(key.into(), text.as_str().into());
        }
    }
    if machine.is_template() {
        body.insert("template".into(), 1.into());
    }
    if config.keys().any(|k| matches!(indexed(k), Some(("serial", _)))) {
        body.insert("serial".into(), 1.into());
    }
    if let Some(running) = &s.running {
        body.insert("pid".into(), running.pid.into());
        for area in ["cpu", "io", "memory"] {
            for kind in ["some", "full"] {
                body.insert(format!("pressure{area}{kind}"), 0.into());
            }
        }
    }
    (body, s)
}

async fn list(call: Call) -> Outcome {
    let node = call.node();
    let access = call.world.access();
    let shown = access.on_vms(&call.who, "VM.Audit");
    let machines = call.world.machines();
    let list: Vec<Value> = machines
        .iter()
        .filter(|(_, m)| m.node == node)
        .filter(|(vmid, _)| shown(**vmid))
        .map(|(vmid, machine)| entry(&call.world, *vmid, machine).0.into())
        .collect();
    Ok(Value::from(list).into())
}

async fn current(call: Call) -> Outcome {
    let machine = call.machine()?;
    let (mut body, s) = entry(&call.world, call.vmid(), &machine);
    let config = &machine.config;
    body.insert("ha".into(), json!({ "managed": 0 }));
    let qmp = s.running.as_ref().map_or("stopped", |running| running.state.as_str());
    body.insert("qmpstatus".into(), qmp.into());
    if agent_enabled(config) {
        body.insert("agent".into(), 1.into());
    }
    if let Some(vga) = config.get("vga") {
        let clipboard = vga.split(',').find_map(|p| p.strip_prefix("clipboard="));
        body.insert("clipboard".into(), clipboard.map_or(Value::Null, Value::from));
        if vga.starts_with("qxl") {
            body.insert("spice".into(), 1.into());
        }
    }
    if let Some(running) = &s.running {
        let qemu = call.world.settings.edition.qemu();
        let machine = qemu.rsplit_once('.').map_or(qemu, |(release, _)| release);
        let machine_type = if config.get("machine").is_some_and(|m| m.contains("q35")) {
            "pc-q35"
        } else {
            "pc-i440fx"
        };
        body.insert("diskread".into(), s.diskread.into());
        body.insert("diskwrite".into(), s.diskwrite.into());
        let (machine, qemu) = match &running.qemu {
            Some(real) => (real.machine.clone(), real.version.clone()),
            None => (format!("{machine_type}-{machine}+pve0"), qemu.to_owned()),
        };
        body.insert("running-machine".into(), machine.into());
        body.insert("running-qemu".into(), qemu.into());
        let blocks = block_statistics(config, running);
        if !blocks.is_empty() {
            body.insert("blockstat".into(), blocks.into());
        }
    }
    Ok(Value::from(body).into())
}

/// What QEMU counts per drive; the members that clients read carry figures, the others are zero.
fn block_statistics(config: &crate::state::ConfigMap, running: &Running) -> Map<String, Value> {
    let mut slots: Vec<String> = disks(config).into_iter().map(|(key, _)| key).collect();
    let media = config
        .iter()
        .filter(|(k, t)| super::options::is_drive(k) && is_cdrom(t) && volid_of(t).is_some());
    slots.extend(media.map(|(k, _)| k.clone()));
    if config.get("bios").is_some_and(|b| b == "ovmf") {
        slots.push("pflash0".into());
    }
    let mut blocks = Map::new();
    for slot in slots {
        let counters = running.drive_bytes.get(&slot).copied().unwrap_or_default();
        let mut block = json!({ "account_failed": true, "account_invalid": true, "timed_stats": [],
            "rd_bytes": counters.read, "wr_bytes": counters.written,
            "rd_operations": counters.read.div_ceil(4096), "wr_operations": counters.written.div_ceil(4096) });
        for zero in [
            "failed_flush_operations",
            "failed_rd_operations",
            "failed_unmap_operations",
            "failed_wr_operations",
            "flush_operations",
            "flush_total_time_ns",
            "invalid_flush_operations",
            "invalid_rd_operations",
            "invalid_unmap_operations",
            "invalid_wr_operations",
            "rd_merged",
            "rd_total_time_ns",
            "unmap_bytes",
            "unmap_merged",
            "unmap_operations",
            "unmap_total_time_ns",
            "wr_highest_offset",
            "wr_merged",
            "wr_total_time_ns",
        ] {
            block[zero] = 0.into();
        }
        blocks.insert(slot, block);
    }
    blocks
}

/// Whether the option `agent` is on.
pub(super) fn agent_enabled(config: &crate::state::ConfigMap) -> bool {
    let first = config.get("agent").and_then(|a| a.split(',').next());
    first
        .and_then(|f| parse_boolean(f.strip_prefix("enabled=").unwrap_or(f)))
        .unwrap_or(false)
}
