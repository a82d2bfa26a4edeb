//! Makes the stopped VM what its clones are to be.

use std::sync::Arc;

use async_trait::async_trait;
use proxmox_client::{Boot, ConfigView, Drive, NodeName, Resource, VmConfigUpdate, Vmid};

use super::medium::needs_medium;
use super::template::TEMPLATE;
use crate::Error;
use crate::build::context::Context;
use crate::build::description::{BUILD_TAG_PREFIX, IMAGE_TAG};
use crate::build::slots;
use crate::build::step::{Step, StepName};
use crate::build::vm::ask;
use crate::plan::GUESTS;
use crate::spec::ImageSpec;

/// The step's name.
pub(crate) const FINALISE: &str = "finalise";

/// Cloud-init drive and boot order.
#[derive(Debug)]
pub(super) struct Finalise;

#[async_trait]
impl Step<Context> for Finalise {
    fn name(&self) -> StepName {
        FINALISE.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        context.still_sealed()?;
        context.never_booted().await?;
        if context.replacing.is_none() {
            still_alone(context).await?;
        }
        let order = Boot::order([slots::SYSTEM_DISK]).map_err(Error::api("describing the boot order"))?;
        let mut update = VmConfigUpdate::new().boot(&order).delete(slots::INSTALLER);
        let mut summary = vec![format!("boots from {}", slots::SYSTEM_DISK)];
        let slot = slots::behind_disks(context.spec.disks.len());
        if let Some(storage) = &context.spec.cloud_init {
            summary.push(format!("cloud-init drive on {storage}"));
            if !has_cloud_init(context, &slot).await? {
                update = update.disk(slot, &Drive::cloud_init(storage));
            }
        } else if needs_medium(&context.spec) {
            update = update.delete(slot);
        }
        let keeper = Arc::clone(context.keeper()?);
        keeper
            .change(&context.cancel, &update, None, |journal| {
                TEMPLATE.clone_into(&mut journal.step);
            })
            .await?;
        Ok(summary.join("; "))
    }

    /// The one call that changes the VM notes what comes after it.
    fn is_noted(&self) -> bool {
        false
    }
}

/// Whether a builder that died here had put the drive in: a second one would be made beside it.
async fn has_cloud_init(context: &Context, slot: &str) -> Result<bool, Error> {
    if context.resumed.is_none() {
        return Ok(false);
    }
    let config = context.keeper()?.look(&context.cancel).await?;
    Ok(config.get(slot).is_some_and(|drive| drive.contains("cloudinit")))
}

/// Refuses when someone else has taken the name since preflight; the template that is replaced has it by right, and is shown
/// with it for some seconds more than that. Two builds of the same name that see each other are told
/// apart by their vmids: the lower one goes on, so that one of them always does. It is looked for before the conversion too, because nobody
/// gives way to a template that its builder then has to give up.
///
/// The cluster's list shows a VM that was just made under the name of one that had its vmid before (`FACTS` 80), so who seems to have
/// the name is asked for it, and so is a build's VM that is listed without any.
pub(super) async fn still_alone(context: &Context) -> Result<(), Error> {
    let vmid = context.vmid()?;
    let name = &context.resolved()?.name;
    let old = context.replacing.as_ref().map(|replacing| replacing.vmid);
    let guests = ask("listing the cluster's guests", &context.cancel, || {
        context.client.cluster_resources(Some(GUESTS))
    })
    .await?;
    let seems_to = |guest: &&Resource| match &guest.name {
        Some(other) => other == name,
        None => guest.tags().iter().any(|tag| tag.starts_with(BUILD_TAG_PREFIX)),
    };
    for guest in guests.iter().filter(seems_to) {
        let Some(other) = guest.vmid.filter(|other| *other != vmid && Some(*other) != old) else {
            continue;
        };
        if bears(context, guest, name, vmid).await? {
            return Err(Error::Taken {
                what: format!("the name {name}"),
                by: format!("guest {other}, which appeared during the build"),
            });
        }
    }
    Ok(())
}

/// Whether this guest has the name, by its own words where it can be asked, and is none that gives way to the build at `vmid`.
async fn bears(context: &Context, guest: &Resource, name: &str, vmid: Vmid) -> Result<bool, Error> {
    let (mut named, mut tags, mut template) = (guest.name.as_deref() == Some(name), guest.tags(), guest.template);
    if let (true, Some(other), Some(node)) = (guest.is_qemu(), guest.vmid, guest.node.as_deref()) {
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
        let vm = context.client.node(&node).qemu(other);
        match context.or_cancel(vm.config(ConfigView::Pending)).await? {
            Ok(config) => (named, tags, template) = (config.name() == Some(name), config.tags(), config.is_template()),
            Err(error) if error.is_not_found() => return Ok(false),
            // The list's word counts.
            Err(error) => tracing::debug!(%error, vmid = %other, "a guest cannot be asked for its name"),
        }
    }
    let in_build = tags.iter().any(|tag| tag.starts_with(BUILD_TAG_PREFIX));
    let gives_way = in_build && !template && guest.vmid.is_some_and(|other| other > vmid);
    Ok(named && !gives_way)
}

/// The template's tags: the spec's, ours, and the k3s version, so that a list can be filtered in the web interface.
pub(in crate::build) fn template_tags(spec: &ImageSpec) -> Vec<String> {
    let mut tags = spec.tags.clone();
    tags.push(IMAGE_TAG.to_owned());
    if let Some(k3s) = &spec.k3s {
        tags.push(k3s.version.to_string());
    }
    tags.sort();
    tags.dedup();
    tags
}
