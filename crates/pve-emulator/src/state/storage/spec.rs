//! What a storage is: its type, contents, size.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
    /// The storages of a plain Proxmox VE, and for several nodes `shared`, a directory that all of them see.
    pub fn defaults(nodes: usize) -> Vec<Self> {
        let mut storages = vec![Self::dir("local", "/var/lib/vz"), Self::lvmthin("local-lvm")];
        if nodes > 1 {
            storages.push(Self::dir("shared", "/mnt/pve/shared").shared(true));
        }
        storages
    }

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

impl FromStr for StorageSpec {
    type Err = String;

    /// Reads `NAME:KIND` or `NAME:KIND:shared`, such as `nfs:dir:shared`; the kind is `dir` or `lvmthin`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (name, kind, shared) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        // PVE's own rule for a storage id.
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !good {
            return Err(format!(
                "{name:?} is no storage name: a letter first, then letters, digits, - _ and ."
            ));
        }
        let spec = match kind {
            Some("dir") => Self::dir(name, format!("/mnt/pve/{name}")),
            Some("lvmthin") => Self::lvmthin(name),
            Some(other) => {
                return Err(format!(
                    "storage {name}: {other:?} is no kind here: give dir or lvmthin"
                ));
            }
            None => {
                return Err(format!(
                    "storage {name} has no kind: write {name}:dir or {name}:lvmthin"
                ));
            }
        };
        match (shared, parts.next()) {
            (None, _) => Ok(spec),
            (Some("shared"), None) if spec.kind == StorageKind::Dir => Ok(spec.shared(true)),
            (Some("shared"), None) => Err(format!(
                "storage {name}: an LVM thin pool belongs to one node, only a dir is shared"
            )),
            _ => Err(format!("{text:?}: behind the kind only :shared may stand")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storages_are_declared_in_one_word() {
        let nfs: StorageSpec = "nfs:dir:shared".parse().unwrap();
        assert_eq!(nfs, StorageSpec::dir("nfs", "/mnt/pve/nfs").shared(true));
        assert_eq!("fast:lvmthin".parse(), Ok(StorageSpec::lvmthin("fast")));
        for (bad, part) in [
            ("", "no storage name"),
            ("nfs", "has no kind"),
            ("nfs:zfs", "zfs"),
            ("nfs:dir:mine", ":shared"),
            ("nfs:dir:shared:x", ":shared"),
            ("fast:lvmthin:shared", "one node"),
            ("../x:dir", "no storage name"),
            ("1nfs:dir", "no storage name"),
        ] {
            let error = bad.parse::<StorageSpec>().unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn only_a_cluster_has_a_shared_storage_by_default() {
        let names = |nodes| {
            StorageSpec::defaults(nodes)
                .into_iter()
                .map(|s| s.id)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["local", "local-lvm"]);
        assert_eq!(names(3), ["local", "local-lvm", "shared"]);
    }
}
