//! What the tests with real QEMU share: an emulator on a folder, calls, and waiting with patience.

#[path = "../support/client.rs"]
#[expect(dead_code, reason = "headers are looked at by other tests")]
mod client;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Reply};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pve_emulator::engine::Engine;
use pve_emulator::engine::qemu::{Accel, QemuEngine, QemuOptions};
use pve_emulator::{Emulator, Timing};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::Instant;

/// How long anything may take. Boots take seconds here; a machine with ten jobs at once makes minutes of them.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// The boot sector, made by `boot.gen.sh`.
const BOOT: &[u8; 512] = include_bytes!("boot.bin");

/// Whether QEMU is missing; says so. In CI that is an error.
#[expect(clippy::print_stdout, reason = "a test that does nothing must say so")]
pub(crate) fn skipped(what: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let firmware = Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").is_file();
    if there("qemu-system-x86_64") && there("qemu-img") && firmware {
        return false;
    }
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "QEMU is missing: apt-get install qemu-system-x86 qemu-utils ovmf");
    println!("SKIPPED  {what}: no QEMU here. To get it: apt-get install qemu-system-x86 qemu-utils ovmf");
    true
}

/// TCG on every machine, so that the tests are the same everywhere.
fn options() -> QemuOptions {
    QemuOptions {
        accel: Some(Accel::Tcg),
        ..QemuOptions::default()
    }
}

