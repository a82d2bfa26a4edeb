//! `/nodes/{node}/qemu/{vmid}/status/*`: start, stop and what is between.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::options::{is_cdrom, is_cloudinit, is_drive};
use super::status::agent_enabled;
use super::{check_lock, cloudinit, config, drive, not_emulated, root_only, skiplock, upid};
use crate::api::{Call, Outcome, Routes, images};
use crate::engine::{Drive, Launch, OnExit, Powerdown, StartError};
use crate::state::{Identity, Machine, World};
use crate::tasks::Worker;
use crate::wire::Failure;

/// A guest gets so long to power off when the caller does not say.
///
/// # Source
/// `vm_stop` in PVE::QemuServer: 60 s.
const POWERDOWN: Duration = Duration::from_secs(60);

pub(super) fn add(routes: &mut Routes) {
    routes.add("POST /nodes/{node}/qemu/{vmid}/status/start", start);
    routes.add("POST /nodes/{node}/qemu/{vmid}/status/stop", stop);
    routes.add("POST /nodes/{node}/qemu/{vmid}/status/shutdown", shutdown);
    routes.add("POST /nodes/{node}/qemu/{vmid}/status/reboot", reboot);
    routes.add("POST /nodes/{node}/qemu/{vmid}/status/reset", reset);
    routes.add("POST /nodes/{node}/qemu/{vmid}/status/suspend", suspend);
    routes.add("POST /nodes/{node}/qemu/{vmid}/status/resume", resume);
}

/// What a start is told beside the configuration.
#[derive(Debug, Default)]
pub(super) struct StartOptions {
    skiplock: bool,
    /// The machine type for this once.
    machine: Option<String>,
    /// A CPU for this once, as QEMU names it.
    cpu: Option<String>,
    /// How long the process may take to come up.
    limit: Option<Duration>,
}

async fn start(call: Call) -> Outcome {
    root_only(
        &call,
        &[
            "stateuri",
            "skiplock",
            "migratedfrom",
            "migration_type",
            "migration_network",
            "targetstorage",
            "force-cpu",
            "nets-host-mtu",
        ],
    )?;
    not_emulated(
        &call,
        &[
            "stateuri",
            "migratedfrom",
            "migration_type",
            "migration_network",
            "targetstorage",
        ],
    )?;
    not_emulated(&call, &["nets-host-mtu", "with-conntrack-state"])?;
    let options = StartOptions {
        skiplock: call.params.flag("skiplock") == Some(true),
        machine: call.params.text("machine"),
        cpu: call.params.text("force-cpu"),
        limit: seconds(&call, "timeout"),
    };
    Ok(upid(spawn_start(
        &call.world,
        &call.node(),
        call.vmid(),
        &call.who,
        options,
    )))
}

fn seconds(call: &Call, name: &str) -> Option<Duration> {
    let seconds = call.params.int(name).and_then(|t| u64::try_from(t).ok());
    seconds.map(Duration::from_secs)
}

/// Starts a `qmstart` task.
pub(super) fn spawn_start(world: &Arc<World>, node: &str, vmid: u32, who: &Identity, options: StartOptions) -> String {
    let node = node.to_owned();
    let inner = Arc::clone(world);
    let task = world
        .tasks
        .spawn(&node.clone(), "qmstart", &vmid.to_string(), who, |worker| async move {
            let _lock = inner.lock_vm(vmid).await?;
            let mut machine = inner
                .machine(&node, vmid)
                .ok_or_else(|| format!("Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist"))?;
            if machine.is_template() {
                return Err("you can't start a vm if it's a template".into());
            }
            check_lock(&machine.config, options.skiplock)?;
            if inner.engine.status(vmid).is_some() {
                return Err(format!("VM {vmid} already running"));
            }
            if machine.config.get("bios").is_some_and(|b| b == "ovmf") && !machine.config.contains_key("efidisk0") {
                worker.warn("no efidisk configured! Using temporary efivars disk.");
            }
            if cloudinit::has_drive(&machine.config) {
                worker.log("generating cloud-init ISO");
                cloudinit::write(&inner, &node, vmid, &machine).await?;
                cloudinit::generated(&inner, vmid);
            }
            inner.spend(Duration::from_millis(800)).await;
            let once = [("machine", options.machine), ("cpu", options.cpu)];
            let once = once
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?)));
            machine.config.extend(once);
            let launched = launch(&inner, vmid, &machine, &worker);
            match options.limit.filter(|limit| !limit.is_zero()) {
                None => launched.await,
                Some(limit) => tokio::time::timeout(inner.patience(limit), launched)
                    .await
                    .unwrap_or_else(|_| Err("start failed: command failed: got timeout".into())),
            }
        });
    task.upid.to_string()
}

