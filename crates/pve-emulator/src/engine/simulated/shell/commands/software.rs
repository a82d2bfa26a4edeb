//! Packages, SELinux, host name and what a system tells about itself.

use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;

impl Shell {
    pub(super) fn software_command(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        match name {
            "dnf" | "yum" => self.dnf(args, io),
            "rpm" => self.rpm(args, io),
            "getenforce" => {
                let enforcing = self.host.system().selinux_enforcing();
                io.stdout.line(if enforcing { "Enforcing" } else { "Permissive" });
                0
            }
            "setenforce" => {
                let mode = args.first().map_or("", String::as_str);
                let text = if matches!(mode, "1" | "Enforcing") {
                    "enforcing"
                } else {
                    "permissive"
                };
                self.host.system().files.put(
                    "/etc/selinux/config",
                    format!("SELINUX={text}\nSELINUXTYPE=targeted\n"),
                    0o644,
                );
                0
            }
            "setsebool" => {
                let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
                let pairs: Vec<(String, bool)> = match names[..] {
                    [name, value] if !name.contains('=') => {
                        vec![(name.clone(), matches!(value.as_str(), "1" | "on" | "true"))]
                    }
                    _ => names
                        .iter()
                        .filter_map(|pair| pair.split_once('='))
                        .map(|(name, value)| (name.to_owned(), matches!(value, "1" | "on" | "true")))
                        .collect(),
                };
                let mut system = self.host.system();
                for (name, on) in pairs {
                    if on {
                        system.selinux_booleans.insert(name);
                    } else {
                        system.selinux_booleans.remove(&name);
                    }
                }
                0
            }
            "getsebool" => {
                let system = self.host.system();
                for name in args {
                    let on = system.selinux_booleans.contains(name);
                    io.stdout.line(format!("{name} --> {}", if on { "on" } else { "off" }));
                }
                0
            }
            "hostname" => match args.iter().find(|arg| !arg.starts_with('-')) {
                Some(new) => {
                    self.host.system().files.put("/etc/hostname", format!("{new}\n"), 0o644);
                    0
                }
                None if args.iter().any(|arg| arg == "-I") => {
                    io.stdout
                        .line(self.host.address.map_or(String::new(), |address| address.to_string()));
                    0
                }
                None => {
                    let name = self.host.system().hostname();
                    let short = args.iter().any(|arg| arg == "-s");
                    io.stdout.line(if short {
                        name.split('.').next().unwrap_or_default()
                    } else {
                        &name
                    });
                    0
                }
            },
            "hostnamectl" => match args.iter().position(|arg| arg == "set-hostname" || arg == "hostname") {
                Some(at) if args.len() > at + 1 => {
                    self.host
                        .system()
                        .files
                        .put("/etc/hostname", format!("{}\n", args[at + 1]), 0o644);
                    0
                }
                _ => {
                    io.stdout
                        .line(format!(" Static hostname: {}", self.host.system().hostname()));
                    0
                }
            },
            "ip" => {
                let mut lines = vec!["1: lo    inet 127.0.0.1/8 scope host lo".to_owned()];
                lines.extend(
                    self.host
                        .address
                        .map(|address| format!("2: eth0    inet {address}/10 scope global eth0")),
                );
                for line in lines {
                    io.stdout.line(line);
                }
                0
            }
            "firewall-cmd" => {
                if self.host.system().is_active("firewalld.service") || args.iter().any(|arg| arg == "--permanent") {
                    io.stdout.line("success");
                    0
                } else {
                    io.stderr.line("FirewallD is not running");
                    252
                }
            }
            _ => self.facts(name, args, io),
        }
    }

