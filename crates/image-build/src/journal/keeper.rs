//! `Keeper`: writes a build's journal, compares before it sets, and shows that the builder lives.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proxmox_client::{Client, ConfigView, ErrorKind, Qemu, VmConfig, VmConfigUpdate, Vmid};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Journal, lease_until, read, strip, write};
use crate::Error;
use crate::build::{BUILD_TAG_PREFIX, Pace, ask};
use crate::replace::copy_name;
use crate::verify::{CLONE_NAME_PREFIX, VERIFY_TAG_PREFIX};

/// How long PVE may be busy with the VM or out of reach while the journal is written. A node's services restart within it.
const WRITE_LIMIT: Duration = Duration::from_secs(120);
/// A lease is renewed when a third of it has passed, so that two attempts may fail.
const BEATS_IN_A_LEASE: u32 = 3;

/// Why the journal can be kept no longer, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Taken {
    /// Another process goes on with the build, or somebody made the journal unreadable.
    Over(String),
    /// The VM is another one, which got the number when the build's own was deleted.
    Away(String),
}

/// The one who writes the journal of a build, while this process drives it.
#[derive(Debug)]
pub(crate) struct Keeper {
    client: Client,
    vm: Qemu,
    build: String,
    lease: Duration,
    kept: Mutex<Kept>,
    taken: OnceLock<Taken>,
}

/// What stands on the VM, as far as this process knows.
#[derive(Debug)]
struct Kept {
    journal: Journal,
    /// The configuration as it was read last, if nothing was set since: the next change is tried on it.
    seen: Option<VmConfig>,
    /// The journal has been taken away for good: a sign of life that waited meanwhile must not bring it back.
    closed: bool,
}

impl Keeper {
    /// Keeps a journal that stands on the VM already.
    pub(crate) fn new(client: &Client, vm: Qemu, lease: Duration, journal: Journal) -> Self {
        Self {
            client: client.clone(),
            vm,
            build: journal.build.clone(),
            lease,
            kept: Mutex::new(Kept {
                journal,
                seen: None,
                closed: false,
            }),
            taken: OnceLock::new(),
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

    /// The error of a build that is in other hands, or whose VM is gone and another one in its place.
    pub(crate) fn taken_over(&self) -> Error {
        match self.taken.get() {
            Some(Taken::Away(found)) => Error::Unexpected {
                what: format!("vm {}", self.vm.vmid()),
                reason: found.clone(),
            },
            Some(Taken::Over(found)) => Error::TakenOver {
                build: self.build.clone(),
                found: found.clone(),
            },
            None => Error::TakenOver {
                build: self.build.clone(),
                found: format!("the journal on vm {} names another builder", self.vm.vmid()),
            },
        }
    }

    /// Whether the VM was found to be in other hands.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.get().is_some()
    }

    /// Looks at a configuration that was just read: whether the VM is still ours by its journal or, where a person took that out, by
    /// its mark. One that is not is found to be in other hands from then on.
    pub(crate) fn holds(&self, config: &VmConfig, holder: &str) -> bool {
        match self.judge(config, holder) {
            Some(taken) => {
                let _first = self.taken.set(taken);
                false
            }
            None => true,
        }
    }

    /// Reads the VM's configuration. If nobody changes it meanwhile, the next entry needs no look of its own.
    ///
    /// # Errors
    /// Whatever PVE answers, unless it passes; [`Error::Cancelled`].
    pub(crate) async fn look(&self, cancel: &CancellationToken) -> Result<VmConfig, Error> {
        let attempt = format!("reading the configuration of vm {}", self.vm.vmid());
        // What is set between the look and here makes the look too old, which its digest tells.
        let config = ask(&attempt, cancel, || self.vm.config(ConfigView::Pending)).await?;
        self.kept(cancel).await?.seen = Some(config.clone());
        Ok(config)
    }

    /// Who has it may wait long for PVE.
    async fn kept(&self, cancel: &CancellationToken) -> Result<MutexGuard<'_, Kept>, Error> {
        tokio::select! {
            biased;
            kept = self.kept.lock() => Ok(kept),
            () = cancel.cancelled() => Err(Error::Cancelled),
        }
    }

    fn judge(&self, config: &VmConfig, holder: &str) -> Option<Taken> {
        let found = read(config.description().unwrap_or_default());
        taken(&found, holder, self.vm.vmid(), bears_mark(config, &self.build))
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
        let mut kept = self.kept(cancel).await?;
        if kept.closed {
            return Ok(());
        }
        let mut next = kept.journal.clone();
        change(&mut next);
        next.lease = lease_until(&self.client, self.lease);
        let next = &next;
        self.set(cancel, &mut kept, |config, found| {
            let text = write(people.unwrap_or(config.description().unwrap_or_default()), next);
            // The answer to an earlier attempt was lost.
            let there = update.is_empty() && found == Some(next);
            (!there).then(|| update.clone().description(text))
        })
        .await?;
        kept.journal.clone_from(next);
        Ok(())
    }

