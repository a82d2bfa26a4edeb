//! One guest's life: firmware, menu, installer, installed system, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, Nic};
use super::clock::Clock;
use super::console::Console;
use super::engine::Shared;
use super::firmware;
use super::host::{Host, Power, lock};
use super::keys::{self, Key};
use super::options::FaultKind;
use super::record::{GuestRecord, GuestState};
use super::rfb;
use super::serial::SerialPort;
use crate::engine::{AgentError, ByteStream, Drive, DriveCounters, Exit, Launch, Powerdown, StreamError};

mod activity;
mod boot;
mod install;
mod running;
mod seen;

use activity::Activity;
use seen::Monitor;

/// How one boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerOff,
    Reboot,
    /// Reset from outside, or by Ctrl-Alt-Delete.
    Reset,
}

/// What the host does to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Reset,
    Acpi,
}

/// The running installed system.
struct Live {
    host: Arc<Host>,
    disk: Drive,
    agent: Agent,
    /// The agent's time has come; whether it answers is its unit's business.
    agent_ready: bool,
    /// Ends connections and programs when the system goes down.
    cancel: CancellationToken,
}

/// Everything that changes.
#[derive(Default)]
struct Machine {
    console: Console,
    /// Whether what is written to the screen goes to the first serial port too.
    serial_console: bool,
    /// Whether a kernel has set its own resolution.
    kernel_display: bool,
    counters: BTreeMap<String, DriveCounters>,
    activity: Option<Activity>,
    ejected: BTreeSet<String>,
    /// What was put into drives while it ran, and out of them.
    media: BTreeMap<String, Option<PathBuf>>,
    live: Option<Live>,
}

/// A guest with a process.
pub(super) struct Guest {
    launch: Launch,
    shared: Arc<Shared>,
    pid: u32,
    began: Instant,
    clock: Clock,
    pause: watch::Sender<bool>,
    keys: mpsc::UnboundedSender<Key>,
    control: mpsc::UnboundedSender<Control>,
    installer_power: Notify,
    machine: Mutex<Machine>,
    /// Ports by number, those that the configuration has.
    serial: BTreeMap<u8, Arc<SerialPort>>,
    screens: Arc<rfb::Sessions>,
    gone: CancellationToken,
    record: Arc<Mutex<GuestRecord>>,
    ended: AtomicBool,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("vmid", &self.launch.vmid)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// Where keys and orders arrive.
struct Inbox {
    keys: mpsc::UnboundedReceiver<Key>,
    control: mpsc::UnboundedReceiver<Control>,
}

impl Guest {
    /// Starts a guest's process.
    pub(super) fn start(launch: Launch, shared: Arc<Shared>, record: Arc<Mutex<GuestRecord>>, pid: u32) -> Arc<Self> {
        let (pause, paused) = watch::channel(false);
        let (keys, keys_in) = mpsc::unbounded_channel();
        let (control, control_in) = mpsc::unbounded_channel();
        let serial = (0..4)
            .filter(|port| launch.config.contains_key(&format!("serial{port}")))
            .map(|port| (port, Arc::default()))
            .collect();
        let guest = Arc::new(Self {
            serial,
            screens: Arc::default(),
            gone: CancellationToken::new(),
            clock: Clock::new(shared.options.time, paused),
            launch,
            shared,
            pid,
            began: Instant::now(),
            pause,
            keys,
            control,
            installer_power: Notify::new(),
            machine: Mutex::default(),
            record,
            ended: AtomicBool::new(false),
            task: Mutex::default(),
        });
        {
            let mut machine = guest.machine();
            for drive in &guest.launch.drives {
                machine.counters.insert(drive.slot.clone(), DriveCounters::default());
            }
        }
        let life = Arc::clone(&guest);
        let task = tokio::spawn(async move {
            let exit = life
                .live(Inbox {
                    keys: keys_in,
                    control: control_in,
                })
                .await;
            life.finish(exit);
        });
        *lock(&guest.task) = Some(task);
        guest
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }

    fn record(&self) -> MutexGuard<'_, GuestRecord> {
        lock(&self.record)
    }

    /// Lines on the screen, and on the serial port where that is a console.
    fn say<T: AsRef<str>>(&self, lines: impl IntoIterator<Item = T>) {
        let mut machine = self.machine();
        for line in lines {
            machine.console.line(&line);
            if machine.serial_console
                && let Some(port) = self.serial.get(&0)
            {
                port.write(&format!("{}\r\n", line.as_ref().replace('\n', "\r\n")).into());
            }
        }
    }

    /// A firmware begins. OVMF's console is on the serial port too, and so are those of the boot loaders it starts; SeaBIOS and
    /// isolinux know the screen only.
    fn firmware_console(&self, serial: bool) {
        let mut machine = self.machine();
        machine.console.clear();
        machine.serial_console = serial;
        machine.kernel_display = false;
    }

