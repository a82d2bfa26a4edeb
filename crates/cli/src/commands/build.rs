//! `k3simage build`: runs the pipeline and shows its events.

use std::future::IntoFuture as _;
use std::path::Path;
use std::time::Duration;

use image_build::spec::OnError;
use image_build::{Artifact, Error, Event, EventKind, ImageSpec, Replace};
use proxmox_client::Client;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::MissedTickBehavior;

use super::replace;
#[cfg(feature = "emulator")]
use crate::args::EngineArg;
use crate::args::{BuildArgs, OnErrorArg, RunArgs};
use crate::ask;
#[cfg(feature = "emulator")]
use crate::embedded;
use crate::exit::Exit;
use crate::folder;
use crate::logging;
use crate::output::{BuildView, Console, Problem, TICK};
use crate::signals::Signals;

/// What is said of a build whose guest was no real machine: at its start, in its summary, in `--json` and in the manifest.
const SIMULATED: &str = "simulated";

pub(super) async fn run(args: BuildArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    #[cfg(feature = "emulator")]
    if let Some(engine) = args.emulator {
        return on_emulator(args, engine, console, signals).await;
    }
    let loaded = folder::load(&args.dir, &args.variables, console)?;
    let client = folder::client(&loaded)?;
    let replace = replace::asked(&args.replace)?;
    build(args.run, loaded.spec, client, Kind::New { replace }, console, signals).await
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A new build, in place of a template of its name if that was asked.
    New { replace: Option<Replace> },
    /// The same whose guest is simulated.
    Simulated { replace: Option<Replace> },
    /// The build with this id, gone on with.
    Resumed(String),
}

/// The same build on the embedded emulator: other connection values, nothing else.
#[cfg(feature = "emulator")]
async fn on_emulator(
    args: BuildArgs,
    engine: EngineArg,
    console: &Console,
    signals: &Signals,
) -> Result<Exit, Box<Problem>> {
    let mut spec = folder::load(&args.dir, &args.variables, console)?.spec;
    let replace = replace::asked(&args.replace)?;
    let cluster = embedded::start(&spec, engine, args.qemu, args.data.as_deref()).await?;
    let client = folder::connect(&embedded::connect(&mut spec, &cluster)?)?;
    let simulated = engine == EngineArg::Simulated;
    let kind = if simulated {
        Kind::Simulated { replace }
    } else {
        Kind::New { replace }
    };
    if simulated {
        console.note(format_args!(
            "{} on the embedded Proxmox VE emulator at {}: the guest is simulated, no image is made",
            console.out().warning("simulated:"),
            cluster.url(),
        ));
    } else {
        let kept = match &args.data {
            Some(dir) => format!("the image stays in {}", dir.display()),
            None => "the image ends with the command, --data DIR keeps it".to_owned(),
        };
        console.note(format_args!(
            "on the embedded Proxmox VE emulator at {}: the guest is a QEMU process on this machine, {kept}",
            cluster.url(),
        ));
    }
    let ended = build(args.run, spec, client, kind, console, signals).await;
    cluster.shutdown().await;
    ended
}

/// Runs a build to its end and shows it.
pub(super) async fn build(
    args: RunArgs,
    mut spec: ImageSpec,
    client: Client,
    kind: Kind,
    console: &Console,
    signals: &Signals,
) -> Result<Exit, Box<Problem>> {
    if let Some(on_error) = args.on_error {
        spec.on_error = match on_error {
            OnErrorArg::Cleanup => OnError::Cleanup,
            OnErrorArg::Keep => OnError::Keep,
            OnErrorArg::Ask => OnError::Ask,
        };
    }
    let simulated = matches!(kind, Kind::Simulated { .. });
    let asks = spec.on_error == OnError::Ask;
    if asks && !ask::possible(console) {
        return Err(
            Problem::bad_input("on_error is `ask`, but there is no terminal to ask on")
                .help("write --on-error cleanup or --on-error keep"),
        );
    }
    let mut viewer = Viewer {
        console: console.clone(),
        view: BuildView::new(console.clone()),
        simulated,
        build_id: None,
    };
    let (sender, events) = unbounded_channel();
    let build = match kind {
        Kind::New { replace } | Kind::Simulated { replace } => {
            let build = image_build::build(&client, spec);
            match replace {
                Some(replace) => build.replace(replace),
                None => build,
            }
        }
        Kind::Resumed(id) => image_build::resume(&client, spec, id),
    };
    let mut build = build
        .events(sender)
        .cancel(signals.token())
        .lease(Duration::from_secs(args.lease));
    if asks {
        build = build.ask(ask::on_terminal(console.clone(), signals.token()));
    }
    if simulated {
        build = build.custom_data(SIMULATED, "true");
    }
    if let Some(path) = &args.manifest {
        build = build.manifest(path);
    }
    let beside = args.manifest.as_deref().unwrap_or_else(|| Path::new(""));
    build = build.screen(beside.with_file_name(image_build::build::SCREEN_FILE));
    let mut running = std::pin::pin!(build.into_future());
    match viewer.watch(&mut running, events, signals).await {
        Some(Ok(artifact)) => {
            viewer.success(&artifact, &args);
            Ok(Exit::Ok)
        }
        Some(Err(error)) => Ok(viewer.failure(&error, signals)),
        None => Ok(viewer.abandoned(&client, signals)),
    }
}

