//! `/pools`: resource pools.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::{lenient, name::PoolId, vmid::Vmid};

/// A resource pool; the list of pools leaves the members out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Pool {
    /// The pool's name; the call for one pool does not repeat it on older servers.
    #[serde(default)]
    pub poolid: Option<PoolId>,
    /// What someone wrote about it.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub comment: Option<String>,
    /// What is in it.
    #[serde(default)]
    pub members: Vec<PoolMember>,
}

/// A guest or storage in a pool.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct PoolMember {
    /// For example `qemu/100` or `storage/pve/local`.
    pub id: String,
    /// `qemu`, `lxc` or `storage`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The guest's number.
    #[serde(default)]
    pub vmid: Option<Vmid>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
