//! What an emulator holds: files, volumes, VMs.

use std::collections::BTreeMap;

use super::Emulator;
use crate::error::Error;
use crate::media;
use crate::state::{StorageSpec, file_volume, write_whole};

impl Emulator {
    /// Puts a file on a storage of every node: content `iso`, `import`, `snippets` or `vztmpl`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown storage, [`Error::Data`] when it cannot be written.
    pub fn add_file(&self, storage: &str, content: &str, name: &str, bytes: &[u8]) -> Result<String, Error> {
        let world = self.world();
        let mut storages = world.storages_mut();
        let invalid = |reason| Error::Invalid {
            what: "storage",
            value: storage.to_owned(),
            reason,
        };
        let spec = storages.spec(storage).cloned().map_err(invalid)?;
        if !spec.holds(content) {
            return Err(invalid(format!(
                "it does not hold '{content}', only {}",
                spec.content.join(", ")
            )));
        }
        if name.contains('/') || name.is_empty() || name.starts_with('.') {
            let reason = "a file name without slashes".to_owned();
            return Err(Error::Invalid {
                what: "file name",
                value: name.to_owned(),
                reason,
            });
        }
        let own = format!("{content}/{name}");
        for node in &world.settings.nodes {
            let file = storages.file(node, &spec, &own);
            let io = |source| Error::Data {
                path: file.clone(),
                source,
            };
            write_whole(&file, bytes).map_err(io)?;
            storages
                .insert(node, &spec, file_volume(&own, bytes.len() as u64))
                .map_err(io)?;
        }
        Ok(format!("{storage}:{own}"))
    }

    /// Puts a small bootable medium on a storage of every node, a real ISO 9660 volume labelled as AlmaLinux's own of that
    /// name, and returns its volid. There is nothing on it to install: simulated guests act as if there were.
    ///
    /// # Errors
    /// As [`add_file`](Self::add_file).
    pub fn add_installer_iso(&self, storage: &str, name: &str) -> Result<String, Error> {
        let readme = "A stand-in for an AlmaLinux medium, made by the Proxmox VE emulator.\n";
        self.add_file(storage, "iso", name, &media::volume(&media::label_of(name), readme))
    }

    /// A VM's options in effect and pending, as its next start will have them.
    pub fn vm_config(&self, vmid: u32) -> Option<BTreeMap<String, String>> {
        self.world().machines().get(&vmid).map(crate::state::Machine::effective)
    }

    /// The vmids in use.
    pub fn vmids(&self) -> Vec<u32> {
        self.world().machines().keys().copied().collect()
    }

    /// All volids of a node, disks and files.
    pub fn volids(&self, node: &str) -> Vec<String> {
        let storages = self.world().storages();
        let of = |spec: &StorageSpec| -> Vec<String> {
            storages
                .volumes(node, spec)
                .map(|v| format!("{}:{}", spec.id, v.shown()))
                .collect()
        };
        storages.specs().iter().flat_map(of).collect()
    }
}
