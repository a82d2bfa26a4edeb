//! The engine: guests by vmid, and what the API asks of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::adopt;
use super::command::{Command, Host, command};
use super::guest::{Facts, Guest, MONITOR};
use super::images::QemuImages;
use super::network::{Addresses, Reach, first_mac, show_reachable};
use super::process::{self, Process};
use super::programs::Programs;
use super::qmp::{Event, Qmp, QmpError};
use super::run_dir::{Names, RunDir};
use super::{Accel, QemuOptions, agent, firmware, network};
use crate::engine::{
    AgentError, ByteStream, Disks, Drive, Engine, Exit, Launch, OnExit, Powerdown, RunState, Running, SnapshotAction,
    StartError, StreamError,
};
use crate::error::Error;

/// How long a process may take from its start to its monitor. On a machine with more work than processors, loading the program
/// and its modules alone takes seconds.
const START: Duration = Duration::from_secs(60);
/// Seconds for which a password of the screen is good (`FACTS` 63).
const SCREEN_PASSWORD_S: u32 = 30;

/// What guests and their watchers share.
pub(super) struct Shared {
    pub(super) accel: Accel,
    programs: Programs,
    firmware_dir: PathBuf,
    pub(super) run: Arc<RunDir>,
    pub(super) addresses: Addresses,
    images: QemuImages,
    guests: Mutex<BTreeMap<u32, Arc<Guest>>>,
    starting: Mutex<BTreeSet<u32>>,
}

impl Shared {
    fn guests(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Guest>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn starting(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a guest on the list and watches it to its end.
    pub(super) fn keep(
        self: &Arc<Self>,
        guest: &Arc<Guest>,
        events: tokio::sync::mpsc::UnboundedReceiver<Event>,
        child: Option<tokio::process::Child>,
        on_exit: OnExit,
    ) {
        self.guests().insert(guest.vmid, Arc::clone(guest));
        let (shared, guest) = (Arc::clone(self), Arc::clone(guest));
        tokio::spawn(async move {
            let vmid = guest.vmid;
            let exit = guest.watch(events).await;
            if let Some(mut child) = child {
                // The process has ended; this takes it off the table of processes.
                if let Err(error) = child.wait().await {
                    tracing::debug!(%error, vmid, "waiting for QEMU");
                }
            }
            if exit == Exit::Crashed {
                let words = process::last_words(&shared.run, vmid).join("; ");
                tracing::warn!(vmid, words, "QEMU ended by itself");
            }
            on_exit(vmid, exit);
            shared.run.clear(vmid);
            shared.addresses.release(vmid);
            shared.guests().remove(&vmid);
            guest.announce();
        });
    }
}

/// Guests as QEMU processes on this machine.
pub struct QemuEngine {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for QemuEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QemuEngine")
            .field("accel", &self.shared.accel)
            .field("ssh_port", &self.shared.addresses.ssh_port)
            .field("guests", &self.shared.guests().len())
            .finish_non_exhaustive()
    }
}

impl QemuEngine {
    /// An engine whose processes run in `run_dir`, which it makes when it is not there.
    ///
    /// # Errors
    /// [`Error::Engine`] when QEMU is not installed, KVM is asked for and does not work, or another emulator uses the folder;
    /// [`Error::Data`] when the folder cannot be used; [`Error::Listen`] when the SSH port is taken.
    pub fn open(options: QemuOptions, run_dir: &Path) -> Result<Self, Error> {
        let engine = |reason| Error::Engine { name: "qemu", reason };
        let programs = Programs::find(&std::env::var_os("PATH").unwrap_or_default()).map_err(engine)?;
        let detected = Accel::detect();
        let accel = options.accel.unwrap_or(detected);
        if accel == Accel::Kvm && detected != Accel::Kvm {
            return Err(engine(
                "KVM does not work here: /dev/kvm cannot be opened, or the CPU shows neither vmx nor svm; choose tcg"
                    .into(),
            ));
        }
        let data = |source| Error::Data {
            path: run_dir.to_owned(),
            source,
        };
        let run = RunDir::open(run_dir).map_err(data)?;
        if !run.lock().map_err(data)? {
            return Err(engine(format!(
                "another emulator runs with this data directory ({}): end it or take another directory",
                run.path.display()
            )));
        }
        let addresses = adopt::addresses(&run, options.ssh_port).map_err(|source| Error::Listen {
            address: (std::net::Ipv4Addr::new(127, 64, 0, 1), options.ssh_port).into(),
            source,
        })?;
        let firmware_dir = options.firmware_dir.unwrap_or_else(|| firmware::DIR.into());
        let images = QemuImages {
            program: programs.img.clone(),
            firmware_dir: firmware_dir.clone(),
        };
        tracing::debug!(%accel, qemu = %programs.system.display(), "engine qemu");
        Ok(Self {
            shared: Arc::new(Shared {
                accel,
                programs,
                firmware_dir,
                run: Arc::new(run),
                addresses,
                images,
                guests: Mutex::default(),
                starting: Mutex::default(),
            }),
        })
    }

