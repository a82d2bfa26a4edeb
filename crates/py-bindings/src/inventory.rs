//! What a cluster holds, as frozen objects: version, nodes, VMs and volumes.

use proxmox_client::{NodeEntry, Resource, Version as ClientVersion, Volume as ClientVolume};
use pyo3::prelude::*;

/// The version of Proxmox VE.
#[pyclass(frozen, get_all, eq, hash, module = "k3simage")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    /// The full number, for example `9.2.11`.
    version: String,
    /// The release that it belongs to, for example `9.2`.
    release: String,
}

#[pymethods]
impl Version {
    fn __str__(&self) -> &str {
        &self.version
    }

    fn __repr__(&self) -> String {
        format!("<k3simage.Version {}>", self.version)
    }
}

impl From<ClientVersion> for Version {
    fn from(version: ClientVersion) -> Self {
        Self {
            version: version.version,
            release: version.release,
        }
    }
}

/// A node of the cluster.
#[pyclass(frozen, get_all, eq, hash, module = "k3simage")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// Its name.
    name: String,
    /// Whether it answers.
    online: bool,
    /// How many processors it has.
    cpus: Option<u64>,
    /// Its memory.
    memory_bytes: Option<u64>,
}

#[pymethods]
impl Node {
    fn __repr__(&self) -> String {
        format!(
            "<k3simage.Node {}{}>",
            self.name,
            if self.online { "" } else { " offline" }
        )
    }
}

impl From<NodeEntry> for Node {
    fn from(entry: NodeEntry) -> Self {
        let online = entry.is_online();
        Self {
            name: entry.node.to_string(),
            online,
            cpus: entry.maxcpu,
            memory_bytes: entry.maxmem,
        }
    }
}

/// A VM or template.
#[pyclass(frozen, get_all, eq, hash, module = "k3simage")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Vm {
    /// Its id, unique in the cluster.
    vmid: u32,
    /// Its name.
    name: Option<String>,
    /// The node that holds it.
    node: Option<String>,
    /// `running`, `stopped` or `unknown`.
    status: Option<String>,
    /// Whether it is a template.
    template: bool,
    /// Its tags.
    tags: Vec<String>,
    /// The pool that it is in.
    pool: Option<String>,
}

#[pymethods]
impl Vm {
    fn __repr__(&self) -> String {
        let kind = if self.template { "template" } else { "vm" };
        format!(
            "<k3simage.Vm {kind} {} {}>",
            self.vmid,
            self.name.as_deref().unwrap_or("without a name")
        )
    }
}

impl Vm {
    /// The resource as a VM, if it is one.
    pub(crate) fn of(resource: Resource) -> Option<Self> {
        let vmid = resource.vmid.filter(|_| resource.is_qemu())?.get();
        let tags = resource.tags();
        let Resource {
            name,
            node,
            status,
            template,
            pool,
            ..
        } = resource;
        Some(Self {
            vmid,
            name,
            node,
            status,
            template,
            tags,
            pool,
        })
    }

    pub(crate) fn is_template(&self) -> bool {
        self.template
    }
}

/// A volume of a storage.
#[pyclass(frozen, get_all, eq, hash, module = "k3simage")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Volume {
    /// Its id, for example `local:iso/AlmaLinux-9.3-x86_64-minimal.iso`.
    volid: String,
    /// What it is: `iso`, `images`, ...
    content: Option<String>,
    /// Its format: `iso`, `raw`, `qcow2`, ...
    format: Option<String>,
    /// Its size.
    size_bytes: Option<u64>,
    /// The VM that it belongs to.
    vmid: Option<u32>,
}

#[pymethods]
impl Volume {
    fn __repr__(&self) -> String {
        format!("<k3simage.Volume {}>", self.volid)
    }
}

impl From<ClientVolume> for Volume {
    fn from(volume: ClientVolume) -> Self {
        Self {
            volid: volume.volid.to_string(),
            content: volume.content.map(|content| content.to_string()),
            format: volume.format,
            size_bytes: volume.size,
            vmid: volume.vmid.map(proxmox_client::Vmid::get),
        }
    }
}
