//! The installer's boot menu: waits until it is there, types into it, and sees to it that the keys had their effect.

use std::time::{Duration, Instant};

use proxmox_client::ErrorKind;

use super::FIRST_LOOK;
use super::drives::Drives;
use crate::Error;
use crate::boot_command::{BootAction, BootValues};
use crate::build::context::Context;
use crate::build::event::Unit;
use crate::build::pace::Pace;
use crate::build::steps::media::http_values;
use crate::preset;
use crate::spec::Delivery;
use crate::text::human_bytes;

/// How long the reads from the ISO must rest at least until they mean a menu that waits for a key. Boot loaders read their
/// files in one go; a network storage's hiccup is shorter.
const SETTLED: Duration = Duration::from_secs(1);
/// The same for a command that cannot be typed again. A menu may still be drawn then, and forgets the keys that came before: an Esc
/// that is lost leaves the rest of the line to the menu, which starts its default entry at the Enter.
const SETTLED_FOR_GOOD: Duration = Duration::from_secs(3);
/// And at least this part of the time that it took until the last read: where firmware is slow, the boot loader is too.
const SETTLED_PART: u32 = 2;
/// How long what boots after the menu may take to begin; the keys had no effect then.
const ANSWER: Duration = Duration::from_secs(10);
/// How often Up and Enter are typed at most: after a minute the menu goes on by itself.
const TRIES: u32 = 4;
/// How often the machine is started anew at most to type another command once more, and how much more time its menu gets then.
const STARTS: u32 = 3;
pub(super) const MORE_PATIENCE: u32 = 4;
/// Longest pause between looks while the menu is awaited.
const LOOK: Duration = Duration::from_millis(250);
/// How long the boot menu is waited for. Firmware takes seconds; with gigabytes of memory to clear, half a minute.
const LIMIT: Duration = Duration::from_secs(180);
/// More than this was read from the ISO: kernel and initial ramdisk (over 100 MiB) are being loaded, and the menu is gone.
/// The boot loaders with their fonts and pictures are some 10 MiB.
const READS_AT_MOST: u64 = 48 << 20;
/// How long a key is tried again that PVE was too busy to take: a key that was refused was not typed.
const KEY_LIMIT: Duration = Duration::from_secs(30);

/// Gets past the menu; tells how many keys were typed for it.
///
/// A boot loader can be at rest before its menu takes keys, on a slow machine for seconds. Whether it took them is a fact: the
/// kernel is read. The preset's Up and Enter do no harm when they are typed again; what half of another command did cannot be
/// known, so the machine starts anew for it. `patience` is how many times the usual rest the menu gets.
pub(super) async fn pass(context: &mut Context, drives: &mut Drives, mut patience: u32) -> Result<usize, Error> {
    let keys = keys(context)?;
    if !keys.iter().any(|step| matches!(step, BootAction::Key(_))) {
        return Ok(0);
    }
    if let Some(wait) = context.spec.installer.boot_wait {
        context.or_cancel(tokio::time::sleep(wait)).await?;
        return type_keys(context, &keys).await;
    }
    let installer = &context.spec.installer;
    let repeatable = installer.boot_command.is_none() && matches!(installer.delivery, Delivery::Oemdrv);
    let settled = if repeatable { SETTLED } else { SETTLED_FOR_GOOD };
    for start in 1..=STARTS {
        let begun = Instant::now();
        if !waits(context, drives, settled, patience).await? {
            if context.media()?.http.is_none() {
                return Ok(0);
            }
            return Err(Error::Impossible {
                what: "typing the boot command".to_owned(),
                reason: "the boot menu went on by itself before it was seen: set boot_wait to the seconds after which the menu \
                         is there, or let the kickstart travel on a volume (kickstart_delivery = \"oemdrv\")"
                    .to_owned(),
            });
        }
        let before = drives.iso_read;
        let mut typed = 0;
        for attempt in 1..=TRIES {
            typed += type_keys(context, &keys).await?;
            if left(context, drives, begun, before).await? {
                return Ok(typed);
            }
            if !repeatable {
                break;
            }
            if attempt == TRIES {
                return Ok(typed);
            }
            context
                .emitter
                .warning("the boot menu took no notice of the keys: they are typed again");
        }
        if start < STARTS {
            context.emitter.warning(
                "no kernel was read after the boot command: the machine starts anew, and its menu gets more time",
            );
            start_anew(context, drives).await?;
            patience *= MORE_PATIENCE;
        }
    }
    Err(Error::Impossible {
        what: "starting the installer".to_owned(),
        reason: format!(
            "no kernel was read from the ISO after the boot command was typed, {STARTS} times: it does not fit this medium's menu, \
             or the menu needs longer (boot_wait)"
        ),
    })
}

