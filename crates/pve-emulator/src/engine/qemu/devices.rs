//! What else a machine has: screen, serial ports, agent channel, random numbers, balloon, watchdog.

use std::fmt::Write as _;

use super::pci::Buses;
use super::property::{Argv, Config, family, flag, parts};
use super::run_dir::Names;

/// The screen, as the VM's `vga` asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    /// A card of this QEMU model, shown over VNC.
    Card {
        model: &'static str,
        memory_mib: Option<u64>,
    },
    /// None: the firmware talks to the first serial port.
    None,
}

impl Screen {
    /// # Errors
    /// A card that needs what is not there.
    pub(super) fn read(config: &Config) -> Result<Self, String> {
        let option = parts(config, "vga")?;
        let kind = option.get("type").unwrap_or("std");
        let model = match kind {
            "std" => "VGA",
            "cirrus" => "cirrus-vga",
            "vmware" => "vmware-svga",
            "virtio" => "virtio-vga",
            "qxl" => "qxl-vga",
            "none" | "serial0" | "serial1" | "serial2" | "serial3" => return Ok(Self::None),
            other => {
                return Err(format!(
                    "option 'vga': the type '{other}' is not emulated by the engine qemu: take std, virtio, qxl, cirrus, vmware, \
                     serialN or none"
                ));
            }
        };
        let memory_mib = option.get("memory").and_then(|m| m.parse().ok());
        Ok(Self::Card { model, memory_mib })
    }

    /// # Source
    /// `print_vga_device` of PVE::QemuServer and its recorded command lines.
    pub(super) fn add(&self, buses: &mut Buses, argv: &mut Argv) {
        let Self::Card { model, memory_mib } = self else { return };
        let mut device = format!("{model},id=vga{}", buses.address("vga"));
        if let Some(mib) = memory_mib {
            let property = match *model {
                "virtio-vga" => format!(",max_hostmem={}", mib << 20),
                _ => format!(",vgamem_mb={mib}"),
            };
            device.push_str(&property);
        }
        argv.device(device);
    }
}

/// The USB controller and the pointer that PVE gives a VM by default.
pub(super) fn tablet(config: &Config, q35: bool, argv: &mut Argv) {
    if !q35 {
        argv.device("piix3-usb-uhci,id=uhci,bus=pci.0,addr=0x1.0x2");
    }
    if flag(config, "tablet").unwrap_or(true) {
        let bus = if q35 { "ehci" } else { "uhci" };
        argv.device(format!("usb-tablet,id=tablet,bus={bus}.0,port=1"));
    }
}

/// Serial ports, each behind a socket. The first one's text is kept in a file too, whoever is connected.
///
/// # Errors
/// A port that is to be one of the host's devices.
pub(super) fn serial(config: &Config, names: Names, argv: &mut Argv) -> Result<(), String> {
    for (index, text) in family(config, "serial") {
        if text != "socket" {
            return Err(format!(
                "option 'serial{index}': devices of the host are not passed through by the engine qemu: use socket"
            ));
        }
        let log = if index == 0 {
            format!(",logfile={},logappend=on", names.console_log())
        } else {
            String::new()
        };
        argv.add(
            "-chardev",
            format!(
                "socket,id=serial{index},path={},server=on,wait=off{log}",
                names.serial(index)
            ),
        );
        argv.device(format!("isa-serial,chardev=serial{index}"));
    }
    Ok(())
}

/// The channel of the guest agent.
///
/// # Errors
/// The option cannot be read.
pub(super) fn agent(config: &Config, names: Names, buses: &mut Buses, argv: &mut Argv) -> Result<bool, String> {
    let option = parts(config, "agent")?;
    if option.get("enabled") != Some("1") {
        return Ok(false);
    }
    argv.add(
        "-chardev",
        format!("socket,path={},server=on,wait=off,id=qga0", names.agent()),
    );
    if option.get("type") == Some("isa") {
        argv.device("isa-serial,chardev=qga0");
    } else {
        argv.device(format!("virtio-serial,id=qga0{}", buses.address("qga0")));
        argv.device("virtserialport,chardev=qga0,name=org.qemu.guest_agent.0");
    }
    Ok(true)
}

/// Random numbers, balloon, watchdog, generation id.
///
/// # Errors
/// A source of random numbers that this machine does not have, or an option that cannot be read.
pub(super) fn others(config: &Config, buses: &mut Buses, argv: &mut Argv) -> Result<(), String> {
    if let Some(id) = config.get("vmgenid").filter(|id| *id != "0") {
        argv.device(format!("vmgenid,guid={id}"));
    }
    if config.get("balloon").is_none_or(|b| b != "0") {
        let place = buses.address("balloon0");
        argv.device(format!("virtio-balloon-pci,id=balloon0{place},free-page-reporting=on"));
    }
    if config.contains_key("rng0") {
        let option = parts(config, "rng0")?;
        let source = option.get("source").unwrap_or("/dev/urandom");
        if !std::path::Path::new(source).exists() {
            return Err(format!(
                "option 'rng0': there is no {source} on this machine: use /dev/urandom"
            ));
        }
        let mut device = format!("virtio-rng-pci,rng=rng0{}", buses.address("rng0"));
        // PVE's defaults; 0 means no limit.
        let bytes = option.get("max_bytes").unwrap_or("1024");
        if bytes != "0" {
            let period = option.get("period").unwrap_or("1000");
            let _ = write!(device, ",max-bytes={bytes},period={period}");
        }
        argv.add("-object", format!("rng-random,filename={source},id=rng0"));
        argv.device(device);
    }
    if config.contains_key("watchdog") {
        let option = parts(config, "watchdog")?;
        let model = option.get("model").unwrap_or("i6300esb");
        let place = if model == "ib700" {
            String::new()
        } else {
            buses.address("watchdog")
        };
        argv.device(format!("{model},id=watchdog{place}"));
        if let Some(action) = option.get("action") {
            argv.add("-action", format!("watchdog={action}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens() {
        let screen = |vga: &str| Screen::read(&Config::from([("vga".into(), vga.into())]));
        assert_eq!(screen("serial0"), Ok(Screen::None));
        assert_eq!(screen("none"), Ok(Screen::None));
        let card = |model, memory_mib| Ok(Screen::Card { model, memory_mib });
        assert_eq!(screen("std,memory=32"), card("VGA", Some(32)));
        assert_eq!(Screen::read(&Config::new()), card("VGA", None));
        assert!(screen("virtio-gl").unwrap_err().contains("'virtio-gl'"));
    }
}