    /// The accelerator of the guests.
    pub fn accel(&self) -> Accel {
        self.shared.accel
    }

    fn guest(&self, vmid: u32) -> Option<Arc<Guest>> {
        self.shared.guests().get(&vmid).cloned()
    }

    /// Starts the process and speaks to its monitor.
    async fn begin(&self, launch: &Launch, reach: Reach, command: &Command) -> Result<(), StartError> {
        let shared = &self.shared;
        let vmid = launch.vmid;
        let run = &shared.run;
        let names = Names(vmid);
        let mut facts = adopt::Record {
            began: None,
            address: reach.address,
            ssh_port: reach.ssh_port,
            mac: first_mac(&launch.config),
            has_agent: command.has_agent,
            has_screen: command.has_screen,
            cpus: command.cpus,
        };
        let io = |e: std::io::Error| StartError(format!("start failed: {}: {e}", run.path.display()));
        // Written before the process is, so that none is ever there unknown.
        facts.write(run, vmid).map_err(io)?;
        let program = &shared.programs.system;
        let mut child = process::spawn(program, run, vmid, &command.argv)
            .map_err(|e| StartError(format!("start failed: starting {}: {e}", program.display())))?;
        let process = child.id().and_then(Process::of);
        let mut unfinished = Unfinished { shared, vmid, process };
        let failed = |child: &mut tokio::process::Child, reason: String| {
            let reason = match child.try_wait() {
                Ok(Some(status)) => process::exit_text(status),
                _ => format!("start failed: {reason}"),
            };
            let mut lines = process::last_words(run, vmid);
            lines.push(reason);
            StartError(lines.join("\n"))
        };
        let Some(process) = process else {
            let _ = child.wait().await;
            return Err(failed(&mut child, "QEMU ended at once".into()));
        };
        facts.began = Some(process.began);
        facts.write(run, vmid).map_err(io)?;

        let end = tokio::time::Instant::now() + START;
        let stream = loop {
            if let Ok(stream) = run.connect(&names.qmp()).await {
                break stream;
            }
            let ended = matches!(child.try_wait(), Ok(Some(_)) | Err(_));
            if ended || tokio::time::Instant::now() >= end {
                let reason = format!("QEMU opened no monitor within {} s", START.as_secs());
                return Err(failed(&mut child, reason));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let opened = Qmp::open(stream, START).await;
        let (qmp, events) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // A process that is just ending closes its monitor first.
                let _ = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
                return Err(failed(&mut child, format!("QEMU's monitor: {error}")));
            }
        };
        for link in &command.links_down {
            let off = json!({ "name": link, "up": false });
            let done = qmp.execute("set_link", off, MONITOR).await;
            done.map_err(|e| failed(&mut child, format!("taking the cable out of {link}: {e}")))?;
        }
        if !command.frozen {
            let done = qmp.execute("cont", json!({}), MONITOR).await;
            done.map_err(|e| failed(&mut child, format!("starting the processors: {e}")))?;
        }
        let guest = Guest::new(
            facts.facts(
                vmid,
                process,
                if command.frozen {
                    RunState::Paused
                } else {
                    RunState::Running
                },
            ),
            qmp,
            Arc::clone(run),
        )
        .await;
        unfinished.process = None;
        shared.keep(&guest, events, Some(child), Arc::clone(&launch.on_exit));
        Ok(())
    }
}

/// A start that was not finished leaves nothing: no process, no socket, no address.
struct Unfinished<'a> {
    shared: &'a Shared,
    vmid: u32,
    /// `None` when there is nothing to end any more.
    process: Option<Process>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            process.kill();
            self.shared.run.clear(self.vmid);
        }
    }
}

/// Marks a vmid as starting; two starts at once are one too many.
struct Starting<'a> {
    shared: &'a Shared,
    vmid: u32,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.shared.starting().remove(&self.vmid);
        if !self.shared.guests().contains_key(&self.vmid) {
            self.shared.addresses.release(self.vmid);
            self.shared.run.clear(self.vmid);
        }
    }
}

