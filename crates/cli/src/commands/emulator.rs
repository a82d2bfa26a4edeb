//! `k3simage emulator`: serves an emulated Proxmox VE until a signal ends it.

use std::fmt::Write as _;
use std::path::Path;

use pve_emulator::engine::simulated::SimulatedOptions;
use pve_emulator::{Emulator, FaultPlan, StorageSpec, Timing};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{EmulatorArgs, EngineArg};
use crate::embedded;
use crate::exit::Exit;
use crate::output::{Console, Problem};
use crate::signals::Signals;

/// Gives the emulated `root@pam` a password: what root alone may do takes a login, as on a real one. A variable, since arguments
/// are for everybody to read.
const ROOT_PASSWORD: &str = "K3SIMAGE_ROOT_PASSWORD";

pub(super) async fn run(args: &EmulatorArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let mut builder = Emulator::builder()
        .listen(args.listen)
        .timing(timing(args.time_scale))
        .nodes(args.nodes.0.clone());
    if !args.storages.is_empty() {
        let mut storages = StorageSpec::defaults(1);
        storages.extend(args.storages.iter().cloned());
        builder = builder.storages(storages);
    }
    if let Some(file) = &args.faults {
        builder = builder.faults(read_faults(file)?);
    }
    if args.engine == EngineArg::Qemu {
        // Real guests cannot be hurried.
        builder = builder
            .timing(Timing::Real)
            .qemu(embedded::qemu_options(args.qemu, args.guest_ssh_port));
    } else {
        builder = builder.guests(SimulatedOptions {
            ssh_port: args.guest_ssh_port,
            ..SimulatedOptions::default()
        });
    }
    if let Some(dir) = &args.data {
        builder = builder.data_dir(dir);
    }
    if let Some(version) = &args.pve_version {
        builder = builder.pve_version(version);
    }
    if let Some(password) = std::env::var(ROOT_PASSWORD)
        .ok()
        .filter(|password| !password.is_empty())
    {
        builder = builder.user("root@pam", &password);
    }
    let emulator = builder
        .start()
        .await
        .map_err(|error| Problem::bad_input("starting the emulator").because(&error))?;
    if args.engine == EngineArg::Simulated {
        emulator
            .add_installer_iso(embedded::ISO_STORAGE, embedded::ISO)
            .map_err(|error| Problem::failed("putting an installer ISO on the emulator").because(&error))?;
    }
    let hang_up = match &args.faults {
        Some(file) => {
            let hang_up = signal(SignalKind::hangup());
            let hang_up = hang_up.map_err(|error| Problem::failed("listening for SIGHUP").because(&error))?;
            Some((file, hang_up))
        }
        None => None,
    };
    announce(&emulator, args, console);
    if let Some((file, hang_up)) = hang_up {
        follow(&emulator, file, hang_up, console, signals).await;
    }
    emulator.serve_until(signals.token()).await;
    console.note("the emulator has ended");
    Ok(Exit::Ok)
}

fn read_faults(file: &Path) -> Result<FaultPlan, Box<Problem>> {
    FaultPlan::read(file).map_err(|error| Problem::bad_input("reading the faults file").because(&error))
}

/// Takes the faults file again at every SIGHUP, until a signal ends the emulator.
async fn follow(emulator: &Emulator, file: &Path, mut hang_up: Signal, console: &Console, signals: &Signals) {
    loop {
        tokio::select! {
            () = signals.first() => return,
            _ = hang_up.recv() => {}
        }
        // A file that is wrong changes nothing: who is in the middle of a test should not lose it.
        let taken = match FaultPlan::read(file) {
            Ok(plan) => {
                let count = plan.faults.len();
                emulator.apply_faults(plan).await.map(|()| count)
            }
            Err(error) => Err(error),
        };
        match taken {
            Ok(count) => {
                let offline: Vec<&str> = emulator.nodes().filter(|n| !n.is_online()).map(|n| n.name()).collect();
                console.object(&json!({ "event": "faults_read", "faults": count, "offline": offline }));
                let offline = if offline.is_empty() {
                    "none".to_owned()
                } else {
                    offline.join(", ")
                };
                console.line(format_args!(
                    "faults file read: {count} waiting, offline nodes: {offline}"
                ));
            }
            Err(error) => {
                let text = format!("the faults file {} is not taken: {}", file.display(), chain(&error));
                console.object(&json!({ "event": "warning", "message": text }));
                console.error_line(text);
            }
        }
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn timing(scale: f64) -> Timing {
    if scale == 0.0 {
        Timing::Instant
    } else {
        Timing::Scaled(scale)
    }
}

fn announce(emulator: &Emulator, args: &EmulatorArgs, console: &Console) {
    let variables = embedded::variables(emulator);
    let object: Map<String, Value> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
        .collect();
    console.object(&json!({
        "event": "emulator_started",
        "variables": object,
        "url": emulator.url(),
        "fingerprint": emulator.fingerprint(),
        "token_id": emulator.token_id(),
        "token_secret": emulator.token_secret(),
        "engine": emulator.engine(),
        "guest_ssh_port": emulator.guest_ssh_port(),
        "nodes": emulator.nodes().map(|n| json!({ "name": n.name(), "url": n.url() })).collect::<Vec<_>>(),
        "data_dir": emulator.data_dir(),
    }));
    let palette = console.out();
    console.line(format_args!(
        "{}: {}",
        palette.strong("emulated Proxmox VE"),
        match args.engine {
            EngineArg::Simulated => "guests are simulated",
            EngineArg::Qemu => "guests are QEMU processes on this machine",
        }
    ));
    console.line(format_args!("  url          {}", emulator.url()));
    if args.nodes.0.len() > 1 {
        for node in emulator.nodes() {
            console.line(format_args!("  node         {}  {}", node.url(), node.name()));
        }
    }
    console.line(format_args!("  fingerprint  {}", emulator.fingerprint()));
    console.line(format_args!(
        "  token        {}={}",
        emulator.token_id(),
        emulator.token_secret()
    ));
    console.line(format_args!("  guests' ssh  port {}", emulator.guest_ssh_port()));
    let kept = if args.data.is_some() {
        "kept"
    } else {
        "removed at the end; --data DIR keeps it"
    };
    if args.engine == EngineArg::Simulated {
        console.line(format_args!(
            "  installer    {}:iso/{}",
            embedded::ISO_STORAGE,
            embedded::ISO
        ));
    }
    console.line(format_args!(
        "  data         {} ({kept})",
        emulator.data_dir().display()
    ));
    console.note("");
    // A folder's own variable file stands above the environment, so what such files set is given by -var.
    let mut vars = String::new();
    for (name, value) in &variables {
        if *name != "proxmox_token" {
            // Writing to a string cannot fail.
            let _ = write!(vars, " -var '{name}={value}'");
        }
    }
    console.note("Use it:");
    console.note(format_args!(
        "  export PKR_VAR_proxmox_token='{}'",
        emulator.token_secret()
    ));
    console.note(format_args!("  k3simage build DIR{vars}"));
    console.note(format_args!(
        "  curl --cacert {} -H 'Authorization: PVEAPIToken={}={}' {}/api2/json/version",
        emulator.data_dir().join("pve-root-ca.pem").display(),
        emulator.token_id(),
        emulator.token_secret(),
        emulator.url(),
    ));
    console.note(format_args!(
        "  a browser on this machine shows what goes on: {}/",
        emulator.url()
    ));
    if args.faults.is_some() {
        console.note(format_args!(
            "  kill -HUP {} reads the faults file again",
            std::process::id()
        ));
    }
    console.note("Ctrl-C ends it.");
}
