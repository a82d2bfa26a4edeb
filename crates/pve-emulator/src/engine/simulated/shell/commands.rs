//! The commands the shell knows: builtins here, programs by topic below.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::io::Io;
use super::{Flow, Shell, Unwind};
use crate::engine::simulated::system::System;

mod accounts;
mod files;
mod run;
mod scp;
mod services;
mod software;
mod test;
mod text;
mod volumes;

/// Programs of the base system.
const PROGRAMS: &[&str] = &[
    "awk",
    "base64",
    "basename",
    "bash",
    "blkid",
    "cat",
    "chage",
    "chcon",
    "chgrp",
    "chmod",
    "chown",
    "chpasswd",
    "cloud-init",
    "cp",
    "cut",
    "date",
    "df",
    "dirname",
    "dnf",
    "echo",
    "egrep",
    "env",
    "expr",
    "false",
    "fgrep",
    "find",
    "firewall-cmd",
    "free",
    "getenforce",
    "getent",
    "getsebool",
    "grep",
    "groupadd",
    "groups",
    "halt",
    "head",
    "hostname",
    "hostnamectl",
    "id",
    "install",
    "ip",
    "journalctl",
    "k3s",
    "kubectl",
    "ln",
    "logger",
    "ls",
    "md5sum",
    "mkdir",
    "mktemp",
    "mount",
    "mv",
    "nohup",
    "nproc",
    "passwd",
    "poweroff",
    "printenv",
    "printf",
    "pwd",
    "readlink",
    "realpath",
    "reboot",
    "restorecon",
    "rm",
    "rmdir",
    "rpm",
    "scp",
    "sed",
    "seq",
    "setenforce",
    "setsebool",
    "sh",
    "sha256sum",
    "sha512sum",
    "shred",
    "shutdown",
    "sleep",
    "sort",
    "stat",
    "stdbuf",
    "su",
    "sudo",
    "sync",
    "systemctl",
    "tail",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "useradd",
    "userdel",
    "usermod",
    "wc",
    "which",
    "whoami",
    "xargs",
    "yum",
    "[",
];

/// Whether the system has a program of that name that this shell can carry out.
pub(super) fn is_command(name: &str, system: &System) -> bool {
    match name {
        // The one program here that is not part of the base system.
        "cloud-init" => system.packages.contains("cloud-init"),
        // Its own package, left out on purpose.
        "awk" => false,
        "sudo" => system.packages.contains("sudo"),
        "firewall-cmd" => system.packages.contains("firewalld"),
        // Its download is not simulated: it is there where its unit is.
        "k3s" | "kubectl" => crate::engine::simulated::k3s::is_installed(system),
        name => PROGRAMS.contains(&name),
    }
}

const BUILTINS: &[&str] = &[
    ":", ".", "break", "cd", "command", "continue", "eval", "exec", "exit", "export", "local", "declare", "typeset",
    "read", "readonly", "return", "set", "shift", "source", "trap", "type", "umask", "unset", "wait", "hash", "ulimit",
    "shopt", "alias",
];

