//! `GET`, `PUT` and `POST` of `/nodes/{node}/qemu/{vmid}/config`, and `pending`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::create::options;
use super::drive::{self, Plan};
use super::options::{
    boot_order, boot_text, check_bridge, check_privilege, is_cdrom, is_cloudinit, is_drive, is_live, is_unused,
    normalise,
};
use super::{check_lock, skiplock, upid};
use crate::api::{Call, Outcome, Routes};
use crate::state::{ConfigMap, Machine, World, typed, typed_map};
use crate::tasks::Worker;
use crate::wire::{Answer, Failure};

const NOT_OPTIONS: [&str; 9] = [
    "node",
    "vmid",
    "delete",
    "revert",
    "force",
    "digest",
    "skiplock",
    "background_delay",
    "import-working-storage",
];

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /nodes/{node}/qemu/{vmid}/config", get);
    routes.add("PUT /nodes/{node}/qemu/{vmid}/config", put);
    routes.add("POST /nodes/{node}/qemu/{vmid}/config", post);
    routes.add("GET /nodes/{node}/qemu/{vmid}/pending", pending);
}

async fn get(call: Call) -> Outcome {
    let machine = call.machine()?;
    if let Some(name) = call.params.text("snapshot") {
        let snapshot = machine.snapshots.get(&name);
        let snapshot = snapshot.ok_or_else(|| Failure::die(format!("snapshot '{name}' does not exist")))?;
        let mut body = super::snapshot::shown(snapshot);
        body.insert("digest".into(), machine.digest().into());
        return Ok(Value::from(body).into());
    }
    let mut config = if call.params.flag("current") == Some(true) {
        machine.config.clone()
    } else {
        machine.effective()
    };
    if config.get("description").is_some_and(String::is_empty) {
        config.remove("description");
    }
    let mut body = typed_map(&config);
    body.insert("digest".into(), machine.digest().into());
    Ok(Value::from(body).into())
}

async fn pending(call: Call) -> Outcome {
    let machine = call.machine()?;
    let keys: BTreeSet<&String> = machine.config.keys().chain(machine.pending.keys()).collect();
    let mut list: Vec<Value> = Vec::new();
    let shown = |key: &str, text: &str| {
        if key == "cipassword" {
            "**********".into()
        } else {
            typed(key, text)
        }
    };
    for key in keys {
        let mut entry = Map::new();
        entry.insert("key".into(), key.as_str().into());
        if let Some(value) = machine.config.get(key) {
            entry.insert("value".into(), shown(key, value));
        }
        if let Some(value) = machine.pending.get(key) {
            entry.insert("pending".into(), shown(key, value));
        }
        if machine.pending_delete.contains(key) {
            entry.insert("delete".into(), 1.into());
        }
        list.push(entry.into());
    }
    list.push(json!({ "key": "digest", "value": machine.digest() }));
    Ok(Value::from(list).into())
}

/// A checked change of a VM's configuration.
#[derive(Clone, Debug)]
struct Change {
    set: ConfigMap,
    plans: BTreeMap<String, Plan>,
    delete: Vec<String>,
    revert: Vec<String>,
    digest: Option<String>,
    skiplock: bool,
}

