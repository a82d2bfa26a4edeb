//! What several steps do with the build VM: start it, watch it stop, change it, remove it.

use std::time::Duration;

use proxmox_client::{
    Client, ConfigView, ErrorKind, NodeName, Qemu, TaskEntry, TaskFilter, Upid, VmConfigUpdate, VmStatus, Vmid, VolId,
    Wait,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Resource};
use super::destroy::{TASK_LIMIT, destroy, running_task};
use super::pace::Pace;
use super::steps::is_complete;
use crate::Error;
use crate::journal;

/// More tasks than a VM has, unless somebody works with it.
const TASKS_MAX: u64 = 500;

/// How long PVE's own clean-up after a stop can hold the VM's lock (`FACTS` 45 and 77), with some to spare.
pub(super) const LOCK_LIMIT: Duration = Duration::from_secs(60);
/// How long PVE may be out of reach while a state is polled: a node's services restart within it, after an update too.
const OUTAGE_LIMIT: Duration = Duration::from_secs(120);
/// How long a VM may take to run, or to be there, when the answer to the call that was to do it was lost.
pub(crate) const LOST_ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Whether the error says that PVE was busy with the VM and did nothing.
fn is_busy(error: &proxmox_client::Error) -> bool {
    matches!(error.cause_kind(), ErrorKind::Busy | ErrorKind::Locked)
}

/// Whether looking again, and doing again what is still needed, may end better.
pub(crate) fn may_pass(error: &proxmox_client::Error) -> bool {
    let kind = error.cause_kind();
    is_busy(error)
        || matches!(
            kind,
            ErrorKind::State | ErrorKind::Transport | ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Proxy
        )
}

/// Whether the answer was lost and not the request: what is there now tells what became of it.
pub(crate) fn is_lost_answer(error: &proxmox_client::Error) -> bool {
    error.was_sent()
        && matches!(
            error.kind(),
            ErrorKind::Transport | ErrorKind::Timeout | ErrorKind::Proxy
        )
}

/// What a call attempted whose answer was lost, and whose VM has not appeared since.
pub(crate) fn not_appeared(attempt: &str) -> String {
    format!("{attempt} (no answer came, and it has not appeared since; `k3simage gc` collects it if it does after all)")
}

/// Whether PVE kept a template because of its linked clones, which waiting does not change.
pub(crate) fn is_base_in_use(error: &proxmox_client::Error) -> bool {
    match error {
        // qemu-server PVE/QemuServer.pm and pve-storage PVE/Storage.pm (FACTS 44)
        proxmox_client::Error::Task { exit, .. } => exit.contains("still in use by linked clone"),
        _ => false,
    }
}

/// Deletes a volume. One that is not there is deleted without complaint (`FACTS` 58), so a lost answer is asked for again.
///
/// `limit` is that of a task.
pub(crate) async fn destroy_volume(
    client: &Client,
    node: &NodeName,
    volid: &VolId,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let what = format!("deleting {volid}");
    let storage = client.node(node).storage(&volid.storage());
    let mut pace = Pace::new("the removal of a volume", LOCK_LIMIT, cancel);
    loop {
        let ended = match storage.delete(volid).await {
            Ok(None) => return Ok(()),
            Ok(Some(upid)) => client
                .wait_task(&upid, Wait::at_most(limit).cancel(cancel.clone()))
                .await
                .map(|_| ()),
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return Ok(()),
            Err(error) if may_pass(&error) => pace.pause(&error.to_string()).await?,
            Err(error) => return Err(Error::api(what)(error)),
        }
    }
}

