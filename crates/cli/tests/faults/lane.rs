//! One emulated cluster with a bystander on it: a builder runs against it, something goes wrong, and what is left is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use proxmox_client::{Auth, Client, CreateVm, DeleteVm, Drive, Method, NodeName, Qemu, Tls, Upid, Wait};
use pve_emulator::engine::simulated::{self as guest, FaultKind, SimulatedEngine};
use pve_emulator::{Emulator, FaultPlan, Gate};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::common::{Cluster, Ended, Folder, IMAGE, k3simage};
use crate::trouble::{Case, LONG_LEASE, Point, Stage, Trouble};

/// The build's VM.
const VMID: u32 = 9000;
/// A template of someone else, with a name like ours.
const BYSTANDER: u32 = 500;
const ROOT_PASSWORD: &str = "a-password-of-root";
/// A run that takes longer hangs. The limits of a build and of its undo, one after the other, are half of it.
const RUN_LIMIT: Duration = Duration::from_secs(600);
/// How long a backup holds the VM's lock.
const BACKUP: Duration = Duration::from_millis(1500);
/// How long what a dead builder had asked for may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How much more than a lease passes until it has surely ended: a server's time is cut to the second.
const MARGIN: Duration = Duration::from_secs(5);
/// Scripts that the folder runs in the guest.
const SCRIPTS: [&str; 3] = ["os-update.sh", "k3s-install.sh", "seal.sh"];

/// All that is on a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snapshot {
    vms: BTreeMap<u32, BTreeMap<String, String>>,
    volumes: BTreeSet<String>,
}

/// A cluster on which one build after the other runs.
pub(crate) struct Lane {
    cluster: Cluster,
    root: Client,
    before: Snapshot,
    by_password: bool,
    work: tempfile::TempDir,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// In a template, as if nothing had been.
    Template,
    /// It failed, and all is as before.
    #[default]
    Clean,
    /// It failed and said what is left; gc collected that.
    Left,
    /// It was killed, and gone on with to a template, or died with nothing to go on with.
    Resumed,
    /// It was killed, and gc removed all of it.
    Collected,
}

/// What a run showed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Whether every trouble happened; else this was no run.
    pub(crate) met: bool,
    pub(crate) end: End,
    pub(crate) violations: Vec<String>,
    /// All that was said, for the report.
    pub(crate) said: String,
}

impl Lane {
    /// A cluster where builds log in with a token, or with a password.
    pub(crate) fn new(by_password: bool) -> Self {
        let cluster = Cluster::start(Emulator::builder().user("root@pam", ROOT_PASSWORD));
        let root = cluster.block_on(async {
            let root = Client::builder(cluster.emulator.url())
                .auth(Auth::password("root@pam", ROOT_PASSWORD))
                .tls(Tls::Pinned(cluster.emulator.fingerprint().parse().unwrap()))
                .build()
                .unwrap();
            let bystander = CreateVm::new()
                .name("alma9-k3-node-amd64-v1.28.0-v1")
                .tags(["k3simage"])
                .disk("scsi0", &Drive::allocate(&"local-lvm".parse().unwrap(), 1));
            let vm = vm(&root, BYSTANDER);
            let limit = || Wait::at_most(RUN_LIMIT);
            let _ = root
                .wait_task(&vm.create(&bystander).await.unwrap(), limit())
                .await
                .unwrap();
            let _ = root
                .wait_task(&vm.convert_to_template().await.unwrap(), limit())
                .await
                .unwrap();
            root
        });
        let mut lane = Self {
            cluster,
            root,
            before: Snapshot {
                vms: BTreeMap::new(),
                volumes: BTreeSet::new(),
            },
            by_password,
            work: tempfile::tempdir().unwrap(),
        };
        lane.before = lane.snapshot();
        lane
    }

