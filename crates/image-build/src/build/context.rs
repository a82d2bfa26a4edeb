//! What the steps of one build share: the client, the spec, and what earlier steps found or made.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use proxmox_client::{Client, NodeName, Qemu, Upid, Vmid, VolId};
use tokio_util::sync::CancellationToken;

use super::artifact::{Artifact, Replaced, StepTiming};
use super::console::{GuestConsole, Sight};
use super::description::BUILD_TAG_PREFIX;
use super::event::Emitter;
use super::let_go::let_go;
use super::open_task::OpenTask;
use super::reservation::Reservation;
use super::resume::Resumed;
use super::runner::Runs;
use super::steps::{SEAL, comes_before_seal};
use super::vm::boots;
use crate::Error;
use crate::communicator::{BuildKeys, Communicator};
use crate::journal::{Heartbeat, Keeper, LEASE, new_holder};
use crate::media::KickstartServer;
use crate::plan::{PlanReport, Resolved};
use crate::replace::{Old, Replace, Replacing, copy_name};
use crate::spec::ImageSpec;

mod journal;

/// Something on the cluster that a build makes and must be able to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// A VM.
    Vm {
        /// Its node.
        node: NodeName,
        /// Its id.
        vmid: Vmid,
    },
    /// A volume: an uploaded ISO.
    Volume {
        /// Node that was asked to keep it.
        node: NodeName,
        /// Its id.
        volid: VolId,
    },
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm { node, vmid } => write!(f, "vm {vmid} on {node}"),
            Self::Volume { node, volid } => write!(f, "{volid} on {node}"),
        }
    }
}

/// State of one build. Fields that a step fills are private to the build; asking for one too early is a typed error.
pub(super) struct Context {
    pub(crate) client: Client,
    pub(crate) spec: Arc<ImageSpec>,
    pub(crate) build_id: String,
    pub(crate) run_uuid: String,
    /// This process's hold on the build, as its journal names it.
    pub(super) holder: String,
    pub(crate) emitter: Arc<Emitter>,
    /// What the waits of the running step listen to.
    pub(crate) cancel: CancellationToken,
    /// What the guest says of itself.
    pub(crate) console: GuestConsole,
    /// What was created, or may have been, in the order of the calls.
    resources: Vec<Resource>,
    /// A task that was started and whose end was not seen yet.
    open_task: OpenTask,
    pub(crate) report: Option<PlanReport>,
    pub(crate) resolved: Option<Resolved>,
    /// Whether a template of the same name is to be replaced, and how.
    pub(super) replace: Option<Replace>,
    /// The template that this build replaces, once it is known that there is one.
    pub(super) replacing: Option<Replacing>,
    /// What became of it.
    pub(super) replaced: Option<Replaced>,
    pub(super) reservation: Option<Reservation>,
    /// The number that it is to have in the end, when that is another template's until then.
    pub(super) number: Option<Reservation>,
    pub(crate) keys: Option<BuildKeys>,
    pub(crate) server: Option<KickstartServer>,
    pub(crate) media: Option<Media>,
    pub(crate) communicator: Option<Arc<dyn Communicator>>,
    /// What the build leaves, once there is a template.
    pub(crate) artifact: Option<Artifact>,
    /// Steps that ended, with their seconds.
    timings: Vec<StepTiming>,
    /// The build's journal, once there is a VM to write it on.
    keeper: Option<Arc<Keeper>>,
    /// Shows that this process lives.
    heartbeat: Option<Heartbeat>,
    /// How long the build counts as living without a sign.
    pub(super) lease: Duration,
    /// What a build that is gone on with was found to be.
    pub(super) resumed: Option<Resumed>,
    /// How often the guest had been booted when its seal was begun, where there is one.
    pub(super) boots: Option<usize>,
    /// The VM stays, whatever is undone, and that was told.
    pub(super) keeps_vm: bool,
    /// The tags of a complete image that is gone on with, as they are on it.
    pub(super) image_tags: Option<Vec<String>>,
    /// Ends the steps when the VM is found to be in other hands. The clean-up listens to another token, and asks before each of its
    /// steps.
    stop: CancellationToken,
    /// Fields that the caller adds to the artifact.
    pub(super) custom_data: BTreeMap<String, String>,
    /// What the client had sent before this build.
    requests_before: u64,
}

