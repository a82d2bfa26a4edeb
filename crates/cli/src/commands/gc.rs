//! `k3simage gc`: shows what dead builds and verifications left on the cluster, and removes it when told to.

use std::time::Duration;

use image_build::gc::{self, Found, Origin};
use proxmox_client::Client;
use serde_json::json;

use crate::args::GcArgs;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem};
use crate::signals::Signals;

pub(super) async fn run(args: &GcArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let client = folder::connect(&folder::connection(args.dir.as_deref(), &args.variables, console)?)?;
    let looking = gc::find(&client, Duration::from_secs(args.volume_age));
    let all = tokio::select! {
        found = looking => found.map_err(|error| Problem::before(&error))?,
        () = signals.first() => return Ok(signals.exit().unwrap_or(Exit::Interrupted)),
    };
    for found in &all {
        show(found, console);
    }
    let dead: Vec<&Found> = all.iter().filter(|found| !found.living).collect();
    if dead.is_empty() {
        console.note(format_args!(
            "nothing is left of dead builds and verifications on {}",
            client.endpoint()
        ));
        return Ok(Exit::Ok);
    }
    if !args.yes {
        console.note("`k3simage gc --yes` removes what is dead; `k3simage resume BUILD DIR` goes on with it");
        return Ok(Exit::Ok);
    }
    remove(&client, &dead, console, signals).await
}

async fn remove(client: &Client, dead: &[&Found], console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let cancel = signals.token();
    let mut exit = Exit::Ok;
    for found in dead {
        match gc::remove(client, found, &cancel).await {
            Ok(removed) => {
                for thing in removed {
                    console.object(&json!({"event": "removed", "id": found.id, "of": found.of, "thing": thing}));
                    console.line(format_args!("removed {thing}"));
                }
            }
            Err(_) if cancel.is_cancelled() => return Ok(signals.exit().unwrap_or(Exit::Interrupted)),
            // The others are tried all the same.
            Err(error) => {
                let problem = Problem::before(&error);
                exit = problem.exit;
                problem.show(console);
            }
        }
    }
    Ok(exit)
}

fn show(found: &Found, console: &Console) {
    let mut object = json!(found);
    if let Some(object) = object.as_object_mut() {
        object.insert("event".to_owned(), "found".into());
    }
    console.object(&object);
    let palette = console.out();
    let state = if found.living {
        palette.strong("alive")
    } else {
        palette.warning("dead")
    };
    let image = match (&found.image, found.of) {
        (None, _) => String::new(),
        (Some(image), Origin::Verification) => format!(" of {image}"),
        (Some(image), _) => format!(" {image}"),
    };
    let step = match (&found.step, found.of) {
        (Some(step), Origin::Build) => format!(", begun last: {step}"),
        _ => String::new(),
    };
    console.line(format_args!(
        "{}  {state}  {}{image}{step}: {}",
        found.id, found.of, found.because
    ));
    for thing in &found.things {
        console.line(format_args!("    {thing}"));
    }
}
