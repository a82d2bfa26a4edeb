//! `resume` and `gc`: what becomes of builds and verifications whose process died.

use std::path::PathBuf;
use std::time::Duration;

use image_build::build::{Artifact as BuiltArtifact, Event as BuildEvent};
use image_build::gc::{Found, State, find, remove as remove_dead};
use pyo3::coroutine::CancelHandle;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use tokio_util::sync::CancellationToken;

use crate::artifact::Artifact;
use crate::client::Client;
use crate::errors::{Failure, invalid_input, raise};
use crate::json::Json;
use crate::pipeline::{Files, built, resolved};
use crate::place::Place;
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

    /// "dead": it can be removed; "alive": its process counts as living; "unclear": nothing can be said, look at it yourself.
    #[getter]
    fn state(&self) -> String {
        self.found.state.to_string()
    }

    /// Why that is so.
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
        let Found { id, of, state, .. } = &self.found;
        format!("<k3simage.Leftover {of} {id}: {state}>")
    }
}

fn start_resume(
    build_id: String,
    request: Request,
    on_event: Option<Py<PyAny>>,
    files: Files,
    lease: Duration,
) -> PyResult<Running<BuiltArtifact, BuildEvent>> {
    Running::undoing(on_event, built, move |events, token| async move {
        let (pve, spec) = resolved(request).await?;
        let build = image_build::resume(&pve, spec, build_id)
            .events(events)
            .cancel(token)
            .lease(lease);
        Ok(files.of(build).await?)
    })
}

/// Goes on with a build whose builder died, from its last completed step, and returns what it left behind.
///
/// Any machine can do so that has the template folder, or the spec, and the same API token. What is not as it was when the build
/// began raises BuildError with a list of what changed, and nothing is touched; so does a build whose builder still counts as
/// living. Takes the arguments of build(), but for `replace`, `verify`, `ip_configs` and `verify_timeout`: what the build was asked for
/// stands in its journal.
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
///     screen: Where a picture of the guest's screen (PNG) goes when a step fails; beside `manifest` if not given.
#[pyfunction]
#[pyo3(
    signature = (build_id, folder=None, *, spec=None, variables=None, var_files=Vec::new(), client=None, on_event=None, manifest=None, lease=Seconds::Number(300.0), screen=None, **keywords),
    text_signature = "(build_id, folder=None, *, spec=None, variables=None, var_files=(), client=None, on_event=None, manifest=None, lease=300.0, screen=None, **keywords)"
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
    screen: Option<PathBuf>,
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
    start_resume(build_id, request, on_event, Files { manifest, screen }, lease)?
        .wait(py)
        .map(Artifact)
}

/// Goes on with a build whose builder died, awaited: as resume(), with on_event called in the event loop's thread.
///
/// Cancelling the awaitable undoes the build before the cancellation is passed on; cancelling it again stops waiting.
#[pyfunction]
#[pyo3(
    signature = (build_id, folder=None, *, spec=None, variables=None, var_files=Vec::new(), client=None, on_event=None, manifest=None, lease=Seconds::Number(300.0), screen=None, **keywords),
    text_signature = "(build_id, folder=None, *, spec=None, variables=None, var_files=(), client=None, on_event=None, manifest=None, lease=300.0, screen=None, **keywords)"
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
    screen: Option<PathBuf>,
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
    start_resume(build_id, request, on_event, Files { manifest, screen }, lease)?
        .drive(cancel)
        .await
        .map(Artifact)
}

/// Lists, and removes what is dead when asked. One that cannot be removed does not keep the others; the first failure is raised.
async fn collect(
    place: Place,
    remove: bool,
    age: Duration,
    token: CancellationToken,
) -> Result<Vec<Leftover>, Failure> {
    let pve = place.connected().await?;
    let mut failure = None;
    let mut all = Vec::new();
    for found in find(&pve, age).await? {
        let mut removed = Vec::new();
        if remove && found.state == State::Dead && !token.is_cancelled() {
            match remove_dead(&pve, &found, &token, &mut removed).await {
                // Who stopped it gets the list with what was removed until then.
                Err(_) if token.is_cancelled() => {}
                Err(error) => {
                    failure.get_or_insert(error);
                }
                Ok(()) => {}
            }
        }
        all.push(Leftover { found, removed });
    }
    match failure {
        None => Ok(all),
        Some(error) => Err(with_leftovers(error.into(), all)),
    }
}

