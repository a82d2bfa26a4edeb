//! Storages and their volumes. Each volume is a file in the data directory, whose size need not be the one that the guest sees:
//! a simulated disk's file is small, a qcow2 file grows. So that size is kept beside it.

mod spec;
mod volume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use spec::{StorageKind, StorageSpec};
use volume::classify;
pub(crate) use volume::{Volume, file_volume, parse_volume_name, size_text};

use super::{now, write_whole};

/// All volumes of a cluster. One map per node and local storage, one per shared storage.
#[derive(Debug)]
pub(crate) struct Storages {
    root: PathBuf,
    specs: Vec<StorageSpec>,
    volumes: BTreeMap<(String, String), BTreeMap<String, Volume>>,
}

impl Storages {
    /// Opens the storages below `root`, with the volumes that are there.
    pub(crate) fn open(root: PathBuf, specs: Vec<StorageSpec>, nodes: &[String]) -> std::io::Result<Self> {
        let mut storages = Self {
            root,
            specs,
            volumes: BTreeMap::new(),
        };
        for spec in storages.specs.clone() {
            for node in nodes {
                storages.load(&spec, node)?;
            }
        }
        Ok(storages)
    }

    fn load(&mut self, spec: &StorageSpec, node: &str) -> std::io::Result<()> {
        let key = Self::key(spec, node);
        let dir = self.dir(&key);
        let mut found = BTreeMap::new();
        for folder in ["template/iso", "template/cache", "import", "snippets", "dump", "images"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        let index = dir.join("volumes.json");
        let listed: Vec<Volume> = match std::fs::read(&index) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| std::io::Error::other(format!("{}: {source}", index.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            // Taken for none, the next change would write an empty list over all of them.
            Err(error) => return Err(error),
        };
        for mut volume in listed {
            // A volume is listed before its file is made and as long as its file exists: an entry without a file is
            // what a kill leaves of one that was not there yet or is there no more.
            let Ok(file) = std::fs::metadata(Self::file_in(&dir, &volume.name)) else {
                continue;
            };
            if volume.vmid.is_none() && volume.size_bytes != file.len() {
                volume = file_volume(&volume.name, file.len());
            }
            found.insert(volume.name.clone(), volume);
        }
        if spec.kind == StorageKind::Dir {
            adopt(&dir, &mut found)?;
        }
        self.volumes.insert(key, found);
        Ok(())
    }

    /// Where a storage's volumes are listed: by node, or under no node when all share them.
    fn key(spec: &StorageSpec, node: &str) -> (String, String) {
        (
            if spec.shared { String::new() } else { node.to_owned() },
            spec.id.clone(),
        )
    }

    fn dir(&self, key: &(String, String)) -> PathBuf {
        let owner = if key.0.is_empty() { "shared" } else { &key.0 };
        self.root.join(owner).join(&key.1)
    }

    fn file_in(dir: &Path, name: &str) -> PathBuf {
        match name.split_once('/') {
            Some(("iso", file)) => dir.join("template/iso").join(file),
            Some(("vztmpl", file)) => dir.join("template/cache").join(file),
            Some(("import", file)) => dir.join("import").join(file),
            Some(("snippets", file)) => dir.join("snippets").join(file),
            Some(("backup", file)) => dir.join("dump").join(file),
            _ => dir.join("images").join(name),
        }
    }

    pub(crate) fn specs(&self) -> &[StorageSpec] {
        &self.specs
    }

    /// # Errors
    /// PVE's text for a storage that is not defined.
    pub(crate) fn spec(&self, id: &str) -> Result<&StorageSpec, String> {
        self.specs
            .iter()
            .find(|s| s.id == id)
            .ok_or_else(|| format!("storage '{id}' does not exist"))
    }

    /// The real file of a volume, whether it exists or not.
    pub(crate) fn file(&self, node: &str, spec: &StorageSpec, name: &str) -> PathBuf {
        Self::file_in(&self.dir(&Self::key(spec, node)), name)
    }

    /// The path of a volume as API texts show it.
    pub(crate) fn shown_file(spec: &StorageSpec, name: &str) -> String {
        match spec.kind {
            StorageKind::Dir => Self::file_in(Path::new(&spec.shown_path), name)
                .to_string_lossy()
                .into_owned(),
            StorageKind::LvmThin => format!("{}/{name}", spec.shown_path),
        }
    }

    pub(crate) fn volumes(&self, node: &str, spec: &StorageSpec) -> impl Iterator<Item = &Volume> {
        self.volumes
            .get(&Self::key(spec, node))
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// Finds a volume by its volid.
    pub(crate) fn find(&self, node: &str, volid: &str) -> Option<(&StorageSpec, &Volume)> {
        let (id, name) = volid.split_once(':')?;
        let spec = self.spec(id).ok()?;
        let (own, _) = parse_volume_name(spec.kind, name).ok()?;
        let volume = self.volumes.get(&Self::key(spec, node))?.get(&own)?;
        (volume.shown() == name).then_some((spec, volume))
    }

    /// The volumes that are linked clones of `name`.
    pub(crate) fn children(&self, node: &str, spec: &StorageSpec, name: &str) -> Vec<&Volume> {
        self.volumes(node, spec)
            .filter(|v| v.parent.as_deref() == Some(name))
            .collect()
    }

    /// Bytes in use.
    pub(crate) fn used(&self, node: &str, spec: &StorageSpec) -> u64 {
        self.volumes(node, spec).map(|v| v.used_bytes).sum()
    }

    /// The first free disk name for a VM: `vm-100-disk-0.raw`.
    pub(crate) fn free_name(&self, node: &str, spec: &StorageSpec, vmid: u32, format: &str) -> String {
        let taken = |index: u32| {
            self.volumes(node, spec).any(|v| {
                v.vmid == Some(vmid)
                    && ["vm", "base"].iter().any(|kind| {
                        let stem = format!("{kind}-{vmid}-disk-{index}");
                        let own = v.name.rsplit('/').next().unwrap_or_default();
                        own == stem || own.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('.'))
                    })
            })
        };
        let index = (0..=u32::MAX).find(|i| !taken(*i)).unwrap_or_default();
        match spec.kind {
            StorageKind::Dir => format!("{vmid}/vm-{vmid}-disk-{index}.{format}"),
            StorageKind::LvmThin => format!("vm-{vmid}-disk-{index}"),
        }
    }

    /// Records a volume whose file is in place, replacing one of that name.
    pub(crate) fn insert(&mut self, node: &str, spec: &StorageSpec, volume: Volume) -> std::io::Result<()> {
        let key = Self::key(spec, node);
        // A hidden file such as `..iso` is stored, but it is no volume (recorded).
        if parse_volume_name(spec.kind, &volume.name).is_err() {
            return Ok(());
        }
        self.volumes
            .entry(key.clone())
            .or_default()
            .insert(volume.name.clone(), volume);
        self.save(&key)
    }

    /// Puts a disk on the list, which reserves its name, and makes the folder for its image.
    pub(crate) fn create_disk(
        &mut self,
        node: &str,
        spec: &StorageSpec,
        vmid: u32,
        name: &str,
        size_bytes: u64,
        used_bytes: u64,
    ) -> std::io::Result<()> {
        let file = self.file(node, spec, name);
        let format = name.rsplit_once('.').map_or("raw", |(_, e)| e).to_owned();
        self.insert(
            node,
            spec,
            Volume {
                name: name.to_owned(),
                content: "images".into(),
                vmid: Some(vmid),
                format,
                size_bytes,
                used_bytes,
                ctime: now(),
                parent: None,
                origins: Vec::new(),
            },
        )?;
        let make = || {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir)?;
            }
            std::fs::File::create(&file)
        };
        if let Err(error) = make() {
            self.forget(node, spec, name)?;
            return Err(error);
        }
        Ok(())
    }

