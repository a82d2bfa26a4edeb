//! Kills a builder at a chosen moment, as a power cut would, and lets what it had asked for end.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pve_emulator::{Fault, FaultAction, FaultMatch, Gate};
use serde_json::Value;

use super::{Cluster, Ended, Folder, k3simage, signal, until};

/// More than the lease of a second, whose end is cut to the second.
const LEASE_AND_MORE: Duration = Duration::from_secs(5);
const AT_A_TIME: usize = 4;

/// When a builder is killed. The number is that of the calls of the same path that pass before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kill {
    /// As soon as a step begins.
    At(&'static str),
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
            Self::At(step) => {
                let fits = |event: &Value| !first(event) && event["event"] == "step_started" && event["step"] == step;
                until(&mut command, fits).0
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
        // What it had asked for goes on.
        if let Self::Asked(method, path, skip) | Self::Answered(method, path, skip) = self {
            let told = || {
                let requests = cluster.emulator.requests();
                let same = requests
                    .iter()
                    .filter(|request| request.method == method && request.path == path);
                same.count() > skip as usize
            };
            wait_at_most(Duration::from_secs(1), told);
        }
        wait(|| {
            let vms = cluster
                .emulator
                .vmids()
                .into_iter()
                .filter_map(|vmid| cluster.emulator.vm_config(vmid));
            vms.into_iter().all(|vm| !vm.contains_key("lock"))
        });
        build.into_inner()
    }
}

pub(crate) fn wait(until: impl Fn() -> bool) {
    wait_at_most(Duration::from_secs(60), until);
}

fn wait_at_most(limit: Duration, until: impl Fn() -> bool) {
    let begun = Instant::now();
    while !until() && begun.elapsed() < limit {
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
