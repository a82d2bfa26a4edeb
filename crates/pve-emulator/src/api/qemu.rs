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
mod unfinished;

use serde_json::Value;

use super::{Call, Routes, nodes};
use crate::wire::{Failure, Shape};

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
fn skiplock(call: &Call) -> Result<bool, Failure> {
    root_only(call, &["skiplock"])?;
    Ok(call.params.flag("skiplock") == Some(true))
}

/// Refuses parameters that only root with a ticket may give, unless they say nothing.
///
/// # Source
/// `$get_root_param` in `PVE::API2::Qemu`.
fn root_only(call: &Call, names: &[&str]) -> Result<(), Failure> {
    match given(call, names) {
        Some(name) if !call.who.is_root() => Err(Failure::param(name, "Only root may use this option.")),
        _ => Ok(()),
    }
}

/// Refuses what no guest here can do, rather than to leave it out: moving between hosts, the storage's own activation.
fn not_emulated(call: &Call, names: &[&str]) -> Result<(), Failure> {
    match given(call, names) {
        Some(name) => Err(Failure::new(501, format!("parameter '{name}' is not emulated")).with_shape(Shape::JsonBare)),
        None => Ok(()),
    }
}

/// The first of these parameters that has a value which Perl takes for true.
fn given<'a>(call: &Call, names: &[&'a str]) -> Option<&'a str> {
    let says = |name: &&&str| {
        call.params
            .text(name)
            .is_some_and(|value| !value.is_empty() && value != "0")
    };
    names.iter().find(says).copied()
}

/// `null` or the UPID.
fn upid(text: String) -> crate::wire::Answer {
    Value::String(text).into()
}