    /// A kernel begins.
    fn kernel_console(&self, serial: bool) {
        let mut machine = self.machine();
        machine.serial_console = serial;
        machine.kernel_display = true;
    }

    fn enter(&self, state: GuestState) {
        self.record().state = state;
    }

    fn state(&self) -> GuestState {
        self.record().state
    }

    fn strike<T>(&self, wanted: impl Fn(&FaultKind) -> Option<T>) -> Option<T> {
        self.shared.faults.strike(self.launch.vmid, wanted)
    }

    /// The process's whole life.
    async fn live(self: &Arc<Self>, mut inbox: Inbox) -> Exit {
        loop {
            let Inbox { keys, control } = &mut inbox;
            let end = {
                let boot = self.boot(keys);
                tokio::pin!(boot);
                loop {
                    tokio::select! {
                        end = &mut boot => break end,
                        order = control.recv() => match order {
                            Some(Control::Acpi) => self.acpi(),
                            // The sender lives in the guest itself.
                            Some(Control::Reset) | None => break End::Reset,
                        },
                    }
                }
            };
            self.unplug_system();
            self.settle();
            match end {
                End::PowerOff => return Exit::PowerOff,
                // QEMU's -no-reboot ends the process at every reset, whoever asks for it (FACTS 74).
                End::Reboot | End::Reset if self.launch.config.get("reboot").is_some_and(|value| value == "0") => {
                    return Exit::RebootRefused;
                }
                End::Reboot | End::Reset => {}
            }
        }
    }