impl Shell {
    /// A builtin that changes the shell itself; `None` if the name is none.
    pub(super) fn builtin<'a>(
        &'a mut self,
        name: &'a str,
        args: &'a [String],
        io: &'a Io,
    ) -> BoxFuture<'a, Option<Flow>> {
        async move {
            if !BUILTINS.contains(&name) {
                return None;
            }
            Some(self.run_builtin(name, args, io).await)
        }
        .boxed()
    }

    async fn run_builtin(&mut self, name: &str, args: &[String], io: &Io) -> Flow {
        let number = |default: i32| args.first().map_or(Ok(default), |text| text.parse::<i32>());
        let status = match name {
            "exit" => return Err(Unwind::Exit(number(self.status).unwrap_or(2) & 0xff)),
            "return" => return Err(Unwind::Return(number(self.status).unwrap_or(2) & 0xff)),
            "break" => return Err(Unwind::Break(number(1).unwrap_or(1).max(1).cast_unsigned())),
            "continue" => return Err(Unwind::Continue(number(1).unwrap_or(1).max(1).cast_unsigned())),
            "cd" => {
                let target = args
                    .first()
                    .cloned()
                    .or_else(|| self.get("HOME").map(str::to_owned))
                    .unwrap_or_default();
                let path = self.path(&target);
                if self.host.system().files.is_dir(&path) {
                    self.cwd = path;
                    0
                } else {
                    self.complain(io, &format!("cd: {target}: No such file or directory"));
                    1
                }
            }
            "export" | "declare" | "typeset" | "local" | "readonly" => self.declare(name, args, io),
            "unset" => {
                for name in args.iter().filter(|arg| !arg.starts_with('-')) {
                    self.vars.remove(name);
                    self.functions.remove(name);
                }
                0
            }
            "shift" => {
                let count = usize::try_from(number(1).unwrap_or(1)).unwrap_or(0);
                if count > self.positional.len() {
                    1
                } else {
                    self.positional.drain(..count);
                    0
                }
            }
            "set" => self.set_options(args, io),
            "umask" => match args.first().map(|text| u32::from_str_radix(text, 8)) {
                Some(Ok(mask)) => {
                    self.umask = mask & 0o777;
                    0
                }
                Some(Err(_)) => 1,
                None => {
                    io.stdout.line(format!("{:04o}", self.umask));
                    0
                }
            },
            "eval" => return self.eval(&args.join(" "), io).await,
            "." | "source" => return self.source(args, io).await,
            "exec" if !args.is_empty() => {
                let status = Self::exit_code(self.call(args, &[], io).await);
                return Err(Unwind::Exit(status));
            }
            "command" => return self.command_builtin(args, io).await,
            "type" => self.describe(args, io, true),
            "read" => self.read(args, io).await,
            // trap, wait, ulimit and the like: no signals reach this shell, no jobs run beside it that it could wait for, and
            // its limits are its own.
            _ => 0,
        };
        Ok(status)
    }

    fn declare(&mut self, builtin: &str, args: &[String], io: &Io) -> i32 {
        let export = builtin == "export" || args.iter().any(|arg| arg == "-x");
        let readonly = builtin == "readonly" || args.iter().any(|arg| arg == "-r");
        if export && args.iter().all(|arg| arg == "-p") {
            for (name, value) in self.environment() {
                io.stdout.line(format!("declare -x {name}=\"{value}\""));
            }
            return 0;
        }
        for arg in args.iter().filter(|arg| !arg.starts_with('-')) {
            let (name, value) = arg
                .split_once('=')
                .map_or((arg.as_str(), None), |(name, value)| (name, Some(value)));
            let valid = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !valid {
                self.complain(io, &format!("{builtin}: `{arg}': not a valid identifier"));
                return 1;
            }
            if let Some(value) = value {
                self.set(name, value.to_owned());
            }
            if export {
                self.vars.entry(name.to_owned()).or_default().exported = true;
            }
            if readonly {
                self.readonly.insert(name.to_owned());
            }
        }
        0
    }

    fn set_options(&mut self, args: &[String], io: &Io) -> i32 {
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let on = match arg.chars().next() {
                Some('-') if arg == "--" => {
                    self.positional = args.cloned().collect();
                    return 0;
                }
                Some('-') => true,
                Some('+') => false,
                _ => {
                    self.positional = std::iter::once(arg.clone()).chain(args.cloned()).collect();
                    return 0;
                }
            };
            for letter in arg.chars().skip(1) {
                match letter {
                    'e' => self.options.errexit = on,
                    'u' => self.options.nounset = on,
                    'a' => self.options.allexport = on,
                    'f' => self.options.noglob = on,
                    'x' | 'E' | 'h' | 'm' | 'B' | 'v' | 'C' | 'T' => {}
                    'o' => match args.next().map(String::as_str) {
                        Some("errexit") => self.options.errexit = on,
                        Some("nounset") => self.options.nounset = on,
                        Some("allexport") => self.options.allexport = on,
                        Some("noglob") => self.options.noglob = on,
                        Some("pipefail") => self.options.pipefail = on,
                        Some("xtrace" | "errtrace" | "posix") | None => {}
                        Some(other) => {
                            self.complain(io, &format!("set: {other}: invalid option name"));
                            return 2;
                        }
                    },
                    other => {
                        self.complain(io, &format!("set: -{other}: invalid option"));
                        return 2;
                    }
                }
            }
        }
        0
    }

    async fn eval(&mut self, text: &str, io: &Io) -> Flow {
        match super::parse::parse(text) {
            Ok(list) => self.exec_list(&list, io).await,
            Err(complaint) => {
                self.complain(io, &complaint);
                Ok(2)
            }
        }
    }

    async fn source(&mut self, args: &[String], io: &Io) -> Flow {
        let Some(name) = args.first() else {
            self.complain(io, ".: filename argument required");
            return Ok(2);
        };
        let text = self.host.system().files.bytes(&self.path(name));
        let text = match text {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                self.complain(io, &format!("{name}: {error}"));
                return Ok(1);
            }
        };
        let saved = (args.len() > 1).then(|| std::mem::replace(&mut self.positional, args[1..].to_vec()));
        self.depth += 1;
        let result = if self.depth > 40 {
            Ok(1)
        } else {
            self.eval(&text, io).await
        };
        self.depth -= 1;
        if let Some(saved) = saved {
            self.positional = saved;
        }
        match result {
            Err(Unwind::Return(status)) => Ok(status),
            other => other,
        }
    }

    async fn command_builtin(&mut self, args: &[String], io: &Io) -> Flow {
        match args.first().map(String::as_str) {
            Some("-v") => Ok(self.describe(&args[1..], io, false)),
            Some("-V") => Ok(self.describe(&args[1..], io, true)),
            Some(_) => self.call(args, &[], io).await,
            None => Ok(0),
        }
    }

    fn describe(&self, names: &[String], io: &Io, long: bool) -> i32 {
        let mut status = 0;
        for name in names {
            let found = if BUILTINS.contains(&name.as_str()) || self.functions.contains_key(name) {
                Some(name.clone())
            } else {
                self.find_program(name).map(|program| match program {
                    super::exec::Program::Command(base) => format!("/usr/bin/{base}"),
                    super::exec::Program::Script(path) => path,
                })
            };
            match found {
                Some(found) if long => io.stdout.line(format!("{name} is {found}")),
                Some(found) => io.stdout.line(found),
                None => {
                    if long {
                        self.complain(io, &format!("type: {name}: not found"));
                    }
                    status = 1;
                }
            }
        }
        status
    }

    async fn read(&mut self, args: &[String], io: &Io) -> i32 {
        let mut names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
        let reply = "REPLY".to_owned();
        if names.is_empty() {
            names.push(&reply);
        }
        let line = io.stdin.line().await;
        let found = line.is_some();
        let line = line.unwrap_or_default();
        let mut rest = line.trim();
        for (number, name) in names.iter().enumerate() {
            let value = if number + 1 == names.len() {
                std::mem::take(&mut rest)
            } else {
                let (word, after) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
                rest = after.trim_start();
                word
            };
            self.set(name, value.to_owned());
        }
        i32::from(!found)
    }

    /// A program of the base system. The caller has made sure that there is one of that name.
    pub(super) fn command<'a>(&'a mut self, name: &'a str, args: &'a [String], io: &'a Io) -> BoxFuture<'a, i32> {
        async move {
            match name {
                "true" => 0,
                "false" => 1,
                "echo" => Self::echo(args, io),
                "printf" => self.printf(args, io),
                "test" | "[" => self.test_command(name, args, io),
                "bash" | "sh" | "env" | "sudo" | "su" | "nohup" | "timeout" | "xargs" | "sleep" | "stdbuf"
                | "printenv" => self.run_wrapper(name, args, io).await,
                "cat" | "head" | "tail" | "wc" | "grep" | "egrep" | "fgrep" | "sed" | "tr" | "cut" | "sort"
                | "uniq" | "base64" | "sha256sum" | "sha512sum" | "md5sum" | "tee" | "seq" | "expr" => {
                    self.text_command(name, args, io).await
                }
                "mkdir" | "rmdir" | "rm" | "mv" | "cp" | "ln" | "chmod" | "chown" | "chgrp" | "touch" | "truncate"
                | "install" | "ls" | "stat" | "readlink" | "realpath" | "mktemp" | "dirname" | "basename" | "find"
                | "pwd" | "shred" | "restorecon" | "chcon" => self.file_command(name, args, io),
                "id" | "whoami" | "groups" | "getent" | "useradd" | "userdel" | "usermod" | "groupadd" | "passwd"
                | "chpasswd" | "chage" => self.account_command(name, args, io).await,
                "systemctl" | "shutdown" | "reboot" | "poweroff" | "halt" | "cloud-init" | "journalctl" | "logger" => {
                    self.service_command(name, args, io)
                }
                "scp" => self.scp(args, io).await,
                "blkid" | "mount" | "umount" => self.volume_command(name, args, io),
                "k3s" | "kubectl" => self.k3s_command(name, args, io),
                _ => self.software_command(name, args, io),
            }
        }
        .boxed()
    }
}
