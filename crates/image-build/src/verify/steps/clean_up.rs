//! Removes the clones and the volume: the last step of a verification that went well, and the undo of one that did not.

use std::time::Duration;

use async_trait::async_trait;
use proxmox_client::Wait;

use crate::Error;
use crate::build::{Step, StepName, destroy_volume};
use crate::communicator::Communicator as _;
use crate::verify::context::Context;

/// Limit of the volume's deletion, and of an upload's end before it.
const DELETE_LIMIT: Duration = Duration::from_secs(60);

/// Removes what the verification made.
#[derive(Debug)]
pub(super) struct CleanUp;

#[async_trait]
impl Step<Context> for CleanUp {
    fn name(&self) -> StepName {
        "clean_up".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        Ok(remove_all(context)
            .await?
            .unwrap_or_else(|| "nothing was left".to_owned()))
    }
}

/// Removes all clones and then the volume. One that cannot be removed does not keep the others; the first failure is told, and
/// what is left stays on the list.
pub(super) async fn remove_all(context: &mut Context) -> Result<Option<String>, Error> {
    let mut removed = Vec::new();
    let mut left = Vec::new();
    let mut failure = None;
    for mut clone in std::mem::take(&mut context.clones) {
        if let Some(session) = clone.session.take() {
            session.close().await;
        }
        match clone.machine.remove().await {
            Ok(told) => removed.extend(told),
            Err(error) => {
                left.push(format!("{} (`{}`)", clone.machine, clone.seen.name));
                context.clones.push(clone);
                failure.get_or_insert(error);
            }
        }
    }
    if failure.is_none() {
        context.reservations.clear();
    }
    match remove_volume(context).await {
        Ok(told) => removed.extend(told),
        Err(error) => {
            left.extend(context.volume.iter().map(ToString::to_string));
            failure.get_or_insert(error);
        }
    }
    match failure {
        None => Ok((!removed.is_empty()).then(|| removed.join(", "))),
        Some(Error::Cancelled) => Err(Error::Cancelled),
        Some(error) => Err(Error::Left {
            left: left.join(" and "),
            source: Box::new(error),
        }),
    }
}

async fn remove_volume(context: &mut Context) -> Result<Option<String>, Error> {
    let Some(volid) = context.volume.clone() else {
        return Ok(None);
    };
    if let Some(upid) = context.upload.take() {
        // An upload that ends after the deletion would leave the file; how it ends does not matter.
        let wait = Wait::at_most(DELETE_LIMIT).cancel(context.cancel.clone());
        let _ = context.client.wait_task(&upid, wait).await;
    }
    destroy_volume(&context.client, &context.node()?, &volid, DELETE_LIMIT, &context.cancel).await?;
    context.volume = None;
    Ok(Some(format!("{volid} removed")))
}
