//! `verify`: two clones of a template, compared and removed again.

use std::path::PathBuf;
use std::time::Duration;

use image_build::build::Event as BuildEvent;
use image_build::verify::{Check as Checked, Outcome, VerifyReport as Report, VerifySpec};
use pyo3::coroutine::CancelHandle;
use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyDict, PyMapping, PyTzInfo};

use crate::client::Client;
use crate::errors::{Failure, invalid_input};
use crate::event::seconds_since_epoch;
use crate::json::Json;
use crate::place::Place;
use crate::runtime::Running;
use crate::seconds::Seconds;

/// One checked property of two clones.
#[pyclass(frozen, get_all, eq, hash, module = "k3simage")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Check {
    /// What was checked: "machine id", "k3s token".
    name: String,
    /// "ok", "shared", "failed" or "not_checked".
    outcome: &'static str,
    /// The first clone's value; secrets as the beginning of a salted hash.
    first: String,
    /// The second clone's.
    second: String,
    /// What was found, and what to do about it unless all is well.
    message: String,
}

#[pymethods]
impl Check {
    fn __repr__(&self) -> String {
        format!("<k3simage.Check {}: {}>", self.name, self.outcome)
    }
}

impl From<&Checked> for Check {
    fn from(check: &Checked) -> Self {
        Self {
            name: check.name.clone(),
            outcome: match check.outcome {
                Outcome::Ok => "ok",
                Outcome::Shared => "shared",
                Outcome::NotChecked => "not_checked",
                _ => "failed",
            },
            first: check.first.clone(),
            second: check.second.clone(),
            message: check.message.clone(),
        }
    }
}

/// What two clones of a template have in common, and how they came up.
#[pyclass(frozen, eq, module = "k3simage")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VerifyReport(Report);

#[pymethods]
impl VerifyReport {
    /// Whether nothing is shared and nothing failed.
    #[getter]
    fn ok(&self) -> bool {
        self.0.ok
    }

    /// Name of the template.
    #[getter]
    fn template(&self) -> &str {
        &self.0.template
    }

    /// Its VM id.
    #[getter]
    fn vmid(&self) -> u32 {
        self.0.vmid
    }

    /// The node that holds it.
    #[getter]
    fn node(&self) -> &str {
        &self.0.node
    }

    /// The version of Proxmox VE.
    #[getter]
    fn pve_version(&self) -> &str {
        &self.0.pve_version
    }

    /// Short id of the verification, part of the clones' names.
    #[getter]
    fn verify_id(&self) -> &str {
        &self.0.verify_id
    }

    /// When the clones were compared, in UTC.
    #[getter]
    fn finished<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDateTime>> {
        PyDateTime::from_timestamp(py, seconds_since_epoch(self.0.finished), Some(&*PyTzInfo::utc(py)?))
    }

    /// Everything that was checked.
    #[getter]
    fn checks(&self) -> Vec<Check> {
        self.0.checks.iter().map(Check::from).collect()
    }

    /// Names of what both clones share.
    #[getter]
    fn shared(&self) -> Vec<&str> {
        self.0.shared()
    }

    /// Names of what is not as it must be, apart from what is shared.
    #[getter]
    fn failed(&self) -> Vec<&str> {
        self.0.failed()
    }

    /// Of each clone the seconds from its start to a login.
    #[getter]
    fn ssh_seconds(&self) -> Vec<f64> {
        self.0.clones.iter().map(|clone| clone.ssh_seconds).collect()
    }

    /// Of each clone the seconds from its start until its k3s unit was active; None where that was not seen.
    #[getter]
    fn k3s_seconds(&self) -> Vec<Option<f64>> {
        self.0.clones.iter().map(|clone| clone.k3s_seconds).collect()
    }

