//! Boots the installer, gets it past its menu, and waits for the one fact that ends an install: the VM stops.

mod menu;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use proxmox_client::{ConfigView, Drive, VmConfigUpdate, VmStatus};

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

/// First pause of the waits of an install: nothing real is quicker, and each look is a request.
const FIRST_LOOK: Duration = Duration::from_millis(60);
/// A guest that moves no byte and uses no CPU for so long is worth a warning ...
const IDLE_WARNING: Duration = Duration::from_secs(90);
/// ... and after so long it waits for someone who will not come. DHCP and mirrors that do not answer hold dracut and Anaconda
/// up to some three minutes.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// And after so long at its first start, when nobody asked for a kickstart that is served: a key of the boot command was lost, or its
/// network is slow to come up (a switch port takes up to 50 s to forward).
const UNASKED_LIMIT: Duration = Duration::from_secs(120);
/// A VM that was seen running for so long and stopped has booted nothing, when no byte is on its disk ...
const SEEN_LONG_ENOUGH: Duration = Duration::from_secs(2);
/// ... and less than this was read from the ISO. A boot loader and its menu alone are some megabytes.
const BOOTED_READS: u64 = 1 << 20;
/// Less than this of one core on average is idle: Anaconda at a question takes a few hundredths, its work at least a half.
const IDLE_CORES: f64 = 0.15;
/// With fewer looks than this an average says nothing (`FACTS` 76: the value jumps).
const IDLE_LOOKS: u32 = 10;
/// Fewer bytes received within a silence are broadcasts and not a download.
const IDLE_RECEIVED: u64 = 4 << 20;
/// Without one byte read from or written to a drive for so long, nothing installs any more. Anaconda's longest silence
/// (SELinux relabelling from the page cache) is about a minute.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);
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

/// What the drives moved since the start, as far as it was seen.
#[derive(Debug, Default)]
struct Drives {
    /// Read from the installer's drive.
    iso_read: u64,
    /// Written to the system disk.
    written: u64,
    /// Sum over all drives at the last look.
    total: u64,
    /// When the sum last changed.
    changed: Option<Instant>,
    /// Cores in use at the looks since then, summed up, and their number.
    cores: (f64, u32),
    /// Received from the network until then, and until now.
    received: (u64, u64),
    /// Whether this silence was told already.
    told: bool,
    /// When the VM was first and last seen running.
    seen: Option<(Instant, Instant)>,
}

impl Drives {
    fn see(&mut self, status: &VmStatus) {
        if status.is_running() {
            let now = Instant::now();
            self.seen = Some((self.seen.map_or(now, |(first, _)| first), now));
        }
        if let Some(iso) = status.drive_counters(slots::INSTALLER) {
            self.iso_read = iso.bytes_read;
        }
        if let Some(disk) = status.drive_counters(slots::SYSTEM_DISK) {
            self.written = disk.bytes_written;
        }
        let total = status
            .diskread
            .unwrap_or_default()
            .saturating_add(status.diskwrite.unwrap_or_default());
        let received = status.netin.unwrap_or_default();
        self.received.1 = received;
        if total != self.total || self.changed.is_none() {
            self.total = total;
            self.changed = Some(Instant::now());
            self.cores = (0.0, 0);
            self.received.0 = received;
            self.told = false;
        } else if let Some(cpu) = status.cpu {
            // PVE gives the load as a part of all cores.
            let cpus = status
                .extra
                .get("cpus")
                .and_then(serde_json::Value::as_f64)
                .unwrap_or(1.0);
            self.cores = (self.cores.0 + cpu * cpus, self.cores.1 + 1);
        }
    }

    /// Cores in use on average since the last byte moved; `None` while too little was seen.
    fn mean_cores(&self) -> Option<f64> {
        (self.cores.1 >= IDLE_LOOKS).then(|| self.cores.0 / f64::from(self.cores.1))
    }

    /// Nothing works in there: no drive, no CPU, no download.
    fn idle(&self) -> bool {
        self.mean_cores().is_some_and(|cores| cores < IDLE_CORES)
            && self.received.1.saturating_sub(self.received.0) < IDLE_RECEIVED
    }

    /// How long this silence may last.
    fn silence_limit(&self) -> Duration {
        if self.idle() { IDLE_LIMIT } else { SILENCE_LIMIT }
    }

    /// What was seen, and what it means, for people.
    fn story(&self) -> String {
        format!(
            "no drive moved a byte for {}{} ({} read from the ISO, {} written to disk): {}",
            human_duration(self.silence()),
            self.mean_cores()
                .map(|cores| format!(", {cores:.2} cores busy"))
                .unwrap_or_default(),
            human_bytes(self.iso_read),
            human_bytes(self.written),
            self.hint(),
        )
    }

