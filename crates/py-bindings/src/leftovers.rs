//! `resume` and `gc`: what becomes of builds and verifications whose process died.

use std::path::PathBuf;
use std::time::Duration;

use image_build::build::{Artifact as BuiltArtifact, Event as BuildEvent};
use image_build::gc::{Found, find, remove as remove_dead};
use proxmox_client::Client as Pve;
use pyo3::coroutine::CancelHandle;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::artifact::Artifact;
use crate::client::Client;
use crate::errors::{Failure, invalid_input};
use crate::json::Json;
use crate::pipeline::resolved;
use crate::request::Request;
use crate::runtime::{Running, Silent};
use crate::seconds::Seconds;
use crate::spec::ImageSpec;

/// A build or a verification that has not ended, and what there is of it on the cluster.
#[pyclass(frozen, eq, module = "k3simage")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    found: Found,
    removed: Vec<String>,
}

#[pymethods]
impl Leftover {
    /// Short id of the build or verification.
    #[getter]
    fn id(&self) -> &str {
        &self.found.id
    }

    /// "build" or "verification".
    #[getter]
    fn of(&self) -> String {
        self.found.of.to_string()
    }

    /// Name of the image that it was to make, or of the template that it looked at; None where nothing tells.
    #[getter]
    fn image(&self) -> Option<&str> {
        self.found.image.as_deref()
    }

    /// The step that a build began last; None where nothing tells.
    #[getter]
    fn step(&self) -> Option<&str> {
        self.found.step.as_deref()
    }

    /// Whether its process counts as living, or nothing can be said: it is left alone then.
    #[getter]
    fn living(&self) -> bool {
        self.found.living
    }

    /// Why it counts as living or dead.
    #[getter]
    fn because(&self) -> &str {
        &self.found.because
    }

    /// What there was of it: "vm 9000 on pve", "local:iso/k3simage-build-7f3a12bc.iso on pve".
    #[getter]
    fn things(&self) -> Vec<String> {
        self.found.things.iter().map(ToString::to_string).collect()
    }

    /// What this call removed of it.
    #[getter]
    fn removed(&self) -> Vec<String> {
        self.removed.clone()
    }

    /// All fields.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut fields =
            serde_json::to_value(&self.found).map_err(|cause| invalid_input(&format!("internal error: {cause}")))?;
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("removed".to_owned(), self.removed.clone().into());
        }
        Json(fields).into_pyobject(py)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.found.of.to_string(), &self.found.id).into_pyobject(py)?.hash()
    }

    fn __repr__(&self) -> String {
        let Found { id, of, living, .. } = &self.found;
        let state = if *living { "alive" } else { "dead" };
        format!("<k3simage.Leftover {of} {id}: {state}>")
    }
}

fn start_resume(
    build_id: String,
    request: Request,
    on_event: Option<Py<PyAny>>,
    manifest: Option<PathBuf>,
    lease: Duration,
) -> PyResult<Running<BuiltArtifact, BuildEvent>> {
    Running::undoing(on_event, move |events, token| async move {
        let (pve, spec) = resolved(request).await?;
        let mut build = image_build::resume(&pve, spec, build_id)
            .events(events)
            .cancel(token)
            .lease(lease);
        if let Some(path) = manifest {
            build = build.manifest(path);
        }
        Ok(build.await?)
    })
}

/// Goes on with a build whose builder died, from its last completed step, and returns what it left behind.
///
/// Any machine can do so that has the template folder, or the spec, and the same API token. What is not as it was when the build
/// began raises BuildError with a list of what changed, and nothing is touched; so does a build whose builder still counts as
/// living. Takes the arguments of build().
///
/// Args:
///     build_id: Its short id, as its events and gc() show it.
///     folder: The template folder.
///     spec: What to build, in place of a folder.
///     variables: The folder's variables; they stand above every file and the environment.
///     var_files: More variable files of the folder.
///     client: The cluster.
///     on_event: Called with each Event.
///     manifest: A file to add the build to, in Packer's manifest shape.
///     lease: How long the build counts as living when this process gives no sign.
#[pyfunction]
#[pyo3(
    signature = (build_id, folder=None, *, spec=None, variables=None, var_files=Vec::new(), client=None, on_event=None, manifest=None, lease=Seconds::Number(300.0), **keywords),
    text_signature = "(build_id, folder=None, *, spec=None, variables=None, var_files=(), client=None, on_event=None, manifest=None, lease=300.0, **keywords)"
)]
pub(crate) fn resume(
    py: Python<'_>,
    build_id: String,
    folder: Option<PathBuf>,
    spec: Option<Py<ImageSpec>>,
    variables: Option<&Bound<'_, PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    on_event: Option<Py<PyAny>>,
    manifest: Option<PathBuf>,
    lease: Seconds,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<Artifact> {
    let lease = lease.duration("lease")?;
    let request = Request::read(
        py,
        folder,
        spec.as_ref(),
        variables,
        var_files,
        client.as_ref(),
        keywords,
    )?;
    start_resume(build_id, request, on_event, manifest, lease)?
        .wait(py)
        .map(Artifact)
}

/// Goes on with a build whose builder died, awaited: as resume(), with on_event called in the event loop's thread.
///
/// Cancelling the awaitable undoes the build before the cancellation is passed on; cancelling it again stops waiting.
#[pyfunction]
#[pyo3(
    signature = (build_id, folder=None, *, spec=None, variables=None, var_files=Vec::new(), client=None, on_event=None, manifest=None, lease=Seconds::Number(300.0), **keywords),
    text_signature = "(build_id, folder=None, *, spec=None, variables=None, var_files=(), client=None, on_event=None, manifest=None, lease=300.0, **keywords)"
)]
pub(crate) async fn resume_async(
    build_id: String,
    folder: Option<PathBuf>,
    spec: Option<Py<ImageSpec>>,
    variables: Option<Py<PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    on_event: Option<Py<PyAny>>,
    manifest: Option<PathBuf>,
    lease: Seconds,
    keywords: Option<Py<PyDict>>,
    #[pyo3(cancel_handle)] cancel: CancelHandle,
) -> PyResult<Artifact> {
    let lease = lease.duration("lease")?;
    let request = Python::attach(|py| {
        let (variables, keywords) = (
            variables.as_ref().map(|d| d.bind(py)),
            keywords.as_ref().map(|d| d.bind(py)),
        );
        Request::read(
            py,
            folder,
            spec.as_ref(),
            variables,
            var_files,
            client.as_ref(),
            keywords,
        )
    })?;
    start_resume(build_id, request, on_event, manifest, lease)?
        .drive(cancel)
        .await
        .map(Artifact)
}

