//! systemd's units and power, cloud-init's status.

use std::time::Duration;

use crate::engine::simulated::host::Power;
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;
use crate::engine::simulated::system::System;

impl Shell {
    pub(super) fn service_command(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        match name {
            "systemctl" => self.systemctl(args, io),
            "reboot" => self.power(Power::Reboot, io),
            "poweroff" => self.power(Power::Off, io),
            "halt" => self.power(
                if args.iter().any(|arg| arg == "-p") {
                    Power::Off
                } else {
                    Power::Halt
                },
                io,
            ),
            "shutdown" => self.shutdown(args, io),
            "cloud-init" => self.cloud_init(args, io),
            "journalctl" => self.journalctl(args, io),
            // logger: nobody reads its lines.
            _ => 0,
        }
    }

    /// `journalctl -u UNIT [-n LINES]`: of the programs that units run, nothing else writes here.
    fn journalctl(&self, args: &[String], io: &Io) -> i32 {
        let value = |option: &str| {
            let at = args.iter().position(|arg| arg == option)?;
            args.get(at + 1)
        };
        let Some(unit) = value("-u") else { return 0 };
        let journal = crate::engine::simulated::host::lock(&self.host.journal);
        let lines = journal.get(&System::unit_name(unit)).map_or(&[][..], Vec::as_slice);
        let count = value("-n").and_then(|count| count.parse().ok()).unwrap_or(lines.len());
        for line in &lines[lines.len().saturating_sub(count)..] {
            io.stdout.line(line);
        }
        0
    }

    fn power(&self, power: Power, io: &Io) -> i32 {
        if self.user.uid != 0 {
            io.stderr
                .line("Call to Reboot failed: Interactive authentication required.");
            return 1;
        }
        if self.host.is_chroot() {
            io.stderr.line("Running in chroot, ignoring request.");
            return 0;
        }
        i32::from(!self.host.request_power(power))
    }

    /// `shutdown [-r|-h|-P|-H] [now|+minutes]`; without a time it is a minute, as systemd has it.
    fn shutdown(&self, args: &[String], io: &Io) -> i32 {
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        if has("-c") {
            io.stderr.line("shutdown: cancelling is not simulated");
            return 1;
        }
        let power = if has("-r") {
            Power::Reboot
        } else if has("-H") {
            Power::Halt
        } else {
            Power::Off
        };
        let when = args
            .iter()
            .find(|arg| !arg.starts_with('-'))
            .map_or("+1", String::as_str);
        let minutes = match when {
            "now" => 0,
            text => match text.strip_prefix('+').unwrap_or(text).parse::<u64>() {
                Ok(minutes) if !text.contains(':') => minutes,
                _ => {
                    io.stderr.line(format!("Failed to parse time specification: {text}"));
                    return 1;
                }
            },
        };
        if minutes == 0 || self.user.uid != 0 || self.host.is_chroot() {
            return self.power(power, io);
        }
        io.stderr.line(format!(
            "Shutdown scheduled in {minutes} min, use 'shutdown -c' to cancel."
        ));
        let host = std::sync::Arc::clone(&self.host);
        tokio::spawn(async move {
            host.clock.sleep(Duration::from_secs(minutes * 60)).await;
            host.request_power(power);
        });
        0
    }

    fn systemctl(&mut self, args: &[String], io: &Io) -> i32 {
        let flag = |name: &str| args.iter().any(|arg| arg == name);
        let quiet = flag("--quiet") || flag("-q");
        let now = flag("--now");
        let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
        let Some((verb, names)) = words.split_first() else {
            return 0;
        };
        let units: Vec<String> = names.iter().map(|name| System::unit_name(name)).collect();
        match verb.as_str() {
            "reboot" => return self.power(Power::Reboot, io),
            "poweroff" => return self.power(Power::Off, io),
            "halt" => return self.power(Power::Halt, io),
            "daemon-reload" | "reset-failed" | "preset-all" | "set-default" | "daemon-reexec" => return 0,
            "is-system-running" => {
                io.stdout
                    .line(if self.host.is_chroot() { "offline" } else { "running" });
                return i32::from(self.host.is_chroot());
            }
            _ => {}
        }
        if flag("--failed") || (verb.as_str() == "list-units" && flag("--state=failed")) {
            for unit in &self.host.system().failed {
                io.stdout.line(format!("{unit} loaded failed failed"));
            }
            return 0;
        }
        if units.is_empty() && verb.as_str() != "list-units" && verb.as_str() != "list-unit-files" {
            io.stderr.line("Too few arguments.");
            return 1;
        }
        let status = match verb.as_str() {
            "is-active" | "is-enabled" | "is-failed" | "status" | "show" | "cat" | "list-units" | "list-unit-files" => {
                return self.unit_state(verb, &units, quiet, io);
            }
            _ if self.user.uid != 0 => {
                io.stderr.line(format!(
                    "Failed to {verb} {}: Interactive authentication required.",
                    units.join(" ")
                ));
                return 1;
            }
            _ => self.change_units(verb, &units, now, io),
        };
        self.host.services.notify_one();
        status
    }

