//! What the drives of the build VM move while the installer runs, and what it means.

use std::time::{Duration, Instant};

use proxmox_client::VmStatus;

use crate::build::slots;
use crate::text::{human_bytes, human_duration};

/// A guest that moves no byte and uses no CPU for so long waits for someone who will not come. DHCP and mirrors that do not answer
/// hold dracut and Anaconda up to some three minutes.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// What is read from the ISO at least when something boots from it: the boot loader and its menu are some megabytes. The same when a
/// menu was left, for the beginning of the kernel.
const BOOTED_READS: u64 = 1 << 20;
/// A VM that was seen running for so long and stopped has booted nothing, when no byte is on its disk and too few were read.
const SEEN_LONG_ENOUGH: Duration = Duration::from_secs(2);
/// Less than this of one core on average is idle: Anaconda at a question takes a few hundredths, its work at least a half.
const IDLE_CORES: f64 = 0.15;
/// With fewer looks than this an average says nothing (`FACTS` 76: the value jumps).
const IDLE_LOOKS: u32 = 10;
/// Fewer bytes received within a silence are broadcasts and not a download.
const IDLE_RECEIVED: u64 = 4 << 20;
/// Without one byte read from or written to a drive for so long, nothing installs any more. Anaconda's longest silence
/// (SELinux relabelling from the page cache) is about a minute.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);

/// What the drives moved since the start, as far as it was seen.
#[derive(Debug, Default)]
pub(super) struct Drives {
    /// Read from the installer's drive.
    pub(super) iso_read: u64,
    /// Written to the system disk.
    pub(super) written: u64,
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
    pub(super) fn see(&mut self, status: &VmStatus) {
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

    /// Whether this silence is to be told; once each.
    pub(super) fn tells_once(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// Whether something boots from the ISO, of which `before` bytes were read until it was to begin.
    pub(super) fn boots(&self, before: u64) -> bool {
        self.iso_read.saturating_sub(before) >= BOOTED_READS
    }

    /// Cores in use on average since the last byte moved; `None` while too little was seen.
    fn mean_cores(&self) -> Option<f64> {
        (self.cores.1 >= IDLE_LOOKS).then(|| self.cores.0 / f64::from(self.cores.1))
    }

    /// Nothing works in there: no drive, no CPU, no download.
    pub(super) fn idle(&self) -> bool {
        self.mean_cores().is_some_and(|cores| cores < IDLE_CORES)
            && self.received.1.saturating_sub(self.received.0) < IDLE_RECEIVED
    }

    /// How long this silence may last.
    pub(super) fn silence_limit(&self) -> Duration {
        if self.idle() { IDLE_LIMIT } else { SILENCE_LIMIT }
    }

    /// What was seen, and what it means, for people.
    pub(super) fn story(&self) -> String {
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
    pub(super) fn nothing_booted(&self) -> Option<String> {
        let ran = self.seen.map(|(first, last)| last.duration_since(first))?;
        (self.written == 0 && !self.boots(0) && ran >= SEEN_LONG_ENOUGH).then(|| {
            format!(
                "the vm ended by itself after {} and had written nothing to its disk ({} read from the ISO): its firmware found nothing \
                 to boot there and gave up: is it an installer, whole, and made for this `vm_bios`?",
                human_duration(ran),
                human_bytes(self.iso_read)
            )
        })
    }

    pub(super) fn silence(&self) -> Duration {
        self.changed.map(|changed| changed.elapsed()).unwrap_or_default()
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
        let now = Instant::now();
        let ago = |seconds: u64| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let drives = |written: u64, iso_read: u64, seconds: u64| Drives {
            written,
            iso_read,
            seen: Some((ago(seconds), now)),
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
