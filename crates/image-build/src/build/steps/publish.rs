//! Makes the finished template known: from here on it is an image, and no build.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use proxmox_client::VmConfigUpdate;

use super::finalise::{still_alone, template_tags};
use crate::Error;
use crate::build::context::Context;
use crate::build::description;
use crate::build::step::{Step, StepName};

/// The image's tags and description in place of the build's, in one call: whoever lists sees the one or the other.
#[derive(Debug)]
pub(super) struct Publish;

#[async_trait]
impl Step<Context> for Publish {
    fn name(&self) -> StepName {
        "publish".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        // Its last lines may have come late.
        context.still_sealed()?;
        still_alone(context).await?;
        let tags = template_tags(&context.spec);
        let update = VmConfigUpdate::new().tags(&tags);
        let people = description::of_template(context, Timestamp::now())?;
        let keeper = Arc::clone(context.keeper()?);
        keeper.close(&context.cancel, &update, &people).await?;
        context.closed();
        context.take_stock()?;
        Ok(format!("tags {}", tags.join(", ")))
    }

    /// It takes the journal away.
    fn is_noted(&self) -> bool {
        false
    }

    fn commits(&self) -> bool {
        true
    }
}
