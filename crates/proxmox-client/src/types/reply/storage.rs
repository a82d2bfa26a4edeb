//! `/nodes/{node}/storage`: storages and what they hold.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::{content::Content, lenient, name::StorageId, vmid::Vmid, volid::VolId};

/// A storage as one node sees it: an entry of `/nodes/{node}/storage`, or `/nodes/{node}/storage/{storage}/status`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct StorageStatus {
    /// The storage's name; the status call does not repeat it.
    #[serde(default)]
    pub storage: Option<StorageId>,
    /// For example `dir`, `lvmthin`, `zfspool`, `nfs`.
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    content: Option<String>,
    /// Is it switched on?
    #[serde(default, deserialize_with = "lenient::opt_flag")]
    pub enabled: Option<bool>,
    /// Can it be reached now?
    #[serde(default, deserialize_with = "lenient::flag")]
    pub active: bool,
    /// Do all nodes see the same content?
    #[serde(default, deserialize_with = "lenient::flag")]
    pub shared: bool,
    /// Size in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub total: Option<u64>,
    /// Used bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub used: Option<u64>,
    /// Available bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub avail: Option<u64>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl StorageStatus {
    /// What it may hold, sorted.
    pub fn content(&self) -> Vec<Content> {
        self.content.as_deref().map(Content::list).unwrap_or_default()
    }

    /// May it hold this?
    pub fn holds(&self, content: &Content) -> bool {
        self.content().contains(content)
    }
}

/// An entry of a storage's content.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Volume {
    /// The volume's name.
    pub volid: VolId,
    /// What it is.
    #[serde(default)]
    pub content: Option<Content>,
    /// For example `iso`, `raw`, `qcow2`.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub format: Option<String>,
    /// Its size in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub size: Option<u64>,
    /// What it occupies, in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub used: Option<u64>,
    /// When it was made, in seconds since the epoch.
    #[serde(default, deserialize_with = "lenient::opt_i64")]
    pub ctime: Option<i64>,
    /// The guest it belongs to.
    #[serde(default)]
    pub vmid: Option<Vmid>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
