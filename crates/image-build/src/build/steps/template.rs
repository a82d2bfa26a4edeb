//! Turns the VM into a template.

use async_trait::async_trait;
use proxmox_client::ConfigView;

use crate::Error;
use crate::build::context::Context;
use crate::build::step::{Step, StepName};

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
        let attempt = format!("converting vm {vmid} to a template");
        let vm = context.vm()?;
        let upid = vm.convert_to_template().await.map_err(Error::api(attempt.as_str()))?;
        context.finish(&upid, &attempt, context.spec.timeouts.task).await?;
        let config = vm
            .config(ConfigView::Pending)
            .await
            .map_err(Error::api(format!("reading template {vmid}")))?;
        if !config.is_template() {
            return Err(Error::Unexpected {
                what: format!("vm {vmid}"),
                reason: "PVE reported the conversion as done, but it is no template".to_owned(),
            });
        }
        context.take_stock()?;
        Ok(format!("template {vmid}"))
    }

    fn commits(&self) -> bool {
        true
    }
}