/// The media of the installation.
#[derive(Clone, Debug)]
pub(crate) struct Media {
    /// The installer.
    pub(crate) installer: VolId,
    /// The volume labelled `OEMDRV`, when the kickstart travels on one.
    pub(crate) oemdrv: Option<VolId>,
    /// Where the guest fetches the kickstart, when it is served.
    pub(crate) http: Option<(IpAddr, u16)>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("build_id", &self.build_id)
            .field("reservation", &self.reservation)
            .field("resources", &self.resources)
            .field("open_task", &self.open_task)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Runs for Context {
    async fn begin(&mut self, step: &str) -> Result<(), Error> {
        let Some(keeper) = self.keeper.clone() else {
            return Ok(());
        };
        let state = self.state();
        let step = step.to_owned();
        let boots = match step.as_str() {
            SEAL if self.spec.seal.is_some() => {
                self.boots = Some(boots(&self.client, &self.vm()?, &self.cancel).await?);
                self.boots
            }
            _ => None,
        };
        keeper
            .note(&self.cancel, move |journal| {
                journal.boots = match step.as_str() {
                    SEAL => boots,
                    step if comes_before_seal(step) => None,
                    _ => journal.boots,
                };
                journal.step = step;
                state.write(journal);
            })
            .await
    }

    fn is_taken_over(&self) -> Option<Error> {
        let keeper = self.keeper.as_ref().filter(|keeper| keeper.is_taken())?;
        Some(keeper.taken_over())
    }

    async fn let_go(&mut self) {
        self.heartbeat = None;
        let vm_is_left = self.resources.iter().any(|left| matches!(left, Resource::Vm { .. }));
        let Some(keeper) = self.keeper.clone().filter(|_| vm_is_left) else {
            return;
        };
        if keeper.is_taken() {
            // What bears the number is none of ours, and has no lease of ours.
            if let Ok(vmid) = self.vmid() {
                self.no_more_ours(vmid);
            }
            return;
        }
        // The build may have been cancelled, and its lease ends all the same.
        let_go(&keeper, "build", &self.emitter, &CancellationToken::new()).await;
    }

    fn emitter(&self) -> &Emitter {
        &self.emitter
    }

    fn watch(&mut self, token: CancellationToken) {
        self.cancel = token;
    }

    fn timed(&mut self, step: &str, seconds: f64) {
        self.timings.push(StepTiming {
            step: step.to_owned(),
            seconds,
        });
    }

    fn see<'a>(&'a mut self, error: &'a Error) -> BoxFuture<'a, Sight> {
        Box::pin(self.see_guest(error))
    }

    fn leftovers(&self) -> Vec<String> {
        self.resources.iter().map(ToString::to_string).collect()
    }
}

impl Context {
    pub(crate) fn new(
        client: Client,
        spec: Arc<ImageSpec>,
        build_id: String,
        emitter: Arc<Emitter>,
        cancel: CancellationToken,
    ) -> Self {
        let requests_before = client.request_count();
        Self {
            client,
            spec,
            build_id,
            run_uuid: crate::text::uuid_v4(),
            holder: new_holder(),
            emitter,
            stop: cancel.clone(),
            cancel,
            console: GuestConsole::default(),
            resources: Vec::new(),
            open_task: OpenTask::default(),
            report: None,
            resolved: None,
            replace: None,
            replacing: None,
            replaced: None,
            reservation: None,
            number: None,
            keys: None,
            server: None,
            media: None,
            communicator: None,
            artifact: None,
            timings: Vec::new(),
            keeper: None,
            heartbeat: None,
            lease: LEASE,
            resumed: None,
            boots: None,
            keeps_vm: false,
            image_tags: None,
            custom_data: BTreeMap::new(),
            requests_before,
        }
    }

    /// Remembers what the next call creates, before that call is sent: the clean-up looks for what is remembered here.
    ///
    /// A stranger finds it without our memory: the VM by its tag and the journal in its description, which the create call
    /// itself carries, a volume by the build's id in its name.
    pub(crate) fn created(&mut self, resource: Resource) {
        if !self.resources.contains(&resource) {
            self.resources.push(resource);
        }
    }

    /// Strikes out what is gone, or was never ours.
    pub(crate) fn removed(&mut self, resource: &Resource) {
        self.resources.retain(|known| known != resource);
    }

    /// Strikes out the VM of this number: it has become what people keep, or is gone.
    pub(super) fn no_more_ours(&mut self, vmid: Vmid) {
        self.resources
            .retain(|known| !matches!(known, Resource::Vm { vmid: known, .. } if *known == vmid));
    }

    /// From now on the template is at the number that it was to have.
    pub(super) fn is_at(&mut self, number: Vmid) {
        if let Some(built) = self.reservation.as_ref().map(Reservation::vmid) {
            self.no_more_ours(built);
        }
        self.no_more_ours(number);
        self.reservation = self.number.take();
    }

    /// Keeps the other builds of this process off the number that it is to have in the end.
    pub(super) fn claim_number(&mut self) -> Result<(), Error> {
        let replacing = self.replacing.as_ref().filter(|replacing| replacing.renumber);
        if let Some(replacing) = replacing {
            let name = copy_name(&self.build_id);
            self.number = Some(Reservation::exactly(self.client.endpoint(), &name, replacing.vmid)?);
        }
        Ok(())
    }

    /// The number at which it must be built, when the spec names one and another template does not have that until the end.
    pub(super) fn fixed_vmid(&self) -> Option<Vmid> {
        let renumbers = self.replacing.as_ref().is_some_and(|replacing| replacing.renumber);
        self.spec.vmid.filter(|_| !renumbers)
    }