/// The cluster of a call that takes no folder.
fn cluster(py: Python<'_>, client: Option<&Py<Client>>, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Pve> {
    let fields = match keywords {
        Some(keywords) => keywords.copy()?,
        None => PyDict::new(py),
    };
    let access = Access::take(&fields)?;
    if let Some(name) = fields.keys().iter().next() {
        return Err(invalid_input(&format!("gc() has no argument {name}")));
    }
    match client {
        Some(_) if !access.is_empty() => Err(invalid_input(
            "client already says where and as whom: leave out url, token and the like",
        )),
        Some(client) => Ok(client.get().pve().clone()),
        None => access.client(),
    }
}

/// Lists, and removes what is dead when asked. One that cannot be removed does not keep the others; the first failure is raised.
async fn collect(pve: Pve, remove: bool, age: Duration, token: CancellationToken) -> Result<Vec<Leftover>, Failure> {
    let mut failure = None;
    let mut all = Vec::new();
    for found in find(&pve, age).await? {
        let mut removed = Vec::new();
        if remove && !found.living && !token.is_cancelled() {
            match remove_dead(&pve, &found, &token).await {
                Ok(things) => removed = things,
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        all.push(Leftover { found, removed });
    }
    match failure {
        None => Ok(all),
        Some(error) => Err(error.into()),
    }
}

fn start_gc(pve: Pve, remove: bool, age: Duration) -> PyResult<Running<Vec<Leftover>, Silent>> {
    Running::undoing(None, move |_, token| collect(pve, remove, age, token))
}

/// Lists the builds and verifications that have not ended, and what there is of each; with `remove`, removes what is dead.
///
/// What counts as living, and what k3simage did not make, is never touched. The cluster is `client`, or what `url`, `token`,
/// `username`, `password`, `fingerprint`, `ca_file` and `insecure` say; what these leave out is taken from PKR_VAR_proxmox_*.
///
/// Args:
///     client: The cluster.
///     remove: Remove what is dead.
///     volume_age: How old a volume without a VM has to be until it counts as left behind.
#[pyfunction]
#[pyo3(
    signature = (*, client=None, remove=false, volume_age=Seconds::Number(7200.0), **keywords),
    text_signature = "(*, client=None, remove=False, volume_age=7200.0, **keywords)"
)]
pub(crate) fn gc(
    py: Python<'_>,
    client: Option<Py<Client>>,
    remove: bool,
    volume_age: Seconds,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<Vec<Leftover>> {
    let age = volume_age.duration("volume_age")?;
    start_gc(cluster(py, client.as_ref(), keywords)?, remove, age)?.wait(py)
}

/// Lists the builds and verifications that have not ended, awaited: as gc().
///
/// Cancelling the awaitable stops between two removals; run again, it goes on.
#[pyfunction]
#[pyo3(
    signature = (*, client=None, remove=false, volume_age=Seconds::Number(7200.0), **keywords),
    text_signature = "(*, client=None, remove=False, volume_age=7200.0, **keywords)"
)]
pub(crate) async fn gc_async(
    client: Option<Py<Client>>,
    remove: bool,
    volume_age: Seconds,
    keywords: Option<Py<PyDict>>,
    #[pyo3(cancel_handle)] cancel: CancelHandle,
) -> PyResult<Vec<Leftover>> {
    let age = volume_age.duration("volume_age")?;
    let pve = Python::attach(|py| cluster(py, client.as_ref(), keywords.as_ref().map(|d| d.bind(py))))?;
    start_gc(pve, remove, age)?.drive(cancel).await
}
