//! What dead builds and verifications left on a cluster: found by listing, removed when asked.
//!
//! Their VMs bear a tag and a journal, their volumes have an id in the name. What bears neither was not made by them and is never
//! touched. What counts as living is left alone, and so is a clone of such a VM, whose journal names another VM.
//!
//! An installer ISO that a build uploaded stays: it has its own file's name, and other builds may install from it.

mod lone;
mod removal;
mod volumes;

pub use removal::remove;
pub(crate) use removal::remove_verification;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::time::Duration;

use proxmox_client::{Client, ConfigView, ErrorKind, NodeName, Qemu, Resource};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::lone::lone;
use self::volumes::{of_lone_volume, volumes};
use crate::Error;
use crate::build::{BUILD_TAG_PREFIX, RETIRE, is_complete, is_id};
use crate::journal::{self, Journal};
use crate::replace::{Old, Remains, moved_name, work_on};
use crate::verify::{CLONE_NAME_PREFIX, VERIFY_TAG_PREFIX};

/// How old a volume without a VM has to be until it counts as left behind, by default. Its VM is made within
/// seconds, but may be one that this login cannot see, and then it is needed until the installation has ended.
pub const VOLUME_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// Something that a build or a verification made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Thing {
    /// A VM.
    Vm {
        /// Its node.
        node: String,
        /// Its id.
        vmid: u32,
        /// Whether it has become a template already, one that was not finished.
        template: bool,
    },
    /// A volume: the kickstart of a build, or what a verification tells a clone.
    Volume {
        /// The node that was asked for it.
        node: String,
        /// Its id.
        volid: String,
    },
    /// The name that a build gave to the template whose place it was to take. Removed, it is the image's again.
    Name {
        /// The old template's node.
        node: String,
        /// Its id.
        vmid: u32,
        /// The name that it has.
        name: String,
        /// The name that it gets back.
        image: String,
    },
    /// A template on its way to another vmid, as a full copy.
    Copy {
        /// Its node.
        node: String,
        /// Its id.
        vmid: u32,
        /// Whether it is all that there is of the template that was replaced: it stays then, and gets its retired name.
        last: bool,
    },
    /// A build's mark on a template that is complete and bears the image's name, so that the template stays: only the deletion of the
    /// one that it replaced was still to come, or the exchange of their vmids. That one stays too, under its retired name.
    Mark {
        /// The template's node.
        node: String,
        /// Its id.
        vmid: u32,
    },
}

impl Thing {
    fn copy(vm: &Qemu, last: bool) -> Self {
        Self::Copy {
            node: vm.node().to_string(),
            vmid: vm.vmid().get(),
            last,
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm { node, vmid, template } => {
                write!(f, "{} {vmid} on {node}", if *template { "template" } else { "vm" })
            }
            Self::Volume { node, volid } => write!(f, "{volid} on {node}"),
            Self::Name {
                node,
                vmid,
                name,
                image,
            } => write!(f, "the name {name} of template {vmid} on {node}, which is {image} then"),
            Self::Copy {
                node,
                vmid,
                last: false,
            } => write!(f, "the copy {vmid} on {node}, which is not needed"),
            Self::Copy { node, vmid, last: true } => write!(
                f,
                "the build's mark on template {vmid} on {node}, which is the old one, moved"
            ),
            Self::Mark { node, vmid } => write!(f, "the build's mark on template {vmid} on {node}, which is complete"),
        }
    }
}

/// What left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// A build.
    Build,
    /// A verification, which clones a template and removes the clones again.
    Verification,
}

impl Origin {
    const ALL: [Self; 2] = [Self::Build, Self::Verification];

    /// What its tags and the names of its volumes begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Build => BUILD_TAG_PREFIX,
            Self::Verification => VERIFY_TAG_PREFIX,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build",
            Self::Verification => "verification",
        })
    }
}

/// Whether the process behind it lives. What is more alive is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It gave no sign of life for as long as it had promised one: it can be removed.
    Dead,
    /// Nothing can be said, so it is left alone: a person has to look at it.
    Unclear,
    /// It counts as living, and is left alone.
    Alive,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead => "dead",
            Self::Unclear => "unclear",
            Self::Alive => "alive",
        })
    }
}

/// A build or a verification that has not ended, and what there is of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Found {
    /// Its short id.
    pub id: String,
    /// Which of the two it is.
    pub of: Origin,
    /// Name of the image that it was to make, or of the template that it looked at, when its journal tells.
    pub image: Option<String>,
    /// The step that it began last, when its journal tells.
    pub step: Option<String>,
    /// Whether its process lives; only what is dead can be removed.
    pub state: State,
    /// Why that is so, for people.
    pub because: String,
    /// What there is of it.
    pub things: Vec<Thing>,
}

impl Found {
    /// Takes in what was found of it elsewhere. One sign of life is enough.
    fn merge(&mut self, other: Self) {
        if other.state > self.state {
            self.state = other.state;
            self.because = other.because;
        }
        self.things.extend(other.things);
    }
}

