//! `CloneVm`: the parameters of a clone.

use crate::types::{
    name::{NodeName, PoolId, StorageId},
    vmid::Vmid,
};

/// How to clone a VM or template.
///
/// A template is cloned linked unless `full` is asked for; storage is for full clones only (`FACTS` 44). A template on local
/// storage cannot be cloned to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneVm {
    pub(super) new_vmid: Vmid,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) full: Option<bool>,
    pub(super) storage: Option<StorageId>,
    pub(super) pool: Option<PoolId>,
    pub(super) target: Option<NodeName>,
}

impl CloneVm {
    /// A clone with this number.
    pub fn new(new_vmid: Vmid) -> Self {
        Self {
            new_vmid,
            name: None,
            description: None,
            full: None,
            storage: None,
            pool: None,
            target: None,
        }
    }

    /// The clone's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The clone's description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// With copies of its own (`true`), or on top of the template's disks (`false`).
    #[must_use]
    pub fn full(mut self, full: bool) -> Self {
        self.full = Some(full);
        self
    }

    /// Where a full clone's disks go.
    #[must_use]
    pub fn storage(mut self, storage: StorageId) -> Self {
        self.storage = Some(storage);
        self
    }

    /// The pool it joins.
    #[must_use]
    pub fn pool(mut self, pool: PoolId) -> Self {
        self.pool = Some(pool);
        self
    }

    /// The node it goes to; on shared storage only.
    #[must_use]
    pub fn target(mut self, target: NodeName) -> Self {
        self.target = Some(target);
        self
    }
}
