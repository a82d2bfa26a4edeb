//! Copies a finished template to another number, where Proxmox VE gives a VM none.

use proxmox_client::{CloneVm, ErrorKind, PoolId, Qemu, VmConfig, VmConfigUpdate, Vmid};
use tokio_util::sync::CancellationToken;

use super::context::{Context, Resource};
use super::destroy::running_task;
use super::pace::Pace;
use super::vm::{LOCK_LIMIT, LOST_ANSWER_LIMIT, ask, is_lost_answer, may_pass, not_appeared};
use crate::Error;
use crate::replace::{At, FullCopy, Remains, config, copy_name, tags_of_image};

/// Where a copy goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) vmid: Vmid,
    /// The pool that it joins.
    pub(super) pool: Option<PoolId>,
    /// Tags in place of those that it takes along, before it is a template: tools pick images by them.
    pub(super) tags: Option<Vec<String>>,
}

impl Context {
    /// Makes a full copy of a template, a template again, on the same storages. What an earlier attempt left there is taken as it is when
    /// it is whole, and removed when it is not. `None` when the number is another guest's. It is the only part of a replacement that
    /// takes minutes, and it obeys a cancel.
    ///
    /// # Errors
    /// Any of the calls; [`Error::Unexpected`] when what PVE made is not whole. A half-made copy may be there then.
    pub(super) async fn copy_template(&mut self, from: &Qemu, to: &Target) -> Result<Option<FullCopy>, Error> {
        let build = self.build_id.clone();
        let template = config(from, &self.cancel).await?.ok_or_else(|| gone(from))?;
        let resource = Resource::Vm {
            node: from.node().clone(),
            vmid: to.vmid,
        };
        match At::look(&self.client, to.vmid, &build, &self.cancel).await? {
            At::Nothing => {}
            At::Other(_) => return Ok(None),
            At::Copy(copy) => {
                self.created(resource.clone());
                if copy.lacks(&template).is_none() {
                    return Ok(Some(copy));
                }
                copy.remove(&self.client, &self.cancel).await?;
            }
        }
        self.created(resource.clone());
        if !self.clone_whole(from, to).await? {
            self.removed(&resource);
            return Ok(None);
        }
        let vm = self.client.node(from.node()).qemu(to.vmid);
        if let Some(tags) = &to.tags {
            let update = VmConfigUpdate::new().tags(tags);
            let what = format!("marking vm {}", to.vmid);
            crate::replace::change(&vm, &what, &self.cancel, LOCK_LIMIT, |_| Ok(Some(update.clone()))).await?;
        }
        self.convert(&vm).await?;
        self.whole(to.vmid, &template).await.map(Some)
    }

    /// The call that makes the clone, and the end of its task. `false` when the number is taken.
    async fn clone_whole(&mut self, from: &Qemu, to: &Target) -> Result<bool, Error> {
        let attempt = format!("copying template {} to vm {}", from.vmid(), to.vmid);
        let mut how = CloneVm::new(to.vmid).name(copy_name(&self.build_id)).full(true);
        if let Some(pool) = &to.pool {
            how = how.pool(pool.clone());
        }
        let cancel = self.cancel.clone();
        let mut pace = Pace::new(&attempt, LOCK_LIMIT, &cancel);
        loop {
            match from.clone_to(&how).await {
                Ok(upid) => {
                    let limit = self.spec.timeouts.task;
                    return self.finish(&upid, &attempt, limit).await.map(|()| true);
                }
                // PVE looks whether the number is free before it begins the task (FACTS 30): nothing of ours is there.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
                Err(error) if matches!(error.kind(), ErrorKind::Locked | ErrorKind::Busy | ErrorKind::Connect) => {
                    pace.pause(&error.to_string()).await?;
                }
                // The answer was lost, not the request: what is there now tells what became of it.
                Err(error) if is_lost_answer(&error) => {
                    let mut pace = Pace::new(&attempt, LOST_ANSWER_LIMIT, &cancel);
                    loop {
                        match At::look(&self.client, to.vmid, &self.build_id, &cancel).await? {
                            At::Copy(_) => {
                                let lost = format!("{attempt}: the answer was lost ({error}), but the vm is there");
                                self.emitter.warning(lost);
                                return Ok(true);
                            }
                            At::Other(_) => return Err(Error::api(attempt.as_str())(error)),
                            At::Nothing => {}
                        }
                        match pace.pause("it is not there").await {
                            Err(Error::Timeout { .. }) => return Err(Error::api(not_appeared(&attempt))(error)),
                            paused => paused?,
                        }
                    }
                }
                Err(error) => return Err(Error::api(attempt.as_str())(error)),
            }
        }
    }

