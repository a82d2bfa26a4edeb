//! `k3simage emulator`: serves an emulated Proxmox VE until a signal ends it.

use std::fmt::Write as _;

use pve_emulator::{Emulator, Timing};
use serde_json::{Map, Value, json};

use crate::args::EmulatorArgs;
use crate::embedded;
use crate::exit::Exit;
use crate::output::{Console, Problem};
use crate::signals::Signals;

pub(super) async fn run(args: &EmulatorArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let mut builder = Emulator::builder().listen(args.listen).timing(timing(args.time_scale));
    if let Some(dir) = &args.data {
        builder = builder.data_dir(dir);
    }
    if let Some(version) = &args.pve_version {
        builder = builder.pve_version(version);
    }
    let emulator = builder
        .start()
        .await
        .map_err(|error| Problem::bad_input("starting the emulator").because(&error))?;
    emulator
        .add_installer_iso(embedded::ISO_STORAGE, embedded::ISO)
        .map_err(|error| Problem::failed("putting an installer ISO on the emulator").because(&error))?;
    announce(&emulator, args, console);
    emulator.serve_until(signals.token()).await;
    console.note("the emulator has ended");
    Ok(Exit::Ok)
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
        "guest_ssh_port": emulator.guest_ssh_port(),
        "data_dir": emulator.data_dir(),
    }));
    let palette = console.out();
    console.line(format_args!(
        "{}: guests are simulated",
        palette.strong("emulated Proxmox VE")
    ));
    console.line(format_args!("  url          {}", emulator.url()));
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
    console.line(format_args!(
        "  installer    {}:iso/{}",
        embedded::ISO_STORAGE,
        embedded::ISO
    ));
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
        "  curl -k -H 'Authorization: PVEAPIToken={}={}' {}/api2/json/version",
        emulator.token_id(),
        emulator.token_secret(),
        emulator.url(),
    ));
    console.note("Ctrl-C ends it.");
}
