//! Takes the image's name from the template that is replaced.

use async_trait::async_trait;
use proxmox_client::ConfigView;

use super::finalise::still_alone;
use crate::Error;
use crate::build::artifact::Replaced;
use crate::build::context::Context;
use crate::build::step::{Step, StepName};
use crate::build::vm::ask;
use crate::replace::{Restored, Retired};

/// Name of the step. A build whose journal names it may have renamed the old template.
pub(crate) const RETIRE: &str = "retire";

/// The first half of the swap: from here to [`publish`](super::publish) nothing bears the image's name, and never do two.
#[derive(Debug)]
pub(super) struct Retire;

#[async_trait]
impl Step<Context> for Retire {
    fn name(&self) -> StepName {
        RETIRE.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let Some(replacing) = context.replacing.clone() else {
            return Ok("there was no template of that name".to_owned());
        };
        still_alone(context).await?;
        let limit = context.spec.timeouts.task;
        let kept_as = match context.old().await? {
            Some(old) => match old.retire(&context.cancel, limit).await? {
                Retired::Done => Some(old.retired_name().to_owned()),
                Retired::Gone => None,
            },
            None => None,
        };
        let summary = if let Some(name) = &kept_as {
            format!("template {} is {name}", replacing.vmid)
        } else {
            let gone = format!("template {} was deleted meanwhile", replacing.vmid);
            context.emitter.warning(gone.as_str());
            gone
        };
        context.replaced = Some(Replaced {
            vmid: replacing.vmid.get(),
            kept_as,
        });
        Ok(summary)
    }

    /// Gives the name back, unless the new template bears it: the call that gave it that may have been carried out although it
    /// failed.
    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        let Some(old) = context.old().await? else {
            return Ok(None);
        };
        let name = context.resolved()?.name.clone();
        let vm = context.vm()?;
        let attempt = format!("reading the configuration of vm {}", vm.vmid());
        match ask(&attempt, &context.cancel, || vm.config(ConfigView::Pending)).await {
            Ok(config) if config.name() == Some(name.as_str()) => {
                return Ok(Some(format!("vm {} is {name} already, and stays", vm.vmid())));
            }
            Ok(_) => {}
            Err(Error::Api { source, .. }) if source.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let restored = old.restore(&context.client, &context.cancel).await?;
        context.replaced = None;
        let old_vmid = old.vm().vmid();
        Ok(match restored {
            Restored::Done => Some(format!("template {old_vmid} is {name} again")),
            Restored::Inherited(heir) => Some(format!(
                "template {old_vmid} stays {}, because guest {heir} is {name} by now",
                old.retired_name()
            )),
            Restored::Nothing => None,
        })
    }
}
