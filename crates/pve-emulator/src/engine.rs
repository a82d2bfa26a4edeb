//! What the API layer asks of the machines behind it: the seam between the Proxmox VE API and an engine.
//!
//! The API layer owns configuration, storages, tasks and rights; an engine owns running guests and the layout of their disks.
//! There are two: `simulated` (a state machine in this process) and `qemu` (a real process per guest). An engine never sees
//! HTTP, users or locks.

mod disks;
pub mod qemu;
pub mod simulated;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

pub use disks::{Disks, Image, PlainFiles, SnapshotAction};

/// Called once, before [`Engine::status`] turns `None`, when a guest's process ends for whatever reason.
pub type OnExit = Arc<dyn Fn(u32, Exit) + Send + Sync>;

/// Everything an engine needs to start one guest: the effective configuration with its volumes resolved to files.
#[derive(Clone)]
pub struct Launch {
    /// The VM's id, unique in the cluster.
    pub vmid: u32,
    /// Name of the node the guest runs on.
    pub node: String,
    /// The VM configuration in effect, as PVE's config file holds it: option name to property-string text.
    pub config: BTreeMap<String, String>,
    /// Drives that have a medium, in the order of their names.
    pub drives: Vec<Drive>,
    /// Told of the end of the guest's process.
    pub on_exit: OnExit,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("vmid", &self.vmid)
            .field("node", &self.node)
            .field("config", &self.config)
            .field("drives", &self.drives)
            .finish_non_exhaustive()
    }
}

/// One drive with a medium in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// Bus and index as in the configuration: `scsi0`, `ide2`, `efidisk0`.
    pub slot: String,
    /// Whether the guest sees a CD-ROM (read only) or a disk.
    pub cdrom: bool,
    /// The file that holds the medium's bytes.
    pub path: PathBuf,
    /// The layout of the file ([`Disks::layout`]): `raw`, `qcow2`, `vmdk`.
    pub format: String,
    /// Size of the medium as the guest sees it, in bytes. The file of a simulated disk is smaller.
    pub size_bytes: u64,
}

/// Why a guest's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered itself off.
    PowerOff,
    /// The guest rebooted while the option `reboot=0` was in effect, which ends the process (`FACTS` 74).
    RebootRefused,
    /// [`Engine::stop`] pulled the plug.
    Stopped,
    /// The process ended by itself: a fault of the host, or of the guest where that ends the process.
    Crashed,
}

/// A running guest as the host sees it; what `status/current` reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    /// Process id shown by the API; stays the same over the guest's own reboots (`FACTS` 73).
    pub pid: u32,
    /// Seconds of host time since the process began.
    pub uptime_s: u64,
    /// CPU use, 1.0 being all the guest's cores.
    pub cpu: f64,
    /// Memory in use, in bytes.
    pub mem_bytes: u64,
    /// Bytes read and written per drive slot since the process began; cumulative over resets (`FACTS` 76).
    pub drive_bytes: BTreeMap<String, DriveCounters>,
    /// Whether the virtual CPUs run, and if not, why.
    pub state: RunState,
    /// The QEMU that runs it, when that is a real one; else the API shows the one that comes with its Proxmox VE.
    pub qemu: Option<QemuRelease>,
}

impl Running {
    /// Did somebody pause it? PVE refuses to shut such a VM down; one that stands at a drive's error it does not count.
    pub fn is_paused(&self) -> bool {
        self.state == RunState::Paused
    }
}

/// QEMU's own word for the state of a guest's virtual CPUs: the API's `qmpstatus`.
///
/// # Source
/// `RunState` in QEMU's `qapi/run-state.json`; those that a guest of this crate can be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunState {
    /// They run.
    #[default]
    Running,
    /// Somebody paused them (`FACTS` 42).
    Paused,
    /// QEMU stopped them because a drive has no room or gave an error; they go on when somebody lets them.
    IoError,
}

impl RunState {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::IoError => "io-error",
        }
    }
}

/// A QEMU and the machine that it plays, as the API shows them of a running guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuRelease {
    /// Version: `7.2.22`.
    pub version: String,
    /// Machine type with its version: `pc-i440fx-7.2`.
    pub machine: String,
}

/// Cumulative counters of one drive, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriveCounters {
    /// Bytes the guest read.
    pub read: u64,
    /// Bytes the guest wrote.
    pub written: u64,
}

/// How a guest is asked to power off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Powerdown {
    /// The ACPI power button.
    Acpi,
    /// `guest-shutdown` through the agent.
    Agent,
}

/// Why a call to the guest agent brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentError {
    /// Nothing answers on the channel: the agent is not installed, not started yet, or the guest is down. The API layer
    /// turns this into `QEMU guest agent is not running` after PVE's 3 s (`FACTS` 46).
    NotRunning,
    /// The agent took the command and gave no answer in PVE's time.
    Timeout,
    /// The agent answered with an error object.
    Failed {
        /// QMP error class, for instance `GenericError` or `CommandNotFound`.
        class: String,
        /// The agent's own text.
        desc: String,
    },
}

