//! Deletes a VM, as often as it takes, and never another one that has got its number meanwhile.

use std::time::Duration;

use proxmox_client::{Client, ConfigView, DeleteVm, ErrorKind, Qemu, TaskEntry, TaskFilter, Upid, VmConfig, Wait};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::vm::{LOCK_LIMIT, is_base_in_use, may_pass};
use crate::Error;

/// Limit of a task that starts, stops or deletes a VM or a volume, where the spec's limit of a task is not shorter.
pub(crate) const TASK_LIMIT: Duration = Duration::from_secs(300);

/// Stops and deletes a VM or template with its disks, however long PVE's own clean-up holds its lock; one that is gone is no
/// error. `limit` is that of each of the two tasks.
pub(crate) async fn destroy(
    client: &Client,
    vm: &Qemu,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let everything = DeleteVm::new().purge(true).unreferenced_disks(true);
    destroy_with(client, vm, &everything, limit, cancel, &mut None).await
}

/// The same, with what goes along. `open` is the deletion's task after an error, where that was begun and its end was not seen.
pub(super) async fn destroy_with(
    client: &Client,
    vm: &Qemu,
    what: &DeleteVm,
    limit: Duration,
    cancel: &CancellationToken,
    open: &mut Option<Upid>,
) -> Result<(), Error> {
    let mut removal = Removal {
        client,
        vm,
        what,
        limit,
        cancel,
        ours: None,
        open: None,
    };
    let ended = removal.run().await;
    *open = removal.open;
    ended
}

/// The task that deletes a VM now, as far as this login sees it: its own always, others with `Sys.Audit` on the node.
///
/// # Source
/// `GET /nodes/{node}/tasks`. PVE keeps the configuration until all disks are freed (`destroy_vm` in qemu-server's
/// `PVE/QemuServer.pm`), so that alone does not tell.
pub(crate) async fn deletion_of(client: &Client, vm: &Qemu) -> Result<Option<Upid>, proxmox_client::Error> {
    running_task(client, vm, "qmdestroy").await
}

/// A running task of this kind on a VM, as far as this login sees it: what an answer that was lost would have named.
pub(super) async fn running_task(
    client: &Client,
    vm: &Qemu,
    kind: &str,
) -> Result<Option<Upid>, proxmox_client::Error> {
    let filter = TaskFilter {
        vmid: Some(vm.vmid()),
        kind: Some(kind.to_owned()),
        with_active: true,
        ..TaskFilter::default()
    };
    let tasks = client.node(vm.node()).tasks(&filter).await?;
    Ok(tasks.into_iter().find(TaskEntry::is_running).map(|task| task.upid))
}

/// Whether a task found the VM gone.
fn has_lost_its_vm(error: &proxmox_client::Error) -> bool {
    match error {
        // pve-guest-common PVE/AbstractConfig.pm, load_config
        proxmox_client::Error::Task { exit, .. } => {
            exit.contains("Configuration file") && exit.contains("does not exist")
        }
        _ => false,
    }
}

struct Removal<'a> {
    client: &'a Client,
    vm: &'a Qemu,
    what: &'a DeleteVm,
    limit: Duration,
    cancel: &'a CancellationToken,
    /// What tells the VM from another one of its number, once that was seen.
    ours: Option<String>,
    open: Option<Upid>,
}

