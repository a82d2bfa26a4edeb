//! A VM that is being made: what is removed again when that fails, or is stopped in the middle.

use std::sync::Arc;

use super::drive;
use crate::state::World;
use crate::tasks::Worker;

/// A VM in the list that holds only its lock, and the volumes made for it so far.
///
/// # Source
/// `PVE::API2::Qemu`, `create_vm` and `clone_vm`: an interrupt dies inside their `eval`, whose error path removes both.
pub(super) struct Unfinished {
    world: Arc<World>,
    worker: Worker,
    node: String,
    vmid: u32,
    /// Volume ids.
    pub(super) made: Vec<String>,
    finished: bool,
}

impl Unfinished {
    pub(super) fn new(world: &Arc<World>, worker: &Worker, node: &str, vmid: u32) -> Self {
        Self {
            world: Arc::clone(world),
            worker: worker.clone(),
            node: node.to_owned(),
            vmid,
            made: Vec::new(),
            finished: false,
        }
    }

    /// It has become a VM of its own.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A node without power cleans nothing up.
        if self.finished || self.worker.is_lost() {
            return;
        }
        for volid in &self.made {
            if let Err(error) = drive::free(&self.world, &self.node, self.vmid, volid) {
                tracing::warn!(%error, volid, "left behind by a vm that was not finished");
            }
        }
        self.world.remove_machine(self.vmid);
    }
}
