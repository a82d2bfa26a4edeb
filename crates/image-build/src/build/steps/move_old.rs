//! Moves the template that was replaced to another number, so that the new one can have its own.

use async_trait::async_trait;
use proxmox_client::{DeleteVm, VmConfigUpdate, Vmid};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::build::artifact::Replaced;
use crate::build::context::Context;
use crate::build::copying::Target;
use crate::build::destroy::destroy_with;
use crate::build::reservation::Reservation;
use crate::build::step::{Step, StepName};
use crate::build::vm::{ask, is_base_in_use};
use crate::replace::{At, FullCopy, Old, Presence, retired_name};

/// Name of the step. A build whose journal names it is complete, under the number that it was built at.
pub(crate) const MOVE_OLD: &str = "move_old";

/// How many other numbers are tried when the chosen one turns out to be taken.
const VMID_TRIES: usize = 20;

/// A full copy first, looked at; then the deletion. A cancel ends the copying, and nothing after it, which takes seconds.
#[derive(Debug)]
pub(super) struct MoveOld;

#[async_trait]
impl Step<Context> for MoveOld {
    fn name(&self) -> StepName {
        MOVE_OLD.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let Some(replacing) = context.replacing.clone() else {
            return Ok("there was no template of that name".to_owned());
        };
        if !replacing.renumber {
            return Ok(format!("template {} is not in the way", replacing.vmid));
        }
        match move_old(context, replacing.vmid).await {
            Ok(summary) => Ok(summary),
            Err(error) => {
                let what = format!("does not have vmid {} yet", replacing.vmid);
                Err(context.unfinished(what, error).await)
            }
        }
    }

    /// It is noted by the call that publishes the new template.
    fn is_noted(&self) -> bool {
        false
    }
}

async fn move_old(context: &mut Context, from: Vmid) -> Result<String, Error> {
    if context.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let Some(old) = context.old().await? else {
        return without_old(context, from).await;
    };
    let Some(config) = old.config(&context.cancel).await? else {
        return without_old(context, from).await;
    };
    if let Some(why) = old.hindrance(&context.client, &config, &context.cancel).await? {
        return keep(context, &old, &why).await;
    }
    let copy = match copy(context, &old).await {
        Ok(copy) => copy,
        Err(error) if error.is_cancelled() => return Err(error),
        Err(error) => {
            // Somebody deleted it before it was copied: then there is nothing to keep.
            return match old.config(&context.cancel).await {
                Ok(None) => without_old(context, from).await,
                Ok(Some(_)) | Err(_) => Err(error),
            };
        }
    };
    let cancel = std::mem::replace(&mut context.cancel, CancellationToken::new());
    let moved = take_place(context, &old, &copy).await;
    context.cancel = cancel;
    moved
}

/// The copy, whose number is in the journal before the call that makes it. One that an earlier builder has begun is gone on with.
async fn copy(context: &mut Context, old: &Old) -> Result<FullCopy, Error> {
    let noted = context.replacing.as_ref().and_then(|replacing| replacing.copy);
    if let Some(vmid) = noted
        && let Some(copy) = copy_to(context, old, vmid).await?
    {
        return Ok(copy);
    }
    let cluster = context.client.endpoint().to_owned();
    let taken = context.resolved()?.taken_vmids.clone();
    let from = ask("asking for a free vmid", &context.cancel, || {
        context.client.next_id(None)
    })
    .await?;
    let mut reservation = Reservation::first_free(&cluster, old.retired_name(), from, &taken)?;
    for _ in 0..=VMID_TRIES {
        let vmid = reservation.vmid();
        note_copy(context, vmid).await?;
        if let Some(copy) = copy_to(context, old, vmid).await? {
            return Ok(copy);
        }
        reservation.move_on(&taken)?;
    }
    Err(Error::Taken {
        what: "each vmid that was tried for a copy of the old template".to_owned(),
        by: "guests that appeared after preflight".to_owned(),
    })
}

async fn copy_to(context: &mut Context, old: &Old, vmid: Vmid) -> Result<Option<FullCopy>, Error> {
    let to = Target {
        vmid,
        pool: old.pool().cloned(),
        tags: None,
    };
    context.copy_template(old.vm(), &to).await
}

