//! The command line of one guest.

use std::path::Path;

use super::drives::drives;
use super::firmware;
use super::machine::{self, Machine};
use super::network::{self, Reach};
use super::pci::Buses;
use super::property::{Argv, escape, flag};
use super::run_dir::Names;
use super::{Accel, devices};
use crate::engine::Launch;

/// What the engine decides about a guest beyond its configuration.
#[derive(Clone, Debug)]
pub(super) struct Host<'a> {
    pub(super) accel: Accel,
    pub(super) firmware_dir: &'a Path,
    /// The folder in which QEMU runs, and to which the names of sockets are relative.
    pub(super) run_dir: &'a Path,
    pub(super) reach: Reach,
}

/// A command line and what is to be done before the guest's first instruction.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// Arguments after the program.
    pub(super) argv: Vec<String>,
    /// Network devices whose cable is out.
    pub(super) links_down: Vec<String>,
    /// Whether the guest waits for a `resume` (`freeze`).
    pub(super) frozen: bool,
    pub(super) has_agent: bool,
    pub(super) has_screen: bool,
    /// Number of processors.
    pub(super) cpus: u64,
}

/// Writes the command line of a guest.
///
/// It is PVE's where the guest can tell the difference: device models, addresses and boot order. It differs in how the host
/// serves them: user-mode network instead of a bridge, files below the data directory, no `-daemonize`.
///
/// # Errors
/// The first option that cannot be honoured, with what to do.
pub(super) fn command(launch: &Launch, host: &Host<'_>) -> Result<Command, String> {
    let config = &launch.config;
    let vmid = launch.vmid;
    let names = Names(vmid);
    machine::check(config)?;
    let kind = Machine::read(config)?;
    let screen = devices::Screen::read(config)?;
    let accel = if flag(config, "kvm") == Some(false) {
        Accel::Tcg
    } else {
        host.accel
    };
    let mut buses = Buses::new(kind.q35);

    // Devices first: they decide which bridges are needed, and bridges come before them.
    let mut rest = Argv::default();
    devices::others(config, &mut buses, &mut rest)?;
    devices::tablet(config, kind.q35, &mut rest);
    screen.add(&mut buses, &mut rest);
    devices::serial(config, names, &mut rest)?;
    let has_agent = devices::agent(config, names, &mut buses, &mut rest)?;
    drives(launch, kind.q35, &mut buses, &mut rest)?;
    let links_down = network::devices(config, vmid, host.reach, &mut buses, &mut rest)?;

    let mut argv = Argv::default();
    let name = config.get("name").cloned().unwrap_or_else(|| format!("vm{vmid}"));
    argv.add("-name", format!("{},debug-threads=on", escape(&name)));
    argv.flag("-nodefaults");
    argv.flag("-no-user-config");
    argv.add("-pidfile", names.pid());
    argv.add(
        "-chardev",
        format!("socket,id=qmp,path={},server=on,wait=off", names.qmp()),
    );
    argv.add("-mon", "chardev=qmp,mode=control");
    // Nothing runs before the engine listens to its events.
    argv.flag("-S");
    let mut properties = format!("type={}", kind.kind);
    if config.get("bios").is_some_and(|bios| bios == "ovmf") {
        let temporary = host.run_dir.join(names.vars());
        let flash = firmware::flash(launch, host.firmware_dir, &temporary, &mut argv)?;
        properties = format!("{properties},{flash}");
    }
    if screen == devices::Screen::None {
        // SeaBIOS then talks to the first serial port, as with PVE's -nographic.
        properties.push_str(",graphics=off");
    }
    if flag(config, "acpi") == Some(false) {
        properties.push_str(",acpi=off");
    }
    argv.add("-machine", properties);
    argv.add("-accel", accel.name());
    let cpus = machine::machine(config, accel, &kind, &mut argv)?;
    argv.add("-boot", "menu=on,strict=on,reboot-timeout=1000");
    argv.add("-display", "none");
    if screen != devices::Screen::None {
        argv.add("-vnc", format!("unix:{},password=on", names.vnc()));
    }
    if flag(config, "reboot") == Some(false) {
        argv.flag("-no-reboot");
    }
    buses.bridges(&mut argv);
    argv.0.extend(rest.0);
    if let Some(args) = config.get("args") {
        // Only root may set it (`FACTS` 14), so it is root's own machine that it reaches into.
        let words = shell_words::split(args).map_err(|e| format!("option 'args': {e}"))?;
        argv.0.extend(words);
    }
    Ok(Command {
        argv: argv.0,
        links_down,
        frozen: flag(config, "freeze") == Some(true),
        has_agent,
        has_screen: screen != devices::Screen::None,
        cpus,
    })
}

#[cfg(test)]
mod tests;
