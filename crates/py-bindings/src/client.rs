//! `Client`: the handles of the Proxmox VE API that a script needs, each as a plain and as an awaited call.

mod calls;
mod raw;
mod upload;

use std::future::Future;
use std::path::PathBuf;

use proxmox_client::{Client as Pve, ConfigView, Content, NodeName, StorageId, VmConfig, Vmid};
use pyo3::coroutine::CancelHandle;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::access::Access;
use crate::errors::{Failure, invalid_input};
use crate::inventory::{Node, Version, Vm, Volume};
use crate::json::Json;
use crate::runtime::{block, spawn};
use crate::seconds::Seconds;
use calls::{Answer, delete_vm, delete_volume, nodes, storage_content, version, vm_config, vms, wait_task};
use raw::RawCall;
use upload::IsoUpload;

/// A connection to a Proxmox VE server.
///
/// Cheap to share between threads. Every method has an awaited twin whose name ends in `_async`.
///
/// Args:
///     url: `https://host:8006`; without it the environment says where and as whom.
///     token: An API token as `user@realm!name=secret`.
///     username: A user, for `password`.
///     password: The user's password.
///     fingerprint: SHA-256 of the server's certificate; it decides alone.
///     ca_file: PEM file of the authority that vouches for the server.
///     insecure: Accept any certificate: whoever sits in between reads the token.
#[pyclass(frozen, module = "k3simage")]
#[derive(Debug)]
pub(crate) struct Client {
    pve: Pve,
}

impl Client {
    pub(crate) fn new(pve: Pve) -> Self {
        Self { pve }
    }

    pub(crate) fn pve(&self) -> &Pve {
        &self.pve
    }
}

fn node(name: &str) -> PyResult<NodeName> {
    NodeName::new(name).map_err(|error| Failure::from(error).into())
}

fn parsed<T>(result: Result<T, proxmox_client::Error>) -> PyResult<T> {
    result.map_err(|error| Failure::from(error).into())
}

fn view(name: &str) -> PyResult<ConfigView> {
    match name {
        "pending" => Ok(ConfigView::Pending),
        "current" => Ok(ConfigView::Current),
        _ => Err(invalid_input(&format!(
            "view {name:?} is none: give \"pending\" or \"current\""
        ))),
    }
}

fn config_dict(py: Python<'_>, config: &VmConfig) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    for (option, text) in config.iter() {
        dict.set_item(option, text)?;
    }
    Ok(dict.unbind())
}

