//! What dead builds and verifications left on a cluster: found by listing, removed when asked.
//!
//! Their VMs bear a tag and a journal, their volumes have an id in the name. What bears neither was not made by them and is never
//! touched. What counts as living is left alone, and so is a clone of such a VM, whose journal names another VM.
//!
//! An installer ISO that a build uploaded stays: it has its own file's name, and other builds may install from it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proxmox_client::{Client, ConfigView, Content, ErrorKind, NodeName, Qemu, Resource, VmConfigUpdate, Vmid, VolId};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::build::{BUILD_TAG_PREFIX, DELETE_OLD, RETIRE, TASK_LIMIT, ask, destroy, destroy_volume, is_id};
use crate::journal::{self, Journal, Keeper, LEASE, new_holder};
use crate::replace::Old;
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
    /// A build's mark on a template that is complete and bears the image's name, so that the template stays: only the deletion of the
    /// one that it replaced was still to come. That one stays too, under its retired name.
    Mark {
        /// The template's node.
        node: String,
        /// Its id.
        vmid: u32,
    },
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
    /// Whether its process counts as living, or nothing can be said: it is left alone then.
    pub living: bool,
    /// Why it counts as living or dead, for people.
    pub because: String,
    /// What there is of it.
    pub things: Vec<Thing>,
}

