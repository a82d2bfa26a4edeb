//! Deletes the template that was replaced.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::move_old::free;
use crate::Error;
use crate::build::artifact::Replaced;
use crate::build::context::Context;
use crate::build::destroy::destroy;
use crate::build::step::{Step, StepName};
use crate::build::vm::is_base_in_use;
use crate::replace::{Old, Replacing, config, is_image, retired_name};

/// Name of the step. A build whose journal names it is complete but for this, and for the number of the old one if it is to have that.
pub(crate) const DELETE_OLD: &str = "delete_old";

/// The image is complete before it, so a cancel does not end it half-way.
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
        let cancel = std::mem::replace(&mut context.cancel, CancellationToken::new());
        let deleted = match new_is_there(context).await {
            Ok(true) => delete_old(context, &replacing).await.map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        context.cancel = cancel;
        match deleted {
            Ok(Some(summary)) => Ok(summary),
            // There is no image then, and nothing to go on with.
            Ok(None) => Err(new_is_gone(context, &replacing)?),
            Err(error) => {
                let what = format!("template {}, which it replaced, is not deleted yet", replacing.vmid);
                Err(context.unfinished(what, error).await)
            }
        }
    }

    /// It is noted by the call that publishes the new template.
    fn is_noted(&self) -> bool {
        false
    }
}

/// Whether the new one is what was published. Somebody may have deleted it meanwhile, and one of the two has to stay.
async fn new_is_there(context: &Context) -> Result<bool, Error> {
    let there = config(&context.vm()?, &context.cancel).await?;
    let name = &context.resolved()?.name;
    Ok(there.is_some_and(|config| is_image(&config, name)))
}

fn new_is_gone(context: &Context, replacing: &Replacing) -> Result<Error, Error> {
    let (new, name) = (context.vmid()?, &context.resolved()?.name);
    Ok(Error::Unexpected {
        what: format!("template {new}"),
        reason: format!(
            "somebody has deleted or renamed it since it was published as {name}; template {}, which it was to replace, is kept as {}",
            replacing.vmid,
            retired_name(name, &context.build_id)
        ),
    })
}

async fn delete_old(context: &mut Context, replacing: &Replacing) -> Result<String, Error> {
    let kept = match context.old().await? {
        Some(old) => delete(context, &old, replacing).await?,
        None => None,
    };
    context.replaced = Some(Replaced {
        vmid: replacing.vmid.get(),
        kept_as: kept.as_ref().map(|(name, _)| name.clone()),
    });
    let Some((name, why)) = kept else {
        // The new one is to have its number, and stays a build until then.
        if !replacing.renumber {
            context.end_swap().await?;
        }
        return Ok(format!("template {} deleted", replacing.vmid));
    };
    if replacing.renumber {
        context
            .keep_number(&format!("template {} is kept as {name}: {why}", replacing.vmid))
            .await?;
    } else {
        context.end_swap().await?;
        context.emitter.warning(format!(
            "template {} is kept as {name}: {why}; delete it when nothing needs it any more",
            replacing.vmid
        ));
    }
    Ok(format!("template {} kept as {name}", replacing.vmid))
}

/// Deletes it, unless something stands on it or it is no longer what the swap made of it. The name that it is kept under then, and
/// why.
async fn delete(context: &mut Context, old: &Old, replacing: &Replacing) -> Result<Option<(String, String)>, Error> {
    let Some(config) = old.config(&context.cancel).await? else {
        return Ok(None);
    };
    let kept = |why: String| Ok(Some((config.name().unwrap_or_default().to_owned(), why)));
    if let Some(why) = old.hindrance(&context.client, &config, &context.cancel).await? {
        return kept(why);
    }
    let ended = if replacing.renumber {
        free(context, old).await
    } else {
        destroy(&context.client, old.vm(), context.task_limit(), &context.cancel).await
    };
    match ended {
        Ok(()) => Ok(None),
        // What this login may not see, and what was made in this moment, PVE sees.
        Err(Error::Api { source, .. }) if is_base_in_use(&source) => kept("linked clones stand on it".to_owned()),
        Err(error) => Err(error),
    }
}
