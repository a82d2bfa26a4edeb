//! The QEMU guest agent: its protocol, EL9's allow-list, and SELinux's second lock.
//!
//! # Source
//! Commands and replies: QEMU, `qga/qapi-schema.json`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::files::FsError;
use super::host::{Host, Power, lock};
use super::shell::Shell;
use super::shell::io::{FileWriter, Input, Io, Output};
use super::system::System;
use crate::engine::AgentError;

/// Most bytes one read returns; the agent's own limit is 48 MiB.
const MAX_READ: u64 = 48 << 20;
/// Most bytes of output the agent keeps per stream.
const MAX_OUTPUT: usize = 16 << 20;

/// A program that the agent started.
#[derive(Debug)]
struct Exec {
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    /// Set when the program has ended.
    exit_code: Arc<Mutex<Option<i32>>>,
    capture: bool,
}

/// A file that the agent has open.
#[derive(Debug)]
enum Handle {
    Read { bytes: Bytes, at: usize },
    Write(FileWriter),
}

/// What the agent remembers of one boot.
#[derive(Debug)]
pub(super) struct Agent {
    execs: BTreeMap<u64, Exec>,
    files: BTreeMap<u64, Handle>,
    next: u64,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            execs: BTreeMap::new(),
            files: BTreeMap::new(),
            next: 1000,
        }
    }
}

/// Commands that the agent knows.
const COMMANDS: &[&str] = &[
    "guest-exec",
    "guest-exec-status",
    "guest-file-close",
    "guest-file-flush",
    "guest-file-open",
    "guest-file-read",
    "guest-file-seek",
    "guest-file-write",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-status",
    "guest-fsfreeze-thaw",
    "guest-fstrim",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-memory-blocks",
    "guest-get-osinfo",
    "guest-get-time",
    "guest-get-timezone",
    "guest-get-users",
    "guest-get-vcpus",
    "guest-info",
    "guest-network-get-interfaces",
    "guest-ping",
    "guest-set-user-password",
    "guest-shutdown",
    "guest-sync",
    "guest-sync-delimited",
];

/// What the guest shows of itself beside its system.
#[derive(Clone, Debug)]
pub(super) struct Nic {
    pub(super) mac: Option<String>,
    /// Bits of the network mask.
    pub(super) prefix: u8,
}

/// A complaint in the agent's generic class.
fn generic(desc: impl Into<String>) -> AgentError {
    AgentError::Failed {
        class: "GenericError".to_owned(),
        desc: desc.into(),
    }
}

/// Whether the configuration of the agent lets a command through. EL has spelled its list in three ways so far.
///
/// The agent reads its list when it starts and not again: what seals an image closes it for the next boot and can still
/// be followed to its end.
fn is_allowed(system: &mut System, command: &str) -> bool {
    let System {
        agent_config, files, ..
    } = system;
    let text = agent_config.get_or_insert_with(|| files.text("/etc/sysconfig/qemu-ga"));
    let mut allowed = true;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim_matches(['"', '\'']);
        let lists = |list: &str| list.split(',').any(|item| item.trim() == command);
        match name {
            "BLACKLIST_RPC" | "BLOCK_RPCS" => allowed = !lists(value),
            "FILTER_RPC_ARGS" => {
                allowed = value.split_whitespace().all(|option| match option.split_once('=') {
                    Some(("--allow-rpcs", list)) => lists(list),
                    Some(("--block-rpcs" | "--blacklist" | "-b", list)) => !lists(list),
                    _ => true,
                });
            }
            _ => {}
        }
    }
    allowed
}

/// Whether SELinux lets the agent act outside its own corner.
fn is_confined(system: &System) -> bool {
    system.selinux_enforcing() && !system.selinux_booleans.contains("virt_qemu_ga_run_unconfined")
}

fn text<'a>(arguments: &'a Value, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