/// Takes a build's events to the screen, the log file and `--json`.
#[derive(Debug)]
struct Viewer {
    console: Console,
    view: BuildView,
    simulated: bool,
    build_id: Option<String>,
}

impl Viewer {
    /// Shows events until the build ends; `None` when a second signal asks not to wait for that.
    async fn watch(
        &mut self,
        build: &mut (impl Future<Output = Result<Artifact, Error>> + Unpin),
        mut events: UnboundedReceiver<Event>,
        signals: &Signals,
    ) -> Option<Result<Artifact, Error>> {
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut cancelling = false;
        loop {
            tokio::select! {
                biased;
                () = signals.second() => return None,
                () = signals.first(), if !cancelling => {
                    cancelling = true;
                    self.console.error_line("cancelling: what the build made is being removed; once more stops waiting for that");
                }
                Some(event) = events.recv() => self.event(&event),
                ended = &mut *build => {
                    while let Ok(event) = events.try_recv() {
                        self.event(&event);
                    }
                    return Some(ended);
                }
                _ = ticker.tick() => self.view.tick(),
            }
        }
    }

    fn event(&mut self, event: &Event) {
        if let EventKind::BuildStarted { .. } = &event.kind {
            self.build_id = Some(event.build.clone());
        }
        // Plain data with text keys is always JSON; an event that is not must not end a build.
        let Ok(mut object) = serde_json::to_value(event) else {
            return;
        };
        if let (Some(object), true) = (object.as_object_mut(), self.simulated) {
            object.insert(SIMULATED.to_owned(), Value::Bool(true));
        }
        tracing::debug!(target: logging::EVENTS, "{object}");
        self.console.object(&object);
        self.view.event(event);
    }

    fn success(&mut self, artifact: &Artifact, args: &RunArgs) {
        self.view.success(artifact);
        if let Some(path) = &args.manifest {
            self.console.note(format_args!("     manifest {}", path.display()));
        }
        if self.simulated {
            let tag = self.console.out().warning("simulated:");
            self.console.line(format_args!(
                "     {tag} the guest was simulated and the emulator is gone; without --emulator the same command builds on your cluster"
            ));
        }
    }

    /// Says why a build failed; gives the exit code.
    fn failure(&mut self, error: &Error, signals: &Signals) -> Exit {
        let mut problem = self.view.failure(error);
        if let (true, Some(exit)) = (error.is_cancelled(), signals.exit()) {
            problem.exit = exit;
        }
        // A failure outside the steps has not been shown by the view: a build that cannot be resumed.
        if matches!(error, Error::Step { .. }) {
            self.console.object(&problem.object());
        } else {
            problem.show(&self.console);
        }
        problem.exit
    }

    /// Says what may be left after a second signal; gives the exit code.
    fn abandoned(&mut self, client: &Client, signals: &Signals) -> Exit {
        let exit = signals.exit().unwrap_or(Exit::Failed);
        let mut problem = Problem::failed("stopped before the clean-up was done");
        problem.exit = exit;
        if let Some(build) = &self.build_id {
            problem = problem.help(format!(
                "what is left of build {build} on {} is shown by `k3simage gc`, removed by `k3simage gc --yes`, or gone on with by \
                 `k3simage resume {build} DIR`, as soon as its lease has ended",
                client.endpoint(),
            ));
        }
        self.view.close();
        problem.show(&self.console);
        exit
    }
}
