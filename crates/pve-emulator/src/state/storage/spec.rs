//! What a storage is: its type, contents, size.

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