    /// What was created and not removed.
    pub(super) fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// Whether this build made it, or was about to.
    pub(crate) fn made(&self, resource: &Resource) -> bool {
        self.resources.contains(resource)
    }

    /// Takes another vmid: the one that was reserved is taken.
    pub(super) fn next_vmid(&mut self) -> Result<(), Error> {
        let resolved = self.resolved.as_ref().ok_or(Error::Missing {
            what: "the preflight's result",
        })?;
        let reservation = self.reservation.as_mut().ok_or(Error::Missing { what: "the vmid" })?;
        reservation.move_on(&resolved.taken_vmids)
    }

    /// The artifact with what is known now.
    pub(super) fn take_stock(&mut self) -> Result<&Artifact, Error> {
        let resolved = self.resolved()?;
        let artifact = Artifact {
            name: resolved.name.clone(),
            vmid: self.vmid()?.get(),
            node: self.spec.node.to_string(),
            build_id: self.build_id.clone(),
            run_uuid: self.run_uuid.clone(),
            spec_hash: self.spec.content_hash(),
            k3s_version: self.spec.k3s.as_ref().map(|k3s| k3s.version.to_string()),
            pve_version: resolved.pve_version.clone(),
            finished: self
                .artifact
                .as_ref()
                .map_or_else(Timestamp::now, |artifact| artifact.finished),
            tags: self
                .image_tags
                .clone()
                .unwrap_or_else(|| super::steps::template_tags(&self.spec)),
            timings: self.timings.clone(),
            api_requests: self.client.request_count().saturating_sub(self.requests_before),
            replaced: self.replaced.clone(),
            custom_data: self.custom_data.clone(),
        };
        Ok(self.artifact.insert(artifact))
    }

    /// The tag that marks everything of this build as ours.
    pub(crate) fn build_tag(&self) -> String {
        format!("{}{}", BUILD_TAG_PREFIX, self.build_id)
    }

    /// The VM's name while it is built: the image's own, unless another template bears that until the swap.
    pub(super) fn vm_name(&self) -> Result<String, Error> {
        match &self.replacing {
            Some(_) => Ok(self.build_tag()),
            None => Ok(self.resolved()?.name.clone()),
        }
    }

    /// The template that this build replaces, if it is still there.
    pub(super) async fn old(&self) -> Result<Option<Old>, Error> {
        let Some(replacing) = &self.replacing else {
            return Ok(None);
        };
        let name = &self.resolved()?.name;
        Old::find(&self.client, replacing, name, &self.build_id, &self.cancel).await
    }

    /// Handle of the build VM.
    pub(crate) fn vm(&self) -> Result<Qemu, Error> {
        Ok(self.client.node(&self.spec.node).qemu(self.vmid()?))
    }

    pub(crate) fn vmid(&self) -> Result<Vmid, Error> {
        self.reservation
            .as_ref()
            .map(Reservation::vmid)
            .ok_or(Error::Missing { what: "the vmid" })
    }

    pub(crate) fn resolved(&self) -> Result<&Resolved, Error> {
        self.resolved.as_ref().ok_or(Error::Missing {
            what: "the preflight's result",
        })
    }

    pub(crate) fn keys(&self) -> Result<&BuildKeys, Error> {
        self.keys.as_ref().ok_or(Error::Missing {
            what: "the build's keys",
        })
    }

    pub(crate) fn media(&self) -> Result<&Media, Error> {
        self.media.as_ref().ok_or(Error::Missing {
            what: "the installation media",
        })
    }

    pub(crate) fn communicator(&self) -> Result<Arc<dyn Communicator>, Error> {
        self.communicator.clone().ok_or(Error::Missing {
            what: "the communicator",
        })
    }

    /// Waits for a task to end. Its warnings become events.
    pub(crate) async fn finish(&mut self, upid: &Upid, what: &str, limit: Duration) -> Result<(), Error> {
        self.open_task
            .finish(&self.client, upid, what, limit, &self.emitter, &self.cancel)
            .await
    }

    /// Takes note of a deletion that was begun and whose end was not seen.
    pub(super) fn left_open(&mut self, task: Option<Upid>) {
        self.open_task.left(task);
    }

    /// Ends a task that a cancelled or failed step left running, so that the clean-up meets no lock of our own.
    pub(crate) async fn settle_task(&mut self) {
        // It is called after a cancel too, and must not be ended by that.
        self.open_task.settle(&self.client, &CancellationToken::new()).await;
    }

    /// Runs something that may be dropped half-way, and drops it when the build is cancelled.
    pub(crate) async fn or_cancel<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            done = work => Ok(done),
        }
    }

    /// Runs something inside the guest; dropped when the build is cancelled, or once the guest's console says that it is lost.
    pub(crate) async fn in_guest<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            done = work => Ok(done),
            reason = self.console.lost() => Err(Error::Impossible { what: what.to_owned(), reason }),
        }
    }
}
