//! One running guest: its monitor, what it counts, its end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::process::Process;
use super::qmp::{Event, Qmp, QmpError};
use super::run_dir::{Names, RunDir};
use crate::engine::{DriveCounters, Exit, QemuRelease, RunState, Running};

/// How often counters are read. A build types its keys when the reads from a medium have begun and then settled, so they must
/// not be old.
const POLL: Duration = Duration::from_millis(500);
/// How long the monitor may take: generous, because a machine that is busy translating answers late.
pub(super) const MONITOR: Duration = Duration::from_secs(30);
/// How long a process may take to end after it was told to, or said that it would.
const LAST: Duration = Duration::from_secs(10);
/// The console's file is cut when it is longer, in bytes; what a guest prints must not fill the disk.
const CONSOLE_MAX: u64 = 4 << 20;
/// Bytes of it that are kept for [`Guest::console`].
const CONSOLE_KEPT: usize = 256 << 10;

#[derive(Debug, Default)]
struct State {
    run: RunState,
    drives: BTreeMap<String, DriveCounters>,
    cpu: f64,
    /// Console text from before the file was cut.
    console: Vec<u8>,
    exit: Option<Exit>,
}

/// A guest whose process runs.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) vmid: u32,
    pub(super) process: Process,
    pub(super) qmp: Qmp,
    pub(super) names: Names,
    /// Where the host reaches it.
    pub(super) address: Ipv4Addr,
    /// MAC address of the device with the forwarded port.
    pub(super) mac: Option<String>,
    pub(super) has_agent: bool,
    pub(super) has_screen: bool,
    /// Number of the guest's processors.
    pub(super) cpus: u64,
    /// What QEMU says that it is.
    release: Option<QemuRelease>,
    /// One agent command at a time: QEMU serves one connection.
    pub(super) agent: tokio::sync::Mutex<()>,
    run: Arc<RunDir>,
    state: Mutex<State>,
    gone: watch::Sender<bool>,
}

/// What is known of a guest when its process runs.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) vmid: u32,
    pub(super) process: Process,
    pub(super) address: Ipv4Addr,
    pub(super) mac: Option<String>,
    pub(super) has_agent: bool,
    pub(super) has_screen: bool,
    pub(super) cpus: u64,
    pub(super) state: RunState,
}

