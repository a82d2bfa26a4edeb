//! Where a guest is now: it may have been moved to another node.

use proxmox_client::{Client, NodeName, PoolId, Qemu, Vmid};
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