    /// All fields, as verify.json holds them.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let fields =
            serde_json::to_value(&self.0).map_err(|cause| invalid_input(&format!("internal error: {cause}")))?;
        Json(fields).into_pyobject(py)
    }

    fn __str__(&self) -> String {
        self.0.summary()
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (&self.0.verify_id, self.0.vmid).into_pyobject(py)?.hash()
    }

    fn __repr__(&self) -> String {
        format!("<k3simage.VerifyReport {}: {}>", self.0.template, self.0.summary())
    }
}

/// A checked call, before anything is read or sent.
struct Call {
    spec: VerifySpec,
    place: Place,
    ssh_port: Option<u16>,
    report: Option<PathBuf>,
    lease: Duration,
}

/// The options beside the template and the connection.
struct Options {
    iso_storage: String,
    full: bool,
    storage: Option<String>,
    pool: Option<String>,
    ip_configs: Option<(String, String)>,
    ssh_port: Option<u16>,
    timeout: Seconds,
    lease: Seconds,
}

/// What a verification found that had ended before it could be stopped.
fn verified(report: Report, py: Python<'_>) -> PyResult<(String, Py<PyAny>)> {
    let told = format!("the verification had ended all the same: {}", report.summary());
    Ok((told, VerifyReport(report).into_pyobject(py)?.into_any().unbind()))
}

impl Call {
    fn read(template: String, place: Place, options: Options, report: Option<PathBuf>) -> PyResult<Self> {
        let wrong = |name: &str| {
            let name = name.to_owned();
            move |error: proxmox_client::Error| invalid_input(&format!("{name}: {error}"))
        };
        let mut spec = VerifySpec::new(template);
        spec.iso_storage = options.iso_storage.parse().map_err(wrong("iso_storage"))?;
        spec.full = options.full;
        if let Some(storage) = options.storage {
            spec.storage = Some(storage.parse().map_err(wrong("storage"))?);
        }
        if let Some(pool) = options.pool {
            spec.pool = Some(pool.parse().map_err(wrong("pool"))?);
        }
        spec.ip_configs = options.ip_configs.map(|(first, second)| [first, second]);
        let limit = options.timeout.duration("timeout")?;
        spec.timeouts.boot = limit;
        spec.timeouts.k3s = limit;
        Ok(Self {
            spec,
            place,
            ssh_port: options.ssh_port,
            report,
            lease: options.lease.duration("lease")?,
        })
    }

    fn start(self, on_event: Option<Py<PyAny>>) -> PyResult<Running<Report, BuildEvent>> {
        let Self {
            mut spec,
            place,
            ssh_port,
            report,
            lease,
        } = self;
        Running::undoing(on_event, verified, move |events, token| async move {
            let pve = if let Some(port) = ssh_port {
                spec.ssh_port = port;
                place.connected().await?
            } else {
                let (pve, port) = place.reached().await?;
                spec.ssh_port = port.unwrap_or(spec.ssh_port);
                pve
            };
            let mut verify = image_build::verify(&pve, spec)
                .events(events)
                .cancel(token)
                .lease(lease);
            if let Some(path) = report {
                verify = verify.report(path);
            }
            verify.await.map_err(Failure::from)
        })
    }
}

