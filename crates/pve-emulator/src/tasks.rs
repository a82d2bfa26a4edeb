//! Tasks: work that goes on after the call that began it, with UPID, log and exit status.

mod archive;
mod task;
mod upid;

pub(crate) use archive::{Archive, Record};
pub(crate) use task::{Task, Tasks, Worker, with_fault};
pub(crate) use upid::Upid;
