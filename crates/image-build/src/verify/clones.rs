//! One clone: what is done to its VM, and what was seen of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxmox_client::{Client, CloneVm, ConfigView, ErrorKind, NodeName, Qemu, Upid, VmConfigUpdate, Vmid};
use tokio_util::sync::CancellationToken;

use super::compare::Seen;
use crate::Error;
use crate::build::{
    Emitter, LOST_ANSWER_LIMIT, OpenTask, Pace, TASK_LIMIT, destroy, is_lost_answer, let_go, may_pass, not_appeared,
};
use crate::communicator::SshCommunicator;
use crate::journal::{self, Heartbeat, Inputs, Journal, Keeper, lease_until};

/// How long PVE's own clean-up after a stop can hold the VM's lock (`FACTS` 45 and 77), with some to spare.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// A clone with what was seen of it so far.
#[derive(Debug)]
pub(super) struct Clone {
    pub(super) machine: Machine,
    pub(super) seen: Seen,
    /// When its start was asked for.
    pub(super) started: Option<Instant>,
    pub(super) ssh_seconds: f64,
    pub(super) k3s_seconds: Option<f64>,
    pub(super) session: Option<Arc<SshCommunicator>>,
}

impl Clone {
    pub(super) fn new(machine: Machine, name: String) -> Self {
        Self {
            machine,
            seen: Seen {
                name,
                ..Seen::default()
            },
            started: None,
            ssh_seconds: 0.0,
            k3s_seconds: None,
            session: None,
        }
    }
}

/// What marks the VMs of one verification as its own.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// The verification's id.
    pub(super) id: String,
    /// The tag, which stands in the description too.
    pub(super) tag: String,
    /// Name of the template.
    pub(super) template: String,
    /// This process's hold on the verification, as the journal of each clone names it.
    pub(super) holder: String,
    /// How long the verification counts as living without a sign.
    pub(super) lease: Duration,
}

/// A VM of this verification, told from others by its mark.
pub(super) struct Machine {
    client: Client,
    node: NodeName,
    vmid: Vmid,
    mark: Mark,
    emitter: Arc<Emitter>,
    cancel: CancellationToken,
    /// The journal on the clone, once there is one.
    keeper: Option<Arc<Keeper>>,
    /// Shows on it that this process lives.
    heartbeat: Option<Heartbeat>,
    open_task: OpenTask,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("node", &self.node)
            .field("vmid", &self.vmid)
            .field("open_task", &self.open_task)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm {} on {}", self.vmid, self.node)
    }
}

/// What became of an attempt at cloning to one vmid.
pub(super) enum Cloned {
    Done,
    /// Somebody else has it; nothing was made.
    Taken,
}

