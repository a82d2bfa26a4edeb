//! Where a guest is now: it may have been moved to another node.

use proxmox_client::{Client, ConfigView, NodeName, PoolId, Qemu, Vmid};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::build::ask;
use crate::plan::GUESTS;

/// A VM, and the pool that it is in.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) vm: Qemu,
    pub(super) pool: Option<PoolId>,
}

impl Place {
    /// The VM of this number; `None` when the cluster has none.
    ///
    /// # Errors
    /// [`Error::Api`] when the cluster cannot be listed.
    pub(super) async fn of(client: &Client, vmid: Vmid, cancel: &CancellationToken) -> Result<Option<Self>, Error> {
        let guests = ask("listing the cluster's guests", cancel, || {
            client.cluster_resources(Some(GUESTS))
        })
        .await?;
        let guest = guests.iter().find(|guest| guest.is_qemu() && guest.vmid == Some(vmid));
        let Some((guest, node)) = guest.and_then(|guest| Some((guest, guest.node.as_deref()?))) else {
            return Ok(None);
        };
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
        Ok(Some(Self {
            vm: client.node(&node).qemu(vmid),
            pool: guest.pool.as_deref().and_then(|pool| pool.parse().ok()),
        }))
    }
}

/// The pool that a guest is in.
///
/// # Errors
/// [`Error::Api`] when the cluster cannot be listed.
pub(crate) async fn pool_of(client: &Client, vmid: Vmid, cancel: &CancellationToken) -> Result<Option<PoolId>, Error> {
    Ok(Place::of(client, vmid, cancel).await?.and_then(|place| place.pool))
}

/// Another guest that bears the image's name, as its own settings say: the cluster's list can lag (`FACTS` 80).
///
/// # Errors
/// [`Error::Api`] when the cluster cannot be listed.
pub(super) async fn other_of_name(
    client: &Client,
    name: &str,
    own: &[Vmid],
    cancel: &CancellationToken,
) -> Result<Option<Vmid>, Error> {
    let guests = ask("listing the cluster's guests", cancel, || {
        client.cluster_resources(Some(GUESTS))
    })
    .await?;
    for guest in guests.iter().filter(|guest| guest.name.as_deref() == Some(name)) {
        let (Some(vmid), Some(node)) = (guest.vmid, guest.node.as_deref()) else {
            continue;
        };
        if own.contains(&vmid) {
            continue;
        }
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
        let bears = match client.node(&node).qemu(vmid).config(ConfigView::Pending).await {
            Ok(config) => config.name() == Some(name),
            Err(error) if guest.is_qemu() && error.is_not_found() => false,
            // A container, or one that cannot be read now: the list's word has to do.
            Err(_) => true,
        };
        if bears {
            return Ok(Some(vmid));
        }
    }
    Ok(None)
}
