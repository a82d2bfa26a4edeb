//! `/nodes` and `/nodes/{node}`.

use super::{Request, path};
use crate::types::name::NodeName;

pub(crate) fn nodes() -> Request {
    Request::get("/nodes".into())
}

pub(crate) fn node_status(node: &NodeName) -> Request {
    Request::get(path::node(node, &["status"]))
}

pub(crate) fn node_storages(node: &NodeName) -> Request {
    Request::get(path::node(node, &["storage"]))
}

pub(crate) fn node_networks(node: &NodeName) -> Request {
    Request::get(path::node(node, &["network"]))
}

pub(crate) fn node_vms(node: &NodeName) -> Request {
    Request::get(path::node(node, &["qemu"]))
}
