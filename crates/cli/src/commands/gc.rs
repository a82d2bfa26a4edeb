//! `k3simage gc`: shows what dead builds and verifications left on the cluster, and removes it when told to.

use std::time::Duration;

use image_build::gc::{self, Found, Origin, State};
use proxmox_client::Client;
use serde_json::json;

use super::or_ended;
use crate::args::GcArgs;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem};
use crate::signals::Signals;

pub(super) async fn run(args: &GcArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let client = or_ended(
        folder::connected(args.dir.as_deref(), &args.variables, console),
        signals,
    )
    .await?;
    let looking = gc::find(&client, Duration::from_secs(args.volume_age));
    let all = tokio::select! {
        found = looking => found.map_err(|error| Problem::before(&error))?,
        () = signals.first() => return Ok(signals.exit().unwrap_or(Exit::Interrupted)),
    };
    for found in &all {
        show(found, console);
    }
    let dead: Vec<&Found> = all.iter().filter(|found| found.state == State::Dead).collect();
    if dead.is_empty() {
        if all.is_empty() {
            console.note(format_args!(
                "nothing is left of builds and verifications on {}",
                client.endpoint()
            ));
        } else {
            console.note("nothing of this is dead: there is nothing to remove");
        }
        return Ok(Exit::Ok);
    }
    if !args.yes {
        console.note(
            "`k3simage gc --yes` removes what stands below each dead one; `k3simage resume BUILD DIR` goes on with it",
        );
        return Ok(Exit::Ok);
    }
    remove(&client, &dead, console, signals).await
}

async fn remove(client: &Client, dead: &[&Found], console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let cancel = signals.token();
    let (mut something, mut first) = (false, None);
    for found in dead {
        let mut removed = Vec::new();
        let ended = gc::remove(client, found, &cancel, &mut removed).await;
        // Also where it went wrong in the middle.
        for thing in &removed {
            console.object(&json!({"event": "removed", "id": found.id, "of": found.of, "thing": thing}));
            console.line(format_args!("removed {thing}"));
        }
        something |= !removed.is_empty();
        match ended {
            Ok(()) => {}
            Err(_) if cancel.is_cancelled() => return Ok(signals.exit().unwrap_or(Exit::Interrupted)),
            // The others are tried all the same.
            Err(error) => {
                let problem = Problem::before(&error);
                first.get_or_insert(problem.exit);
                problem.show(console);
            }
        }
    }
    Ok(match first {
        None => Exit::Ok,
        // 2 and 3 say that nothing was changed.
        Some(_) if something => Exit::Failed,
        Some(exit) => exit,
    })
}

fn show(found: &Found, console: &Console) {
    let mut object = json!(found);
    if let Some(object) = object.as_object_mut() {
        object.insert("event".to_owned(), "found".into());
    }
    console.object(&object);
    let palette = console.out();
    let state = match found.state {
        State::Dead => palette.warning(found.state),
        _ => palette.strong(found.state),
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
