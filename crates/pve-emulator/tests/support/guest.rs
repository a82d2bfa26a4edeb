//! The guest of the recordings: a small Linux on `guest.iso` whose agent answers as `base.json` says. It stands in for
//! the machine that ran then, so that the API in front of it can be compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pve_emulator::engine::{
    AgentError, ByteStream, DriveCounters, Engine, Exit, Launch, Powerdown, RunState, Running, StartError, StreamError,
};
use serde_json::{Value, json};

#[derive(Debug, Default)]
pub(crate) struct RecordedGuests {
    guests: Mutex<HashMap<u32, Guest>>,
    /// What `guest-info` answered in the recording that is replayed.
    info: Value,
    /// What it said of its network interfaces.
    interfaces: Value,
}

#[derive(Debug)]
struct Guest {
    launch: Launch,
    pid: u32,
    began: Instant,
    paused: bool,
    /// Whether the medium of `guest.iso` booted.
    system: bool,
    files: BTreeMap<String, Vec<u8>>,
    handles: BTreeMap<i64, (String, usize)>,
    processes: BTreeMap<i64, Value>,
    next: i64,
}

impl RecordedGuests {
    pub(crate) fn new(info: Value, interfaces: Value) -> Self {
        Self {
            guests: Mutex::default(),
            info,
            interfaces,
        }
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<u32, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The recordings of `scenarios/` connect to no device.
    fn no_device(&self, vmid: u32) -> Result<Box<dyn ByteStream>, StreamError> {
        Err(if self.guests().contains_key(&vmid) {
            StreamError::NoDevice
        } else {
            StreamError::NotRunning
        })
    }

    fn end(&self, vmid: u32, exit: Exit) {
        let on_exit = self.guests().get(&vmid).map(|g| Arc::clone(&g.launch.on_exit));
        if let Some(on_exit) = on_exit {
            on_exit(vmid, exit);
            self.guests().remove(&vmid);
        }
    }
}

fn failed(desc: impl Into<String>) -> AgentError {
    AgentError::Failed {
        class: "GenericError".into(),
        desc: desc.into(),
    }
}

/// What a command did in the recording: standard output, standard error, exit code.
fn run(guest: &Guest, argv: &[String], input: &[u8]) -> Option<Value> {
    let texts: Vec<&str> = argv.iter().map(String::as_str).collect();
    let done = |out: &[u8], err: &[u8], code: i32| {
        let mut status = json!({ "exited": true, "exitcode": code });
        for (key, data) in [("out", out), ("err", err)] {
            if !data.is_empty() {
                status[format!("{key}-data")] = STANDARD.encode(data).into();
                status[format!("{key}-truncated")] = false.into();
            }
        }
        Some(status)
    };
    match texts.as_slice() {
        ["/bin/echo", words @ ..] => done(format!("{}\n", words.join(" ")).as_bytes(), b"", 0),
        ["/bin/cat"] => done(input, b"", 0),
        ["/bin/false"] => done(b"", b"", 1),
        ["/bin/sleep", _] => Some(json!({ "exited": false })),
        ["/bin/sh", "-c", script] if script.contains("kill -9 $$") => Some(json!({ "exited": true, "signal": 9 })),
        ["/bin/sh", "-c", script] if script.starts_with("i=0;") => {
            let lines = (0..2000).fold(String::new(), |lines, i| lines + &format!("line {i}\n"));
            done(lines.as_bytes(), b"", 0)
        }
        ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"] => done(b"out\n", b"err\n", 3),
        ["/bin/sh", "-c", script] if script.starts_with("wc -c < /tmp/x") => {
            let mut out = format!("{}\n", guest.files.get("/tmp/x")?.len()).into_bytes();
            out.extend(guest.files.get("/tmp/hello.txt")?);
            done(&out, b"", 0)
        }
        ["/bin/true"] | ["/bin/sh", "-c", _] => done(b"", b"", 0),
        _ => None,
    }
}

const OS_RELEASE: &str = "ID=fedora\nNAME=\"Fedora Linux\"\nVERSION=\"42 (Test)\"\nVERSION_ID=42\nPRETTY_NAME=\"Fedora Linux 42 (Test)\"\nVARIANT=\"Test\"\nVARIANT_ID=test\n";

#[async_trait]
impl Engine for RecordedGuests {
    fn name(&self) -> &'static str {
        "recorded"
    }

    async fn start(&self, launch: Launch) -> Result<(), StartError> {
        let boot = launch.config.get("boot").cloned().unwrap_or_default();
        let first = boot
            .strip_prefix("order=")
            .and_then(|o| o.split(';').next())
            .unwrap_or_default()
            .to_owned();
        let system = launch.drives.iter().any(|d| d.slot == first && d.cdrom);
        let guest = Guest {
            pid: 22_702,
            began: Instant::now(),
            paused: false,
            system,
            files: BTreeMap::from([("/etc/os-release".to_owned(), OS_RELEASE.as_bytes().to_vec())]),
            handles: BTreeMap::new(),
            processes: BTreeMap::new(),
            next: 118,
            launch,
        };
        self.guests().insert(guest.launch.vmid, guest);
        Ok(())
    }

    async fn stop(&self, vmid: u32) {
        self.end(vmid, Exit::Stopped);
    }

    async fn powerdown(&self, vmid: u32, _how: Powerdown) {
        if self.guests().get(&vmid).is_some_and(|g| g.system) {
            self.end(vmid, Exit::PowerOff);
        }
    }

    async fn reset(&self, _vmid: u32) {}

    async fn pause(&self, vmid: u32, paused: bool) {
        if let Some(guest) = self.guests().get_mut(&vmid) {
            guest.paused = paused;
        }
    }