#[async_trait]
impl Engine for QemuEngine {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn disks(&self) -> Arc<dyn Disks> {
        Arc::new(self.shared.images.clone())
    }

    fn ssh_port(&self) -> u16 {
        self.shared.addresses.ssh_port
    }

    fn host_address(&self) -> Option<Ipv4Addr> {
        Some(network::HOST)
    }

    async fn adopt(&self, configured: &BTreeSet<u32>, on_exit: OnExit) -> BTreeSet<u32> {
        adopt::adopt(&self.shared, configured, on_exit).await
    }

    async fn start(&self, launch: Launch) -> Result<(), StartError> {
        let (shared, vmid) = (&self.shared, launch.vmid);
        if self.guest(vmid).is_some() || !shared.starting().insert(vmid) {
            return Err(StartError(format!("VM {vmid} already running")));
        }
        let _starting = Starting { shared, vmid };
        if let Some(drive) = launch.drives.iter().find(|drive| !drive.path.exists()) {
            let path = drive.path.display();
            return Err(StartError(format!(
                "kvm: -drive file={path}: Could not open '{path}': No such file or directory"
            )));
        }
        shared.run.clear(vmid);
        let reach = shared.addresses.reserve(vmid).map_err(StartError)?;
        let host = Host {
            accel: shared.accel,
            firmware_dir: &shared.firmware_dir,
            run_dir: &shared.run.path,
            reach,
        };
        let command = command(&launch, &host).map_err(StartError)?;
        tracing::debug!(vmid, argv = ?command.argv, "starting QEMU");
        self.begin(&launch, reach, &command).await
    }

    async fn stop(&self, vmid: u32) {
        if let Some(guest) = self.guest(vmid) {
            guest.stop().await;
        }
    }

    async fn powerdown(&self, vmid: u32, how: Powerdown) {
        let Some(guest) = self.guest(vmid) else { return };
        match how {
            Powerdown::Acpi => told(&guest, "system_powerdown", json!({})).await,
            Powerdown::Agent => {
                let _one = guest.agent.lock().await;
                let mode = json!({ "mode": "powerdown" });
                let asked = agent::ask(&self.shared.run, &guest.names.agent(), "guest-shutdown", &mode).await;
                if let Err(error) = asked {
                    tracing::warn!(?error, vmid, "the guest agent does not shut down");
                }
            }
        }
    }

    async fn reset(&self, vmid: u32) {
        if let Some(guest) = self.guest(vmid) {
            told(&guest, "system_reset", json!({})).await;
        }
    }

    async fn pause(&self, vmid: u32, paused: bool) {
        if let Some(guest) = self.guest(vmid) {
            told(&guest, if paused { "stop" } else { "cont" }, json!({})).await;
        }
    }

    fn status(&self, vmid: u32) -> Option<Running> {
        self.guest(vmid).map(|guest| guest.status())
    }

    async fn send_key(&self, vmid: u32, key: &str) -> Result<(), String> {
        // PVE's own way: QMP's send-key has no names with dashes.
        match self.monitor(vmid, &format!("sendkey {key}")).await {
            Some(Ok(complaint)) if complaint.is_empty() => Ok(()),
            Some(Ok(complaint)) => Err(complaint.trim_end().to_owned()),
            Some(Err(error)) => Err(error),
            None => Err(format!("VM {vmid} not running")),
        }
    }

