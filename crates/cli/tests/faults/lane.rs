//! One emulated cluster with a bystander on it: a builder runs against it, and something goes wrong. What is left is judged by
//! `judge`.

mod judge;

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use proxmox_client::{Auth, Client, CreateVm, DeleteVm, Drive, Method, NodeName, Qemu, TaskFilter, Tls, Upid, Wait};
use pve_emulator::engine::simulated::{self as guest, FaultKind, SimulatedEngine};
use pve_emulator::{Emulator, FaultPlan, Gate};
use tokio::time::{Instant, sleep, timeout};

use crate::common::{Cluster, Ended, Folder, IMAGE, k3simage};
use crate::kind::Kind;
use crate::trouble::{Case, LONG_LEASE, Point, Stage, Trouble};
use judge::Snapshot;

/// A template of someone else, with a name like ours.
const BYSTANDER: u32 = 500;
pub(crate) const ROOT_PASSWORD: &str = "a-password-of-root";
/// A run that takes longer hangs. The limits of a build and of its undo, one after the other, are half of it.
const RUN_LIMIT: Duration = Duration::from_secs(600);
/// How long a backup holds the VM's lock.
const BACKUP: Duration = Duration::from_millis(1500);
/// How long what a dead builder had asked for may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How much more than a lease passes until it has surely ended: a server's time is cut to the second.
const MARGIN: Duration = Duration::from_secs(5);
/// How much of the machine the runs take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Clusters at a time, and as many again for what only waits.
    pub(crate) lanes: usize,
    /// The limits of a build's steps.
    limits: [&'static str; 4],
}

impl Pace {
    /// For runs that others run beside: no more at a time than there are processors, and no limit that a busy machine reaches.
    pub(crate) fn patient() -> Self {
        Self {
            lanes: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            limits: [
                "task_timeout=60s",
                "install_timeout=120s",
                "ssh_timeout=60s",
                "shutdown_timeout=60s",
            ],
        }
    }

    /// For thousands of runs on a machine of their own, of which many wait until a limit is reached.
    pub(crate) fn quick() -> Self {
        Self {
            lanes: 6,
            limits: [
                "task_timeout=10s",
                "install_timeout=60s",
                "ssh_timeout=15s",
                "shutdown_timeout=10s",
            ],
        }
    }
}

/// Scripts that the folder runs in the guest.
const SCRIPTS: [&str; 3] = ["os-update.sh", "k3s-install.sh", "seal.sh"];

/// A cluster on which one build after the other runs.
pub(crate) struct Lane {
    cluster: Cluster,
    root: Client,
    before: Snapshot,
    pub(crate) kind: Kind,
    pub(crate) pace: Pace,
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
    /// A cluster for builds of one kind.
    pub(crate) fn new(kind: Kind, pace: Pace) -> Self {
        let cluster = Cluster::start(Emulator::builder().user("root@pam", ROOT_PASSWORD));
        let root = cluster.block_on(async {
            let root = Client::builder(cluster.emulator.url())
                .auth(Auth::password("root@pam", ROOT_PASSWORD))
                .tls(Tls::Pinned(cluster.emulator.fingerprint().parse().unwrap()))
                .build()
                .unwrap();
            make_template(&root, BYSTANDER, "alma9-k3-node-amd64-v1.28.0-v1").await;
            if let Some(old) = kind.old() {
                make_template(&root, old, IMAGE).await;
            }
            root
        });
        let mut lane = Self {
            cluster,
            root,
            before: Snapshot::default(),
            kind,
            pace,
            work: tempfile::tempdir().unwrap(),
        };
        lane.before = lane.snapshot();
        lane
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = k3simage(args);
        self.cluster.lead(&mut command);
        self.kind.log_in(&mut command);
        command.args(self.kind.login_options());
        command
    }

    /// A build, or its resumption, with limits that a test can wait for.
    fn builder(&self, args: &[&str], lease: u32) -> Command {
        let mut command = self.command(args);
        command
            .args(self.kind.options())
            .args(["--json", "--lease", &lease.to_string()])
            .arg("--log-file")
            .arg(self.work.path().join("log"));
        for limit in self.pace.limits {
            command.args(["-var", limit]);
        }
        command
    }

    fn build(&self, folder: &Folder, lease: u32) -> Command {
        let mut command = self.builder(&["build", folder.path()], lease);
        command.args(self.kind.build_options());
        command
    }

    /// Where a build in which nothing goes wrong can be hit, and how far it is there: each call that two builds both make, and each
    /// script. Leaves the cluster as it was.
    pub(crate) fn points(&self, folder: &Folder) -> Vec<(Point, Stage)> {
        let (calls, again) = (self.calls(folder), Self::new(self.kind, self.pace).calls(folder));
        let mut stage = Stage::default();
        let mut points = Vec::new();
        let (vmid, old) = (self.kind.vmid(), self.kind.old());
        // How often it is looked whether something has ended differs with the machine's load.
        for call in calls.into_iter().filter(|call| again.contains(call)) {
            let next = Stage {
                vm_is_there: (stage.vm_is_there || call.creates()) && !call.deletes(vmid),
                guest_ran: stage.guest_ran || call.starts(),
                is_template: stage.is_template || call.converts(),
                old_is_renamed: stage.old_is_renamed || old.is_some_and(|old| call.changes(old)),
                old_is_gone: stage.old_is_gone || old.is_some_and(|old| call.deletes(old)),
                is_complete: stage.is_complete || (stage.old_is_renamed && call.changes(vmid)),
            };
            points.push((call, stage));
            stage = next;
        }
        points.extend(SCRIPTS.map(|name| (Point::Script(name.to_owned()), stage)));
        points
    }

