//! The guests' network: QEMU's user-mode network, and an address on loopback behind which each guest's SSH server is.
//!
//! A guest sees 10.0.2.0/24 with itself at .15, the host at .2 (where a server on the host's 127.0.0.1 answers too) and a name
//! server at .3. No other machine sees it: what comes in comes through the forwarded port.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::drives::BootOrder;
use super::pci::Buses;
use super::property::{Argv, Config, escape, family, parts};

/// Guests live in 127.64.0.0/10: loopback on every Linux, and away from 127.0.0.1 where everybody else is.
const NETWORK: u32 = 0x7f40_0000;
/// Bits of that network's mask.
const PREFIX: u8 = 10;
/// Addresses in it.
const SIZE: u32 = 1 << (32 - PREFIX);
/// Where a guest of `net0` without a fixed address finds this machine: what listens on 127.0.0.1 here answers there.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Addresses tried for one guest.
const TRIES: u32 = 64;

/// Where a guest is reached from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) address: Ipv4Addr,
    /// Leads to the guest's port 22.
    pub(super) ssh_port: u16,
}

/// The addresses of one engine's guests.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) ssh_port: u16,
    held: Mutex<BTreeMap<Ipv4Addr, u32>>,
}

impl Addresses {
    /// # Errors
    /// The port asked for is taken on the guests' network, or none is free.
    pub(super) fn new(ssh_port: u16) -> std::io::Result<Self> {
        let probe = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::from(NETWORK + 1), ssh_port))?;
        Ok(Self {
            ssh_port: probe.local_addr()?.port(),
            held: Mutex::default(),
        })
    }

    /// An address whose SSH port is free, the same one at each start where possible.
    ///
    /// # Errors
    /// None is free: something else listens on the port everywhere.
    pub(super) fn reserve(&self, vmid: u32) -> Result<Reach, String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, holder| *holder != vmid);
        let ssh_port = self.ssh_port;
        let free = (0..TRIES).find_map(|attempt| {
            let offset = vmid.wrapping_add(attempt.wrapping_mul(7919)) % SIZE;
            let address = Ipv4Addr::from(NETWORK + offset);
            // .0 and .255 look like a network and a broadcast to people and to some programs.
            let taken = matches!(address.octets()[3], 0 | 255)
                || held.contains_key(&address)
                || TcpListener::bind(SocketAddrV4::new(address, ssh_port)).is_err();
            (!taken).then_some(address)
        });
        let address = free.ok_or_else(|| {
            format!(
                "port {ssh_port} is taken on {TRIES} addresses of 127.64.0.0/10: end what listens there, or choose another \
                 port for the guests' SSH"
            )
        })?;
        held.insert(address, vmid);
        Ok(Reach { address, ssh_port })
    }

    /// Notes the address of a guest that was taken over.
    pub(super) fn hold(&self, vmid: u32, address: Ipv4Addr) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(address, vmid);
    }

    pub(super) fn release(&self, vmid: u32) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, holder| *holder != vmid);
    }
}

/// One network device's own small network.
#[derive(Debug, PartialEq, Eq)]
struct Lan {
    network: Ipv4Addr,
    prefix: u32,
    host: Ipv4Addr,
    dns: Ipv4Addr,
    guest: Ipv4Addr,
}

impl Lan {
    /// The network of `net{index}`: 10.0.2.0/24 and up, or the one that a fixed address of the cloud-init options lies in, so
    /// that a guest that gives itself this address is reached too.
    fn of(config: &Config, index: u32) -> Result<Self, String> {
        let key = format!("ipconfig{index}");
        let option = parts(config, &key)?;
        let fixed = option.get("ip").filter(|ip| *ip != "dhcp");
        let Some(fixed) = fixed else {
            let network = (u32::from(HOST) & 0xffff_ff00) + (index << 8);
            let at = |n: u32| Ipv4Addr::from(network + n);
            return Ok(Self {
                network: at(0),
                prefix: 24,
                host: at(2),
                dns: at(3),
                guest: at(15),
            });
        };
        let bad = || format!("option '{key}': '{fixed}' is no IPv4 address with its prefix");
        let (address, prefix) = fixed.split_once('/').ok_or_else(bad)?;
        let guest: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u32 = prefix.parse().map_err(|_| bad())?;
        if !(8..=27).contains(&prefix) {
            return Err(format!(
                "option '{key}': the user-mode network takes networks from /8 to /27, not /{prefix}"
            ));
        }
        let mask = u32::MAX << (32 - prefix);
        let network = u32::from(guest) & mask;
        let inside = |a: &Ipv4Addr| u32::from(*a) & mask == network;
        let gateway: Option<Ipv4Addr> = option.get("gw").and_then(|gw| gw.parse().ok()).filter(inside);
        let mut free = (2..15)
            .map(|n| Ipv4Addr::from(network + n))
            .filter(|a| *a != guest && Some(*a) != gateway);
        let host = gateway.or_else(|| free.next()).ok_or_else(bad)?;
        let dns = free.next().ok_or_else(bad)?;
        Ok(Self {
            network: Ipv4Addr::from(network),
            prefix,
            host,
            dns,
            guest,
        })
    }
}

