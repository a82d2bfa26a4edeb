//! The engine: guests by vmid, the addresses they share, and what is remembered of those that are gone.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::Value;
use tokio::net::TcpSocket;

use super::guest::Guest;
use super::host::{Faults, lock};
use super::options::{Fault, SimulatedOptions};
use super::record::{GuestRecord, GuestState};
use super::sshd;
use super::system::System;
use crate::engine::{AgentError, ByteStream, Drive, Engine, Launch, Powerdown, Running, StartError, StreamError};

/// Guests live in 127.64.0.0/10: loopback on every Linux, and away from 127.0.0.1 where everybody else is.
const NETWORK: u32 = 0x7f40_0000;
/// Bits of that network's mask.
pub(super) const NETWORK_PREFIX: u8 = 10;
/// Addresses in it.
const NETWORK_SIZE: u32 = 1 << (32 - NETWORK_PREFIX);
/// Addresses tried for one guest before it stays without.
const ADDRESS_TRIES: u32 = 64;

/// What the guests of one engine share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: SimulatedOptions,
    pub(super) faults: Arc<Faults>,
    pub(super) ssh_port: u16,
    guests: Mutex<BTreeMap<u32, Arc<Guest>>>,
    records: Mutex<BTreeMap<u32, Arc<Mutex<GuestRecord>>>>,
    /// Which guest holds which address.
    addresses: Mutex<BTreeMap<Ipv4Addr, u32>>,
}

impl Shared {
    /// Takes a guest off the list, if the list still means this process.
    pub(super) fn gone(&self, vmid: u32, pid: u32) {
        lock(&self.addresses).retain(|_, holder| *holder != vmid);
        let mut guests = lock(&self.guests);
        if guests.get(&vmid).is_some_and(|guest| guest.pid() == pid) {
            guests.remove(&vmid);
        }
    }

    /// The running system at an address.
    pub(super) fn host_at(&self, address: Ipv4Addr) -> Option<Arc<super::host::Host>> {
        let guests: Vec<Arc<Guest>> = lock(&self.guests).values().cloned().collect();
        guests.iter().find_map(|guest| guest.host_at(address))
    }

    /// An address for a guest, bound on the common port: the one its system is set to, where that lies on this network and
    /// is free, else one of its own, the same at each boot where possible.
    pub(super) fn reserve(&self, vmid: u32, wanted: Option<Ipv4Addr>) -> Option<(Ipv4Addr, TcpSocket)> {
        let mut addresses = lock(&self.addresses);
        addresses.retain(|_, holder| *holder != vmid);
        let wanted = wanted.filter(|address| u32::from(*address) / NETWORK_SIZE == NETWORK / NETWORK_SIZE);
        let own = (0..ADDRESS_TRIES)
            .map(|attempt| Ipv4Addr::from(NETWORK + vmid.wrapping_add(attempt.wrapping_mul(7919)) % NETWORK_SIZE));
        wanted.into_iter().chain(own).find_map(|address| {
            // .0 and .255 look like a network and a broadcast to people and to some programs.
            if matches!(address.octets()[3], 0 | 255) || addresses.contains_key(&address) {
                return None;
            }
            let socket = sshd::reserve(SocketAddrV4::new(address, self.ssh_port)).ok()?;
            // A listener of another emulator on the same port shows only when listening is tried.
            let taken = std::net::TcpListener::bind(SocketAddrV4::new(address, self.ssh_port)).is_err();
            if taken {
                return None;
            }
            addresses.insert(address, vmid);
            Some((address, socket))
        })
    }
}

/// Guests as state machines in this process, each with a real SSH server behind it.
pub struct SimulatedEngine {
    shared: Arc<Shared>,
    next_pid: AtomicU32,
}

impl fmt::Debug for SimulatedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedEngine")
            .field("ssh_port", &self.shared.ssh_port)
            .field("guests", &lock(&self.shared.guests).len())
            .finish_non_exhaustive()
    }
}

impl SimulatedEngine {
    /// An engine without guests.
    ///
    /// # Errors
    /// The port asked for is taken on the guests' network, or none is free.
    pub fn new(options: SimulatedOptions) -> std::io::Result<Self> {
        let probe = std::net::TcpListener::bind(SocketAddrV4::new(Ipv4Addr::from(NETWORK + 1), options.ssh_port))?;
        let ssh_port = probe.local_addr()?.port();
        drop(probe);
        let faults = Arc::new(Faults::new(options.faults.clone()));
        let shared = Shared {
            options,
            faults,
            ssh_port,
            guests: Mutex::default(),
            records: Mutex::default(),
            addresses: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            next_pid: AtomicU32::new(2000),
        })
    }

    /// Port of every guest's sshd.
    pub fn ssh_port(&self) -> u16 {
        self.shared.ssh_port
    }

    /// Lets something go wrong from now on.
    pub fn inject(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Breaks the SSH connections to a guest, as a lost network does. New ones are taken as before.
    pub fn cut_ssh(&self, vmid: u32) {
        if let Some(guest) = self.running(vmid) {
            guest.cut_ssh();
        }
    }

    /// A guest's agent answers no more until the next boot.
    pub fn silence_agent(&self, vmid: u32) {
        if let Some(guest) = self.running(vmid) {
            guest.silence_agent();
        }
    }

    /// What is known of a guest, running or not; `None` if it never ran.
    pub fn guest(&self, vmid: u32) -> Option<GuestRecord> {
        let record = lock(&self.shared.records).get(&vmid).cloned()?;
        let mut copy = lock(&record).clone();
        if let Some(guest) = self.running(vmid) {
            guest.fill(&mut copy);
        }
        Some(copy)
    }

    fn running(&self, vmid: u32) -> Option<Arc<Guest>> {
        lock(&self.shared.guests).get(&vmid).cloned()
    }
}

