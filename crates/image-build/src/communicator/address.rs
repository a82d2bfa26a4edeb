//! The guest's address, picked from what its agent reports.

use std::net::IpAddr;

use proxmox_client::{ErrorKind, Qemu};

/// Interface names that belong to container networks, bridges and tunnels inside the guest.
const INNER_INTERFACES: [&str; 10] = [
    "lo",
    "docker",
    "cni",
    "flannel",
    "veth",
    "br-",
    "virbr",
    "cali",
    "kube",
    "tailscale",
];

/// One network interface as the guest agent reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestAddress {
    /// Interface name in the guest: `eth0`, `ens18`.
    pub interface: String,
    /// Its MAC address, in any case and with `:`.
    pub mac: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The address to connect to: first of the interface whose MAC is the one of `net0`, else of one that is not inner.
///
/// IPv4 is preferred. 127.0.0.1 and `::1` are never taken; another address of 127.0.0.0/8 on an interface that is not
/// `lo` is a guest whose host runs on this machine. `None` when there is none yet.
pub fn choose_address(interfaces: &[GuestAddress], net0_mac: Option<&str>) -> Option<IpAddr> {
    let usable = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_unspecified() && v4.octets() != [127, 0, 0, 1],
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    };
    let pick = |interface: &GuestAddress| {
        let mut usable: Vec<IpAddr> = interface.addresses.iter().filter(usable).copied().collect();
        usable.sort_by_key(IpAddr::is_ipv6);
        usable.first().copied()
    };
    let is_net0 = |interface: &&GuestAddress| match (&interface.mac, net0_mac) {
        (Some(mac), Some(net0)) => mac.eq_ignore_ascii_case(net0),
        _ => false,
    };
    if let Some(net0) = interfaces.iter().find(is_net0) {
        // The right interface without an address yet: wait for it instead of taking another one's.
        return pick(net0);
    }
    interfaces
        .iter()
        .filter(|i| !INNER_INTERFACES.iter().any(|inner| is_inner(&i.interface, inner)))
        .find_map(pick)
}

/// What one look at the addresses that a guest's agent reports has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AddressLook {
    /// The address to connect to.
    Found(IpAddr),
    /// The agent answers, but none of these interfaces has a usable address yet.
    NoneYet(Vec<String>),
    /// The agent does not answer, or PVE cannot be asked at the moment.
    Silent,
    /// The guest does not run.
    Stopped,
}

/// Asks the guest's agent once.
///
/// # Errors
/// What waiting does not mend: a missing privilege, a VM that is gone.
pub(crate) async fn look_for_address(vm: &Qemu, net0_mac: Option<&str>) -> Result<AddressLook, proxmox_client::Error> {
    let interfaces = match vm.agent().network_interfaces().await {
        Ok(interfaces) => interfaces,
        Err(error) => {
            return match error.kind() {
                ErrorKind::State => Ok(AddressLook::Stopped),
                ErrorKind::Agent
                | ErrorKind::Proxy
                | ErrorKind::Timeout
                | ErrorKind::Server
                | ErrorKind::Transport
                | ErrorKind::Connect => Ok(AddressLook::Silent),
                _ => Err(error),
            };
        }
    };
    let interfaces: Vec<GuestAddress> = interfaces
        .iter()
        .map(|interface| GuestAddress {
            interface: interface.name.clone(),
            mac: interface.hardware_address.clone(),
            addresses: interface.addresses().map(|(address, _)| address).collect(),
        })
        .collect();
    Ok(match choose_address(&interfaces, net0_mac) {
        Some(address) => AddressLook::Found(address),
        None => AddressLook::NoneYet(interfaces.into_iter().map(|interface| interface.interface).collect()),
    })
}

fn is_inner(interface: &str, inner: &str) -> bool {
    if inner == "lo" {
        interface == "lo"
    } else {
        interface.starts_with(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is about, the interfaces, the MAC of net0, and the address to take.
    type Case = (
        &'static str,
        Vec<GuestAddress>,
        Option<&'static str>,
        Option<&'static str>,
    );

    fn interface(name: &str, mac: &str, addresses: &[&str]) -> GuestAddress {
        GuestAddress {
            interface: name.to_owned(),
            mac: (!mac.is_empty()).then(|| mac.to_owned()),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn the_address_is_the_one_of_net0() {
        let net0 = "BC:24:11:00:00:01";
        let lo = interface("lo", "00:00:00:00:00:00", &["127.0.0.1", "::1"]);
        let cases: &[Case] = &[
            ("nothing yet", vec![], Some(net0), None),
            ("loopback alone", vec![lo.clone()], Some(net0), None),
            (
                "by mac, any case",
                vec![lo.clone(), interface("eth0", "bc:24:11:00:00:01", &["10.0.0.5"])],
                Some(net0),
                Some("10.0.0.5"),
            ),
            (
                "by mac, not the first",
                vec![
                    interface("eth0", "aa:aa:aa:aa:aa:aa", &["10.9.9.9"]),
                    interface("eth1", "bc:24:11:00:00:01", &["10.0.0.5"]),
                ],
                Some(net0),
                Some("10.0.0.5"),
            ),
            (
                "net0 has no address yet: others are not taken",
                vec![
                    interface("eth0", "bc:24:11:00:00:01", &["fe80::1"]),
                    interface("eth1", "aa:aa:aa:aa:aa:aa", &["10.0.0.9"]),
                ],
                Some(net0),
                None,
            ),
            (
                "without a known mac, inner networks are skipped",
                vec![
                    lo.clone(),
                    interface("cni0", "", &["10.42.0.1"]),
                    interface("docker0", "", &["172.17.0.1"]),
                    interface("ens18", "", &["192.168.1.7"]),
                ],
                None,
                Some("192.168.1.7"),
            ),
            (
                "ipv4 first",
                vec![interface("eth0", "", &["2001:db8::5", "10.0.0.5"])],
                None,
                Some("10.0.0.5"),
            ),
            (
                "ipv6 alone",
                vec![interface("eth0", "", &["fe80::1", "2001:db8::5"])],
                None,
                Some("2001:db8::5"),
            ),
            (
                "link local alone",
                vec![interface("eth0", "", &["169.254.3.4"])],
                None,
                None,
            ),
            (
                "a guest on this machine",
                vec![lo, interface("eth0", "", &["127.64.0.9"])],
                None,
                Some("127.64.0.9"),
            ),
            (
                "127.0.0.1 on eth0",
                vec![interface("eth0", "", &["127.0.0.1"])],
                None,
                None,
            ),
            (
                "an interface that begins with lo",
                vec![interface("lon0", "", &["10.0.0.5"])],
                None,
                Some("10.0.0.5"),
            ),
        ];
        for (what, interfaces, mac, expected) in cases {
            let expected: Option<IpAddr> = expected.map(|a| a.parse().unwrap());
            assert_eq!(choose_address(interfaces, *mac), expected, "{what}");
        }
    }
}
