//! Guests without an operating system: a process that runs, with nothing in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use serde_json::Value;

use super::{AgentError, DriveCounters, Engine, Exit, Launch, Powerdown, Running, StartError};

/// Runs guests that do nothing: no agent answers, no power button is heard.
#[derive(Debug, Default)]
pub struct BareEngine {
    guests: Mutex<HashMap<u32, Guest>>,
    pids: AtomicU32,
}

#[derive(Debug)]
struct Guest {
    launch: Launch,
    pid: u32,
    began: Instant,
    paused: bool,
}

impl BareEngine {
    fn guests(&self) -> MutexGuard<'_, HashMap<u32, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Engine for BareEngine {
    fn name(&self) -> &'static str {
        "bare"
    }

    async fn start(&self, launch: Launch) -> Result<(), StartError> {
        let pid = self.pids.fetch_add(1, Ordering::Relaxed) + 2000;
        let guest = Guest {
            pid,
            began: Instant::now(),
            paused: false,
            launch,
        };
        self.guests().insert(guest.launch.vmid, guest);
        Ok(())
    }

    async fn stop(&self, vmid: u32) {
        let on_exit = self
            .guests()
            .get(&vmid)
            .map(|g| std::sync::Arc::clone(&g.launch.on_exit));
        if let Some(on_exit) = on_exit {
            on_exit(vmid, Exit::Stopped);
            self.guests().remove(&vmid);
        }
    }

    async fn powerdown(&self, _vmid: u32, _how: Powerdown) {}

    async fn reset(&self, _vmid: u32) {}

    async fn pause(&self, vmid: u32, paused: bool) {
        if let Some(guest) = self.guests().get_mut(&vmid) {
            guest.paused = paused;
        }
    }

    fn status(&self, vmid: u32) -> Option<Running> {
        let guests = self.guests();
        let guest = guests.get(&vmid)?;
        let drives = guest
            .launch
            .drives
            .iter()
            .map(|d| (d.slot.clone(), DriveCounters::default()));
        Some(Running {
            pid: guest.pid,
            uptime_s: guest.began.elapsed().as_secs(),
            paused: guest.paused,
            drive_bytes: drives.collect(),
            ..Running::default()
        })
    }

    async fn send_key(&self, _vmid: u32, key: &str) -> Result<(), String> {
        // QEMU's key names are lower-case words and numbers.
        let known = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if key.split('-').all(known) {
            Ok(())
        } else {
            Err(format!("invalid parameter: {key}"))
        }
    }

    async fn agent(&self, _vmid: u32, _command: &str, _arguments: Value) -> Result<Value, AgentError> {
        Err(AgentError::NotRunning)
    }

    fn console(&self, vmid: u32) -> Option<String> {
        self.guests().contains_key(&vmid).then(String::new)
    }
}
