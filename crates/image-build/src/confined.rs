//! A template folder's files are those that lie in it.

use std::path::{Component, Path, PathBuf};

/// Joins a path that the user wrote to the folder, unless it leads out of it: by `..`, as an absolute path, or by a link.
///
/// What a folder holds ends up in a guest and in logs, so a folder from elsewhere must not reach other files.
pub(crate) fn inside(dir: &Path, relative: &str) -> Result<PathBuf, &'static str> {
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
