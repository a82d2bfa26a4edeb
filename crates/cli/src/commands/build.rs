//! `k3simage build`: runs the pipeline and shows its events.

use std::future::IntoFuture as _;
use std::path::Path;
use std::time::Duration;

use image_build::spec::OnError;
use image_build::{Artifact, ImageSpec, Replace};
use proxmox_client::Client;
use tokio::sync::mpsc::unbounded_channel;

use super::{or_ended, replace};
#[cfg(feature = "emulator")]
use crate::args::EngineArg;
use crate::args::{BuildArgs, OnErrorArg, RunArgs};
use crate::ask;
#[cfg(feature = "emulator")]
use crate::embedded;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem};
use crate::signals::Signals;
use crate::variable_args::VariableArgs;
use crate::viewer::{Viewer, Work};

/// What is said of a build whose guest was no real machine: at its start, in its summary, in `--json` and in the manifest.
const SIMULATED: &str = "simulated";

pub(super) async fn run(args: BuildArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    #[cfg(feature = "emulator")]
    if let Some(engine) = args.emulator {
        return on_emulator(args, engine, console, signals).await;
    }
    let (spec, client) = or_ended(read(&args.dir, &args.variables, console), signals).await?;
    let replace = replace::of_build(&args)?;
    build(args.run, spec, client, Kind::New { replace }, console, signals).await
}

/// What a folder describes, and a client for the cluster that it names.
pub(super) async fn read(
    dir: &Path,
    variables: &VariableArgs,
    console: &Console,
) -> Result<(ImageSpec, Client), Box<Problem>> {
    let loaded = folder::load(dir, variables, console).await?;
    let client = folder::client(&loaded).await?;
    Ok((loaded.spec, client))
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
    let mut spec = or_ended(folder::load(&args.dir, &args.variables, console), signals)
        .await?
        .spec;
    let replace = replace::of_build(&args)?;
    let cluster = embedded::start(&spec, engine, args.qemu, args.data.as_deref()).await?;
    let client = folder::connect(&embedded::connect(&mut spec, &cluster)?).await?;
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
    let mut viewer = Viewer::new(console, Work::Build);
    if simulated {
        viewer.mark(SIMULATED);
    }
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
            success(&mut viewer, &artifact, &args, simulated);
            Ok(Exit::Ok)
        }
        Some(Err(error)) => Ok(viewer.failure(&error, signals)),
        None => Ok(viewer.abandoned(&client, signals)),
    }
}

/// Shows what a build that ended well has made.
fn success(viewer: &mut Viewer, artifact: &Artifact, args: &RunArgs, simulated: bool) {
    viewer.view.success(artifact);
    let console = &viewer.console;
    if let Some(path) = &args.manifest {
        console.note(format_args!("     manifest {}", path.display()));
    }
    if simulated {
        let tag = console.out().warning("simulated:");
        console.line(format_args!(
            "     {tag} the guest was simulated and the emulator is gone; without --emulator the same command builds on your cluster"
        ));
    }
}
