//! Goes on after a script that may have ended the connection: waits until the guest answers again and is not on its way down.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::connect;
use crate::Error;
use crate::build::context::Context;
use crate::build::pace::Pace;
use crate::communicator::{Command, CommunicatorError, OutputStream};
use crate::text::human_duration;

/// Prints the boot's id, and `down` when a reboot or shutdown was asked for and is still to come: logind lets who wishes
/// delay it, and until then nothing else shows.
///
/// # Source
/// `random(4)`; `systemctl(1)`, is-system-running; `org.freedesktop.login1(5)`, `PreparingForShutdown`; systemd keeps
/// what `shutdown(8)` has scheduled in `/run/systemd/shutdown/scheduled`.
const LOOK: &str = r#"cat /proc/sys/kernel/random/boot_id
asked() { busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager PreparingForShutdown 2>/dev/null; }
if [ "$(systemctl is-system-running 2>/dev/null)" = stopping ] || [ -e /run/systemd/shutdown/scheduled ] || [ "$(asked)" = "b true" ]; then
echo down
fi"#;
/// How long one look may take; a guest on its way down may not answer any more.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// What a look into the guest shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    boot: String,
    going_down: bool,
}

impl Seen {
    fn read(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim);
        Self {
            boot: lines.next().unwrap_or_default().to_owned(),
            going_down: lines.any(|line| line == "down"),
        }
    }
}

/// The boot that runs now, to be compared later.
#[derive(Clone, Debug)]
pub(super) struct Boot(String);

impl Boot {
    /// # Errors
    /// What the communicator met.
    pub(super) async fn of(context: &Context) -> Result<Self, Error> {
        let what = "asking the guest which boot it is in";
        Ok(Self(look(context).await?.map_err(Error::guest(what))?.boot))
    }
}

async fn look(context: &Context) -> Result<Result<Seen, CommunicatorError>, Error> {
    let communicator = context.communicator()?;
    let said = Mutex::new(String::new());
    let on_line = |stream: OutputStream, line: &str| {
        if stream == OutputStream::Stdout {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(line);
            said.push('\n');
        }
    };
    let command = Command::sh(LOOK, []).timeout(LOOK_LIMIT);
    let ended = context.or_cancel(communicator.exec(&command, &on_line)).await?;
    let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(ended.map(|_| Seen::read(&said)))
}

/// Waits, no longer than a first boot may take, until the guest answers, and opens a new way into it when the old one is gone.
/// What became of it in a few words, nothing when it is the boot of before.
///
/// # Errors
/// The guest powered off, or did not answer in time, as those of a first connection.
pub(super) async fn come_back(context: &mut Context, script: &str, before: &Boot) -> Result<Option<String>, Error> {
    let what = format!("the guest's return after {script}");
    let (cancel, emitter) = (context.cancel.clone(), std::sync::Arc::clone(&context.emitter));
    let limit = context.spec.communicator.ssh.timeout;
    let mut pace = Pace::new(&what, limit, &cancel).telling(&emitter);
    loop {
        let seen = match look(context).await? {
            Ok(seen) if !seen.going_down => {
                let rebooted = seen.boot != before.0;
                return Ok(rebooted.then(|| format!("rebooted in {}", human_duration(pace.waited()))));
            }
            Ok(_) => "it is on its way down".to_owned(),
            Err(error) => {
                if context.vm_status().await?.is_stopped() {
                    return Err(powered_off(context, &what)?);
                }
                if let Some(old) = context.communicator.take() {
                    old.close().await;
                }
                let (communicator, _) = connect::open(context, limit.saturating_sub(pace.waited())).await?;
                context.communicator = Some(communicator);
                error.to_string()
            }
        };
        pace.pause(&seen).await?;
    }
}

/// The error for a guest that stopped in the middle of the work.
pub(super) fn powered_off(context: &Context, what: &str) -> Result<Error, Error> {
    Ok(Error::Impossible {
        what: what.to_owned(),
        reason: format!(
            "vm {} powered off: a script may reboot the guest (when expect_disconnect lists it), not halt it",
            context.vmid()?
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_the_boot_and_whether_it_ends() {
        for (text, boot, going_down) in [
            ("0f-1\n", "0f-1", false),
            ("0f-1\ndown\n", "0f-1", true),
            ("", "", false),
        ] {
            let boot = boot.to_owned();
            assert_eq!(Seen::read(text), Seen { boot, going_down }, "{text:?}");
        }
    }
}