    fn snapshot(&self) -> Snapshot {
        let emulator = &self.cluster.emulator;
        let vms = emulator
            .vmids()
            .into_iter()
            .filter_map(|vmid| Some((vmid, emulator.vm_config(vmid)?)));
        Snapshot {
            vms: vms.collect(),
            volumes: emulator.volids("pve").into_iter().collect(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = k3simage(args);
        self.cluster.lead(&mut command);
        if self.by_password {
            command
                .env("PKR_VAR_proxmox_password", ROOT_PASSWORD)
                .env_remove("PKR_VAR_proxmox_token")
                .args(["-var", "proxmox_username=root@pam"]);
        }
        command
    }

    /// A build, or its resumption, with limits that a test can wait for.
    fn builder(&self, args: &[&str], lease: u32) -> Command {
        let mut command = self.command(args);
        command
            .args(["--json", "--lease", &lease.to_string()])
            .arg("--log-file")
            .arg(self.work.path().join("log"));
        for limit in [
            "task_timeout=10s",
            "install_timeout=60s",
            "ssh_timeout=15s",
            "shutdown_timeout=10s",
        ] {
            command.args(["-var", limit]);
        }
        command
    }

    /// Where a build in which nothing goes wrong can be hit, and how far it is there: each call that two builds both make, and each
    /// script. Leaves the cluster as it was.
    pub(crate) fn points(&self, folder: &Folder) -> Vec<(Point, Stage)> {
        let (calls, again) = (self.calls(folder), self.calls(folder));
        let mut stage = Stage::default();
        let mut points = Vec::new();
        // How often it is looked whether something has ended differs with the machine's load.
        for call in calls.into_iter().filter(|call| again.contains(call)) {
            let (creates, starts) = (call.creates(), call.starts());
            points.push((call, stage));
            stage.vm_is_there |= creates;
            stage.guest_ran |= starts;
        }
        points.extend(SCRIPTS.map(|name| (Point::Script(name.to_owned()), stage)));
        points
    }

    fn calls(&self, folder: &Folder) -> Vec<Point> {
        let from = self.cluster.emulator.requests().len();
        let ended = Ended::of(&self.builder(&["build", folder.path()], LONG_LEASE).output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        let calls = Point::calls(&self.cluster.emulator.requests()[from..]);
        let mut violations = Vec::new();
        self.is_good(&mut violations);
        assert_eq!(violations, Vec::<String>::new());
        assert!(self.tidy());
        calls
    }

    /// Runs a build in which each trouble happens at its point.
    pub(crate) fn run(&self, folder: &Folder, case: &Case) -> Outcome {
        let mut outcome = Outcome::default();
        let (faults, mut gates) = case.faults();
        let asked = faults.len();
        let plan = FaultPlan {
            faults,
            ..FaultPlan::default()
        };
        for (script, gate, trouble) in case.scripts() {
            let waits = FaultKind::ScriptWaits {
                script,
                gate: gate.clone(),
            };
            self.guests().inject(guest::Fault::once(waits).on(VMID));
            gates.push((gate, trouble));
        }
        let _ = std::fs::remove_file(self.work.path().join("log"));
        self.cluster.block_on(self.cluster.emulator.apply_faults(plan)).unwrap();
        let (ended, acted) = self.cluster.block_on(self.watched(folder, case.lease, &gates));
        let waiting = self.cluster.emulator.waiting_faults();
        self.cluster
            .block_on(self.cluster.emulator.apply_faults(FaultPlan::default()))
            .unwrap();
        let Some(ended) = ended else {
            outcome.met = true;
            outcome
                .violations
                .push(format!("it did not end within {} s", RUN_LIMIT.as_secs()));
            return outcome;
        };
        outcome.met = if case.troubles.len() == 1 {
            waiting == 0 && acted == gates.len()
        } else {
            // The first may have ended the build before the others could happen.
            waiting < asked || acted > 0
        };
        self.cluster.block_on(self.settled());
        outcome.said = ended.all();
        self.keeps_secrets(&ended, &mut outcome);
        match ended.code {
            None if !case.any(Trouble::kills) => outcome.violations.push("it died of a signal".to_owned()),
            None => {
                // Its lease passes.
                self.cluster
                    .emulator
                    .advance_clock(Duration::from_secs(case.lease.into()) + MARGIN);
                if case.any(|trouble| trouble == Trouble::KilledThenCollected) {
                    outcome.end = End::Collected;
                    self.collect(&mut outcome);
                } else {
                    outcome.end = End::Resumed;
                    self.after_a_kill(folder, &ended, &mut outcome);
                }
                self.collected_twice(&mut outcome);
            }
            Some(0) => {
                outcome.end = End::Template;
                self.is_good(&mut outcome.violations);
            }
            Some(code) => self.has_failed(code, &ended, case, &mut outcome),
        }
        outcome
    }

    /// The build to its end, and how often something was done at a gate. `None` when it does not end.
    async fn watched(&self, folder: &Folder, lease: u32, gates: &[(Gate, Trouble)]) -> (Option<Ended>, usize) {
        let (out, err) = (self.work.path().join("out"), self.work.path().join("err"));
        let mut child = self
            .builder(&["build", folder.path()], lease)
            .stdout(Stdio::from(File::create(&out).unwrap()))
            .stderr(Stdio::from(File::create(&err).unwrap()))
            .spawn()
            .unwrap();
        let pid = child.id();
        let ending = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let acted = AtomicUsize::new(0);
        let acting = join_all(gates.iter().map(|(gate, trouble)| async {
            gate.reached().await;
            if self.act(*trouble, pid).await {
                acted.fetch_add(1, Ordering::Relaxed);
            }
            gate.open();
        }));
        let watching = async {
            tokio::select! {
                biased;
                status = ending => status.unwrap(),
                () = async { acting.await; std::future::pending().await } => unreachable!("it is pending for ever"),
            }
        };
        let status = timeout(RUN_LIMIT, watching).await;
        // What waits at a gate that nobody opened any more.
        for (gate, _) in gates {
            gate.open();
        }
        // The builder's end can be seen before the kill's own return.
        let killed = gates.iter().filter(|(_, trouble)| trouble.kills()).count();
        let acted = acted.into_inner().max(match &status {
            Ok(status) if status.code().is_none() => killed,
            _ => 0,
        });
        let Ok(status) = status else {
            kill(pid);
            return (None, acted);
        };
        let ended = Ended {
            code: status.code(),
            out: std::fs::read_to_string(out).unwrap(),
            err: std::fs::read_to_string(err).unwrap(),
        };
        (Some(ended), acted)
    }

    /// Whether it could be done.
    async fn act(&self, trouble: Trouble, pid: u32) -> bool {
        match trouble {
            Trouble::VmVanishes => {
                self.destroy(VMID).await;
                !self.cluster.emulator.vmids().contains(&VMID)
            }
            Trouble::VmLocked => {
                let path = format!("/nodes/pve/qemu/{VMID}/config");
                let lock = [("lock", "backup".to_owned())];
                let locked = self.root.request(Method::PUT, &path, &lock).await.is_ok();
                if locked {
                    let root = self.root.clone();
                    tokio::spawn(async move {
                        sleep(BACKUP).await;
                        let unlock = [("delete", "lock".to_owned()), ("skiplock", "1".to_owned())];
                        let _ = root.request(Method::PUT, &path, &unlock).await;
                    });
                }
                locked
            }
            Trouble::GuestResets => {
                let path = format!("/nodes/pve/qemu/{VMID}/status/reset");
                let Ok(upid) = self.root.request(Method::POST, &path, &[]).await else {
                    return false;
                };
                let upid: Upid = serde_json::from_value(upid).unwrap();
                self.root.wait_task(&upid, Wait::at_most(RUN_LIMIT)).await.is_ok()
            }
            Trouble::AgentSilent => {
                self.guests().silence_agent(VMID);
                true
            }
            Trouble::SshCut => {
                self.guests().cut_ssh(VMID);
                true
            }
            _ => kill(pid),
        }
    }

    fn guests(&self) -> &SimulatedEngine {
        self.cluster.emulator.simulated_guests().expect("simulated guests")
    }

    async fn destroy(&self, vmid: u32) {
        let vm = vm(&self.root, vmid);
        let limit = || Wait::at_most(RUN_LIMIT);
        if let Ok(upid) = vm.stop().await {
            let _ = self.root.wait_task(&upid, limit()).await;
        }
        if let Ok(upid) = vm.delete(&DeleteVm::new().purge(true).unreferenced_disks(true)).await {
            let _ = self.root.wait_task(&upid, limit()).await;
        }
    }

    /// Waits until no VM is locked: what a killed builder had asked for goes on, and so does a backup.
    async fn settled(&self) {
        let begun = Instant::now();
        let locked = |vmid: u32| {
            let config = self.cluster.emulator.vm_config(vmid);
            config.is_some_and(|config| config.contains_key("lock"))
        };
        while begun.elapsed() < SETTLE_LIMIT && self.cluster.emulator.vmids().into_iter().any(locked) {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A template that is all that it is to be, and nothing else beside what was there.
    fn is_good(&self, violations: &mut Vec<String>) {
        let mut after = self.snapshot();
        let Some(config) = after.vms.remove(&VMID) else {
            violations.push("there is no template".to_owned());
            return;
        };
        let get = |key: &str| config.get(key).map(String::as_str).unwrap_or_default();
        let mut wants = |what: &str, holds: bool| {
            if !holds {
                violations.push(format!("{what}: {config:?}"));
            }
        };
        wants("it is no template", get("template") == "1");
        wants("its name is wrong", get("name") == IMAGE);
        wants(
            "its tags are wrong",
            get("tags").contains("k3simage") && !get("tags").contains("k3simage-build"),
        );
        wants("its journal is left", !get("description").contains("k3simage-journal"));
        wants("it does not boot from its disk alone", get("boot") == "order=scsi0");
        wants("it has no cloud-init drive", get("scsi1").contains("cloudinit"));
        wants(
            "it has another drive",
            ["ide2", "ide3", "unused0"]
                .iter()
                .all(|slot| !config.contains_key(*slot)),
        );
        wants("`reboot` is left", !config.contains_key("reboot"));
        wants("a lock is left", !config.contains_key("lock"));
        let sealed = self.guests().guest(VMID).and_then(|guest| guest.installed);
        let machine_id = sealed.map(|system| system.machine_id);
        wants(
            "it is not sealed",
            machine_id.as_deref().is_some_and(|id| id.trim().is_empty()),
        );
        let ours = |volume: &String| volume.contains(&format!("-{VMID}-")) || volume.contains(&format!("/{VMID}/"));
        after.volumes.retain(|volume| !ours(volume));
        if after != self.before {
            violations.push(format!(
                "something else is left or changed: {}",
                self.difference(&after)
            ));
        }
    }

    fn difference(&self, after: &Snapshot) -> String {
        let volumes: Vec<_> = after.volumes.symmetric_difference(&self.before.volumes).collect();
        let vms: Vec<_> = after
            .vms
            .iter()
            .filter(|(vmid, config)| self.before.vms.get(vmid) != Some(config))
            .collect();
        let gone: Vec<_> = self
            .before
            .vms
            .keys()
            .filter(|vmid| !after.vms.contains_key(vmid))
            .collect();
        format!("vms {vms:?}, gone {gone:?}, volumes {volumes:?}")
    }

    fn is_as_before(&self, violations: &mut Vec<String>) {
        let after = self.snapshot();
        if after != self.before {
            violations.push(format!("it is not as before: {}", self.difference(&after)));
        }
    }

    /// A build that failed: nothing is left, or it says what, and gc collects that; the message names what went wrong.
    fn has_failed(&self, code: i32, ended: &Ended, case: &Case, outcome: &mut Outcome) {
        if !(1..=3).contains(&code) {
            outcome.violations.push(format!("exit code {code}"));
        }
        let events: Vec<Value> = ended
            .out
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let Some(error) = events.iter().rfind(|event| event["event"] == "error") else {
            outcome.violations.push("no error is told".to_owned());
            return;
        };
        let message = error["message"].as_str().unwrap_or_default();
        if !case.any(|trouble| trouble.words().iter().any(|word| message.contains(word))) {
            outcome
                .violations
                .push(format!("the message does not name the cause: {message}"));
        }
        let mut left = Vec::new();
        self.is_as_before(&mut left);
        outcome.end = End::Clean;
        if left.is_empty() {
            return;
        }
        // One fault leaves room for the undo; of several, another may hit it too, and then it says so and its lease ends at once.
        let told = events
            .iter()
            .any(|event| event["event"] == "cleanup" && event["ok"] == false);
        if !told || code != 1 || case.troubles.len() == 1 {
            outcome.violations.append(&mut left);
            return;
        }
        outcome.end = End::Left;
        if ended.all().contains("lease could not be ended") {
            self.cluster
                .emulator
                .advance_clock(Duration::from_secs(case.lease.into()) + MARGIN);
        }
        self.collect(outcome);
    }

    /// After a kill the build is gone on with, or it is said why not and there is nothing to go on with.
    fn after_a_kill(&self, folder: &Folder, killed: &Ended, outcome: &mut Outcome) {
        let first = killed
            .out
            .lines()
            .next()
            .and_then(|line| serde_json::from_str::<Value>(line).ok());
        let Some(build) = first.and_then(|event| event["build"].as_str().map(str::to_owned)) else {
            // It had not told anything yet.
            return self.collect(outcome);
        };
        let ended = Ended::of(
            &self
                .builder(&["resume", &build, folder.path()], LONG_LEASE)
                .output()
                .unwrap(),
        );
        outcome.said.push_str(&ended.all());
        self.keeps_secrets(&ended, outcome);
        match ended.code {
            Some(0) => self.is_good(&mut outcome.violations),
            Some(2) if ended.out.contains("bears its tag") => {
                if self.tags().contains(&build) {
                    outcome.violations.push("resume does not see the VM".to_owned());
                }
                self.collect(outcome);
            }
            code => outcome
                .violations
                .push(format!("resume ends with {code:?}: {}", ended.all())),
        }
    }

    fn tags(&self) -> String {
        let config = self.cluster.emulator.vm_config(VMID);
        config
            .and_then(|config| config.get("tags").cloned())
            .unwrap_or_default()
    }

    /// Collects what is dead: then all is as before, unless the build had been through.
    fn collect(&self, outcome: &mut Outcome) {
        let ended = Ended::of(&self.command(&["gc", "--yes", "--volume-age", "0"]).output().unwrap());
        outcome.said.push_str(&ended.all());
        self.keeps_secrets(&ended, outcome);
        if ended.code != Some(0) {
            outcome
                .violations
                .push(format!("gc ends with {:?}: {}", ended.code, ended.all()));
        }
        let tags = self.tags();
        if !tags.is_empty() && !tags.contains("k3simage-build") {
            self.is_good(&mut outcome.violations);
        } else {
            self.is_as_before(&mut outcome.violations);
        }
    }

    /// Whatever happened: gc then finds nothing.
    fn collected_twice(&self, outcome: &mut Outcome) {
        let ended = Ended::of(&self.command(&["gc", "--volume-age", "0"]).output().unwrap());
        if ended.code != Some(0) || !ended.all().contains("nothing is left") {
            outcome
                .violations
                .push(format!("gc still finds something: {}", ended.all()));
        }
    }

    /// No secret is in what was printed, in the log with the API requests, or on the cluster where people look.
    fn keeps_secrets(&self, ended: &Ended, outcome: &mut Outcome) {
        let log = std::fs::read_to_string(self.work.path().join("log")).unwrap_or_default();
        let secrets = [self.cluster.emulator.token_secret(), ROOT_PASSWORD, "PRIVATE KEY"];
        for (place, text) in [("output", &ended.all()), ("log", &log)] {
            for secret in secrets {
                if text.contains(secret) {
                    outcome.violations.push(format!("a secret is in the {place}"));
                }
            }
        }
    }

    /// Takes a template away again; `false` when the cluster is not as it was after that.
    pub(crate) fn tidy(&self) -> bool {
        self.cluster.block_on(async {
            self.settled().await;
            if self.cluster.emulator.vmids().contains(&VMID) {
                self.destroy(VMID).await;
            }
        });
        self.snapshot() == self.before
    }
}

fn vm(root: &Client, vmid: u32) -> Qemu {
    root.node(&NodeName::new("pve").unwrap())
        .qemu(vmid.to_string().parse().unwrap())
}

/// Whether there was still a builder to kill: of two kills one finds none.
fn kill(pid: u32) -> bool {
    let sent = Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).output();
    sent.unwrap().status.success()
}
