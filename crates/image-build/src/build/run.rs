//! `build`: one call from a spec to a template.

use std::collections::BTreeMap;
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

use super::artifact::Artifact;
use super::context::Context;
use super::description::{BUILD_TAG_PREFIX, is_id};
use super::event::{Emitter, Event, EventKind};
use super::own_task::in_own_task;
use super::resume::{Point, take_over};
use super::runner::{self, AfterFailure, AskOnError, Control, OnFailure};
use super::step::Step;
use super::steps::{self, Swap};
use crate::Error;
use crate::journal::LEASE;
use crate::replace::Replace;
use crate::spec::{ImageSpec, OnError};

/// Name of the picture of a failed build's screen.
pub const SCREEN_FILE: &str = "console.png";

/// A build that is set up; awaiting it runs it.
#[must_use = "a build does nothing until it is awaited"]
pub struct Build {
    client: Client,
    spec: ImageSpec,
    events: Option<UnboundedSender<Event>>,
    cancel: CancellationToken,
    ask: Option<AskOnError>,
    manifest: Option<PathBuf>,
    screen: Option<PathBuf>,
    custom_data: BTreeMap<String, String>,
    lease: Duration,
    replace: Option<Replace>,
    resume: Option<String>,
}

impl fmt::Debug for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            spec,
            events,
            cancel,
            ask,
            manifest,
            screen,
            custom_data,
            lease,
            replace,
            resume,
        } = self;
        f.debug_struct("Build")
            .field("client", client)
            .field("spec", spec)
            .field("events", &events.is_some())
            .field("cancel", cancel)
            .field("ask", &ask.is_some())
            .field("manifest", manifest)
            .field("screen", screen)
            .field("custom_data", custom_data)
            .field("lease", lease)
            .field("replace", replace)
            .field("resume", resume)
            .finish()
    }
}

/// Builds the template that `spec` describes.
///
/// ```no_run
/// # async fn example(pve: proxmox_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use image_build::ImageSpec;
/// let spec = ImageSpec::builder().k3s_version("v1.31.3+k3s1".parse()?).node("pve").build()?;
/// let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
/// let artifact = image_build::build(&pve, spec).events(events).await?;
/// println!("template {} ({})", artifact.name, artifact.vmid);
/// while let Some(event) = told.recv().await {
///     println!("{event:?}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Step`] with the step that failed, the first cause in its chain, and what could not be cleaned up.
///
/// # Cancel safety
/// Cancel the token to end a build: it stops soon, undoes what it did, and then returns [`Error::Step`] with
/// [`Error::Cancelled`] inside. Dropping the future does the same in the background, as long as the runtime lives: the
/// build runs as a task of its own.
pub fn build(client: &Client, spec: ImageSpec) -> Build {
    Build {
        client: client.clone(),
        spec,
        events: None,
        cancel: CancellationToken::new(),
        ask: None,
        manifest: None,
        screen: None,
        custom_data: BTreeMap::new(),
        lease: LEASE,
        replace: None,
        resume: None,
    }
}

/// Goes on with a build whose builder died, from its last completed step: `build` is its short id. Any process may do so
/// that has the spec and the same API token.
///
/// What was begun is looked at first: a script that had not ended is run again in a restarted guest; an installation that still
/// runs is waited for; a sealing that had not ended, and a build made with a password, whose key is lost, are installed again on
/// the same VM.
///
/// # Errors
/// [`Error::NotResumable`] when there is nothing to go on with, its builder counts as living, or what it was asked for has
/// changed; [`Error::TakenOver`] when another process was quicker. Nothing was changed then. Else as [`build`].
///
/// # Cancel safety
/// As [`build`].
pub fn resume(client: &Client, spec: ImageSpec, build_id: impl Into<String>) -> Build {
    Build {
        resume: Some(build_id.into()),
        ..build(client, spec)
    }
}

impl Build {
    /// Where events go. A closed receiver is no error.
    pub fn events(mut self, to: UnboundedSender<Event>) -> Self {
        self.events = Some(to);
        self
    }

    /// What ends the build early.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.cancel = token;
        self
    }

    /// Who is asked after a failure when the spec says `on_error = "ask"`.
    pub fn ask(mut self, ask: AskOnError) -> Self {
        self.ask = Some(ask);
        self
    }

    /// Writes a manifest in Packer's shape there.
    pub fn manifest(mut self, path: impl Into<PathBuf>) -> Self {
        self.manifest = Some(path.into());
        self
    }

    /// Where a picture of the guest's screen goes when a step fails (PNG, mode 0600). Without it: `console.png` beside the
    /// manifest, and nowhere when there is none.
    pub fn screen(mut self, path: impl Into<PathBuf>) -> Self {
        self.screen = Some(path.into());
        self
    }

    /// How long the build counts as living when its process gives no sign, five minutes by default. Until then no one may go on
    /// with it or collect it; the process renews it three times as often.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Builds beside the template that has the image's name, and takes its place at the end: once the new template is finished and
    /// verified, the old one is renamed and kept, or deleted. Until then the old one is as it was, and when the build fails it
    /// stays so. When the spec names the vmid of the old one, the new one gets that by a full copy at the very end, and an old one that
    /// is kept gets another one. Where there is none it is an ordinary build. A build that is gone on with has this in its journal.
    ///
    /// ```no_run
    /// # async fn example(pve: proxmox_client::Client, spec: image_build::ImageSpec) -> Result<(), image_build::Error> {
    /// use image_build::OldTemplate;
    /// let artifact = image_build::build(&pve, spec).replace(OldTemplate::Retire).await?;
    /// if let Some(name) = artifact.replaced.and_then(|old| old.kept_as) {
    ///     println!("the old one is {name} now");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn replace(mut self, how: impl Into<Replace>) -> Self {
        self.replace = Some(how.into());
        self
    }

    /// Adds a field to the artifact and to the manifest's `custom_data`, as Packer's manifest post-processor has it.
    pub fn custom_data(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.custom_data.insert(name.into(), value.into());
        self
    }
}

