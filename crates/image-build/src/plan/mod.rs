//! Preflight: everything about the cluster that would stop a build, found before anything is created.

pub(crate) mod checks;
mod media;
mod privileges;
mod replace;
mod report;
mod survey;

pub use privileges::Grant;
pub(crate) use privileges::Held;
pub use report::{Finding, Level, PlanReport};
pub(crate) use survey::{GUESTS, InstallerIso, Own, Resolved, survey, survey_of};

use proxmox_client::Client;

use self::replace::{Exchange, Paths};
use crate::Error;
use crate::replace::Replace;
use crate::spec::ImageSpec;

/// The privileges that a build of `spec` needs on Proxmox VE `pve_major` (8 or 9), path by path, and no other.
///
/// They are right for networks that are bridges of the node; a virtual network of an SDN zone has a path of its own.
///
/// ```
/// let spec = image_build::ImageSpec::builder().k3s_version("v1.31.3+k3s1".parse()?).node("pve").build()?;
/// let grants = image_build::plan::grants(&spec, 9);
/// assert_eq!(grants[0].path, "/vms");
/// assert!(grants[0].privileges.contains(&"VM.Allocate"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn grants(spec: &ImageSpec, pve_major: u32) -> Vec<Grant> {
    privileges::grants_with(spec, pve_major, "/vms", &[])
}

/// The same for a build that takes the place of a template of its name; when `spec` names a vmid, of one that has it, whose disks,
/// networks and pool are as those of `spec`.
pub fn grants_replacing(spec: &ImageSpec, pve_major: u32, replace: &Replace) -> Vec<Grant> {
    let paths = Paths {
        new: "/vms",
        old: "/vms",
        clone: "/vms",
        virtual_networks: &[],
    };
    let exchange = spec.vmid.map(|_| Exchange {
        pool: spec.pool.as_ref().map(ToString::to_string),
        ..Exchange::default()
    });
    replace::grants_replacing(spec, pve_major, replace, paths, exchange.as_ref())
}

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
    survey(client, spec, None).await.map(|(report, _)| report)
}

/// The same for a build that is to take the place of a template of its name ([`Build::replace`](crate::Build::replace)).
///
/// # Errors
/// As [`plan`].
///
/// # Cancel safety
/// Only reads; may be dropped at any time.
///
/// # Source
/// As [`plan`], and the old template's configuration, those of builds under way, and the disks on its storages.
pub async fn plan_replacing(client: &Client, spec: &ImageSpec, replace: &Replace) -> Result<PlanReport, Error> {
    survey(client, spec, Some(replace)).await.map(|(report, _)| report)
}
