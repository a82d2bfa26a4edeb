//! `/nodes`: nodes, their state and their networks.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::{lenient, name::NodeName};

/// An entry of `/nodes`. A caller without `Sys.Audit` sees name and status only.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct NodeEntry {
    /// The node's name.
    pub node: NodeName,
    /// `online`, `offline` or `unknown`.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub status: Option<String>,
    /// Number of CPUs.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxcpu: Option<u64>,
    /// Memory in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxmem: Option<u64>,
    /// Used memory in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub mem: Option<u64>,
    /// Seconds since its boot.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub uptime: Option<u64>,
    /// The fingerprint of the node's certificate.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub ssl_fingerprint: Option<String>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl NodeEntry {
    /// Is it online?
    pub fn is_online(&self) -> bool {
        self.status.as_deref() == Some("online")
    }
}

/// An amount and how much of it is used, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// All of it, in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub total: Option<u64>,
    /// The used part, in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub used: Option<u64>,
    /// The free part, in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub free: Option<u64>,
}

/// What `/nodes/{node}/status` answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Seconds since the node's boot.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub uptime: Option<u64>,
    /// CPU load, 0 to 1.
    #[serde(default, deserialize_with = "lenient::opt_f64")]
    pub cpu: Option<f64>,
    /// Memory in bytes.
    #[serde(default)]
    pub memory: Usage,
    /// The root file system in bytes; uploads are buffered there, in `/var/tmp`.
    #[serde(default)]
    pub rootfs: Usage,
    /// For example `pve-manager/9.2.11/14a22df35955d97d`.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub pveversion: Option<String>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An entry of `/nodes/{node}/network`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct NetworkInterface {
    /// For example `vmbr0`.
    pub iface: String,
    /// For example `bridge`, `eth`, `bond`, `OVSBridge`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Is it up?
    #[serde(default, deserialize_with = "lenient::flag")]
    pub active: bool,
    /// The address without its prefix.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub address: Option<String>,
    /// Address and prefix, for example `192.0.2.2/24`.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub cidr: Option<String>,
    /// The same for IPv6.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub cidr6: Option<String>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl NetworkInterface {
    /// Can a VM be plugged into it?
    pub fn is_bridge(&self) -> bool {
        matches!(self.kind.as_str(), "bridge" | "OVSBridge" | "vnet")
    }
}
