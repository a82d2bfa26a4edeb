//! `build`, `plan`, `validate` and `init`: the pipeline's own calls.

use std::path::PathBuf;
use std::time::Duration;

use image_build::build::{Artifact as BuiltArtifact, Event as BuildEvent};
use image_build::{ImageSpec as Spec, OldTemplate, Replace};
use proxmox_client::Client as Pve;
use pyo3::coroutine::CancelHandle;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};

use crate::artifact::Artifact;
use crate::client::Client;
use crate::errors::{Failure, invalid_input, worker_died};
use crate::finding::{Finding, PlanReport};
use crate::folder::FolderInputs;
use crate::request::Request;
use crate::runtime::{Running, block, spawn};
use crate::seconds::Seconds;
use crate::spec::ImageSpec;

/// Reads files and certificates where neither the GIL nor the event loop waits for it.
pub(crate) async fn resolved(request: Request) -> Result<(Pve, Spec), Failure> {
    match tokio::task::spawn_blocking(|| request.resolve()).await {
        Ok(resolved) => Ok(resolved?),
        Err(end) => Err(worker_died(end)),
    }
}

async fn look(request: Request, replace: Option<Replace>) -> Result<PlanReport, Failure> {
    let (pve, spec) = resolved(request).await?;
    Ok(PlanReport(match replace {
        Some(replace) => image_build::plan::plan_replacing(&pve, &spec, &replace).await?,
        None => image_build::plan::plan(&pve, &spec).await?,
    }))
}

/// What `replace`, `verify`, `ip_configs` and `verify_timeout` say together.
fn replacing(
    old: Option<&str>,
    verify: Option<bool>,
    ip_configs: Option<(String, String)>,
    verify_timeout: Option<Seconds>,
) -> PyResult<Option<Replace>> {
    let limit = verify_timeout
        .map(|limit| limit.duration("verify_timeout"))
        .transpose()?;
    let Some(old) = old else {
        return match (verify, &ip_configs, limit) {
            (None, None, None) => Ok(None),
            _ => Err(invalid_input(
                "verify, ip_configs and verify_timeout say how a replacement is verified: give replace too",
            )),
        };
    };
    let old: OldTemplate = old
        .parse()
        .map_err(|error| invalid_input(&format!("replace: {error}")))?;
    let verify = verify.unwrap_or(true);
    if !verify && ip_configs.is_some() {
        return Err(invalid_input("ip_configs are for a verification, and verify is False"));
    }
    if !verify && limit.is_some() {
        return Err(invalid_input(
            "verify_timeout is for a verification, and verify is False",
        ));
    }
    let mut replace = Replace::new(old).verify(verify);
    if let Some((first, second)) = ip_configs {
        replace = replace.ip_configs([first, second]);
    }
    if let Some(limit) = limit {
        replace = replace.verify_limit(limit);
    }
    Ok(Some(replace))
}

/// The files that a build writes.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) manifest: Option<PathBuf>,
    pub(crate) screen: Option<PathBuf>,
}

impl Files {
    /// The build that writes them.
    pub(crate) fn of(self, mut build: image_build::Build) -> image_build::Build {
        if let Some(path) = self.manifest {
            build = build.manifest(path);
        }
        if let Some(path) = self.screen {
            build = build.screen(path);
        }
        build
    }
}

/// What a build left that had ended before it could be stopped.
pub(crate) fn built(artifact: BuiltArtifact, py: Python<'_>) -> PyResult<(String, Py<PyAny>)> {
    let BuiltArtifact { name, vmid, node, .. } = &artifact;
    let told = format!("the build had ended all the same: template {vmid} {name} on {node} stays");
    Ok((told, Artifact(artifact).into_pyobject(py)?.into_any().unbind()))
}

fn start_build(
    request: Request,
    on_event: Option<Py<PyAny>>,
    files: Files,
    lease: Duration,
    replace: Option<Replace>,
) -> PyResult<Running<BuiltArtifact, BuildEvent>> {
    Running::undoing(on_event, built, move |events, token| async move {
        let (pve, spec) = resolved(request).await?;
        let build = image_build::build(&pve, spec).events(events).cancel(token).lease(lease);
        let mut build = files.of(build);
        if let Some(replace) = replace {
            build = build.replace(replace);
        }
        Ok(build.await?)
    })
}

