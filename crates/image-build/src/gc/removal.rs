//! Removes what is dead, after one more look at it.

use std::sync::Arc;
use std::time::Duration;

use proxmox_client::{Client, ConfigView, NodeName, Qemu, Vmid, VolId};
use tokio_util::sync::CancellationToken;

use super::volumes::volumes;
use super::{Found, Origin, State, Thing, life, marks_of, old_of, verification_in, verification_of};
use crate::Error;
use crate::build::{TASK_LIMIT, ask, destroy, destroy_volume, is_base_in_use, is_complete};
use crate::journal::{self, Journal, Keeper, LEASE, new_holder};
use crate::replace::{Remains, Restored, moved_name, tags_of_image, tags_of_retired};

/// How long the end of a lease on what could not be removed may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);

/// Removes what a dead build or verification left, its VMs first. Everything is looked at once more: a build that someone goes on with
/// meanwhile, or that has ended well, is left alone. What is gone is added to `removed` at once, so that it is known also when an error
/// follows.
///
/// # Errors
/// [`Error::TakenOver`] when the build lives, or nothing can be said of it; any of the calls. What was removed before stays removed.
///
/// # Cancel safety
/// By `cancel`: it stops between two calls. Run again, it goes on.
pub async fn remove(
    client: &Client,
    found: &Found,
    cancel: &CancellationToken,
    removed: &mut Vec<String>,
) -> Result<(), Error> {
    if found.state != State::Dead {
        return Err(Error::TakenOver {
            build: found.id.clone(),
            found: found.because.clone(),
        });
    }
    let bad = || Error::api(format!("reading what is left of {} {}", found.of, found.id));
    for thing in &found.things {
        match thing {
            Thing::Vm { node, vmid, .. } | Thing::Mark { node, vmid } => {
                let node = NodeName::new(node.as_str()).map_err(bad())?;
                let vmid = Vmid::new(*vmid).map_err(bad())?;
                remove_vm(client, (found.of, &found.id), &node, vmid, cancel, removed).await?;
            }
            // They go with the build's own VM, which is on the list before them.
            Thing::Name { .. } | Thing::Copy { .. } => {}
            Thing::Volume { node, volid } => {
                let node = NodeName::new(node.as_str()).map_err(bad())?;
                let volid: VolId = volid.parse().map_err(bad())?;
                if lives_by_now(client, found, cancel).await? {
                    return Err(Error::TakenOver {
                        build: found.id.clone(),
                        found: format!("a VM of it is there by now, which may need {volid}"),
                    });
                }
                destroy_volume(client, &node, &volid, TASK_LIMIT, cancel).await?;
                removed.push(thing.to_string());
            }
        }
    }
    Ok(())
}

/// Whether a VM of it is there that is not dead, after its VMs on the list were removed: a volume has no journal of its own, and a VM may
/// have appeared, or come back with its node.
async fn lives_by_now(client: &Client, found: &Found, cancel: &CancellationToken) -> Result<bool, Error> {
    let resources = ask("listing the cluster's resources", cancel, || {
        client.cluster_resources(None)
    })
    .await?;
    for guest in resources.iter().filter(|resource| resource.is_qemu()) {
        if let Some((now, _)) = super::look_at(client, guest).await?
            && (now.of, now.id.as_str()) == (found.of, found.id.as_str())
        {
            return Ok(now.state != State::Dead);
        }
    }
    Ok(false)
}

/// Takes over a dead build or verification, so that no one goes on with it in the same moment, and removes what there is of it: of one
/// whose image is complete, all but that. Nothing when there is no VM any more.
async fn remove_vm(
    client: &Client,
    (of, build): (Origin, &str),
    node: &NodeName,
    vmid: Vmid,
    cancel: &CancellationToken,
    removed: &mut Vec<String>,
) -> Result<(), Error> {
    let vm = client.node(node).qemu(vmid);
    let Some((journal, template, keeper)) = take_over(client, build, &vm, cancel).await? else {
        return Ok(());
    };
    let keeper = Arc::new(keeper);
    // Shows that this process lives: clones and copies are removed first, each for minutes. It ends when another is found to have it.
    let cancel = cancel.child_token();
    let beat = keeper.beat(cancel.clone());
    let ended = async {
        if of == Origin::Build && is_complete(&journal.step) {
            return end_swap(client, &vm, &journal, &keeper, &cancel, removed).await;
        }
        if of == Origin::Build {
            take_back(client, &journal, &cancel, removed).await?;
        }
        destroy_own(client, &vm, &keeper, &cancel).await?;
        let thing = Thing::Vm {
            node: node.to_string(),
            vmid: vmid.get(),
            template,
        };
        removed.push(thing.to_string());
        Ok(())
    }
    .await;
    drop(beat);
    if ended.is_err() && !keeper.is_taken() {
        // Whoever runs it again need not wait for this lease. What cannot be told of it, the error of the removal tells.
        let released = tokio::time::timeout(RELEASE_LIMIT, keeper.release(&CancellationToken::new())).await;
        tracing::debug!(?released, %vmid, "the lease on what could not be removed");
    }
    match ended {
        Err(_) if keeper.is_taken() => Err(keeper.taken_over()),
        ended => ended,
    }
}

