//! One guest's life: firmware, menu, installer, installed system, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, Nic};
use super::clock::Clock;
use super::console::Console;
use super::engine::Shared;
use super::firmware::{self, Bootable, Firmware, Medium};
use super::host::{Host, Power, lock};
use super::installer::{self, AtEnd, Stuck};
use super::keys::{self, Key};
use super::menu::{Choice, Menu};
use super::options::FaultKind;
use super::record::{GuestRecord, GuestState};
use super::sshd;
use super::system::System;
use crate::engine::{AgentError, Drive, DriveCounters, Exit, Launch, Powerdown, Running};

/// Host time between a program's wish to power off and the end of connections, with any time scale: the exit status of
/// `reboot` itself shall still reach its caller, as it does on a machine that takes seconds to go down.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Bytes read from the medium until its menu is on the screen.
const MENU_READS: u64 = 12 << 20;
/// Bytes read from the medium for kernel, initrd and the installer's image.
const INSTALLER_READS: u64 = 900 << 20;
/// Bytes of packages read, and the same unpacked on the disk.
const PACKAGE_READS: u64 = 700 << 20;
const PACKAGE_WRITES: u64 = 1900 << 20;
/// Bytes an installed system reads while it boots, and writes.
const BOOT_READS: u64 = 350 << 20;
const BOOT_WRITES: u64 = 20 << 20;

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

/// Reads and writes in progress: counters grow evenly over its time.
#[derive(Clone, Debug)]
struct Activity {
    began: Instant,
    takes: Duration,
    read: Option<(String, u64)>,
    written: Option<(String, u64)>,
}

impl Activity {
    /// The part of a whole that is done by now.
    fn part(&self, whole: u64) -> u64 {
        if self.takes.is_zero() {
            return whole;
        }
        let share = (self.began.elapsed().as_secs_f64() / self.takes.as_secs_f64()).min(1.0);
        // Byte counts of this size are exact in a double.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a byte count"
        )]
        let part = (whole as f64 * share) as u64;
        part.min(whole)
    }

    fn add_to(&self, counters: &mut BTreeMap<String, DriveCounters>, all: bool) {
        let part = |whole| if all { whole } else { self.part(whole) };
        if let Some((slot, bytes)) = &self.read {
            counters.entry(slot.clone()).or_default().read += part(*bytes);
        }
        if let Some((slot, bytes)) = &self.written {
            counters.entry(slot.clone()).or_default().written += part(*bytes);
        }
    }
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

/// A listening sshd: what stops it, and what ends when it has.
type Server = (CancellationToken, tokio::task::JoinHandle<()>);