    fn calls(&self, folder: &Folder) -> Vec<Point> {
        let from = self.cluster.emulator.requests().len();
        let ended = Ended::of(&self.build(folder, LONG_LEASE).output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.all());
        let calls = Point::calls(&self.cluster.emulator.requests()[from..]);
        let mut violations = Vec::new();
        self.is_good(&ended.all(), None, &mut violations);
        assert_eq!(violations, Vec::<String>::new());
        // Of a cluster that is used up the next build gets one like it.
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
            self.guests().inject(guest::Fault::once(waits).on(self.kind.vmid()));
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
                    self.collect(case, &mut outcome);
                } else {
                    outcome.end = End::Resumed;
                    self.after_a_kill(folder, &ended, case, &mut outcome);
                }
                self.collected_twice(&mut outcome);
            }
            Some(0) => {
                outcome.end = End::Template;
                self.is_good(&ended.all(), Some(case), &mut outcome.violations);
            }
            Some(code) => self.has_failed(code, &ended, case, &mut outcome),
        }
        outcome
    }

    /// The build to its end, and how often something was done at a gate. `None` when it does not end.
    async fn watched(&self, folder: &Folder, lease: u32, gates: &[(Gate, Trouble)]) -> (Option<Ended>, usize) {
        let (out, err) = (self.work.path().join("out"), self.work.path().join("err"));
        let mut child = self
            .build(folder, lease)
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
            Trouble::VmVanishes | Trouble::OldVanishes => {
                let vmid = self.hit_by(trouble);
                self.destroy(vmid).await;
                !self.cluster.emulator.vmids().contains(&vmid)
            }
            Trouble::VmLocked | Trouble::OldLocked => {
                let path = format!("/nodes/pve/qemu/{}/config", self.hit_by(trouble));
                let root = self.root.clone();
                // By itself: the builder's end may come while the lock is being set, and it has to end all the same.
                let lock = tokio::spawn(async move {
                    let lock = [("lock", "backup".to_owned())];
                    let locked = root.request(Method::PUT, &path, &lock).await.is_ok();
                    tokio::spawn(async move {
                        sleep(BACKUP).await;
                        let unlock = [("delete", "lock".to_owned()), ("skiplock", "1".to_owned())];
                        let _ = root.request(Method::PUT, &path, &unlock).await;
                    });
                    locked
                });
                lock.await.unwrap()
            }
            Trouble::GuestResets => {
                let path = format!("/nodes/pve/qemu/{}/status/reset", self.kind.vmid());
                let Ok(upid) = self.root.request(Method::POST, &path, &[]).await else {
                    return false;
                };
                let upid: Upid = serde_json::from_value(upid).unwrap();
                self.root.wait_task(&upid, Wait::at_most(RUN_LIMIT)).await.is_ok()
            }
            Trouble::AgentSilent => {
                self.guests().silence_agent(self.kind.vmid());
                true
            }
            Trouble::SshCut => {
                self.guests().cut_ssh(self.kind.vmid());
                true
            }
            _ => kill(pid),
        }
    }

    /// The old template is the image of its name again, as `gc` advises where what replaced it is gone.
    async fn make_image_again(&self) {
        let path = format!("/nodes/pve/qemu/{}/config", self.kind.old().unwrap());
        let image = [("name", IMAGE.to_owned()), ("tags", "k3simage".to_owned())];
        self.root.request(Method::PUT, &path, &image).await.unwrap();
    }

    fn hit_by(&self, trouble: Trouble) -> u32 {
        let old = self.kind.old().filter(|_| trouble.is_of_old());
        old.unwrap_or(self.kind.vmid())
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

    /// Stops what runs on the cluster.
    async fn stop_tasks(&self) {
        let node = self.root.node(&NodeName::new("pve").unwrap());
        let active = TaskFilter {
            with_active: true,
            ..TaskFilter::default()
        };
        for task in node.tasks(&active).await.unwrap() {
            if task.is_running() {
                node.task(&task.upid).stop().await.unwrap();
                let _ = self.root.wait_task(&task.upid, Wait::at_most(RUN_LIMIT)).await;
            }
        }
    }

    /// Waits until no call is under way and no VM is locked: what a killed builder had asked for goes on, and so does a backup.
    async fn settled(&self) {
        let begun = Instant::now();
        // What still waits after that is judged by what it leaves.
        let _ = timeout(SETTLE_LIMIT, self.cluster.emulator.idle()).await;
        let locked = |vmid: u32| {
            let config = self.cluster.emulator.vm_config(vmid);
            config.is_some_and(|config| config.contains_key("lock"))
        };
        while begun.elapsed() < SETTLE_LIMIT && self.cluster.emulator.vmids().into_iter().any(locked) {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes a template away again; `false` when the cluster is not as it was after that.
    pub(crate) fn tidy(&self) -> bool {
        self.cluster.block_on(async {
            self.settled().await;
            if self.cluster.emulator.vmids().contains(&self.kind.vmid()) {
                self.destroy(self.kind.vmid()).await;
            }
        });
        self.snapshot() == self.before
    }
}

async fn make_template(root: &Client, vmid: u32, name: &str) {
    let template = CreateVm::new()
        .name(name)
        .tags(["k3simage"])
        .disk("scsi0", &Drive::allocate(&"local-lvm".parse().unwrap(), 1));
    let vm = vm(root, vmid);
    let limit = || Wait::at_most(RUN_LIMIT);
    let created = vm.create(&template).await.unwrap();
    let _ = root.wait_task(&created, limit()).await.unwrap();
    let converted = vm.convert_to_template().await.unwrap();
    let _ = root.wait_task(&converted, limit()).await.unwrap();
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
