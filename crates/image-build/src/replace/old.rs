//! `Old`: the template that is replaced; looked at, renamed, and given its name back.

use std::time::Duration;

use proxmox_client::{Client, ConfigView, ErrorKind, NodeName, Qemu, VmConfig, VmConfigUpdate};
use tokio_util::sync::CancellationToken;

use super::{RETIRED_TAG, Replacing, retired_name};
use crate::Error;
use crate::build::{IMAGE_TAG, Pace, ask};
use crate::journal::is_passing;
use crate::plan::GUESTS;

/// How long its name is tried to be given back.
const RESTORE_LIMIT: Duration = Duration::from_secs(120);

/// The template that a build replaces.
#[derive(Debug)]
pub(crate) struct Old {
    vm: Qemu,
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
        let guests = ask("listing the cluster's guests", cancel, || {
            client.cluster_resources(Some(GUESTS))
        })
        .await?;
        let guest = guests
            .iter()
            .find(|guest| guest.is_qemu() && guest.vmid == Some(replacing.vmid));
        let Some(node) = guest.and_then(|guest| guest.node.as_deref()) else {
            return Ok(None);
        };
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
        Ok(Some(Self {
            vm: client.node(&node).qemu(replacing.vmid),
            image: image.to_owned(),
            retired: retired_name(image, build),
        }))
    }

    pub(crate) fn vm(&self) -> &Qemu {
        &self.vm
    }

    /// The name under which it is kept.
    pub(crate) fn retired_name(&self) -> &str {
        &self.retired
    }

    /// Its configuration; `None` when it is gone.
    pub(crate) async fn config(&self, cancel: &CancellationToken) -> Result<Option<VmConfig>, Error> {
        let attempt = format!("reading template {}", self.vm.vmid());
        match ask(&attempt, cancel, || self.vm.config(ConfigView::Pending)).await {
            Ok(config) => Ok(Some(config)),
            Err(Error::Api { source, .. }) if source.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
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
        let changed = self
            .change(&what, cancel, limit, |config| match self.state(config) {
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

    /// Gives it its name and tag back. `false` when it was not retired by that build, or is gone.
    ///
    /// # Errors
    /// Any of the calls.
    pub(crate) async fn restore(&self, cancel: &CancellationToken) -> Result<bool, Error> {
        let what = format!("giving template {} its name back", self.vm.vmid());
        let changed = self
            .change(&what, cancel, RESTORE_LIMIT, |config| {
                Ok((self.state(config) == State::Retired).then(|| {
                    VmConfigUpdate::new()
                        .name(self.image.as_str())
                        .tags(tags_with(config, IMAGE_TAG, RETIRED_TAG))
                }))
            })
            .await?;
        Ok(changed == Some(true))
    }

    /// Reads, asks `decide` what to set, and sets it if nothing has changed in between; again until that is so. Whether anything
    /// was set; `None` when it is gone.
    async fn change(
        &self,
        what: &str,
        cancel: &CancellationToken,
        limit: Duration,
        decide: impl Fn(&VmConfig) -> Result<Option<VmConfigUpdate>, Error> + Send + Sync,
    ) -> Result<Option<bool>, Error> {
        let mut pace = Pace::new(what, limit, cancel);
        // An answer that was lost may have been one to a change that was made.
        let mut tried = false;
        loop {
            let Some(config) = self.config(cancel).await? else {
                return Ok(None);
            };
            let Some(update) = decide(&config)? else {
                return Ok(Some(tried));
            };
            let update = update.digest(config.digest().unwrap_or_default());
            match self.vm.update_config(&update).await {
                Ok(()) => return Ok(Some(true)),
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    pace.pause("somebody changes it in the same moment").await?;
                }
                Err(error) if is_passing(&error) || error.kind() == ErrorKind::Locked => {
                    tried |= error.was_sent();
                    pace.pause(&error.to_string()).await?;
                }
                Err(error) => return Err(Error::api(what)(error)),
            }
        }
    }
}

/// Its tags, with one in place of another. PVE sorts them, so to and fro is as it was (`FACTS` 31).
fn tags_with(config: &VmConfig, with: &str, without: &str) -> Vec<String> {
    let mut tags = config.tags();
    tags.retain(|tag| tag != without && tag != with);
    tags.push(with.to_owned());
    tags
}