/// Pulls the plug and starts the machine once more.
pub(super) async fn start_anew(context: &mut Context, drives: &mut Drives) -> Result<(), Error> {
    let upid = context.vm()?.stop().await.map_err(Error::api("stopping the vm"))?;
    context.finish(&upid, "stopping the vm", context.task_limit()).await?;
    *drives = Drives::default();
    context.start_vm().await
}

/// The keys to type, with the kickstart's address filled in.
fn keys(context: &Context) -> Result<Vec<BootAction>, Error> {
    let spec = &context.spec;
    let command = match &spec.installer.boot_command {
        Some(command) => command.clone(),
        None => preset::boot_command(spec.hardware.bios, &spec.installer.delivery),
    };
    let http = http_values(Some(context.media()?), context.server.as_ref());
    let values = BootValues {
        http_ip: http.as_ref().map(|(address, _)| address.to_string()),
        http_port: http.map(|(_, port)| port),
        name: Some(context.resolved()?.name.clone()),
    };
    command
        .expand(&values)
        .map_err(|error| Error::unusable("boot_command", &error.to_string(), error.help().unwrap_or_default()))
}

/// Waits until the boot menu waits for a key: the ISO was read, and is read no more (`FACTS` 76 and 83). `false` when the
/// machine went past it by itself.
async fn waits(context: &Context, drives: &mut Drives, at_least: Duration, patience: u32) -> Result<bool, Error> {
    let limit = context.spec.timeouts.install.min(LIMIT);
    let mut pace = Pace::new("the boot menu", limit, &context.cancel)
        .first(FIRST_LOOK)
        .at_most(LOOK)
        .watching(&context.console);
    let begun = Instant::now();
    let mut settled: Option<(u64, Instant)> = None;
    loop {
        let status = context.vm_status().await?;
        if status.is_stopped() {
            return Ok(false);
        }
        drives.see(&status);
        if drives.iso_read > READS_AT_MOST || drives.written > 0 {
            return Ok(false);
        }
        match settled {
            Some((read, since))
                if read == drives.iso_read && since.elapsed() >= rest(begun, since, at_least) * patience =>
            {
                return Ok(true);
            }
            Some((read, _)) if read == drives.iso_read => {}
            _ if drives.iso_read > 0 => settled = Some((drives.iso_read, Instant::now())),
            _ => {}
        }
        let seen = if drives.iso_read == 0 {
            "nothing was read from the installer ISO: does the VM boot from it?".to_owned()
        } else {
            format!(
                "{} were read from the installer ISO, and its menu does not come to rest: set boot_wait to the seconds after \
                 which it is there",
                human_bytes(drives.iso_read)
            )
        };
        pace.pause(&seen).await?;
    }
}

/// How long reads must rest that ended at `last`.
fn rest(begun: Instant, last: Instant, at_least: Duration) -> Duration {
    at_least.max(last.saturating_duration_since(begun) / SETTLED_PART)
}

/// Whether the machine goes on after keys were typed; `before` was read from the ISO until then.
async fn left(context: &Context, drives: &mut Drives, begun: Instant, before: u64) -> Result<bool, Error> {
    let limit = ANSWER.max(begun.elapsed() / SETTLED_PART);
    let mut pace = Pace::new("the boot menu's answer", limit, &context.cancel)
        .first(FIRST_LOOK)
        .at_most(LOOK)
        .watching(&context.console);
    loop {
        let status = context.vm_status().await?;
        drives.see(&status);
        if status.is_stopped() || drives.written > 0 || drives.boots(before) {
            return Ok(true);
        }
        match pace.pause("the boot loader reads nothing").await {
            Err(Error::Timeout { .. }) => return Ok(false),
            paused => paused?,
        }
    }
}

async fn type_keys(context: &Context, keys: &[BootAction]) -> Result<usize, Error> {
    let vm = context.vm()?;
    let vmid = context.vmid()?;
    let interval = context.spec.installer.boot_key_interval;
    let total = keys.iter().filter(|step| matches!(step, BootAction::Key(_))).count();
    let mut typed = 0;
    for step in keys {
        match step {
            BootAction::Wait(wait) => context.or_cancel(tokio::time::sleep(*wait)).await?,
            BootAction::Key(key) => {
                let mut pace = Pace::new("typing the boot command", KEY_LIMIT, &context.cancel);
                loop {
                    match vm.send_key(key.as_str()).await {
                        Ok(()) => break,
                        // Surely not typed: it can be typed now without appearing twice.
                        Err(error) if error.kind() == ErrorKind::Busy || !error.was_sent() => {
                            pace.pause("PVE is busy with the vm").await?;
                        }
                        Err(error) => return Err(Error::api(format!("typing key `{key}` into vm {vmid}"))(error)),
                    }
                }
                typed += 1;
                context
                    .emitter
                    .progress(typed as u64, Some(total as u64), Unit::Items, "typing the boot command");
                context.or_cancel(tokio::time::sleep(interval)).await?;
            }
        }
    }
    Ok(typed)
}
