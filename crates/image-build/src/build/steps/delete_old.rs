//! Deletes the template that was replaced.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use proxmox_client::{VmConfigUpdate, Vmid};
use tokio_util::sync::CancellationToken;

use super::finalise::template_tags;
use crate::Error;
use crate::build::artifact::Replaced;
use crate::build::context::Context;
use crate::build::step::{Step, StepName};
use crate::build::vm::{destroy, is_base_in_use};
use crate::replace::{Old, linked_clones};

/// Name of the step. A build whose journal names it is complete but for this.
pub(crate) const DELETE_OLD: &str = "delete_old";

/// The last step of a replacement, after which the build is no longer one. The image is complete before it, so a cancel does not
/// end it half-way.
#[derive(Debug)]
pub(super) struct DeleteOld;

#[async_trait]
impl Step<Context> for DeleteOld {
    fn name(&self) -> StepName {
        DELETE_OLD.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let Some(replacing) = context.replacing.clone() else {
            return Ok("there was no template of that name".to_owned());
        };
        context.cancel = CancellationToken::new();
        let kept = match context.old().await? {
            Some(old) => delete(context, &old).await?,
            None => None,
        };
        let update = VmConfigUpdate::new().tags(template_tags(&context.spec));
        let keeper = Arc::clone(context.keeper()?);
        keeper.close(&context.cancel, &update, None).await?;
        context.closed();
        let summary = match &kept {
            None => format!("template {} deleted", replacing.vmid),
            Some((name, why)) => {
                context.emitter.warning(format!(
                    "template {} is kept as {name}: {why}; delete it when nothing needs it any more",
                    replacing.vmid
                ));
                format!("template {} kept as {name}", replacing.vmid)
            }
        };
        context.replaced = Some(Replaced {
            vmid: replacing.vmid.get(),
            kept_as: kept.map(|(name, _)| name),
        });
        Ok(summary)
    }

    /// It is noted by the call that publishes the new template.
    fn is_noted(&self) -> bool {
        false
    }
}

/// Deletes it, unless something stands on it or it is no longer what the swap made of it. The name that it is kept under then, and
/// why.
async fn delete(context: &Context, old: &Old) -> Result<Option<(String, String)>, Error> {
    let cancel = &context.cancel;
    let Some(config) = old.config(cancel).await? else {
        return Ok(None);
    };
    let kept = |why: String| {
        let name = config.name().unwrap_or_default().to_owned();
        Ok(Some((name, why)))
    };
    if !old.is_retired(&config) {
        return kept("somebody has changed it since it was replaced".to_owned());
    }
    let vm = old.vm();
    let (clones, _) = linked_clones(&context.client, vm.node(), vm.vmid(), &config).await?;
    if !clones.is_empty() {
        return kept(format!("linked clones stand on it ({})", vms(&clones)));
    }
    match destroy(&context.client, vm, cancel).await {
        Ok(()) => Ok(None),
        // What this login may not see, and what was made in this moment, PVE sees.
        Err(Error::Api { source, .. }) if is_base_in_use(&source) => kept("linked clones stand on it".to_owned()),
        Err(error) => Err(error),
    }
}

/// `vm 221`, `vms 221, 222`.
pub(crate) fn vms(vmids: &BTreeSet<Vmid>) -> String {
    let ids: Vec<String> = vmids.iter().map(ToString::to_string).collect();
    let what = if ids.len() == 1 { "vm" } else { "vms" };
    format!("{what} {}", ids.join(", "))
}
