//! Kills a builder at a chosen moment, as a power cut would, and lets what it had asked for end.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pve_emulator::{Fault, FaultAction, FaultMatch, FaultPlan, Gate};
use serde_json::Value;

use super::{Cluster, Ended, Folder, k3simage, signal, until};

/// More than the lease of a second, whose end is cut to the second.
const LEASE_AND_MORE: Duration = Duration::from_secs(5);
const AT_A_TIME: usize = 4;
/// Far more than anything waited for here takes.
const LIMIT: Duration = Duration::from_secs(120);

/// When a builder is killed. The number is that of the calls of the same path that pass before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kill {
    /// As soon as a step begins. However late the kill comes, it does not get past the call that follows.
    At(&'static str, &'static str, &'static str),
    /// When a call has been carried out, before its answer is told.
    Answered(&'static str, &'static str, u32),
    /// Before a call is carried out. Whether it is, after the kill, is left to the server.
    Asked(&'static str, &'static str, u32),
}

impl Kill {
    /// Runs a build with a lease of a second and kills it, after `last` has been done; answers its id.
    pub(crate) fn build(self, cluster: &Cluster, folder: &Folder, more: &[&str], last: impl FnOnce()) -> String {
        let mut command = k3simage(&["build", folder.path(), "--json", "--lease", "1"]);
        cluster.lead(&mut command);
        command.args(more);
        let gate = Gate::default();
        let build = RefCell::new(String::new());
        let first = |event: &Value| {
            let first = event["event"] == "build_started";
            if first {
                event["build"].as_str().unwrap().clone_into(&mut build.borrow_mut());
            }
            first
        };
        let mut child = match self {
            Self::At(step, method, path) => {
                cluster
                    .emulator
                    .fail_next(method, path, FaultAction::Hold(gate.clone()));
                let fits = |event: &Value| !first(event) && event["event"] == "step_started" && event["step"] == step;
                let (child, lines) = until(&mut command, fits);
                std::thread::spawn(move || std::io::copy(&mut { lines }, &mut std::io::sink()));
                child
            }
            Self::Answered(method, path, skip) | Self::Asked(method, path, skip) => {
                let action = match self {
                    Self::Asked(..) => FaultAction::Hold(gate.clone()),
                    _ => FaultAction::HoldAnswer(gate.clone()),
                };
                let when = FaultMatch::PathAfter {
                    method: method.to_owned(),
                    path: path.to_owned(),
                    skip,
                };
                cluster.emulator.fault(Fault { when, action, times: 1 });
                let (child, lines) = until(&mut command, first);
                // Whoever reads no more would let the build wait.
                std::thread::spawn(move || std::io::copy(&mut { lines }, &mut std::io::sink()));
                cluster.block_on(gate.reached());
                child
            }
        };
        last();
        signal(&child, "KILL");
        child.wait().unwrap();
        gate.open();
        if matches!(self, Self::At(..)) {
            // It may have been killed before that call.
            forget_faults(cluster);
        }
        settle(cluster);
        build.into_inner()
    }
}

/// No fault waits any more.
pub(crate) fn forget_faults(cluster: &Cluster) {
    cluster
        .block_on(cluster.emulator.apply_faults(FaultPlan::default()))
        .unwrap();
}

/// What a killed process had asked for goes on: a VM that PVE is still making shows whose it is only when that has ended.
#[track_caller]
pub(crate) fn settle(cluster: &Cluster) {
    let idle = async { tokio::time::timeout(LIMIT, cluster.emulator.idle()).await };
    cluster.block_on(idle).expect("requests of a dead process end");
    let locked = |vmid: u32| {
        let config = cluster.emulator.vm_config(vmid);
        config.is_some_and(|config| config.contains_key("lock"))
    };
    wait(|| cluster.emulator.running_tasks() == 0 && !cluster.emulator.vmids().into_iter().any(locked));
}

/// Runs something during which a build gets no further than to the last of these calls. Each is looked for once the one before it has
/// come. Only the end of the build ends the last.
pub(crate) fn with_held<T>(cluster: &Cluster, calls: &[(&str, &str)], run: impl FnOnce() -> T) -> T {
    let hold = |(method, path): (&str, &str)| {
        let gate = Gate::default();
        cluster
            .emulator
            .fail_next(method, path, FaultAction::Hold(gate.clone()));
        gate
    };
    let (first, rest) = calls.split_first().unwrap();
    let mut gate = hold(*first);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for call in rest {
                let reached = async { tokio::time::timeout(LIMIT, gate.reached()).await };
                if cluster.block_on(reached).is_err() {
                    return;
                }
                let next = hold(*call);
                gate.open();
                gate = next;
            }
        });
        run()
    })
}

#[track_caller]
pub(crate) fn wait(until: impl Fn() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(
            begun.elapsed() < LIMIT,
            "it did not happen within {} s",
            LIMIT.as_secs()
        );
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Runs it when the lease has ended, which the server's clock says.
pub(crate) fn after_the_lease(cluster: &Cluster, run: impl FnOnce() -> Ended) -> Ended {
    cluster.emulator.advance_clock(LEASE_AND_MORE);
    run()
}

/// Does the same with each case, some at a time: a builder waits more than it works.
pub(crate) fn each<T: Copy + Sync>(cases: &[T], run: impl Fn(T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(*case);
                }
            });
        }
    });
}
