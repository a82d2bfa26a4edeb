//! `Finding` and `PlanReport`: what was found in a folder or on a cluster before anything is created.

use image_build::plan::{Finding as PlanFinding, Level, PlanReport as Report};
use image_build::{Diagnostic, Severity};
use pyo3::prelude::*;

/// One thing that was checked.
#[pyclass(frozen, get_all, eq, hash, module = "k3simage")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Finding {
    /// "ok", "warning" or "error".
    level: &'static str,
    /// The variable or field, or what of the cluster was checked.
    subject: String,
    /// What was found.
    message: String,
    /// What to do about it.
    help: Option<String>,
    /// The file in which it stands.
    file: Option<String>,
    /// The line, counted from 1.
    line: Option<usize>,
    /// Everything, as the command prints it.
    text: String,
}

#[pymethods]
impl Finding {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("<k3simage.Finding {} {}: {}>", self.level, self.subject, self.message)
    }
}

impl From<&Diagnostic> for Finding {
    fn from(diagnostic: &Diagnostic) -> Self {
        let level = if diagnostic.severity == Severity::Warning {
            "warning"
        } else {
            "error"
        };
        let place = diagnostic.location.as_ref();
        Self {
            level,
            subject: diagnostic.subject.clone(),
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
            file: place.map(|place| place.file.display().to_string()),
            line: place.map(|place| place.line),
            text: diagnostic.to_string(),
        }
    }
}

impl From<&PlanFinding> for Finding {
    fn from(finding: &PlanFinding) -> Self {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        Self {
            level,
            subject: finding.check.clone(),
            message: finding.message.clone(),
            help: finding.fix.clone(),
            file: None,
            line: None,
            text: finding.to_string(),
        }
    }
}

/// What a look at the cluster found, and what a build would make there.
#[pyclass(frozen, module = "k3simage")]
#[derive(Debug)]
pub(crate) struct PlanReport(pub(crate) Report);

#[pymethods]
impl PlanReport {
    /// Whether a build could begin.
    #[getter]
    fn ok(&self) -> bool {
        self.0.is_ok()
    }

    /// Name of the image, its iteration chosen.
    #[getter]
    fn image(&self) -> &str {
        &self.0.image
    }

    /// The node that it would be built on.
    #[getter]
    fn node(&self) -> &str {
        &self.0.node
    }

    /// The version of Proxmox VE.
    #[getter]
    fn pve_version(&self) -> &str {
        &self.0.pve_version
    }

    /// The id that the template would get, as far as it can be known before it is taken.
    #[getter]
    fn vmid(&self) -> Option<u32> {
        self.0.vmid
    }

    /// The vmid of the template that would be replaced; None when that was not asked, or there is none.
    #[getter]
    fn replaces(&self) -> Option<u32> {
        self.0.replaces
    }

    /// All findings in the order of the checks.
    #[getter]
    fn findings(&self) -> Vec<Finding> {
        self.0.findings.iter().map(Finding::from).collect()
    }

    fn __repr__(&self) -> String {
        let verdict = if self.0.is_ok() {
            "can be built"
        } else {
            "cannot be built"
        };
        format!("<k3simage.PlanReport {} {verdict} on {}>", self.0.image, self.0.node)
    }
}
