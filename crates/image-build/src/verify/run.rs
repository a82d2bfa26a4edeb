//! `verify`: one call from a template's name to a report.

use std::fmt;
use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use proxmox_client::Client;
use rand::RngExt as _;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::report::{VerifyReport, check_writable};
use super::spec::VerifySpec;
use super::steps;
use crate::Error;
use crate::build::{AfterFailure, Control, Emitter, Event, EventKind, OnFailure, in_own_task, run_steps};
use crate::journal::LEASE;

/// Prefix of the tag that marks a VM as a clone of a verification; its id follows.
pub const VERIFY_TAG_PREFIX: &str = "k3simage-verify-";

/// Prefix of a clone's name; the verification's id and the clone's number follow. Until a clone has been given its tag, its name is
/// what a list shows of it.
pub(crate) const CLONE_NAME_PREFIX: &str = "verify-";

/// A verification that is set up; awaiting it runs it.
#[must_use = "a verification does nothing until it is awaited"]
pub struct Verify {
    client: Client,
    spec: VerifySpec,
    events: Option<UnboundedSender<Event>>,
    cancel: CancellationToken,
    report: Option<PathBuf>,
    lease: Duration,
    id: String,
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            spec,
            events,
            cancel,
            report,
            lease,
            id,
        } = self;
        f.debug_struct("Verify")
            .field("client", client)
            .field("spec", spec)
            .field("events", &events.is_some())
            .field("cancel", cancel)
            .field("report", report)
            .field("lease", lease)
            .field("id", id)
            .finish()
    }
}

/// Clones a template twice, boots both clones, compares them, and removes them again.
///
/// What they share, or what is not as it must be, is in the report and no error: look at [`VerifyReport::ok`].
///
/// ```no_run
/// # async fn example(pve: proxmox_client::Client) -> Result<(), image_build::Error> {
/// use image_build::verify::VerifySpec;
/// let report = image_build::verify(&pve, VerifySpec::new("alma9-k3-node-amd64-v1.31.3-v1")).await?;
/// println!("{}", report.summary());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Invalid`] for a spec that cannot be, [`Error::Io`] when the report could not be written; else [`Error::Step`] with the
/// step that failed (`preflight` before anything is cloned), the first cause in its chain, and what could not be removed.
///
/// # Cancel safety
/// Cancel the token to end it: it stops soon, removes the clones, and then returns [`Error::Step`] with [`Error::Cancelled`]
/// inside. Dropping the future does the same in the background, as long as the runtime lives.
pub fn verify(client: &Client, spec: VerifySpec) -> Verify {
    Verify {
        client: client.clone(),
        spec,
        events: None,
        cancel: CancellationToken::new(),
        report: None,
        lease: LEASE,
        id: format!("{:08x}", rand::rng().random::<u32>()),
    }
}

impl Verify {
    /// Where events go. A closed receiver is no error.
    pub fn events(mut self, to: UnboundedSender<Event>) -> Self {
        self.events = Some(to);
        self
    }

    /// What ends the verification early.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.cancel = token;
        self
    }

    /// Writes the report there as JSON, also when the clones share something.
    pub fn report(mut self, path: impl Into<PathBuf>) -> Self {
        self.report = Some(path.into());
        self
    }

    /// Its short id, by which others find its clones.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// How long the verification counts as living when its process gives no sign, five minutes by default. Until then no one may
    /// collect its clones; the process renews it three times as often.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }
}

impl IntoFuture for Verify {
    type Output = Result<VerifyReport, Error>;
    type IntoFuture = BoxFuture<'static, Result<VerifyReport, Error>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let cancel = self.cancel.clone();
            in_own_task(&cancel, |cancel| run(self, cancel)).await
        })
    }
}

async fn run(verify: Verify, cancel: CancellationToken) -> Result<VerifyReport, Error> {
    let Verify {
        client,
        spec,
        events,
        cancel: _,
        report: path,
        lease,
        id,
    } = verify;
    spec.check().map_err(Error::Invalid)?;
    if let Some(path) = &path {
        check_writable(path)?;
    }
    let emitter = Arc::new(Emitter::new(id.clone(), events));
    let begun = Instant::now();
    // The answer is kept by the client, so this costs no request more; a failure is preflight's to tell.
    let pve_version = tokio::select! {
        () = cancel.cancelled() => None,
        version = client.version() => version.ok().map(|version| version.version.clone()),
    };
    let mut steps = steps::all();
    emitter.emit(EventKind::VerifyStarted {
        template: spec.template.clone(),
        pve_version,
        steps: steps.iter().map(|step| step.name().to_string()).collect(),
    });
    let control = Control {
        cancel: cancel.clone(),
        // The clones are for this comparison alone: nobody wants them kept.
        on_failure: OnFailure::Always(AfterFailure::CleanUp),
        undo_limit: spec.timeouts.undo,
    };
    let mut context = Context::new(client, spec, id, lease, Arc::clone(&emitter), cancel);
    let ran = run_steps(&mut steps, &mut context, &control, 0).await;
    // What was found stays true when the removal fails after it.
    let report = context.take_report();
    let found = report.clone().map(Box::new);
    let ended = match (ran, report, path) {
        (ran, Some(report), Some(path)) => {
            let written = report.write(&path);
            ran.and(written).map(|()| report)
        }
        (Ok(()), Some(report), None) => Ok(report),
        (Ok(()), None, _) => Err(Error::Missing { what: "the report" }),
        (Err(error), ..) => Err(error),
    };
    emitter.emit(EventKind::VerifyFinished {
        ok: ended.as_ref().is_ok_and(|report| report.ok),
        seconds: begun.elapsed().as_secs_f64(),
        report: found,
        error: ended.as_ref().err().map(Error::chain),
    });
    ended
}
