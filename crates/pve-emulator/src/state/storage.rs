//! Storages and their volumes. Each volume is a file in the data directory; a simulated disk's file is small, so its
//! size as the guest sees it is kept beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{now, write_whole};

/// How a storage names and keeps its volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// A directory: disks are files such as `100/vm-100-disk-0.raw`, ISOs are `iso/NAME`.
    Dir,
    /// An LVM thin pool: disks only, `vm-100-disk-0`.
    LvmThin,
}

/// A storage as the builder takes it and `GET /storage` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageSpec {
    /// Its id, `local`.
    pub id: String,
    /// Its type.
    pub kind: StorageKind,
    /// What it may hold: `images`, `iso`, ...
    pub content: Vec<String>,
    /// The directory that API texts show; nothing is ever written there.
    pub shown_path: String,
    /// Whether all nodes see the same volumes.
    pub shared: bool,
    /// Its size in bytes.
    pub total_bytes: u64,
}

impl StorageSpec {
    /// A directory storage for every content type, as `local` after an installation plus disks.
    #[must_use]
    pub fn dir(id: impl Into<String>, shown_path: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            kind: StorageKind::Dir,
            content: ["backup", "images", "import", "iso", "rootdir", "snippets", "vztmpl"]
                .map(str::to_owned)
                .to_vec(),
            shown_path: shown_path.into(),
            shared: false,
            total_bytes: 500 << 30,
        }
    }

    /// An LVM thin pool for disks, as `local-lvm` after an installation.
    #[must_use]
    pub fn lvmthin(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            kind: StorageKind::LvmThin,
            content: ["images", "rootdir"].map(str::to_owned).to_vec(),
            shown_path: "/dev/pve".into(),
            shared: false,
            total_bytes: 500 << 30,
        }
    }

    /// Sets what it may hold.
    #[must_use]
    pub fn content<I: IntoIterator<Item = S>, S: Into<String>>(mut self, content: I) -> Self {
        self.content = content.into_iter().map(Into::into).collect();
        self
    }

    /// Makes all nodes see the same volumes.
    #[must_use]
    pub fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Sets its size in bytes.
    #[must_use]
    pub fn total_bytes(mut self, total_bytes: u64) -> Self {
        self.total_bytes = total_bytes;
        self
    }

    pub(crate) fn holds(&self, content: &str) -> bool {
        self.content.iter().any(|c| c == content)
    }

    /// The `type` of the API.
    pub(crate) fn type_name(&self) -> &'static str {
        match self.kind {
            StorageKind::Dir => "dir",
            StorageKind::LvmThin => "lvmthin",
        }
    }
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Its own name without a linked parent: `iso/a.iso`, `100/vm-100-disk-0.raw`, `vm-100-disk-0`.
    pub(crate) name: String,
    /// `images`, `iso`, ...
    pub(crate) content: String,
    /// Owner of a disk.
    pub(crate) vmid: Option<u32>,
    /// `raw`, `qcow2`, `vmdk`, `iso`, ...
    pub(crate) format: String,
    /// Size that the guest sees, in bytes.
    pub(crate) size_bytes: u64,
    /// Bytes that the storage counts as used.
    pub(crate) used_bytes: u64,
    /// Epoch seconds.
    pub(crate) ctime: u64,
    /// Own name of the base it is a linked clone of.
    pub(crate) parent: Option<String>,
}