/// Asks until PVE answers: an API that is out of reach for a moment says nothing of what was asked for.
pub(crate) async fn ask<T, F>(
    attempt: &str,
    cancel: &CancellationToken,
    mut call: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, proxmox_client::Error>>,
{
    let mut pace = Pace::new(attempt, OUTAGE_LIMIT, cancel);
    loop {
        match call().await {
            Err(error) if journal::is_passing(&error) => pace.pause(&error.to_string()).await?,
            ended => return ended.map_err(Error::api(attempt)),
        }
    }
}

/// How often a VM was booted by a task: a guest that boots makes its keys and its machine id, which each clone would share. A number, as
/// the times of tasks are cut to the second. Tasks of other logins are listed with `Sys.Audit` only.
pub(super) async fn boots(client: &Client, vm: &Qemu, cancel: &CancellationToken) -> Result<usize, Error> {
    let filter = TaskFilter {
        vmid: Some(vm.vmid()),
        with_active: true,
        limit: Some(TASKS_MAX),
        ..TaskFilter::default()
    };
    let node = client.node(vm.node());
    let attempt = format!("listing the tasks of vm {}", vm.vmid());
    let tasks = ask(&attempt, cancel, || node.tasks(&filter)).await?;
    Ok(tasks.iter().filter(|task| boots_a_guest(task)).count())
}

fn boots_a_guest(task: &TaskEntry) -> bool {
    // A start that found the guest running, or its VM locked, has done nothing (`FACTS` 40, 41).
    let ended = task.status.as_deref().unwrap_or_default();
    let nothing = ["already running", "is locked", "can't lock file"]
        .iter()
        .any(|sign| ended.contains(sign));
    ["qmstart", "qmreset", "qmreboot"].contains(&task.upid.kind()) && !nothing
}

impl Context {
    /// Limit of a task that does little.
    pub(super) fn task_limit(&self) -> Duration {
        self.spec.timeouts.task.min(TASK_LIMIT)
    }

    /// Starts the VM. Soon after a stop, PVE's clean-up may still hold the lock: the start then fails in its task without
    /// having done anything, and is the one action that is repeated (`FACTS` 77).
    pub(super) async fn start_vm(&mut self) -> Result<(), Error> {
        let vm = self.vm()?;
        let vmid = self.vmid()?;
        let attempt = format!("starting vm {vmid}");
        let cancel = self.cancel.clone();
        let mut pace = Pace::new("the start of the vm", LOCK_LIMIT, &cancel);
        loop {
            let upid = match vm.start().await {
                Ok(upid) => upid,
                // The answer was lost, not the request: the VM tells what became of it, and is not started twice.
                Err(error) if is_lost_answer(&error) => {
                    self.runs_soon(&attempt, error).await?;
                    return self.hear_guest();
                }
                Err(error) => return Err(Error::api(attempt)(error)),
            };
            match self.finish(&upid, &attempt, self.task_limit()).await {
                Err(Error::Api { source, .. }) if is_busy(&source) => {
                    pace.pause("PVE still cleans up after the last stop").await?;
                }
                ended => {
                    ended?;
                    return self.hear_guest();
                }
            }
        }
    }

    /// Powers the VM off by a call whose task is of this kind, and which does no harm when it comes twice. Where its answer was lost, what
    /// is there now tells whether it came at all.
    pub(super) async fn power_off<F>(
        &mut self,
        attempt: &str,
        kind: &str,
        limit: Duration,
        call: impl Fn() -> F + Send,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<Upid, proxmox_client::Error>> + Send,
    {
        let (vm, client, cancel) = (self.vm()?, self.client.clone(), self.cancel.clone());
        let mut pace = Pace::new(attempt, LOCK_LIMIT, &cancel);
        loop {
            let upid = match call().await {
                Ok(upid) => Some(upid),
                Err(error) if is_lost_answer(&error) => {
                    pace.pause(&error.to_string()).await?;
                    if self.vm_status().await?.is_stopped() {
                        return Ok(());
                    }
                    ask(attempt, &cancel, || running_task(&client, &vm, kind)).await?
                }
                Err(error) => return Err(Error::api(attempt)(error)),
            };
            if let Some(upid) = upid {
                return self.finish(&upid, attempt, limit).await;
            }
        }
    }

    /// Waits for a VM whose start was asked for without an answer; `lost` is the error when it does not come up.
    async fn runs_soon(&self, attempt: &str, lost: proxmox_client::Error) -> Result<(), Error> {
        let mut pace = Pace::new("the start of the vm", LOST_ANSWER_LIMIT, &self.cancel);
        loop {
            if self.vm_status().await?.is_running() {
                self.emitter
                    .warning(format!("{attempt}: the answer was lost ({lost}), but the vm runs"));
                return Ok(());
            }
            match pace.pause("it does not run").await {
                Err(Error::Timeout { .. }) => return Err(Error::api(attempt)(lost)),
                paused => paused?,
            }
        }
    }

    /// One look at the VM. An API that is out of reach for a moment says nothing of the VM: the look is repeated.
    pub(super) async fn vm_status(&self) -> Result<VmStatus, Error> {
        let vmid = self.vmid()?;
        let vm = self.vm()?;
        let attempt = format!("reading the status of vm {vmid}");
        let begun = Instant::now();
        let mut pace = Pace::new(&attempt, OUTAGE_LIMIT, &self.cancel);
        loop {
            match vm.status().await {
                Err(error)
                    if begun.elapsed() < OUTAGE_LIMIT
                        && matches!(
                            error.kind(),
                            ErrorKind::Connect | ErrorKind::Transport | ErrorKind::Timeout | ErrorKind::Proxy
                        ) =>
                {
                    pace.pause(&error.to_string()).await?;
                }
                Ok(status) if status.has_io_error() => {
                    return Err(Error::Impossible {
                        what: format!("work in vm {vmid}"),
                        reason: "Proxmox VE has paused it at an error of its storage (`io-error`): most likely the storage is full; \
                                 make room, or take another one"
                            .to_owned(),
                    });
                }
                ended => return ended.map_err(Error::api(attempt.as_str())),
            }
        }
    }

    /// Changes the VM's configuration, waiting for the lock if PVE is busy with it. Another VM that got the number meanwhile is not
    /// changed.
    pub(super) async fn update_vm(&self, what: &str, update: &VmConfigUpdate) -> Result<(), Error> {
        let vm = self.vm()?;
        let changing = Error::api(format!("{what} of vm {}", vm.vmid()));
        let mut pace = Pace::new("the vm's lock", LOCK_LIMIT, &self.cancel);
        loop {
            let attempt = format!("reading the configuration of vm {}", vm.vmid());
            let config = ask(&attempt, &self.cancel, || vm.config(ConfigView::Pending)).await?;
            let keeper = self.keeper()?;
            if !keeper.holds(&config, &self.holder) {
                return Err(keeper.taken_over());
            }
            let update = update.clone().digest(config.digest().unwrap_or_default());
            match vm.update_config(&update).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    pace.pause("somebody changes it in the same moment").await?;
                }
                // PVE waits 10 s for the lock before it says so (FACTS 45).
                Err(error) if error.kind() == ErrorKind::Busy => pace.pause("PVE holds the lock of the vm").await?,
                // Made twice it is the same change, and what is there now is read before.
                Err(error) if is_lost_answer(&error) => match pace.pause(&error.to_string()).await {
                    Err(Error::Timeout { .. }) => return Err(changing(error)),
                    paused => paused?,
                },
                ended => return ended.map_err(changing),
            }
        }
    }

    /// Removes the build VM if it is there and bears this build's mark. `None` when there was nothing of ours.
    pub(super) async fn remove_vm(&mut self) -> Result<Option<String>, Error> {
        let Ok(vmid) = self.vmid() else { return Ok(None) };
        let resource = Resource::Vm {
            node: self.spec.node.clone(),
            vmid,
        };
        if !self.made(&resource) || self.keeps_vm {
            return Ok(None);
        }
        self.settle_task().await;
        if !self.is_ours().await? {
            self.removed(&resource);
            return Ok(None);
        }
        self.old_has_its_name(vmid).await?;
        destroy(&self.client, &self.vm()?, self.task_limit(), &self.cancel).await?;
        self.removed(&resource);
        Ok(Some(format!("vm {vmid} removed")))
    }

    /// Refuses as long as the template that this build was to replace waits for its name: the journal on our VM is all that tells whose
    /// it was, and with that `gc` gives the name back and `resume` goes on.
    async fn old_has_its_name(&mut self, vmid: Vmid) -> Result<(), Error> {
        let Some(old) = self.old().await? else { return Ok(()) };
        if !old.waits(&self.client, &self.cancel).await? {
            return Ok(());
        }
        self.keeps_vm = true;
        let name = &self.resolved()?.name;
        Err(Error::Left {
            left: format!("vm {vmid}"),
            source: Box::new(Error::Unexpected {
                what: format!("template {}", old.vm().vmid()),
                reason: format!(
                    "it is still {} and could not be given its name {name} back, so no template has that now; vm {vmid} stays, because its \
                     journal tells whose it was: `k3simage gc --yes` gives the name back and removes vm {vmid}, `k3simage resume {}` goes on",
                    old.retired_name(),
                    self.build_id
                ),
            }),
        })
    }

    /// Whether the VM at our vmid exists, is the one of this build, and is driven by this process. While PVE creates it, its
    /// configuration holds a lock and nothing else (`FACTS` 32), so that is waited for.
    pub(super) async fn is_ours(&self) -> Result<bool, Error> {
        let vmid = self.vmid()?;
        let vm = self.vm()?;
        let mut pace = Pace::new("a look at whose the vm is", LOCK_LIMIT, &self.cancel);
        loop {
            match vm.config(ConfigView::Pending).await {
                Ok(config) if config.lock() == Some("create") => pace.pause("PVE is still creating it").await?,
                Ok(config) => {
                    let description = config.description().unwrap_or_default();
                    // Where another process has it, nothing else that the build made is ours either.
                    if let Ok(keeper) = self.keeper()
                        && journal::read(description).is_ok_and(|found| found.is_some())
                        && !keeper.holds(&config, &self.holder)
                    {
                        return Ok(false);
                    }
                    return Ok(match journal::read(description) {
                        // Once it is the image, no failure takes it away again.
                        Ok(Some(journal)) if is_complete(&journal.step) => false,
                        Ok(Some(journal)) => journal.vmid == vmid && journal.holder == self.holder,
                        // A person may have taken the journal out; the tag is ours all the same.
                        Ok(None) => config.tags().contains(&self.build_tag()),
                        Err(_) => false,
                    });
                }
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) if may_pass(&error) => pace.pause(&error.to_string()).await?,
                Err(error) => return Err(Error::api(format!("reading the configuration of vm {vmid}"))(error)),
            }
        }
    }
}
