//! Waiting for tasks.

pub(crate) mod wait;