/// Hands a VM to the engine.
async fn launch(world: &Arc<World>, vmid: u32, machine: &Machine, worker: &Worker) -> Result<(), String> {
    let drives = media(world, machine)?;
    check_bridges(machine)?;
    let launch = Launch {
        vmid,
        node: machine.node.clone(),
        config: machine.config.clone(),
        drives,
        on_exit: on_exit(world),
    };
    let started = world.engine.start(launch).await;
    started.map_err(|StartError(text)| {
        // What QEMU printed goes into the log (recorded); how it ended is the error.
        let (printed, reason) = text.rsplit_once('\n').unwrap_or(("", &text));
        for line in printed.lines() {
            worker.log(line);
        }
        reason.to_owned()
    })
}

/// What happens when a guest's process ends. The engine keeps this, so it must not keep the world alive.
fn on_exit(world: &Arc<World>) -> OnExit {
    let weak = Arc::downgrade(world);
    Arc::new(move |vmid, exit| {
        tracing::debug!(vmid, ?exit, "guest ended");
        if let Some(world) = weak.upgrade() {
            config::settle(&world, vmid);
            world.exited.notify_waiters();
        }
    })
}

/// Lets the engine take over the guests that an earlier emulator left. Of the others pending changes take effect: their
/// processes ended when nobody looked.
pub(crate) async fn adopt(world: &Arc<World>) {
    let configured: BTreeSet<u32> = world.machines().keys().copied().collect();
    let running = world.engine.adopt(&configured, on_exit(world)).await;
    for vmid in configured.difference(&running) {
        config::settle(world, *vmid);
    }
}

/// The drives with their media as files.
fn media(world: &World, machine: &Machine) -> Result<Vec<Drive>, String> {
    let mut drives = Vec::new();
    for (slot, text) in machine.config.iter().filter(|(k, _)| is_drive(k)) {
        let Some(volid) = drive::volid_of(text) else { continue };
        drives.push(medium(world, &machine.node, slot, text, volid)?);
    }
    Ok(drives)
}

/// A drive with the volume that its option names.
pub(super) fn medium(world: &World, node: &str, slot: &str, text: &str, volid: &str) -> Result<Drive, String> {
    let image = images::find(world, node, volid)?;
    Ok(Drive {
        slot: slot.to_owned(),
        cdrom: is_cdrom(text) || is_cloudinit(text),
        path: image.path,
        format: image.format,
        size_bytes: image.size_bytes,
    })
}

/// A bridge that the node does not have fails the start, not the create (`FACTS` 35).
fn check_bridges(machine: &Machine) -> Result<(), String> {
    for text in machine
        .config
        .iter()
        .filter(|(k, _)| super::options::is_net(k))
        .map(|(_, t)| t)
    {
        if let Some(bridge) = text.split(',').find_map(|p| p.strip_prefix("bridge="))
            && bridge != "vmbr0"
        {
            return Err(format!("bridge '{bridge}' does not exist"));
        }
    }
    Ok(())
}

