//! `/nodes/{node}/tasks`.

use super::{Request, path};
use crate::types::{name::NodeName, upid::Upid, vmid::Vmid};

/// Which tasks to list; by default the last 50 that have ended, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only those of this guest.
    pub vmid: Option<Vmid>,
    /// Only this kind, for example `qmcreate`.
    pub kind: Option<String>,
    /// Running ones too.
    pub with_active: bool,
    /// Only failed ones.
    pub only_errors: bool,
    /// At most so many.
    pub limit: Option<u64>,
}

pub(crate) fn tasks(node: &NodeName, filter: &TaskFilter) -> Request {
    let TaskFilter {
        vmid,
        kind,
        with_active,
        only_errors,
        limit,
    } = filter;
    let request = Request::get(path::node(node, &["tasks"]))
        .optional("vmid", *vmid)
        .optional("typefilter", kind.as_deref())
        .optional("limit", *limit);
    let request = if *with_active {
        request.param("source", "all")
    } else {
        request
    };
    if *only_errors {
        request.flag("errors", true)
    } else {
        request
    }
}

pub(crate) fn task_status(upid: &Upid) -> Request {
    Request::get(path::node(&upid.node(), &["tasks", upid.as_str(), "status"]))
}

/// `start` counts from 0; the server's own default is 50 lines (`FACTS` 52).
pub(crate) fn task_log(upid: &Upid, start: u64, limit: u64) -> Request {
    Request::get(path::node(&upid.node(), &["tasks", upid.as_str(), "log"]))
        .param("start", start)
        .param("limit", limit)
}

pub(crate) fn task_stop(upid: &Upid) -> Request {
    Request::delete(path::node(&upid.node(), &["tasks", upid.as_str()]))
}
