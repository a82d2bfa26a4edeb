//! Takes a name and a vmid for this build, as far as Proxmox VE lets anyone reserve them.

use async_trait::async_trait;

use crate::Error;
use crate::build::context::Context;
use crate::build::reservation::Reservation;
use crate::build::step::{Step, StepName};

/// PVE reserves nothing: a vmid is ours when the create call succeeds. What can be done before is to keep the builds of
/// this process out of each other's way; [`create`](super::create) settles the rest.
#[derive(Debug)]
pub(super) struct Reserve;

#[async_trait]
impl Step<Context> for Reserve {
    fn name(&self) -> StepName {
        "reserve".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let resolved = context.resolved()?;
        let endpoint = context.client.endpoint().to_string();
        let name = resolved.name.clone();
        let taken = resolved.taken_vmids.clone();
        let reservation = match context.fixed_vmid() {
            Some(vmid) => Reservation::exactly(&endpoint, &name, vmid)?,
            None => Reservation::first_free(&endpoint, &name, resolved.next_vmid, &taken)?,
        };
        let vmid = reservation.vmid();
        context.reservation = Some(reservation);
        context.claim_number()?;
        Ok(format!("vmid {vmid}, name {name}"))
    }

    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        context.reservation = None;
        context.number = None;
        Ok(None)
    }
}
