//! Makes the stopped VM what its clones are to be.

use std::sync::Arc;

use async_trait::async_trait;
use proxmox_client::{Boot, ConfigView, Drive, VmConfigUpdate};

use super::medium::needs_medium;
use crate::Error;
use crate::build::context::Context;
use crate::build::description::{BUILD_TAG_PREFIX, IMAGE_TAG};
use crate::build::slots;
use crate::build::step::{Step, StepName};
use crate::build::vm::ask;
use crate::plan::GUESTS;
use crate::spec::ImageSpec;

/// Cloud-init drive and boot order.
#[derive(Debug)]
pub(super) struct Finalise;

#[async_trait]
impl Step<Context> for Finalise {
    fn name(&self) -> StepName {
        "finalise".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        context.still_sealed()?;
        still_alone(context).await?;
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
                "finalise".clone_into(&mut journal.step);
            })
            .await?;
        Ok(summary.join("; "))
    }

    /// It notes itself, in the call that changes the VM.
    fn is_noted(&self) -> bool {
        false
    }
}

/// Whether a builder that died here had put the drive in: a second one would be made beside it.
async fn has_cloud_init(context: &Context, slot: &str) -> Result<bool, Error> {
    if context.resumed.is_none() {
        return Ok(false);
    }
    let vm = context.vm()?;
    let attempt = format!("reading the configuration of vm {}", vm.vmid());
    let config = ask(&attempt, &context.cancel, || vm.config(ConfigView::Pending)).await?;
    Ok(config.get(slot).is_some_and(|drive| drive.contains("cloudinit")))
}

/// Refuses when someone else has taken the name since preflight; the template that is replaced has it by right, and is shown
/// with it for some seconds more than that (`FACTS` 80). Two builds of the same name that see each other are told
/// apart by their vmids: the lower one goes on, so that one of them always does.
pub(super) async fn still_alone(context: &Context) -> Result<(), Error> {
    let vmid = context.vmid()?;
    let name = &context.resolved()?.name;
    let old = context.replacing.as_ref().map(|replacing| replacing.vmid);
    let guests = ask("listing the cluster's guests", &context.cancel, || {
        context.client.cluster_resources(Some(GUESTS))
    })
    .await?;
    let other = guests.iter().find(|guest| {
        let in_build = guest.tags().iter().any(|tag| tag.starts_with(BUILD_TAG_PREFIX));
        guest.name.as_ref() == Some(name)
            && guest.vmid.is_some_and(|other| {
                other != vmid && Some(other) != old && !(in_build && !guest.template && other > vmid)
            })
    });
    match other.and_then(|guest| guest.vmid) {
        None => Ok(()),
        Some(other) => Err(Error::Taken {
            what: format!("the name {name}"),
            by: format!("guest {other}, which appeared during the build"),
        }),
    }
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
