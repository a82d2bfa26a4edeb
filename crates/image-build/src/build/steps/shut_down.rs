//! Powers the guest off from outside, cleanly.

use std::time::Duration;

use async_trait::async_trait;
use proxmox_client::Shutdown;

use crate::Error;
use crate::build::context::Context;
use crate::build::pace::Pace;
use crate::build::step::{Step, StepName};

/// How long PVE may take to show a VM as stopped that has powered off.
const STOPPED_LIMIT: Duration = Duration::from_secs(30);

/// Name of the step. A build whose journal names it, or one after it, has a sealed guest.
pub(crate) const SHUT_DOWN: &str = "shut_down";

/// Shuts the guest down through PVE, which asks the agent or presses the ACPI button, and so needs no login.
#[derive(Debug)]
pub(super) struct ShutDown;

#[async_trait]
impl Step<Context> for ShutDown {
    fn name(&self) -> StepName {
        SHUT_DOWN.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        if let Some(communicator) = context.communicator.take() {
            communicator.close().await;
        }
        if context.resumed.is_some() && context.vm_status().await?.is_stopped() {
            return Ok("was powered off".to_owned());
        }
        let limit = context.spec.timeouts.shutdown;
        let vmid = context.vmid()?;
        let attempt = format!("shutting down vm {vmid}");
        // Never by force: what the guest still holds in memory would be missing from the image.
        let (vm, how) = (context.vm()?, Shutdown::new().timeout(limit));
        let ended = context
            .power_off(&attempt, "qmshutdown", limit + STOPPED_LIMIT, || vm.shutdown(&how))
            .await;
        if ended.as_ref().is_err_and(|error| !error.is_cancelled()) {
            // A guest that boots does not hear that it is to end.
            context.still_sealed()?;
        }
        ended?;
        let mut pace = Pace::new("the stop of the vm", STOPPED_LIMIT, &context.cancel);
        while !context.vm_status().await?.is_stopped() {
            pace.pause("the shutdown's task has ended, the vm still runs").await?;
        }
        Ok("powered off by itself".to_owned())
    }
}