    /// Moves a finished file into place as a volume, replacing one of that name.
    pub(crate) fn place(&mut self, node: &str, spec: &StorageSpec, volume: Volume, from: &Path) -> std::io::Result<()> {
        let file = self.file(node, spec, &volume.name);
        std::fs::rename(from, file)?;
        // Killed here, the next start finds the file and lists it.
        self.insert(node, spec, volume)
    }

    fn forget(&mut self, node: &str, spec: &StorageSpec, name: &str) -> std::io::Result<()> {
        let key = Self::key(spec, node);
        if let Some(volumes) = self.volumes.get_mut(&key) {
            volumes.remove(name);
        }
        self.save(&key)
    }

    /// Deletes a volume's file and forgets it. `false`: there was none.
    pub(crate) fn remove(&mut self, node: &str, spec: &StorageSpec, name: &str) -> std::io::Result<bool> {
        let key = Self::key(spec, node);
        let known = self.volumes.get(&key).is_some_and(|v| v.contains_key(name));
        if known {
            // The file goes first: the next start drops an entry without a file, but would take a file for a volume.
            match std::fs::remove_file(self.file(node, spec, name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => self.forget(node, spec, name)?,
            }
        }
        Ok(known)
    }

    /// Gives a volume another name, as a conversion to a template does.
    pub(crate) fn rename(&mut self, node: &str, spec: &StorageSpec, from: &str, to: &str) -> std::io::Result<()> {
        // Listed under both names while the file is renamed: whenever a kill comes, one of them has the file.
        let Some(mut volume) = self.volumes(node, spec).find(|v| v.name == from).cloned() else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        to.clone_into(&mut volume.name);
        self.insert(node, spec, volume)?;
        if let Err(error) = std::fs::rename(self.file(node, spec, from), self.file(node, spec, to)) {
            self.forget(node, spec, to)?;
            return Err(error);
        }
        self.forget(node, spec, from)
    }

    pub(crate) fn set_size(&mut self, node: &str, spec: &StorageSpec, name: &str, size: u64) -> std::io::Result<()> {
        let key = Self::key(spec, node);
        if let Some(volume) = self.volumes.get_mut(&key).and_then(|v| v.get_mut(name)) {
            volume.size_bytes = size;
        }
        self.save(&key)
    }

    fn save(&self, key: &(String, String)) -> std::io::Result<()> {
        let volumes: Vec<&Volume> = self.volumes.get(key).into_iter().flat_map(BTreeMap::values).collect();
        write_whole(&self.dir(key).join("volumes.json"), &serde_json::to_vec(&volumes)?)
    }
}

/// Files that people put into a directory storage by hand are volumes too, as on a real node.
fn adopt(dir: &Path, found: &mut BTreeMap<String, Volume>) -> std::io::Result<()> {
    let mut folders: Vec<(String, PathBuf)> = [
        ("iso", "template/iso"),
        ("vztmpl", "template/cache"),
        ("import", "import"),
        ("snippets", "snippets"),
        ("backup", "dump"),
    ]
    .map(|(first, folder)| (first.to_owned(), dir.join(folder)))
    .to_vec();
    for entry in std::fs::read_dir(dir.join("images"))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    for (first, folder) in folders {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            let name = format!("{first}/{file}");
            // Hidden files are no volumes.
            if !file.starts_with('.') && classify(&name).is_some() && !found.contains_key(&name) {
                found.insert(name.clone(), file_volume(&name, entry.metadata()?.len()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_survive_a_restart_and_count_up() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = ["pve".to_owned()];
        let specs = vec![
            StorageSpec::dir("local", "/var/lib/vz"),
            StorageSpec::lvmthin("local-lvm"),
        ];
        let mut storages = Storages::open(dir.path().into(), specs.clone(), &nodes).unwrap();
        for spec in &specs {
            let name = storages.free_name("pve", spec, 100, "raw");
            storages.create_disk("pve", spec, 100, &name, 1 << 30, 0).unwrap();
            std::fs::write(storages.file("pve", spec, &name), "").unwrap();
        }
        let storages = Storages::open(dir.path().into(), specs.clone(), &nodes).unwrap();
        assert_eq!(
            storages.free_name("pve", &specs[0], 100, "raw"),
            "100/vm-100-disk-1.raw"
        );
        assert_eq!(
            storages.free_name("pve", &specs[0], 100, "qcow2"),
            "100/vm-100-disk-1.qcow2"
        );
        assert_eq!(storages.free_name("pve", &specs[0], 10, "raw"), "10/vm-10-disk-0.raw");
        assert_eq!(storages.free_name("pve", &specs[1], 100, "raw"), "vm-100-disk-1");
        assert_eq!(
            storages
                .find("pve", "local:100/vm-100-disk-0.raw")
                .unwrap()
                .1
                .size_bytes,
            1 << 30
        );
        assert!(storages.find("other", "local:100/vm-100-disk-0.raw").is_none());
    }
}
