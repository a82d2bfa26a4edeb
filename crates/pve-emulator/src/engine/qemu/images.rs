//! Disk images, made by `qemu-img`.
//!
//! A volume of a directory storage is a file of the format its name tells. A volume of a thin pool is a qcow2 file, whatever the
//! configuration calls it: so it is thin, takes snapshots and can be the base of linked clones, as on LVM.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{firmware, process};
use crate::engine::{Disks, Image, SnapshotAction};

/// Images through `qemu-img`.
#[derive(Clone, Debug)]
pub(super) struct QemuImages {
    pub(super) program: PathBuf,
    pub(super) firmware_dir: PathBuf,
}

impl QemuImages {
    /// Runs `qemu-img`; its output when it succeeds.
    pub(super) async fn run<I: IntoIterator<Item = S>, S: Into<OsString>>(&self, args: I) -> Result<String, String> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let output = process::command(&self.program)
            .args(&args)
            .stdin(std::process::Stdio::null())
            // A dropped task must not leave a copy that goes on.
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| format!("starting {}: {e}", self.program.display()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        Err(if said.is_empty() {
            let verb = args.first().cloned().unwrap_or_default();
            format!("qemu-img {}: {}", verb.to_string_lossy(), output.status)
        } else {
            said.replace('\n', "; ")
        })
    }

    /// Makes a file by `work`; a failure leaves none.
    async fn make(&self, to: &Path, args: Vec<OsString>) -> Result<(), String> {
        let mut unfinished = Unfinished(Some(to.to_owned()));
        self.run(args).await?;
        unfinished.0 = None;
        Ok(())
    }
}

/// Removes a file that was not finished, also when the work is given up half-way.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "an unfinished image stays behind");
        }
    }
}

/// The way from the folder of `from` to `to`, as qcow2 files name their base: so a data directory may be moved.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let dir = from.parent().unwrap_or_else(|| Path::new("/"));
    let common = dir
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let mut path = PathBuf::new();
    for _ in dir.components().skip(common) {
        path.push("..");
    }
    path.extend(to.components().skip(common));
    path
}

fn list<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

#[async_trait]
impl Disks for QemuImages {
    fn layout(&self, format: &str, thin: bool) -> String {
        if thin { "qcow2".into() } else { format.to_owned() }
    }

    async fn create(&self, image: &Image) -> Result<(), String> {
        let mut args = list(["create", "-q", "-f", &image.format]);
        args.push(image.path.clone().into());
        args.push(image.size_bytes.to_string().into());
        self.make(&image.path, args).await
    }

    async fn copy(&self, from: &Image, to: &Image) -> Result<(), String> {
        let mut args = list(["convert", "-f", &from.format, "-O", &to.format]);
        args.push(from.path.clone().into());
        args.push(to.path.clone().into());
        self.make(&to.path, args).await?;
        if to.size_bytes > from.size_bytes {
            self.resize(to, to.size_bytes).await?;
        }
        Ok(())
    }

    async fn link(&self, base: &Image, to: &Image) -> Result<(), String> {
        if to.format != "qcow2" {
            return Err(format!("a linked clone is a qcow2 file, not {}", to.format));
        }
        let mut args = list(["create", "-q", "-f", "qcow2", "-F", &base.format, "-b"]);
        args.push(relative(&to.path, &base.path).into());
        args.push(to.path.clone().into());
        args.push(to.size_bytes.to_string().into());
        self.make(&to.path, args).await
    }

    async fn resize(&self, image: &Image, size_bytes: u64) -> Result<(), String> {
        let mut args = list(["resize", "-q", "-f", &image.format]);
        args.push(image.path.clone().into());
        args.push(size_bytes.to_string().into());
        self.run(args).await.map(|_| ())
    }

    async fn freeze(&self, image: &Image) -> Result<(), String> {
        let mode = std::fs::Permissions::from_mode(0o444);
        std::fs::set_permissions(&image.path, mode)
            .map_err(|e| format!("making {} read-only: {e}", image.path.display()))
    }

    async fn fill(&self, image: &Image, bytes: &[u8]) -> Result<(), String> {
        let dir = image.path.parent().unwrap_or_else(|| Path::new("."));
        let text = |e: std::io::Error| format!("writing {}: {e}", image.path.display());
        let mut whole = bytes.to_vec();
        // The image keeps its size; what is beyond the bytes is zero.
        let size = usize::try_from(image.size_bytes).map_err(|e| e.to_string())?;
        whole.resize(size.max(bytes.len()), 0);
        let mut raw = tempfile::NamedTempFile::new_in(dir).map_err(text)?;
        std::io::Write::write_all(&mut raw, &whole).map_err(text)?;
        if image.format == "raw" {
            return raw.persist(&image.path).map(|_| ()).map_err(|e| text(e.error));
        }
        let done = tempfile::NamedTempFile::new_in(dir).map_err(text)?;
        let mut args = list(["convert", "-f", "raw", "-O", &image.format]);
        args.push(raw.path().into());
        args.push(done.path().into());
        self.run(args).await?;
        done.persist(&image.path).map(|_| ()).map_err(|e| text(e.error))
    }

    async fn snapshot(&self, image: &Image, name: &str, action: SnapshotAction) -> Result<(), String> {
        let flag = match action {
            SnapshotAction::Take => "-c",
            SnapshotAction::Restore => "-a",
            SnapshotAction::Drop => "-d",
        };
        let mut args = list(["snapshot", "-q", flag, name]);
        args.push(image.path.clone().into());
        self.run(args).await.map(|_| ())
    }

    fn efi_variables(&self, four_mib: bool, keys: bool) -> Result<Option<Vec<u8>>, String> {
        let files = firmware::Files::find(&self.firmware_dir, four_mib, keys)?;
        std::fs::read(&files.vars)
            .map(Some)
            .map_err(|e| format!("reading {}: {e}", files.vars.display()))
    }

    fn used_bytes(&self, file: &Path) -> Option<u64> {
        // POSIX counts blocks of 512 bytes here, whatever the file system's own are.
        std::fs::metadata(file).ok().map(|m| m.blocks() * 512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_named_from_where_the_clone_lies() {
        for (from, to, expected) in [
            (
                "/d/images/101/vm-101-disk-0.qcow2",
                "/d/images/100/base-100-disk-0.raw",
                "../100/base-100-disk-0.raw",
            ),
            (
                "/d/images/vm-101-disk-0",
                "/d/images/base-100-disk-0",
                "base-100-disk-0",
            ),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(expected));
        }
    }
}
