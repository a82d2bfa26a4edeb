//! The folder in which QEMU processes run: sockets, pid files, what they say.
//!
//! The path of a Unix socket has at most 107 bytes, that of a data directory any number. So QEMU runs inside the folder and has
//! relative names, and the engine connects through `/proc/self/fd`, where the path to an open folder is short.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

/// The names of one guest's files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names(pub(super) u32);

impl Names {
    pub(super) fn pid(self) -> String {
        format!("{}.pid", self.0)
    }

    pub(super) fn qmp(self) -> String {
        format!("{}.qmp", self.0)
    }

    pub(super) fn agent(self) -> String {
        format!("{}.qga", self.0)
    }

    pub(super) fn vnc(self) -> String {
        format!("{}.vnc", self.0)
    }

    pub(super) fn serial(self, index: u32) -> String {
        format!("{}.serial{index}", self.0)
    }

    /// What the first serial port printed.
    pub(super) fn console_log(self) -> String {
        format!("{}.serial0.log", self.0)
    }

    /// What QEMU itself printed.
    pub(super) fn output(self) -> String {
        format!("{}.out", self.0)
    }

    /// EFI variables of a guest without an efidisk.
    pub(super) fn vars(self) -> String {
        format!("{}.efivars", self.0)
    }

    /// What the next emulator must know to take the guest over.
    pub(super) fn record(self) -> String {
        format!("{}.json", self.0)
    }

    fn all(self) -> Vec<String> {
        let mut names = vec![
            self.pid(),
            self.qmp(),
            self.agent(),
            self.vnc(),
            self.console_log(),
            self.output(),
            self.vars(),
            self.record(),
        ];
        names.extend((0..4).map(|index| self.serial(index)));
        names
    }
}

/// The folder, held open.
#[derive(Debug)]
pub(super) struct RunDir {
    pub(super) path: PathBuf,
    handle: File,
}

impl RunDir {
    /// Opens the folder, which only its owner may enter: who reaches a guest's sockets owns the guest.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        let path = path.canonicalize()?;
        let handle = File::open(&path)?;
        Ok(Self { path, handle })
    }

    /// Takes the folder for this process, as long as it is open; `false` when another one has it.
    ///
    /// # Errors
    /// The file system cannot lock.
    pub(super) fn lock(&self) -> std::io::Result<bool> {
        match rustix::fs::flock(&self.handle, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Connects to a socket in the folder.
    ///
    /// # Errors
    /// Nobody listens.
    pub(super) async fn connect(&self, name: &str) -> std::io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd())).await
    }

    /// Removes everything of one guest.
    pub(super) fn clear(&self, vmid: u32) {
        for name in Names(vmid).all() {
            match std::fs::remove_file(self.file(&name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, name, dir = %self.path.display(), "a guest's file stays behind");
                }
                _ => {}
            }
        }
    }

    /// Guests that left files here.
    pub(super) fn vmids(&self) -> Vec<u32> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut vmids: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.split('.').next()?.parse().ok())
            .collect();
        vmids.sort_unstable();
        vmids.dedup();
        vmids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_in_a_deep_folder_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        let run = RunDir::open(&deep).unwrap();
        // As QEMU does: bound by a short name from within.
        let short = format!("/proc/self/fd/{}/7.qmp", run.handle.as_raw_fd());
        let listener = tokio::net::UnixListener::bind(short).unwrap();
        assert!(run.file("7.qmp").exists());
        let (connected, accepted) = tokio::join!(run.connect("7.qmp"), listener.accept());
        assert!(connected.is_ok() && accepted.is_ok());
        assert_eq!(run.vmids(), [7]);
        run.clear(7);
        assert_eq!(run.vmids(), Vec::<u32>::new());
    }
}
