//! `Node`: `/nodes/{node}`.

use super::{qemu::Qemu, storage::Storage, task::Task};
use crate::{
    client::Client,
    error::Error,
    request::{
        self,
        task::{TaskFilter, tasks},
    },
    types::{
        name::{NodeName, StorageId},
        reply::{
            node::{NetworkInterface, NodeStatus},
            qemu::VmStatus,
            storage::StorageStatus,
            task::TaskEntry,
        },
        upid::Upid,
        vmid::Vmid,
    },
};

/// A handle on a node. Any node of a cluster answers for all others.
#[derive(Clone, Debug)]
pub struct Node {
    client: Client,
    name: NodeName,
}

impl Node {
    pub(crate) fn new(client: Client, name: NodeName) -> Self {
        Self { client, name }
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// A handle on one of its VMs. Nothing is sent.
    pub fn qemu(&self, vmid: Vmid) -> Qemu {
        Qemu::new(self.client.clone(), self.name.clone(), vmid)
    }

    /// A handle on a storage as this node sees it. Nothing is sent.
    pub fn storage(&self, storage: &StorageId) -> Storage {
        Storage::new(self.client.clone(), self.name.clone(), storage.clone())
    }

    /// A handle on a task. Nothing is sent; the node is the one that the UPID names.
    pub fn task(&self, upid: &Upid) -> Task {
        Task::new(self.client.clone(), upid.clone())
    }

    /// Load, memory and version.
    ///
    /// # Errors
    /// Any of a request. A wrong name is [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) or, in a cluster, 595 or 596.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `Sys.Audit` on `/nodes/{node}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/status`.
    pub async fn status(&self) -> Result<NodeStatus, Error> {
        self.client.typed(&request::node::node_status(&self.name)).await
    }

    /// The storages that the caller may see; a token without rights gets an empty list (`FACTS` 11).
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None. Only storages with `Datastore.Audit` or `Datastore.AllocateSpace` are listed.
    ///
    /// # Source
    /// `GET /nodes/{node}/storage`.
    pub async fn storages(&self) -> Result<Vec<StorageStatus>, Error> {
        self.client.typed(&request::node::node_storages(&self.name)).await
    }

    /// The network interfaces, bridges among them.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None. Bridges that the login may not use are left out.
    ///
    /// # Source
    /// `GET /nodes/{node}/network`.
    pub async fn networks(&self) -> Result<Vec<NetworkInterface>, Error> {
        self.client.typed(&request::node::node_networks(&self.name)).await
    }

    /// The VMs that the caller may see.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None. Only VMs with `VM.Audit` are listed.
    ///
    /// # Source
    /// `GET /nodes/{node}/qemu`.
    pub async fn vms(&self) -> Result<Vec<VmStatus>, Error> {
        self.client.typed(&request::node::node_vms(&self.name)).await
    }

    /// The tasks that the caller may see: its own, or all with `Sys.Audit`.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None for one's own tasks, `Sys.Audit` on `/nodes/{node}` for those of others.
    ///
    /// # Source
    /// `GET /nodes/{node}/tasks`.
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<Vec<TaskEntry>, Error> {
        self.client.typed(&tasks(&self.name, filter)).await
    }
}
