//! `/cluster`: the resources of all nodes in one list.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::{content::Content, lenient, tags::split_tags, vmid::Vmid};

/// A filter for `/cluster/resources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResourceKind {
    /// VMs and containers.
    Vm,
    /// Storages, once for each node that has them.
    Storage,
    /// Nodes.
    Node,
    /// Networks.
    Sdn,
}

impl ResourceKind {
    /// The word that PVE uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Storage => "storage",
            Self::Node => "node",
            Self::Sdn => "sdn",
        }
    }
}

/// An entry of `/cluster/resources`.
///
/// The list lags up to ten seconds behind, and a new VM can show the name and sizes of a former one with the same vmid
/// (`FACTS` 80): ask the VM itself before anything is decided on them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Resource {
    /// For example `qemu/100`, `storage/pve/local` or `node/pve`.
    pub id: String,
    /// `qemu`, `lxc`, `storage`, `node`, `network` and others.
    #[serde(rename = "type")]
    pub kind: String,
    /// The node that it is on.
    #[serde(default)]
    pub node: Option<String>,
    /// The number of a guest.
    #[serde(default)]
    pub vmid: Option<Vmid>,
    /// The name of a guest.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub name: Option<String>,
    /// For example `running`, `stopped`, `unknown`, `available`, `online`.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub status: Option<String>,
    /// Is the guest a template?
    #[serde(default, deserialize_with = "lenient::flag")]
    pub template: bool,
    /// The pool that the guest or storage belongs to.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub pool: Option<String>,
    /// What a guest is locked for.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub lock: Option<String>,
    /// The storage's name.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub storage: Option<String>,
    /// Is the storage shared between nodes?
    #[serde(default, deserialize_with = "lenient::flag")]
    pub shared: bool,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    tags: Option<String>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    content: Option<String>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Resource {
    /// A guest's tags.
    pub fn tags(&self) -> Vec<String> {
        self.tags.as_deref().map(split_tags).unwrap_or_default()
    }

    /// What a storage may hold.
    pub fn content(&self) -> Vec<Content> {
        self.content.as_deref().map(Content::list).unwrap_or_default()
    }

    /// Is it a VM (not a container)?
    pub fn is_qemu(&self) -> bool {
        self.kind == "qemu"
    }
}
