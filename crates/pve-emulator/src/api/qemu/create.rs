//! `POST /nodes/{node}/qemu`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::{
    boot_text, check_bridge, check_privilege, default_boot, is_cdrom, is_drive, is_net, normalise, require_on_vm,
};
use super::unfinished::Unfinished;
use super::{drive, power, upid};
use crate::api::access::uuid;
use crate::api::{Call, Outcome, Routes};
use crate::state::{ConfigMap, Machine, now};
use crate::wire::{Failure, Shape};

/// Parameters of the call that are no options of the VM.
const NOT_OPTIONS: [&str; 14] = [
    "node",
    "vmid",
    "archive",
    "storage",
    "force",
    "unique",
    "pool",
    "bwlimit",
    "start",
    "ha-managed",
    "live-restore",
    "import-working-storage",
    "cdrom",
    "digest",
];

/// Parameters of the real call that are not emulated; they are refused instead of ignored.
const NOT_EMULATED: [&str; 6] = [
    "archive",
    "force",
    "unique",
    "ha-managed",
    "live-restore",
    "import-working-storage",
];

pub(super) fn add(routes: &mut Routes) {
    routes.add("POST /nodes/{node}/qemu", create);
}

/// The VM options among a call's parameters.
pub(super) fn options(call: &Call, except: &[&str]) -> ConfigMap {
    let mut options = ConfigMap::new();
    for key in call.params.0.keys().filter(|k| !except.contains(&k.as_str())) {
        let text = match call.params.text(key) {
            Some(text) => text,
            // A JSON array stands for a list.
            None => call.params.list(key).join(";"),
        };
        options.insert(key.clone(), text);
    }
    options
}

async fn create(call: Call) -> Outcome {
    if let Some(name) = NOT_EMULATED
        .iter()
        .find(|n| call.params.contains(n) && call.params.flag(n) != Some(false))
    {
        tracing::warn!(parameter = name, "not emulated");
        let text = format!("parameter '{name}' of POST /nodes/{{node}}/qemu is not emulated");
        return Err(Failure::new(501, text).with_shape(Shape::JsonBare));
    }
    let (node, vmid) = (call.node(), call.vmid());
    let mut options = options(&call, &NOT_OPTIONS);
    if let Some(cdrom) = call.params.text("cdrom") {
        options.insert(
            "ide2".into(),
            if cdrom.contains("media=") {
                cdrom
            } else {
                format!("{cdrom},media=cdrom")
            },
        );
    }
    let pool = call.params.text("pool");
    {
        let access = call.world.access();
        if let Some(pool) = pool.as_ref().filter(|p| !access.pools.contains_key(*p)) {
            return Err(Failure::permission(&format!("pool '{pool}' does not exist")));
        }
        let may = access.has(&call.who, &format!("/vms/{vmid}"), "VM.Allocate")
            || pool
                .as_ref()
                .is_some_and(|p| access.has(&call.who, &format!("/pool/{p}"), "VM.Allocate"));
        if !may {
            return Err(Failure::permission(""));
        }
    }
    let mut plans = BTreeMap::new();
    for (key, text) in options.iter().filter(|(k, _)| is_drive(k)) {
        let plan = drive::plan(key, text)?;
        drive::check_access(&call, vmid, key, text, &plan)?;
        plans.insert(key.clone(), plan);
    }
    for (key, text) in &options {
        // A new VM's CD-ROMs need no privilege of their own, and its cloud-init drive counts as a disk (recorded).
        if !is_drive(key) {
            check_privilege(&call, vmid, key, Some(text))?;
        } else if !is_cdrom(text) {
            require_on_vm(&call, vmid, &["VM.Config.Disk"])?;
        }
        check_bridge(&call, key, text)?;
    }
    if let Some(keys) = options.get("sshkeys") {
        super::cloudinit::check_keys(keys)?;
    }
    let mut config = ConfigMap::new();
    for (key, text) in options.iter().filter(|(k, _)| !plans.contains_key(*k)) {
        config.insert(key.clone(), normalise(key, text)?);
    }
    if config.get("description").is_some_and(String::is_empty) {
        config.remove("description");
    }
    let placeholder = Machine {
        node: node.clone(),
        config: ConfigMap::from([("lock".to_owned(), "create".to_owned())]),
        ..Machine::default()
    };
    if !call.world.insert_machine(vmid, placeholder) {
        let owner = call
            .world
            .machines()
            .get(&vmid)
            .map(|m| m.node.clone())
            .unwrap_or_default();
        return Err(Failure::die(format!(
            "unable to create VM {vmid} - VM {vmid} already exists on node '{owner}'"
        )));
    }
    let start = call.params.flag("start") == Some(true);
    let who = call.who.clone();
    let task = call.task("qmcreate", &vmid.to_string(), |world, worker| {
        // Before its work begins: one that is stopped earlier leaves nothing either.
        let mut unfinished = Unfinished::new(&world, &worker, &node, vmid);
        async move {
            let lock = world.lock_vm(vmid).await;
            let _lock = lock.map_err(|error| format!("unable to create VM {vmid} - {error}"))?;
            world.spend(Duration::from_millis(300)).await;
            let mut failed = worker.refused().err();
            // A medium that is missing fails before anything is made.
            for plan in plans.values() {
                if let drive::Plan::Existing { volid, .. } = plan
                    && world.storages().find(&node, volid).is_none()
                {
                    failed = Some(format!("volume '{volid}' does not exist"));
                }
            }
            for (key, plan) in &plans {
                if failed.is_some() {
                    break;
                }
                match drive::realise(&world, &node, vmid, key, plan, Some(&worker), &mut unfinished.made).await {
                    Ok(text) => {
                        config.insert(key.clone(), text);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(format!("unable to create VM {vmid} - {error}"));
            }
            if !config.contains_key("boot") {
                config.insert("boot".into(), boot_text(&default_boot(&config)));
            }
            config.entry("vmgenid".into()).or_insert_with(uuid);
            match config.get_mut("smbios1") {
                None => {
                    config.insert("smbios1".into(), format!("uuid={}", uuid()));
                }
                Some(text) if !text.contains("uuid=") => *text = format!("uuid={},{text}", uuid()),
                Some(_) => {}
            }
            config.insert(
                "meta".into(),
                format!("creation-qemu={},ctime={}", world.settings.edition.qemu(), now()),
            );
            world.change_machine(vmid, |machine| machine.config = config);
            unfinished.finish();
            if let Some(pool) = pool {
                world.change_access(|access| access.pools.get_mut(&pool).map(|p| p.vms.insert(vmid)));
            }
            if start {
                worker.log("Execute autostart");
                power::spawn_start(&world, &node, vmid, &who, power::StartOptions::default());
            }
            Ok(())
        }
    });
    Ok(upid(task))
}

/// Gives every network device a new address, as a clone gets.
pub(super) fn renew_macs(config: &mut ConfigMap) -> Result<(), Failure> {
    for (key, text) in config.iter_mut().filter(|(k, _)| is_net(k)) {
        let mut parts = super::options::parse(key, text)?;
        parts.remove("macaddr");
        let model = parts.remove("model").unwrap_or_default();
        let rest = parts.print("");
        let bare = if rest.is_empty() {
            model
        } else {
            format!("{model},{rest}")
        };
        *text = normalise(key, &bare)?;
    }
    Ok(())
}
