//! `VerifyReport`: what a verification found, for people, `verify.json` and the exit code.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::build::StepTiming;
use crate::{Error, whole_file};

/// Version of the report's format. It grows when a field changes its meaning or goes away, not when one is added.
pub const VERIFY_REPORT_VERSION: u32 = 1;

/// What two clones of a template have in common, and how they came up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// [`VERIFY_REPORT_VERSION`].
    pub version: u32,
    /// Whether nothing is shared and nothing failed.
    pub ok: bool,
    /// Name of the template.
    pub template: String,
    /// Its VM id.
    pub vmid: u32,
    /// Node that holds it.
    pub node: String,
    /// Version of Proxmox VE.
    pub pve_version: String,
    /// Short id of this verification, part of the clones' names.
    pub verify_id: String,
    /// When the clones were compared.
    pub finished: Timestamp,
    /// The clones, the one that was told nothing first. They are gone when the verification has ended.
    pub clones: Vec<CloneReport>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// Each step with its seconds.
    pub timings: Vec<StepTiming>,
    /// How many API requests it took.
    pub api_requests: u64,
}

/// One clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloneReport {
    /// Its name and host name.
    pub name: String,
    /// Its VM id.
    pub vmid: u32,
    /// The address it was reached at.
    pub address: String,
    /// The operating system as it names itself.
    pub os: Option<String>,
    /// Seconds from its start to an SSH login.
    pub ssh_seconds: f64,
    /// Seconds from its start until the unit of its k3s role was active; `None` when it has none, or it was not seen.
    pub k3s_seconds: Option<f64>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// As it must be.
    Ok,
    /// Both clones have the same, and must not.
    Shared,
    /// Not as it must be.
    Failed,
    /// It could not be checked, or does not apply; the message says why.
    NotChecked,
}

/// One checked property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked: `machine id`, `k3s token`.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The first clone's value, for people; secrets as the beginning of a salted hash.
    pub first: String,
    /// The second clone's.
    pub second: String,
    /// What was found, and what to do about it unless all is well.
    pub message: String,
}

impl VerifyReport {
    /// Names of what both clones share.
    pub fn shared(&self) -> Vec<&str> {
        self.named(Outcome::Shared)
    }

    /// Names of what is not as it must be, apart from what is shared.
    pub fn failed(&self) -> Vec<&str> {
        self.named(Outcome::Failed)
    }

    fn named(&self, outcome: Outcome) -> Vec<&str> {
        let found = self.checks.iter().filter(|check| check.outcome == outcome);
        found.map(|check| check.name.as_str()).collect()
    }

    /// One line: what is shared, what failed, or that all is well.
    pub fn summary(&self) -> String {
        let (shared, failed) = (self.shared(), self.failed());
        let mut parts = Vec::new();
        if !shared.is_empty() {
            parts.push(format!("the clones share: {}", shared.join(", ")));
        }
        if !failed.is_empty() {
            parts.push(format!("not as it must be: {}", failed.join(", ")));
        }
        if parts.is_empty() {
            let passed = self.checks.iter().filter(|check| check.outcome == Outcome::Ok).count();
            parts.push(format!("{passed} checks passed"));
        }
        let skipped = self.named(Outcome::NotChecked);
        if !skipped.is_empty() {
            parts.push(format!("not checked: {}", skipped.join(", ")));
        }
        parts.join("; ")
    }

    /// Writes the report as JSON. The file is replaced in one step.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source: std::io::Error| Error::Io {
            attempt: "writing",
            path: path.to_owned(),
            source,
        };
        let mut text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        text.push('\n');
        // It holds no secret, and other tools read it.
        whole_file::write(path, text.as_bytes(), 0o644).map_err(failed)
    }
}

/// Whether a report could be written at `path`: asked before anything is cloned.
pub(super) fn check_writable(path: &Path) -> Result<(), Error> {
    let failed = |source: std::io::Error| Error::Io {
        attempt: "writing",
        path: path.to_owned(),
        source,
    };
    // A report's folder is not made, unlike a manifest's.
    let folder = whole_file::folder_of(path).metadata();
    folder.and_then(|_| whole_file::check(path)).map_err(failed)
}
