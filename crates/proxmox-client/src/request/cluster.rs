//! `/version`, `/cluster`, `/pools`.

use super::{Request, path};
use crate::types::{name::PoolId, reply::cluster::ResourceKind, vmid::Vmid};

pub(crate) fn version() -> Request {
    Request::get("/version".into())
}

pub(crate) fn next_id(wanted: Option<Vmid>) -> Request {
    Request::get("/cluster/nextid".into()).optional("vmid", wanted)
}

pub(crate) fn cluster_resources(kind: Option<ResourceKind>) -> Request {
    Request::get("/cluster/resources".into()).optional("type", kind.map(ResourceKind::as_str))
}

pub(crate) fn pools() -> Request {
    Request::get("/pools".into())
}

pub(crate) fn pool(pool: &PoolId) -> Request {
    Request::get(path::join(&["pools", pool.as_str()]))
}
