//! The small file tree of an installed system.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::pattern::matches_glob;

/// Most links followed before the kernel would say ELOOP.
const MAX_LINKS: usize = 40;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// All bytes.
    Bytes(Bytes),
    /// Too large to keep: size and lower-case hexadecimal SHA-256.
    Digest { size: u64, sha256: String },
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Digest { size, .. } => *size,
        }
    }

    pub(super) fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) => hex::encode(Sha256::digest(bytes)),
            Self::Digest { sha256, .. } => sha256.clone(),
        }
    }
}

/// On disk: text as text, other bytes as base64.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Text(String),
    Base64(String),
    Digest { size: u64, sha256: String },
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = match self {
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Stored::Text(text.to_owned()),
                Err(_) => Stored::Base64(STANDARD.encode(bytes)),
            },
            Self::Digest { size, sha256 } => Stored::Digest {
                size: *size,
                sha256: sha256.clone(),
            },
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Text(text) => Self::Bytes(text.into()),
            Stored::Base64(text) => Self::Bytes(STANDARD.decode(text).map_err(serde::de::Error::custom)?.into()),
            Stored::Digest { size, sha256 } => Self::Digest { size, sha256 },
        })
    }
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Dir,
    File(Content),
    Link(String),
    /// `/dev/null`: swallows what is written.
    Null,
}

/// A path's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) owner: String,
    pub(super) group: String,
}

/// The errors of the system calls, as `strerror` words them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FsError {
    NotFound,
    NotADirectory,
    IsADirectory,
    NotEmpty,
    Exists,
    Denied,
    Loop,
    /// The bytes were too many to keep; the simulation's own limit.
    NotKept,
}

impl std::fmt::Display for FsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "No such file or directory",
            Self::NotADirectory => "Not a directory",
            Self::IsADirectory => "Is a directory",
            Self::NotEmpty => "Directory not empty",
            Self::Exists => "File exists",
            Self::Denied => "Permission denied",
            Self::Loop => "Too many levels of symbolic links",
            Self::NotKept => "File too large (a simulated guest keeps only its size and SHA-256)",
        })
    }
}

/// All paths, absolute and normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct FileTree {
    nodes: BTreeMap<String, Node>,
}