impl Machine {
    pub(super) fn new(
        client: Client,
        node: NodeName,
        vmid: Vmid,
        mark: Mark,
        emitter: Arc<Emitter>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            client,
            node,
            vmid,
            mark,
            emitter,
            cancel,
            keeper: None,
            heartbeat: None,
            open_task: OpenTask::default(),
        }
    }

    /// The journal that the call which makes the clone is to carry. Nobody goes on with a verification; whoever collects what a dead
    /// one left reads by it whose it was, and until when it counts as living.
    fn journal(&self) -> Journal {
        Journal {
            build: self.mark.id.clone(),
            run: String::new(),
            image: self.mark.template.clone(),
            vmid: self.vmid,
            step: "verify".to_owned(),
            provisioned: 0,
            holder: self.mark.holder.clone(),
            lease: lease_until(&self.client, self.mark.lease),
            oemdrv: None,
            login: None,
            boots: None,
            replacing: None,
            inputs: Inputs::default(),
        }
    }

    /// Whether another process was found to have the clone.
    pub(super) fn taken_over(&self) -> Option<Error> {
        let keeper = self.keeper.as_ref()?;
        keeper.is_taken().then(|| keeper.taken_over())
    }

    pub(super) fn vmid(&self) -> Vmid {
        self.vmid
    }

    pub(super) fn set_vmid(&mut self, vmid: Vmid) {
        self.vmid = vmid;
    }

    pub(super) fn vm(&self) -> Qemu {
        self.client.node(&self.node).qemu(self.vmid)
    }

    pub(super) fn watch(&mut self, token: CancellationToken) {
        self.cancel = token;
    }

    /// Waits for a task to end. Its warnings become events.
    async fn finish(&mut self, upid: &Upid, what: &str, limit: Duration) -> Result<(), Error> {
        self.open_task
            .finish(&self.client, upid, what, limit, &self.emitter, &self.cancel)
            .await
    }

    /// Makes the clone at our vmid. The description, whose text for people is `people`, carries the mark from the first moment on.
    pub(super) async fn clone_from(
        &mut self,
        template: Vmid,
        how: CloneVm,
        people: &str,
        limit: Duration,
    ) -> Result<Cloned, Error> {
        let attempt = format!("cloning template {template} to vm {}", self.vmid);
        let journal = self.journal();
        let how = how.description(journal::write(people, &journal));
        match self.client.node(&self.node).qemu(template).clone_to(&how).await {
            Ok(upid) => self.finish(&upid, &attempt, limit).await?,
            // PVE looks whether the id is free before it begins the task (FACTS 30): nothing of ours is there.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Cloned::Taken),
            // The answer was lost, not the request: what is there now tells what became of it.
            Err(error) if is_lost_answer(&error) => {
                let cancel = self.cancel.clone();
                let mut pace = Pace::new(&attempt, LOST_ANSWER_LIMIT, &cancel);
                while !self.is_ours(limit).await? {
                    match pace.pause("it is not there").await {
                        Err(Error::Timeout { .. }) => return Err(Error::api(not_appeared(&attempt))(error)),
                        paused => paused?,
                    }
                }
                self.emitter
                    .warning(format!("{attempt}: the answer was lost ({error}), but the vm is there"));
            }
            Err(error) => return Err(Error::api(attempt)(error)),
        }
        let keeper = Arc::new(Keeper::new(&self.client, self.vm(), self.mark.lease, journal));
        self.heartbeat = Some(keeper.beat(self.cancel.clone()));
        self.keeper = Some(keeper);
        Ok(Cloned::Done)
    }

    /// Changes the configuration, waiting for the lock if PVE is busy with it.
    pub(super) async fn update(&self, what: &str, update: &VmConfigUpdate) -> Result<(), Error> {
        let mut pace = Pace::new("the vm's lock", LOCK_LIMIT, &self.cancel);
        loop {
            match self.vm().update_config(update).await {
                Err(error) if error.kind() == ErrorKind::Busy => pace.pause("PVE holds the lock of the vm").await?,
                ended => return ended.map_err(Error::api(format!("{what} of vm {}", self.vmid))),
            }
        }
    }

    /// Starts it. A start whose answer was lost is looked for, not repeated.
    pub(super) async fn start(&mut self) -> Result<(), Error> {
        let attempt = format!("starting vm {}", self.vmid);
        match self.vm().start().await {
            Ok(upid) => self.finish(&upid, &attempt, TASK_LIMIT).await,
            Err(error) if error.was_sent() && may_pass(&error) => {
                let cancel = self.cancel.clone();
                let mut pace = Pace::new(&attempt, LOCK_LIMIT, &cancel);
                loop {
                    if self.vm().status().await.is_ok_and(|status| status.is_running()) {
                        return Ok(());
                    }
                    match pace.pause("it does not run").await {
                        Err(Error::Timeout { .. }) => return Err(Error::api(attempt.as_str())(error)),
                        paused => paused?,
                    }
                }
            }
            Err(error) => Err(Error::api(attempt)(error)),
        }
    }

    /// Whether it has stopped by itself. An API that is out of reach says nothing of it.
    pub(super) async fn is_stopped(&self) -> bool {
        self.vm().status().await.is_ok_and(|status| status.is_stopped())
    }

    /// Removes it if it is there and bears our mark. `None` when there was nothing of ours.
    pub(super) async fn remove(&mut self) -> Result<Option<String>, Error> {
        self.open_task.settle(&self.client, &CancellationToken::new()).await;
        if !self.is_ours(LOCK_LIMIT).await? {
            return Ok(None);
        }
        // A sign of life would only meet the removal's lock.
        self.heartbeat = None;
        destroy(&self.client, &self.vm(), TASK_LIMIT, &self.cancel).await?;
        Ok(Some(format!("vm {} removed", self.vmid)))
    }

    /// Ends the lease on a clone that could not be removed.
    pub(super) async fn let_go(&mut self) {
        self.heartbeat = None;
        if let Some(keeper) = &self.keeper {
            let_go(keeper, "verification", &self.emitter, &self.cancel).await;
        }
    }

    /// Whether the VM at our vmid exists and is ours. While PVE clones, its configuration is a lock and nothing else.
    async fn is_ours(&self, limit: Duration) -> Result<bool, Error> {
        let mut pace = Pace::new("the end of the cloning", limit, &self.cancel);
        loop {
            match self.vm().config(ConfigView::Pending).await {
                Ok(config) if matches!(config.lock(), Some("create" | "clone")) => {
                    pace.pause("PVE is still making it").await?;
                }
                Ok(config) => {
                    let description = config.description().unwrap_or_default();
                    return Ok(match journal::read(description) {
                        Ok(Some(journal)) => journal.vmid == self.vmid && journal.holder == self.mark.holder,
                        // A person may have taken the journal out; the mark is ours all the same.
                        Ok(None) => description.contains(&self.mark.tag) || config.tags().contains(&self.mark.tag),
                        Err(_) => false,
                    });
                }
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) => {
                    let attempt = format!("reading the configuration of vm {}", self.vmid);
                    return Err(Error::api(attempt)(error));
                }
            }
        }
    }
}