/// Checks everything that needs no look at the VM itself, in PVE's order.
fn read_change(call: &Call) -> Result<Change, Failure> {
    let vmid = call.vmid();
    let skiplock = skiplock(call)?;
    let mut set = options(call, &NOT_OPTIONS);
    if let Some(cdrom) = set.remove("cdrom") {
        set.insert(
            "ide2".into(),
            if cdrom.contains("media=") {
                cdrom
            } else {
                format!("{cdrom},media=cdrom")
            },
        );
    }
    let delete = call.params.list("delete");
    let revert = call.params.list("revert");
    if set.is_empty() && delete.is_empty() && revert.is_empty() {
        return Err(Failure::die("no options specified"));
    }
    let endpoint = call
        .world
        .settings
        .schema()
        .find("PUT", "/nodes/x/qemu/100/config")
        .map(|f| f.endpoint);
    for (name, list) in [("delete", &delete), ("revert", &revert)] {
        for option in list {
            if set.contains_key(option) {
                let text = match name {
                    "delete" => format!("you can't use '-{option}' and -delete {option}' at the same time"),
                    _ => format!("you can't use '-{option}' and '-revert {option}' at the same time"),
                };
                return Err(Failure::param(name, text));
            }
            let known =
                endpoint.is_some_and(|e| e.property(option).is_some()) && !NOT_OPTIONS.contains(&option.as_str());
            if !known && !matches!(option.as_str(), "parent" | "vmstate" | "snaptime" | "meta") {
                return Err(Failure::param(name, format!("unknown option '{option}'")));
            }
        }
    }
    let mut plans = BTreeMap::new();
    if let Some(keys) = set.get("sshkeys") {
        super::cloudinit::check_keys(keys)?;
    }
    let config = call
        .world
        .machine(&call.node(), vmid)
        .map(|m| m.effective())
        .unwrap_or_default();
    for key in delete.iter().chain(&revert) {
        check_privilege(call, vmid, key, config.get(key).map(String::as_str))?;
    }
    for (key, text) in &set {
        check_privilege(call, vmid, key, Some(text))?;
        check_bridge(call, key, text)?;
    }
    for (key, text) in set.iter().filter(|(k, _)| is_drive(k)) {
        let plan = drive::plan(key, text)?;
        drive::check_access(call, vmid, key, text, &plan)?;
        plans.insert(key.clone(), plan);
    }
    Ok(Change {
        set,
        plans,
        delete,
        revert,
        digest: call.params.text("digest"),
        skiplock,
    })
}

/// Digest and lock, which both calls check before they return.
fn check_now(machine: &Machine, change: &Change) -> Result<(), Failure> {
    if change
        .digest
        .as_ref()
        .is_some_and(|d| !d.is_empty() && *d != machine.digest())
    {
        return Err(Failure::die("checksum mismatch (file change by other user?)"));
    }
    check_lock(&machine.config, change.skiplock).map_err(Failure::die)
}

async fn put(call: Call) -> Outcome {
    let change = read_change(&call)?;
    call.machine()?;
    let _lock = call.world.lock_vm(call.vmid()).await.map_err(Failure::die)?;
    check_now(&call.machine()?, &change)?;
    apply(&call.world, &call.node(), call.vmid(), &change, None).await?;
    Ok(Answer::null())
}

async fn post(call: Call) -> Outcome {
    let change = read_change(&call)?;
    check_now(&call.machine()?, &change)?;
    let (node, vmid) = (call.node(), call.vmid());
    let line = {
        let mut words = String::new();
        for (key, text) in &change.set {
            let text = if key == "cipassword" { "<hidden>" } else { text };
            let _ = write!(words, " -{key} {text}");
        }
        for (name, list) in [("delete", &change.delete), ("revert", &change.revert)] {
            if !list.is_empty() {
                let _ = write!(words, " -{name} {}", list.join(","));
            }
        }
        format!("update VM {vmid}:{words}")
    };
    let task = call.task("qmconfig", &vmid.to_string(), |world, worker| async move {
        worker.log(line);
        let _lock = world.lock_vm(vmid).await?;
        world.spend(Duration::from_millis(50)).await;
        let machine = world.machine(&node, vmid).ok_or("the VM is gone")?;
        check_now(&machine, &change).map_err(|f| f.message)?;
        apply(&world, &node, vmid, &change, Some(&worker))
            .await
            .map_err(task_text)
    });
    if let Some(delay) = call.params.int("background_delay").and_then(|d| u64::try_from(d).ok())
        && let Some(running) = call.world.tasks.get(&task)
        && running.wait(Duration::from_secs(delay)).await
    {
        return match running.end() {
            Some((_, exit)) if exit != "OK" => Err(Failure::die(exit)),
            _ => Ok(Answer::null()),
        };
    }
    Ok(upid(task))
}

/// A refused change as the last line of a task.
fn task_text(failure: Failure) -> String {
    let mut text = failure.message;
    for (key, error) in failure.errors {
        let _ = write!(text, "\n{key}: {}", error.trim_end());
    }
    text
}