/// Builds a template and returns what it left behind.
///
/// The image is described by a template folder, by `spec`, or by the keyword arguments of ImageSpec. The cluster is
/// `client`, or what `url`, `token`, `username`, `password`, `fingerprint`, `ca_file` and `insecure` say; what these
/// leave out is taken from the folder's variables and from PKR_VAR_proxmox_*.
///
/// `on_event` gets each Event, in the thread that waits. If it raises, the build is undone and its exception comes out.
/// Ctrl-C undoes the build and then raises KeyboardInterrupt; a second one stops waiting for the undo. An image that was complete stays:
/// the exception's notes say so, and `result` is the Artifact.
///
/// Args:
///     folder: A template folder.
///     spec: What to build, in place of a folder.
///     variables: The folder's variables; they stand above every file and the environment.
///     var_files: More variable files of the folder.
///     client: The cluster.
///     on_event: Called with each Event.
///     manifest: A file to add the build to, in Packer's manifest shape.
///     lease: How long the build counts as living when this process gives no sign; until then it can be neither resumed nor collected.
///     replace: Build beside the template that has this name and take its place once the new one is finished and verified; the old
///         one is kept under another name ("retire") or deleted ("delete").
///     verify: False replaces without booting two clones of the new template first.
///     ip_configs: Addresses of these two clones, for networks without DHCP.
///     verify_timeout: How long one of these clones may take to its login, and k3s from there; 600 seconds if not given.
///     screen: Where a picture of the guest's screen (PNG) goes when a step fails; beside `manifest` if not given.
#[pyfunction]
#[pyo3(
    signature = (folder=None, *, spec=None, variables=None, var_files=Vec::new(), client=None, on_event=None, manifest=None, lease=Seconds::Number(300.0), replace=None, verify=None, ip_configs=None, verify_timeout=None, screen=None, **keywords),
    text_signature = "(folder=None, *, spec=None, variables=None, var_files=(), client=None, on_event=None, manifest=None, lease=300.0, replace=None, verify=None, ip_configs=None, verify_timeout=None, screen=None, **keywords)"
)]
pub(crate) fn build(
    py: Python<'_>,
    folder: Option<PathBuf>,
    spec: Option<Py<ImageSpec>>,
    variables: Option<&Bound<'_, PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    on_event: Option<Py<PyAny>>,
    manifest: Option<PathBuf>,
    lease: Seconds,
    replace: Option<String>,
    verify: Option<bool>,
    ip_configs: Option<(String, String)>,
    verify_timeout: Option<Seconds>,
    screen: Option<PathBuf>,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<Artifact> {
    let lease = lease.duration("lease")?;
    let replace = replacing(replace.as_deref(), verify, ip_configs, verify_timeout)?;
    let request = Request::read(
        py,
        folder,
        spec.as_ref(),
        variables,
        var_files,
        client.as_ref(),
        keywords,
    )?;
    start_build(request, on_event, Files { manifest, screen }, lease, replace)?
        .wait(py)
        .map(Artifact)
}

/// Builds a template, awaited: as build(), with on_event called in the event loop's thread.
///
/// Cancelling the awaitable undoes the build before the cancellation is passed on; cancelling it again stops waiting.
#[pyfunction]
#[pyo3(
    signature = (folder=None, *, spec=None, variables=None, var_files=Vec::new(), client=None, on_event=None, manifest=None, lease=Seconds::Number(300.0), replace=None, verify=None, ip_configs=None, verify_timeout=None, screen=None, **keywords),
    text_signature = "(folder=None, *, spec=None, variables=None, var_files=(), client=None, on_event=None, manifest=None, lease=300.0, replace=None, verify=None, ip_configs=None, verify_timeout=None, screen=None, **keywords)"
)]
pub(crate) async fn build_async(
    folder: Option<PathBuf>,
    spec: Option<Py<ImageSpec>>,
    variables: Option<Py<PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    on_event: Option<Py<PyAny>>,
    manifest: Option<PathBuf>,
    lease: Seconds,
    replace: Option<String>,
    verify: Option<bool>,
    ip_configs: Option<(String, String)>,
    verify_timeout: Option<Seconds>,
    screen: Option<PathBuf>,
    keywords: Option<Py<PyDict>>,
    #[pyo3(cancel_handle)] cancel: CancelHandle,
) -> PyResult<Artifact> {
    let lease = lease.duration("lease")?;
    let replace = replacing(replace.as_deref(), verify, ip_configs, verify_timeout)?;
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
    start_build(request, on_event, Files { manifest, screen }, lease, replace)?
        .drive(cancel)
        .await
        .map(Artifact)
}

