//! How an engine keeps the bytes of disks: the seam between the storage layer, which knows volumes, and whoever reads them.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

/// The file of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// The layout of the file: `raw`, `qcow2`, `vmdk`.
    pub format: String,
    /// Size that the guest sees, in bytes.
    pub size_bytes: u64,
}

/// What is done with an image's internal snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotAction {
    /// The content is kept under a name.
    Take,
    /// The content becomes that of the snapshot.
    Restore,
    /// The snapshot is forgotten.
    Drop,
}

/// Images on this machine. Errors are texts for the log of a task; nothing half-made stays behind after one.
#[async_trait]
pub trait Disks: Send + Sync + fmt::Debug {
    /// The layout of a volume's file. A volume of a thin pool (`thin`) is `raw` to the guest's configuration, and yet can be a
    /// linked clone and hold snapshots.
    fn layout(&self, format: &str, thin: bool) -> String;

    /// Makes an empty image.
    async fn create(&self, image: &Image) -> Result<(), String>;

    /// Makes `to`, with the content of `from`.
    async fn copy(&self, from: &Image, to: &Image) -> Result<(), String>;

    /// Makes `to` a linked clone of `base`: the content is that of `base`, which must not change from now on.
    async fn link(&self, base: &Image, to: &Image) -> Result<(), String>;

    /// Grows an image that no guest uses.
    async fn resize(&self, image: &Image, size_bytes: u64) -> Result<(), String>;

    /// Keeps an image, which becomes the base of linked clones, from being changed.
    async fn freeze(&self, image: &Image) -> Result<(), String>;

    /// Replaces the first bytes of an image.
    async fn fill(&self, image: &Image, bytes: &[u8]) -> Result<(), String>;

    /// Works on the snapshots of an image that no guest uses.
    async fn snapshot(&self, image: &Image, name: &str, action: SnapshotAction) -> Result<(), String>;

    /// Content of a new efidisk, `None` where the engine's firmware needs none.
    fn efi_variables(&self, four_mib: bool, keys: bool) -> Result<Option<Vec<u8>>, String>;

    /// Bytes that an image's file takes on this machine's file system, `None` if the recorded figure counts.
    fn used_bytes(&self, file: &Path) -> Option<u64>;
}

/// A volume is whatever one file holds, and nobody reads it as blocks: what `simulated` uses. A copy and a linked clone are the
/// same, a new size is a matter of the volume's record alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainFiles;

#[async_trait]
impl Disks for PlainFiles {
    fn layout(&self, format: &str, _thin: bool) -> String {
        format.to_owned()
    }

    async fn create(&self, image: &Image) -> Result<(), String> {
        std::fs::File::create(&image.path)
            .map(|_| ())
            .map_err(|e| e.to_string())
    }

    async fn copy(&self, from: &Image, to: &Image) -> Result<(), String> {
        let copy = crate::state::copy_aside(&from.path, &to.path).map_err(|e| e.to_string())?;
        copy.persist(&to.path).map_err(|e| e.error.to_string())
    }

    async fn link(&self, base: &Image, to: &Image) -> Result<(), String> {
        self.copy(base, to).await
    }

    async fn resize(&self, _image: &Image, _size_bytes: u64) -> Result<(), String> {
        Ok(())
    }

    async fn freeze(&self, _image: &Image) -> Result<(), String> {
        Ok(())
    }

    async fn fill(&self, image: &Image, bytes: &[u8]) -> Result<(), String> {
        std::fs::write(&image.path, bytes).map_err(|e| e.to_string())
    }

    /// Simulated guests never noticed a snapshot of their disks, and the recordings do not show one.
    async fn snapshot(&self, _image: &Image, _name: &str, _action: SnapshotAction) -> Result<(), String> {
        Ok(())
    }

    fn efi_variables(&self, _four_mib: bool, _keys: bool) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    fn used_bytes(&self, _file: &Path) -> Option<u64> {
        None
    }
}
