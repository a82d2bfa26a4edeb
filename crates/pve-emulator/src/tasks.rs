//! Tasks: work that goes on after the call that began it, with UPID, log and exit status.

mod task;
mod upid;

pub(crate) use task::{Task, Tasks, Worker};
pub(crate) use upid::Upid;
