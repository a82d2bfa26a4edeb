//! Files that the variable `files` brings into the guest.

use std::path::Path;

use crate::confined::inside;
use crate::spec::{FileContent, FileSpec, LocalFile};
use crate::variables::Reader;

/// What a file can be read and written by when nothing else is said.
const MODE: u32 = 0o644;
const FORM: &str = "write PATH=DESTINATION, or PATH=DESTINATION,MODE as in files/hosts=/etc/hosts,0600";

/// Reads the variable. What cannot be is noted.
pub(super) fn read(dir: &Path, reader: &mut Reader<'_>) -> Vec<FileSpec> {
    let mut files = Vec::new();
    for entry in reader.texts("files") {
        match parse(&entry) {
            Ok((path, destination, mode)) => match here(dir, path) {
                Ok(content) => files.push(FileSpec {
                    name: path.to_owned(),
                    content,
                    destination: destination.to_owned(),
                    mode,
                }),
                Err((reason, help)) => reader.error("files", format!("{path}: {reason}"), Some(help.to_owned())),
            },
            Err(reason) => reader.error("files", format!("`{entry}` {reason}"), Some(FORM.to_owned())),
        }
    }
    files
}

/// Path here, path in the guest, mode.
fn parse(entry: &str) -> Result<(&str, &str, u32), &'static str> {
    let (path, rest) = entry.split_once('=').ok_or("names no destination")?;
    let (destination, mode) = match rest.rsplit_once(',') {
        None => (rest, MODE),
        Some((destination, digits)) => {
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
            (destination, mode.ok_or("has no mode of octal digits behind its comma")?)
        }
    };
    if path.is_empty() {
        return Err("names no file");
    }
    // A folder would need another name for the file in it, and a shell takes no NUL.
    if !destination.starts_with('/') || destination.ends_with('/') || destination.contains('\0') {
        return Err("names no absolute path of a file in the guest");
    }
    Ok((path, destination, mode))
}

/// A file of the folder: one from elsewhere must not bring other files of this machine into an image.
fn here(dir: &Path, path: &str) -> Result<FileContent, (String, &'static str)> {
    let path = inside(dir, path).map_err(|reason| (reason.to_string(), "keep the files in the folder itself"))?;
    if !path.is_file() {
        return Err((
            "is no file of the folder".to_owned(),
            "the path begins in the template folder",
        ));
    }
    LocalFile::read(path)
        .map(FileContent::Local)
        .map_err(|error| (format!("cannot be used: {}", error.chain()), "make it readable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        for (entry, expected) in [
            ("a=/b", Ok(("a", "/b", 0o644))),
            ("files/a b=/opt/x=y", Ok(("files/a b", "/opt/x=y", 0o644))),
            ("a=/b,0600", Ok(("a", "/b", 0o600))),
            ("a=/b,c,4755", Ok(("a", "/b,c", 0o4755))),
            ("a", Err("names no destination")),
            ("=/b", Err("names no file")),
            ("a=b", Err("names no absolute path of a file in the guest")),
            ("a=/b/", Err("names no absolute path of a file in the guest")),
            ("a=/b,rw", Err("has no mode of octal digits behind its comma")),
            ("a=/b,17777", Err("has no mode of octal digits behind its comma")),
        ] {
            assert_eq!(parse(entry), expected, "{entry}");
        }
    }

    #[test]
    fn only_files_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(here(folder.path(), "a").is_ok());
        for path in ["b", ".", "link", "../a", "/etc/passwd"] {
            assert!(here(folder.path(), path).is_err(), "{path}");
        }
    }
}