fn number(arguments: &Value, name: &str) -> Option<u64> {
    let value = arguments.get(name)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

impl Agent {
    /// Carries out one command. Programs are started as tasks of the given set.
    pub(super) fn command(
        &mut self,
        host: &Arc<Host>,
        nic: &Nic,
        command: &str,
        arguments: &Value,
        spawn: impl FnOnce(futures_util::future::BoxFuture<'static, ()>),
    ) -> Result<Value, AgentError> {
        if !COMMANDS.contains(&command) {
            let desc = format!("The command {command} has not been found");
            return Err(AgentError::Failed {
                class: "CommandNotFound".to_owned(),
                desc,
            });
        }
        if !is_allowed(&mut host.system(), command) {
            let desc = format!("Command {command} has been disabled: the command is not allowed");
            return Err(AgentError::Failed {
                class: "CommandNotFound".to_owned(),
                desc,
            });
        }
        match command {
            "guest-exec" => self.exec(host, arguments, spawn),
            "guest-exec-status" => self.exec_status(arguments),
            name if name.starts_with("guest-file-") => self.file(host, name, arguments),
            "guest-shutdown" => {
                let power = match text(arguments, "mode") {
                    Some("reboot") => Power::Reboot,
                    Some("halt") => Power::Halt,
                    Some("powerdown") | None => Power::Off,
                    Some(other) => {
                        return Err(generic(format!(
                            "mode is invalid (valid values are: halt|powerdown|reboot): {other}"
                        )));
                    }
                };
                host.request_power(power);
                Ok(json!({}))
            }
            _ => facts(host, nic, command, arguments),
        }
    }

    fn exec(
        &mut self,
        host: &Arc<Host>,
        arguments: &Value,
        spawn: impl FnOnce(futures_util::future::BoxFuture<'static, ()>),
    ) -> Result<Value, AgentError> {
        let path = text(arguments, "path")
            .ok_or_else(|| generic("Parameter 'path' is missing"))?
            .to_owned();
        let list = |name: &str| -> Vec<String> {
            let items = arguments.get(name).and_then(Value::as_array);
            items
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let input = match text(arguments, "input-data") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| generic("Base64 decode failed"))?,
            None => Vec::new(),
        };
        let capture = arguments
            .get("capture-output")
            .is_some_and(|value| value.as_bool().unwrap_or(value.as_u64() == Some(1)));
        let root = host.system().user("root").ok_or_else(|| generic("no root user"))?;
        // The agent is a service: its environment is systemd's, not a login's.
        let mut environment = BTreeMap::from([
            (
                "PATH".to_owned(),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".to_owned(),
            ),
            ("LANG".to_owned(), "en_US.UTF-8".to_owned()),
        ]);
        for pair in list("env") {
            if let Some((name, value)) = pair.split_once('=') {
                environment.insert(name.to_owned(), value.to_owned());
            }
        }
        let mut shell = Shell::with_environment(host, root, "/".to_owned(), environment);
        let confined = is_confined(&host.system());
        if !shell.knows_program(&path) || confined {
            let why = if confined {
                "Permission denied"
            } else {
                "No such file or directory"
            };
            return Err(generic(format!(
                "Guest agent command failed, error was 'Failed to execute child process “{path}” ({why})'"
            )));
        }
        let argv: Vec<String> = std::iter::once(path).chain(list("arg")).collect();
        let (stdout, out) = Output::buffer();
        let (stderr, err) = Output::buffer();
        let exit_code = Arc::new(Mutex::new(None));
        let done = Arc::clone(&exit_code);
        spawn(Box::pin(async move {
            let io = Io {
                stdin: Input::bytes(input),
                stdout,
                stderr,
            };
            let code = shell.run_argv(&argv, &io).await;
            *lock(&done) = Some(code & 0xff);
        }));
        let pid = self.next;
        self.next += 1;
        self.execs.insert(
            pid,
            Exec {
                stdout: out,
                stderr: err,
                exit_code,
                capture,
            },
        );
        Ok(json!({ "pid": pid }))
    }

    fn exec_status(&mut self, arguments: &Value) -> Result<Value, AgentError> {
        let pid = number(arguments, "pid").ok_or_else(|| generic("Parameter 'pid' is missing"))?;
        let unknown = || generic("Invalid parameter 'pid'");
        let exec = self.execs.get(&pid).ok_or_else(unknown)?;
        let Some(code) = *lock(&exec.exit_code) else {
            return Ok(json!({ "exited": false }));
        };
        // A finished program can be asked about once (FACTS 49).
        let exec = self.execs.remove(&pid).ok_or_else(unknown)?;
        let mut status = json!({ "exited": true, "exitcode": code });
        if exec.capture {
            for (name, buffer) in [("out", exec.stdout), ("err", exec.stderr)] {
                let bytes = lock(&buffer);
                if bytes.is_empty() {
                    continue;
                }
                let kept = &bytes[..bytes.len().min(MAX_OUTPUT)];
                status[format!("{name}-data")] = json!(STANDARD.encode(kept));
                if bytes.len() > MAX_OUTPUT {
                    status[format!("{name}-truncated")] = json!(true);
                }
            }
        }
        Ok(status)
    }

    fn file(&mut self, host: &Arc<Host>, command: &str, arguments: &Value) -> Result<Value, AgentError> {
        if command == "guest-file-open" {
            let path = text(arguments, "path").ok_or_else(|| generic("Parameter 'path' is missing"))?;
            let mode = text(arguments, "mode").unwrap_or("r");
            let failed = |error: FsError| generic(format!("failed to open file '{path}' (mode: '{mode}'): {error}"));
            if is_confined(&host.system()) {
                return Err(failed(FsError::Denied));
            }
            let handle = match mode.chars().next() {
                Some('r') => Handle::Read {
                    bytes: host.system().files.bytes(path).map_err(failed)?,
                    at: 0,
                },
                Some('w') => Handle::Write(FileWriter::open(host, path, false, "root").map_err(failed)?),
                Some('a') => Handle::Write(FileWriter::open(host, path, true, "root").map_err(failed)?),
                _ => return Err(generic(format!("invalid file open mode '{mode}'"))),
            };
            let number = self.next;
            self.next += 1;
            self.files.insert(number, handle);
            return Ok(json!(number));
        }
        let id = number(arguments, "handle").ok_or_else(|| generic("Parameter 'handle' is missing"))?;
        let missing = || generic(format!("handle '{id}' has not been found"));
        if command == "guest-file-close" {
            self.files.remove(&id).ok_or_else(missing)?;
            return Ok(json!({}));
        }
        let handle = self.files.get_mut(&id).ok_or_else(missing)?;
        match (command, handle) {
            ("guest-file-read", Handle::Read { bytes, at }) => {
                let count = number(arguments, "count").unwrap_or(4096).min(MAX_READ);
                let end = bytes
                    .len()
                    .min(at.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)));
                let part = bytes.slice(*at..end);
                *at = end;
                Ok(json!({ "count": part.len(), "buf-b64": STANDARD.encode(&part), "eof": end == bytes.len() }))
            }
            ("guest-file-write", Handle::Write(writer)) => {
                let encoded = text(arguments, "buf-b64").unwrap_or_default();
                let mut bytes = STANDARD.decode(encoded).map_err(|_| generic("Base64 decode failed"))?;
                if let Some(count) = number(arguments, "count") {
                    bytes.truncate(usize::try_from(count).unwrap_or(usize::MAX));
                }
                writer.write(&bytes);
                Ok(json!({ "count": bytes.len(), "eof": false }))
            }
            ("guest-file-flush", Handle::Write(writer)) => {
                writer.flush();
                Ok(json!({}))
            }
            ("guest-file-flush", Handle::Read { .. }) => Ok(json!({})),
            ("guest-file-seek", Handle::Read { bytes, at }) => {
                let offset = number(arguments, "offset").unwrap_or(0);
                *at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(json!({ "position": *at, "eof": *at == bytes.len() }))
            }
            _ => Err(generic("failed: Bad file descriptor")),
        }
    }
}

