//! The template that a build is to take the place of: whether it may, and what stands on it.

mod grants;
mod space;

pub(super) use grants::{Exchange, Paths, grants_replacing};

use proxmox_client::{Client, ConfigView, ErrorKind, NodeName, Resource, StorageStatus, VmConfig, Vmid};

use super::checks::{self, describe};
use super::report::PlanReport;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::build::{BUILD_TAG_PREFIX, IMAGE_TAG};
use crate::journal;
use crate::replace::{OldTemplate, Replace, Replacing, linked_clones, vms};
use crate::spec::{ImageSpec, TemplateName};

/// What the findings are called.
const CHECK: &str = "replace";

/// The exchange of vmids that a replacement will be, as far as the cluster's list tells: the guest with the image's name has the
/// vmid that the spec names. Whether it may be replaced is for [`replaced`] to say.
pub(super) async fn exchange(
    client: &Client,
    spec: &ImageSpec,
    resources: &[Resource],
    virtual_networks: &[&str],
) -> Result<Option<Exchange>, Error> {
    let named = resources
        .iter()
        .find(|guest| guest.is_qemu() && guest.vmid.is_some() && guest.vmid == spec.vmid);
    let TemplateName::Fixed(name) = &spec.name else {
        return Ok(None);
    };
    let Some(guest) = named.filter(|guest| guest.name.as_deref() == Some(name)) else {
        return Ok(None);
    };
    let (Some(vmid), Some(node)) = (guest.vmid, guest.node.as_deref()) else {
        return Ok(None);
    };
    let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
    // What cannot be read has its own finding.
    let config = client.node(&node).qemu(vmid).config(ConfigView::Pending).await;
    let of = |config: &VmConfig| Exchange::of(config, guest.pool.as_deref(), virtual_networks);
    Ok(Some(config.as_ref().map(of).unwrap_or_default()))
}

/// The image's name, and the template that bears it now.
pub(super) async fn replaced(
    report: &mut PlanReport,
    client: &Client,
    spec: &ImageSpec,
    replace: &Replace,
    guests: &[&Resource],
    storages: &[StorageStatus],
) -> Result<(String, Option<Replacing>), Error> {
    let TemplateName::Fixed(name) = &spec.name else {
        let name = checks::name(report, spec, guests);
        report.error(
            CHECK,
            format!("no name is set, so that the next free one would be taken ({name}), which replaces nothing"),
            "set image_version to the name of the template that is to be replaced, or leave --replace out",
        );
        return Ok((name, None));
    };
    let named: Vec<&Resource> = guests
        .iter()
        .filter(|guest| guest.name.as_deref() == Some(name))
        .copied()
        .collect();
    let old = match named.as_slice() {
        [] => {
            report.ok(CHECK, format!("no template {name} to replace: an ordinary build"));
            return Ok((name.clone(), None));
        }
        [one] => one,
        many => {
            let all: Vec<String> = many.iter().map(|guest| describe(guest)).collect();
            report.error(
                CHECK,
                format!("{} guests are called {name}: {}", many.len(), all.join(", ")),
                "rename all but the template that is to be replaced",
            );
            return Ok((name.clone(), None));
        }
    };
    let (Some(vmid), Some(node), true) = (old.vmid, old.node.as_deref(), old.is_qemu()) else {
        not_ours(report, name, old, "is a container");
        return Ok((name.clone(), None));
    };
    let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
    // The cluster's list can lag; the template itself is asked.
    let config = match client.node(&node).qemu(vmid).config(ConfigView::Pending).await {
        Ok(config) => config,
        Err(error) if error.is_not_found() => {
            report.ok(CHECK, format!("no template {name} to replace: an ordinary build"));
            return Ok((name.clone(), None));
        }
        // The privilege has its own finding.
        Err(error) if error.kind() == ErrorKind::Permission => return Ok((name.clone(), None)),
        Err(error) if error.kind() == ErrorKind::Proxy => {
            report.error(
                CHECK,
                format!("template {} cannot be read: {error}", describe(old)),
                format!("bring node {node} back"),
            );
            return Ok((name.clone(), None));
        }
        Err(error) => return Err(Error::api(format!("reading template {vmid}"))(error)),
    };
    if let Some(reason) = foreign(&config) {
        not_ours(report, name, old, reason);
        return Ok((name.clone(), None));
    }
    if let Some(other) = other_builder(client, name, guests).await? {
        report.error(
            CHECK,
            format!("{other} is replacing {name} already"),
            "wait for it; `k3simage gc` shows it",
        );
        return Ok((name.clone(), None));
    }
    verifiable(report, spec, replace);
    let renumber = spec.vmid == Some(vmid);
    let clones = clones(report, client, &node, vmid, &config, (replace, renumber)).await?;
    may_be_deleted(report, vmid, &config, replace, renumber);
    let then = match replace.old {
        OldTemplate::Retire => "kept under another name",
        OldTemplate::Delete => "deleted",
    };
    let verified = if replace.verify {
        "verified"
    } else {
        "finished, unverified"
    };
    let mut exchanged = String::new();
    if renumber {
        let another = match replace.old {
            OldTemplate::Retire => ", and the old one another",
            OldTemplate::Delete => "",
        };
        let copies = space::copies(spec, &config, replace.old);
        exchanged = format!("; the new one gets vmid {vmid} at the end{another} ({copies})");
        space::check(report, spec, storages, &config, replace.old);
    }
    report.ok(
        CHECK,
        format!(
            "template {} is {then} once the new one is {verified}{clones}{exchanged}",
            describe(old)
        ),
    );
    Ok((name.clone(), Some(replace.of_template(vmid, renumber))))
}