/// Adds the network devices. The first one gets the forwarded port.
///
/// # Errors
/// An option that cannot be read.
pub(super) fn devices(
    config: &Config,
    vmid: u32,
    reach: Reach,
    buses: &mut Buses,
    argv: &mut Argv,
) -> Result<Vec<String>, String> {
    let boot = BootOrder::read(config);
    let name = config.get("name").cloned().unwrap_or_else(|| format!("VM{vmid}"));
    let mut down = Vec::new();
    for (number, (index, _)) in (0_u32..).zip(family(config, "net")) {
        let key = format!("net{index}");
        let option = parts(config, &key)?;
        let lan = Lan::of(config, index)?;
        let mut back = format!(
            "user,id={key},ipv6=off,hostname={},net={}/{},host={},dns={}",
            escape(&name),
            lan.network,
            lan.prefix,
            lan.host,
            lan.dns
        );
        if number == 0 {
            let Reach { address, ssh_port } = reach;
            let _ = write!(back, ",hostfwd=tcp:{address}:{ssh_port}-{}:22", lan.guest);
        }
        argv.add("-netdev", back);
        let model = option.get("model").unwrap_or("virtio");
        let virtio = model == "virtio";
        let model = if virtio { "virtio-net-pci" } else { model };
        let mac = option.get("macaddr").unwrap_or_default();
        let mut device = format!("{model},mac={mac},netdev={key}{},id={key}", buses.address(&key));
        if virtio {
            // PVE's sizes since 7.1.
            device.push_str(",rx_queue_size=1024,tx_queue_size=256");
            if let Some(mtu) = option.get("mtu").filter(|mtu| *mtu != "1") {
                let _ = write!(device, ",host_mtu={mtu}");
            }
        }
        if let Some(n) = boot.net(&key, number) {
            let _ = write!(device, ",bootindex={n}");
        }
        argv.device(device);
        if option.get("link_down") == Some("1") {
            down.push(key);
        }
    }
    Ok(down)
}

/// MAC address of the device that has the forwarded port, in lower case.
pub(super) fn first_mac(config: &Config) -> Option<String> {
    let (index, _) = family(config, "net").into_iter().next()?;
    let option = parts(config, &format!("net{index}")).ok()?;
    option.get("macaddr").map(str::to_lowercase)
}

/// Puts the address at which the host reaches the guest into an answer of `guest-network-get-interfaces`, in the place of the
/// first IPv4 address of that device: the guest's own is of its private network and leads nowhere from outside.
pub(super) fn show_reachable(answer: &mut Value, mac: &str, address: Ipv4Addr) {
    let interfaces = answer.as_array_mut().into_iter().flatten();
    let ours = interfaces.filter(|i| {
        i["hardware-address"]
            .as_str()
            .is_some_and(|hw| hw.eq_ignore_ascii_case(mac))
    });
    for interface in ours {
        let addresses = interface["ip-addresses"].as_array_mut().into_iter().flatten();
        if let Some(first) = addresses.into_iter().find(|a| a["ip-address-type"] == "ipv4") {
            first["ip-address"] = address.to_string().into();
            first["prefix"] = PREFIX.into();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_fixed_address_brings_its_network() {
        let lan = |ip: &str| Lan::of(&config(&[("ipconfig0", ip)]), 0);
        let plain = Lan::of(&config(&[]), 1).unwrap();
        assert_eq!(
            (plain.network, plain.guest),
            (Ipv4Addr::new(10, 0, 3, 0), Ipv4Addr::new(10, 0, 3, 15))
        );
        assert_eq!(lan("ip=dhcp").unwrap().host, HOST);
        let fixed = lan("ip=192.0.2.2/24,gw=192.0.2.1").unwrap();
        assert_eq!(
            (fixed.network, fixed.host, fixed.dns, fixed.guest),
            (
                Ipv4Addr::new(192, 0, 2, 0),
                Ipv4Addr::new(192, 0, 2, 1),
                Ipv4Addr::new(192, 0, 2, 3),
                Ipv4Addr::new(192, 0, 2, 2)
            )
        );
        assert!(lan("ip=192.0.2.2/30").unwrap_err().contains("/30"));
    }

    #[test]
    fn addresses_are_kept_and_shared_out() {
        let addresses = Addresses::new(0).unwrap();
        let first = addresses.reserve(100).unwrap();
        assert_eq!(first.address, Ipv4Addr::new(127, 64, 0, 100));
        assert_eq!(addresses.reserve(100).unwrap(), first);
        let _listener =
            TcpListener::bind(SocketAddrV4::new(Ipv4Addr::new(127, 64, 0, 101), addresses.ssh_port)).unwrap();
        let second = addresses.reserve(101).unwrap();
        assert_ne!(second.address, Ipv4Addr::new(127, 64, 0, 101), "it is taken");
        addresses.release(100);
        assert_eq!(addresses.held.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_reachable_address_is_shown() {
        let lo = json!({ "name": "lo", "hardware-address": "00:00:00:00:00:00",
            "ip-addresses": [{ "ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8 }] });
        let mut answer = json!([lo, { "name": "ens18", "hardware-address": "bc:24:11:00:00:01", "ip-addresses": [
            { "ip-address": "fe80::1", "ip-address-type": "ipv6", "prefix": 64 },
            { "ip-address": "10.0.2.15", "ip-address-type": "ipv4", "prefix": 24 }] }]);
        show_reachable(&mut answer, "BC:24:11:00:00:01", Ipv4Addr::new(127, 64, 0, 100));
        assert_eq!(answer[0], lo);
        assert_eq!(
            answer[1]["ip-addresses"][1],
            json!({ "ip-address": "127.64.0.100", "ip-address-type": "ipv4", "prefix": 10 })
        );
        assert_eq!(answer[1]["ip-addresses"][0]["ip-address"], "fe80::1");
    }
}