fn facts(host: &Arc<Host>, nic: &Nic, command: &str, arguments: &Value) -> Result<Value, AgentError> {
    let mut system = host.system();
    Ok(match command {
        "guest-sync" | "guest-sync-delimited" => arguments.get("id").cloned().unwrap_or(Value::Null),
        "guest-info" => json!({
            "version": "8.2.0",
            "supported_commands": COMMANDS
                .iter()
                .map(|name| json!({ "name": name, "enabled": is_allowed(&mut system, name), "success-response": *name != "guest-shutdown" }))
                .collect::<Vec<_>>(),
        }),
        "guest-get-host-name" => json!({ "host-name": system.hostname() }),
        "guest-get-osinfo" => json!({
            "id": "almalinux",
            "name": "AlmaLinux",
            "pretty-name": format!("AlmaLinux {}", system.release),
            "version": system.release,
            "version-id": system.release,
            "kernel-release": if system.major == 9 { "5.14.0-427.el9.x86_64" } else { "unknown" },
            "kernel-version": "#1 SMP PREEMPT_DYNAMIC",
            "machine": "x86_64",
        }),
        "guest-get-timezone" => json!({ "zone": "UTC", "offset": 0 }),
        "guest-get-users" | "guest-get-memory-blocks" => json!([]),
        "guest-get-time" => {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            json!(now * 1_000_000_000)
        }
        "guest-get-vcpus" => json!([{ "logical-id": 0, "online": true, "can-offline": false }]),
        "guest-get-fsinfo" => json!([{
            "name": "sda3", "mountpoint": "/", "type": "xfs", "used-bytes": 1_500_000_000_u64, "total-bytes": 33_000_000_000_u64, "disk": [],
        }]),
        "guest-fsfreeze-status" => json!("thawed"),
        "guest-fsfreeze-freeze" | "guest-fsfreeze-thaw" => json!(1),
        "guest-fstrim" => json!({ "paths": [] }),
        "guest-network-get-interfaces" => interfaces(host, nic),
        "guest-set-user-password" => {
            drop(system);
            set_password(host, arguments)?
        }
        // guest-ping
        _ => json!({}),
    })
}

