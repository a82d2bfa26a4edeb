//! One cheap handle for each branch of the API: the client and the names that the path needs.

pub(crate) mod agent;
pub(crate) mod node;
pub(crate) mod qemu;
pub(crate) mod storage;
pub(crate) mod task;
pub(crate) mod upload;