/// Boots two clones of a template, compares them, removes them again, and returns what was found.
///
/// What the clones share, or what is not as it must be, is in the report and raises nothing: look at its `ok`. The cluster
/// is `client`, or what `url`, `token`, `username`, `password`, `fingerprint`, `ca_file` and `insecure` say; what these leave out is
/// taken from `variables`, the folder's variables and PKR_VAR_proxmox_*.
///
/// `on_event` gets each Event, in the thread that waits. If it raises, the clones are removed and its exception comes out.
/// Ctrl-C removes the clones and then raises KeyboardInterrupt; a second one stops waiting for that.
///
/// Args:
///     template: Name or vmid of the template.
///     folder: A template folder to take the connection from.
///     variables: Variables as the folder has them, which stand above every file and the environment.
///     var_files: More variable files.
///     client: The cluster.
///     iso_storage: Storage for the small ISO that tells the second clone to join the first.
///     full: Copy the disks instead of cloning them linked.
///     storage: Where the disks of full clones go.
///     pool: Pool that the clones join.
///     ip_configs: `ipconfig0` of the two clones, for networks without DHCP.
///     ssh_port: Port of the clones' SSH server; if not given, what the variable of that name says, which is 22 by default and with `client`.
///     timeout: How long a clone may take to its login, and k3s from there.
///     report: A file to write the report to, as JSON.
///     lease: How long the verification counts as living when this process gives no sign; until then gc() leaves it alone.
///     on_event: Called with each Event.
#[pyfunction]
#[pyo3(
    signature = (template, *, folder=None, variables=None, var_files=Vec::new(), client=None, iso_storage=String::from("local"), full=false, storage=None, pool=None, ip_configs=None, ssh_port=None, timeout=Seconds::Number(600.0), report=None, lease=Seconds::Number(300.0), on_event=None, **keywords),
    text_signature = "(template, *, folder=None, variables=None, var_files=(), client=None, iso_storage='local', full=False, storage=None, pool=None, ip_configs=None, ssh_port=None, timeout=600.0, report=None, lease=300.0, on_event=None, **keywords)"
)]
pub(crate) fn verify(
    py: Python<'_>,
    template: String,
    folder: Option<PathBuf>,
    variables: Option<&Bound<'_, PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    iso_storage: String,
    full: bool,
    storage: Option<String>,
    pool: Option<String>,
    ip_configs: Option<(String, String)>,
    ssh_port: Option<u16>,
    timeout: Seconds,
    report: Option<PathBuf>,
    lease: Seconds,
    on_event: Option<Py<PyAny>>,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<VerifyReport> {
    let options = Options {
        iso_storage,
        full,
        storage,
        pool,
        ip_configs,
        ssh_port,
        timeout,
        lease,
    };
    let place = Place::read(py, "verify", folder, variables, var_files, client.as_ref(), keywords)?;
    let call = Call::read(template, place, options, report)?;
    call.start(on_event)?.wait(py).map(VerifyReport)
}

/// Boots two clones of a template and compares them, awaited: as verify(), with on_event called in the event loop's thread.
///
/// Cancelling the awaitable removes the clones before the cancellation is passed on; cancelling it again stops waiting.
#[pyfunction]
#[pyo3(
    signature = (template, *, folder=None, variables=None, var_files=Vec::new(), client=None, iso_storage=String::from("local"), full=false, storage=None, pool=None, ip_configs=None, ssh_port=None, timeout=Seconds::Number(600.0), report=None, lease=Seconds::Number(300.0), on_event=None, **keywords),
    text_signature = "(template, *, folder=None, variables=None, var_files=(), client=None, iso_storage='local', full=False, storage=None, pool=None, ip_configs=None, ssh_port=None, timeout=600.0, report=None, lease=300.0, on_event=None, **keywords)"
)]
pub(crate) async fn verify_async(
    template: String,
    folder: Option<PathBuf>,
    variables: Option<Py<PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    iso_storage: String,
    full: bool,
    storage: Option<String>,
    pool: Option<String>,
    ip_configs: Option<(String, String)>,
    ssh_port: Option<u16>,
    timeout: Seconds,
    report: Option<PathBuf>,
    lease: Seconds,
    on_event: Option<Py<PyAny>>,
    keywords: Option<Py<PyDict>>,
    #[pyo3(cancel_handle)] cancel: CancelHandle,
) -> PyResult<VerifyReport> {
    let options = Options {
        iso_storage,
        full,
        storage,
        pool,
        ip_configs,
        ssh_port,
        timeout,
        lease,
    };
    let place = Python::attach(|py| {
        let (variables, keywords) = (
            variables.as_ref().map(|d| d.bind(py)),
            keywords.as_ref().map(|d| d.bind(py)),
        );
        Place::read(py, "verify", folder, variables, var_files, client.as_ref(), keywords)
    })?;
    let call = Call::read(template, place, options, report)?;
    call.start(on_event)?.drive(cancel).await.map(VerifyReport)
}