/// A byte stream to a device of a guest; dropping it disconnects.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Why there is no stream to a device of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// No process runs.
    NotRunning,
    /// The guest has no such device.
    NoDevice,
    /// The host's own complaint.
    Failed(String),
}

/// Why a guest could not be started; its last line becomes the error of the `qmstart` task, those before it lines of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(pub String);

/// The machines behind the API.
///
/// All methods may be called for a `vmid` that does not run; they then do nothing or say so, and never panic.
#[async_trait]
pub trait Engine: Send + Sync + fmt::Debug {
    /// Name of the engine, as `--engine` spells it.
    fn name(&self) -> &'static str;

    /// How this engine keeps the bytes of disks.
    fn disks(&self) -> Arc<dyn Disks> {
        Arc::new(PlainFiles)
    }

    /// Port of every guest's SSH server at its address; 0 if that differs from guest to guest.
    fn ssh_port(&self) -> u16 {
        0
    }

    /// The address at which guests find this machine, when their network is not this machine's own.
    fn host_address(&self) -> Option<Ipv4Addr> {
        None
    }

    /// Takes over guests that an earlier emulator left running, and ends those whose vmid is not `configured`. Returns the
    /// vmids that run. Called once, before anything else.
    async fn adopt(&self, _configured: &BTreeSet<u32>, _on_exit: OnExit) -> BTreeSet<u32> {
        BTreeSet::new()
    }

    /// Starts a guest. Returns when its process runs; the firmware is only then beginning.
    async fn start(&self, launch: Launch) -> Result<(), StartError>;

    /// Pulls the plug. Returns when the process is gone; nothing happens if there was none.
    async fn stop(&self, vmid: u32);

    /// Asks the guest to power off and returns at once; the guest may ignore it.
    async fn powerdown(&self, vmid: u32, how: Powerdown);

    /// Presses the reset button; the process goes on.
    async fn reset(&self, vmid: u32);

    /// Pauses (`true`) or resumes (`false`) the virtual CPUs.
    async fn pause(&self, vmid: u32, paused: bool);

    /// What the host sees of a running guest, `None` when no process runs.
    fn status(&self, vmid: u32) -> Option<Running>;

    /// Types one key combination in QEMU's spelling (`ret`, `ctrl-x`, `shift-a`). `Err` carries QEMU's complaint about
    /// an unknown key.
    async fn send_key(&self, vmid: u32, key: &str) -> Result<(), String>;

    /// One line of QEMU's human monitor and its answer; `None` if this engine has no such monitor, or no process runs.
    async fn monitor(&self, _vmid: u32, _command: &str) -> Option<Result<String, String>> {
        None
    }

    /// Changes the medium in a running guest's CD-ROM drive, or takes it out. `Err` carries the host's complaint.
    async fn change_medium(&self, _vmid: u32, _slot: &str, _medium: Option<&Drive>) -> Result<(), String> {
        Ok(())
    }

    /// Tells a running guest that a disk has grown; for such a disk it takes the place of [`Disks::resize`].
    async fn resize(&self, _vmid: u32, _slot: &str, _size_bytes: u64) -> Result<(), String> {
        Ok(())
    }

    /// Works on snapshots of a running guest's disks, all of one moment; takes the place of [`Disks::snapshot`].
    async fn snapshot(
        &self,
        _vmid: u32,
        _slots: &[String],
        _name: &str,
        _action: SnapshotAction,
    ) -> Result<(), String> {
        Ok(())
    }

    /// One command of the QEMU guest agent protocol (`guest-exec`, `guest-network-get-interfaces`, ...) with its
    /// `arguments` object; the `return` value comes back.
    async fn agent(&self, vmid: u32, command: &str, arguments: Value) -> Result<Value, AgentError>;

    /// A connection to serial port `port` (0 to 3). It carries raw bytes both ways from now on; nothing is replayed. A port
    /// serves one connection at a time: further ones are accepted, stay silent, and are served in turn as those before them
    /// are dropped (`FACTS` 71). It ends when the guest's process ends, and survives resets and the guest's own reboots.
    async fn serial(&self, vmid: u32, port: u8) -> Result<Box<dyn ByteStream>, StreamError>;

    /// A connection to the guest's screen that speaks RFB 3.8 from its first byte, security type 2 only, as QEMU's VNC server
    /// does. `password` (8 characters) becomes the one password of this guest's screen for 30 s: earlier connections that have
    /// not answered their challenge by then fail (`FACTS` 65). It ends when the guest's process ends.
    async fn vnc(&self, vmid: u32, password: &str) -> Result<Box<dyn ByteStream>, StreamError>;

    /// The text on the guest's console so far, for people and tests; `None` when no process runs.
    fn console(&self, vmid: u32) -> Option<String>;
}
