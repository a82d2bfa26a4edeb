//! Turns the VM into a template.

use async_trait::async_trait;
use proxmox_client::ConfigView;

use crate::Error;
use crate::build::context::Context;
use crate::build::step::{Step, StepName};
use crate::build::vm::ask;

/// Converts, and looks whether it is one.
#[derive(Debug)]
pub(super) struct Template;

#[async_trait]
impl Step<Context> for Template {
    fn name(&self) -> StepName {
        "template".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let vmid = context.vmid()?;
        let vm = context.vm()?;
        if context.resumed.is_some() && self.is_template(context).await? {
            return Ok(format!("template {vmid}, converted before"));
        }
        context.convert(&vm).await?;
        if !self.is_template(context).await? {
            return Err(Error::Unexpected {
                what: format!("vm {vmid}"),
                reason: "PVE reported the conversion as done, but it is no template".to_owned(),
            });
        }
        Ok(format!("template {vmid}"))
    }

    /// A template is deleted like a VM.
    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        context.remove_vm().await
    }
}

impl Template {
    async fn is_template(&self, context: &Context) -> Result<bool, Error> {
        let vmid = context.vmid()?;
        let vm = context.vm()?;
        let attempt = format!("reading template {vmid}");
        let config = ask(&attempt, &context.cancel, || vm.config(ConfigView::Pending)).await?;
        Ok(config.is_template())
    }
}