    /// Converts a VM to a template. An answer that was lost is not asked for again: what is there, or being done, tells.
    ///
    /// # Errors
    /// Any of the calls; the task's own.
    pub(super) async fn convert(&mut self, vm: &Qemu) -> Result<(), Error> {
        let attempt = format!("converting vm {} to a template", vm.vmid());
        let cancel = self.cancel.clone();
        let mut pace = Pace::new(&attempt, LOCK_LIMIT, &cancel);
        loop {
            match vm.convert_to_template().await {
                Ok(upid) => return self.finish(&upid, &attempt, self.spec.timeouts.task).await,
                Err(error) if may_pass(&error) => {
                    pace.pause(&error.to_string()).await?;
                    // An answer that was lost: it is being done, or done.
                    let client = self.client.clone();
                    if let Some(upid) = ask(&attempt, &cancel, || running_task(&client, vm, "qmtemplate")).await? {
                        return self.finish(&upid, &attempt, self.spec.timeouts.task).await;
                    }
                    if config(vm, &cancel).await?.is_some_and(|config| config.is_template()) {
                        return Ok(());
                    }
                }
                Err(error) => return Err(Error::api(attempt.as_str())(error)),
            }
        }
    }

    /// Looks at the copy before anything is destroyed for it. PVE notes disk by disk what it has converted.
    async fn whole(&self, vmid: Vmid, template: &VmConfig) -> Result<FullCopy, Error> {
        let what = format!("a whole copy at vm {vmid}");
        let mut pace = Pace::new(&what, LOCK_LIMIT, &self.cancel);
        loop {
            let lacks = match At::look(&self.client, vmid, &self.build_id, &self.cancel).await? {
                At::Copy(copy) => match copy.lacks(template) {
                    None => return Ok(copy),
                    Some(lacks) => lacks,
                },
                At::Nothing | At::Other(_) => {
                    return Err(Error::Unexpected {
                        what: format!("vm {vmid}"),
                        reason: "PVE reported the copy as done, but it is not there, or somebody else has changed it"
                            .to_owned(),
                    });
                }
            };
            pace.pause(&lacks).await?;
        }
    }

    /// After the move of a template failed or was cancelled: what is half made is removed, and the error says what there is.
    pub(super) async fn unfinished(&mut self, what: String, source: Error) -> Error {
        // Another process has the build: nothing of it is ours.
        if matches!(source, Error::TakenOver { .. }) || self.keeper().is_ok_and(|keeper| keeper.is_taken()) {
            return source;
        }
        self.settle_task().await;
        let mut what = what;
        let renumbered = match self.settle().await {
            Ok(renumbered) => renumbered,
            Err(error @ Error::Unexpected { .. }) => {
                what = format!("{what}, and {error}");
                false
            }
            Err(error) => {
                self.emitter.warning(format!(
                    "what was half made could not be removed, `k3simage gc` shows it: {}",
                    error.chain()
                ));
                false
            }
        };
        let (Ok(resolved), Ok(built)) = (self.resolved(), self.vmid()) else {
            return source;
        };
        let number = self.replacing.as_ref().map(|replacing| replacing.vmid);
        let (vmid, what) = match number.filter(|_| renumbered) {
            Some(number) => (
                number,
                format!("template {built}, which it was built as, is still there"),
            ),
            None => (built, what),
        };
        Error::Unfinished {
            image: resolved.name.clone(),
            vmid,
            what,
            build: self.build_id.clone(),
            source: Box::new(source),
        }
    }

    /// Removes copies that are not needed, and gives back the name. No cancel ends it: it must be done after one. Whether the image is
    /// at the old one's number already.
    pub(super) async fn settle(&mut self) -> Result<bool, Error> {
        let Some(replacing) = self.replacing.clone() else {
            return Ok(false);
        };
        let cancel = CancellationToken::new();
        let name = self.resolved()?.name.clone();
        let new = self.vm()?;
        let remains = Remains::look(&self.client, &new, &replacing, &name, &self.build_id, &cancel).await?;
        remains.settle(self.keeper()?, &cancel).await?;
        if let Some(heir) = remains.heir() {
            self.emitter.warning(format!(
                "template {} does not get the name {name} back, because guest {heir} is called so by now",
                new.vmid()
            ));
        }
        for number in replacing.copy.into_iter().chain([replacing.vmid]) {
            self.no_more_ours(number);
        }
        Ok(remains.is_renumbered())
    }

    /// Ends the build with the image at the number that it was built at, and says why.
    pub(super) async fn keep_number(&mut self, why: &str) -> Result<String, Error> {
        let _ = self.settle().await?;
        let (built_at, wanted) = (self.vmid()?, self.replacing.as_ref().map(|replacing| replacing.vmid));
        if let Some(replacing) = &mut self.replacing {
            replacing.renumber = false;
        }
        self.end_swap().await?;
        let summary = format!("the new template keeps vmid {built_at}");
        let wanted = wanted
            .map(|vmid| format!(" and does not get {vmid}"))
            .unwrap_or_default();
        self.emitter.warning(format!("{summary}{wanted}: {why}"));
        Ok(summary)
    }

    /// Takes journal and mark from the new template: the build is none any more.
    pub(super) async fn end_swap(&mut self) -> Result<(), Error> {
        let keeper = std::sync::Arc::clone(self.keeper()?);
        keeper.close(&self.cancel, None, None, tags_of_image).await?;
        self.closed();
        Ok(())
    }
}

fn gone(vm: &Qemu) -> Error {
    Error::Unexpected {
        what: format!("template {}", vm.vmid()),
        reason: "it is gone, deleted by somebody else".to_owned(),
    }
}
