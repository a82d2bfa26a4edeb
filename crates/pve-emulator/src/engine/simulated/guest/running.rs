//! The installed system from its boot loader to its shutdown.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{End, Guest, Live};
use crate::engine::Drive;
use crate::engine::simulated::agent::Agent;
use crate::engine::simulated::cloudinit;
use crate::engine::simulated::firmware;
use crate::engine::simulated::host::{Host, Peers, Power, lock};
use crate::engine::simulated::options::FaultKind;
use crate::engine::simulated::record::GuestState;
use crate::engine::simulated::sshd;
use crate::engine::simulated::system::System;
use crate::engine::simulated::units;

/// Host time between a program's wish to power off and the end of connections, with any time scale: the exit status of
/// `reboot` itself shall still reach its caller, as it does on a machine that takes seconds to go down.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// Bytes an installed system reads while it boots, and writes.
const BOOT_READS: u64 = 350 << 20;
const BOOT_WRITES: u64 = 20 << 20;
/// A listening sshd: what stops it, and what ends when it has.
type Server = (CancellationToken, tokio::task::JoinHandle<()>);

impl Guest {
    pub(super) fn host(
        &self,
        system: System,
        power: Option<mpsc::UnboundedSender<Power>>,
        address: Option<Ipv4Addr>,
    ) -> Host {
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
            media: Mutex::new(self.media()),
            k3s_time: self.shared.options.durations.k3s,
            peers: self.peers(),
            journal: Mutex::default(),
            connections: Mutex::default(),
        }
    }

    /// The installed system, from its boot loader to its end.
    pub(super) async fn run_system(self: &Arc<Self>, disk: Drive, mut system: System) -> End {
        let durations = &self.shared.options.durations;
        self.enter(GuestState::Booting);
        self.say([format!("GRUB: {} {}", system.os, system.release)]);
        self.kernel_console(system.serial_console);
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
        let media = self.media();
        let told = tokio::task::spawn_blocking(move || {
            let lines = cloudinit::run(&mut system, &media);
            (system, lines)
        });
        let (mut system, lines) = match told.await {
            Ok(told) => told,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.say(lines);
        system.start_enabled();
        let reserved = self.reserve_address(system.fixed_address());
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
            for unit in units::wanted(host) {
                let (host, cancel) = (Arc::clone(host), cancel.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = units::run(host, unit) => {}
                    }
                });
            }
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

    /// The media in its CD-ROM drives, as far as its system sees them.
    fn media(&self) -> Vec<PathBuf> {
        let drives = self.launch.drives.iter().filter(|drive| drive.cdrom);
        let mut media: BTreeMap<&str, Option<&PathBuf>> =
            drives.map(|drive| (drive.slot.as_str(), Some(&drive.path))).collect();
        let machine = self.machine();
        media.extend(machine.media.iter().map(|(slot, path)| (slot.as_str(), path.as_ref())));
        let seen = media
            .into_iter()
            .filter(|(slot, _)| firmware::switches_on(&self.launch, slot));
        seen.filter_map(|(_, path)| path.cloned()).collect()
    }

    /// Puts a medium into a drive that it has had since its start, or takes it out.
    pub(in crate::engine::simulated) fn change_medium(&self, slot: &str, medium: Option<&Drive>) {
        if !self.launch.config.contains_key(slot) {
            return;
        }
        let path = medium.map(|drive| drive.path.clone());
        self.machine().media.insert(slot.to_owned(), path);
        let media = self.media();
        if let Some(live) = &self.machine().live {
            *lock(&live.host.media) = media;
        }
    }

    /// Finds other running systems by their addresses.
    fn peers(&self) -> Peers {
        let shared = Arc::downgrade(&self.shared);
        Peers(Arc::new(move |address| shared.upgrade()?.host_at(address)))
    }

    /// The running system, if it has this address.
    pub(in crate::engine::simulated) fn host_at(&self, address: Ipv4Addr) -> Option<Arc<Host>> {
        let machine = self.machine();
        let live = machine.live.as_ref()?;
        (live.host.address == Some(address)).then(|| Arc::clone(&live.host))
    }

    /// An address of its own on loopback, bound but silent; `None` without a network device.
    fn reserve_address(&self, wanted: Option<Ipv4Addr>) -> Option<(Ipv4Addr, TcpSocket)> {
        firmware::mac(&self.launch.config)?;
        let found = self.shared.reserve(self.launch.vmid, wanted);
        match (&found, wanted) {
            (None, _) => self.say(["NetworkManager: no address"]),
            (Some((address, _)), Some(wanted)) if *address != wanted => {
                self.say([format!("NetworkManager: {wanted} is not to be had, {address} instead")]);
            }
            _ => {}
        }
        found
    }
}
