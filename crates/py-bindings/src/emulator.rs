//! `Emulator`: the Proxmox VE emulator on a free port of the loopback, for tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proxmox_client::{Auth, Client as Pve, Tls};
use pve_emulator::engine::qemu::QemuOptions;
use pve_emulator::engine::simulated::{Fault, FaultKind};
use pve_emulator::{
    Emulator as Server, EmulatorBuilder, FaultAction, FaultPlan, NodeHandle, StorageSpec, TaskFault, Timing, node_names,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::client::Client;
use crate::errors::{Failure, invalid_input};
use crate::json::Json;
use crate::runtime::{block, spawn};
use crate::seconds::Seconds;

/// A Proxmox VE API with simulated guests, on a free port of 127.0.0.1 and with a certificate of its own.
///
/// It runs between entering and leaving a `with` or `async with` block.
///
/// Args:
///     timing: "instant" for no delays, "real" for real ones, or how many times faster than real.
///     nodes: Names of the nodes, or how many (then pve, pve2, pve3, ...); one, "pve", by default.
///     storages: More storages beside "local" and "local-lvm": name to "dir", "dir:shared" or "lvmthin". Without it several
///         nodes have one more, "shared".
///     data_dir: A folder for all that it holds, kept for the next time; without one a temporary folder is used and removed.
///     listen: Address of the first node, "127.0.0.1:8006"; port 0 takes a free one.
///     pve_version: The version to answer as, "9.2".
///     faults: A faults file.
///     engine: "simulated", or "qemu" for real VMs: QEMU processes on this machine, whose time is real whatever `timing` says.
///     accel: "kvm" or "tcg" for them; without it KVM where it works.
#[pyclass(frozen, module = "k3simage")]
pub(crate) struct Emulator {
    timing: Timing,
    nodes: Option<Vec<String>>,
    storages: Option<Vec<StorageSpec>>,
    data_dir: Option<PathBuf>,
    listen: SocketAddr,
    pve_version: Option<String>,
    faults: FaultPlan,
    qemu: Option<QemuOptions>,
    server: Mutex<Option<Server>>,
}

/// Nodes by number or by name.
#[derive(Debug, FromPyObject)]
enum Nodes {
    Count(usize),
    Names(Vec<String>),
}

/// How fast guests and tasks run.
#[derive(Debug, FromPyObject)]
enum Speed {
    Factor(f64),
    Word(String),
}

impl Speed {
    fn timing(self) -> PyResult<Timing> {
        match self {
            Self::Factor(factor) if factor.is_finite() && factor > 0.0 => Ok(Timing::Scaled(factor)),
            Self::Word(word) if word == "instant" => Ok(Timing::Instant),
            Self::Word(word) if word == "real" => Ok(Timing::Real),
            other => Err(invalid_input(&format!(
                "timing {other}: give \"instant\", \"real\" or a number above 0"
            ))),
        }
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Factor(factor) => write!(f, "{factor}"),
            Self::Word(word) => write!(f, "{word:?}"),
        }
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator")
            .field("timing", &self.timing)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl Emulator {
    fn builder(&self) -> PyResult<EmulatorBuilder> {
        if self.slot().is_some() {
            return Err(running_already());
        }
        let mut builder = Server::builder()
            .listen(self.listen)
            .timing(self.timing)
            .faults(self.faults.clone());
        if let Some(storages) = &self.storages {
            builder = builder.storages(storages.clone());
        }
        if let Some(version) = &self.pve_version {
            builder = builder.pve_version(version);
        }
        if let Some(nodes) = &self.nodes {
            builder = builder.nodes(nodes.clone());
        }
        if let Some(dir) = &self.data_dir {
            builder = builder.data_dir(dir);
        }
        if let Some(options) = &self.qemu {
            builder = builder.qemu(options.clone());
        }
        Ok(builder)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `look` sees of the running emulator.
    fn running<T>(&self, look: impl FnOnce(&Server) -> T) -> PyResult<T> {
        let slot = self.slot();
        slot.as_ref().map(look).ok_or_else(not_running)
    }

    fn of_node<T>(&self, node: &str, look: impl FnOnce(NodeHandle<'_>) -> T) -> PyResult<T> {
        self.running(|server| server.node(node).map(look))?
            .ok_or_else(|| no_node(node))
    }

    fn inject(&self, kind: FaultKind) -> PyResult<()> {
        match self.running(|server| server.simulated_guests().cloned())? {
            Some(guests) => guests.inject(Fault::once(kind)),
            None => return Err(invalid_input("this emulator has no simulated guests")),
        }
        Ok(())
    }

    fn put(&self, server: Server) -> PyResult<()> {
        let mut slot = self.slot();
        if slot.is_some() {
            return Err(running_already());
        }
        *slot = Some(server);
        Ok(())
    }
}

/// The storages of a plain Proxmox VE, and `more` beside them.
fn storages_with(more: BTreeMap<String, String>) -> PyResult<Vec<StorageSpec>> {
    let mut storages = StorageSpec::defaults(1);
    for (name, kind) in more {
        let spec = format!("{name}:{kind}").parse();
        storages.push(spec.map_err(|error: String| invalid_input(&error))?);
    }
    Ok(storages)
}

fn no_node(node: &str) -> PyErr {
    invalid_input(&format!("this emulator has no node {node:?}"))
}

fn not_running() -> PyErr {
    invalid_input("the emulator does not run: use it inside `with k3simage.Emulator() as pve:`")
}

fn running_already() -> PyErr {
    invalid_input("the emulator runs already: make another one")
}

async fn shut_down(server: Option<Server>) -> Result<(), Failure> {
    if let Some(server) = server {
        server.shutdown().await;
    }
    Ok(())
}

#[pymethods]
impl Emulator {
    #[new]
    #[pyo3(
        signature = (
            *, timing=Speed::Word(String::from("instant")), nodes=None, storages=None, data_dir=None,
            listen="127.0.0.1:0", pve_version=None, faults=None, engine="simulated", accel=None
        ),
        text_signature = "(*, timing=\"instant\", nodes=None, storages=None, data_dir=None, listen=\"127.0.0.1:0\", \
                          pve_version=None, faults=None, engine=\"simulated\", accel=None)"
    )]
    fn py_new(
        timing: Speed,
        nodes: Option<Nodes>,
        storages: Option<BTreeMap<String, String>>,
        data_dir: Option<PathBuf>,
        listen: &str,
        pve_version: Option<String>,
        faults: Option<PathBuf>,
        engine: &str,
        accel: Option<&str>,
    ) -> PyResult<Self> {
        let nodes = match nodes {
            None => None,
            Some(Nodes::Count(count @ 1..=32)) => Some(node_names(count)),
            Some(Nodes::Count(count)) => {
                return Err(invalid_input(&format!("nodes={count}: 1 to 32 nodes are possible")));
            }
            Some(Nodes::Names(names)) => Some(names),
        };
        let faults = match faults {
            None => FaultPlan::default(),
            Some(path) => FaultPlan::read(&path).map_err(Failure::from)?,
        };
        let listen = listen.parse().map_err(|_| {
            invalid_input(&format!(
                "listen {listen:?}: give an address and a port, \"127.0.0.1:8006\""
            ))
        })?;
        let qemu = match (engine, accel) {
            ("simulated", None) => None,
            ("qemu", accel) => Some(QemuOptions {
                accel: accel
                    .map(|name| name.parse().map_err(|error: String| invalid_input(&error)))
                    .transpose()?,
                ..QemuOptions::default()
            }),
            ("simulated", Some(_)) => return Err(invalid_input("accel belongs to engine=\"qemu\"")),
            (other, _) => {
                return Err(invalid_input(&format!(
                    "engine {other:?}: give \"simulated\" or \"qemu\""
                )));
            }
        };
        Ok(Self {
            qemu,
            timing: timing.timing()?,
            nodes,
            storages: storages.map(storages_with).transpose()?,
            data_dir,
            listen,
            pve_version,
            faults,
            server: Mutex::new(None),
        })
    }

    /// The address, with scheme and port.
    #[getter]
    fn url(&self) -> PyResult<String> {
        self.running(Server::url)
    }

    /// SHA-256 fingerprint of the certificate.
    #[getter]
    fn fingerprint(&self) -> PyResult<String> {
        self.running(|server| server.fingerprint().to_owned())
    }

    /// An API token with all rights, as `user@realm!name=secret`.
    #[getter]
    fn token(&self) -> PyResult<String> {
        self.running(|server| format!("{}={}", server.token_id(), server.token_secret()))
    }

    /// The port of 127.64.0.0/10 on which the guests' SSH servers listen.
    #[getter]
    fn guest_ssh_port(&self) -> PyResult<u16> {
        self.running(Server::guest_ssh_port)
    }

    /// The variables with which a template folder is built here: connection and SSH port.
    #[getter]
    fn variables<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let variables = PyDict::new(py);
        self.running(|server| {
            variables.set_item("proxmox_url", server.url())?;
            variables.set_item("proxmox_username", server.token_id())?;
            variables.set_item("proxmox_token", server.token_secret())?;
            variables.set_item("proxmox_fingerprint", server.fingerprint())?;
            variables.set_item("ssh_port", server.guest_ssh_port())?;
            match server.host_address() {
                Some(host) => variables.set_item("http_address", host.to_string()),
                None => Ok(()),
            }
        })??;
        Ok(variables)
    }

    /// A client with all rights.
    fn client(&self) -> PyResult<Client> {
        let pve = self.running(|server| {
            let pinned = Tls::Pinned(server.fingerprint().parse()?);
            let auth = Auth::token(server.token_id(), server.token_secret().to_owned());
            Pve::builder(server.url()).auth(auth).tls(pinned).build()
        })?;
        Ok(Client::new(pve.map_err(Failure::from)?))
    }

    /// Puts a small ISO with AlmaLinux's volume label into a storage and returns its volid.
    fn add_installer_iso(&self, storage: &str, name: &str) -> PyResult<String> {
        Ok(self
            .running(|server| server.add_installer_iso(storage, name))?
            .map_err(Failure::from)?)
    }

    /// Answers the next call that fits with this status and reason, and does nothing; `*` in a path stands for any text.
    fn fail_next(&self, method: &str, path: &str, status: u16, reason: String) -> PyResult<()> {
        self.running(|server| server.fail_next(method, path, FaultAction::Status(status, reason)))
    }

    /// Does the next call that fits and closes the connection in place of an answer.
    fn lose_next_answer(&self, method: &str, path: &str) -> PyResult<()> {
        self.running(|server| server.fail_next(method, path, FaultAction::LoseAnswer))
    }

    /// Does the next call that fits only after so much time.
    fn delay_next(&self, method: &str, path: &str, delay: Seconds) -> PyResult<()> {
        let delay = delay.duration("delay")?;
        self.running(|server| server.fail_next(method, path, FaultAction::Delay(delay)))
    }

    /// Lets the task that the next fitting call starts end with this error.
    fn fail_task(&self, method: &str, path: &str, error: String) -> PyResult<()> {
        self.running(|server| server.fail_next(method, path, FaultAction::Task(TaskFault::Fails(error))))
    }

    /// Reads a faults file; it replaces all faults that wait and says which nodes are offline or slow.
    fn read_faults(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let plan = FaultPlan::read(&path).map_err(Failure::from)?;
        let taking = self.running(|server| server.apply_faults(plan))?;
        block(py, async move { Ok(taking.await?) })
    }

    /// The address of a node, with scheme and port.
    fn node_url(&self, node: &str) -> PyResult<String> {
        self.of_node(node, |n| n.url())
    }

    /// Takes a node's power away: its guests and tasks end, and what is asked of it is answered with 595.
    fn node_offline(&self, py: Python<'_>, node: &str) -> PyResult<()> {
        let going = self.of_node(node, |n| n.offline())?;
        block(py, async move {
            going.await;
            Ok(())
        })
    }

    /// Gives a node power again.
    fn node_online(&self, node: &str) -> PyResult<()> {
        self.of_node(node, |n| n.online())
    }

    /// Lets all that a node does take so much longer; 0 makes it fast again.
    fn node_slow(&self, node: &str, by: Seconds) -> PyResult<()> {
        let by = by.duration("by")?;
        self.of_node(node, |n| n.slow(by))
    }

    /// Lets the next run of a script in a guest end with this exit code. The end of its path names it.
    fn fail_script(&self, script: String, exit_code: u8) -> PyResult<()> {
        self.inject(FaultKind::ScriptExits {
            script,
            code: exit_code,
        })
    }

    /// Lets the next run of a script in a guest never end.
    fn hang_script(&self, script: String) -> PyResult<()> {
        self.inject(FaultKind::ScriptHangs { script })
    }

    /// All requests so far: method, path, user and status.
    fn requests<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let records = self.running(Server::requests)?;
        json(serde_json::to_value(&records))?.into_pyobject(py)
    }

    /// What a guest has done and been given, or None where there never was one.
    fn guest<'py>(&self, py: Python<'py>, vmid: u32) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.running(|server| server.guest(vmid))? {
            Some(record) => json(serde_json::to_value(&record))?.into_pyobject(py).map(Some),
            None => Ok(None),
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let builder = slf.get().builder()?;
        let server = block(slf.py(), async move { Ok(builder.start().await?) })?;
        slf.get().put(server)?;
        Ok(slf)
    }

    #[pyo3(signature = (_exc_type, _exc, _traceback, /))]
    fn __exit__(&self, py: Python<'_>, _exc_type: Py<PyAny>, _exc: Py<PyAny>, _traceback: Py<PyAny>) -> PyResult<()> {
        let server = self.slot().take();
        block(py, shut_down(server))
    }

    async fn __aenter__(slf: Py<Self>) -> PyResult<Py<Self>> {
        let builder = slf.get().builder()?;
        let server = spawn(async move { Ok(builder.start().await?) }).await?;
        slf.get().put(server)?;
        Ok(slf)
    }

    #[pyo3(signature = (_exc_type, _exc, _traceback, /))]
    async fn __aexit__(&self, _exc_type: Py<PyAny>, _exc: Py<PyAny>, _traceback: Py<PyAny>) -> PyResult<()> {
        let server = self.slot().take();
        spawn(shut_down(server)).await
    }

    fn __repr__(&self) -> String {
        match self.running(Server::url) {
            Ok(url) => format!("<k3simage.Emulator {url}>"),
            Err(_) => String::from("<k3simage.Emulator not running>"),
        }
    }
}

fn json(value: serde_json::Result<serde_json::Value>) -> PyResult<Json> {
    value
        .map(Json)
        .map_err(|cause| invalid_input(&format!("internal error: {cause}")))
}