    fn status(&self, vmid: u32) -> Option<Running> {
        let guests = self.guests();
        let guest = guests.get(&vmid)?;
        Some(Running {
            pid: guest.pid,
            uptime_s: guest.began.elapsed().as_secs(),
            state: if guest.paused {
                RunState::Paused
            } else {
                RunState::Running
            },
            drive_bytes: guest
                .launch
                .drives
                .iter()
                .map(|d| (d.slot.clone(), DriveCounters::default()))
                .collect(),
            ..Running::default()
        })
    }

    async fn send_key(&self, _vmid: u32, key: &str) -> Result<(), String> {
        let known = |part: &str| {
            !part.is_empty()
                && part != "nosuchkey"
                && part != "enter"
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if key.split('-').all(known) {
            Ok(())
        } else {
            Err(format!("invalid parameter: {key}"))
        }
    }

    async fn agent(&self, vmid: u32, command: &str, arguments: Value) -> Result<Value, AgentError> {
        let mut gone = None;
        let result = {
            let mut guests = self.guests();
            let guest = guests
                .get_mut(&vmid)
                .filter(|g| g.system)
                .ok_or(AgentError::NotRunning)?;
            let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
            match command {
                "guest-network-get-interfaces" => Ok(self.interfaces.clone()),
                "guest-get-host-name" => Ok(json!({ "host-name": "guest1" })),
                "guest-get-timezone" => Ok(json!({ "zone": "UTC", "offset": 0 })),
                "guest-get-vcpus" => Ok(json!([{ "online": true, "can-offline": false, "logical-id": 0 }])),
                "guest-get-users" => Ok(json!([])),
                "guest-info" => Ok(self.info.clone()),
                "guest-get-osinfo" => Ok(json!({
                    "name": "Fedora Linux", "kernel-release": "6.1.0-56-cloud-amd64", "version": "42 (Test)",
                    "pretty-name": "Fedora Linux 42 (Test)", "version-id": "42", "variant": "Test",
                    "variant-id": "test", "machine": "x86_64", "id": "fedora",
                    "kernel-version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)",
                })),
                "guest-exec" => {
                    let mut argv = vec![text("path")];
                    let rest = arguments["arg"].as_array().into_iter().flatten();
                    argv.extend(rest.filter_map(|a| a.as_str().map(str::to_owned)));
                    let input = STANDARD.decode(text("input-data")).unwrap_or_default();
                    match run(guest, &argv, &input) {
                        Some(status) => {
                            let pid = guest.next;
                            guest.next += 2;
                            guest.processes.insert(pid, status);
                            if argv
                                .iter()
                                .any(|a| a.contains("reboot -f") || a.contains("poweroff -f"))
                            {
                                let refused = guest.launch.config.get("reboot").is_some_and(|r| r == "0");
                                let reboots = argv.iter().any(|a| a.contains("reboot -f"));
                                gone = (refused || !reboots).then_some(Exit::PowerOff);
                            }
                            Ok(json!({ "pid": pid }))
                        }
                        None => Err(failed(format!(
                            "Failed to execute child process “{}” (No such file or directory)",
                            argv[0]
                        ))),
                    }
                }
                "guest-exec-status" => {
                    let pid = arguments["pid"].as_i64().unwrap_or_default();
                    let status = guest.processes.get(&pid).cloned();
                    let status = status.ok_or_else(|| failed("Invalid parameter 'pid'"))?;
                    if status["exited"] == true {
                        guest.processes.remove(&pid);
                    }
                    Ok(status)
                }
                "guest-file-open" => {
                    let (path, mode) = (text("path"), text("mode"));
                    let known = guest.files.contains_key(&path);
                    if mode == "r" && !known || mode != "r" && !path.starts_with("/tmp/") {
                        return Err(failed(format!(
                            "failed to open file '{path}' (mode: '{mode}'): No such file or directory"
                        )));
                    }
                    if mode != "r" {
                        guest.files.insert(path.clone(), Vec::new());
                    }
                    guest.next += 1;
                    guest.handles.insert(guest.next, (path, 0));
                    Ok(guest.next.into())
                }
                "guest-file-write" => {
                    let (path, _) = guest.handles[&arguments["handle"].as_i64().unwrap_or_default()].clone();
                    let data = STANDARD.decode(text("buf-b64")).unwrap_or_default();
                    let count = data.len();
                    guest.files.entry(path).or_default().extend(data);
                    Ok(json!({ "count": count, "eof": false }))
                }
                "guest-file-read" => {
                    let handle = arguments["handle"].as_i64().unwrap_or_default();
                    let (path, at) = guest.handles[&handle].clone();
                    let data = guest.files[&path][at..].to_vec();
                    guest.handles.insert(handle, (path, at + data.len()));
                    Ok(json!({ "count": data.len(), "eof": true, "buf-b64": STANDARD.encode(data) }))
                }
                "guest-ping" | "guest-file-close" => Ok(json!({})),
                other => Err(failed(format!("The command {other} has not been found"))),
            }
        };
        if let Some(exit) = gone {
            self.end(vmid, exit);
        }
        result
    }

    async fn serial(&self, vmid: u32, _port: u8) -> Result<Box<dyn ByteStream>, StreamError> {
        self.no_device(vmid)
    }

    async fn vnc(&self, vmid: u32, _password: &str) -> Result<Box<dyn ByteStream>, StreamError> {
        self.no_device(vmid)
    }

    fn console(&self, vmid: u32) -> Option<String> {
        self.guests().contains_key(&vmid).then(String::new)
    }
}
