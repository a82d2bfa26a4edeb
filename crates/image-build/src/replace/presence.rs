//! `Presence`: whether the template that was replaced is there for good, which decides whether a copy of it can go.

use std::collections::BTreeMap;

use proxmox_client::{Client, Content, ErrorKind, StorageId, VmConfig, VolId};
use tokio_util::sync::CancellationToken;

use super::{Old, own_disks};
use crate::Error;
use crate::build::{ask, deletion_of};

/// What there is of the old template.
#[derive(Debug)]
pub(crate) enum Presence {
    /// Nothing.
    Gone,
    /// All of it, and nothing works on it.
    Whole(VmConfig),
    /// It may be about to go, or has gone in part; why, for people.
    Doubtful(String),
}

impl Old {
    /// Looks. PVE keeps the configuration of a VM until the last of its disks is freed, so that alone says little. The tasks are looked
    /// at first: one that has ended by then shows in what is read after that.
    ///
    /// # Errors
    /// Any of the calls.
    pub(crate) async fn presence(&self, client: &Client, cancel: &CancellationToken) -> Result<Presence, Error> {
        let vm = self.vm();
        let attempt = format!("looking whether template {} is being deleted", vm.vmid());
        if let Some(upid) = ask(&attempt, cancel, || deletion_of(client, vm)).await? {
            let why = format!("Proxmox VE still deletes it (task {})", upid.as_str());
            return Ok(Presence::Doubtful(why));
        }
        let Some(config) = self.config(cancel).await? else {
            return Ok(Presence::Gone);
        };
        if let Some(lock) = config.lock() {
            let why = format!("it is locked ({lock}; `qm unlock {}` where that is stale)", vm.vmid());
            return Ok(Presence::Doubtful(why));
        }
        Ok(match self.lost_disk(client, &config, cancel).await? {
            Some((slot, volid)) => Presence::Doubtful(format!("its disk {slot}, {volid}, is not there any more")),
            None => Presence::Whole(config),
        })
    }

    /// A disk of its configuration that no storage has. One whose storage may not be looked at counts as there.
    async fn lost_disk(
        &self,
        client: &Client,
        config: &VmConfig,
        cancel: &CancellationToken,
    ) -> Result<Option<(String, VolId)>, Error> {
        let node = client.node(self.vm().node());
        let mut listed: BTreeMap<StorageId, Option<Vec<VolId>>> = BTreeMap::new();
        for (slot, volid) in own_disks(config) {
            let storage = volid.storage();
            if !listed.contains_key(&storage) {
                let attempt = format!("listing the disks on storage {storage} of {}", self.vm().node());
                let on_it = node.storage(&storage);
                let content = ask(&attempt, cancel, || on_it.content(Some(Content::Images))).await;
                let volumes = match content {
                    Ok(volumes) => Some(volumes.into_iter().map(|volume| volume.volid).collect()),
                    Err(Error::Api { source, .. }) if source.kind() == ErrorKind::Permission => None,
                    Err(error) => return Err(error),
                };
                listed.insert(storage.clone(), volumes);
            }
            if let Some(Some(volumes)) = listed.get(&storage)
                && !volumes.contains(&volid)
            {
                return Ok(Some((slot, volid)));
            }
        }
        Ok(None)
    }
}
