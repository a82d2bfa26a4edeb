//! What may be chosen about guests that are QEMU processes.

use std::path::PathBuf;

use super::Accel;

/// Settings of the engine `qemu`.
#[derive(Clone, Debug, Default)]
pub struct QemuOptions {
    /// The accelerator; `None` takes KVM where it works, else TCG.
    pub accel: Option<Accel>,
    /// Port at every guest's address behind which its port 22 is; 0 takes a free one.
    pub ssh_port: u16,
    /// Folder with the files of the package `ovmf`; `None` is `/usr/share/OVMF`.
    pub firmware_dir: Option<PathBuf>,
}