/// Carries a change out. What a running VM cannot take at once becomes pending.
async fn apply(
    world: &Arc<World>,
    node: &str,
    vmid: u32,
    change: &Change,
    worker: Option<&Worker>,
) -> Result<(), Failure> {
    let running = world.engine.status(vmid).is_some();
    let Some(mut machine) = world.machine(node, vmid) else {
        return Err(Failure::die("the VM is gone"));
    };
    let before = machine.effective();
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for option in &change.revert {
        machine.pending.remove(option);
        machine.pending_delete.remove(option);
    }
    for option in &change.delete {
        delete_option(world, node, vmid, option, running, &mut machine, &mut errors)?;
    }
    let drives = change.plans.iter().filter(|(_, p)| matches!(p, Plan::CloudInit { .. }));
    for (key, _) in drives {
        let other = before
            .iter()
            .find(|(k, text)| *k != key && is_cloudinit(text) && !change.delete.contains(k));
        if let Some((other, _)) = other {
            let text = format!("{key} - cloud-init drive is already attached at '{other}'");
            return Err(Failure::die(text));
        }
    }
    let mut made = Vec::new();
    let set = set_all(world, node, vmid, change, worker, running, &mut machine, &mut made).await;
    if let Err(failure) = set {
        // What was made for a change that is refused belongs to nobody.
        for volid in &made {
            drive::free(world, node, vmid, volid).map_err(Failure::die)?;
        }
        return Err(failure);
    }
    if !running {
        machine.apply_pending();
    }
    keep_detached(vmid, &before, &mut machine);
    if running {
        change_media(world, node, vmid, &machine).await.map_err(Failure::die)?;
    }
    world.change_machine(vmid, |m| *m = machine);
    if running && world.engine.status(vmid).is_none() {
        // It ended meanwhile, and its end saw the configuration as it was before.
        settle(world, vmid);
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::params(errors))
    }
}

/// Sets the options of a change; the volumes that were made for them are noted in `made`.
#[expect(clippy::too_many_arguments, reason = "the parts of one change, in one place")]
async fn set_all(
    world: &Arc<World>,
    node: &str,
    vmid: u32,
    change: &Change,
    worker: Option<&Worker>,
    running: bool,
    machine: &mut Machine,
    made: &mut Vec<String>,
) -> Result<(), Failure> {
    for (key, text) in &change.set {
        let value = match change.plans.get(key) {
            Some(plan) => drive::realise(world, node, vmid, key, plan, worker, made)
                .await
                .map_err(Failure::die)?,
            None => normalise(key, text)?,
        };
        if key == "boot" {
            check_boot(&value, machine)?;
        }
        if key == "template" && value == "0" {
            machine.config.remove("template");
            continue;
        }
        set_option(key, value, running, machine);
    }
    Ok(())
}

/// Puts other media into the CD-ROM drives of a running guest.
async fn change_media(world: &World, node: &str, vmid: u32, new: &Machine) -> Result<(), String> {
    let old = world.machine(node, vmid).map(|m| m.config).unwrap_or_default();
    for (slot, text) in new.config.iter().filter(|(k, t)| is_drive(k) && is_cdrom(t)) {
        let Some(before) = old.get(slot).filter(|t| is_cdrom(t)) else {
            continue;
        };
        match (drive::volid_of(before), drive::volid_of(text)) {
            (before, now) if before == now => {}
            (_, Some(volid)) => {
                let medium = super::power::medium(world, node, slot, text, volid)?;
                world.engine.change_medium(vmid, slot, Some(&medium)).await?;
            }
            (_, None) => world.engine.change_medium(vmid, slot, None).await?,
        }
    }
    Ok(())
}

fn check_boot(value: &str, machine: &Machine) -> Result<(), Failure> {
    let config = machine.effective();
    let wanted = boot_order(&ConfigMap::from([("boot".to_owned(), value.to_owned())]));
    match wanted.iter().find(|d| !config.contains_key(*d)) {
        Some(missing) => Err(Failure::die(format!(
            "invalid bootorder: device '{missing}' does not exist'"
        ))),
        None => Ok(()),
    }
}

