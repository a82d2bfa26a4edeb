//! `/nodes/{node}/qemu`: virtual machines.

mod agent;
mod clone;
mod cloudinit;
mod config;
mod console;
mod create;
mod delete;
mod drive;
mod options;
mod power;
mod proxy;
mod resize;
mod snapshot;
mod status;
mod template;
mod terminal;

use serde_json::Value;

use super::{Call, Routes, nodes};

pub(super) use drive::{MAX_SIZE, virtual_size};
pub(crate) use power::adopt;
pub(super) use status::summary;

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /nodes/{node}/qemu/{vmid}", async |call: Call| {
        call.machine()?;
        Ok(nodes::index("/nodes/{node}/qemu/{vmid}", "subdir"))
    });
    routes.add("GET /nodes/{node}/qemu/{vmid}/status", async |call: Call| {
        call.machine()?;
        Ok(nodes::index("/nodes/{node}/qemu/{vmid}/status", "subdir"))
    });
    agent::add(routes);
    clone::add(routes);
    cloudinit::add(routes);
    config::add(routes);
    console::add(routes);
    create::add(routes);
    delete::add(routes);
    power::add(routes);
    proxy::add(routes);
    resize::add(routes);
    snapshot::add(routes);
    status::add(routes);
    template::add(routes);
}

/// `VM is locked (backup)`, unless the caller may skip it.
fn check_lock(config: &crate::state::ConfigMap, skiplock: bool) -> Result<(), String> {
    match config.get("lock") {
        Some(lock) if !skiplock => Err(format!("VM is locked ({lock})")),
        _ => Ok(()),
    }
}

/// The parameter `skiplock`, which is for root with a ticket only (`FACTS` 14).
fn skiplock(call: &Call) -> Result<bool, crate::wire::Failure> {
    match call.params.flag("skiplock") {
        Some(true) if !call.who.is_root() => Err(crate::wire::Failure::param(
            "skiplock",
            "Only root may use this option.",
        )),
        flag => Ok(flag == Some(true)),
    }
}

/// `null` or the UPID.
fn upid(text: String) -> crate::wire::Answer {
    Value::String(text).into()
}
