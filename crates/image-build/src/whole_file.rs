//! Files that a build leaves on this machine: written whole, or not at all.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

/// Room that must be there before a build, in bytes: an entry of a manifest, a report or a picture is no larger by much.
const ROOM_BYTES: u64 = 256 * 1024;

/// Puts a file with these bytes in the place of an older one. A reader, a crash and a full disk see the old or the new one; a link
/// gives way and is not followed.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replaceable(path)?;
    // Made for its owner alone.
    let mut file = NamedTempFile::new_in(folder_of(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Whether [`write`] would succeed now, as far as that can be tried: asked before half an hour of work. Makes nothing that stays.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    let old = replaceable(path)?;
    let folder = folder_of(path);
    // The folder may be made later; then the one that it is made in must have the room.
    let there = folder.ancestors().find(|folder| folder.is_dir());
    let mut file = NamedTempFile::new_in(there.unwrap_or_else(|| Path::new(".")))?;
    io::copy(&mut io::repeat(0).take(old + ROOM_BYTES), &mut file)?;
    file.as_file().sync_all()
}

/// Keeps others who ask for the same, threads and processes, from this folder's files until it is dropped. Blocks until they are done. A
/// filesystem that cannot lock a folder, as NFS, goes without.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let opened = File::open(folder)?;
    Ok(opened.lock().is_ok().then_some(opened))
}

/// The folder that a file lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Refuses what a file must not take the place of; answers the size of the old file in bytes.
pub(crate) fn replaceable(path: &Path) -> io::Result<u64> {
    match path.metadata() {
        Ok(old) if old.is_file() => Ok(old.len()),
        Ok(old) if old.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a device or a pipe, which a file would take the place of; name a file",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_file_takes_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (bytes, mode) in [(&b"one"[..], 0o600), (b"another", 0o644)] {
            check(&path).unwrap();
            write(&path, bytes, mode).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn what_is_no_file_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let full = Path::new("/dev/full");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(full, &link).unwrap();
        for (path, kind) in [
            (full, io::ErrorKind::InvalidInput),
            (&link, io::ErrorKind::InvalidInput),
            (folder.path(), io::ErrorKind::IsADirectory),
        ] {
            assert_eq!(check(path).unwrap_err().kind(), kind, "{}", path.display());
            assert_eq!(write(path, b"x", 0o600).unwrap_err().kind(), kind, "{}", path.display());
        }
        assert!(link.is_symlink());
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_no_error_before() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("deep/er/a")).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        check(Path::new("a-file-beside")).unwrap();
    }
}