/// Deletes a VM that is still in our hands.
async fn destroy_own(client: &Client, vm: &Qemu, keeper: &Keeper, cancel: &CancellationToken) -> Result<(), Error> {
    match keeper.note(cancel, |_| {}).await {
        Err(Error::Api { source, .. }) if source.is_not_found() => return Ok(()),
        noted => noted?,
    }
    destroy(client, vm, TASK_LIMIT, cancel).await
}

/// Gives the template that a build was to replace its name back, and removes the clones of its verification: PVE keeps a template as
/// long as there are linked clones of it.
async fn take_back(
    client: &Client,
    journal: &Journal,
    cancel: &CancellationToken,
    removed: &mut Vec<String>,
) -> Result<(), Error> {
    if let Some(old) = old_of(client, journal, cancel).await?
        && old.restore(client, cancel).await? == Restored::Done
    {
        let thing = Thing::Name {
            node: old.vm().node().to_string(),
            vmid: old.vm().vmid().get(),
            name: old.retired_name().to_owned(),
            image: journal.image.clone(),
        };
        removed.push(thing.to_string());
    }
    if let Some(verification) = verification_in(journal) {
        remove_verification(client, &verification, cancel, removed).await?;
    }
    Ok(())
}

/// Ends a build whose image is complete where it is: the image stays under its name, without the mark, and so does the template that
/// it replaced; copies on their way to another number go. When the image has the old one's number already, what it was built as goes.
async fn end_swap(
    client: &Client,
    vm: &Qemu,
    journal: &Journal,
    keeper: &Keeper,
    cancel: &CancellationToken,
    removed: &mut Vec<String>,
) -> Result<(), Error> {
    let (mut renumbered, mut inherited) = (false, false);
    if let Some(replacing) = &journal.replacing {
        let remains = Remains::look(client, vm, replacing, &journal.image, &journal.build, cancel).await?;
        remains.settle(keeper, cancel).await?;
        removed.extend(
            remains
                .copies()
                .map(|(copy, last)| Thing::copy(copy.vm(), last).to_string()),
        );
        renumbered = remains.is_renumbered();
        inherited = remains.heir().is_some();
    }
    if renumbered {
        match destroy_own(client, vm, keeper, cancel).await {
            Ok(()) => {
                let thing = Thing::Vm {
                    node: vm.node().to_string(),
                    vmid: vm.vmid().get(),
                    template: true,
                };
                removed.push(thing.to_string());
                return Ok(());
            }
            // It bore the image's name for a time, and somebody made linked clones of it: they keep it.
            Err(Error::Api { source, .. }) if is_base_in_use(&source) => {}
            Err(error) => return Err(error),
        }
    }
    if renumbered || inherited {
        let moved = moved_name(&journal.image, &journal.build);
        keeper.close(cancel, Some(&moved), None, tags_of_retired).await?;
    } else {
        keeper.close(cancel, None, None, tags_of_image).await?;
    }
    let thing = Thing::Mark {
        node: vm.node().to_string(),
        vmid: vm.vmid().get(),
    };
    removed.push(thing.to_string());
    Ok(())
}

/// The journal of a dead build or verification, with our name in it now, and whether its VM has become a template; `None` when
/// the VM is gone.
async fn take_over(
    client: &Client,
    build: &str,
    vm: &Qemu,
    cancel: &CancellationToken,
) -> Result<Option<(Journal, bool, Keeper)>, Error> {
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
    if let Some((_, why)) = life(client, &journal, cancel).await? {
        return Err(living(why));
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
    removed: &mut Vec<String>,
) -> Result<(), Error> {
    let resources = ask("listing the cluster's resources", cancel, || {
        client.cluster_resources(None)
    })
    .await?;
    let mark = (Origin::Verification, id.to_owned());
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
            destroy(client, &vm, TASK_LIMIT, cancel).await?;
            removed.push(format!("vm {vmid} on {node}"));
        }
    }
    for volume in volumes(client, &resources).await? {
        if (volume.of, volume.id.as_str()) == (Origin::Verification, id) {
            destroy_volume(client, &volume.node, &volume.volid, TASK_LIMIT, cancel).await?;
            removed.push(format!("{} on {}", volume.volid, volume.node));
        }
    }
    Ok(())
}
