//! Where PVE puts each device on the PCI buses. Guests name their network cards after these places (`ens18`, `enp6s18`),
//! and kickstarts and netplan files carry those names.
//!
//! # Source
//! The address tables of qemu-server (PVE::QemuServer::PCI) and its recorded command lines (`test/cfg2cmd`); `pve-q35-4.0.cfg`
//! for the bridges of q35.

use std::collections::BTreeSet;

use super::property::Argv;

/// Bus number and slot of a device on the conventional buses that both machine types have.
fn place(id: &str) -> Option<(u8, u32)> {
    let indexed = |family: &str| -> Option<u32> { id.strip_prefix(family)?.parse().ok() };
    Some(match id {
        "vga" => (0, 2),
        "balloon0" => (0, 3),
        "watchdog" => (0, 4),
        "ahci0" => (0, 7),
        "qga0" => (0, 8),
        "rng0" => (1, 29),
        _ => {
            if let Some(n) = indexed("virtioscsi") {
                (3, 1 + n)
            } else if let Some(n) = indexed("virtio") {
                if n <= 5 { (0, 10 + n) } else { (2, n - 5) }
            } else if let Some(n) = indexed("net") {
                if n <= 5 { (0, 18 + n) } else { (1, n - 5) }
            } else if let Some(n) = indexed("scsihw") {
                if n <= 1 { (0, 5 + n) } else { (4, n - 1) }
            } else {
                return None;
            }
        }
    })
}

/// The buses of one machine, and which bridges its devices need.
#[derive(Debug)]
pub(super) struct Buses {
    q35: bool,
    used: BTreeSet<u8>,
}

impl Buses {
    pub(super) fn new(q35: bool) -> Self {
        // PVE's own command lines always have the first two.
        Self {
            q35,
            used: BTreeSet::from([1, 2]),
        }
    }

    /// `,bus=pci.0,addr=0x12` for a device.
    pub(super) fn address(&mut self, id: &str) -> String {
        if self.q35 && id == "vga" {
            return ",bus=pcie.0,addr=0x1".into();
        }
        let Some((bus, slot)) = place(id) else {
            return String::new();
        };
        self.used.insert(bus);
        format!(",bus=pci.{bus},addr={slot:#x}")
    }

    /// The bridges, which must stand before the devices behind them.
    pub(super) fn bridges(&self, argv: &mut Argv) {
        if self.q35 {
            // Four root ports are buses 1 to 4, the bridge from PCI Express is 5, and so `pci.0` is bus 6: `enp6s18`.
            for port in 0..4 {
                argv.device(format!(
                    "pcie-root-port,id=ich9-pcie-port-{n},x-speed=16,x-width=32,multifunction=on,bus=pcie.0,\
                     addr=0x1c.{port:#x},port={n},chassis={n}",
                    n = port + 1
                ));
            }
            argv.device("ich9-usb-ehci1,id=ehci,multifunction=on,bus=pcie.0,addr=0x1d.0x7");
            for (n, port) in [(1, 0), (2, 2), (3, 4)] {
                argv.device(format!(
                    "ich9-usb-uhci{n},id=uhci-{n},multifunction=on,bus=pcie.0,addr=0x1d.{:#x},masterbus=ehci.0,firstport={port}",
                    n - 1
                ));
            }
            argv.device("i82801b11-bridge,id=pcidmi,bus=pcie.0,addr=0x1e");
            for (id, slot) in [("pci.0", 1), ("pci.1", 2), ("pci.2", 3)] {
                argv.device(format!(
                    "pci-bridge,id={id},bus=pcidmi,addr={slot:#x},chassis_nr={slot}"
                ));
            }
        } else {
            argv.device("pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e");
            argv.device("pci-bridge,id=pci.2,chassis_nr=2,bus=pci.0,addr=0x1f");
        }
        for (bus, place) in [(3_u8, "bus=pci.0,addr=0x5"), (4, "bus=pci.1,addr=0x1c")] {
            if self.used.contains(&bus) {
                // On q35 the numbers up to 3 are those of pci.0 to pci.2.
                let chassis = if self.q35 { bus + 1 } else { bus };
                argv.device(format!("pci-bridge,id=pci.{bus},chassis_nr={chassis},{place}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_stand_where_pve_puts_them() {
        for (q35, id, expected) in [
            (false, "net0", ",bus=pci.0,addr=0x12"),
            (false, "net6", ",bus=pci.1,addr=0x1"),
            (false, "virtio5", ",bus=pci.0,addr=0xf"),
            (false, "virtio6", ",bus=pci.2,addr=0x1"),
            (false, "virtioscsi30", ",bus=pci.3,addr=0x1f"),
            (false, "scsihw0", ",bus=pci.0,addr=0x5"),
            (false, "scsihw2", ",bus=pci.4,addr=0x1"),
            (false, "rng0", ",bus=pci.1,addr=0x1d"),
            (false, "vga", ",bus=pci.0,addr=0x2"),
            (true, "vga", ",bus=pcie.0,addr=0x1"),
            (true, "net1", ",bus=pci.0,addr=0x13"),
        ] {
            assert_eq!(Buses::new(q35).address(id), expected, "{id}");
        }
    }
}