    fn hint(&self) -> &'static str {
        match (self.written == 0, self.idle()) {
            (true, true) => {
                "the installer never began and nothing works in it: it waits at a question (it did not find the kickstart, or \
                 the kickstart leaves something open) or has no install source (a boot ISO needs a `url` line and a network \
                 with DHCP); its screen shows which"
            }
            (true, false) => {
                "the installer never began; its screen shows a question, an error, or a kernel panic \
                 (a CPU type without x86-64-v2 ends so)"
            }
            (false, true) => {
                "the installer began and nothing works in it any more: it shows an error and waits for a key (a package or \
                 mirror that cannot be reached, a %post that failed), or it halted; its screen shows \
                 which, and the kickstart must end with `reboot`"
            }
            (false, false) => {
                "the installer began and did not end; its screen shows what it waits for, and the \
                 kickstart must end with `reboot`"
            }
        }
    }

    /// Why a VM that has stopped cannot have booted from its ISO.
    fn nothing_booted(&self) -> Option<String> {
        let ran = self.seen.map(|(first, last)| last.duration_since(first))?;
        (self.written == 0 && self.iso_read < BOOTED_READS && ran >= SEEN_LONG_ENOUGH).then(|| {
            format!(
                "the vm ended by itself after {} and had written nothing to its disk ({} read from the ISO): its firmware found nothing \
                 to boot there and gave up: is it an installer, whole, and made for this `vm_bios`?",
                human_duration(ran),
                human_bytes(self.iso_read)
            )
        })
    }

    fn silence(&self) -> Duration {
        self.changed.map(|changed| changed.elapsed()).unwrap_or_default()
    }
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
        if silence >= IDLE_WARNING && drives.idle() && !drives.told {
            drives.told = true;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_byte_moved() {
        let status = |read: u64| -> VmStatus {
            serde_json::from_value(
                serde_json::json!({"vmid": 100, "status": "running", "diskread": read, "diskwrite": 0,
                "blockstat": {"ide2": {"rd_bytes": read, "wr_bytes": 0}, "scsi0": {"rd_bytes": 0, "wr_bytes": 7}}}),
            )
            .unwrap()
        };
        let mut drives = Drives::default();
        drives.see(&status(10));
        let first = drives.changed.unwrap();
        drives.see(&status(10));
        assert_eq!(drives.changed.unwrap(), first);
        drives.see(&status(11));
        assert!(drives.changed.unwrap() >= first);
        assert_eq!((drives.iso_read, drives.written, drives.total), (11, 7, 11));
    }

    #[test]
    fn a_vm_that_ended_with_an_empty_disk_and_an_unread_iso_has_booted_nothing() {
        let ago = |seconds: u64| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let drives = |written: u64, iso_read: u64, seconds: u64| Drives {
            written,
            iso_read,
            seen: Some((ago(seconds), Instant::now())),
            ..Drives::default()
        };
        let told = drives(0, 4096, 3).nothing_booted().unwrap();
        assert!(told.contains("found nothing to boot"), "{told}");
        assert_eq!(drives(1, 4096, 3).nothing_booted(), None);
        assert_eq!(drives(0, 12 << 20, 3).nothing_booted(), None, "a menu was read");
        assert_eq!(
            drives(0, 0, 1).nothing_booted(),
            None,
            "a simulated one may take no time"
        );
        assert_eq!(Drives::default().nothing_booted(), None);
    }

    #[test]
    fn an_idle_guest_is_given_up_sooner_than_a_busy_one_and_its_cause_is_named() {
        let look = |cpu: f64, cpus: u32, netin: u64, written: u64| -> VmStatus {
            serde_json::from_value(
                serde_json::json!({"vmid": 100, "status": "running", "diskread": 9, "diskwrite": written, "netin": netin,
                "cpu": cpu, "cpus": cpus,
                "blockstat": {"ide2": {"rd_bytes": 9, "wr_bytes": 0}, "scsi0": {"rd_bytes": 0, "wr_bytes": written}}}),
            )
            .unwrap()
        };
        // Load of all cores, cores, bytes received during the silence, bytes written: idle, words of the cause.
        let cases: [(f64, u32, u64, u64, bool, &str); 6] = [
            (0.01, 4, 1000, 0, true, "has no install source"),
            (0.01, 4, 1000, 7, true, "a %post that failed"),
            (0.98, 1, 0, 0, false, "kernel panic"),
            // One busy core of sixteen is no idleness.
            (0.06, 16, 0, 7, false, "did not end"),
            (0.01, 1, 64 << 20, 0, false, "never began"),
            (0.0, 2, 0, 7, true, "halted"),
        ];
        for (cpu, cpus, received, written, idle, words) in cases {
            let mut drives = Drives::default();
            drives.see(&look(0.9, cpus, 5, written));
            drives.see(&look(cpu, cpus, 5 + received, written));
            assert!(!drives.idle(), "one look says nothing");
            for _ in 0..IDLE_LOOKS {
                drives.see(&look(cpu, cpus, 5 + received, written));
            }
            assert_eq!(drives.idle(), idle, "{cpu} {cpus} {received}");
            let limit = if idle { IDLE_LIMIT } else { SILENCE_LIMIT };
            assert_eq!(drives.silence_limit(), limit);
            assert!(drives.story().contains(words), "{words}: {}", drives.story());
            drives.see(&look(cpu, cpus, 5, written + 1));
            assert!(!drives.idle(), "a byte ends the silence");
        }
    }
}