    fn unit_state(&self, verb: &str, units: &[String], quiet: bool, io: &Io) -> i32 {
        let system = self.host.system();
        if verb.starts_with("list-") {
            let listed = |name: &String| units.is_empty() || units.contains(name);
            for (name, unit) in system.units.iter().filter(|(name, _)| listed(name)) {
                io.stdout
                    .line(format!("{name} {}", if unit.enabled { "enabled" } else { "disabled" }));
            }
            return 0;
        }
        let mut best = 3;
        for unit in units {
            let known = system.has_unit(unit);
            let state = system.units.get(unit).copied().unwrap_or_default();
            let active = system.is_active(unit);
            let (text, code) = match verb {
                "is-enabled" if !known => ("Failed to get unit file state: No such file or directory", 1),
                "is-enabled" if state.masked => ("masked", 1),
                "is-enabled" if state.enabled => ("enabled", 0),
                "is-enabled" => ("disabled", 1),
                "is-failed" => match system.unit_state(unit) {
                    "failed" => ("failed", 0),
                    state => (state, 1),
                },
                "status" if !known => ("could not be found.", 4),
                _ if active => ("active", 0),
                _ => (system.unit_state(unit), 3),
            };
            if verb == "status" {
                io.stdout.line(format!("{unit}: {text}"));
            } else if verb == "show" {
                io.stdout.line(format!("ActiveState={text}"));
            } else if !quiet {
                io.stdout.line(text);
            }
            // One unit that is well is enough for `is-active` and `is-enabled`.
            best = if best == 0 { 0 } else { code };
        }
        if verb == "show" { 0 } else { best }
    }

    fn change_units(&self, verb: &str, units: &[String], now: bool, io: &Io) -> i32 {
        let chroot = self.host.is_chroot();
        let mut system = self.host.system();
        let mut status = 0;
        for unit in units {
            if !system.has_unit(unit) && verb != "mask" && verb != "unmask" {
                io.stderr
                    .line(format!("Failed to {verb} unit: Unit file {unit} does not exist."));
                status = if matches!(verb, "start" | "restart" | "stop") {
                    5
                } else {
                    1
                };
                continue;
            }
            let start = |system: &mut System| {
                if !chroot && !system.unit_mut(unit).masked {
                    system.start_unit(unit);
                }
            };
            match verb {
                "enable" | "reenable" | "preset" => {
                    system.unit_mut(unit).enabled = true;
                    if now {
                        start(&mut system);
                    }
                }
                "disable" | "mask" | "unmask" => {
                    let state = system.unit_mut(unit);
                    match verb {
                        "disable" => state.enabled = false,
                        "mask" => state.masked = true,
                        _ => state.masked = false,
                    }
                    if now && verb != "unmask" {
                        system.stop_unit(unit);
                    }
                }
                "start" | "restart" | "try-restart" | "reload" | "reload-or-restart" => {
                    if verb != "start" {
                        system.stop_unit(unit);
                    }
                    start(&mut system);
                    if unit.starts_with("qemu-guest-agent") && verb != "start" {
                        system.agent_config = None;
                    }
                }
                "stop" => system.stop_unit(unit),
                other => {
                    io.stderr.line(format!("Unknown command verb {other}."));
                    status = 1;
                }
            }
        }
        status
    }

    fn cloud_init(&self, args: &[String], io: &Io) -> i32 {
        match args.first().map(String::as_str) {
            Some("status") => {
                // It runs within the boot; whoever can ask comes after it.
                io.stdout.line("status: done");
                0
            }
            Some("clean") => {
                let mut system = self.host.system();
                for path in system.files.below("/var/lib/cloud") {
                    if path != "/var/lib/cloud" {
                        // A folder's removal took its files along.
                        let _ = system.files.remove(&path, true);
                    }
                }
                if args.iter().any(|arg| arg == "--machine-id") {
                    system.files.put("/etc/machine-id", "uninitialized\n", 0o444);
                }
                0
            }
            Some("--version") => {
                io.stdout.line("/usr/bin/cloud-init 23.4-7.el9");
                0
            }
            _ => {
                io.stderr.line("usage: cloud-init [-h] [--version] {status,clean} ...");
                2
            }
        }
    }
}
