//! Boots the installer, gets it past its menu, and waits for the one fact that ends an install: the VM stops.

mod drives;
mod menu;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use proxmox_client::{ConfigView, Drive, VmConfigUpdate};

use super::media::{http_values, remove_volumes};
use super::medium::needs_medium;
use crate::Error;
use crate::build::context::Context;
use crate::build::event::Unit;
use crate::build::pace::Pace;
use crate::build::resume::Point;
use crate::build::slots;
use crate::build::step::{Step, StepName};
use crate::text::{human_bytes, human_duration};
use drives::{Drives, IDLE_LIMIT};

/// First pause of the waits of an install: nothing real is quicker, and each look is a request.
const FIRST_LOOK: Duration = Duration::from_millis(60);
/// A guest that moves no byte and uses no CPU for so long is worth a warning; after [`IDLE_LIMIT`] it is given up.
const IDLE_WARNING: Duration = Duration::from_secs(90);
/// One that is idle for so long at its first start is given up too, when nobody asked for a kickstart that is served: a key of the
/// boot command was lost, or its network is slow to come up (a switch port takes up to 50 s to forward).
const UNASKED_LIMIT: Duration = Duration::from_secs(120);

/// Runs the installer, takes its media out and boots the installed system.
#[derive(Debug)]
pub(super) struct Install;

#[async_trait]
impl Step<Context> for Install {
    fn name(&self) -> StepName {
        "install".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let begun = Instant::now();
        let mut drives = Drives::default();
        let how = match progress(context).await? {
            Progress::Begin => {
                context.start_vm().await?;
                let mut typed = menu::pass(context, &mut drives, 1).await?;
                if let Ended::Unasked = until_stopped(context, &mut drives, true).await? {
                    context.emitter.warning(
                        "nobody fetched the kickstart: the machine starts anew, and the boot command is typed once more",
                    );
                    menu::start_anew(context, &mut drives).await?;
                    typed += menu::pass(context, &mut drives, menu::MORE_PATIENCE).await?;
                    until_stopped(context, &mut drives, false).await?;
                }
                if typed == 0 {
                    "nothing typed".to_owned()
                } else {
                    format!("{typed} keys typed")
                }
            }
            Progress::Running => {
                context.hear_guest()?;
                until_stopped(context, &mut drives, false).await?;
                "begun before".to_owned()
            }
            Progress::Done => {
                finish(context).await?;
                return Ok("was through, restarted from disk".to_owned());
            }
        };
        let installed_in = begun.elapsed();

        let mut update = VmConfigUpdate::new()
            .delete("reboot")
            .disk(slots::INSTALLER, &Drive::empty_cdrom());
        if context.media()?.oemdrv.is_some() {
            update = update.delete(slots::OEMDRV);
        }
        if needs_medium(&context.spec) {
            // Plugged in while the VM is off: a medium can be changed later, a drive could not be added.
            let slot = slots::behind_disks(context.spec.disks.len());
            update = update.disk(slot, &Drive::empty_cdrom());
        }
        // One call: that `reboot` is back says to whoever goes on with this build that the installation is through.
        context.update_vm("taking the installation media out", &update).await?;
        finish(context).await?;
        Ok(format!(
            "{} written in {}, {how}, restarted from disk",
            human_bytes(drives.written),
            human_duration(installed_in)
        ))
    }
}

/// How far an installation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It is to begin.
    Begin,
    /// The installer runs.
    Running,
    /// The system is installed, and the media are out.
    Done,
}

/// A build that is gone on with may have been left anywhere; what the VM shows decides.
async fn progress(context: &mut Context) -> Result<Progress, Error> {
    let Some(resumed) = context.resumed else {
        return Ok(Progress::Begin);
    };
    if resumed.point == Point::Install {
        let vmid = context.vmid()?;
        let config = context
            .vm()?
            .config(ConfigView::Pending)
            .await
            .map_err(Error::api(format!("reading the configuration of vm {vmid}")))?;
        if config.flag("reboot") != Some(false) {
            return Ok(Progress::Done);
        }
        // A stopped VM may have been stopped by anything; that its installer had ended is known of a running one only.
        if context.vm_status().await?.is_running() && context.media()?.oemdrv.is_some() {
            return Ok(Progress::Running);
        }
    }
    context.ready_to_install().await?;
    Ok(Progress::Begin)
}

/// Removes what only the installer needed, and boots the installed system.
async fn finish(context: &mut Context) -> Result<(), Error> {
    context.server = None;
    if let Some(oemdrv) = context.media()?.oemdrv.clone() {
        remove_volumes(context, |volid| *volid == oemdrv).await?;
    }
    if context.resumed.is_some() && context.vm_status().await?.is_running() {
        return context.hear_guest();
    }
    context.start_vm().await
}

/// How the wait for the end of an installation ended.
enum Ended {
    /// The installer is through.
    Stopped,
    /// It never got as far as asking for its kickstart.
    Unasked,
}

/// Waits for the installer's reboot, which `reboot=0` turns into a stop (`FACTS` 74). Where it may be started `again`, one that asks
/// for no kickstart is not waited for to the last.
async fn until_stopped(context: &Context, drives: &mut Drives, again: bool) -> Result<Ended, Error> {
    let mut pace = Pace::new(
        "the end of the installation",
        context.spec.timeouts.install,
        &context.cancel,
    )
    .first(FIRST_LOOK)
    .watching(&context.console);
    loop {
        let status = context.vm_status().await?;
        if status.is_stopped() {
            // An installer that gave up reboots too (`inst.cmdline`, `reboot` after an error).
            if let Some(reason) = context.console.last_verdict().or_else(|| drives.nothing_booted()) {
                return Err(Error::Impossible {
                    what: "the end of the installation".to_owned(),
                    reason,
                });
            }
            return Ok(Ended::Stopped);
        }
        drives.see(&status);
        context.emitter.progress(
            drives.written,
            None,
            Unit::Bytes,
            match context.console.lines() {
                0 => format!("{} written", human_bytes(drives.written)),
                lines => format!("{} written, {lines} console lines", human_bytes(drives.written)),
            },
        );
        let silence = drives.silence();
        let unasked_for = context.server.as_ref().is_some_and(|server| server.served() == 0);
        if again && unasked_for && silence >= UNASKED_LIMIT && drives.idle() {
            return Ok(Ended::Unasked);
        }
        if silence >= drives.silence_limit() {
            return Err(Error::Impossible {
                what: "the end of the installation".to_owned(),
                reason: format!("{}{}", drives.story(), unasked(context)),
            });
        }
        if silence >= IDLE_WARNING && drives.idle() && drives.tells_once() {
            context.emitter.warning(format!(
                "{}{}; the build gives up when this has lasted {}",
                drives.story(),
                unasked(context),
                human_duration(IDLE_LIMIT)
            ));
        }
        pace.pause(&format!("the vm still runs, {}", drives.story())).await?;
    }
}

/// What a server that nobody asked says about the cause.
fn unasked(context: &Context) -> String {
    let served = context.server.as_ref().map(crate::media::KickstartServer::served);
    match (served, http_values(context.media().ok(), context.server.as_ref())) {
        (Some(0), Some((address, port))) => format!(
            "; nobody fetched the kickstart, so the boot command was not typed as meant, or the guest does not reach {address} \
             port {} (http_address, a firewall)",
            port.split('/').next().unwrap_or_default()
        ),
        _ => String::new(),
    }
}
