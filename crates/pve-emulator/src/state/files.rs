//! Files of the data directory: written whole or not at all.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Writes `bytes` to a temporary name beside `path` and renames it, so that a reader or a crash sees the old or the
/// new content and nothing between. Files of the data directory can hold secrets: only the owner may read them.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path).map(|_| ()).map_err(|e| e.error)
}

/// Copies `from` to a temporary name in the folder of `to`, where it can take its name at once. Dropped, it is gone.
pub(crate) fn copy_aside(from: &Path, to: &Path) -> std::io::Result<tempfile::TempPath> {
    let dir = to.parent().unwrap_or_else(|| Path::new("."));
    let mut copy = tempfile::NamedTempFile::new_in(dir)?;
    std::io::copy(&mut File::open(from)?, copy.as_file_mut())?;
    Ok(copy.into_temp_path())
}

/// Removes what a killed emulator was still writing: temporary names below `dir`.
pub(crate) fn sweep(dir: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sweep(&entry.path())?;
        } else if entry.file_name().to_str().is_some_and(is_temporary) {
            tracing::info!(file = %entry.path().display(), "unfinished file removed");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether `tempfile` made a name: `.tmp` and six letters or digits. No volume has one: a hidden file is none.
fn is_temporary(name: &str) -> bool {
    name.strip_prefix(".tmp")
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unfinished_files_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        for name in [".tmpAb12Cd", ".tmp-mine", "vm.json", ".tmpAb12Cd.iso"] {
            std::fs::write(deep.join(name), "x").unwrap();
        }
        let (_, kept) = tempfile::NamedTempFile::new_in(&deep).unwrap().keep().unwrap();
        sweep(dir.path()).unwrap();
        assert!(!kept.exists());
        let mut left: Vec<_> = std::fs::read_dir(&deep)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, [".tmp-mine", ".tmpAb12Cd.iso", "vm.json"]);
        sweep(&dir.path().join("missing")).unwrap();
    }
}
