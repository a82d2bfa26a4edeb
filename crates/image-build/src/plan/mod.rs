//! Preflight: everything about the cluster that would stop a build, found before anything is created.

mod checks;
mod media;
mod privileges;
mod report;
mod survey;

pub use report::{Finding, Level, PlanReport};
pub(crate) use survey::{GUESTS, InstallerIso, Resolved, survey};

use proxmox_client::Client;

use crate::Error;
use crate::spec::ImageSpec;

/// Looks at the cluster for whatever would stop a build of `spec`. Changes nothing.
///
/// # Errors
/// [`Error::Api`] when the cluster cannot be asked at all: address, certificate, login. What is wrong with what it answers
/// is in the report.
///
/// # Cancel safety
/// Only reads; may be dropped at any time.
///
/// # Source
/// `/version`, `/access/permissions`, `/cluster/resources`, `/cluster/nextid`, and of the node `storage`, `network`,
/// `capabilities/qemu/cpu` and the ISO storage's `content`; PVE 8 and 9.
pub async fn plan(client: &Client, spec: &ImageSpec) -> Result<PlanReport, Error> {
    survey(client, spec).await.map(|(report, _)| report)
}
