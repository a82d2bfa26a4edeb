//! `Remains`: what a replacement has left besides its new template, which is complete: copies on their way to another number.

use proxmox_client::{Client, Qemu, VmConfig, VmConfigUpdate, Vmid};
use tokio_util::sync::CancellationToken;

use super::place::other_of_name;
use super::{At, FullCopy, Old, Presence, Replacing, config, retired_name, tags_with};
use crate::Error;
use crate::build::{BUILD_TAG_PREFIX, IMAGE_TAG};
use crate::journal::Keeper;

/// A copy of the old template.
#[derive(Debug)]
pub(crate) enum OldCopy {
    /// The old one is there, whole, and nothing deletes it: the copy can go.
    Surplus(FullCopy),
    /// The old one may be about to go: both stay. Why, for people.
    Needed(String),
    /// It is all that there is of the old one: it gets its name.
    Last(FullCopy),
}

/// What there is, by looking.
#[derive(Debug)]
pub(crate) struct Remains {
    client: Client,
    /// Number of the old template.
    old: Vmid,
    image: String,
    build: String,
    /// Tags that the new template is to have with its name, when it has lost the latter.
    name_back: Option<Vec<String>>,
    old_copy: Option<OldCopy>,
    new_copy: Option<FullCopy>,
    renumbered: bool,
    /// Another guest that bears the image's name by now, when the new template has lost it.
    heir: Option<Vmid>,
}

impl Remains {
    /// Looks at what belongs to the new template `new`, which a build has published.
    ///
    /// # Errors
    /// Any of the calls.
    pub(crate) async fn look(
        client: &Client,
        new: &Qemu,
        replacing: &Replacing,
        image: &str,
        build: &str,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let mut remains = Self {
            client: client.clone(),
            old: replacing.vmid,
            image: image.to_owned(),
            build: build.to_owned(),
            name_back: None,
            old_copy: None,
            new_copy: None,
            renumbered: false,
            heir: None,
        };
        if !replacing.renumber {
            return Ok(remains);
        }
        if let Some(vmid) = replacing.copy
            && let At::Copy(copy) = At::look(client, vmid, build, cancel).await?
        {
            let old = Old::find(client, replacing, image, build, cancel).await?;
            let presence = match &old {
                Some(old) => old.presence(client, cancel).await?,
                None => Presence::Gone,
            };
            remains.old_copy = Some(match presence {
                Presence::Whole(config) if old.as_ref().is_some_and(|old| old.is_retired(&config)) => {
                    OldCopy::Surplus(copy)
                }
                Presence::Whole(_) | Presence::Gone => OldCopy::Last(copy),
                Presence::Doubtful(why) => {
                    let old = replacing.vmid;
                    let copy_vmid = copy.vm().vmid();
                    OldCopy::Needed(format!(
                        "{why}, so its copy, vm {copy_vmid}, is not removed; see to it that template {old} is either whole and \
                         unlocked or gone, and go on then"
                    ))
                }
            });
        }
        let at_number = At::look(client, replacing.vmid, build, cancel).await?;
        let nameless = config(new, cancel)
            .await?
            .filter(|config| config.name() == Some(format!("{BUILD_TAG_PREFIX}{build}").as_str()));
        match at_number {
            At::Copy(copy) => remains.new_copy = Some(copy),
            At::Other(config) if nameless.is_some() && is_image(&config, image) => remains.renumbered = true,
            At::Other(_) | At::Nothing => {}
        }
        if let Some(config) = nameless.filter(|_| !remains.renumbered) {
            remains.heir = other_of_name(client, image, &[new.vmid()], cancel).await?;
            if remains.heir.is_none() {
                remains.name_back = Some(tags_with(&config, IMAGE_TAG, ""));
            }
        }
        Ok(remains)
    }

    /// Whether a copy of the new template has its name and the old one's number, so that the one it was made of is not needed any more.
    pub(crate) fn is_renumbered(&self) -> bool {
        self.renumbered
    }

    /// The guest that bears the image's name by now, when the new template has lost it and so does not get it back.
    pub(crate) fn heir(&self) -> Option<Vmid> {
        self.heir
    }

    /// The copies that can be dealt with, and whether it is the last of the old template.
    pub(crate) fn copies(&self) -> impl Iterator<Item = (&FullCopy, bool)> {
        let old = self.old_copy.as_ref().and_then(|copy| match copy {
            OldCopy::Surplus(copy) => Some((copy, false)),
            OldCopy::Last(copy) => Some((copy, true)),
            OldCopy::Needed(_) => None,
        });
        old.into_iter().chain(self.new_copy.iter().map(|copy| (copy, false)))
    }

    /// Leaves the new template complete under the image's name, unless another guest bears it by now, at the number that it was built at, and the old one retired, without
    /// a copy of either.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when the old one is not surely there or gone, so that its copy stays; any of the calls. What was done stays
    /// done.
    pub(crate) async fn settle(&self, keeper: &Keeper, cancel: &CancellationToken) -> Result<(), Error> {
        if let Some(tags) = &self.name_back {
            let update = VmConfigUpdate::new().name(self.image.as_str()).tags(tags);
            keeper.change(cancel, &update, None, |_| {}).await?;
        }
        if let Some(copy) = &self.new_copy {
            copy.remove(&self.client, cancel).await?;
        }
        match &self.old_copy {
            Some(OldCopy::Surplus(copy)) => copy.remove(&self.client, cancel).await,
            Some(OldCopy::Last(copy)) => {
                let name = retired_name(&self.image, &self.build);
                copy.finish(cancel, |_| VmConfigUpdate::new().name(name.as_str())).await
            }
            Some(OldCopy::Needed(why)) => Err(Error::Unexpected {
                what: format!("template {}", self.old),
                reason: why.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// Whether it is a finished template that bears this name.
pub(crate) fn is_image(config: &VmConfig, image: &str) -> bool {
    config.is_template() && config.name() == Some(image) && config.tags().iter().any(|tag| tag == IMAGE_TAG)
}