impl Removal<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let what = format!("the removal of vm {}", self.vm.vmid());
        let mut pace = Pace::new(&what, LOCK_LIMIT, self.cancel);
        loop {
            let source = match self.attempt().await {
                Ok(()) => {
                    self.open = None;
                    return Ok(());
                }
                Err(Error::Api { source, .. }) if source.is_not_found() => {
                    self.open = None;
                    return Ok(());
                }
                Err(Error::Api { attempt, source }) if is_base_in_use(&source) => {
                    return Err(Error::Api { attempt, source });
                }
                Err(_) if self.cancel.is_cancelled() => return Err(Error::Cancelled),
                // Locked by the clean-up of the stop, an answer that was lost, or deleted by others meanwhile: what is there now tells.
                Err(Error::Api { source, .. }) if may_pass(&source) || has_lost_its_vm(&source) => source,
                Err(error) => return Err(error),
            };
            if let (Some(upid), proxmox_client::Error::Timeout { .. }) = (&self.open, &*source) {
                return Err(Error::Timeout {
                    what,
                    after: self.limit,
                    seen: format!(
                        "its task {} on {} still runs; see in the task's log what it waits for",
                        upid.as_str(),
                        upid.node()
                    ),
                });
            }
            match pace.pause(&source.to_string()).await {
                Err(Error::Timeout { what, seen, .. }) => {
                    return Err(Error::Timeout {
                        after: pace.waited(),
                        what,
                        seen: format!("{seen}{}", self.advice(&source)),
                    });
                }
                paused => paused?,
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Error> {
        let attempt = format!("removing vm {}", self.vm.vmid());
        let vm = self.vm;
        let config = vm
            .config(ConfigView::Pending)
            .await
            .map_err(Error::api(attempt.as_str()))?;
        match &self.ours {
            // The disks are freed already, and the rest goes with the end of the task.
            Some(_) if config.lock() == Some("destroyed") => {}
            // Ours is gone, and somebody else has its number.
            Some(ours) if *ours != identity(&config) => return Ok(()),
            Some(_) => {}
            // While PVE makes a VM its configuration is a lock and nothing else (FACTS 32).
            None if matches!(config.lock(), Some("create" | "clone")) => {}
            None => return self.first(&attempt, &config).await,
        }
        // The answer to an earlier attempt was lost, not the attempt.
        let running = deletion_of(self.client, vm).await;
        match running.map_err(Error::api(attempt.as_str()))? {
            Some(upid) => self.wait(upid, &attempt).await,
            None => self.delete(&attempt).await,
        }
    }

    async fn first(&mut self, attempt: &str, config: &VmConfig) -> Result<(), Error> {
        self.ours = Some(identity(config));
        self.delete(attempt).await
    }

    async fn delete(&mut self, attempt: &str) -> Result<(), Error> {
        if self.vm.status().await.map_err(Error::api(attempt))?.is_running() {
            let attempt = format!("stopping vm {}", self.vm.vmid());
            let upid = self.vm.stop().await.map_err(Error::api(attempt.as_str()))?;
            let wait = Wait::at_most(self.limit).cancel(self.cancel.clone());
            let _warnings = self.client.wait_task(&upid, wait).await.map_err(Error::api(attempt))?;
        }
        let upid = self.vm.delete(self.what).await.map_err(Error::api(attempt))?;
        self.wait(upid, attempt).await
    }

    async fn wait(&mut self, upid: Upid, attempt: &str) -> Result<(), Error> {
        let wait = Wait::at_most(self.limit).cancel(self.cancel.clone());
        let ended = self.client.wait_task(&upid, wait).await;
        let is_over = matches!(ended, Ok(_) | Err(proxmox_client::Error::Task { .. }));
        self.open = Some(upid).filter(|_| !is_over);
        let _warnings = ended.map_err(Error::api(attempt))?;
        Ok(())
    }

    fn advice(&self, source: &proxmox_client::Error) -> String {
        let (vmid, node) = (self.vm.vmid(), self.vm.node());
        match source.cause_kind() {
            ErrorKind::Locked | ErrorKind::Busy => {
                format!("; when nothing works on it any more, `qm unlock {vmid}` on {node} takes the lock off")
            }
            ErrorKind::State => {
                format!("; where it is protected, `qm set {vmid} --protection 0` on {node} ends that")
            }
            _ => String::new(),
        }
    }
}

/// What tells a VM from another one that has its number later. Name and tags may change under our hands; they are the last resort.
///
/// # Source
/// `smbios1`, `vmgenid` and `meta` are set by PVE when it makes a VM, by creation and by cloning.
fn identity(config: &VmConfig) -> String {
    let uuid = config.smbios1().ok().flatten();
    if let Some(uuid) = uuid.as_ref().and_then(|smbios| smbios.uuid()) {
        return format!("uuid {uuid}");
    }
    for option in ["vmgenid", "meta"] {
        if let Some(text) = config.get(option) {
            return format!("{option} {text}");
        }
    }
    format!("{} {}", config.name().unwrap_or_default(), config.tags().join(";"))
}

#[cfg(test)]
mod tests {
    use pve_emulator::{Emulator, Fault, FaultAction, FaultMatch, Gate, TaskFault};

    use super::*;

    #[test]
    fn a_vm_is_told_from_another_by_what_pve_gave_it() {
        let of = |config: serde_json::Value| {
            identity(&VmConfig::from_json(serde_json::from_value(config).expect("an object")))
        };
        let ours = serde_json::json!({ "name": "a", "smbios1": "uuid=1f0c5b9c-9c8f-4f6b-8a51-6a3b7f0e7f11" });
        let renamed = serde_json::json!({ "name": "b", "smbios1": "uuid=1f0c5b9c-9c8f-4f6b-8a51-6a3b7f0e7f11" });
        let other = serde_json::json!({ "name": "a", "smbios1": "uuid=2f0c5b9c-9c8f-4f6b-8a51-6a3b7f0e7f11" });
        assert_eq!(of(ours.clone()), of(renamed));
        assert_ne!(of(ours.clone()), of(other));
        for less in [
            serde_json::json!({ "name": "a", "vmgenid": "1" }),
            serde_json::json!({ "name": "a", "meta": "ctime=1" }),
            serde_json::json!({ "name": "a" }),
            serde_json::json!({ "lock": "create" }),
        ] {
            assert_ne!(of(ours.clone()), of(less));
        }
    }

    async fn start() -> (Emulator, Client, Qemu) {
        let pve = Emulator::builder().start().await.expect("it starts");
        let client = Client::builder(pve.url())
            .auth(proxmox_client::Auth::token(pve.token_id(), pve.token_secret()))
            .tls(proxmox_client::Tls::Pinned(
                pve.fingerprint().parse().expect("a fingerprint"),
            ))
            .build()
            .expect("a client");
        let vm = client
            .node(&"pve".parse().expect("a name"))
            .qemu("9000".parse().expect("a number"));
        (pve, client, vm)
    }

    async fn make(client: &Client, vm: &Qemu, name: &str) {
        let upid = vm.create(&proxmox_client::CreateVm::new().name(name)).await;
        let made = client
            .wait_task(&upid.expect("it is made"), Wait::at_most(TASK_LIMIT))
            .await;
        let _ = made.expect("it is made");
    }

    /// A task of ours that finds the VM gone is no failure, if it is.
    #[tokio::test]
    async fn what_others_delete_in_the_same_moment_is_gone() {
        let gone = "Configuration file 'nodes/pve/qemu-server/9000.conf' does not exist";
        let no_storage = "storage 'gone' does not exist";
        for (exit, ends) in [(gone, true), (no_storage, false)] {
            let (pve, client, vm) = start().await;
            make(&client, &vm, "ours").await;
            pve.fault(Fault {
                when: FaultMatch::Task {
                    kind: "qmdestroy".to_owned(),
                    id: "9000".to_owned(),
                },
                action: FaultAction::Task(TaskFault::Fails(exit.to_owned())),
                times: 1,
            });
            let ended = destroy(&client, &vm, TASK_LIMIT, &CancellationToken::new()).await;
            assert_eq!(ended.is_ok(), ends, "{ended:?}");
            assert_eq!(pve.vm_config(9000).is_none(), ends, "{exit}");
        }
    }

    /// Two VMs whose deletion's answer is lost: the one is gone then, and somebody has made another in its place meanwhile.
    #[tokio::test]
    async fn a_stranger_with_the_number_of_what_is_gone_stays() {
        let (pve, client, vm) = start().await;
        make(&client, &vm, "ours").await;
        pve.fail_next("DELETE", "/nodes/pve/qemu/9000", FaultAction::LoseAnswer);
        // The look before the first attempt passes, that before the second one waits.
        let gate = Gate::default();
        pve.fault(Fault {
            when: FaultMatch::PathAfter {
                method: "GET".to_owned(),
                path: "/nodes/pve/qemu/9000/config".to_owned(),
                skip: 1,
            },
            action: FaultAction::Hold(gate.clone()),
            times: 1,
        });
        let stranger = async {
            tokio::time::timeout(Duration::from_secs(60), gate.reached())
                .await
                .expect("it looks whose the vm is before it tries again");
            while pve.vm_config(9000).is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            make(&client, &vm, "stranger").await;
            gate.open();
        };
        let cancel = CancellationToken::new();
        let (ended, ()) = tokio::join!(destroy(&client, &vm, TASK_LIMIT, &cancel), stranger);
        ended.expect("ours is gone");
        assert_eq!(pve.vm_config(9000).expect("it is there")["name"], "stranger");
    }
}