fn delete_option(
    world: &Arc<World>,
    node: &str,
    vmid: u32,
    option: &str,
    running: bool,
    machine: &mut Machine,
    errors: &mut BTreeMap<String, String>,
) -> Result<(), Failure> {
    let config = machine.effective();
    let Some(value) = config.get(option).cloned() else {
        tracing::debug!(vmid, option, "not set, so nothing to delete");
        return Ok(());
    };
    if (is_drive(option) || is_unused(option)) && config.get("protection").is_some_and(|p| p == "1") {
        let what = if is_unused(option) { "unused disk" } else { "drive" };
        return Err(Failure::die(format!(
            "can't remove {what} '{option}' - protection mode enabled"
        )));
    }
    if is_unused(option) {
        drive::free(world, node, vmid, &value).map_err(Failure::die)?;
        machine.config.remove(option);
        return Ok(());
    }
    let in_boot = boot_order(&config).iter().any(|d| d == option);
    if in_boot {
        let left: Vec<String> = boot_order(&config).into_iter().filter(|d| d != option).collect();
        set_option("boot", boot_text(&left), running, machine);
    }
    machine.pending.remove(option);
    if !machine.config.contains_key(option) {
        return Ok(());
    }
    let boots_from_it = boot_order(&machine.config).iter().any(|d| d == option);
    if running && is_drive(option) && !is_cdrom(&value) && is_live(option, &machine.config) && boots_from_it {
        machine.pending_delete.insert(option.to_owned());
        errors.insert(
            option.to_owned(),
            format!("hotplug problem - can't unplug bootdisk '{option}'\n"),
        );
        return Ok(());
    }
    if running && !is_live(option, &machine.config) {
        machine.pending_delete.insert(option.to_owned());
    } else {
        machine.config.remove(option);
    }
    if is_cloudinit(&value)
        && !running
        && let Some(volid) = drive::volid_of(&value)
    {
        drive::free(world, node, vmid, volid).map_err(Failure::die)?;
    }
    Ok(())
}

fn set_option(key: &str, value: String, running: bool, machine: &mut Machine) {
    machine.pending_delete.remove(key);
    // A medium can change in a running VM's CD-ROM drive.
    let old = machine.config.get(key);
    let medium = is_drive(key) && is_cdrom(&value) && old.is_some_and(|o| is_cdrom(o));
    if !running || medium || is_live(key, &machine.config) {
        machine.pending.remove(key);
        if key == "description" && value.is_empty() {
            machine.config.remove(key);
            return;
        }
        if let Some(volid) = drive::volid_of(&value).filter(|_| is_drive(key)) {
            attach(volid, machine);
        }
        machine.config.insert(key.to_owned(), value);
    } else if old == Some(&value) {
        machine.pending.remove(key);
    } else {
        machine.pending.insert(key.to_owned(), value);
    }
}

/// A disk that gets a drive is no longer unused.
fn attach(volid: &str, machine: &mut Machine) {
    machine
        .config
        .retain(|key, text| !(is_unused(key) && drive::volid_of(text) == Some(volid)));
}

/// Disks of the VM that were in use and are not any more become `unusedN` (`FACTS` 38).
fn keep_detached(vmid: u32, before: &ConfigMap, machine: &mut Machine) {
    let in_use: BTreeSet<String> = machine
        .config
        .values()
        .chain(machine.pending.values())
        .filter_map(|text| drive::volid_of(text).map(str::to_owned))
        .collect();
    for (_, volid) in drive::disks(before) {
        let own = volid.split_once(':').map(|(_, name)| name).unwrap_or_default();
        if in_use.contains(&volid) || drive::owner_of(own) != Some(vmid) {
            continue;
        }
        let free = (0..256)
            .map(|n| format!("unused{n}"))
            .find(|key| !machine.config.contains_key(key));
        if let Some(key) = free {
            machine.config.insert(key, volid);
        }
    }
}

/// Puts waiting changes into effect when a VM's process has ended.
pub(super) fn settle(world: &World, vmid: u32) {
    world.change_machine(vmid, |machine| {
        machine.cloudinit = None;
        if machine.pending.is_empty() && machine.pending_delete.is_empty() {
            return;
        }
        let before = machine.config.clone();
        machine.apply_pending();
        keep_detached(vmid, &before, machine);
    });
}
