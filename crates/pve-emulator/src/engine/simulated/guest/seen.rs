//! What is seen of a guest from outside: its use of the machine, its console, its screen.

use std::sync::Arc;

use super::Guest;
use crate::engine::simulated::display::{self, Picture};
use crate::engine::simulated::firmware::Firmware;
use crate::engine::simulated::keys::Key;
use crate::engine::simulated::record::{GuestRecord, GuestState};
use crate::engine::simulated::rfb;
use crate::engine::{RunState, Running};

impl Guest {
    pub(in crate::engine::simulated) fn console(&self) -> String {
        self.machine().console.text().to_owned()
    }

    /// The record with what is only known now.
    pub(in crate::engine::simulated) fn fill(&self, record: &mut GuestRecord) {
        let machine = self.machine();
        machine.console.text().clone_into(&mut record.console);
        if let Some(live) = &machine.live {
            record.installed = Some(live.host.system().summary());
        }
    }

    pub(in crate::engine::simulated) fn status(&self) -> Running {
        let state = self.state();
        let paused = *self.pause.borrow();
        let machine = self.machine();
        let mut drive_bytes = machine.counters.clone();
        if let Some(activity) = &machine.activity {
            activity.add_to(&mut drive_bytes, false);
        }
        let configured = self
            .launch
            .config
            .get("memory")
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(512);
        Running {
            pid: self.pid,
            uptime_s: self.began.elapsed().as_secs(),
            cpu: if paused { 0.0 } else { cpu(state) },
            mem_bytes: (configured << 20) * memory_percent(state) / 100,
            drive_bytes,
            state: if paused { RunState::Paused } else { RunState::Running },
            qemu: None,
        }
    }
}

/// What a VNC client sees of a guest.
pub(super) struct Monitor(pub(super) Arc<Guest>);

impl rfb::Screen for Monitor {
    fn name(&self) -> String {
        let name = self.0.launch.config.get("name").cloned();
        format!(
            "QEMU ({})",
            name.unwrap_or_else(|| format!("VM {}", self.0.launch.vmid))
        )
    }

    fn version(&self) -> u64 {
        let machine = self.0.machine();
        machine.console.changes() << 1 | u64::from(machine.kernel_display)
    }

    fn picture(&self) -> Picture {
        let machine = self.0.machine();
        let firmware = Firmware::of(&self.0.launch.config);
        let mode = if machine.kernel_display || firmware == Firmware::Ovmf {
            display::GRAPHICS
        } else {
            display::TEXT
        };
        let text = machine.console.text().to_owned();
        drop(machine);
        Picture::of(&text, mode)
    }

    fn press(&self, key: Key) {
        // The guest's inbox lives as long as its process.
        let _ = self.0.keys.send(key);
    }
}

/// CPU use by state, of all cores: a halted kernel idles, a panicked one spins (FACTS 72).
fn cpu(state: GuestState) -> f64 {
    match state {
        GuestState::Stopped | GuestState::Halted => 0.0,
        GuestState::Panicked => 0.98,
        GuestState::Firmware | GuestState::InstallerBoot | GuestState::Booting => 0.6,
        GuestState::Installing => 0.8,
        GuestState::ShuttingDown => 0.2,
        GuestState::NoBootDevice | GuestState::Menu => 0.05,
        _ => 0.02,
    }
}

/// Memory in use by state, in percent of what the guest has.
fn memory_percent(state: GuestState) -> u64 {
    match state {
        GuestState::Firmware | GuestState::NoBootDevice | GuestState::Menu => 5,
        GuestState::Installing | GuestState::InstallerWaits => 45,
        _ => 20,
    }
}