    /// Reports the end, once, and takes the guest off the list.
    fn finish(&self, exit: Exit) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        let console = self.machine().console.text().to_owned();
        {
            let mut record = self.record();
            record.console = console;
            record.address = None;
        }
        self.disconnect();
        (self.launch.on_exit)(self.launch.vmid, exit);
        self.shared.gone(self.launch.vmid, self.pid);
        self.enter(GuestState::Stopped);
    }

    /// Pulls the plug. What the system had on its disk stays there.
    pub(super) async fn stop(&self) {
        let task = lock(&self.task).take();
        if let Some(task) = task {
            task.abort();
            // An aborted task ends with an error by design; one that was done already is as good.
            let _ = task.await;
        }
        self.unplug_system();
        self.finish(Exit::Stopped);
    }

    /// Ends the guest with its engine: its disk is written, nobody is told.
    pub(super) fn abandon(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.disconnect();
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
        self.unplug_system();
    }

    /// Ends the streams to the guest's devices, as the end of its process does.
    fn disconnect(&self) {
        self.serial.values().for_each(|port| port.close());
        self.screens.close();
        self.gone.cancel();
    }

    pub(super) fn serial(self: &Arc<Self>, number: u8) -> Result<Box<dyn ByteStream>, StreamError> {
        let port = self.serial.get(&number).ok_or(StreamError::NoDevice)?;
        let guest = Arc::downgrade(self);
        let stream = port.connect(Arc::new(move |typed| {
            if let Some(guest) = guest.upgrade() {
                guest.typed_on_serial(number, typed);
            }
        }));
        Ok(Box::new(stream))
    }

    /// A login prompt on the port echoes what is typed; nothing else reads it.
    fn typed_on_serial(&self, number: u8, typed: &[u8]) {
        let prompt = number == 0 && self.state() == GuestState::Running && self.machine().serial_console;
        if let Some(port) = self.serial.get(&number).filter(|_| prompt) {
            let mut echo = Vec::with_capacity(typed.len() + 1);
            for byte in typed {
                match byte {
                    b'\r' | b'\n' => echo.extend(b"\r\n"),
                    byte => echo.push(*byte),
                }
            }
            port.write(&echo.into());
        }
    }

    pub(super) fn vnc(self: &Arc<Self>, password: &str) -> Result<Box<dyn ByteStream>, StreamError> {
        let card = self.launch.config.get("vga").map_or("std", String::as_str);
        let card = card.split(',').next().unwrap_or(card);
        if matches!(card.strip_prefix("type=").unwrap_or(card), "none") {
            // Without a display there is nothing to protect, and QEMU refuses a password for it.
            return Err(StreamError::Failed(format!(
                "VM {} qmp command 'set_password' failed - Could not set password",
                self.launch.vmid
            )));
        }
        self.screens.set_password(password);
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        tokio::spawn(rfb::serve(
            ours,
            Arc::new(Monitor(Arc::clone(self))),
            Arc::clone(&self.screens),
            self.gone.clone(),
        ));
        Ok(Box::new(theirs))
    }

    /// Ends the installed system's connections and programs, and puts its state on the disk.
    fn unplug_system(&self) {
        let live = self.machine().live.take();
        let Some(live) = live else { return };
        live.cancel.cancel();
        let system = live.host.system().clone();
        self.record().installed = Some(system.summary());
        if let Err(error) = system.save(&live.disk.path) {
            // The volume was deleted under the running guest, which PVE allows (FACTS 58).
            tracing::warn!(vmid = self.launch.vmid, disk = %live.disk.path.display(), %error, "could not write a simulated disk");
        }
    }

    /// Ends the activity in progress.
    fn settle(&self) {
        let mut machine = self.machine();
        if let Some(activity) = machine.activity.take() {
            activity.add_to(&mut machine.counters, false);
        }
    }

    /// Spends guest time on reads and writes.
    async fn work(&self, takes: Duration, read: Option<(&str, u64)>, written: Option<(&str, u64)>) {
        let owned = |part: Option<(&str, u64)>| part.map(|(slot, bytes)| (slot.to_owned(), bytes));
        let activity = Activity {
            began: Instant::now(),
            takes: self.clock.host(takes),
            read: owned(read),
            written: owned(written),
        };
        self.machine().activity = Some(activity);
        self.clock.sleep(takes).await;
        let mut machine = self.machine();
        if let Some(activity) = machine.activity.take() {
            activity.add_to(&mut machine.counters, true);
        }
    }

    async fn panic(&self, lines: &[String]) -> End {
        self.say(lines);
        self.enter(GuestState::Panicked);
        std::future::pending().await
    }

    /// The button does nothing in firmware and menus; the installer and the installed system obey it.
    fn acpi(&self) {
        match self.state() {
            GuestState::Running => {
                let ignored = self
                    .strike(|kind| matches!(kind, FaultKind::IgnoresAcpi).then_some(()))
                    .is_some();
                if !ignored && let Some(live) = &self.machine().live {
                    live.host.request_power(Power::Off);
                }
            }
            GuestState::InstallerWaits
            | GuestState::InstallerFailed
            | GuestState::InstallerDone
            | GuestState::Installing => {
                self.installer_power.notify_one();
            }
            _ => {}
        }
    }

    /// Breaks the SSH connections to the installed system.
    pub(super) fn cut_ssh(&self) {
        if let Some(live) = &self.machine().live {
            live.host.cut_connections();
        }
    }

    /// The agent of the installed system answers no more until the next boot.
    pub(super) fn silence_agent(&self) {
        if let Some(live) = &mut self.machine().live {
            live.agent_ready = false;
        }
    }

    /// One command of the agent.
    pub(super) fn agent(&self, command: &str, arguments: &Value) -> Result<Value, AgentError> {
        if *self.pause.borrow() || self.state() != GuestState::Running || !self.has_agent_channel() {
            return Err(AgentError::NotRunning);
        }
        let mut machine = self.machine();
        let live = machine
            .live
            .as_mut()
            .filter(|live| live.agent_ready)
            .ok_or(AgentError::NotRunning)?;
        if !live.host.system().is_active("qemu-guest-agent.service") {
            return Err(AgentError::NotRunning);
        }
        let nic = Nic {
            mac: firmware::mac(&self.launch.config),
            prefix: super::engine::NETWORK_PREFIX,
        };
        let host = Arc::clone(&live.host);
        let cancel = live.cancel.clone();
        live.agent.command(&host, &nic, command, arguments, |program| {
            tokio::spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = program => {}
                }
            });
        })
    }

    /// Whether the VM has the agent's virtio port: the option `agent` is on.
    fn has_agent_channel(&self) -> bool {
        let option = self.launch.config.get("agent").map_or("0", String::as_str);
        option.split(',').any(|field| matches!(field, "1" | "enabled=1"))
    }

    pub(super) fn pause(&self, paused: bool) {
        // The clock holds a receiver as long as the guest lives.
        let _ = self.pause.send(paused);
    }

    pub(super) fn reset(&self) {
        // The inbox is gone only when the process has ended.
        let _ = self.control.send(Control::Reset);
    }

    pub(super) fn powerdown(&self, how: Powerdown) {
        match how {
            Powerdown::Acpi => drop(self.control.send(Control::Acpi)),
            Powerdown::Agent => {
                // An agent that does not answer cannot shut anything down either.
                let _ = self.agent("guest-shutdown", &Value::Null);
            }
        }
    }

    pub(super) fn send_key(&self, name: &str) -> Result<(), String> {
        let key = keys::parse(name)?;
        self.record().typed_keys.push(name.to_owned());
        if key == Key::Reset && matches!(self.state(), GuestState::Running) {
            // systemd's ctrl-alt-del.target.
            if let Some(live) = &self.machine().live {
                live.host.request_power(Power::Reboot);
            }
            return Ok(());
        }
        let _ = self.keys.send(key);
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}
