//! Boots the installer, gets it past its menu, and waits for the one fact that ends an install: the VM stops.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use proxmox_client::{Drive, ErrorKind, VmConfigUpdate, VmStatus};

use super::media::{http_values, remove_volumes};
use crate::Error;
use crate::boot_command::{BootAction, BootValues};
use crate::build::context::Context;
use crate::build::event::Unit;
use crate::build::pace::Pace;
use crate::build::slots;
use crate::build::step::{Step, StepName};
use crate::preset;
use crate::text::{human_bytes, human_duration};

/// How long the reads from the ISO must rest until they mean a menu that waits for a key. Boot loaders read their files in
/// one go; a network storage's hiccup is shorter.
const MENU_SETTLED: Duration = Duration::from_secs(1);
/// Longest pause between looks while the menu is awaited.
const MENU_LOOK: Duration = Duration::from_millis(250);
/// More than this was read from the ISO: kernel and initial ramdisk (over 100 MiB) are being loaded, and the menu is gone.
/// The boot loaders with their fonts and pictures are some 10 MiB.
const MENU_READS_AT_MOST: u64 = 48 << 20;
/// Without one byte read from or written to a drive for so long, nothing installs any more. Anaconda's longest silence
/// (SELinux relabelling from the page cache) is about a minute.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);
/// Pause after each key. QEMU's keyboard queue holds 16 events, and slow firmware loses what comes faster.
const KEY_GAP: Duration = Duration::from_millis(10);
/// How long a key is tried again that PVE was too busy to take: a key that was refused was not typed.
const KEY_LIMIT: Duration = Duration::from_secs(30);

/// Runs the installer, takes its media out and boots the installed system.
#[derive(Debug)]
pub(super) struct Install;

#[async_trait]
impl Step<Context> for Install {
    fn name(&self) -> StepName {
        "install".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        context.start_vm().await?;
        let begun = Instant::now();
        let mut drives = Drives::default();
        let keys = boot_keys(context)?;
        let mut typed = 0;
        if !keys.is_empty() {
            let menu = match context.spec.installer.boot_wait {
                Some(wait) => context.or_cancel(tokio::time::sleep(wait)).await.map(|()| true)?,
                None => menu_waits(context, &mut drives).await?,
            };
            if menu {
                typed = type_keys(context, &keys).await?;
            } else if context.media()?.http.is_some() {
                return Err(Error::Impossible {
                    what: "typing the boot command".to_owned(),
                    reason: "the boot menu went on by itself before it was seen: set boot_wait to the seconds after which \
                             the menu is there, or let the kickstart travel on a volume (kickstart_delivery = \"oemdrv\")"
                        .to_owned(),
                });
            }
        }
        until_stopped(context, &mut drives).await?;
        let installed_in = begun.elapsed();

        let mut update = VmConfigUpdate::new()
            .delete("reboot")
            .disk(slots::INSTALLER, &Drive::empty_cdrom());
        if context.media()?.oemdrv.is_some() {
            update = update.delete(slots::OEMDRV);
        }
        context.update_vm("taking the installation media out", &update).await?;
        context.server = None;
        if let Some(oemdrv) = context.media()?.oemdrv.clone() {
            remove_volumes(context, |volid| *volid == oemdrv).await?;
        }
        context.start_vm().await?;
        let keys = if typed == 0 {
            "nothing typed".to_owned()
        } else {
            format!("{typed} keys typed")
        };
        Ok(format!(
            "{} written in {}, {keys}, restarted from disk",
            human_bytes(drives.written),
            human_duration(installed_in)
        ))
    }
}

/// The keys to type, with the kickstart's address filled in.
fn boot_keys(context: &Context) -> Result<Vec<BootAction>, Error> {
    let spec = &context.spec;
    let command = match &spec.installer.boot_command {
        Some(command) => command.clone(),
        None => preset::boot_command(spec.hardware.bios, &spec.installer.delivery),
    };
    let http = http_values(context.media()?, context.server.as_ref());
    let values = BootValues {
        http_ip: http.as_ref().map(|(address, _)| address.to_string()),
        http_port: http.map(|(_, port)| port),
        name: Some(context.resolved()?.name.clone()),
    };
    command
        .expand(&values)
        .map_err(|error| Error::unusable("boot_command", &error.to_string(), error.help().unwrap_or_default()))
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
}

impl Drives {
    fn see(&mut self, status: &VmStatus) {
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
        if total != self.total || self.changed.is_none() {
            self.total = total;
            self.changed = Some(Instant::now());
        }
    }

    fn silence(&self) -> Duration {
        self.changed.map(|changed| changed.elapsed()).unwrap_or_default()
    }
}

/// Waits until the boot menu waits for a key: the ISO was read, and is read no more (`FACTS` 76 and 83). `false` when the
/// machine went past it by itself.
async fn menu_waits(context: &Context, drives: &mut Drives) -> Result<bool, Error> {
    let limit = context.spec.timeouts.install;
    let mut pace = Pace::new("the boot menu", limit, &context.cancel).at_most(MENU_LOOK);
    let mut settled: Option<(u64, Instant)> = None;
    loop {
        let status = context.vm_status().await?;
        if status.is_stopped() {
            return Ok(false);
        }
        drives.see(&status);
        if drives.iso_read > MENU_READS_AT_MOST || drives.written > 0 {
            return Ok(false);
        }
        match settled {
            Some((read, since)) if read == drives.iso_read && since.elapsed() >= MENU_SETTLED => return Ok(true),
            Some((read, _)) if read == drives.iso_read => {}
            _ if drives.iso_read > 0 => settled = Some((drives.iso_read, Instant::now())),
            _ => {}
        }
        pace.pause("nothing was read from the installer ISO: does the VM boot from it?")
            .await?;
    }
}

async fn type_keys(context: &Context, keys: &[BootAction]) -> Result<usize, Error> {
    let vm = context.vm()?;
    let vmid = context.vmid()?;
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
                context.or_cancel(tokio::time::sleep(KEY_GAP)).await?;
            }
        }
    }
    Ok(typed)
}

/// Waits for the installer's reboot, which `reboot=0` turns into a stop (`FACTS` 74).
async fn until_stopped(context: &Context, drives: &mut Drives) -> Result<(), Error> {
    let mut pace = Pace::new(
        "the end of the installation",
        context.spec.timeouts.install,
        &context.cancel,
    );
    loop {
        let status = context.vm_status().await?;
        if status.is_stopped() {
            break;
        }
        drives.see(&status);
        context.emitter.progress(
            drives.written,
            None,
            Unit::Bytes,
            format!("{} written", human_bytes(drives.written)),
        );
        let silence = drives.silence();
        if silence >= SILENCE_LIMIT {
            return Err(Error::Impossible {
                what: "the end of the installation".to_owned(),
                reason: format!(
                    "no drive moved a byte for {} ({} read from the ISO, {} written to disk): {}",
                    human_duration(silence),
                    human_bytes(drives.iso_read),
                    human_bytes(drives.written),
                    console_hint(drives),
                ),
            });
        }
        pace.pause(&format!(
            "the vm still runs, {} read from the ISO, {} written to disk, last movement {} ago: {}",
            human_bytes(drives.iso_read),
            human_bytes(drives.written),
            human_duration(silence),
            console_hint(drives),
        ))
        .await?;
    }
    Ok(())
}

fn console_hint(drives: &Drives) -> &'static str {
    if drives.written == 0 {
        "the installer never began; its console in the web interface shows a question, an error, or a kernel panic"
    } else {
        "the installer began and did not end; its console in the web interface shows what it waits for, and the kickstart \
         must end with `reboot`"
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
}
