//! What the API answers. Unknown fields are kept in `extra`, unknown words as text; sizes are bytes, times epoch seconds.

pub(crate) mod access;
pub(crate) mod agent;
pub(crate) mod cluster;
pub(crate) mod console;
pub(crate) mod node;
pub(crate) mod pool;
pub(crate) mod qemu;
pub(crate) mod storage;
pub(crate) mod task;