/// Makes a path absolute and drops `.`, `..` and doubled slashes.
pub(super) fn normalise(cwd: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{cwd}/{path}")
    };
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl FileTree {
    /// Follows links in every part of the path, the last included if `last` says so. The result may not exist.
    pub(super) fn resolve(&self, path: &str, last: bool) -> Result<String, FsError> {
        let mut links = 0;
        let mut done = String::new();
        let mut todo: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .rev()
            .map(str::to_owned)
            .collect();
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "." => continue,
                ".." => {
                    done.truncate(done.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = format!("{done}/{part}");
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(Kind::Link(target)) if last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(FsError::Loop);
                    }
                    if target.starts_with('/') {
                        done.clear();
                    }
                    todo.extend(
                        target
                            .split('/')
                            .filter(|part| !part.is_empty())
                            .rev()
                            .map(str::to_owned),
                    );
                }
                Some(Kind::File(_) | Kind::Null) if !todo.is_empty() => return Err(FsError::NotADirectory),
                _ => done = next,
            }
        }
        Ok(if done.is_empty() { "/".to_owned() } else { done })
    }

    /// The entry at a path, links followed.
    pub(super) fn get(&self, path: &str) -> Result<&Node, FsError> {
        self.nodes.get(&self.resolve(path, true)?).ok_or(FsError::NotFound)
    }

    /// The entry itself, even if it is a link.
    pub(super) fn get_no_follow(&self, path: &str) -> Result<&Node, FsError> {
        self.nodes.get(&self.resolve(path, false)?).ok_or(FsError::NotFound)
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Result<&mut Node, FsError> {
        let path = self.resolve(path, true)?;
        self.nodes.get_mut(&path).ok_or(FsError::NotFound)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.get(path).is_ok()
    }

    pub(super) fn is_dir(&self, path: &str) -> bool {
        self.get(path).is_ok_and(|node| node.kind == Kind::Dir)
    }

    /// A file's content; `Err(NotKept)` never: see [`FileTree::bytes`].
    pub(super) fn content(&self, path: &str) -> Result<Content, FsError> {
        match &self.get(path)?.kind {
            Kind::File(content) => Ok(content.clone()),
            Kind::Null => Ok(Content::Bytes(Bytes::new())),
            Kind::Dir => Err(FsError::IsADirectory),
            Kind::Link(_) => Err(FsError::NotFound),
        }
    }

    pub(super) fn bytes(&self, path: &str) -> Result<Bytes, FsError> {
        match self.content(path)? {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Digest { .. } => Err(FsError::NotKept),
        }
    }

    /// A file as text; empty if it is missing or no UTF-8.
    pub(super) fn text(&self, path: &str) -> String {
        self.bytes(path)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
            .unwrap_or_default()
    }

    /// Writes a file; keeps mode and owner of one that exists.
    pub(super) fn write(&mut self, path: &str, content: Content, mode: u32, owner: &str) -> Result<(), FsError> {
        let path = self.resolve(path, true)?;
        if !self.is_dir(parent(&path)) {
            return Err(if self.exists(parent(&path)) {
                FsError::NotADirectory
            } else {
                FsError::NotFound
            });
        }
        match self.nodes.get_mut(&path).map(|node| &mut node.kind) {
            Some(Kind::Dir) => return Err(FsError::IsADirectory),
            Some(Kind::Null) => {}
            Some(kind) => *kind = Kind::File(content),
            None => {
                self.insert(path, Kind::File(content), mode, owner);
            }
        }
        Ok(())
    }

    /// Puts a file with its directories, for systems in the making.
    pub(super) fn put(&mut self, path: &str, text: impl Into<Bytes>, mode: u32) {
        self.make_dirs(parent(path), 0o755, "root");
        self.insert(path.to_owned(), Kind::File(Content::Bytes(text.into())), mode, "root");
    }

    pub(super) fn insert(&mut self, path: String, kind: Kind, mode: u32, owner: &str) {
        self.nodes.insert(
            path,
            Node {
                kind,
                mode,
                owner: owner.to_owned(),
                group: owner.to_owned(),
            },
        );
    }

    /// Makes a directory and all that it lies in. A path that runs through a file stays unmade.
    pub(super) fn make_dirs(&mut self, path: &str, mode: u32, owner: &str) {
        let mut at = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            if let Ok(resolved) = self.resolve(&at, true) {
                at = resolved;
            }
            if !self.nodes.contains_key(&at) {
                self.insert(at.clone(), Kind::Dir, mode, owner);
            }
        }
        if !self.nodes.contains_key("/") {
            self.insert("/".to_owned(), Kind::Dir, 0o755, "root");
        }
    }

    pub(super) fn make_dir(&mut self, path: &str, mode: u32, owner: &str) -> Result<(), FsError> {
        let path = self.resolve(path, true)?;
        if self.nodes.contains_key(&path) {
            return Err(FsError::Exists);
        }
        if !self.is_dir(parent(&path)) {
            return Err(FsError::NotFound);
        }
        self.insert(path, Kind::Dir, mode, owner);
        Ok(())
    }

    /// Names in a directory.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let path = self.resolve(path, true)?;
        match self.nodes.get(&path).map(|node| &node.kind) {
            None => return Err(FsError::NotFound),
            Some(Kind::Dir) => {}
            Some(_) => return Err(FsError::NotADirectory),
        }
        Ok(self.children(&path).map(|name| base_name(name).to_owned()).collect())
    }

    fn children<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = &'a String> {
        self.nodes
            .keys()
            .filter(move |path| path.as_str() != "/" && parent(path) == dir)
    }

    /// Everything at and below a path.
    pub(super) fn below(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        self.nodes
            .keys()
            .filter(|key| *key == path || key.starts_with(&prefix))
            .cloned()
            .collect()
    }

    /// Removes one entry; a directory only if `recursive`.
    pub(super) fn remove(&mut self, path: &str, recursive: bool) -> Result<(), FsError> {
        let path = self.resolve(path, false)?;
        let node = self.nodes.get(&path).ok_or(FsError::NotFound)?;
        if node.kind == Kind::Dir {
            if !recursive {
                return Err(FsError::IsADirectory);
            }
            for inner in self.below(&path) {
                self.nodes.remove(&inner);
            }
        }
        self.nodes.remove(&path);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &str) -> Result<(), FsError> {
        let path = self.resolve(path, false)?;
        match self.nodes.get(&path).map(|node| &node.kind) {
            None => Err(FsError::NotFound),
            Some(Kind::Dir) if self.children(&path).next().is_some() => Err(FsError::NotEmpty),
            Some(Kind::Dir) => {
                self.nodes.remove(&path);
                Ok(())
            }
            Some(_) => Err(FsError::NotADirectory),
        }
    }

    /// Renames or copies with everything below; the target's parent must exist.
    pub(super) fn transfer(&mut self, from: &str, to: &str, keep: bool) -> Result<(), FsError> {
        let from = self.resolve(from, false)?;
        let to = self.resolve(to, true)?;
        if !self.nodes.contains_key(&from) {
            return Err(FsError::NotFound);
        }
        if !self.is_dir(parent(&to)) {
            return Err(FsError::NotFound);
        }
        if from == to {
            return Ok(());
        }
        if to.starts_with(&format!("{from}/")) {
            return Err(FsError::NotADirectory);
        }
        if matches!(self.nodes.get(&to).map(|node| &node.kind), Some(Kind::Null)) {
            return Ok(());
        }
        for path in self.below(&from) {
            let target = format!("{to}{}", &path[from.len()..]);
            let node = if keep {
                self.nodes.get(&path).cloned()
            } else {
                self.nodes.remove(&path)
            };
            if let Some(node) = node {
                self.nodes.insert(target, node);
            }
        }
        Ok(())
    }

    pub(super) fn link(&mut self, target: &str, path: &str, force: bool) -> Result<(), FsError> {
        let path = self.resolve(path, false)?;
        if self.nodes.contains_key(&path) && !force {
            return Err(FsError::Exists);
        }
        if !self.is_dir(parent(&path)) {
            return Err(FsError::NotFound);
        }
        self.insert(path, Kind::Link(target.to_owned()), 0o777, "root");
        Ok(())
    }

    /// Paths that a shell pattern (`*`, `?`, `[...]`) matches, sorted.
    pub(super) fn glob(&self, pattern: &str) -> Vec<String> {
        let wanted: Vec<&str> = pattern.split('/').collect();
        self.nodes
            .keys()
            .filter(|path| {
                let parts: Vec<&str> = path.split('/').collect();
                parts.len() == wanted.len() && parts.iter().zip(&wanted).all(|(name, glob)| matches_glob(glob, name))
            })
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> FileTree {
        let mut tree = FileTree::default();
        tree.make_dirs("/usr/bin", 0o755, "root");
        tree.insert("/bin".into(), Kind::Link("usr/bin".into()), 0o777, "root");
        tree.put("/usr/bin/sh", "x", 0o755);
        tree.put("/etc/a.conf", "a", 0o644);
        tree.put("/etc/.hidden", "h", 0o644);
        tree
    }

    #[test]
    fn links_are_followed() {
        let mut tree = tree();
        assert_eq!(tree.text("/bin/sh"), "x");
        tree.link("/loop", "/loop", false).unwrap();
        assert_eq!(tree.get("/loop"), Err(FsError::Loop));
        assert_eq!(tree.resolve("/etc/a.conf/x", true), Err(FsError::NotADirectory));
        assert_eq!(tree.resolve("/../etc/./a.conf", true), Ok("/etc/a.conf".into()));
    }

    #[test]
    fn writes_need_a_directory() {
        let mut tree = tree();
        let text = || Content::Bytes(Bytes::from_static(b"t"));
        assert_eq!(tree.write("/nodir/a", text(), 0o644, "root"), Err(FsError::NotFound));
        assert_eq!(tree.write("/etc", text(), 0o644, "root"), Err(FsError::IsADirectory));
        tree.write("/etc/a.conf", text(), 0o600, "other").unwrap();
        assert_eq!(
            (tree.get("/etc/a.conf").unwrap().mode, tree.text("/etc/a.conf").as_str()),
            (0o644, "t")
        );
    }

    #[test]
    fn moves_and_removes() {
        let mut tree = tree();
        assert_eq!(tree.remove("/etc", false), Err(FsError::IsADirectory));
        assert_eq!(tree.remove_dir("/etc"), Err(FsError::NotEmpty));
        tree.transfer("/etc", "/old", false).unwrap();
        assert_eq!(tree.text("/old/a.conf"), "a");
        assert_eq!(tree.transfer("/old", "/old/inner", true), Err(FsError::NotADirectory));
        tree.remove("/old", true).unwrap();
        assert!(!tree.exists("/old/a.conf"));
        // A removed link leaves its target.
        tree.remove("/bin", true).unwrap();
        assert!(tree.exists("/usr/bin/sh"));
    }

    #[test]
    fn globs() {
        let tree = tree();
        assert_eq!(tree.glob("/etc/*"), ["/etc/a.conf"]);
        assert_eq!(tree.glob("/etc/.h*"), ["/etc/.hidden"]);
        assert_eq!(tree.glob("/*/bin"), ["/usr/bin"]);
    }

    #[test]
    fn contents_survive_json() {
        for content in [
            Content::Bytes("text\n".into()),
            Content::Bytes(vec![0xff, 0, 1].into()),
            Content::Digest {
                size: 5,
                sha256: "ab".into(),
            },
        ] {
            let json = serde_json::to_string(&content).unwrap();
            assert_eq!(serde_json::from_str::<Content>(&json).unwrap(), content);
        }
    }
}
