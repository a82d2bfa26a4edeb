//! Gives the new template the number of the one that it replaced.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use proxmox_client::{ConfigView, Qemu, VmConfigUpdate, Vmid};
use tokio_util::sync::CancellationToken;

use super::finalise::still_alone;
use crate::Error;
use crate::build::IMAGE_TAG;
use crate::build::artifact::Replaced;
use crate::build::context::Context;
use crate::build::copying::Target;
use crate::build::destroy::destroy;
use crate::build::runner::Runs as _;
use crate::build::step::{Step, StepName};
use crate::build::vm::{ask, is_base_in_use};
use crate::journal;
use crate::replace::{
    At, FullCopy, config, is_image, linked_clones, moved_name, pool_of, retired_name, tags_of_image, tags_of_retired,
    tags_with, vms,
};

/// Name of the step. A build whose journal names it is complete, and bears the name at one of two numbers.
pub(crate) const RENUMBER: &str = "renumber";

/// A full copy at the number first, looked at; then the name goes from the one to the other, never two have it; then the first is
/// deleted, with the journal. A cancel ends the copying, and nothing after it, which takes seconds.
#[derive(Debug)]
pub(super) struct Renumber;

#[async_trait]
impl Step<Context> for Renumber {
    fn name(&self) -> StepName {
        RENUMBER.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let Some(replacing) = context.replacing.clone() else {
            return Ok("there was no template of that name".to_owned());
        };
        if !replacing.renumber {
            return Ok(format!("template {} has its number", context.vmid()?));
        }
        match renumber(context, replacing.vmid).await {
            Ok(summary) => Ok(summary),
            Err(error) => {
                let what = format!("does not have vmid {} yet", replacing.vmid);
                Err(context.unfinished(what, error).await)
            }
        }
    }

    /// It notes itself, so that an error of that too says where the image is.
    fn is_noted(&self) -> bool {
        false
    }
}

async fn renumber(context: &mut Context, number: Vmid) -> Result<String, Error> {
    if context.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    context.begin(RENUMBER).await?;
    tell_replaced(context, number).await?;
    let (built, name) = (context.vm()?, context.resolved()?.name.clone());
    let at_number = At::look(&context.client, number, &context.build_id, &context.cancel).await?;
    if matches!(&at_number, At::Other(config) if is_image(config, &name)) && gave_its_name(context, &built).await? {
        // An earlier builder died just before the end. A template of that name that somebody brought is none of ours.
        let cancel = std::mem::replace(&mut context.cancel, CancellationToken::new());
        let left = leave(context, &built, number).await;
        context.cancel = cancel;
        return left;
    }
    let to = Target {
        vmid: number,
        pool: pool_of(&context.client, built.vmid(), &context.cancel).await?,
        tags: Some(vec![context.build_tag()]),
    };
    let Some(copy) = context.copy_template(&built, &to).await? else {
        let why = format!("vmid {number} is taken by a guest that appeared when it was free");
        return context.keep_number(&why).await;
    };
    let cancel = std::mem::replace(&mut context.cancel, CancellationToken::new());
    let moved = match hand_over(context, &copy).await {
        Ok(()) => leave(context, &built, number).await,
        Err(error) => Err(error),
    };
    context.cancel = cancel;
    moved
}

/// Whether the template that was built has given up the image's name, for its copy.
async fn gave_its_name(context: &Context, built: &Qemu) -> Result<bool, Error> {
    let there = config(built, &context.cancel).await?;
    Ok(there.is_some_and(|config| config.name() == Some(context.build_tag().as_str())))
}

/// What a builder that died had made of the old one, for the artifact.
async fn tell_replaced(context: &mut Context, number: Vmid) -> Result<(), Error> {
    if context.replaced.is_some() {
        return Ok(());
    }
    let retired = retired_name(&context.resolved()?.name, &context.build_id);
    let copy = context.replacing.as_ref().and_then(|replacing| replacing.copy);
    let kept = match copy {
        None => false,
        Some(vmid) => {
            let there = At::look(&context.client, vmid, &context.build_id, &context.cancel).await?;
            matches!(there, At::Other(config) if config.name() == Some(retired.as_str()))
        }
    };
    context.replaced = Some(Replaced {
        vmid: copy.filter(|_| kept).unwrap_or(number).get(),
        kept_as: kept.then_some(retired),
    });
    Ok(())
}

/// The name goes to the copy. For the moment between the two calls nobody has it, as between the two of the swap.
async fn hand_over(context: &mut Context, copy: &FullCopy) -> Result<(), Error> {
    still_alone(context).await?;
    let name = context.resolved()?.name.clone();
    let built = context.vm()?;
    let attempt = format!("reading template {}", built.vmid());
    let config = ask(&attempt, &context.cancel, || built.config(ConfigView::Pending)).await?;
    let tags = tags_of_image(&config);
    let without = tags_with(&config, &context.build_tag(), IMAGE_TAG);
    let update = VmConfigUpdate::new().name(context.build_tag()).tags(without);
    let keeper = Arc::clone(context.keeper()?);
    keeper.change(&context.cancel, &update, None, |_| {}).await?;
    copy.finish(&context.cancel, |config| {
        VmConfigUpdate::new()
            .name(name.as_str())
            .tags(&tags)
            .description(journal::strip(config.description().unwrap_or_default()))
    })
    .await
}

/// Deletes the template at the number that it was built at. Linked clones that somebody made of it meanwhile keep it.
async fn leave(context: &mut Context, built: &Qemu, number: Vmid) -> Result<String, Error> {
    let name = context.resolved()?.name.clone();
    match At::look(&context.client, number, &context.build_id, &context.cancel).await? {
        At::Other(config) if is_image(&config, &name) => {}
        _ => {
            return Err(Error::Unexpected {
                what: format!("template {number}"),
                reason: "it is not the copy that was made there any more; somebody else has changed it".to_owned(),
            });
        }
    }
    let clones = match config(built, &context.cancel).await? {
        Some(config) => {
            linked_clones(&context.client, built.node(), built.vmid(), &config, &context.cancel)
                .await?
                .0
        }
        None => BTreeSet::new(),
    };
    let kept = if clones.is_empty() {
        match destroy(&context.client, built, context.task_limit(), &context.cancel).await {
            Ok(()) => None,
            Err(Error::Api { source, .. }) if is_base_in_use(&source) => Some("linked clones stand on it".to_owned()),
            Err(error) => return Err(error),
        }
    } else {
        Some(format!("linked clones stand on it ({})", vms(&clones)))
    };
    if let Some(why) = kept {
        let moved = moved_name(&name, &context.build_id);
        let keeper = Arc::clone(context.keeper()?);
        keeper
            .close(&context.cancel, Some(&moved), None, tags_of_retired)
            .await?;
        context.emitter.warning(format!(
            "template {}, which the image was built as, is kept as {moved}: {why}; delete it when nothing needs it any more",
            built.vmid()
        ));
    }
    context.closed();
    context.is_at(number);
    Ok(format!("template {} is template {number} now, {name}", built.vmid()))
}
