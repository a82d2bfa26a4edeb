//! The emulated cluster as one value that all calls share.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedMutexGuard};

use super::{Access, Doors, Machine, Nodes, Storages, write_whole};
use crate::engine::Engine;
use crate::error::Error;
use crate::faults::Faults;
use crate::schema::{Edition, Schema};
use crate::tasks::Tasks;

/// How long the emulated cluster's own work takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Timing {
    /// No delay at all: for tests.
    #[default]
    Instant,
    /// So many emulated seconds pass in one.
    Scaled(f64),
    /// As long as on the real system.
    Real,
}

/// What is waited for is given this long at least, if PVE gives it as long, however fast the emulated clock runs: a guest that got no
/// processor for a second or two must not look like a dead one.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);

/// What does not change while the emulator runs.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Which Proxmox VE is played.
    pub(crate) edition: Edition,
    /// `9.2.11`.
    pub(crate) version: String,
    pub(crate) nodes: Vec<String>,
    pub(crate) timing: Timing,
    /// Whether deliberate delays of PVE are kept, such as 3 s on each 401.
    pub(crate) delays: bool,
    pub(crate) data_dir: PathBuf,
    pub(crate) fingerprint: String,
    pub(crate) certificate_pem: String,
    pub(crate) started: Instant,
}

impl Settings {
    /// `9.2` of `9.2.11`.
    pub(crate) fn release(&self) -> String {
        self.version.split(['.', '-']).take(2).collect::<Vec<_>>().join(".")
    }

    /// The API of the edition that is played.
    pub(crate) fn schema(&self) -> &'static Schema {
        Schema::of(self.edition)
    }
}

/// Everything a call can reach. Locks are held for lookups and changes in memory and for small file writes, never
/// over a wait.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) tasks: Tasks,
    pub(crate) faults: Arc<Faults>,
    pub(crate) nodes: Nodes,
    pub(crate) doors: Doors,
    /// Told whenever a guest's process ends.
    pub(crate) exited: Notify,
    access: RwLock<Access>,
    storages: RwLock<Storages>,
    machines: RwLock<BTreeMap<u32, Machine>>,
    locks: Mutex<HashMap<u32, Arc<tokio::sync::Mutex<()>>>>,
}