impl Volume {
    /// The name as a volid shows it: a linked clone carries its base's name in front.
    pub(crate) fn shown(&self) -> String {
        match &self.parent {
            Some(parent) => format!("{parent}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Content type of a name in a directory storage.
fn classify(name: &str) -> Option<(&'static str, Option<u32>, String)> {
    let (first, rest) = name.split_once('/')?;
    if rest.is_empty() || rest.contains('/') || rest.starts_with("..") {
        return None;
    }
    let extension = rest.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase();
    match first {
        // A hidden file is stored, but it is no volume (recorded for `..iso`).
        "iso" if rest.starts_with('.') => None,
        "iso" if matches!(extension.as_str(), "iso" | "img") => Some(("iso", None, "iso".into())),
        "vztmpl" => Some(("vztmpl", None, extension)),
        "import" => Some(("import", None, extension)),
        "snippets" => Some(("snippets", None, "snippet".into())),
        "backup" => Some(("backup", None, extension)),
        _ => {
            let vmid: u32 = first.parse().ok()?;
            let disk = rest.starts_with("vm-") || rest.starts_with("base-");
            let format = matches!(extension.as_str(), "raw" | "qcow2" | "vmdk").then_some(extension)?;
            disk.then_some(("images", Some(vmid), format))
        }
    }
}

/// A volume's own name and base name out of the part of a volid behind the colon.
///
/// # Errors
/// PVE's text for a name that the storage type cannot have.
pub(crate) fn parse_volume_name(kind: StorageKind, name: &str) -> Result<(String, Option<String>), String> {
    match kind {
        StorageKind::Dir => {
            let bad = || format!("unable to parse directory volume name '{name}'\n");
            let parts: Vec<&str> = name.split('/').collect();
            let (own, base) = match parts.as_slice() {
                [a, b] => (format!("{a}/{b}"), None),
                [a, b, c, d] => (format!("{c}/{d}"), Some(format!("{a}/{b}"))),
                _ => return Err(bad()),
            };
            classify(&own).ok_or_else(bad)?;
            Ok((own, base))
        }
        StorageKind::LvmThin => {
            let bad = || format!("unable to parse lvm volume name '{name}'\n");
            let owner = name
                .strip_prefix("vm-")
                .or_else(|| name.strip_prefix("base-"))
                .ok_or_else(bad)?;
            let numbered = owner.split_once('-').is_some_and(|(id, _)| id.parse::<u32>().is_ok());
            if !numbered || name.contains('/') {
                return Err(bad());
            }
            // A thin volume's name does not tell its origin, unlike that of a file.
            Ok((name.to_owned(), None))
        }
    }
}

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
        if let Ok(bytes) = std::fs::read(&index) {
            let listed: Vec<Volume> = serde_json::from_slice(&bytes)?;
            for volume in listed.into_iter().filter(|v| Self::file_in(&dir, &v.name).exists()) {
                found.insert(volume.name.clone(), volume);
            }
        }
        // Files that people put there by hand are volumes too, as on a real node.
        if spec.kind == StorageKind::Dir {
            for entry in std::fs::read_dir(dir.join("template/iso"))? {
                let entry = entry?;
                let name = format!("iso/{}", entry.file_name().to_string_lossy());
                if classify(&name).is_some() && !found.contains_key(&name) {
                    let size = entry.metadata()?.len();
                    found.insert(name.clone(), file_volume(&name, size));
                }
            }
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

    /// Creates an empty disk with its file.
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
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::File::create(&file)?;
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
            },
        )
    }

    /// Forgets a volume and deletes its file. `false`: there was none.
    pub(crate) fn remove(&mut self, node: &str, spec: &StorageSpec, name: &str) -> std::io::Result<bool> {
        let key = Self::key(spec, node);
        let known = self.volumes.get_mut(&key).and_then(|v| v.remove(name)).is_some();
        if known {
            // The index goes first: a file without an entry is harmless, an entry without a file is not.
            self.save(&key)?;
            match std::fs::remove_file(self.file(node, spec, name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(known)
    }

    /// Gives a volume another name, as a conversion to a template does.
    pub(crate) fn rename(&mut self, node: &str, spec: &StorageSpec, from: &str, to: &str) -> std::io::Result<()> {
        let key = Self::key(spec, node);
        std::fs::rename(self.file(node, spec, from), self.file(node, spec, to))?;
        if let Some(volumes) = self.volumes.get_mut(&key)
            && let Some(mut volume) = volumes.remove(from)
        {
            to.clone_into(&mut volume.name);
            volumes.insert(to.to_owned(), volume);
        }
        self.save(&key)
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

/// A volume for a file that is not a disk.
pub(crate) fn file_volume(name: &str, size_bytes: u64) -> Volume {
    let (content, vmid, format) = classify(name).unwrap_or(("iso", None, "iso".into()));
    Volume {
        name: name.to_owned(),
        content: content.to_owned(),
        vmid,
        format,
        size_bytes,
        used_bytes: size_bytes.next_multiple_of(4096),
        ctime: now(),
        parent: None,
    }
}

/// A size as drive options show it: the largest unit that divides it.
pub(crate) fn size_text(bytes: u64) -> String {
    if bytes == 0 {
        return "0T".into();
    }
    let mut value = bytes;
    for unit in ["", "K", "M", "G"] {
        if !value.is_multiple_of(1024) {
            return format!("{value}{unit}");
        }
        value /= 1024;
    }
    format!("{value}T")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_the_largest_unit() {
        for (bytes, text) in [
            (32 << 30, "32G"),
            (540_672, "528K"),
            (19_148_800, "18700K"),
            (375_296, "375296"),
            (1 << 40, "1T"),
            (0, "0T"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn volume_names_follow_the_storage_type() {
        let dir = |n| parse_volume_name(StorageKind::Dir, n);
        assert_eq!(dir("iso/a.iso"), Ok(("iso/a.iso".into(), None)));
        assert_eq!(
            dir("220/base-220-disk-1.qcow2/221/vm-221-disk-1.qcow2"),
            Ok((
                "221/vm-221-disk-1.qcow2".into(),
                Some("220/base-220-disk-1.qcow2".into())
            ))
        );
        for bad in [
            "32G",
            "iso/../x",
            "iso/",
            "../../etc/passwd",
            "iso/a.txt",
            "100/disk.raw",
            "100/../x.raw",
        ] {
            assert_eq!(
                dir(bad),
                Err(format!("unable to parse directory volume name '{bad}'\n"))
            );
        }
        let lvm = |n| parse_volume_name(StorageKind::LvmThin, n);
        assert_eq!(lvm("vm-100-disk-0"), Ok(("vm-100-disk-0".into(), None)));
        assert_eq!(lvm("base-100-disk-0"), Ok(("base-100-disk-0".into(), None)));
        for bad in ["iso/a.iso", "a/vm-1-x/../../y", "vm-x-disk-0", "disk"] {
            assert!(lvm(bad).is_err(), "{bad}");
        }
    }

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
