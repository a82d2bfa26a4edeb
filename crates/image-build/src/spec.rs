//! `ImageSpec`: what to build. General on purpose: no step of the engine knows the k3s preset that fills it.

mod address;
mod builder;
mod checksum;
mod communicator;
mod hardware;
mod installer;
mod iso;
mod provisioner;
mod validate;

use std::time::Duration;

use proxmox_client::{NodeName, PoolId, StorageId, Vmid};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

pub(crate) use address::holds_password;
pub use builder::ImageSpecBuilder;
pub use checksum::{Checksum, ChecksumAlgorithm, ChecksumError};
pub use communicator::{CommunicatorKind, CommunicatorSpec, SshSpec};
pub use hardware::{Bios, Disk, DiskFormat, Hardware, Nic, is_dns_name};
pub use installer::{Delivery, Installer, KickstartSource};
pub use iso::{IsoChecksum, IsoSource};
pub use provisioner::{EnvValue, FileContent, FileSpec, LocalFile, ProvisionerSpec, ShellSpec};

use crate::k3s_version::K3sVersion;
use crate::name::ImageName;

/// What to build: one template on one node.
///
/// Made by [`ImageSpec::builder`] or by loading a template folder; both check it as a whole. Fields stay readable for
/// the engine, the command and the bindings.
///
/// ```
/// use image_build::ImageSpec;
/// let spec = ImageSpec::builder().k3s_version("v1.31.3+k3s1".parse()?).node("pve").build()?;
/// assert_eq!(spec.name.to_string(), "alma9-k3-node-amd64-v1.31.3-v1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ImageSpec {
    /// The template's name, or how to choose it.
    pub name: TemplateName,
    /// Text put in front of the description that the build writes.
    pub description: Option<String>,
    /// Tags of the template beside the build's own; lower case, sorted, unique.
    pub tags: Vec<String>,
    /// The node to build on.
    pub node: NodeName,
    /// The VM id; `None` takes the next free one.
    pub vmid: Option<Vmid>,
    /// The pool to put the VM into.
    pub pool: Option<PoolId>,
    /// CPU, memory, firmware and the rest of the virtual machine.
    pub hardware: Hardware,
    /// Disks in the order of their slots (`scsi0`, `scsi1`, ...); the first holds the system.
    pub disks: Vec<Disk>,
    /// Network devices in the order of their slots (`net0`, ...).
    pub nics: Vec<Nic>,
    /// Storage for the template's cloud-init drive; `None` adds none.
    pub cloud_init: Option<StorageId>,
    /// The installer and what drives it.
    pub installer: Installer,
    /// How the build talks to the guest.
    pub communicator: CommunicatorSpec,
    /// What runs in the guest, in this order.
    pub provisioners: Vec<ProvisionerSpec>,
    /// The script that takes away what must not be cloned; it runs last and may close the way in behind it.
    pub seal: Option<ShellSpec>,
    /// The k3s inside, for tags, description and manifest; the scripts get it through their environment.
    pub k3s: Option<K3s>,
    /// Limits of the waits.
    pub timeouts: Timeouts,
    /// What becomes of the VM when the build fails.
    pub on_error: OnError,
}

/// The k3s that an image carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct K3s {
    /// The release.
    pub version: K3sVersion,
    /// What a clone becomes that is told nothing.
    pub role: K3sRole,
    /// Where the release files come from, laid out as on the release page; `None` is the project's own place.
    pub mirror_url: Option<String>,
}

words! {
    /// What a clone becomes that is told nothing at its first boot.
    K3sRole, "a k3s role" {
        /// A single server with an identity made there.
        Server => "server",
        /// An agent; it waits until it is told a server.
        Agent => "agent",
        /// Nothing is started.
        None => "none",
    }
}

words! {
    /// What becomes of the VM when a build fails.
    OnError, "a way to go on after an error" {
        /// All that the build made is removed.
        Cleanup => "cleanup",
        /// It stays as it is, for a look.
        Keep => "keep",
        /// The caller is asked.
        Ask => "ask",
    }
}

/// Limits of a build's waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// From the VM's start until the installer has ended.
    pub install: Duration,
    /// One task of PVE: create, upload, convert.
    pub task: Duration,
    /// Until the guest has shut down in order.
    pub shutdown: Duration,
    /// One undo of one step after a failure.
    pub undo: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // A minimal install with updates takes 6 to 10 minutes on plain disks; slow mirrors triple that.
            install: Duration::from_secs(45 * 60),
            // Packer's 60 s end real uploads and full clones.
            task: Duration::from_secs(30 * 60),
            shutdown: Duration::from_secs(5 * 60),
            undo: Duration::from_secs(2 * 60),
        }
    }
}

/// A template's name, or how to choose it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TemplateName {
    /// This name and no other: a build refuses when it is taken.
    Fixed(String),
    /// The next free iteration of this name, chosen when the build is planned.
    NextFree(ImageName),
}

impl TemplateName {
    /// The name to use beside the names that exist.
    #[must_use]
    pub fn choose<'a>(&self, existing: impl IntoIterator<Item = &'a str>) -> String {
        match self {
            Self::Fixed(name) => name.clone(),
            Self::NextFree(name) => name.next_free(existing).to_string(),
        }
    }

    /// The name as a k3s image's name, if it has that form.
    pub fn image_name(&self) -> Option<ImageName> {
        match self {
            Self::Fixed(name) => name.parse().ok(),
            Self::NextFree(name) => Some(name.clone()),
        }
    }
}

/// The name itself, or the first that would be tried.
impl std::fmt::Display for TemplateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(name) => f.write_str(name),
            Self::NextFree(name) => name.fmt(f),
        }
    }
}

impl ImageSpec {
    /// Starts from the preset: a k3s image on AlmaLinux 9, with the embedded kickstart and scripts.
    pub fn builder() -> ImageSpecBuilder {
        ImageSpecBuilder::new()
    }

    /// Storages that disks are made on, each once.
    pub(crate) fn disk_storages(&self) -> Vec<String> {
        let mut storages: Vec<String> = self.disks.iter().map(|disk| disk.storage.to_string()).collect();
        storages.extend(self.hardware.efi_storage.iter().map(ToString::to_string));
        storages.extend(self.cloud_init.iter().map(ToString::to_string));
        storages.sort();
        storages.dedup();
        storages
    }

    /// SHA-256 over everything that decides what is built, in hex: equal inputs give equal hashes.
    ///
    /// Secrets, limits and `on_error` have no part in it, nor has a time, nor where on this machine a file is: what it held when the spec
    /// was made has. Of a local installer ISO the name and the checksum count, so a checksum should be given.
    ///
    /// # Panics
    /// Never: plain data with text keys is always JSON.
    pub fn content_hash(&self) -> String {
        let Self {
            name,
            description,
            tags,
            node,
            vmid: _,
            pool: _,
            hardware,
            disks,
            nics,
            cloud_init,
            installer,
            communicator: _,
            provisioners,
            seal,
            k3s,
            timeouts: _,
            on_error: _,
        } = self;
        let content = (
            (name, description, tags, node, hardware, disks),
            (nics, cloud_init, installer, provisioners, seal, k3s),
        );
        let json = serde_json::to_vec(&content).expect("plain data with text keys is always JSON");
        hex::encode(Sha256::digest(json))
    }
}

#[cfg(test)]
mod tests;