/// Waits until the VM's process is gone; whether it is.
async fn gone(world: &World, vmid: u32, limit: Duration) -> bool {
    // A limit beyond what a clock can tell is none.
    let end = Instant::now().checked_add(limit);
    loop {
        let exited = world.exited.notified();
        if world.engine.status(vmid).is_none() {
            return true;
        }
        let left = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        // The engine announces the end a moment before it is true, so look again soon.
        let pause = Duration::from_millis(20).min(left);
        tokio::select! {
            () = exited => tokio::time::sleep(Duration::from_millis(1)).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn no_config(vmid: u32, node: &str) -> String {
    format!("unable to find configuration file for VM {vmid} on node '{node}'")
}

async fn stop(call: Call) -> Outcome {
    root_only(&call, &["skiplock", "keepActive", "migratedfrom"])?;
    not_emulated(&call, &["migratedfrom"])?;
    let skiplock = skiplock(&call)?;
    if call.params.flag("overrule-shutdown") == Some(true) {
        overrule_shutdowns(&call).await;
    }
    let (node, vmid) = (call.node(), call.vmid());
    let task = call.task("qmstop", &vmid.to_string(), |world, _| async move {
        let machine = world.machine(&node, vmid).ok_or_else(|| no_config(vmid, &node))?;
        if world.engine.status(vmid).is_none() {
            return Ok(());
        }
        check_lock(&machine.config, skiplock)?;
        let _lock = world.lock_vm(vmid).await?;
        world.spend(Duration::from_millis(300)).await;
        world.engine.stop(vmid).await;
        Ok(())
    });
    Ok(upid(task))
}

/// Ends the shutdowns of a VM that are under way, as far as the caller may: they hold its lock.
///
/// # Source
/// `overrule-shutdown` of `vm_stop` in `PVE::API2::Qemu`: own tasks, or those of all with `Sys.Modify` on `/`.
async fn overrule_shutdowns(call: &Call) {
    let all = call.who.is_root() || call.world.access().has(&call.who, "/", "Sys.Modify");
    let vmid = call.vmid().to_string();
    for task in call.world.tasks.of_node(&call.node()) {
        let upid = &task.upid;
        let its = upid.kind == "qmshutdown" && upid.id == vmid && (all || upid.user == call.who.full());
        if its && task.end().is_none() {
            task.stop();
            task.wait(Duration::from_secs(5)).await;
        }
    }
}

async fn shutdown(call: Call) -> Outcome {
    root_only(&call, &["keepActive"])?;
    let skiplock = skiplock(&call)?;
    let (node, vmid) = (call.node(), call.vmid());
    let timeout = seconds(&call, "timeout").unwrap_or(POWERDOWN);
    let force = call.params.flag("forceStop") == Some(true);
    if call.world.engine.status(vmid).is_some_and(|s| s.is_paused()) && !force {
        return Err(Failure::die("VM is paused - cannot shutdown"));
    }
    let task = call.task("qmshutdown", &vmid.to_string(), |world, worker| async move {
        let machine = world.machine(&node, vmid).ok_or_else(|| no_config(vmid, &node))?;
        if world.engine.status(vmid).is_none() {
            return Ok(());
        }
        check_lock(&machine.config, skiplock)?;
        let _lock = world.lock_vm(vmid).await?;
        power_off(&world, vmid, &machine, timeout, force, &worker).await
    });
    Ok(upid(task))
}

async fn power_off(
    world: &Arc<World>,
    vmid: u32,
    machine: &Machine,
    timeout: Duration,
    force: bool,
    worker: &Worker,
) -> Result<(), String> {
    let asked = std::time::Instant::now();
    let how = if !agent_enabled(&machine.config) {
        Powerdown::Acpi
    } else if world
        .engine
        .agent(vmid, "guest-ping", serde_json::json!({}))
        .await
        .is_ok()
    {
        Powerdown::Agent
    } else {
        world
            .delay(Duration::from_secs(3).saturating_sub(asked.elapsed()))
            .await;
        worker.log(format!(
            "QEMU Guest Agent is not running - VM {vmid} qga command 'guest-ping' failed - got timeout"
        ));
        Powerdown::Acpi
    };
    world.engine.powerdown(vmid, how).await;
    if gone(world, vmid, world.patience(timeout)).await {
        return Ok(());
    }
    if !force {
        return Err("VM quit/powerdown failed - got timeout".into());
    }
    worker.log("VM still running - terminating now with SIGTERM");
    world.engine.stop(vmid).await;
    Ok(())
}

/// The calls that need a running VM say so at once (`FACTS` 41).
fn must_run(call: &Call) -> Result<Machine, Failure> {
    let machine = call.machine()?;
    if call.world.engine.status(call.vmid()).is_none() {
        return Err(Failure::die(format!("VM {} not running", call.vmid())));
    }
    Ok(machine)
}

async fn reboot(call: Call) -> Outcome {
    let machine = must_run(&call)?;
    if call.world.engine.status(call.vmid()).is_some_and(|s| s.is_paused()) {
        return Err(Failure::die("VM is paused - cannot shutdown"));
    }
    let (node, vmid, who) = (call.node(), call.vmid(), call.who.clone());
    let timeout = seconds(&call, "timeout").unwrap_or(POWERDOWN);
    let task = call.task("qmreboot", &vmid.to_string(), |world, worker| async move {
        worker.log("requesting reboot of VM ".to_owned() + &vmid.to_string());
        check_lock(&machine.config, false)?;
        power_off(&world, vmid, &machine, timeout, false, &worker).await?;
        // The end of the old process starts a new one, in a task of its own (FACTS 75).
        spawn_start(&world, &node, vmid, &who, StartOptions::default());
        Ok(())
    });
    Ok(upid(task))
}

async fn reset(call: Call) -> Outcome {
    let skiplock = skiplock(&call)?;
    let machine = must_run(&call)?;
    let vmid = call.vmid();
    let task = call.task("qmreset", &vmid.to_string(), |world, _| async move {
        check_lock(&machine.config, skiplock)?;
        world.engine.reset(vmid).await;
        Ok(())
    });
    Ok(upid(task))
}

async fn suspend(call: Call) -> Outcome {
    let skiplock = skiplock(&call)?;
    let machine = must_run(&call)?;
    if call.params.flag("todisk") == Some(true) {
        return Err(Failure::new(501, "suspend to disk is not emulated").with_shape(crate::wire::Shape::JsonBare));
    }
    let vmid = call.vmid();
    let task = call.task("qmpause", &vmid.to_string(), |world, _| async move {
        check_lock(&machine.config, skiplock)?;
        world.engine.pause(vmid, true).await;
        Ok(())
    });
    Ok(upid(task))
}

async fn resume(call: Call) -> Outcome {
    root_only(&call, &["skiplock", "nocheck"])?;
    not_emulated(&call, &["nocheck"])?;
    must_run(&call)?;
    let vmid = call.vmid();
    let task = call.task("qmresume", &vmid.to_string(), |world, _| async move {
        world.engine.pause(vmid, false).await;
        Ok(())
    });
    Ok(upid(task))
}
