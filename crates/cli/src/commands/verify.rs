//! `k3simage verify`: clones a template twice, compares the clones, and shows what they share.

use std::future::IntoFuture as _;
use std::path::Path;
use std::time::Duration;

use image_build::verify::{Check, Outcome};
use image_build::{VerifyReport, VerifySpec};
use proxmox_client::Client;
use tokio::sync::mpsc::unbounded_channel;

use super::{ip_configs, or_ended};
use crate::args::VerifyArgs;
#[cfg(feature = "emulator")]
use crate::embedded;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem, duration};
use crate::signals::Signals;
use crate::viewer::{Viewer, Work};

pub(super) async fn run(args: VerifyArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let mut spec = spec(&args)?;
    #[cfg(feature = "emulator")]
    if let (Some(engine), Some(data)) = (args.emulator, &args.data) {
        let cluster = embedded::open(engine, args.qemu, data).await?;
        let client = folder::connect(&embedded::connection(&cluster)?).await?;
        spec.ssh_port = cluster.guest_ssh_port();
        let ended = verify(&args, spec, client, console, signals).await;
        cluster.shutdown().await;
        return ended;
    }
    let (dir, variables) = (args.dir.as_deref(), &args.variables);
    let client = if let Some(port) = args.ssh_port {
        spec.ssh_port = port;
        or_ended(folder::connected(dir, variables, console), signals).await?
    } else {
        let (client, port) = or_ended(folder::reached(dir, variables, console), signals).await?;
        spec.ssh_port = port;
        client
    };
    verify(&args, spec, client, console, signals).await
}

fn spec(args: &VerifyArgs) -> Result<VerifySpec, Box<Problem>> {
    let wrong = |what: &str, error: &(dyn std::error::Error + 'static)| Problem::bad_input(what).because(error);
    let mut spec = VerifySpec::new(&args.template);
    spec.iso_storage = args
        .iso_storage
        .parse()
        .map_err(|error: proxmox_client::Error| wrong("--iso-storage", &error))?;
    spec.full = args.full;
    if let Some(storage) = &args.storage {
        let storage = storage.parse();
        spec.storage = Some(storage.map_err(|error: proxmox_client::Error| wrong("--storage", &error))?);
    }
    if let Some(pool) = &args.pool {
        let pool = pool.parse();
        spec.pool = Some(pool.map_err(|error: proxmox_client::Error| wrong("--pool", &error))?);
    }
    spec.ip_configs = ip_configs(&args.ipconfig)?;
    let limit = Duration::from_secs(args.timeout);
    spec.timeouts.boot = limit;
    spec.timeouts.k3s = limit;
    Ok(spec)
}

async fn verify(
    args: &VerifyArgs,
    spec: VerifySpec,
    client: Client,
    console: &Console,
    signals: &Signals,
) -> Result<Exit, Box<Problem>> {
    let mut viewer = Viewer::new(console, Work::Verification);
    let (sender, events) = unbounded_channel();
    let verify = image_build::verify(&client, spec)
        .events(sender)
        .cancel(signals.token())
        .report(&args.report)
        .lease(Duration::from_secs(args.lease));
    let mut running = std::pin::pin!(verify.into_future());
    match viewer.watch(&mut running, events, signals).await {
        Some(Ok(report)) => Ok(show(&mut viewer, &report, &args.report)),
        Some(Err(error)) => {
            // It is not lost with the file that it could not be written to.
            if let Some(report) = viewer.found.clone() {
                findings(&mut viewer, &report);
            }
            Ok(viewer.failure(&error, signals))
        }
        None => Ok(viewer.abandoned(&client, signals)),
    }
}

/// The table, and when the clones came up.
fn findings(viewer: &mut Viewer, report: &VerifyReport) {
    viewer.view.close();
    let console = &viewer.console;
    for line in table(report, console) {
        console.line(line);
    }
    for clone in &report.clones {
        let took = |seconds: f64| duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let k3s = match clone.k3s_seconds {
            Some(seconds) => format!("k3s active after {}", took(seconds)),
            None => "k3s not seen active".to_owned(),
        };
        console.line(format_args!(
            "{}: ssh after {}, {k3s}",
            clone.name,
            took(clone.ssh_seconds)
        ));
    }
}

/// What was found, and the exit code that it means.
fn show(viewer: &mut Viewer, report: &VerifyReport, path: &Path) -> Exit {
    findings(viewer, report);
    let console = &viewer.console;
    console.note(format_args!("     report {}", path.display()));
    if report.ok {
        let palette = console.out();
        console.line(format_args!(
            "{}: {}",
            palette.strong(&report.template),
            report.summary()
        ));
        Exit::Ok
    } else {
        let palette = console.err();
        console.error_line(format_args!("{} {}", palette.bad("error:"), report.summary()));
        Exit::Failed
    }
}

/// Longest value that a column shows; the report holds all of it.
const WIDEST: usize = 24;

/// One line a check, and below those that are not well what was found.
fn table(report: &VerifyReport, console: &Console) -> Vec<String> {
    let cut = |text: &str| match text.char_indices().nth(WIDEST) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text.to_owned(),
    };
    let mut rows = vec![["CHECK", "FIRST", "SECOND"].map(str::to_owned)];
    let shown = |check: &Check| [check.name.clone(), cut(&check.first), cut(&check.second)];
    rows.extend(report.checks.iter().map(shown));
    let width = |column: usize| {
        let widths = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        widths.max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let palette = console.out();
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let cells = cells.join("  ");
        let Some(check) = index.checked_sub(1).and_then(|index| report.checks.get(index)) else {
            lines.push(format!("     {cells}  RESULT"));
            continue;
        };
        let (tag, result) = match check.outcome {
            Outcome::Ok => (palette.good("ok "), "ok".to_owned()),
            Outcome::Shared => (palette.bad("ERR"), format!("shared: {}", check.message)),
            Outcome::NotChecked => (palette.warning("-- "), format!("not checked: {}", check.message)),
            _ => (palette.bad("ERR"), check.message.clone()),
        };
        lines.push(format!(" {tag} {cells}  {result}"));
    }
    lines
}