fn not_ours(report: &mut PlanReport, name: &str, guest: &Resource, reason: &str) {
    report.error(
        CHECK,
        format!(
            "{name} is {}, which {reason}: only finished templates that k3simage made are replaced",
            describe(guest)
        ),
        "set another name, or remove or rename that one yourself",
    );
}

/// Why it is not to be replaced.
fn foreign(config: &VmConfig) -> Option<&'static str> {
    let tags = config.tags();
    if tags.iter().any(|tag| tag.starts_with(BUILD_TAG_PREFIX)) {
        Some("is being built")
    } else if !config.is_template() {
        Some("is a VM and no template")
    } else if !tags.iter().any(|tag| tag == IMAGE_TAG) {
        Some("does not bear the tag k3simage")
    } else {
        None
    }
}

/// A living build that is to take the same place.
async fn other_builder(client: &Client, name: &str, guests: &[&Resource]) -> Result<Option<String>, Error> {
    for guest in guests.iter().filter(|guest| guest.is_qemu()) {
        let tags = guest.tags();
        let build = tags.iter().find(|tag| tag.starts_with(BUILD_TAG_PREFIX));
        let (Some(_), Some(vmid), Some(node)) = (build, guest.vmid, guest.node.as_deref()) else {
            continue;
        };
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
        // One that cannot be read now is met again at the swap.
        let Ok(config) = client.node(&node).qemu(vmid).config(ConfigView::Pending).await else {
            continue;
        };
        let journal = journal::read(config.description().unwrap_or_default()).ok().flatten();
        let Some(journal) = journal.filter(|journal| journal.vmid == vmid && journal.image == *name) else {
            continue;
        };
        if journal.replacing.is_some() && journal.is_held(journal::now(client)) {
            return Ok(Some(format!("build {} (vm {vmid} on {node})", journal.build)));
        }
    }
    Ok(None)
}

/// Whether clones of the new template can be looked at.
fn verifiable(report: &mut PlanReport, spec: &ImageSpec, replace: &Replace) {
    if !replace.verify {
        return;
    }
    let lacks = if spec.cloud_init.is_none() {
        "cloud-init drive, so that a clone cannot be given a key to log in with (vm_cloud_init_storage_pool)"
    } else if spec.nics.is_empty() {
        "network device, so that a clone cannot be reached"
    } else {
        return;
    };
    report.error(
        CHECK,
        format!("the new template cannot be verified: the image has no {lacks}"),
        "add it, or give --no-verify to replace the old template with one that nobody has tried",
    );
}

/// What stands on its disks, for people; an error where it is to be deleted.
async fn clones(
    report: &mut PlanReport,
    client: &Client,
    node: &NodeName,
    vmid: Vmid,
    config: &VmConfig,
    (replace, renumber): (&Replace, bool),
) -> Result<String, Error> {
    let (clones, unseen) = linked_clones(client, node, vmid, config, &CancellationToken::new()).await?;
    if !unseen.is_empty() {
        let unseen: Vec<&str> = unseen.iter().map(proxmox_client::StorageId::as_str).collect();
        report.warning(
            CHECK,
            format!(
                "whether linked clones stand on template {vmid} cannot be seen on {}",
                unseen.join(", ")
            ),
            "Proxmox VE itself refuses to delete what they stand on; Datastore.Audit there would let the plan tell",
        );
    }
    if clones.is_empty() {
        return Ok(String::new());
    }
    let listed = vms(&clones);
    if renumber {
        report.error(
            CHECK,
            format!("template {vmid} cannot give up its vmid: linked clones stand on it ({listed})"),
            "set vm_id to 0, so that the new template gets the next free vmid, or remove or move those VMs first",
        );
    } else if replace.old == OldTemplate::Delete {
        report.error(
            CHECK,
            format!("template {vmid} cannot be deleted: linked clones stand on it ({listed})"),
            "keep it with --replace=retire, or remove or move those VMs first",
        );
    }
    Ok(format!("; its linked clones ({listed}) stay as they are"))
}

fn may_be_deleted(report: &mut PlanReport, vmid: Vmid, config: &VmConfig, replace: &Replace, renumber: bool) {
    if config.flag("protection") != Some(true) {
        return;
    }
    let unprotect = format!("run on a node: qm set {vmid} --protection 0");
    if renumber {
        report.error(
            CHECK,
            format!("template {vmid} cannot give up its vmid: it is protected"),
            format!("set vm_id to 0, so that the new template gets the next free vmid, or {unprotect}"),
        );
    } else if replace.old == OldTemplate::Delete {
        report.error(
            CHECK,
            format!("template {vmid} cannot be deleted: it is protected"),
            format!("keep it with --replace=retire, or {unprotect}"),
        );
    }
}
