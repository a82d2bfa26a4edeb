//! What the steps of one verification share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxmox_client::{Client, NodeName, Upid, Vmid, VolId};
use tokio_util::sync::CancellationToken;

use super::clones::{Clone, Mark};
use super::compare::Told;
use super::report::VerifyReport;
use super::run::{CLONE_NAME_PREFIX, VERIFY_TAG_PREFIX};
use super::spec::VerifySpec;
use super::survey::Template;
use crate::Error;
use crate::build::{Emitter, Reservation, Runs, StepTiming};
use crate::communicator::BuildKeys;
use crate::journal::new_holder;

/// State of one verification.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) spec: Arc<VerifySpec>,
    /// Short id: part of names, tags and of the ISO's name.
    pub(super) id: String,
    /// This process's hold on the clones.
    holder: String,
    /// How long the verification counts as living without a sign.
    lease: Duration,
    pub(super) emitter: Arc<Emitter>,
    /// What the waits of the running step listen to.
    pub(super) cancel: CancellationToken,
    pub(super) template: Option<Template>,
    pub(super) keys: Option<BuildKeys>,
    /// The clones that were made, or may have been, in their order.
    pub(super) clones: Vec<Clone>,
    pub(super) reservations: Vec<Reservation>,
    /// The ISO that tells the second clone to join, from before its upload until it is gone.
    pub(super) volume: Option<VolId>,
    /// Its upload, until its end was seen.
    pub(super) upload: Option<Upid>,
    pub(super) told: Told,
    /// What secrets are hashed with before they leave a clone.
    pub(super) salt: String,
    report: Option<VerifyReport>,
    timings: Vec<StepTiming>,
    requests_before: u64,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id)
            .field("clones", &self.clones)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Runs for Context {
    /// Nobody goes on with a verification that died, so nobody asks how far it was.
    async fn begin(&mut self, _step: &str) -> Result<(), Error> {
        Ok(())
    }

    fn is_taken_over(&self) -> Option<Error> {
        self.clones.iter().find_map(|clone| clone.machine.taken_over())
    }

    /// Those that are left could not be removed.
    async fn let_go(&mut self) {
        for clone in &mut self.clones {
            clone.machine.let_go().await;
        }
    }

    fn emitter(&self) -> &Emitter {
        &self.emitter
    }

    fn watch(&mut self, token: CancellationToken) {
        for clone in &mut self.clones {
            clone.machine.watch(token.clone());
        }
        self.cancel = token;
    }

    fn timed(&mut self, step: &str, seconds: f64) {
        self.timings.push(StepTiming {
            step: step.to_owned(),
            seconds,
        });
    }

    fn leftovers(&self) -> Vec<String> {
        let clones = self.clones.iter().map(|clone| clone.machine.to_string());
        clones.chain(self.volume.iter().map(ToString::to_string)).collect()
    }
}

impl Context {
    pub(super) fn new(
        client: Client,
        spec: VerifySpec,
        id: String,
        lease: Duration,
        emitter: Arc<Emitter>,
        cancel: CancellationToken,
    ) -> Self {
        let requests_before = client.request_count();
        Self {
            client,
            spec: Arc::new(spec),
            id,
            holder: new_holder(),
            lease,
            emitter,
            cancel,
            template: None,
            keys: None,
            clones: Vec::new(),
            reservations: Vec::new(),
            volume: None,
            upload: None,
            told: Told::default(),
            salt: crate::text::uuid_v4(),
            report: None,
            timings: Vec::new(),
            requests_before,
        }
    }

    /// The tag, and the mark in the description, of everything of this verification.
    pub(super) fn tag(&self) -> String {
        format!("{VERIFY_TAG_PREFIX}{}", self.id)
    }

    /// What marks a clone of `template` as one of this verification.
    pub(super) fn mark(&self, template: &str) -> Mark {
        Mark {
            id: self.id.clone(),
            tag: self.tag(),
            template: template.to_owned(),
            holder: self.holder.clone(),
            lease: self.lease,
        }
    }

    /// Name of the first (1) or second (2) clone, which is its host name too.
    pub(super) fn clone_name(&self, number: usize) -> String {
        format!("{CLONE_NAME_PREFIX}{}-{number}", self.id)
    }

    pub(super) fn template(&self) -> Result<&Template, Error> {
        self.template.as_ref().ok_or(Error::Missing { what: "the template" })
    }

    pub(super) fn node(&self) -> Result<NodeName, Error> {
        Ok(self.template()?.node.clone())
    }

    pub(super) fn keys(&self) -> Result<&BuildKeys, Error> {
        self.keys.as_ref().ok_or(Error::Missing {
            what: "the verification's key",
        })
    }

    pub(super) fn clone_at(&mut self, index: usize) -> Result<&mut Clone, Error> {
        self.clones.get_mut(index).ok_or(Error::Missing { what: "a clone" })
    }

    pub(super) fn vmids(&self) -> Vec<Vmid> {
        self.clones.iter().map(|clone| clone.machine.vmid()).collect()
    }

    pub(super) fn set_report(&mut self, report: VerifyReport) {
        self.report = Some(report);
    }

    /// The report with what is known at the end.
    pub(super) fn take_report(&mut self) -> Option<VerifyReport> {
        let mut report = self.report.take()?;
        report.timings.clone_from(&self.timings);
        report.api_requests = self.client.request_count().saturating_sub(self.requests_before);
        Some(report)
    }
}
