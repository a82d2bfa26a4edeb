//! Verification of a template: two clones of it are booted, compared, and removed again.
//!
//! The first clone is told nothing and comes up as whatever the image says; the second is told, by a small volume, to join the
//! first. What they tell of themselves comes over SSH with a key made for this one verification, because a sealed image's agent
//! runs no programs and opens no files. Nothing knows a clone's host key before its first boot, so the first one shown is
//! trusted and no other after it; at the end it must be among the clone's own files.

mod clones;
mod compare;
mod context;
mod facts;
mod grants;
mod report;
mod run;
mod spec;
mod steps;
mod survey;

pub(crate) use grants::grants_on_vms;
pub use grants::verify_grants;
pub use report::{Check, CloneReport, Outcome, VERIFY_REPORT_VERSION, VerifyReport};
pub(crate) use run::CLONE_NAME_PREFIX;
pub use run::{VERIFY_TAG_PREFIX, Verify, verify};
pub use spec::{VerifySpec, VerifyTimeouts};

use proxmox_client::Client;

use crate::Error;
use crate::plan::PlanReport;

/// Looks at the cluster for whatever would stop a verification. Changes nothing; the first step of [`verify()`] asks the same.
///
/// # Errors
/// [`Error::Invalid`] for a spec that cannot be, [`Error::Api`] when the cluster cannot be asked at all. What is wrong with what it
/// answers is in the report.
///
/// # Cancel safety
/// Only reads; may be dropped at any time.
///
/// # Source
/// `/version`, `/access/permissions`, `/cluster/resources`, `/cluster/nextid`, the template's configuration, and of its node `storage` and
/// `network`; PVE 8 and 9.
pub async fn preflight(client: &Client, spec: &VerifySpec) -> Result<PlanReport, Error> {
    spec.check().map_err(Error::Invalid)?;
    survey::survey(client, spec).await.map(|(report, _)| report)
}