/// Whether any disk of the VM carries a system; a VM without one begins a new life.
fn has_system(launch: &Launch) -> bool {
    launch
        .drives
        .iter()
        .filter(|drive| !drive.cdrom)
        .any(|drive| matches!(System::load(&drive.path), Ok(Some(_))))
}

#[async_trait]
impl Engine for SimulatedEngine {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn ssh_port(&self) -> u16 {
        self.shared.ssh_port
    }

    async fn start(&self, launch: Launch) -> Result<(), StartError> {
        let vmid = launch.vmid;
        if self.running(vmid).is_some() {
            return Err(StartError(format!("VM {vmid} already running")));
        }
        if let Some(drive) = launch.drives.iter().find(|drive| !drive.path.exists()) {
            // QEMU's own words for a medium that is not there.
            let path = drive.path.display();
            return Err(StartError(format!(
                "kvm: -drive file={path}: Could not open '{path}': No such file or directory"
            )));
        }
        let probe = launch.clone();
        let carried_on = tokio::task::spawn_blocking(move || has_system(&probe))
            .await
            .unwrap_or(false);
        let record = Arc::clone(lock(&self.shared.records).entry(vmid).or_default());
        {
            let mut record = lock(&record);
            let old = std::mem::take(&mut *record);
            if carried_on {
                *record = GuestRecord {
                    typed_keys: Vec::new(),
                    console: String::new(),
                    ..old
                };
            }
            record.vmid = vmid;
            record.state = GuestState::Firmware;
        }
        let pid = self.next_pid.fetch_add(1, Ordering::Relaxed);
        // Under the lock, so that a guest whose life is over at once cannot be taken off the list before it is on it.
        let mut guests = lock(&self.shared.guests);
        if guests.contains_key(&vmid) {
            return Err(StartError(format!("VM {vmid} already running")));
        }
        guests.insert(vmid, Guest::start(launch, Arc::clone(&self.shared), record, pid));
        Ok(())
    }

    async fn stop(&self, vmid: u32) {
        if let Some(guest) = self.running(vmid) {
            guest.stop().await;
        }
    }

    async fn powerdown(&self, vmid: u32, how: Powerdown) {
        if let Some(guest) = self.running(vmid) {
            guest.powerdown(how);
        }
    }

    async fn reset(&self, vmid: u32) {
        if let Some(guest) = self.running(vmid) {
            guest.reset();
        }
    }

    async fn pause(&self, vmid: u32, paused: bool) {
        if let Some(guest) = self.running(vmid) {
            guest.pause(paused);
        }
    }

    fn status(&self, vmid: u32) -> Option<Running> {
        self.running(vmid).map(|guest| guest.status())
    }

    async fn send_key(&self, vmid: u32, key: &str) -> Result<(), String> {
        match self.running(vmid) {
            Some(guest) => guest.send_key(key),
            None => Err(format!("VM {vmid} not running")),
        }
    }

    async fn change_medium(&self, vmid: u32, slot: &str, medium: Option<&Drive>) -> Result<(), String> {
        if let Some(guest) = self.running(vmid) {
            guest.change_medium(slot, medium);
        }
        Ok(())
    }

    async fn agent(&self, vmid: u32, command: &str, arguments: Value) -> Result<Value, AgentError> {
        match self.running(vmid) {
            Some(guest) => guest.agent(command, &arguments),
            None => Err(AgentError::NotRunning),
        }
    }

    async fn serial(&self, vmid: u32, port: u8) -> Result<Box<dyn ByteStream>, StreamError> {
        self.running(vmid).ok_or(StreamError::NotRunning)?.serial(port)
    }

    async fn vnc(&self, vmid: u32, password: &str) -> Result<Box<dyn ByteStream>, StreamError> {
        self.running(vmid).ok_or(StreamError::NotRunning)?.vnc(password)
    }

    fn console(&self, vmid: u32) -> Option<String> {
        self.running(vmid).map(|guest| guest.console())
    }
}

impl Drop for SimulatedEngine {
    fn drop(&mut self) {
        // Tasks hold their guest, and guests hold the shared part: without this they would outlive the engine.
        for guest in std::mem::take(&mut *lock(&self.shared.guests)).into_values() {
            guest.abandon();
        }
    }
}
