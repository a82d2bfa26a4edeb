//! `Keeper`: writes a build's journal, compares before it sets, and shows that the builder lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxmox_client::{Client, ConfigView, ErrorKind, Qemu, VmConfig, VmConfigUpdate};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Journal, lease_until, read, strip, write};
use crate::Error;
use crate::build::Pace;

/// How long PVE may be busy with the VM or out of reach while the journal is written. A node's services restart within it.
const WRITE_LIMIT: Duration = Duration::from_secs(120);
/// A lease is renewed when a third of it has passed, so that two attempts may fail.
const BEATS_IN_A_LEASE: u32 = 3;

/// Another process goes on with the build, or the journal is no longer one that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// What was found instead, for people.
    pub(crate) found: String,
}

/// The one who writes the journal of a build, while this process drives it.
#[derive(Debug)]
pub(crate) struct Keeper {
    client: Client,
    vm: Qemu,
    build: String,
    lease: Duration,
    journal: Mutex<Journal>,
    taken: AtomicBool,
}

impl Keeper {
    /// Keeps a journal that stands on the VM already.
    pub(crate) fn new(client: &Client, vm: Qemu, lease: Duration, journal: Journal) -> Self {
        Self {
            client: client.clone(),
            vm,
            build: journal.build.clone(),
            lease,
            journal: Mutex::new(journal),
            taken: AtomicBool::new(false),
        }
    }