/// The failure with what the call found and removed all the same.
fn with_leftovers(failure: Failure, all: Vec<Leftover>) -> Failure {
    let raised = raise(failure);
    let told = Python::attach(|py| raised.value(py).setattr("leftovers", all));
    Failure::Raised(told.err().unwrap_or(raised))
}

/// What a removal that was stopped has done until then.
fn removed_until_then(all: Vec<Leftover>, py: Python<'_>) -> PyResult<(String, Py<PyAny>)> {
    let removed: Vec<&str> = all.iter().flat_map(|one| &one.removed).map(String::as_str).collect();
    let told = match removed.as_slice() {
        [] => "nothing was removed".to_owned(),
        removed => format!("removed before it stopped: {}", removed.join(", ")),
    };
    Ok((told, all.into_pyobject(py)?.into_any().unbind()))
}

fn start_gc(place: Place, remove: bool, age: Duration) -> PyResult<Running<Vec<Leftover>, Silent>> {
    Running::undoing(None, removed_until_then, move |_, token| {
        collect(place, remove, age, token)
    })
}

/// Lists the builds and verifications that have not ended, and what there is of each; with `remove`, removes what is dead.
///
/// What counts as living, and what k3simage did not make, is never touched. The cluster is `client`, or what `url`, `token`,
/// `username`, `password`, `fingerprint`, `ca_file` and `insecure` say; what these leave out is taken from `variables`, the folder's
/// variables and PKR_VAR_proxmox_*.
///
/// Where something cannot be removed, the rest is all the same; then the first failure is raised, whose `leftovers` is the list that
/// this would have returned.
///
/// Args:
///     folder: A template folder to take the connection from.
///     variables: Variables as the folder has them, which stand above every file and the environment.
///     var_files: More variable files.
///     client: The cluster.
///     remove: Remove what is dead.
///     volume_age: How old a volume without a VM has to be until it counts as left behind.
#[pyfunction]
#[pyo3(
    signature = (*, folder=None, variables=None, var_files=Vec::new(), client=None, remove=false, volume_age=Seconds::Number(7200.0), **keywords),
    text_signature = "(*, folder=None, variables=None, var_files=(), client=None, remove=False, volume_age=7200.0, **keywords)"
)]
pub(crate) fn gc(
    py: Python<'_>,
    folder: Option<PathBuf>,
    variables: Option<&Bound<'_, PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    remove: bool,
    volume_age: Seconds,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<Vec<Leftover>> {
    let age = volume_age.duration("volume_age")?;
    let place = Place::read(py, "gc", folder, variables, var_files, client.as_ref(), keywords)?;
    start_gc(place, remove, age)?.wait(py)
}

/// Lists the builds and verifications that have not ended, awaited: as gc().
///
/// Cancelling the awaitable stops between two removals; run again, it goes on.
#[pyfunction]
#[pyo3(
    signature = (*, folder=None, variables=None, var_files=Vec::new(), client=None, remove=false, volume_age=Seconds::Number(7200.0), **keywords),
    text_signature = "(*, folder=None, variables=None, var_files=(), client=None, remove=False, volume_age=7200.0, **keywords)"
)]
pub(crate) async fn gc_async(
    folder: Option<PathBuf>,
    variables: Option<Py<PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    remove: bool,
    volume_age: Seconds,
    keywords: Option<Py<PyDict>>,
    #[pyo3(cancel_handle)] cancel: CancelHandle,
) -> PyResult<Vec<Leftover>> {
    let age = volume_age.duration("volume_age")?;
    let place = Python::attach(|py| {
        let (variables, keywords) = (
            variables.as_ref().map(|d| d.bind(py)),
            keywords.as_ref().map(|d| d.bind(py)),
        );
        Place::read(py, "gc", folder, variables, var_files, client.as_ref(), keywords)
    })?;
    start_gc(place, remove, age)?.drive(cancel).await
}
