//! Guests that outlived the emulator: a killed emulator leaves QEMU running, and the next one with the same data directory takes
//! the guest over, or ends it when its VM is not configured any more.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::engine::Shared;
use super::guest::{Guest, MONITOR};
use super::network::Addresses;
use super::process::Process;
use super::qmp::Qmp;
use super::run_dir::{Names, RunDir};
use crate::engine::{OnExit, RunState};
use crate::state::write_whole;

/// Holds the port of the guests' SSH, so that guests taken over are reached as before.
const PORT_FILE: &str = "ssh-port";

/// What the next emulator must know of a guest and cannot ask QEMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Start of the process in clock ticks; `None` while it is being started.
    pub(super) began: Option<u64>,
    pub(super) address: Ipv4Addr,
    pub(super) ssh_port: u16,
    pub(super) mac: Option<String>,
    pub(super) has_agent: bool,
    pub(super) has_screen: bool,
    pub(super) cpus: u64,
}

impl Record {
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn write(&self, run: &RunDir, vmid: u32) -> std::io::Result<()> {
        write_whole(&run.file(&Names(vmid).record()), &serde_json::to_vec(self)?)
    }

    fn read(run: &RunDir, vmid: u32) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(run.file(&Names(vmid).record())).ok()?).ok()
    }
}

/// The addresses of the guests, with the port asked for, the port of last time, or a free one.
///
/// # Errors
/// The port is taken and was asked for.
pub(super) fn addresses(run: &RunDir, asked: u16) -> std::io::Result<Addresses> {
    let file = run.file(PORT_FILE);
    let before = std::fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let addresses = match before.filter(|_| asked == 0).map(Addresses::new) {
        Some(Ok(addresses)) => addresses,
        _ => Addresses::new(asked)?,
    };
    write_whole(&file, addresses.ssh_port.to_string().as_bytes())?;
    Ok(addresses)
}

/// The QEMU process of a vmid that runs in the folder, if there is one: the number in its pid file, or in no file at all when
/// QEMU had not come so far, and its place, command line and start fit.
fn find(run: &RunDir, vmid: u32, record: Option<&Record>) -> Option<Process> {
    let text = std::fs::read_to_string(run.file(&Names(vmid).pid())).ok()?;
    let process = Process::of(text.trim().parse().ok()?)?;
    let began = record.and_then(|r| r.began);
    let ours = process.is_guest(run, vmid) && began.is_none_or(|b| b == process.began);
    ours.then_some(process)
}

/// Takes over or ends what an earlier emulator left. Returns the vmids that run.
pub(super) async fn adopt(shared: &Arc<Shared>, configured: &BTreeSet<u32>, on_exit: OnExit) -> BTreeSet<u32> {
    let mut running = BTreeSet::new();
    for vmid in shared.run.vmids() {
        let record = Record::read(&shared.run, vmid);
        let Some(process) = find(&shared.run, vmid, record.as_ref()) else {
            shared.run.clear(vmid);
            continue;
        };
        let taken = match record.filter(|_| configured.contains(&vmid)) {
            Some(record) => take_over(shared, vmid, process, &record, &on_exit).await,
            None => Err("no such VM is configured".to_owned()),
        };
        match taken {
            Ok(()) => {
                tracing::info!(vmid, pid = process.pid, "a running guest is taken over");
                running.insert(vmid);
            }
            Err(reason) => {
                tracing::warn!(vmid, pid = process.pid, reason, "a guest left behind is ended");
                process.kill();
                process.ended(MONITOR).await;
                shared.run.clear(vmid);
            }
        }
    }
    running
}

async fn take_over(
    shared: &Arc<Shared>,
    vmid: u32,
    process: Process,
    record: &Record,
    on_exit: &OnExit,
) -> Result<(), String> {
    let stream = shared
        .run
        .connect(&Names(vmid).qmp())
        .await
        .map_err(|e| e.to_string())?;
    let (qmp, events) = Qmp::open(stream, MONITOR).await.map_err(|e| e.to_string())?;
    let status = qmp
        .execute("query-status", json!({}), MONITOR)
        .await
        .map_err(|e| e.to_string())?;
    let state = match status["status"].as_str() {
        Some("running") => RunState::Running,
        Some("prelaunch") => return Err("its start was not finished".into()),
        Some("io-error") => RunState::IoError,
        _ => RunState::Paused,
    };
    let port = shared.addresses.ssh_port;
    if record.ssh_port != port && record.mac.is_some() {
        let line = format!("hostfwd_add tcp:{}:{port}-:22", record.address);
        let add = json!({ "command-line": line });
        let said = qmp.execute("human-monitor-command", add, MONITOR).await;
        if said.as_ref().ok().and_then(|s| s.as_str()) != Some("") {
            tracing::warn!(
                vmid,
                ?said,
                port,
                "the guest's SSH stays at port {} alone",
                record.ssh_port
            );
        }
    }
    shared.addresses.hold(vmid, record.address);
    let guest = Guest::new(record.facts(vmid, process, state), qmp, Arc::clone(&shared.run)).await;
    shared.keep(&guest, events, None, Arc::clone(on_exit));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_last_time_is_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        let first = addresses(&run, 0).unwrap().ssh_port;
        assert_eq!(addresses(&run, 0).unwrap().ssh_port, first);
    }

    #[test]
    fn a_strange_process_is_not_taken_for_a_guest() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        // Our own number, as after a reboot of the machine: alive, but no QEMU of this folder.
        std::fs::write(run.file("100.pid"), std::process::id().to_string()).unwrap();
        assert_eq!(find(&run, 100, None), None);
        std::fs::write(run.file("100.pid"), "not a number").unwrap();
        assert_eq!(find(&run, 100, None), None);
    }
}