    /// The last change: the text for people without a journal behind it, `people` or the one that is there, with the tags that `tags`
    /// makes of the VM's settings, and another name if one is given. The build is no longer one.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub(crate) async fn close(
        &self,
        cancel: &CancellationToken,
        name: Option<&str>,
        people: Option<&str>,
        tags: impl Fn(&VmConfig) -> Vec<String> + Send + Sync,
    ) -> Result<(), Error> {
        let mut kept = self.kept(cancel).await?;
        self.set(cancel, &mut kept, |config, found| {
            let description = config.description().unwrap_or_default();
            let (text, tags) = (strip(people.unwrap_or(description)), tags(config));
            let there = found.is_none()
                && strip(description) == text
                && name.is_none_or(|name| config.name() == Some(name))
                && same_tags(&config.tags(), &tags);
            (!there).then(|| {
                let update = VmConfigUpdate::new().tags(tags).description(text);
                match name {
                    Some(name) => update.name(name),
                    None => update,
                }
            })
        })
        .await?;
        kept.closed = true;
        Ok(())
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
        let mut kept = self.kept(cancel).await?;
        if kept.closed {
            return Ok(());
        }
        let mut next = kept.journal.clone();
        next.lease = lease_until(&self.client, Duration::ZERO);
        self.set(cancel, &mut kept, |config, _| {
            let description = config.description().unwrap_or_default();
            Some(VmConfigUpdate::new().description(write(description, &next)))
        })
        .await
    }

    /// Reads, or takes what was seen last, asks `change` what to set, and sets it if nothing has changed in between; again until that is so.
    async fn set(
        &self,
        cancel: &CancellationToken,
        kept: &mut Kept,
        change: impl Fn(&VmConfig, Option<&Journal>) -> Option<VmConfigUpdate> + Send + Sync,
    ) -> Result<(), Error> {
        let mut seen = kept.seen.take();
        let attempt = format!("writing the journal of vm {}", self.vm.vmid());
        let mut pace = Pace::new(&attempt, WRITE_LIMIT, cancel);
        // Whether an attempt may have been carried out: only a look can tell, so no error of a look is the last word then.
        let mut unsure = false;
        loop {
            let (config, is_fresh) = match seen.take() {
                Some(config) => (config, false),
                None => match self.vm.config(ConfigView::Pending).await {
                    Ok(config) => (config, true),
                    Err(error) if is_passing(&error) || (unsure && !error.is_not_found()) => {
                        pace.pause(&error.to_string()).await?;
                        continue;
                    }
                    Err(error) => return Err(Error::api(attempt)(error)),
                },
            };
            let found = read(config.description().unwrap_or_default());
            let update = change(&config, found.as_ref().ok().and_then(Option::as_ref));
            // No more than a digest that may still be right is taken from an old look.
            if !is_fresh && (update.is_none() || self.judge(&config, &kept.journal.holder).is_some()) {
                continue;
            }
            // What is there as it was to be needs no mark: the last change takes that away.
            if found.is_ok() && update.is_none() {
                return Ok(());
            }
            if !self.holds(&config, &kept.journal.holder) {
                return Err(self.taken_over());
            }
            let Some(update) = update else {
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

    /// Renews the lease until the guard is dropped. When the VM is found to be in other hands, `stop` is cancelled.
    pub(crate) fn beat(self: &Arc<Self>, stop: CancellationToken) -> Heartbeat {
        let keeper = Arc::clone(self);
        let every = self.lease / BEATS_IN_A_LEASE;
        Heartbeat(tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                match keeper.note(&CancellationToken::new(), |_| {}).await {
                    Ok(()) => {}
                    Err(_) if keeper.is_taken() => {
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

/// What stands there when it is not ours any more. A person who removed the line has not taken the build over, as long as the VM bears
/// its mark: without that it is another VM, which got the number when the build's own was deleted.
fn taken(
    found: &Result<Option<Journal>, super::JournalError>,
    holder: &str,
    vmid: Vmid,
    marked: bool,
) -> Option<Taken> {
    match found {
        Ok(Some(journal)) if journal.holder != holder => Some(Taken::Over(format!(
            "the journal on vm {vmid} names another builder, until {}",
            journal.lease
        ))),
        Ok(None) if !marked => Some(Taken::Away(
            "it bears neither the journal nor the mark of what was made here: somebody has deleted that, and the vm of this number is \
             another one, which is left alone"
                .to_owned(),
        )),
        Ok(_) => None,
        Err(error) => Some(Taken::Over(format!("the journal on vm {vmid} cannot be used: {error}"))),
    }
}

/// Whether a VM has a tag or a name that only this build or verification gives. The image's own name is none: others may bear it.
fn bears_mark(config: &VmConfig, id: &str) -> bool {
    let tags = [format!("{BUILD_TAG_PREFIX}{id}"), format!("{VERIFY_TAG_PREFIX}{id}")];
    let clones = [1, 2].map(|number| format!("{CLONE_NAME_PREFIX}{id}-{number}"));
    let named = |name: &str| name == copy_name(id) || tags.iter().chain(&clones).any(|known| known == name);
    config.name().is_some_and(named) || config.tags().iter().any(|tag| tags.contains(tag))
}

/// PVE writes tags in small letters, each once, in its own order (`FACTS` 31).
fn same_tags(one: &[String], other: &[String]) -> bool {
    let set = |tags: &[String]| tags.iter().map(|tag| tag.to_lowercase()).collect::<BTreeSet<_>>();
    set(one) == set(other)
}

/// Whether the same call may end better in a moment.
pub(crate) fn is_passing(error: &proxmox_client::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Busy | ErrorKind::Connect | ErrorKind::Transport | ErrorKind::Timeout | ErrorKind::Proxy
    )
}