fn set_password(host: &Arc<Host>, arguments: &Value) -> Result<Value, AgentError> {
    let user = text(arguments, "username").ok_or_else(|| generic("Parameter 'username' is missing"))?;
    let encoded = text(arguments, "password").ok_or_else(|| generic("Parameter 'password' is missing"))?;
    let password = STANDARD
        .decode(encoded)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let password = password.ok_or_else(|| generic("Base64 decode failed"))?;
    let crypted = arguments
        .get("crypted")
        .is_some_and(|value| value.as_bool().unwrap_or(value.as_u64() == Some(1)));
    let hash = if crypted {
        password
    } else {
        super::crypt::hash(&password)
    };
    let mut system = host.system();
    if system.user(user).is_none() {
        return Err(generic(format!(
            "child process has failed to set user password: user '{user}' does not exist"
        )));
    }
    system.set_password_hash(user, &hash);
    Ok(json!({}))
}

fn interfaces(host: &Host, nic: &Nic) -> Value {
    let statistics = json!({
        "rx-bytes": 0, "rx-dropped": 0, "rx-errs": 0, "rx-packets": 0, "tx-bytes": 0, "tx-dropped": 0, "tx-errs": 0, "tx-packets": 0,
    });
    let mut list = vec![json!({
        "name": "lo",
        "hardware-address": "00:00:00:00:00:00",
        "ip-addresses": [
            { "ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8 },
            { "ip-address": "::1", "ip-address-type": "ipv6", "prefix": 128 },
        ],
        "statistics": statistics,
    })];
    if let Some(mac) = &nic.mac {
        let mut eth = json!({ "name": "eth0", "hardware-address": mac.to_lowercase(), "statistics": statistics });
        if let Some(address) = host.address {
            eth["ip-addresses"] = json!([
                { "ip-address": address.to_string(), "ip-address-type": "ipv4", "prefix": nic.prefix },
            ]);
        }
        list.push(eth);
    }
    json!(list)
}