/// The builds and verifications on a cluster that have not ended.
///
/// # Errors
/// [`Error::Api`] when the cluster cannot be listed.
///
/// # Cancel safety
/// Only reads; may be dropped at any time.
///
/// # Source
/// `/cluster/resources`, the configuration of each VM with such a tag or name, and the content of each storage that holds ISOs; PVE
/// 8 and 9.
pub async fn find(client: &Client, volume_age: Duration) -> Result<Vec<Found>, Error> {
    let resources = client
        .cluster_resources(None)
        .await
        .map_err(Error::api("listing the cluster's resources"))?;
    let mut all: BTreeMap<(Origin, String), Found> = BTreeMap::new();
    // The verification that a build has begun of its own template.
    let mut parts: BTreeMap<String, String> = BTreeMap::new();
    for guest in resources.iter().filter(|resource| resource.is_qemu()) {
        let Some((found, verification)) = look_at(client, guest).await? else {
            continue;
        };
        if let Some(verification) = verification {
            parts.insert(found.id.clone(), verification);
        }
        match all.entry((found.of, found.id.clone())) {
            Entry::Vacant(entry) => {
                entry.insert(found);
            }
            Entry::Occupied(mut entry) => entry.get_mut().merge(found),
        }
    }
    let lone = lone(client, &resources, &all).await?;
    for volume in volumes(client, &resources).await? {
        let alone = || {
            let (state, because) = of_lone_volume(client, &resources, volume.made, volume_age);
            Found {
                id: volume.id.clone(),
                of: volume.of,
                image: None,
                step: None,
                state,
                because,
                things: Vec::new(),
            }
        };
        let found = all.entry((volume.of, volume.id.clone())).or_insert_with(alone);
        found.things.push(Thing::Volume {
            node: volume.node.to_string(),
            volid: volume.volid.to_string(),
        });
    }
    // It lives and dies with the build, and its clones stand on the build's template.
    for (build, verification) in parts {
        let part = all.remove(&(Origin::Verification, verification));
        if let (Some(found), Some(part)) = (all.get_mut(&(Origin::Build, build)), part) {
            found.things.extend(part.things);
        }
    }
    Ok(all.into_values().chain(lone).collect())
}

/// A guest whose tag or name looks like ours, and what its own configuration says: the cluster's list can lag (`FACTS` 80), and a
/// clone takes tags along. With it the verification that the build has begun, if it has.
async fn look_at(client: &Client, guest: &Resource) -> Result<Option<(Found, Option<String>)>, Error> {
    let named = guest.name.as_deref().and_then(verification_of);
    let marks = marks_of(guest.tags().iter().map(String::as_str), named);
    let (Some((of, id)), Some(vmid), Some(node)) = (marks.first().cloned(), guest.vmid, guest.node.as_deref()) else {
        return Ok(None);
    };
    let mut verification = None;
    let mut found = Found {
        id,
        of,
        image: None,
        step: None,
        state: State::Unclear,
        because: String::new(),
        things: vec![Thing::Vm {
            node: node.to_owned(),
            vmid: vmid.get(),
            template: guest.template,
        }],
    };
    let name = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
    let config = match client.node(&name).qemu(vmid).config(ConfigView::Pending).await {
        Ok(config) => config,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::Proxy | ErrorKind::Permission) => {
            found.because = format!("vm {vmid} cannot be read: {error}");
            return Ok(Some((found, None)));
        }
        Err(error) => return Err(Error::api(format!("reading the configuration of vm {vmid}"))(error)),
    };
    match journal::read(config.description().unwrap_or_default()) {
        Ok(Some(journal)) => {
            let mark = marks.into_iter().find(|(_, id)| *id == journal.build);
            let Some((of, id)) = mark.filter(|_| journal.vmid == vmid) else {
                // A clone of what is ours, or a person's own use of the tag.
                return Ok(None);
            };
            (found.of, found.id) = (of, id);
            let life = life(client, &journal, &CancellationToken::new()).await?;
            (found.state, found.because) = life.unwrap_or_else(|| {
                let because = format!("it gave no sign of life since {}", journal.lease);
                (State::Dead, because)
            });
            if of == Origin::Build {
                look_at_swap(client, &mut found, &journal).await?;
                verification = verification_in(&journal);
            }
            found.image = Some(journal.image);
            found.step = Some(journal.step);
        }
        // A name alone says nothing.
        Ok(None) if config.tags().iter().all(|tag| mark_of(tag).is_none()) => return Ok(None),
        Ok(None) => found.because = format!("vm {vmid} bears its tag but no journal: look at it yourself"),
        Err(error) => found.because = format!("the journal of vm {vmid} is no help: {error}"),
    }
    Ok(Some((found, verification)))
}

/// Whether a build or verification counts as living, or nothing can be said, and why; `None` when it is dead.
async fn life(
    client: &Client,
    journal: &Journal,
    cancel: &CancellationToken,
) -> Result<Option<(State, String)>, Error> {
    if journal.is_held(journal::now(client)) {
        let because = format!("it counts as living until {}", journal.lease);
        return Ok(Some((State::Alive, because)));
    }
    let work = work_on(client, journal.vmid, journal.replacing.as_ref(), cancel).await?;
    Ok(work.map(|work| {
        if work.ends() {
            (State::Alive, work.to_string())
        } else {
            (State::Unclear, format!("{work}; then gc again"))
        }
    }))
}