impl Found {
    /// Takes in what was found of it elsewhere. One sign of life is enough.
    fn merge(&mut self, other: Self) {
        if other.living && !self.living {
            self.living = true;
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
    for volume in volumes(client, &resources).await? {
        let lone = || {
            let (living, because) = of_lone_volume(client, &resources, volume.made, volume_age);
            Found {
                id: volume.id.clone(),
                of: volume.of,
                image: None,
                step: None,
                living,
                because,
                things: Vec::new(),
            }
        };
        let found = all.entry((volume.of, volume.id.clone())).or_insert_with(lone);
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
    Ok(all.into_values().collect())
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
        living: true,
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
            found.living = journal.is_held(journal::now(client));
            found.because = if found.living {
                format!("it counts as living until {}", journal.lease)
            } else {
                format!("it gave no sign of life since {}", journal.lease)
            };
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

/// What a build that takes the place of another template has left besides its VM.
async fn look_at_swap(client: &Client, found: &mut Found, journal: &Journal) -> Result<(), Error> {
    if journal.step == DELETE_OLD {
        found.things = found
            .things
            .iter()
            .map(|thing| match thing {
                Thing::Vm { node, vmid, .. } => Thing::Mark {
                    node: node.clone(),
                    vmid: *vmid,
                },
                other => other.clone(),
            })
            .collect();
        return Ok(());
    }
    let cancel = CancellationToken::new();
    let Some(old) = old_of(client, journal, &cancel).await? else {
        return Ok(());
    };
    if let Some(config) = old.config(&cancel).await?
        && old.is_retired(&config)
    {
        found.things.push(Thing::Name {
            node: old.vm().node().to_string(),
            vmid: old.vm().vmid().get(),
            name: old.retired_name().to_owned(),
            image: journal.image.clone(),
        });
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

/// A volume with an id of ours in its name.
struct OurVolume {
    of: Origin,
    id: String,
    node: NodeName,
    volid: VolId,
    made: Option<i64>,
}

/// The volumes of builds and verifications, each once.
async fn volumes(client: &Client, resources: &[Resource]) -> Result<Vec<OurVolume>, Error> {
    let mut found = Vec::new();
    let mut shared: BTreeSet<&str> = BTreeSet::new();
    let storages = resources
        .iter()
        .filter(|resource| resource.kind == "storage" && resource.content().contains(&Content::Iso));
    for resource in storages {
        let (Some(storage), Some(node)) = (resource.storage.as_deref(), resource.node.as_deref()) else {
            continue;
        };
        if resource.status.as_deref() != Some("available") || (resource.shared && !shared.insert(storage)) {
            continue;
        }
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's storages"))?;
        let id = storage.parse().map_err(Error::api("reading the cluster's storages"))?;
        let content = match client.node(&node).storage(&id).content(Some(Content::Iso)).await {
            Ok(content) => content,
            Err(error) if matches!(error.kind(), ErrorKind::Proxy | ErrorKind::Permission) => {
                tracing::debug!(%error, storage, %node, "a storage that cannot be listed is passed over");
                continue;
            }
            Err(error) => {
                return Err(Error::api(format!("listing the ISOs of storage {storage} on {node}"))(
                    error,
                ));
            }
        };
        for volume in content {
            let mark = volume.volid.file_name().strip_suffix(".iso").and_then(mark_of);
            if let Some((of, id)) = mark {
                found.push(OurVolume {
                    of,
                    id,
                    node: node.clone(),
                    volid: volume.volid,
                    made: volume.ctime,
                });
            }
        }
    }
    Ok(found)
}

/// A volume whose VM is not there: living until it is old enough, or as long as a node is away whose VMs cannot be seen.
fn of_lone_volume(client: &Client, resources: &[Resource], made: Option<i64>, age: Duration) -> (bool, String) {
    let away = resources
        .iter()
        .find(|resource| resource.kind == "node" && resource.status.as_deref() == Some("offline"));
    if let Some(node) = away.and_then(|node| node.node.as_deref()) {
        return (true, format!("its VM may be on node {node}, which is offline"));
    }
    let Some(made) = made.and_then(|made| Timestamp::from_second(made).ok()) else {
        return (true, "it has no VM, and PVE does not tell how old it is".to_owned());
    };
    let limit = SignedDuration::try_from(age)
        .ok()
        .and_then(|age| made.checked_add(age).ok())
        .unwrap_or(Timestamp::MAX);
    let living = limit > journal::now(client);
    let because = if living {
        format!("it has no VM, but was made only at {made}")
    } else {
        format!("it has no VM and was made at {made}")
    };
    (living, because)
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

/// Removes what a dead build or verification left, its VMs first, and answers what was removed. Everything is looked at once more: a build that
/// someone goes on with meanwhile, or that has ended well, is left alone.
///
/// # Errors
/// [`Error::TakenOver`] when the build lives; any of the calls. What was removed before stays removed.
///
/// # Cancel safety
/// By `cancel`: it stops between two calls. Run again, it goes on.
pub async fn remove(client: &Client, found: &Found, cancel: &CancellationToken) -> Result<Vec<String>, Error> {
    if found.living {
        return Err(Error::TakenOver {
            build: found.id.clone(),
            found: found.because.clone(),
        });
    }
    let bad = || Error::api(format!("reading what is left of {} {}", found.of, found.id));
    let mut removed = Vec::new();
    for thing in &found.things {
        match thing {
            Thing::Vm { node, vmid, .. } => {
                let node = NodeName::new(node.as_str()).map_err(bad())?;
                let vmid = Vmid::new(*vmid).map_err(bad())?;
                removed.extend(remove_vm(client, found.of, &found.id, &node, vmid, cancel).await?);
            }
            // It goes with the VM that was to bear the name, which is on the list before it.
            Thing::Name { .. } => {}
            Thing::Mark { node, vmid } => {
                let node = NodeName::new(node.as_str()).map_err(bad())?;
                let vmid = Vmid::new(*vmid).map_err(bad())?;
                if remove_mark(client, &found.id, &node, vmid, cancel).await? {
                    removed.push(thing.to_string());
                }
            }
            Thing::Volume { node, volid } => {
                let node = NodeName::new(node.as_str()).map_err(bad())?;
                let volid: VolId = volid.parse().map_err(bad())?;
                destroy_volume(client, &node, &volid, TASK_LIMIT, cancel).await?;
                removed.push(thing.to_string());
            }
        }
    }
    Ok(removed)
}

/// Takes the build over, so that no one goes on with it in the same moment, gives the template that it was to replace its name
/// back, and destroys its clones and its VM. What was removed; nothing when there is no VM any more.
async fn remove_vm(
    client: &Client,
    of: Origin,
    build: &str,
    node: &NodeName,
    vmid: Vmid,
    cancel: &CancellationToken,
) -> Result<Vec<String>, Error> {
    let vm = client.node(node).qemu(vmid);
    let Some((journal, template, _keeper)) = take_over(client, build, &vm).await? else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    if of == Origin::Build {
        if let Some(old) = old_of(client, &journal, cancel).await?
            && old.restore(cancel).await?
        {
            removed.push(
                Thing::Name {
                    node: old.vm().node().to_string(),
                    vmid: old.vm().vmid().get(),
                    name: old.retired_name().to_owned(),
                    image: journal.image.clone(),
                }
                .to_string(),
            );
        }
        // PVE keeps a template as long as there are linked clones of it.
        if let Some(verification) = verification_in(&journal) {
            removed.extend(remove_verification(client, &verification, cancel).await?);
        }
    }
    destroy(client, &vm, cancel).await?;
    let thing = Thing::Vm {
        node: node.to_string(),
        vmid: vmid.get(),
        template,
    };
    removed.push(thing.to_string());
    Ok(removed)
}

/// Takes over a build whose image is complete, and ends it there.
async fn remove_mark(
    client: &Client,
    build: &str,
    node: &NodeName,
    vmid: Vmid,
    cancel: &CancellationToken,
) -> Result<bool, Error> {
    let vm = client.node(node).qemu(vmid);
    let Some((_, _, keeper)) = take_over(client, build, &vm).await? else {
        return Ok(false);
    };
    let config = ask("reading a template's tags", cancel, || vm.config(ConfigView::Pending)).await?;
    let mut tags = config.tags();
    tags.retain(|tag| mark_of(tag).is_none());
    let update = VmConfigUpdate::new().tags(tags);
    keeper.close(cancel, &update, None).await?;
    Ok(true)
}

/// The journal of a dead build or verification, with our name in it now, and whether its VM has become a template; `None` when
/// the VM is gone.
async fn take_over(client: &Client, build: &str, vm: &Qemu) -> Result<Option<(Journal, bool, Keeper)>, Error> {
    let vmid = vm.vmid();
    let config = match vm.config(ConfigView::Pending).await {
        Ok(config) => config,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(Error::api(format!("reading the configuration of vm {vmid}"))(error)),
    };
    let living = |found: String| Error::TakenOver {
        build: build.to_owned(),
        found,
    };
    let journal = journal::read(config.description().unwrap_or_default())
        .map_err(|error| living(error.to_string()))?
        .filter(|journal| journal.build == build && journal.vmid == vmid)
        .ok_or_else(|| living(format!("vm {vmid} does not bear its journal any more")))?;
    if journal.is_held(journal::now(client)) {
        return Err(living(format!("its builder counts as living until {}", journal.lease)));
    }
    let ours = Journal {
        holder: new_holder(),
        ..journal.clone()
    };
    let keeper = Keeper::take_over(client, vm.clone(), LEASE, &config, ours).await?;
    Ok(Some((journal, config.is_template(), keeper)))
}

/// Removes the clones and the volume of a verification whose build is known to be dead, whether its own lease has ended or not.
pub(crate) async fn remove_verification(
    client: &Client,
    id: &str,
    cancel: &CancellationToken,
) -> Result<Vec<String>, Error> {
    let resources = ask("listing the cluster's resources", cancel, || {
        client.cluster_resources(None)
    })
    .await?;
    let mark = (Origin::Verification, id.to_owned());
    let mut removed = Vec::new();
    for guest in resources.iter().filter(|resource| resource.is_qemu()) {
        let named = guest.name.as_deref().and_then(verification_of);
        let marks = marks_of(guest.tags().iter().map(String::as_str), named);
        let (true, Some(vmid), Some(node)) = (marks.contains(&mark), guest.vmid, guest.node.as_deref()) else {
            continue;
        };
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
        let vm = client.node(&node).qemu(vmid);
        let attempt = format!("reading the configuration of vm {vmid}");
        let config = match ask(&attempt, cancel, || vm.config(ConfigView::Pending)).await {
            Ok(config) => config,
            Err(Error::Api { source, .. }) if source.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let journal = journal::read(config.description().unwrap_or_default()).ok().flatten();
        if journal.is_some_and(|journal| journal.build == id && journal.vmid == vmid) {
            destroy(client, &vm, cancel).await?;
            removed.push(format!("vm {vmid} on {node}"));
        }
    }
    for volume in volumes(client, &resources).await? {
        if (volume.of, volume.id.as_str()) == (Origin::Verification, id) {
            destroy_volume(client, &volume.node, &volume.volid, TASK_LIMIT, cancel).await?;
            removed.push(format!("{} on {}", volume.volid, volume.node));
        }
    }
    Ok(removed)
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