/// Everything that changes.
#[derive(Default)]
struct Machine {
    console: Console,
    counters: BTreeMap<String, DriveCounters>,
    activity: Option<Activity>,
    ejected: BTreeSet<String>,
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
        let guest = Arc::new(Self {
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

    /// Lines on the screen.
    fn say<T: AsRef<str>>(&self, lines: impl IntoIterator<Item = T>) {
        let mut machine = self.machine();
        lines.into_iter().for_each(|line| machine.console.line(line));
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
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
        self.unplug_system();
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

    /// From the reset vector to the end of whatever booted.
    async fn boot(self: &Arc<Self>, keys: &mut mpsc::UnboundedReceiver<Key>) -> End {
        let firmware = Firmware::of(&self.launch.config);
        self.record().boots += 1;
        self.enter(GuestState::Firmware);
        {
            let mut machine = self.machine();
            machine.console.clear();
            machine.console.line(match firmware {
                Firmware::SeaBios => "SeaBIOS (version rel-1.16.3)",
                Firmware::Ovmf => "BdsDxe: loading Boot Options (EDK II)",
            });
        }
        self.clock.sleep(self.shared.options.durations.firmware).await;
        let mut order: Vec<String> = firmware::boot_order(&self.launch);
        loop {
            match self.probe(firmware, order.clone()).await {
                None => {
                    self.say(match firmware {
                        Firmware::SeaBios => ["No bootable device."],
                        Firmware::Ovmf => ["BdsDxe: No bootable option or device was found."],
                    });
                    self.enter(GuestState::NoBootDevice);
                    return std::future::pending().await;
                }
                Some((_, Bootable::System { slot, path, system })) => {
                    let size_bytes = 0;
                    return self
                        .run_system(
                            Drive {
                                slot,
                                cdrom: false,
                                path,
                                size_bytes,
                            },
                            *system,
                        )
                        .await;
                }
                Some((at, Bootable::Medium(medium))) => match self.run_medium(firmware, &medium, keys).await {
                    Some(end) => return end,
                    // Boot from local drive: on to the devices behind the medium, then to those before it.
                    None => {
                        let mut rest = order.split_off(at + 1);
                        rest.extend(order.into_iter().take(at));
                        order = rest;
                    }
                },
            }
        }
    }

    /// The first device of the list that boots, with its place.
    async fn probe(&self, firmware: Firmware, order: Vec<String>) -> Option<(usize, Bootable)> {
        let mut launch = self.launch.clone();
        let ejected = self.machine().ejected.clone();
        launch.drives.retain(|drive| !ejected.contains(&drive.slot));
        launch
            .config
            .insert("boot".to_owned(), format!("order={}", order.join(";")));
        let probing = tokio::task::spawn_blocking(move || firmware::probe(&launch)).await;
        let attempts = match probing {
            Ok(attempts) => attempts,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        for (at, attempt) in attempts.into_iter().enumerate() {
            match attempt.found {
                Ok(bootable) => {
                    self.say([match firmware {
                        Firmware::SeaBios => format!("Booting from {}...", attempt.slot),
                        Firmware::Ovmf => format!("BdsDxe: starting Boot{at:04} \"{}\"", attempt.slot),
                    }]);
                    return Some((at, bootable));
                }
                Err(why) => self.say([match firmware {
                    Firmware::SeaBios => format!("Booting from {}... Boot failed: {why}", attempt.slot),
                    Firmware::Ovmf => format!("BdsDxe: failed to load Boot{at:04} \"{}\": {why}", attempt.slot),
                }]),
            }
        }
        None
    }

    /// Menu and installer; `None` to go on with the next boot device.
    async fn run_medium(
        self: &Arc<Self>,
        firmware: Firmware,
        medium: &Medium,
        keys: &mut mpsc::UnboundedReceiver<Key>,
    ) -> Option<End> {
        let choice = self.menu(firmware, medium, keys).await;
        let (kernel_line, initrd) = match choice {
            Choice::LocalDisk => return None,
            Choice::Reset => return Some(End::Reset),
            Choice::Kernel { arguments, initrd } => (arguments, initrd),
        };
        self.record().kernel_line = Some(kernel_line.clone());
        self.enter(GuestState::InstallerBoot);
        self.say([format!("[    0.000000] Command line: BOOT_IMAGE=vmlinuz {kernel_line}")]);
        if !initrd {
            let line = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)";
            return Some(self.panic(&[line.to_owned()]).await);
        }
        if let Some(end) = self.fatal_start(medium.major).await {
            return Some(end);
        }
        if installer::argument(&kernel_line, "inst.rescue").is_some() {
            self.say([
                "Starting installer, one moment...",
                "Please press ENTER to get a shell:",
            ]);
            self.enter(GuestState::Rescue);
            return Some(std::future::pending().await);
        }
        Some(self.run_installer(medium, &kernel_line, keys).await)
    }

    /// The ways in which a kernel does not get far.
    async fn fatal_start(&self, major: u32) -> Option<End> {
        if let Some(complaint) = firmware::cpu_complaint(&self.launch.config, major) {
            let panic = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00";
            return Some(self.panic(&[complaint, panic.to_owned()]).await);
        }
        if self
            .strike(|kind| matches!(kind, FaultKind::KernelPanic).then_some(()))
            .is_some()
        {
            let line = "Kernel panic - not syncing: Fatal exception in interrupt";
            return Some(self.panic(&[line.to_owned()]).await);
        }
        None
    }

    async fn menu(&self, firmware: Firmware, medium: &Medium, keys: &mut mpsc::UnboundedReceiver<Key>) -> Choice {
        let options = &self.shared.options;
        self.machine().counters.entry(medium.slot.clone()).or_default().read += MENU_READS;
        let mut menu = Menu::new(firmware, medium);
        self.say(menu.screen());
        // What was typed before the menu was there is lost.
        while keys.try_recv().is_ok() {}
        self.enter(GuestState::Menu);
        let countdown = if self.clock.is_instant() {
            let launch = self.launch.clone();
            let unattended = tokio::task::spawn_blocking(move || installer::has_oemdrv(&launch))
                .await
                .unwrap_or(false);
            if unattended {
                Duration::ZERO
            } else {
                options.instant_menu_wait
            }
        } else {
            self.clock.host(options.durations.menu_timeout)
        };
        let first = tokio::select! {
            biased;
            () = self.clock.sleep_host(countdown) => None,
            key = keys.recv() => key,
        };
        let Some(mut key) = first else {
            return Menu::default_choice(medium);
        };
        // A key was typed: the countdown is over for good (FACTS 83).
        loop {
            let before = menu.screen();
            if let Some(choice) = menu.key(key) {
                return choice;
            }
            let after = menu.screen();
            if before.len() != after.len() {
                self.say(after);
            }
            match keys.recv().await {
                Some(next) => key = next,
                None => std::future::pending().await,
            }
        }
    }

    async fn run_installer(
        self: &Arc<Self>,
        medium: &Medium,
        kernel_line: &str,
        keys: &mut mpsc::UnboundedReceiver<Key>,
    ) -> End {
        let options = &self.shared.options;
        let stage2 =
            installer::argument(kernel_line, "inst.stage2").or_else(|| installer::argument(kernel_line, "inst.repo"));
        if stage2 != Some(&format!("hd:LABEL={}", medium.label)) && stage2 != Some("cdrom") {
            let wanted = stage2.unwrap_or("nothing (no inst.stage2)");
            return self
                .fail(vec![
                    format!("dracut-initqueue: Warning: /dev/root does not exist: {wanted}"),
                    "Entering emergency mode. Exit the shell to continue.".to_owned(),
                    "dracut:/#".to_owned(),
                ])
                .await;
        }
        if installer::argument(kernel_line, "rd.live.check").is_some() {
            self.work(
                options.durations.media_check,
                Some((&medium.slot, INSTALLER_READS)),
                None,
            )
            .await;
            self.say([
                "Checking: 100.0%",
                "The media check is complete, the result is: PASS.",
                "It is OK to use this media.",
            ]);
        }
        self.work(
            options.durations.installer_boot,
            Some((&medium.slot, INSTALLER_READS)),
            None,
        )
        .await;
        let found = match installer::find_kickstart(&self.launch, kernel_line).await {
            Ok(found) => found,
            Err(lines) => {
                self.clock.sleep(options.durations.fetch_timeout).await;
                return self.fail(lines).await;
            }
        };
        if let Some(found) = &found {
            let mut record = self.record();
            record.kickstart_source = Some(found.source.clone());
            record.kickstart_text = Some(found.text.clone());
        }
        self.say([format!(
            "Starting installer, one moment...\nanaconda 34.25 for {} started.",
            medium.os()
        )]);
        let plan = match installer::plan(&self.launch, medium, kernel_line, found.as_ref()) {
            Ok(plan) => plan,
            Err(Stuck::Failed(lines)) => return self.fail(lines).await,
            Err(Stuck::Waits(questions)) => {
                self.say(questions.iter().map(|question| format!("[!] {question}")));
                self.say([
                    "Please make a selection from the above ['b' to begin installation, 'q' to quit, 'r' to refresh]:",
                ]);
                self.enter(GuestState::InstallerWaits);
                return self.wait_for_power().await;
            }
        };
        self.enter(GuestState::Installing);
        self.say([
            "Creating disklabel",
            "Creating xfs",
            "Starting package installation process",
        ]);
        let half = options.durations.install / 2;
        let (slot, path) = &plan.disk;
        let ending = tokio::select! {
            () = self.installer_power.notified() => Some(End::PowerOff),
            () = self.work(half, Some((&medium.slot, PACKAGE_READS)), Some((slot, PACKAGE_WRITES))) => None,
        };
        if let Some(end) = ending {
            return end;
        }
        let fault = self.strike(|kind| match kind {
            FaultKind::InstallFails { message } => Some(message.clone()),
            _ => None,
        });
        if let Some(message) = fault {
            return self
                .fail(vec!["An unknown error has occured".to_owned(), message])
                .await;
        }
        self.work(half, None, Some((slot, PACKAGE_WRITES / 4))).await;
        self.say(["Configuring installed system", "Running post-installation scripts"]);
        let host = Arc::new(self.host(plan.system, None, None));
        match installer::run_post(&plan.kickstart, &host).await {
            Ok(lines) => self.say(lines),
            Err(lines) => return self.fail(lines).await,
        }
        let mut system = host.system().clone();
        if let Some(found) = &found {
            system.files.put("/root/anaconda-ks.cfg", found.text.clone(), 0o600);
            system.files.put("/root/original-ks.cfg", found.text.clone(), 0o600);
        }
        self.record().installed = Some(system.summary());
        if let Err(error) = system.save(path) {
            return self.fail(vec![format!("storage error: {slot}: {error}")]).await;
        }
        self.say(["Installation complete"]);
        self.end_install(plan.at_end, medium, keys).await
    }

    async fn end_install(&self, at_end: AtEnd, medium: &Medium, keys: &mut mpsc::UnboundedReceiver<Key>) -> End {
        match at_end {
            AtEnd::Reboot { eject } => {
                if eject {
                    self.machine().ejected.insert(medium.slot.clone());
                }
                End::Reboot
            }
            AtEnd::PowerOff => End::PowerOff,
            AtEnd::Halt => {
                self.say(["reboot: System halted"]);
                self.enter(GuestState::Halted);
                std::future::pending().await
            }
            AtEnd::Wait => {
                self.say(["Installation complete. Press ENTER to quit:"]);
                self.enter(GuestState::InstallerDone);
                loop {
                    tokio::select! {
                        () = self.installer_power.notified() => return End::PowerOff,
                        key = keys.recv() => if key == Some(Key::Enter) {
                            return End::Reboot;
                        },
                    }
                }
            }
        }
    }

    async fn fail(&self, lines: Vec<String>) -> End {
        self.say(lines);
        self.enter(GuestState::InstallerFailed);
        self.wait_for_power().await
    }

    /// Nothing more happens but the power button.
    async fn wait_for_power(&self) -> End {
        self.installer_power.notified().await;
        End::PowerOff
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

    fn host(&self, system: System, power: Option<mpsc::UnboundedSender<Power>>, address: Option<Ipv4Addr>) -> Host {
        Host {
            vmid: self.launch.vmid,
            system: Mutex::new(system),
            clock: self.clock.clone(),
            record: Arc::clone(&self.record),
            faults: Arc::clone(&self.shared.faults),
            script_time: self.shared.options.durations.script,
            keep_file_bytes: self.shared.options.keep_file_bytes,
            power,
            services: Notify::new(),
            booted: Instant::now(),
            address,
        }
    }

    /// The installed system, from its boot loader to its end.
    async fn run_system(self: &Arc<Self>, disk: Drive, mut system: System) -> End {
        let durations = &self.shared.options.durations;
        self.enter(GuestState::Booting);
        self.say([format!("GRUB: {} {}", system.os, system.release)]);
        if let Some(end) = self.fatal_start(system.major).await {
            return end;
        }
        self.work(
            durations.boot,
            Some((&disk.slot, BOOT_READS)),
            Some((&disk.slot, BOOT_WRITES)),
        )
        .await;
        if system.first_boot() {
            self.say(["systemd[1]: Detected first boot."]);
        }
        system.start_enabled();
        let reserved = self.reserve_address();
        let address = reserved.as_ref().map(|(address, _)| *address);
        let (power, mut powered) = mpsc::unbounded_channel();
        let hostname = system.hostname();
        let summary = system.summary();
        let (os, release) = (system.os.clone(), system.release.clone());
        let host = Arc::new(self.host(system, Some(power), address));
        let cancel = CancellationToken::new();
        self.machine().live = Some(Live {
            host: Arc::clone(&host),
            disk: disk.clone(),
            agent: Agent::default(),
            agent_ready: false,
            cancel: cancel.clone(),
        });
        {
            let mut record = self.record();
            record.installed = Some(summary);
            record.address = address.map(|address| address.to_string());
            record.state = GuestState::Running;
        }
        self.say([format!("{os} {release}\n\n{hostname} login:")]);
        let wish = self
            .services(&host, reserved.map(|(_, socket)| socket), &cancel, &mut powered)
            .await;
        self.say([format!("systemd-shutdown[1]: {wish:?}")]);
        self.enter(GuestState::ShuttingDown);
        tokio::time::sleep(LAST_WORDS).await;
        self.record().address = None;
        self.unplug_system();
        self.clock.sleep(durations.shutdown).await;
        match wish {
            Power::Off => End::PowerOff,
            Power::Reboot => End::Reboot,
            Power::Halt => {
                self.say(["reboot: System halted"]);
                self.enter(GuestState::Halted);
                std::future::pending().await
            }
        }
    }

    /// Runs sshd and the agent as their units and their time allow, until somebody wants the power off.
    async fn services(
        &self,
        host: &Arc<Host>,
        mut socket: Option<TcpSocket>,
        cancel: &CancellationToken,
        powered: &mut mpsc::UnboundedReceiver<Power>,
    ) -> Power {
        let durations = &self.shared.options.durations;
        let never = |wanted: fn(&FaultKind) -> bool| self.strike(|kind| wanted(kind).then_some(())).is_some();
        let mut sshd_due = !never(|kind| matches!(kind, FaultKind::SshdNever));
        let mut agent_due = !never(|kind| matches!(kind, FaultKind::AgentNever));
        let whim = self.strike(|kind| match kind {
            FaultKind::PowersOff { after } => Some((*after, Power::Off)),
            FaultKind::Reboots { after } => Some((*after, Power::Reboot)),
            _ => None,
        });
        let whim = async {
            match whim {
                Some((after, power)) => {
                    self.clock.sleep(after).await;
                    power
                }
                None => std::future::pending().await,
            }
        };
        let sshd_timer = self.clock.sleep(durations.sshd);
        let agent_timer = self.clock.sleep(durations.agent);
        tokio::pin!(whim, sshd_timer, agent_timer);
        let mut sshd_ready = false;
        let mut server: Option<Server> = None;
        loop {
            let wanted = sshd_ready && host.system().is_active("sshd.service");
            match (wanted, server.is_some()) {
                (true, false) => server = self.start_sshd(host, &mut socket, cancel),
                (false, true) => {
                    if let Some((stop, task)) = server.take() {
                        stop.cancel();
                        // A listener that broke is closed as well.
                        let _ = task.await;
                    }
                    // The address stays the guest's while its sshd is down.
                    socket = host
                        .address
                        .and_then(|address| sshd::reserve(SocketAddrV4::new(address, self.shared.ssh_port)).ok());
                }
                _ => {}
            }
            tokio::select! {
                wish = powered.recv() => return wish.unwrap_or(Power::Off),
                power = &mut whim => return power,
                () = &mut sshd_timer, if sshd_due => {
                    sshd_due = false;
                    sshd_ready = true;
                }
                () = &mut agent_timer, if agent_due => {
                    agent_due = false;
                    if let Some(live) = &mut self.machine().live {
                        live.agent_ready = true;
                    }
                }
                () = host.services.notified() => {}
            }
        }
    }

    fn start_sshd(
        &self,
        host: &Arc<Host>,
        socket: &mut Option<TcpSocket>,
        cancel: &CancellationToken,
    ) -> Option<Server> {
        let listener = socket.take()?.listen(64);
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                self.say([format!("sshd: bind to port: {error}")]);
                return None;
            }
        };
        let keys = host.system().ssh_host_keys();
        self.record().installed = Some(host.system().summary());
        let server = cancel.child_token();
        let task = tokio::spawn(sshd::serve(
            listener,
            Arc::clone(host),
            keys,
            server.clone(),
            cancel.clone(),
        ));
        Some((server, task))
    }

    /// An address of its own on loopback, bound but silent; `None` without a network device.
    fn reserve_address(&self) -> Option<(Ipv4Addr, TcpSocket)> {
        firmware::mac(&self.launch.config)?;
        let found = self.shared.reserve(self.launch.vmid);
        if found.is_none() {
            self.say(["NetworkManager: no address"]);
        }
        found
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

    pub(super) fn console(&self) -> String {
        self.machine().console.text().to_owned()
    }

    /// The record with what is only known now.
    pub(super) fn fill(&self, record: &mut GuestRecord) {
        let machine = self.machine();
        machine.console.text().clone_into(&mut record.console);
        if let Some(live) = &machine.live {
            record.installed = Some(live.host.system().summary());
        }
    }

    pub(super) fn status(&self) -> Running {
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
            paused,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
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