impl IntoFuture for Build {
    type Output = Result<Artifact, Error>;
    type IntoFuture = BoxFuture<'static, Result<Artifact, Error>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let cancel = self.cancel.clone();
            in_own_task(&cancel, |cancel| run(self, cancel)).await
        })
    }
}

async fn run(build: Build, cancel: CancellationToken) -> Result<Artifact, Error> {
    let manifest = build.manifest.clone();
    run_steps(build, cancel, |swap| steps::from_iso(manifest, swap)).await
}

async fn run_steps(
    build: Build,
    cancel: CancellationToken,
    make_steps: impl FnOnce(Option<Swap>) -> Vec<Box<dyn Step<Context>>> + Send,
) -> Result<Artifact, Error> {
    let Build {
        client,
        spec,
        events,
        cancel: _,
        ask,
        manifest,
        screen,
        custom_data,
        lease,
        replace,
        resume,
    } = build;
    let on_failure = on_failure(&spec, ask)?;
    let spec = Arc::new(spec);
    let build_id = match &resume {
        Some(id) => known_id(id)?,
        None => format!("{:08x}", rand::rng().random::<u32>()),
    };
    let emitter = Arc::new(Emitter::new(build_id.clone(), events));
    let begun = Instant::now();

    // The answer is kept by the client, so this costs no request more; a failure is preflight's to tell.
    let pve_version = tokio::select! {
        () = cancel.cancelled() => None,
        version = client.version() => version.ok().map(|version| version.version.clone()),
    };
    let screen = screen.or_else(|| Some(manifest.as_ref()?.with_file_name(SCREEN_FILE)));
    let control = Control {
        cancel: cancel.clone(),
        on_failure,
        undo_limit: spec.timeouts.undo,
    };
    let mut context = Context::new(client, Arc::clone(&spec), build_id, Arc::clone(&emitter), cancel);
    context.custom_data = custom_data;
    context.console.picture = screen;
    context.lease = lease;
    context.replace = replace;
    // What steps there are is known once the journal has been read.
    let from = match resume {
        None => Ok("preflight"),
        // The largest part of this future, which would lie in each caller's.
        Some(_) => Box::pin(take_over(&mut context)).await.map(Point::step),
    };
    let mut steps = make_steps(swap(&context));
    emitter.emit(EventKind::BuildStarted {
        image: context
            .resolved
            .as_ref()
            .map_or_else(|| spec.name.to_string(), |resolved| resolved.name.clone()),
        node: spec.node.to_string(),
        pve_version,
        steps: steps.iter().map(|step| step.name().to_string()).collect(),
    });
    let from = from.and_then(|from| {
        let index = steps.iter().position(|step| step.name() == from);
        index.ok_or(Error::Missing {
            what: "the step to begin with",
        })
    });
    let ended = match from {
        Ok(from) => runner::run(&mut steps, &mut context, &control, from).await,
        Err(error) => Err(error),
    };
    let ended = match ended {
        Ok(()) => context.take_stock().cloned(),
        Err(error) => Err(error),
    };
    emitter.emit(EventKind::BuildFinished {
        ok: ended.is_ok(),
        seconds: begun.elapsed().as_secs_f64(),
        artifact: ended.as_ref().ok().cloned().map(Box::new),
        error: ended.as_ref().err().map(Error::chain),
    });
    ended
}

/// The steps of a replacement, as they were asked for or as the journal has them.
fn swap(context: &Context) -> Option<Swap> {
    let asked = context.replace.as_ref().map(|replace| Swap {
        verifies: replace.verify,
        then: replace.old,
        // Whether the old one has that number, preflight finds out.
        renumbers: context.spec.vmid.is_some(),
    });
    context.replacing.as_ref().map(Swap::of).or(asked)
}

/// An id as builds have it, with or without the tag's prefix.
fn known_id(id: &str) -> Result<String, Error> {
    let short = id.trim().trim_start_matches(BUILD_TAG_PREFIX);
    if is_id(short) {
        return Ok(short.to_owned());
    }
    Err(Error::unusable(
        "build id",
        &format!("`{id}` is none: it has eight hexadecimal digits, such as 7f3a12bc"),
        "`k3simage gc` lists the builds that are left on the cluster",
    ))
}

fn on_failure(spec: &ImageSpec, ask: Option<AskOnError>) -> Result<OnFailure, Error> {
    match (spec.on_error, ask) {
        (OnError::Cleanup, _) => Ok(OnFailure::Always(AfterFailure::CleanUp)),
        (OnError::Keep, _) => Ok(OnFailure::Always(AfterFailure::Keep)),
        (OnError::Ask, Some(ask)) => Ok(OnFailure::Ask(ask)),
        (OnError::Ask, None) => Err(Error::unusable(
            "on_error",
            "is `ask`, but there is no one to ask here",
            "write `cleanup` or `keep`, or give the build a callback to ask",
        )),
    }
}

#[cfg(test)]
mod tests;
