//! `Old`: the template that is replaced; looked at, renamed, and given its name back.

use std::time::Duration;

use proxmox_client::{Client, PoolId, Qemu, VmConfig, VmConfigUpdate, Vmid};
use tokio_util::sync::CancellationToken;

use super::place::{Place, other_of_name};
use super::{RETIRED_TAG, Replacing, change, config, linked_clones, retired_name, tags_with, vms};
use crate::Error;
use crate::build::IMAGE_TAG;

/// How long its name is tried to be given back.
const RESTORE_LIMIT: Duration = Duration::from_secs(120);

/// The template that a build replaces.
#[derive(Debug)]
pub(crate) struct Old {
    vm: Qemu,
    /// The pool that it is in.
    pool: Option<PoolId>,
    /// The image's name, which it has before the swap.
    image: String,
    /// The name that it has after it.
    retired: String,
}

/// What became of an attempt to retire it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retired {
    /// It bears its retired name.
    Done,
    /// Somebody deleted it.
    Gone,
}

/// What became of an attempt to give it its name back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    /// It bears it again.
    Done,
    /// It was not retired by that build, or is gone.
    Nothing,
    /// This guest bears it by now, so it stays retired.
    Inherited(Vmid),
}

/// What it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It bears the image's name and tag.
    Current,
    /// It bears its retired name and tag.
    Retired,
    /// Somebody made something else of it.
    Other(String),
}

impl Old {
    /// Looks where it is now: it may have been moved to another node. `None` when it is not there any more.
    ///
    /// # Errors
    /// [`Error::Api`] when the cluster cannot be listed.
    pub(crate) async fn find(
        client: &Client,
        replacing: &Replacing,
        image: &str,
        build: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        let Some(place) = Place::of(client, replacing.vmid, cancel).await? else {
            return Ok(None);
        };
        Ok(Some(Self {
            vm: place.vm,
            pool: place.pool,
            image: image.to_owned(),
            retired: retired_name(image, build),
        }))
    }

    pub(crate) fn vm(&self) -> &Qemu {
        &self.vm
    }

    pub(crate) fn pool(&self) -> Option<&PoolId> {
        self.pool.as_ref()
    }

    /// The name under which it is kept.
    pub(crate) fn retired_name(&self) -> &str {
        &self.retired
    }

    /// Its configuration; `None` when it is gone.
    pub(crate) async fn config(&self, cancel: &CancellationToken) -> Result<Option<VmConfig>, Error> {
        config(&self.vm, cancel).await
    }

    /// Why it is not to be deleted, for people: somebody made something else of it, something stands on it, or it is protected.
    ///
    /// # Errors
    /// [`Error::Api`] when the disks on its storages cannot be listed.
    pub(crate) async fn hindrance(
        &self,
        client: &Client,
        config: &VmConfig,
        cancel: &CancellationToken,
    ) -> Result<Option<String>, Error> {
        if !self.is_retired(config) {
            return Ok(Some("somebody has changed it since it was replaced".to_owned()));
        }
        if config.flag("protection") == Some(true) {
            return Ok(Some("it is protected".to_owned()));
        }
        let (clones, _) = linked_clones(client, self.vm.node(), self.vm.vmid(), config, cancel).await?;
        Ok((!clones.is_empty()).then(|| format!("linked clones stand on it ({})", vms(&clones))))
    }

    /// Whether it is what the swap made of it.
    pub(crate) fn is_retired(&self, config: &VmConfig) -> bool {
        self.state(config) == State::Retired
    }

    fn state(&self, config: &VmConfig) -> State {
        let (name, tags) = (config.name().unwrap_or_default(), config.tags());
        let has = |tag: &str| tags.iter().any(|known| known == tag);
        if !config.is_template() {
            State::Other("it is no template any more".to_owned())
        } else if name == self.image && has(IMAGE_TAG) {
            State::Current
        } else if name == self.retired && has(RETIRED_TAG) {
            State::Retired
        } else {
            State::Other(format!("its name is `{name}` and its tags are `{}`", tags.join(";")))
        }
    }

    /// Takes its name and the tag of images from it.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when it is not what it was when the build began: somebody else replaced or changed it.
    pub(crate) async fn retire(&self, cancel: &CancellationToken, limit: Duration) -> Result<Retired, Error> {
        let what = format!("renaming template {}", self.vm.vmid());
        let changed = change(&self.vm, &what, cancel, limit, |config| match self.state(config) {
            State::Retired => Ok(None),
            State::Current => Ok(Some(
                VmConfigUpdate::new()
                    .name(self.retired.as_str())
                    .tags(tags_with(config, RETIRED_TAG, IMAGE_TAG)),
            )),
            State::Other(seen) => Err(Error::Unexpected {
                what: format!("template {}", self.vm.vmid()),
                reason: format!(
                    "it was {} when the build began and is that no more: {seen}; somebody else has changed or replaced it",
                    self.image
                ),
            }),
        })
        .await?;
        Ok(if changed.is_some() {
            Retired::Done
        } else {
            Retired::Gone
        })
    }

    /// Whether it waits for its name: it is retired, and nobody else has taken the name since. As long as it does, nothing may be
    /// removed that tells whose it was.
    ///
    /// # Errors
    /// Any of the calls.
    pub(crate) async fn waits(&self, client: &Client, cancel: &CancellationToken) -> Result<bool, Error> {
        let config = self.config(cancel).await?;
        Ok(config.is_some_and(|config| self.is_retired(&config)) && self.heir(client, cancel).await?.is_none())
    }

    /// Another guest that bears the image's name by now.
    ///
    /// # Errors
    /// [`Error::Api`] when the cluster cannot be listed.
    pub(crate) async fn heir(&self, client: &Client, cancel: &CancellationToken) -> Result<Option<Vmid>, Error> {
        other_of_name(client, &self.image, &[self.vm.vmid()], cancel).await
    }

    /// Gives it its name and tag back, unless another guest bears the name by now.
    ///
    /// # Errors
    /// Any of the calls.
    pub(crate) async fn restore(&self, client: &Client, cancel: &CancellationToken) -> Result<Restored, Error> {
        match self.config(cancel).await? {
            Some(config) if self.is_retired(&config) => {}
            _ => return Ok(Restored::Nothing),
        }
        if let Some(heir) = self.heir(client, cancel).await? {
            return Ok(Restored::Inherited(heir));
        }
        let what = format!("giving template {} its name back", self.vm.vmid());
        let changed = change(&self.vm, &what, cancel, RESTORE_LIMIT, |config| {
            Ok((self.state(config) == State::Retired).then(|| {
                VmConfigUpdate::new()
                    .name(self.image.as_str())
                    .tags(tags_with(config, IMAGE_TAG, RETIRED_TAG))
            }))
        })
        .await?;
        Ok(match changed {
            Some(true) => Restored::Done,
            _ => Restored::Nothing,
        })
    }
}