impl World {
    pub(crate) fn open(
        settings: Settings,
        engine: Arc<dyn Engine>,
        access: Access,
        storages: Storages,
    ) -> Result<Self, Error> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Data { path, source }
        };
        let mut machines = BTreeMap::new();
        strangers(&settings).map_err(at(&settings.data_dir))?;
        for node in &settings.nodes {
            let dir = settings.data_dir.join("nodes").join(node).join("qemu-server");
            std::fs::create_dir_all(&dir).map_err(at(&dir))?;
            for entry in std::fs::read_dir(&dir).map_err(at(&dir))? {
                let path = entry.map_err(at(&dir))?.path();
                let vmid = path
                    .file_stem()
                    .and_then(|s| s.to_str())
                    .and_then(|s| s.parse::<u32>().ok());
                if let Some(vmid) = vmid.filter(|_| path.extension().is_some_and(|e| e == "json")) {
                    let bytes = std::fs::read(&path).map_err(at(&path))?;
                    let read = serde_json::from_slice::<Machine>(&bytes);
                    machines.insert(vmid, read.map_err(|source| Error::Corrupt { path, source })?);
                }
            }
        }
        let faults = Arc::new(Faults::default());
        let archive = settings.data_dir.join("tasks.jsonl");
        let tasks = Tasks::open(&archive, Arc::clone(&faults)).map_err(at(&archive))?;
        let nodes = Nodes::new(&settings.nodes);
        Ok(Self {
            settings,
            engine,
            tasks,
            faults,
            nodes,
            doors: Doors::default(),
            exited: Notify::new(),
            access: RwLock::new(access),
            storages: RwLock::new(storages),
            machines: RwLock::new(machines),
            locks: Mutex::new(HashMap::new()),
        })
    }

    pub(crate) fn access(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes users and rights and writes them down.
    pub(crate) fn change_access<T>(&self, change: impl FnOnce(&mut Access) -> T) -> T {
        let mut access: RwLockWriteGuard<'_, Access> = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut access);
        self.written("users", save_access(&self.settings.data_dir, &access));
        result
    }

    pub(crate) fn storages(&self) -> RwLockReadGuard<'_, Storages> {
        self.storages.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn storages_mut(&self) -> RwLockWriteGuard<'_, Storages> {
        self.storages.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn machines(&self) -> RwLockReadGuard<'_, BTreeMap<u32, Machine>> {
        self.machines.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of a VM, if it exists on `node`.
    pub(crate) fn machine(&self, node: &str, vmid: u32) -> Option<Machine> {
        self.machines().get(&vmid).filter(|m| m.node == node).cloned()
    }

    /// Changes a VM and writes it down; `None` when there is no such VM.
    pub(crate) fn change_machine<T>(&self, vmid: u32, change: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        let mut machines = self.machines.write().unwrap_or_else(PoisonError::into_inner);
        let machine = machines.get_mut(&vmid)?;
        let result = change(machine);
        self.written("VM", save_machine(&self.settings.data_dir, vmid, machine));
        Some(result)
    }

    /// Puts a new VM in place; `false` when the vmid is taken.
    pub(crate) fn insert_machine(&self, vmid: u32, machine: Machine) -> bool {
        let mut machines = self.machines.write().unwrap_or_else(PoisonError::into_inner);
        if machines.contains_key(&vmid) {
            return false;
        }
        self.written("VM", save_machine(&self.settings.data_dir, vmid, &machine));
        machines.insert(vmid, machine);
        true
    }

    pub(crate) fn remove_machine(&self, vmid: u32) {
        let mut machines = self.machines.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = machines.remove(&vmid) {
            let file = machine_file(&self.settings.data_dir, vmid, &machine.node);
            self.written("VM", std::fs::remove_file(file));
        }
    }

    /// A node loses its power: its guests and tasks end, and nothing answers there.
    pub(crate) async fn take_offline(&self, node: &str) {
        self.nodes.change(node, |state| state.offline = true);
        self.tasks.lose(Some(node));
        let guests: Vec<u32> = {
            let machines = self.machines();
            let here = machines.iter().filter(|(_, m)| m.node == node);
            here.map(|(vmid, _)| *vmid).collect()
        };
        for vmid in guests {
            self.engine.stop(vmid).await;
        }
    }

    /// Waits for the lock file of a VM, at most PVE's 10 s.
    ///
    /// # Errors
    /// PVE's text when another task holds it for longer (`FACTS` 45).
    pub(crate) async fn lock_vm(&self, vmid: u32) -> Result<OwnedMutexGuard<()>, String> {
        let lock = {
            let mut locks: MutexGuard<'_, _> = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(vmid).or_default())
        };
        tokio::time::timeout(self.patience(Duration::from_secs(10)), lock.lock_owned())
            .await
            .map_err(|_| format!("can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout"))
    }

    /// Spends time on emulated work.
    pub(crate) async fn spend(&self, real: Duration) {
        match self.settings.timing {
            Timing::Instant => tokio::task::yield_now().await,
            Timing::Scaled(factor) if factor > 0.0 => tokio::time::sleep(real.div_f64(factor)).await,
            Timing::Scaled(_) | Timing::Real => tokio::time::sleep(real).await,
        }
    }

    /// A delay that PVE makes on purpose, unless delays are switched off.
    pub(crate) async fn delay(&self, real: Duration) {
        if self.settings.delays {
            self.spend(real).await;
        }
    }

    /// How long to wait for something that may never come.
    pub(crate) fn patience(&self, real: Duration) -> Duration {
        match self.settings.timing {
            Timing::Instant => real.min(LEAST_PATIENCE),
            Timing::Scaled(factor) if factor > 0.0 => real.div_f64(factor).max(LEAST_PATIENCE).min(real),
            Timing::Scaled(_) | Timing::Real => real,
        }
    }

    /// State that cannot be written down is kept in memory: the emulator goes on, and says so.
    fn written(&self, what: &str, result: std::io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, dir = %self.settings.data_dir.display(), "state of {what} not written");
        }
    }
}

/// Refuses a directory with VMs of nodes that are not to be served: they would be out of sight, and their vmids free again.
fn strangers(settings: &Settings) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(settings.data_dir.join("nodes")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let node = entry.file_name().to_string_lossy().into_owned();
        if settings.nodes.contains(&node) {
            continue;
        }
        let vms = entry.path().join("qemu-server").read_dir().map_or(0, Iterator::count);
        if vms > 0 {
            return Err(std::io::Error::other(format!(
                "it holds {vms} VMs of the node {node}, which is not among the nodes to serve: start with as many nodes as before"
            )));
        }
    }
    Ok(())
}

fn machine_file(data_dir: &std::path::Path, vmid: u32, node: &str) -> PathBuf {
    data_dir
        .join("nodes")
        .join(node)
        .join("qemu-server")
        .join(format!("{vmid}.json"))
}

fn save_machine(data_dir: &std::path::Path, vmid: u32, machine: &Machine) -> std::io::Result<()> {
    write_whole(
        &machine_file(data_dir, vmid, &machine.node),
        &serde_json::to_vec_pretty(machine)?,
    )
}

/// Writes users and rights.
pub(crate) fn save_access(data_dir: &std::path::Path, access: &Access) -> std::io::Result<()> {
    write_whole(&data_dir.join("access.json"), &serde_json::to_vec_pretty(access)?)
}
