//! One boot of an installed system: what its programs share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::iso::Iso;
use super::options::{Fault, FaultKind};
use super::record::{GuestRecord, ScriptRun};
use super::system::{RunNote, System};

/// A lock that a panic elsewhere must not make unusable: guests hold plain data behind it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a guest decides to do with its own power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    Off,
    Reboot,
    Halt,
}

/// Faults still to strike.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(super) fn new(list: Vec<Fault>) -> Self {
        Self { list: Mutex::new(list) }
    }

    pub(super) fn add(&self, fault: Fault) {
        lock(&self.list).push(fault);
    }

    /// The first fault that strikes this guest here; counts it.
    pub(super) fn strike<T>(&self, vmid: u32, wanted: impl Fn(&FaultKind) -> Option<T>) -> Option<T> {
        let mut list = lock(&self.list);
        let found = list.iter_mut().find_map(|fault| {
            let mine = fault.vmid.is_none_or(|id| id == vmid) && fault.times != Some(0);
            let hit = if mine { wanted(&fault.kind) } else { None }?;
            fault.times = fault.times.map(|times| times - 1);
            Some(hit)
        });
        list.retain(|fault| fault.times != Some(0));
        found
    }
}

/// What the programs of a system share while it runs, or while the installer works in it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) vmid: u32,
    pub(super) system: Mutex<System>,
    pub(super) clock: Clock,
    pub(super) record: Arc<Mutex<GuestRecord>>,
    pub(super) faults: Arc<Faults>,
    /// Guest time of one script.
    pub(super) script_time: Duration,
    pub(super) keep_file_bytes: u64,
    /// `None` in the installer's chroot, where nothing can be powered off and no unit started.
    pub(super) power: Option<mpsc::UnboundedSender<Power>>,
    /// Rung when units were started or stopped.
    pub(super) services: Notify,
    pub(super) booted: Instant,
    pub(super) address: Option<Ipv4Addr>,
    /// The media in its CD-ROM drives.
    pub(super) media: Mutex<Vec<PathBuf>>,
    /// Guest time from the start of k3s until its unit is active.
    pub(super) k3s_time: Duration,
    pub(super) peers: Peers,
    /// What units have printed in this boot.
    pub(super) journal: Mutex<BTreeMap<String, Vec<String>>>,
    /// What ends its SSH connections.
    pub(super) connections: Mutex<Vec<CancellationToken>>,
}

/// Finds the running system at an address of the guests' network.
#[derive(Clone)]
pub(super) struct Peers(pub(super) Arc<dyn Fn(Ipv4Addr) -> Option<Arc<Host>> + Send + Sync>);

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers(..)")
    }
}

impl Host {
    pub(super) fn system(&self) -> MutexGuard<'_, System> {
        lock(&self.system)
    }

    /// Asks init for a power change; `false` where there is no init.
    pub(super) fn request_power(&self, power: Power) -> bool {
        self.power.as_ref().is_some_and(|sender| sender.send(power).is_ok())
    }

    /// What ends a new SSH connection; at the latest what ends the guest does.
    pub(super) fn connection(&self, guest: &CancellationToken) -> CancellationToken {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| !connection.is_cancelled());
        let token = guest.child_token();
        connections.push(token.clone());
        token
    }

    /// Breaks the SSH connections that there are. New ones are taken as before.
    pub(super) fn cut_connections(&self) {
        for connection in lock(&self.connections).drain(..) {
            connection.cancel();
        }
    }

    /// Adds lines to a unit's journal, as systemd collects what its units print.
    pub(super) fn note(&self, unit: &str, lines: impl IntoIterator<Item = String>) {
        lock(&self.journal).entry(unit.to_owned()).or_default().extend(lines);
    }

    /// The medium with this label.
    pub(super) fn medium(&self, label: &str) -> Option<Iso<std::fs::File>> {
        let media = lock(&self.media).clone();
        let mut open = media.iter().filter_map(|path| Iso::open(path).ok());
        open.find(|iso| iso.label() == label)
    }

    pub(super) fn is_chroot(&self) -> bool {
        self.power.is_none()
    }

    /// Notes that a script begins; its number for [`Host::script_ended`].
    pub(super) fn script_began(&self, run: ScriptRun) -> usize {
        self.system().runs.push(RunNote {
            script: run.name.clone(),
            exit_code: None,
        });
        let mut record = lock(&self.record);
        record.script_runs.push(run);
        record.script_runs.len() - 1
    }

    pub(super) fn script_ended(&self, number: usize, exit_code: i32) {
        if let Some(note) = self
            .system()
            .runs
            .iter_mut()
            .rev()
            .find(|note| note.exit_code.is_none())
        {
            note.exit_code = Some(exit_code);
        }
        if let Some(run) = lock(&self.record).script_runs.get_mut(number) {
            run.exit_code = Some(exit_code);
        }
    }
}

/// The environment of a login: what PAM and sshd give a session of EL9.
pub(super) fn login_environment(user: &str, home: &str, shell: &str) -> BTreeMap<String, String> {
    let path = if user == "root" {
        "/root/.local/bin:/root/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    } else {
        "/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin"
    };
    [
        ("USER", user),
        ("LOGNAME", user),
        ("HOME", home),
        ("SHELL", shell),
        ("PATH", path),
        ("LANG", "en_US.UTF-8"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}
