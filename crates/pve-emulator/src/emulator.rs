//! The emulator as a value: start it, fill it, look into it, end it.

mod builder;
mod contents;
mod node;
mod start;

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use builder::EmulatorBuilder;
pub use node::{NodeHandle, node_names};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::engine::simulated::{GuestRecord, SimulatedEngine};
use crate::error::Error;
use crate::faults::{Fault, FaultAction, FaultMatch, FaultPlan};
use crate::server::{RequestRecord, Server};
use crate::state::World;

/// The token that every emulator makes for root@pam.
const TOKEN_ID: &str = "root@pam!emulator";

/// A running emulator. Dropping it ends it and removes a temporary data directory.
pub struct Emulator {
    server: Arc<Server>,
    guests: Option<Arc<SimulatedEngine>>,
    /// Of the nodes, in their order.
    addresses: Vec<SocketAddr>,
    ca_pem: String,
    token_secret: String,
    stop: CancellationToken,
    serving: Vec<JoinHandle<()>>,
    /// Keeps other emulators from the data directory.
    _lock: File,
    /// Removed with the emulator when the caller named no directory.
    _temporary: Option<TempDir>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("url", &self.url())
            .field("data_dir", &self.data_dir())
            .finish_non_exhaustive()
    }
}

impl Emulator {
    /// Settings for one that is to be different.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }

    /// Starts one with one node, a directory and a thin pool on a free port of 127.0.0.1, its data in a temporary
    /// directory.
    ///
    /// # Errors
    /// As [`EmulatorBuilder::start`].
    ///
    /// # Cancel safety
    /// Nothing goes on running when the future is dropped.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    fn world(&self) -> &Arc<World> {
        &self.server.world
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The address at which its first node listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// SHA-256 fingerprint of its certificate, `AA:BB:...`.
    pub fn fingerprint(&self) -> &str {
        &self.world().settings.fingerprint
    }

    /// The certificate of its CA, to verify it with.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Id of an API token of root@pam without privilege separation.
    pub fn token_id(&self) -> &'static str {
        TOKEN_ID
    }

    /// Secret of that token.
    pub fn token_secret(&self) -> &str {
        &self.token_secret
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.world().settings.data_dir
    }

    /// The port of every guest's SSH server; 0 when the engine has no common one.
    pub fn guest_ssh_port(&self) -> u16 {
        self.world().engine.ssh_port()
    }

    /// The address at which its guests find this machine, when they do not see it at its own: a server that listens on
    /// 127.0.0.1 here answers a guest there.
    pub fn host_address(&self) -> Option<Ipv4Addr> {
        self.world().engine.host_address()
    }

    /// Name of the engine that runs the guests: `simulated` or `qemu`.
    pub fn engine(&self) -> &'static str {
        self.world().engine.name()
    }

    /// What a running guest printed on its first serial port lately; `None` when it does not run.
    pub fn console(&self, vmid: u32) -> Option<String> {
        self.world().engine.console(vmid)
    }

    /// What a simulated guest did and was given; `None` if it never ran.
    pub fn guest(&self, vmid: u32) -> Option<GuestRecord> {
        self.guests.as_ref()?.guest(vmid)
    }

    /// The engine of the simulated guests, to let something go wrong in them.
    pub fn simulated_guests(&self) -> Option<&Arc<SimulatedEngine>> {
        self.guests.as_ref()
    }

    /// The latest requests, oldest first; a long-running emulator forgets the oldest.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.server.records()
    }

    /// Waits until no request is being handled: what a client that is gone had asked for has been done by then, or never is. Tasks
    /// that it started may still run.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn idle(&self) {
        self.server.idle().await;
    }

    /// How many tasks have not ended yet.
    pub fn running_tasks(&self) -> usize {
        self.world().tasks.running()
    }

    /// How many handlers panicked. Each such call was answered with 500 and logged; more than 0 is a fault of this emulator.
    pub fn panics(&self) -> u64 {
        self.server.panics()
    }

    /// The calls that are served, as the schema names them: `POST /nodes/{node}/qemu`. All others are refused with 501.
    pub fn calls(&self) -> Vec<&'static str> {
        self.server.routes.keys()
    }

    /// Lets a fault wait for its call.
    pub fn fault(&self, fault: Fault) {
        self.world().faults.add(fault);
    }

    /// Lets the next call that fits go wrong: `fail_next("POST", "/nodes/*/qemu", FaultAction::Refuse)`.
    pub fn fail_next(&self, method: &str, path: &str, action: FaultAction) {
        let when = FaultMatch::Path {
            method: method.to_owned(),
            path: path.to_owned(),
        };
        self.fault(Fault { when, action, times: 1 });
    }

    /// How many faults wait for their call. Those that happen always are never spent.
    pub fn waiting_faults(&self) -> usize {
        self.world().faults.count()
    }

    /// Sets the clock that its answers show (`Date`) forward by whole seconds, and no other: what a client counts by the server's
    /// time is over so much sooner.
    pub fn advance_clock(&self, by: Duration) {
        self.server.advance_clock(by);
    }

    /// Takes a plan in the place of all faults that wait, and brings the nodes into the state that it says: those that it
    /// does not name are online and fast.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it names a node that there is not; nothing has changed then.
    ///
    /// # Cancel safety
    /// Dropped, some nodes may not have changed yet.
    pub fn apply_faults(&self, plan: FaultPlan) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let world = Arc::clone(self.world());
        async move {
            start::check_plan(&plan, &world.settings.nodes)?;
            world.faults.replace(plan.faults);
            for node in &world.settings.nodes {
                let slow = plan.slow.iter().find(|(n, _)| n == node).map(|(_, by)| *by);
                world.nodes.change(node, |s| s.slow = slow.unwrap_or_default());
                if !plan.offline.contains(node) {
                    world.nodes.change(node, |s| s.offline = false);
                } else if world.nodes.online(node) {
                    world.take_offline(node).await;
                }
            }
            Ok(())
        }
    }

    /// Serves until `stop` is cancelled, then ends everything.
    ///
    /// # Cancel safety
    /// Dropping the future ends the emulator as dropping the emulator does.
    pub async fn serve_until(self, stop: CancellationToken) {
        stop.cancelled().await;
        self.shutdown().await;
    }

    /// Ends everything: connections, guests, tasks.
    ///
    /// # Cancel safety
    /// What has not ended when the future is dropped ends with the emulator.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let world = Arc::clone(self.world());
        world.doors.close();
        world.tasks.lose(None);
        for vmid in self.vmids() {
            world.engine.stop(vmid).await;
        }
        for serving in std::mem::take(&mut self.serving) {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the server broke");
            }
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.cancel();
        self.world().doors.close();
        self.world().tasks.lose(None);
    }
}