/// Looks at the cluster for whatever would stop a build, and changes nothing. Takes the arguments of build(),
/// but for `on_event`, `manifest`, `screen`, `lease` and `verify_timeout`, which change nothing here.
#[pyfunction]
#[pyo3(
    signature = (folder=None, *, spec=None, variables=None, var_files=Vec::new(), client=None, replace=None, verify=None, ip_configs=None, **keywords),
    text_signature = "(folder=None, *, spec=None, variables=None, var_files=(), client=None, replace=None, verify=None, ip_configs=None, **keywords)"
)]
pub(crate) fn plan(
    py: Python<'_>,
    folder: Option<PathBuf>,
    spec: Option<Py<ImageSpec>>,
    variables: Option<&Bound<'_, PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    replace: Option<String>,
    verify: Option<bool>,
    ip_configs: Option<(String, String)>,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<PlanReport> {
    let replace = replacing(replace.as_deref(), verify, ip_configs, None)?;
    let request = Request::read(
        py,
        folder,
        spec.as_ref(),
        variables,
        var_files,
        client.as_ref(),
        keywords,
    )?;
    block(py, look(request, replace))
}

/// Looks at the cluster for whatever would stop a build, awaited: as plan().
#[pyfunction]
#[pyo3(
    signature = (folder=None, *, spec=None, variables=None, var_files=Vec::new(), client=None, replace=None, verify=None, ip_configs=None, **keywords),
    text_signature = "(folder=None, *, spec=None, variables=None, var_files=(), client=None, replace=None, verify=None, ip_configs=None, **keywords)"
)]
pub(crate) async fn plan_async(
    folder: Option<PathBuf>,
    spec: Option<Py<ImageSpec>>,
    variables: Option<Py<PyMapping>>,
    var_files: Vec<PathBuf>,
    client: Option<Py<Client>>,
    replace: Option<String>,
    verify: Option<bool>,
    ip_configs: Option<(String, String)>,
    keywords: Option<Py<PyDict>>,
) -> PyResult<PlanReport> {
    let replace = replacing(replace.as_deref(), verify, ip_configs, None)?;
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
    spawn(look(request, replace)).await
}

/// Checks a template folder without network and returns its warnings; what is wrong raises InvalidInputError.
#[pyfunction]
#[pyo3(
    signature = (folder, *, variables=None, var_files=Vec::new()),
    text_signature = "(folder, *, variables=None, var_files=())"
)]
pub(crate) fn validate(
    py: Python<'_>,
    folder: PathBuf,
    variables: Option<&Bound<'_, PyMapping>>,
    var_files: Vec<PathBuf>,
) -> PyResult<Vec<Finding>> {
    let inputs = FolderInputs::read(folder, variables, var_files)?;
    let loaded = py.detach(|| inputs.load())?;
    Ok(loaded.warnings.iter().map(Finding::from).collect())
}

/// Writes a template folder, ready to edit. Nothing that exists is overwritten. Returns the files that were written.
#[pyfunction]
pub(crate) fn init(py: Python<'_>, folder: PathBuf) -> PyResult<Vec<PathBuf>> {
    Ok(py
        .detach(|| image_build::assets::init(&folder))
        .map_err(Failure::from)?)
}