/// An emulator with real guests.
pub(crate) struct Cluster {
    pub(crate) pve: Emulator,
    client: Client,
    headers: Vec<(String, String)>,
    /// Removed with the cluster.
    dir: Option<tempfile::TempDir>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::of(Emulator::builder()).await
    }

    pub(crate) async fn at(data: &Path) -> Self {
        Self::of(Emulator::builder().data_dir(data)).await
    }

    /// The error of an emulator that cannot start.
    pub(crate) async fn refused_at(data: &Path) -> String {
        let options = QemuOptions::default();
        let started = Emulator::builder().data_dir(data).qemu(options).start().await;
        started.unwrap_err().to_string()
    }

    /// One whose engine is at hand.
    pub(crate) async fn with_engine() -> (Self, Arc<dyn Engine>) {
        let dir = tempfile::tempdir().unwrap();
        let engine: Arc<dyn Engine> = Arc::new(QemuEngine::open(options(), &dir.path().join("run")).unwrap());
        let builder = Emulator::builder().data_dir(dir.path()).engine(Arc::clone(&engine));
        let mut cluster = Self::over(builder).await;
        cluster.dir = Some(dir);
        (cluster, engine)
    }

    async fn of(builder: pve_emulator::EmulatorBuilder) -> Self {
        Self::over(builder.qemu(options())).await
    }

    async fn over(builder: pve_emulator::EmulatorBuilder) -> Self {
        let pve = builder.timing(Timing::Real).start().await.unwrap();
        let token = format!("PVEAPIToken={}={}", pve.token_id(), pve.token_secret());
        let client = Client::new(pve.address(), pve.ca_pem()).unwrap();
        Self {
            pve,
            client,
            headers: vec![("Authorization".into(), token)],
            dir: None,
        }
    }

    pub(crate) async fn end(self) {
        self.pve.shutdown().await;
    }

    pub(crate) async fn call(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Reply {
        let encode = |t: &str| utf8_percent_encode(t, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> = form
            .iter()
            .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
            .collect();
        let target = format!("/api2/json/nodes/pve{path}");
        if matches!(method, "POST" | "PUT") {
            let mut headers = self.headers.clone();
            headers.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
            let body = pairs.join("&");
            return self
                .client
                .send(method, &target, &headers, Some(body.as_bytes()))
                .await
                .unwrap();
        }
        self.client.send(method, &target, &self.headers, None).await.unwrap()
    }

    pub(crate) async fn data(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Value {
        let reply = self.call(method, path, form).await;
        let body = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, 200, "{method} {path}: {} {body}", reply.reason);
        serde_json::from_str::<Value>(&body).unwrap()["data"].clone()
    }

    /// Runs a call's task to its end.
    pub(crate) async fn task(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Result<(), String> {
        let upid = self.data(method, path, form).await;
        let upid = utf8_percent_encode(upid.as_str().unwrap(), NON_ALPHANUMERIC).to_string();
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.data("GET", &format!("/tasks/{upid}/status"), &[]).await;
            match status["exitstatus"].as_str() {
                Some("OK") => return Ok(()),
                Some(exit) => {
                    let log = self.data("GET", &format!("/tasks/{upid}/log"), &[]).await;
                    let lines: Vec<&str> = log.as_array().unwrap().iter().filter_map(|l| l["t"].as_str()).collect();
                    return Err(format!("{exit}\n{}", lines.join("\n")));
                }
                None => assert!(Instant::now() < end, "{method} {path} does not end"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Exit status and log of a task that fails.
    pub(crate) async fn failing_task(&self, method: &str, path: &str) -> (String, String) {
        let text = self.task(method, path, &[]).await.unwrap_err();
        let (exit, log) = text.split_once('\n').unwrap();
        (exit.to_owned(), log.to_owned())
    }

    /// A small VM with a disk of 2 MiB on `local`, and a serial console.
    pub(crate) async fn create(&self, vmid: u32, options: &[(&str, &str)]) {
        self.create_on("local:0.001953125", vmid, options).await;
    }

    pub(crate) async fn create_on(&self, disk: &str, vmid: u32, options: &[(&str, &str)]) {
        self.try_create_on(disk, vmid, options).await.unwrap();
    }

    pub(crate) async fn try_create(&self, vmid: u32, options: &[(&str, &str)]) -> Result<(), String> {
        self.try_create_on("local:0.001953125", vmid, options).await
    }

    async fn try_create_on(&self, disk: &str, vmid: u32, options: &[(&str, &str)]) -> Result<(), String> {
        let id = vmid.to_string();
        let mut form = vec![
            ("vmid", id.as_str()),
            ("memory", "128"),
            ("scsi0", disk),
            ("serial0", "socket"),
            ("net0", "virtio,bridge=vmbr0"),
        ];
        form.retain(|(key, _)| !options.iter().any(|(given, _)| given == key));
        form.extend_from_slice(options);
        if !options.iter().any(|(key, _)| *key == "boot") {
            form.push(("boot", "order=scsi0"));
        }
        let reply = self.call("POST", "/qemu", &form).await;
        if reply.status != 200 {
            return Err(reply.reason);
        }
        let end = Instant::now() + PATIENCE;
        while self.pve.vm_config(vmid).is_none_or(|c| c.contains_key("lock")) {
            assert!(Instant::now() < end, "VM {vmid} is not made");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Puts the boot sector and a word behind it on a VM's disk.
    pub(crate) fn write_disk(&self, vmid: u32, volid: &str, word: &str) {
        let config = self.pve.vm_config(vmid).unwrap();
        assert!(config["scsi0"].starts_with(volid), "{config:?}");
        let (storage, name) = volid.split_once(':').unwrap();
        let file = self.image(storage, &format!("images/{name}"));
        let mut bytes = vec![0; 1024];
        bytes[..512].copy_from_slice(BOOT);
        bytes[512..512 + word.len()].copy_from_slice(word.as_bytes());
        let raw = tempfile::NamedTempFile::new().unwrap();
        let format = Self::info(&file)["format"].as_str().unwrap().to_owned();
        let size = Self::info(&file)["virtual-size"].as_u64().unwrap();
        bytes.resize(usize::try_from(size).unwrap(), 0);
        std::fs::write(raw.path(), bytes).unwrap();
        let done = std::process::Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", &format])
            .arg(raw.path())
            .arg(&file)
            .status()
            .unwrap();
        assert!(done.success());
    }

    pub(crate) async fn start_vm(&self, vmid: u32) {
        self.task("POST", &format!("/qemu/{vmid}/status/start"), &[])
            .await
            .unwrap();
    }

    pub(crate) async fn status(&self, vmid: u32) -> Value {
        self.data("GET", &format!("/qemu/{vmid}/status/current"), &[]).await
    }

    /// Waits for a state that `status/current` shows.
    pub(crate) async fn until(&self, vmid: u32, what: &str, reached: impl Fn(&Value) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status(vmid).await;
            if reached(&status) {
                return;
            }
            assert!(Instant::now() < end, "VM {vmid}: waiting for {what}: {status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the console shows a text so many times.
    pub(crate) async fn console(&self, vmid: u32, text: &str, times: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            let console = self.pve.console(vmid).unwrap_or_default();
            if console.matches(text).count() >= times {
                return;
            }
            assert!(
                Instant::now() < end,
                "VM {vmid}: waiting for {times} times '{text}' on the console:\n{console}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) fn image(&self, storage: &str, file: &str) -> PathBuf {
        self.pve.data_dir().join("storage/pve").join(storage).join(file)
    }

    /// What `qemu-img` says of an image.
    pub(crate) fn info(file: &Path) -> Value {
        let mut command = std::process::Command::new("qemu-img");
        let output = command.args(["info", "--output=json"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Files of a guest that are still in the run folder.
    pub(crate) fn left_in_run_dir(&self, vmid: u32) -> Vec<String> {
        let names = std::fs::read_dir(self.pve.data_dir().join("run")).unwrap();
        names
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.starts_with(&format!("{vmid}.")))
            .collect()
    }
}

/// An emulator in a process of its own, which this one can kill.
pub(crate) fn other_emulator(data: &Path) -> tokio::process::Child {
    tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "emulator_in_another_process", "--nocapture"])
        .env("PVE_EMULATOR_TEST_DATA", data)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The pids of the guests that it has started.
pub(crate) async fn started_by(child: &mut tokio::process::Child, vmids: &[u32]) -> Vec<u64> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut pids = Vec::new();
    while pids.len() < vmids.len() {
        let line = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap();
        let line = line.expect("the other emulator goes on");
        if let Ok(value) = serde_json::from_str::<Value>(&line) {
            pids.push(value["pid"].as_u64().unwrap());
        }
    }
    pids
}

/// Whether a process of this number runs.
pub(crate) fn alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
    state.is_some_and(|s| s != 'Z' && s != 'X')
}
