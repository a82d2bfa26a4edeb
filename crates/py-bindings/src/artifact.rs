//! `Artifact`: what a build leaves behind.

use image_build::build::Artifact as BuiltArtifact;
use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyTzInfo};

use crate::errors::invalid_input;
use crate::event::seconds_since_epoch;
use crate::json::Json;

/// A finished template.
#[pyclass(frozen, eq, module = "k3simage")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Artifact(pub(crate) BuiltArtifact);

#[pymethods]
impl Artifact {
    /// Name of the template.
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
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

    /// Short id of the build.
    #[getter]
    fn build_id(&self) -> &str {
        &self.0.build_id
    }

    /// SHA-256 over what the image was asked to be; equal inputs give equal hashes.
    #[getter]
    fn spec_hash(&self) -> &str {
        &self.0.spec_hash
    }

    /// The version of Proxmox VE that built it.
    #[getter]
    fn pve_version(&self) -> &str {
        &self.0.pve_version
    }

    /// When it was finished, in UTC.
    #[getter]
    fn finished<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDateTime>> {
        PyDateTime::from_timestamp(py, seconds_since_epoch(self.0.finished), Some(&*PyTzInfo::utc(py)?))
    }

    /// Tags on the template.
    #[getter]
    fn tags(&self) -> Vec<String> {
        self.0.tags.clone()
    }

    /// Each step with its seconds, in order.
    #[getter]
    fn timings(&self) -> Vec<(String, f64)> {
        self.0
            .timings
            .iter()
            .map(|timing| (timing.step.clone(), timing.seconds))
            .collect()
    }

    /// The vmid of the template that it took the place of: the one that it has now, when it was moved so that this one could have its own; None
    /// when it replaced none.
    #[getter]
    fn replaced_vmid(&self) -> Option<u32> {
        self.0.replaced.as_ref().map(|old| old.vmid)
    }

    /// The name under which the replaced template is kept; None when it is gone, or none was replaced.
    #[getter]
    fn retired_name(&self) -> Option<&str> {
        self.0.replaced.as_ref()?.kept_as.as_deref()
    }

    /// How many API requests the build sent.
    #[getter]
    fn api_requests(&self) -> u64 {
        self.0.api_requests
    }

    /// All fields, as the manifest holds them.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let fields =
            serde_json::to_value(&self.0).map_err(|cause| invalid_input(&format!("internal error: {cause}")))?;
        Json(fields).into_pyobject(py)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (&self.0.run_uuid, self.0.vmid).into_pyobject(py)?.hash()
    }

    fn __repr__(&self) -> String {
        format!("<k3simage.Artifact {} {} on {}>", self.0.vmid, self.0.name, self.0.node)
    }
}