    /// Takes a dead builder's build over: `journal`, with our name in it, in place of the one in `config`, if nothing has
    /// changed since that was read.
    ///
    /// # Errors
    /// [`Error::TakenOver`] when another was quicker.
    pub(crate) async fn take_over(
        client: &Client,
        vm: Qemu,
        lease: Duration,
        config: &VmConfig,
        journal: Journal,
    ) -> Result<Self, Error> {
        let mut journal = journal;
        let build = journal.build.clone();
        journal.lease = lease_until(client, lease);
        let update = VmConfigUpdate::new()
            .description(write(config.description().unwrap_or_default(), &journal))
            .digest(config.digest().unwrap_or_default());
        let attempt = format!("taking over build {build} on vm {}", vm.vmid());
        match vm.update_config(&update).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => {
                return Err(Error::TakenOver {
                    build,
                    found: "the VM was changed in the same moment".to_owned(),
                });
            }
            // An answer that was lost: who stands there now has it.
            Err(error) if is_passing(&error) && error.was_sent() => {
                let now = vm
                    .config(ConfigView::Pending)
                    .await
                    .map_err(Error::api(attempt.as_str()))?;
                let holder = read(now.description().unwrap_or_default()).ok().flatten();
                if holder.is_none_or(|there| there.holder != journal.holder) {
                    return Err(Error::api(attempt)(error));
                }
            }
            Err(error) => return Err(Error::api(attempt)(error)),
        }
        Ok(Self::new(client, vm, lease, journal))
    }

    /// The error of a build that is in other hands.
    pub(crate) fn taken_over(&self) -> Error {
        Error::TakenOver {
            build: self.build.clone(),
            found: format!("the journal on vm {} names another builder", self.vm.vmid()),
        }
    }

    /// Whether another process was found to have the build.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// Writes a change down, and renews the lease.
    ///
    /// # Errors
    /// [`Error::TakenOver`] when another process has the build; any of the calls.
    pub(crate) async fn note(
        &self,
        cancel: &CancellationToken,
        change: impl FnOnce(&mut Journal) + Send,
    ) -> Result<(), Error> {
        self.change(cancel, &VmConfigUpdate::new(), None, change).await
    }

    /// Changes the VM and the journal in one call. `people` replaces the text in front of the journal.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub(crate) async fn change(
        &self,
        cancel: &CancellationToken,
        update: &VmConfigUpdate,
        people: Option<&str>,
        change: impl FnOnce(&mut Journal) + Send,
    ) -> Result<(), Error> {
        // Who has it may wait long for PVE.
        let mut journal = tokio::select! {
            biased;
            journal = self.journal.lock() => journal,
            () = cancel.cancelled() => return Err(Error::Cancelled),
        };
        let mut next = journal.clone();
        change(&mut next);
        next.lease = lease_until(&self.client, self.lease);
        let next = &next;
        self.set(cancel, &journal.holder, &journal.build, |description, found| {
            let text = write(people.unwrap_or(description), next);
            // The answer to an earlier attempt was lost.
            let there = update.is_empty() && found == Some(next);
            (!there).then(|| update.clone().description(text))
        })
        .await?;
        journal.clone_from(next);
        Ok(())
    }

    /// The last change: the text for people without a journal behind it, `people` or the one that is there. The build is no
    /// longer one.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub(crate) async fn close(
        &self,
        cancel: &CancellationToken,
        update: &VmConfigUpdate,
        people: Option<&str>,
    ) -> Result<(), Error> {
        let journal = self.journal.lock().await;
        self.set(cancel, &journal.holder, &journal.build, |description, found| {
            let text = strip(people.unwrap_or(description));
            let there = found.is_none() && strip(description) == text;
            (!there).then(|| update.clone().description(text))
        })
        .await
    }

    /// For how long a sign of life counts.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// Ends the lease now: the VM stays for whoever goes on with it.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub(crate) async fn release(&self, cancel: &CancellationToken) -> Result<(), Error> {
        let journal = self.journal.lock().await;
        let mut next = journal.clone();
        next.lease = super::now(&self.client);
        self.set(cancel, &journal.holder, &journal.build, |description, _| {
            Some(VmConfigUpdate::new().description(write(description, &next)))
        })
        .await
    }

    /// Reads, asks `change` what to set, and sets it if nothing has changed in between; again until that is so.
    async fn set(
        &self,
        cancel: &CancellationToken,
        holder: &str,
        build: &str,
        change: impl Fn(&str, Option<&Journal>) -> Option<VmConfigUpdate>,
    ) -> Result<(), Error> {
        let attempt = format!("writing the journal of vm {}", self.vm.vmid());
        let mut pace = Pace::new(&attempt, WRITE_LIMIT, cancel);
        // Whether an attempt may have been carried out: only a look can tell, so no error of a look is the last word then.
        let mut unsure = false;
        loop {
            let config = match self.vm.config(ConfigView::Pending).await {
                Ok(config) => config,
                Err(error) if is_passing(&error) || (unsure && !error.is_not_found()) => {
                    pace.pause(&error.to_string()).await?;
                    continue;
                }
                Err(error) => return Err(Error::api(attempt)(error)),
            };
            let description = config.description().unwrap_or_default();
            let found = read(description);
            if let Some(taken) = taken(&found, holder) {
                self.taken.store(true, Ordering::Relaxed);
                return Err(Error::TakenOver {
                    build: build.to_owned(),
                    found: taken.found,
                });
            }
            let Some(update) = change(description, found.ok().flatten().as_ref()) else {
                return Ok(());
            };
            let update = update.digest(config.digest().unwrap_or_default());
            match self.vm.update_config(&update).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) if is_passing(&error) || error.kind() == ErrorKind::Locked => {
                    unsure |= error.was_sent();
                    pace.pause(&error.to_string()).await?;
                }
                Err(error) => return Err(Error::api(attempt)(error)),
            }
        }
    }

    /// Renews the lease until the guard is dropped. When another process is found to have the build, `stop` is cancelled.
    pub(crate) fn beat(self: &Arc<Self>, stop: CancellationToken) -> Heartbeat {
        let keeper = Arc::clone(self);
        let every = self.lease / BEATS_IN_A_LEASE;
        Heartbeat(tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                match keeper.note(&CancellationToken::new(), |_| {}).await {
                    Ok(()) => {}
                    Err(Error::TakenOver { .. }) => {
                        stop.cancel();
                        return;
                    }
                    // The step that runs meets the same trouble and tells it.
                    Err(error) => tracing::debug!(error = %error.chain(), "the lease was not renewed"),
                }
            }
        }))
    }
}

/// Renews a lease while it lives.
#[derive(Debug)]
pub(crate) struct Heartbeat(JoinHandle<()>);

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A word for one process's hold on one build.
pub(crate) fn new_holder() -> String {
    use rand::RngExt as _;
    format!("{:016x}", rand::rng().random::<u64>())
}

/// What stands there when it is not ours any more. A person who removed the line has not taken the build over.
fn taken(found: &Result<Option<Journal>, super::JournalError>, holder: &str) -> Option<Taken> {
    match found {
        Ok(Some(journal)) if journal.holder != holder => Some(Taken {
            found: format!("its journal names another builder, until {}", journal.lease),
        }),
        Ok(_) => None,
        Err(error) => Some(Taken {
            found: format!("its journal cannot be used: {error}"),
        }),
    }
}

/// Whether the same call may end better in a moment.
pub(crate) fn is_passing(error: &proxmox_client::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Busy | ErrorKind::Connect | ErrorKind::Transport | ErrorKind::Timeout | ErrorKind::Proxy
    )
}
