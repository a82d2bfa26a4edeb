//! Turns the VM into a template.

use async_trait::async_trait;

use crate::Error;
use crate::build::context::Context;
use crate::build::step::{Step, StepName};

/// The step's name.
pub(crate) const TEMPLATE: &str = "template";

/// Converts, and looks whether it is one.
#[derive(Debug)]
pub(super) struct Template;

#[async_trait]
impl Step<Context> for Template {
    fn name(&self) -> StepName {
        TEMPLATE.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let vmid = context.vmid()?;
        let vm = context.vm()?;
        if context.resumed.is_some() && is_template(context).await? {
            return Ok(format!("template {vmid}, converted before"));
        }
        context.convert(&vm).await?;
        if !is_template(context).await? {
            return Err(Error::Unexpected {
                what: format!("vm {vmid}"),
                reason: "PVE reported the conversion as done, but it is no template".to_owned(),
            });
        }
        Ok(format!("template {vmid}"))
    }

    /// `finalise` has noted it, in the call that changed the VM.
    fn is_noted(&self) -> bool {
        false
    }

    /// A template is deleted like a VM.
    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        context.remove_vm().await
    }
}

async fn is_template(context: &Context) -> Result<bool, Error> {
    let config = context.keeper()?.look(&context.cancel).await?;
    Ok(config.is_template())
}
