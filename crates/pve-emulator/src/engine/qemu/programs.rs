//! The programs of QEMU on this machine.

use std::path::{Path, PathBuf};

/// Where QEMU's programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// `qemu-system-x86_64`.
    pub(super) system: PathBuf,
    /// `qemu-img`.
    pub(super) img: PathBuf,
}

impl Programs {
    /// Finds both in the folders of a `PATH`.
    ///
    /// # Errors
    /// Which one is missing, and what to install.
    pub(super) fn find(path: &std::ffi::OsStr) -> Result<Self, String> {
        let find = |name: &str, package: &str| {
            std::env::split_paths(path)
                .map(|dir| dir.join(name))
                .find(|file| is_program(file))
                .ok_or_else(|| {
                    format!("there is no program '{name}' in PATH: install it (Debian: apt-get install {package})")
                })
        };
        Ok(Self {
            system: find("qemu-system-x86_64", "qemu-system-x86")?,
            img: find("qemu-img", "qemu-utils")?,
        })
    }
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let error = Programs::find(dir.path().as_os_str()).unwrap_err();
        assert_eq!(
            error,
            "there is no program 'qemu-system-x86_64' in PATH: install it (Debian: apt-get install qemu-system-x86)"
        );
        for name in ["qemu-system-x86_64", "qemu-img"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(Programs::find(dir.path().as_os_str()).is_err(), "not executable");
        for name in ["qemu-system-x86_64", "qemu-img"] {
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(dir.path().join(name), mode).unwrap();
        }
        assert_eq!(
            Programs::find(dir.path().as_os_str()).unwrap().img,
            dir.path().join("qemu-img")
        );
    }
}
