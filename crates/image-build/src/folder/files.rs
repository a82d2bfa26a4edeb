//! Files of a template folder: kept inside it, read as text.

use std::path::{Component, Path, PathBuf};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::error::Error;
use crate::variables::read_text;

/// Joins a path that the user wrote to the folder, unless it leads out of it: by `..`, as an absolute path, or by a link.
///
/// What a folder holds ends up in a guest and in logs, so a folder from elsewhere must not reach other files.
pub(super) fn inside(dir: &Path, relative: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(relative);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if relative.is_empty() || !path.components().all(plain) {
        return Err("it leads out of the template folder");
    }
    let joined = dir.join(path);
    match (dir.canonicalize(), joined.canonicalize()) {
        (Ok(dir), Ok(real)) if !real.starts_with(&dir) => Err("it is a link that leads out of the template folder"),
        _ => Ok(joined),
    }
}

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