async fn note_copy(context: &mut Context, vmid: Vmid) -> Result<(), Error> {
    if let Some(replacing) = &mut context.replacing {
        replacing.copy = Some(vmid);
    }
    let replacing = context.replacing.clone();
    let keeper = context.keeper()?;
    keeper
        .note(&context.cancel, move |journal| journal.replacing = replacing)
        .await
}

/// Deletes the old one and gives the copy its name. What happened to the old one while it was copied is looked at first.
async fn take_place(context: &mut Context, old: &Old, copy: &FullCopy) -> Result<String, Error> {
    if let Some(why) = give_up_number(context, old).await? {
        // Where it may be about to go, the copy stays; what that is needed for is looked at once more.
        if let Presence::Whole(_) = old.presence(&context.client, &context.cancel).await? {
            copy.remove(&context.client, &context.cancel).await?;
        }
        return keep(context, old, &why).await;
    }
    let name = old.retired_name();
    copy.finish(&context.cancel, |_| VmConfigUpdate::new().name(name))
        .await?;
    Ok(moved(context, old.vm().vmid(), copy.vm().vmid(), name))
}

/// Deletes it; why not, when it has to stay.
async fn give_up_number(context: &mut Context, old: &Old) -> Result<Option<String>, Error> {
    let Some(config) = old.config(&context.cancel).await? else {
        return Ok(None);
    };
    if let Some(why) = old.hindrance(&context.client, &config, &context.cancel).await? {
        return Ok(Some(why));
    }
    match free(context, old).await {
        Ok(()) => Ok(None),
        // What this login may not see, and what was made in this moment, PVE sees.
        Err(Error::Api { source, .. }) if is_base_in_use(&source) => Ok(Some("linked clones stand on it".to_owned())),
        Err(error) => Err(error),
    }
}

fn moved(context: &mut Context, from: Vmid, to: Vmid, name: &str) -> String {
    context.replaced = Some(Replaced {
        vmid: to.get(),
        kept_as: Some(name.to_owned()),
    });
    context.no_more_ours(to);
    format!("template {from} is template {to} now, {name}")
}

/// Deletes the old one, and leaves the number in the jobs that name it: they go on to mean the image.
pub(super) async fn free(context: &mut Context, old: &Old) -> Result<(), Error> {
    let what = DeleteVm::new().unreferenced_disks(true);
    let (limit, cancel) = (context.task_limit(), context.cancel.clone());
    let mut open = None;
    let ended = destroy_with(&context.client, old.vm(), &what, limit, &cancel, &mut open).await;
    context.left_open(open);
    ended
}

/// The old one is not at its number any more: an earlier builder died after its deletion, or somebody else deleted it.
async fn without_old(context: &mut Context, from: Vmid) -> Result<String, Error> {
    let name = retired_name(&context.resolved()?.name, &context.build_id);
    let copy = context.replacing.as_ref().and_then(|replacing| replacing.copy);
    if let Some(vmid) = copy {
        match At::look(&context.client, vmid, &context.build_id, &context.cancel).await? {
            At::Copy(copy) => {
                let update = VmConfigUpdate::new().name(name.as_str());
                copy.finish(&context.cancel, |_| update.clone()).await?;
                return Ok(moved(context, from, vmid, &name));
            }
            At::Other(config) if config.name() == Some(name.as_str()) => return Ok(moved(context, from, vmid, &name)),
            At::Other(_) | At::Nothing => {}
        }
    }
    context.replaced = Some(Replaced {
        vmid: from.get(),
        kept_as: None,
    });
    Ok(format!("template {from} is gone"))
}

/// The old one stays where it is, and so does the new one.
async fn keep(context: &mut Context, old: &Old, why: &str) -> Result<String, Error> {
    let vmid = old.vm().vmid();
    let config = old.config(&context.cancel).await?;
    let name = config.as_ref().and_then(|config| config.name()).unwrap_or_default();
    context.replaced = Some(Replaced {
        vmid: vmid.get(),
        kept_as: Some(name.to_owned()),
    });
    context
        .keep_number(&format!("template {vmid}, which is {name} now, has it: {why}"))
        .await
}
