//! What the library carries: the scripts that run in the guest, and the template folder that `init` writes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::error::Error;

/// A file that the library carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asset {
    /// Its path within the template folder.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Is it a program?
    pub executable: bool,
}

macro_rules! assets {
    ($($path:literal from $file:literal $($executable:ident)?;)+) => {
        &[$(Asset { path: $path, text: include_str!(concat!("../../../", $file)), executable: assets!(@ $($executable)?) },)+]
    };
    (@ executable) => { true };
    (@) => { false };
}

/// The template folder of the seed: variables with its example values, kickstart, scripts.
pub const TEMPLATE_FOLDER: &[Asset] = assets! {
    "variables.pkr.hcl" from "examples/alma9-k3s-optimized/variables.pkr.hcl";
    "variables.auto.pkrvars.hcl" from "examples/alma9-k3s-optimized/variables.auto.pkrvars.hcl";
    "http/ks.cfg.j2" from "examples/alma9-k3s-optimized/http/ks.cfg.j2";
    "scripts/os-update.sh" from "scripts/os-update.sh" executable;
    "scripts/guest-agent.sh" from "scripts/guest-agent.sh" executable;
    "scripts/k3s-install.sh" from "scripts/k3s-install.sh" executable;
    "scripts/hardening-oscap.sh" from "scripts/hardening-oscap.sh" executable;
    "scripts/seal.sh" from "scripts/seal.sh" executable;
};

/// A kickstart with more values to set, for a folder that wants to change more than the mirror.
pub const KICKSTART_TEMPLATE: Asset = Asset {
    path: "http/ks.cfg.j2",
    text: include_str!("../../../kickstart/alma9.ks.cfg.j2"),
    executable: false,
};

/// The script of that name, such as `seal.sh`.
pub fn script(name: &str) -> Option<&'static str> {
    TEMPLATE_FOLDER
        .iter()
        .find(|asset| asset.path.strip_prefix("scripts/") == Some(name))
        .map(|asset| asset.text)
}

/// Writes the template folder, ready to edit, and tells what was written.
///
/// The folder is made if it does not exist.
///
/// # Errors
/// [`Error::Invalid`] when a file of it exists already: nothing is overwritten, and nothing written then.
/// [`Error::Io`] when a file cannot be written; those that were written are removed again.
pub fn init(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let taken: Vec<&str> = TEMPLATE_FOLDER
        .iter()
        .filter(|asset| dir.join(asset.path).symlink_metadata().is_ok())
        .map(|asset| asset.path)
        .collect();
    if !taken.is_empty() {
        let what = format!("{} already holds {}", dir.display(), taken.join(", "));
        return Err(Diagnostic::error("", what)
            .help("nothing was written; name another folder")
            .into());
    }
    let mut written = Vec::new();
    for asset in TEMPLATE_FOLDER {
        let path = dir.join(asset.path);
        match write_new(&path, asset) {
            Ok(()) => written.push(path),
            Err(source) => {
                // Half a folder would be taken for a whole one, and keep the next attempt from writing it.
                for path in written {
                    let _ = std::fs::remove_file(path);
                }
                return Err(Error::Io {
                    attempt: "writing",
                    path,
                    source,
                });
            }
        }
    }
    Ok(written)
}

fn write_new(path: &Path, asset: &Asset) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut options = OpenOptions::new();
    // Never follows a link that somebody puts there between the check and now.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if asset.executable { 0o755 } else { 0o644 });
    let written = options.open(path)?.write_all(asset.text.as_bytes());
    if written.is_err() {
        // What is half written is of no use to anybody; that it cannot be written is the error.
        let _ = std::fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_written_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("my-image");
        let written = init(&dir).unwrap();
        assert_eq!(written.len(), TEMPLATE_FOLDER.len());
        for (path, asset) in written.iter().zip(TEMPLATE_FOLDER) {
            assert_eq!(std::fs::read_to_string(path).unwrap(), asset.text);
            #[cfg(unix)]
            {
                let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
                assert_eq!(mode & 0o100 != 0, asset.executable, "{}", asset.path);
            }
        }
        std::fs::remove_file(dir.join("http/ks.cfg.j2")).unwrap();
        let error = init(&dir).unwrap_err().to_string();
        assert!(error.contains("variables.pkr.hcl"), "{error}");
        assert!(
            !dir.join("http/ks.cfg.j2").exists(),
            "nothing may be written when a file exists"
        );
    }

    #[test]
    fn scripts_are_found_by_name() {
        assert!(script("seal.sh").unwrap().starts_with("#!/usr/bin/env bash"));
        assert_eq!(script("http/ks.cfg.j2"), None);
    }
}