impl Guest {
    pub(super) async fn new(facts: Facts, qmp: Qmp, run: Arc<RunDir>) -> Arc<Self> {
        let release = qmp.release(MONITOR).await;
        let state = State {
            run: facts.state,
            ..State::default()
        };
        Arc::new(Self {
            vmid: facts.vmid,
            process: facts.process,
            qmp,
            names: Names(facts.vmid),
            address: facts.address,
            mac: facts.mac,
            has_agent: facts.has_agent,
            has_screen: facts.has_screen,
            cpus: facts.cpus.max(1),
            release,
            agent: tokio::sync::Mutex::default(),
            run,
            state: Mutex::new(state),
            gone: watch::Sender::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lives with the process: reads events and counters until it has ended, and says how.
    pub(super) async fn watch(&self, mut events: mpsc::UnboundedReceiver<Event>) -> Exit {
        let mut tick = tokio::time::interval(POLL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last: Option<(Instant, f64)> = None;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.notice(&event),
                    None => break,
                },
                _ = tick.tick() => {
                    last = self.measure(last);
                    self.count().await;
                    self.cut_console();
                }
            }
        }
        // The monitor closes a moment before the process is gone.
        if !self.process.ended(LAST).await {
            tracing::warn!(vmid = self.vmid, pid = self.process.pid, "QEMU does not end by itself");
            self.process.kill();
            self.process.ended(LAST).await;
        }
        self.state().exit.unwrap_or(Exit::Crashed)
    }

    /// Tells everybody who waits for the end; to be called when nothing of the guest is left.
    pub(super) fn announce(&self) {
        self.gone.send_replace(true);
    }

    fn notice(&self, event: &Event) {
        tracing::debug!(vmid = self.vmid, event = event.name, data = %event.data, "guest");
        let mut state = self.state();
        match event.name.as_str() {
            // Comes before the STOP that it is the cause of.
            "BLOCK_IO_ERROR" if event.data["action"] == "stop" => {
                tracing::warn!(vmid = self.vmid, data = %event.data, "a drive's error has stopped the guest");
                state.run = RunState::IoError;
            }
            "STOP" if state.run == RunState::Running => state.run = RunState::Paused,
            "RESUME" => state.run = RunState::Running,
            // The first cause counts: a quit follows a power-off.
            "SHUTDOWN" if state.exit.is_none() => state.exit = Some(exit_of(&event.data)),
            _ => {}
        }
    }

    fn measure(&self, last: Option<(Instant, f64)>) -> Option<(Instant, f64)> {
        let now = (Instant::now(), self.process.stat()?.cpu_s);
        if let Some((then, before)) = last {
            let elapsed = now.0.duration_since(then).as_secs_f64();
            if elapsed > 0.0 {
                #[expect(clippy::cast_precision_loss, reason = "a VM has some hundred processors at most")]
                let share = (now.1 - before) / elapsed / self.cpus as f64;
                self.state().cpu = share.max(0.0);
            }
        }
        Some(now)
    }

    async fn count(&self) {
        match self.qmp.execute("query-blockstats", json!({}), MONITOR).await {
            Ok(answer) => self.state().drives = counters(&answer),
            Err(QmpError::Closed) => {}
            Err(error) => tracing::debug!(%error, vmid = self.vmid, "block counters"),
        }
    }

    pub(super) fn status(&self) -> Running {
        let stat = self.process.stat();
        let state = self.state();
        Running {
            pid: self.process.pid,
            uptime_s: self.process.uptime_s(),
            cpu: state.cpu,
            mem_bytes: stat.map_or(0, |s| s.resident_bytes),
            drive_bytes: state.drives.clone(),
            state: state.run,
            qemu: self.release.clone(),
        }
    }

    /// What the first serial port printed lately.
    pub(super) fn console(&self) -> String {
        let mut bytes = self.state().console.clone();
        bytes.extend(std::fs::read(self.run.file(&self.names.console_log())).unwrap_or_default());
        let skip = bytes.len().saturating_sub(CONSOLE_KEPT);
        String::from_utf8_lossy(&bytes[skip..]).into_owned()
    }

    /// QEMU appends to the file, so it can be emptied under it.
    fn cut_console(&self) {
        let path = self.run.file(&self.names.console_log());
        if std::fs::metadata(&path).is_ok_and(|m| m.len() <= CONSOLE_MAX) {
            return;
        }
        let Ok(bytes) = std::fs::read(&path) else { return };
        let skip = bytes.len().saturating_sub(CONSOLE_KEPT);
        self.state().console = bytes[skip..].to_vec();
        let emptied = std::fs::OpenOptions::new().write(true).truncate(true).open(&path);
        if let Err(error) = emptied {
            tracing::debug!(%error, vmid = self.vmid, "the console's file grows");
        }
    }

    /// Pulls the plug and waits until everything is gone.
    pub(super) async fn stop(&self) {
        self.state().exit.get_or_insert(Exit::Stopped);
        let mut gone = self.gone.subscribe();
        match self.qmp.execute("quit", json!({}), LAST).await {
            // A closed monitor is what a quit looks like.
            Ok(_) | Err(QmpError::Closed) => {}
            Err(error) => {
                tracing::warn!(%error, vmid = self.vmid, "QEMU does not take quit");
                self.process.kill();
            }
        }
        if tokio::time::timeout(LAST, gone.wait_for(|gone| *gone)).await.is_err() {
            self.process.kill();
            let _ = gone.wait_for(|gone| *gone).await;
        }
    }
}

/// # Source
/// `ShutdownCause` in QEMU's `qapi/run-state.json`. With `-no-reboot` a reset, the guest's or the API's, ends the process.
fn exit_of(data: &Value) -> Exit {
    match data["reason"].as_str() {
        Some("guest-shutdown" | "host-ui") => Exit::PowerOff,
        Some("guest-reset" | "host-qmp-system-reset" | "subsystem-reset") => Exit::RebootRefused,
        Some("host-error" | "guest-panic") => Exit::Crashed,
        _ => Exit::Stopped,
    }
}

/// The counters by slot. QEMU names a device by its id, or by its path when the part with the bytes is inside another
/// (`/machine/peripheral/virtio0/virtio-backend`).
fn counters(answer: &Value) -> BTreeMap<String, DriveCounters> {
    let mut found = BTreeMap::new();
    for entry in answer.as_array().into_iter().flatten() {
        let device = entry["qdev"].as_str().unwrap_or_default();
        let node = entry["node-name"].as_str().unwrap_or_default();
        let slot = match device.strip_prefix("/machine/peripheral/") {
            Some(path) => path.split('/').next().unwrap_or_default(),
            None if node == "drive-efidisk0" => "efidisk0",
            None if device.starts_with('/') => continue,
            None => device,
        };
        if slot.is_empty() {
            continue;
        }
        let figure = |key: &str| entry["stats"][key].as_u64().unwrap_or(0);
        let counters = DriveCounters {
            read: figure("rd_bytes"),
            written: figure("wr_bytes"),
        };
        found.insert(slot.to_owned(), counters);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_reasons() {
        for (reason, exit) in [
            ("guest-shutdown", Exit::PowerOff),
            ("guest-reset", Exit::RebootRefused),
            ("host-qmp-system-reset", Exit::RebootRefused),
            ("host-qmp-quit", Exit::Stopped),
            ("host-signal", Exit::Stopped),
            ("guest-panic", Exit::Crashed),
        ] {
            assert_eq!(exit_of(&json!({ "guest": true, "reason": reason })), exit, "{reason}");
        }
    }

    #[test]
    fn counters_are_found_by_slot() {
        let stats = |read: u64| json!({ "rd_bytes": read, "wr_bytes": 1 });
        let answer = json!([
            { "device": "drive-ide2", "qdev": "ide2", "stats": stats(1) },
            { "device": "", "qdev": "/machine/peripheral/virtio0/virtio-backend", "node-name": "drive-virtio0", "stats": stats(2) },
            { "device": "", "qdev": "/machine/peripheral/scsi0", "node-name": "drive-scsi0", "stats": stats(3) },
            { "device": "", "qdev": "/machine/system.flash0", "node-name": "pflash0", "stats": stats(4) },
        ]);
        let found: Vec<(String, u64)> = counters(&answer).into_iter().map(|(slot, c)| (slot, c.read)).collect();
        assert_eq!(found, [("ide2".into(), 1), ("scsi0".into(), 3), ("virtio0".into(), 2)]);
    }
}