/// What a build that takes the place of another template has left besides its VM.
async fn look_at_swap(client: &Client, found: &mut Found, journal: &Journal) -> Result<(), Error> {
    let cancel = CancellationToken::new();
    if is_complete(&journal.step) {
        return look_at_complete(client, found, journal, &cancel).await;
    }
    let Some(old) = old_of(client, journal, &cancel).await? else {
        return Ok(());
    };
    if let Some(config) = old.config(&cancel).await?
        && old.is_retired(&config)
    {
        if let Some(heir) = old.heir(client, &cancel).await? {
            let (vmid, kept) = (old.vm().vmid(), old.retired_name());
            let why = format!(
                "; template {vmid} stays {kept}, because guest {heir} is {} by now",
                journal.image
            );
            found.because.push_str(&why);
            return Ok(());
        }
        found.things.push(Thing::Name {
            node: old.vm().node().to_string(),
            vmid: old.vm().vmid().get(),
            name: old.retired_name().to_owned(),
            image: journal.image.clone(),
        });
    }
    Ok(())
}

/// A build whose image is complete: that stays, and only the mark on it is to go.
async fn look_at_complete(
    client: &Client,
    found: &mut Found,
    journal: &Journal,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let Some(Thing::Vm { node, vmid, .. }) = found.things.first().cloned() else {
        return Ok(());
    };
    let mut renumbered = false;
    // What lives is at work on it.
    if let Some(replacing) = journal.replacing.as_ref().filter(|_| found.state == State::Dead) {
        let node = NodeName::new(node.as_str()).map_err(Error::api("reading the cluster's guests"))?;
        let new = client.node(&node).qemu(journal.vmid);
        let remains = Remains::look(client, &new, replacing, &journal.image, &journal.build, cancel).await?;
        renumbered = remains.is_renumbered();
        if let Some(heir) = remains.heir() {
            let why = format!(
                "; template {vmid} is kept as {}, because guest {heir} is {} by now",
                moved_name(&journal.image, &journal.build),
                journal.image
            );
            found.because.push_str(&why);
        }
        let copies = remains.copies().map(|(copy, last)| Thing::copy(copy.vm(), last));
        found.things.extend(copies);
    }
    if let Some(own) = found.things.first_mut().filter(|_| !renumbered) {
        *own = Thing::Mark { node, vmid };
    }
    Ok(())
}

/// The template whose place a build was to take, if it had come so far and that is still there.
async fn old_of(client: &Client, journal: &Journal, cancel: &CancellationToken) -> Result<Option<Old>, Error> {
    let Some(replacing) = journal.replacing.as_ref().filter(|_| journal.step == RETIRE) else {
        return Ok(None);
    };
    Old::find(client, replacing, &journal.image, &journal.build, cancel).await
}

fn verification_in(journal: &Journal) -> Option<String> {
    journal.replacing.as_ref()?.verification.as_ref()?.id.clone()
}

/// Whose a tag or a file's name says that it is.
fn mark_of(text: &str) -> Option<(Origin, String)> {
    let of = |of: Origin| {
        let id = text.strip_prefix(of.prefix())?;
        is_id(id).then(|| (of, id.to_owned()))
    };
    Origin::ALL.into_iter().find_map(of)
}

/// The verification in the name of one of its clones.
fn verification_of(name: &str) -> Option<(Origin, String)> {
    let (id, number) = name.strip_prefix(CLONE_NAME_PREFIX)?.split_once('-')?;
    (is_id(id) && matches!(number, "1" | "2")).then(|| (Origin::Verification, id.to_owned()))
}

/// All that a guest may belong to, its own name first: a clone bears its template's tags until it is given its own.
fn marks_of<'a>(tags: impl Iterator<Item = &'a str>, named: Option<(Origin, String)>) -> Vec<(Origin, String)> {
    named.into_iter().chain(tags.filter_map(mark_of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_build_names_is_its_own() {
        for (text, wanted) in [
            ("k3simage-build-7f3a12bc", Some(Origin::Build)),
            ("k3simage-verify-7f3a12bc", Some(Origin::Verification)),
            ("k3simage-build-7F3A12BC", None),
            ("k3simage-build-7f3a", None),
            ("k3simage-build-7f3a12bc0", None),
            ("my-k3simage-build-7f3a12bc", None),
            ("k3simage", None),
        ] {
            let wanted = wanted.map(|of| (of, "7f3a12bc".to_owned()));
            assert_eq!(mark_of(text), wanted, "{text}");
        }
        for (name, ours) in [
            ("verify-7f3a12bc-1", true),
            ("verify-7f3a12bc-2", true),
            ("verify-7f3a12bc-3", false),
            ("verify-7f3a12bc", false),
            ("verify-backup01-1", false),
            ("k3s-verify-7f3a12bc-1", false),
        ] {
            assert_eq!(verification_of(name).is_some(), ours, "{name}");
        }
    }
}
