//! Makes the finished template known: from here on it is an image, and no build.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use proxmox_client::VmConfigUpdate;

use super::Swap;
use super::finalise::{still_alone, template_tags};
use crate::Error;
use crate::build::context::Context;
use crate::build::description;
use crate::build::step::{Step, StepName};
use crate::journal::Inputs;

/// The step's name. Once it has ended, the image is complete.
pub(crate) const PUBLISH: &str = "publish";

/// The image's name, tags and description in place of the build's, in one call: whoever lists sees the one or the other.
#[derive(Debug)]
pub(super) struct Publish;

#[async_trait]
impl Step<Context> for Publish {
    fn name(&self) -> StepName {
        PUBLISH.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        // Its last lines may have come late.
        context.still_sealed()?;
        still_alone(context).await?;
        let tags = template_tags(&context.spec);
        let people = description::of_template(context, Timestamp::now())?;
        let keeper = Arc::clone(context.keeper()?);
        let name = context.resolved()?.name.clone();
        let rest = context
            .replacing
            .as_ref()
            .and_then(|replacing| Swap::of(replacing).rest().first());
        match (&context.replacing, rest) {
            // The old one is still to be moved or deleted, so this stays a build, of an image that is complete.
            (Some(_), Some(next)) => {
                let marked = tags.iter().cloned().chain([context.build_tag()]);
                let update = VmConfigUpdate::new().name(name.as_str()).tags(marked);
                keeper
                    .change(&context.cancel, &update, Some(&people), |journal| {
                        (*next).clone_into(&mut journal.step);
                        // What the image was made of matters no more, and the texts share 8,192 characters.
                        journal.inputs = Inputs::default();
                    })
                    .await?;
            }
            (replacing, _) => {
                let name = replacing.as_ref().map(|_| name.as_str());
                keeper
                    .close(&context.cancel, name, Some(&people), |_| tags.clone())
                    .await?;
                context.closed();
            }
        }
        context.take_stock()?;
        let named = if context.replacing.is_some() {
            format!("{name}, ")
        } else {
            String::new()
        };
        Ok(format!("{named}tags {}", tags.join(", ")))
    }

    /// It takes the journal away.
    fn is_noted(&self) -> bool {
        false
    }

    fn commits(&self) -> bool {
        true
    }
}
