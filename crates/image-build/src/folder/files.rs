//! Files of a template folder, read as text.

use std::path::Path;

use crate::confined::inside;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::error::Error;
use crate::variables::read_text;

/// Reads a file of the folder; `None` when it does not exist.
///
/// # Errors
/// [`Error::Io`] when it exists and cannot be read, [`Error::Invalid`] when it lies outside.
pub(super) fn read(dir: &Path, relative: &str) -> Result<Option<String>, Error> {
    let path =
        inside(dir, relative).map_err(|reason| Error::from(Diagnostic::error("", format!("{relative}: {reason}"))))?;
    match read_text(&path) {
        Ok(text) => Ok(Some(text)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names of the scripts in `scripts/`, sorted.
pub(super) fn scripts(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("scripts")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("sh"))
        })
        .collect();
    names.sort_unstable();
    names
}

/// Scripts that lie there and that nothing runs.
pub(super) fn unlisted(dir: &Path, listed: &[String], seal: &str) -> Diagnostics {
    scripts(dir)
        .into_iter()
        .filter(|name| name != seal && !listed.contains(name))
        .map(|name| {
            Diagnostic::warning("", format!("scripts/{name} lies there, but nothing runs it"))
                .help("add it to the variable `scripts`, or take it away")
        })
        .collect()
}
