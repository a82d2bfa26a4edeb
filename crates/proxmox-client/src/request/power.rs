//! Options of shutting down and destroying a VM.

use std::time::Duration;

/// How to shut a guest down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    pub(super) timeout: Option<Duration>,
    pub(super) force_stop: bool,
}

impl Shutdown {
    /// By ACPI or the guest agent, with PVE's own limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// The server waits at most so long; cut to whole seconds, at least one.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Stops the VM hard when the limit is reached (`FACTS` 75).
    #[must_use]
    pub fn force_stop(mut self, on: bool) -> Self {
        self.force_stop = on;
        self
    }
}

/// What goes with a VM when it is destroyed. Its own disks always do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteVm {
    pub(super) purge: bool,
    pub(super) unreferenced_disks: bool,
}

impl DeleteVm {
    /// The VM and the disks that its configuration names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes it out of backup jobs, replication, high availability and access control lists too.
    #[must_use]
    pub fn purge(mut self, on: bool) -> Self {
        self.purge = on;
        self
    }

    /// Destroys volumes of this vmid that the configuration does not name; without it stray ones stay (`FACTS` 43).
    #[must_use]
    pub fn unreferenced_disks(mut self, on: bool) -> Self {
        self.unreferenced_disks = on;
        self
    }
}