async fn config_dict_async(work: impl Future<Output = Answer<VmConfig>> + Send + 'static) -> PyResult<Py<PyDict>> {
    let config = spawn(work).await?;
    Python::attach(|py| config_dict(py, &config))
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (url=None, *, token=None, username=None, password=None, fingerprint=None, ca_file=None, insecure=false))]
    fn py_new(
        py: Python<'_>,
        url: Option<String>,
        token: Option<String>,
        username: Option<String>,
        password: Option<String>,
        fingerprint: Option<String>,
        ca_file: Option<PathBuf>,
        insecure: bool,
    ) -> PyResult<Self> {
        let access = Access {
            url,
            token,
            username,
            password,
            fingerprint,
            ca_file,
            insecure,
        };
        py.detach(|| access.client()).map(Self::new)
    }

    /// The server's address: scheme, host and port.
    #[getter]
    fn url(&self) -> &str {
        self.pve.endpoint()
    }

    /// Who the caller is: the full token name or the user.
    #[getter]
    fn identity(&self) -> &str {
        self.pve.identity()
    }

    fn __repr__(&self) -> String {
        format!("<k3simage.Client {} as {}>", self.pve.endpoint(), self.pve.identity())
    }

    /// The server's version; asked once and kept.
    fn version(&self, py: Python<'_>) -> PyResult<Version> {
        block(py, version(self.pve.clone()))
    }

    /// The server's version; asked once and kept.
    async fn version_async(&self) -> PyResult<Version> {
        spawn(version(self.pve.clone())).await
    }

    /// The nodes of the cluster.
    fn nodes(&self, py: Python<'_>) -> PyResult<Vec<Node>> {
        block(py, nodes(self.pve.clone()))
    }

    /// The nodes of the cluster.
    async fn nodes_async(&self) -> PyResult<Vec<Node>> {
        spawn(nodes(self.pve.clone())).await
    }

    /// The VMs and templates that the caller may see, on all nodes; may lag by ten seconds.
    fn vms(&self, py: Python<'_>) -> PyResult<Vec<Vm>> {
        block(py, vms(self.pve.clone(), false))
    }

    /// The VMs and templates that the caller may see, on all nodes; may lag by ten seconds.
    async fn vms_async(&self) -> PyResult<Vec<Vm>> {
        spawn(vms(self.pve.clone(), false)).await
    }

    /// The templates that the caller may see, on all nodes; may lag by ten seconds.
    fn templates(&self, py: Python<'_>) -> PyResult<Vec<Vm>> {
        block(py, vms(self.pve.clone(), true))
    }

    /// The templates that the caller may see, on all nodes; may lag by ten seconds.
    async fn templates_async(&self) -> PyResult<Vec<Vm>> {
        spawn(vms(self.pve.clone(), true)).await
    }

    /// A VM's options, each as text; with view "current" those of the running machine.
    #[pyo3(signature = (node, vmid, *, view="pending"), text_signature = "($self, node, vmid, *, view=\"pending\")")]
    fn vm_config(&self, py: Python<'_>, node: &str, vmid: u32, view: &str) -> PyResult<Py<PyDict>> {
        let work = vm_config(
            self.pve.clone(),
            crate::client::node(node)?,
            parsed(Vmid::new(vmid))?,
            crate::client::view(view)?,
        );
        config_dict(py, &block(py, work)?)
    }

    /// A VM's options, each as text; with view "current" those of the running machine.
    #[pyo3(
        signature = (node, vmid, *, view=String::from("pending")),
        text_signature = "($self, node, vmid, *, view=\"pending\")"
    )]
    async fn vm_config_async(&self, node: String, vmid: u32, view: String) -> PyResult<Py<PyDict>> {
        let view = crate::client::view(&view)?;
        config_dict_async(vm_config(
            self.pve.clone(),
            crate::client::node(&node)?,
            parsed(Vmid::new(vmid))?,
            view,
        ))
        .await
    }

    /// Deletes a stopped VM or a template with its disks; returns the task's warnings.
    #[pyo3(
        signature = (node, vmid, *, timeout=Seconds::Number(300.0)),
        text_signature = "($self, node, vmid, *, timeout=300.0)"
    )]
    fn delete_vm(&self, py: Python<'_>, node: &str, vmid: u32, timeout: Seconds) -> PyResult<Vec<String>> {
        let (node, vmid) = (crate::client::node(node)?, parsed(Vmid::new(vmid))?);
        block(
            py,
            delete_vm(self.pve.clone(), node, vmid, false, timeout.duration("timeout")?),
        )
    }

    /// Deletes a stopped VM or a template with its disks; returns the task's warnings.
    #[pyo3(
        signature = (node, vmid, *, timeout=Seconds::Number(300.0)),
        text_signature = "($self, node, vmid, *, timeout=300.0)"
    )]
    async fn delete_vm_async(&self, node: String, vmid: u32, timeout: Seconds) -> PyResult<Vec<String>> {
        let (node, vmid) = (crate::client::node(&node)?, parsed(Vmid::new(vmid))?);
        spawn(delete_vm(
            self.pve.clone(),
            node,
            vmid,
            false,
            timeout.duration("timeout")?,
        ))
        .await
    }

    /// Deletes a template with its disks; refuses what is no template. Returns the task's warnings.
    #[pyo3(
        signature = (node, vmid, *, timeout=Seconds::Number(300.0)),
        text_signature = "($self, node, vmid, *, timeout=300.0)"
    )]
    fn delete_template(&self, py: Python<'_>, node: &str, vmid: u32, timeout: Seconds) -> PyResult<Vec<String>> {
        let (node, vmid) = (crate::client::node(node)?, parsed(Vmid::new(vmid))?);
        block(
            py,
            delete_vm(self.pve.clone(), node, vmid, true, timeout.duration("timeout")?),
        )
    }

    /// Deletes a template with its disks; refuses what is no template. Returns the task's warnings.
    #[pyo3(
        signature = (node, vmid, *, timeout=Seconds::Number(300.0)),
        text_signature = "($self, node, vmid, *, timeout=300.0)"
    )]
    async fn delete_template_async(&self, node: String, vmid: u32, timeout: Seconds) -> PyResult<Vec<String>> {
        let (node, vmid) = (crate::client::node(&node)?, parsed(Vmid::new(vmid))?);
        spawn(delete_vm(
            self.pve.clone(),
            node,
            vmid,
            true,
            timeout.duration("timeout")?,
        ))
        .await
    }

    /// What a storage holds, or only the volumes of one content type such as "iso".
    #[pyo3(signature = (node, storage, *, content=None))]
    fn storage_content(
        &self,
        py: Python<'_>,
        node: &str,
        storage: &str,
        content: Option<&str>,
    ) -> PyResult<Vec<Volume>> {
        let (node, storage) = (crate::client::node(node)?, parsed(StorageId::new(storage))?);
        block(
            py,
            storage_content(self.pve.clone(), node, storage, content.map(Content::from)),
        )
    }

    /// What a storage holds, or only the volumes of one content type such as "iso".
    #[pyo3(signature = (node, storage, *, content=None))]
    async fn storage_content_async(
        &self,
        node: String,
        storage: String,
        content: Option<String>,
    ) -> PyResult<Vec<Volume>> {
        let (node, storage) = (crate::client::node(&node)?, parsed(StorageId::new(storage))?);
        spawn(storage_content(
            self.pve.clone(),
            node,
            storage,
            content.map(Content::from),
        ))
        .await
    }

    /// Uploads an ISO and returns its volid.
    ///
    /// The server verifies the SHA-256 that is computed here, or `checksum` ("sha256:..."). `on_progress` gets the
    /// bytes sent and the bytes in all. An ISO of the same name is replaced.
    #[pyo3(
        signature = (node, storage, path, *, name=None, checksum=None, on_progress=None, timeout=Seconds::Number(3600.0)),
        text_signature = "($self, node, storage, path, *, name=None, checksum=None, on_progress=None, timeout=3600.0)"
    )]
    fn upload_iso(
        &self,
        py: Python<'_>,
        node: &str,
        storage: &str,
        path: PathBuf,
        name: Option<String>,
        checksum: Option<&str>,
        on_progress: Option<Py<PyAny>>,
        timeout: Seconds,
    ) -> PyResult<String> {
        IsoUpload::read(node, storage, path, name, checksum, timeout)?
            .start(self.pve.clone(), on_progress)?
            .wait(py)?
            .volid()
    }

    /// Uploads an ISO and returns its volid.
    ///
    /// The server verifies the SHA-256 that is computed here, or `checksum` ("sha256:..."). `on_progress` gets the
    /// bytes sent and the bytes in all. An ISO of the same name is replaced.
    #[pyo3(
        signature = (node, storage, path, *, name=None, checksum=None, on_progress=None, timeout=Seconds::Number(3600.0)),
        text_signature = "($self, node, storage, path, *, name=None, checksum=None, on_progress=None, timeout=3600.0)"
    )]
    async fn upload_iso_async(
        &self,
        node: String,
        storage: String,
        path: PathBuf,
        name: Option<String>,
        checksum: Option<String>,
        on_progress: Option<Py<PyAny>>,
        timeout: Seconds,
    ) -> PyResult<String> {
        let upload = IsoUpload::read(&node, &storage, path, name, checksum.as_deref(), timeout)?;
        upload
            .start(self.pve.clone(), on_progress)?
            .drive(CancelHandle::new())
            .await?
            .volid()
    }

    /// Deletes a volume, for example "local:iso/x.iso". One that is not there is no error. Returns the task's warnings.
    #[pyo3(
        signature = (node, volid, *, timeout=Seconds::Number(300.0)),
        text_signature = "($self, node, volid, *, timeout=300.0)"
    )]
    fn delete_volume(&self, py: Python<'_>, node: &str, volid: &str, timeout: Seconds) -> PyResult<Vec<String>> {
        let (node, volume) = (crate::client::node(node)?, parsed(volid.parse())?);
        block(
            py,
            delete_volume(self.pve.clone(), node, volume, timeout.duration("timeout")?),
        )
    }

    /// Deletes a volume, for example "local:iso/x.iso". One that is not there is no error. Returns the task's warnings.
    #[pyo3(
        signature = (node, volid, *, timeout=Seconds::Number(300.0)),
        text_signature = "($self, node, volid, *, timeout=300.0)"
    )]
    async fn delete_volume_async(&self, node: String, volid: String, timeout: Seconds) -> PyResult<Vec<String>> {
        let (node, volume) = (crate::client::node(&node)?, parsed(volid.parse())?);
        spawn(delete_volume(
            self.pve.clone(),
            node,
            volume,
            timeout.duration("timeout")?,
        ))
        .await
    }

    /// Waits for the end of a task and returns its warnings; a failed one raises TaskError.
    #[pyo3(signature = (upid, *, timeout=Seconds::Number(300.0)), text_signature = "($self, upid, *, timeout=300.0)")]
    fn wait_task(&self, py: Python<'_>, upid: &str, timeout: Seconds) -> PyResult<Vec<String>> {
        block(
            py,
            wait_task(self.pve.clone(), parsed(upid.parse())?, timeout.duration("timeout")?),
        )
    }

    /// Waits for the end of a task and returns its warnings; a failed one raises TaskError.
    #[pyo3(signature = (upid, *, timeout=Seconds::Number(300.0)), text_signature = "($self, upid, *, timeout=300.0)")]
    async fn wait_task_async(&self, upid: String, timeout: Seconds) -> PyResult<Vec<String>> {
        spawn(wait_task(
            self.pve.clone(),
            parsed(upid.parse())?,
            timeout.duration("timeout")?,
        ))
        .await
    }

    /// Any call of the API: the path begins below /api2/json. Lists become repeated keys, None is left out.
    #[pyo3(signature = (method, path, /, **params))]
    fn request(&self, py: Python<'_>, method: &str, path: &str, params: Option<&Bound<'_, PyDict>>) -> PyResult<Json> {
        block(py, RawCall::read(method, path, params)?.send(self.pve.clone()))
    }

    /// Any call of the API: the path begins below /api2/json. Lists become repeated keys, None is left out.
    #[pyo3(signature = (method, path, /, **params))]
    async fn request_async(&self, method: String, path: String, params: Option<Py<PyDict>>) -> PyResult<Json> {
        let call = Python::attach(|py| RawCall::read(&method, &path, params.as_ref().map(|params| params.bind(py))))?;
        spawn(call.send(self.pve.clone())).await
    }
}