    async fn monitor(&self, vmid: u32, command: &str) -> Option<Result<String, String>> {
        let guest = self.guest(vmid)?;
        let line = json!({ "command-line": command });
        let answer = guest.qmp.execute("human-monitor-command", line, MONITOR).await;
        Some(match answer {
            Ok(text) => Ok(text.as_str().unwrap_or_default().to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    async fn agent(&self, vmid: u32, command: &str, arguments: Value) -> Result<Value, AgentError> {
        let guest = self.guest(vmid).filter(|g| g.has_agent).ok_or(AgentError::NotRunning)?;
        let _one = guest.agent.lock().await;
        let mut answer = agent::ask(&self.shared.run, &guest.names.agent(), command, &arguments).await?;
        if command == "guest-network-get-interfaces"
            && let Some(mac) = &guest.mac
        {
            show_reachable(&mut answer, mac, guest.address);
        }
        Ok(answer)
    }

    async fn change_medium(&self, vmid: u32, slot: &str, medium: Option<&Drive>) -> Result<(), String> {
        let Some(guest) = self.guest(vmid) else { return Ok(()) };
        // The guest may have locked the door.
        let done = match medium {
            None => {
                let eject = json!({ "id": slot, "force": true });
                guest.qmp.execute("eject", eject, MONITOR).await
            }
            Some(drive) => {
                let change = json!({ "id": slot, "filename": drive.path, "format": drive.format, "force": true });
                guest.qmp.execute("blockdev-change-medium", change, MONITOR).await
            }
        };
        done.map(|_| ()).map_err(|e| e.to_string())
    }

    async fn resize(&self, vmid: u32, slot: &str, size_bytes: u64) -> Result<(), String> {
        let guest = self.guest(vmid).ok_or_else(|| format!("VM {vmid} not running"))?;
        let size = json!({ "node-name": format!("drive-{slot}"), "size": size_bytes });
        let done = guest.qmp.execute("block_resize", size, MONITOR).await;
        done.map(|_| ()).map_err(|e| e.to_string())
    }

    async fn snapshot(&self, vmid: u32, slots: &[String], name: &str, action: SnapshotAction) -> Result<(), String> {
        let guest = self.guest(vmid).ok_or_else(|| format!("VM {vmid} not running"))?;
        let command = match action {
            SnapshotAction::Take => "blockdev-snapshot-internal-sync",
            SnapshotAction::Drop => "blockdev-snapshot-delete-internal-sync",
            SnapshotAction::Restore => return Err("a running VM cannot go back to a snapshot".into()),
        };
        let was_running = guest.status().state == RunState::Running;
        if was_running {
            // All disks of one moment.
            guest
                .qmp
                .execute("stop", json!({}), MONITOR)
                .await
                .map_err(|e| e.to_string())?;
        }
        let mut result = Ok(());
        for slot in slots {
            let one = json!({ "device": format!("drive-{slot}"), "name": name });
            result = guest
                .qmp
                .execute(command, one, Duration::from_secs(3600))
                .await
                .map(|_| ());
            if result.is_err() {
                break;
            }
        }
        if was_running {
            told(&guest, "cont", json!({})).await;
        }
        result.map_err(|e: QmpError| e.to_string())
    }

    async fn serial(&self, vmid: u32, port: u8) -> Result<Box<dyn ByteStream>, StreamError> {
        let guest = self.guest(vmid).ok_or(StreamError::NotRunning)?;
        let name = guest.names.serial(port.into());
        match self.shared.run.connect(&name).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StreamError::NoDevice),
            Err(error) => Err(StreamError::Failed(error.to_string())),
        }
    }

    async fn vnc(&self, vmid: u32, password: &str) -> Result<Box<dyn ByteStream>, StreamError> {
        let guest = self.guest(vmid).ok_or(StreamError::NotRunning)?;
        if !guest.has_screen {
            return Err(StreamError::NoDevice);
        }
        let failed = |error: QmpError| StreamError::Failed(error.to_string());
        let set = json!({ "protocol": "vnc", "password": password });
        guest.qmp.execute("set_password", set, MONITOR).await.map_err(failed)?;
        let expire = json!({ "protocol": "vnc", "time": format!("+{SCREEN_PASSWORD_S}") });
        guest
            .qmp
            .execute("expire_password", expire, MONITOR)
            .await
            .map_err(failed)?;
        match self.shared.run.connect(&guest.names.vnc()).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(StreamError::Failed(error.to_string())),
        }
    }

    fn console(&self, vmid: u32) -> Option<String> {
        self.guest(vmid).map(|guest| guest.console())
    }
}

/// A command whose refusal nobody can be told.
async fn told(guest: &Guest, command: &str, arguments: Value) {
    match guest.qmp.execute(command, arguments, MONITOR).await {
        Ok(_) | Err(QmpError::Closed) => {}
        Err(error) => tracing::warn!(%error, vmid = guest.vmid, command, "QEMU refuses"),
    }
}

impl Drop for QemuEngine {
    fn drop(&mut self) {
        // Whoever drops the engine without a stop gets the plug pulled: a process must not outlive an emulator that ended.
        for guest in std::mem::take(&mut *self.shared.guests()).into_values() {
            guest.process.kill();
            self.shared.run.clear(guest.vmid);
        }
    }
}

impl adopt::Record {
    /// The facts of a guest with this record.
    pub(super) fn facts(&self, vmid: u32, process: Process, state: RunState) -> Facts {
        Facts {
            vmid,
            process,
            address: self.address,
            mac: self.mac.clone(),
            has_agent: self.has_agent,
            has_screen: self.has_screen,
            cpus: self.cpus,
            state,
        }
    }
}