    fn facts(&self, name: &str, args: &[String], io: &Io) -> i32 {
        let line = match name {
            "uname" => {
                let major = self.host.system().major;
                // The kernel series of each release.
                let kernel = match major {
                    8 => "4.18.0-553.el8_10.x86_64",
                    9 => "5.14.0-427.el9.x86_64",
                    _ => "6.12.0-55.el10.x86_64",
                };
                let host = self.host.system().hostname();
                match args.first().map(String::as_str) {
                    Some("-r") => kernel.to_owned(),
                    Some("-m" | "-p" | "-i") => "x86_64".to_owned(),
                    Some("-n") => host,
                    Some("-a") => {
                        format!("Linux {host} {kernel} #1 SMP PREEMPT_DYNAMIC x86_64 x86_64 x86_64 GNU/Linux")
                    }
                    _ => "Linux".to_owned(),
                }
            }
            "date" => {
                let seconds = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs());
                match args.iter().find_map(|arg| arg.strip_prefix('+')) {
                    Some("%s") | None => seconds.to_string(),
                    Some(format) => format_date(seconds, format),
                }
            }
            "uptime" => format!("up {} s", self.host.booted.elapsed().as_secs()),
            "nproc" => "2".to_owned(),
            "df" => "Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/sda3 33000000 1500000 31500000 5% /"
                .to_owned(),
            "free" => {
                "               total        used        free\nMem:         4194304      524288     3670016".to_owned()
            }
            "which" => {
                let mut status = 0;
                for program in args {
                    if self.knows_program(program) {
                        io.stdout.line(format!("/usr/bin/{program}"));
                    } else {
                        io.stderr.line(format!(
                            "/usr/bin/which: no {program} in ({})",
                            self.get("PATH").unwrap_or_default()
                        ));
                        status = 1;
                    }
                }
                return status;
            }
            // sync: everything is in the tree already.
            _ => return 0,
        };
        io.stdout.line(line);
        0
    }

    fn dnf(&mut self, args: &[String], io: &Io) -> i32 {
        let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
        let Some((verb, names)) = words.split_first() else {
            return 0;
        };
        if matches!(
            verb.as_str(),
            "install"
                | "reinstall"
                | "remove"
                | "erase"
                | "update"
                | "upgrade"
                | "autoremove"
                | "group"
                | "groupinstall"
        ) && self.user.uid != 0
        {
            io.stderr.line(
                "Error: This command has to be run with superuser privileges (under the root user on most systems).",
            );
            return 1;
        }
        match verb.as_str() {
            "install" | "reinstall" => {
                let chroot = self.host.is_chroot();
                let mut system = self.host.system();
                for name in names {
                    let base = name.as_str();
                    // udev starts the agent as soon as its unit is there; the others wait for their turn.
                    if system.install(base) && !chroot && matches!(base, "qemu-guest-agent" | "@guest-agents") {
                        system.active.insert("qemu-guest-agent.service".to_owned());
                    }
                }
                drop(system);
                self.host.services.notify_one();
                io.stdout.line(format!(
                    "Installed: {}",
                    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")
                ));
                io.stdout.line("Complete!");
                0
            }
            "remove" | "erase" => {
                let mut system = self.host.system();
                for name in names {
                    system.uninstall(name);
                }
                drop(system);
                self.host.services.notify_one();
                io.stdout.line("Complete!");
                0
            }
            "update" | "upgrade" | "makecache" | "clean" | "autoremove" | "check-update" => {
                io.stdout.line("Nothing to do.");
                0
            }
            "list" => {
                let system = self.host.system();
                let found: Vec<&&String> = names
                    .iter()
                    .filter(|name| system.packages.contains(name.as_str()))
                    .collect();
                for name in &found {
                    io.stdout.line(format!("{name}.x86_64"));
                }
                i32::from(found.is_empty() && !names.is_empty())
            }
            other => {
                io.stderr
                    .line(format!("No such command: {other} (or it is not simulated)"));
                1
            }
        }
    }

    fn rpm(&self, args: &[String], io: &Io) -> i32 {
        let flags: String = args
            .iter()
            .filter(|arg| arg.starts_with('-') && !arg.starts_with("--"))
            .flat_map(|arg| arg.chars().skip(1))
            .collect();
        if !flags.contains('q') && !args.iter().any(|arg| arg == "--query") {
            io.stderr.line("rpm: only queries are simulated");
            return 1;
        }
        let system = self.host.system();
        if flags.contains('a') {
            system
                .packages
                .iter()
                .filter(|name| !name.starts_with('@'))
                .for_each(|name| io.stdout.line(name));
            return 0;
        }
        let mut status = 0;
        for name in args.iter().filter(|arg| !arg.starts_with('-')) {
            if system.packages.contains(name) {
                io.stdout.line(format!("{name}-1.el{}.x86_64", system.major));
            } else {
                io.stdout.line(format!("package {name} is not installed"));
                status = 1;
            }
        }
        status
    }
}

/// The few letters of `date` that scripts name files with, in UTC.
fn format_date(seconds: u64, format: &str) -> String {
    // Days to a civil date: H. Hinnant, "chrono-compatible low-level date algorithms".
    let days = (seconds / 86_400) + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let clock = seconds % 86_400;
    format
        .replace("%F", "%Y-%m-%d")
        .replace("%T", "%H:%M:%S")
        .replace("%Y", &format!("{year:04}"))
        .replace("%m", &format!("{month:02}"))
        .replace("%d", &format!("{day:02}"))
        .replace("%H", &format!("{:02}", clock / 3600))
        .replace("%M", &format!("{:02}", clock / 60 % 60))
        .replace("%S", &format!("{:02}", clock % 60))
        .replace("%s", &seconds.to_string())
}
