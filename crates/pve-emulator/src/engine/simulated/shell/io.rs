//! Where a command's bytes come from and go to.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::engine::simulated::files::{Content, FsError};
use crate::engine::simulated::host::{Host, lock};

/// Which of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::simulated) enum Stream {
    Out,
    Err,
}

/// A command's standard input.
#[derive(Clone, Debug)]
pub(in crate::engine::simulated) enum Input {
    /// All there is, from the start. Shared, so that a `read` in a loop goes on where it stopped.
    Bytes(Arc<Mutex<Bytes>>),
    /// A stream from outside, with what was read too far.
    Stream(Arc<tokio::sync::Mutex<Incoming>>),
}

/// The stream of a session's standard input.
#[derive(Debug)]
pub(in crate::engine::simulated) struct Incoming {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Input {
    pub(in crate::engine::simulated) fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    pub(in crate::engine::simulated) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(Arc::new(Mutex::new(bytes.into())))
    }

    pub(in crate::engine::simulated) fn stream(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self::Stream(Arc::new(tokio::sync::Mutex::new(Incoming {
            receiver,
            rest: Bytes::new(),
        })))
    }

    /// The next bytes, empty at the end.
    pub(in crate::engine::simulated) async fn chunk(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => std::mem::take(&mut *lock(bytes)),
            Self::Stream(incoming) => {
                let mut incoming = incoming.lock().await;
                if incoming.rest.is_empty() {
                    incoming.receiver.recv().await.unwrap_or_default()
                } else {
                    std::mem::take(&mut incoming.rest)
                }
            }
        }
    }

    /// Gives bytes back that were read too far.
    pub(super) async fn unread(&self, bytes: Bytes) {
        match self {
            Self::Bytes(slot) => *lock(slot) = bytes,
            Self::Stream(incoming) => incoming.lock().await.rest = bytes,
        }
    }

    /// One line without its newline; `None` at the end.
    pub(super) async fn line(&self) -> Option<String> {
        let mut line = BytesMut::new();
        loop {
            let mut chunk = self.chunk().await;
            if chunk.is_empty() {
                return (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned());
            }
            if let Some(at) = chunk.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&chunk.split_to(at));
                self.unread(chunk.slice(1..)).await;
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            line.extend_from_slice(&chunk);
        }
    }

    /// Exactly so many bytes, fewer at the end.
    pub(super) async fn exactly(&self, count: usize) -> Bytes {
        let mut bytes = BytesMut::new();
        while bytes.len() < count {
            let mut chunk = self.chunk().await;
            if chunk.is_empty() {
                break;
            }
            let part = chunk.split_to(chunk.len().min(count - bytes.len()));
            bytes.extend_from_slice(&part);
            if !chunk.is_empty() {
                self.unread(chunk).await;
            }
        }
        bytes.freeze()
    }

    /// Everything up to the end, as far as a guest keeps bytes at all.
    pub(super) async fn all(&self, limit: u64) -> Result<Bytes, FsError> {
        let mut bytes = BytesMut::new();
        loop {
            let chunk = self.chunk().await;
            if chunk.is_empty() {
                return Ok(bytes.freeze());
            }
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(FsError::NotKept);
            }
            bytes.extend_from_slice(&chunk);
        }
    }
}

/// Where a command writes.
#[derive(Clone, Debug)]
pub(in crate::engine::simulated) enum Output {
    Null,
    Buffer(Arc<Mutex<Vec<u8>>>),
    File(Arc<Mutex<FileWriter>>),
    /// To whoever runs the command from outside.
    Channel(mpsc::UnboundedSender<(Stream, Bytes)>, Stream),
}

impl Output {
    pub(in crate::engine::simulated) fn buffer() -> (Self, Arc<Mutex<Vec<u8>>>) {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        (Self::Buffer(Arc::clone(&buffer)), buffer)
    }

    pub(in crate::engine::simulated) fn write(&self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Null => {}
            Self::Buffer(buffer) => lock(buffer).extend_from_slice(&bytes),
            Self::File(file) => lock(file).write(&bytes),
            // The reader may be gone; a program then gets SIGPIPE, which changes nothing here.
            Self::Channel(sender, stream) => drop(sender.send((*stream, bytes))),
        }
    }

    pub(super) fn line(&self, line: impl AsRef<str>) {
        self.write(format!("{}\n", line.as_ref()));
    }
}

/// The three streams of a command.
#[derive(Clone, Debug)]
pub(in crate::engine::simulated) struct Io {
    pub(in crate::engine::simulated) stdin: Input,
    pub(in crate::engine::simulated) stdout: Output,
    pub(in crate::engine::simulated) stderr: Output,
}

/// A file open for writing. Its bytes show in the tree when it is closed, also when its writer dies.
pub(in crate::engine::simulated) struct FileWriter {
    host: Arc<Host>,
    path: String,
    kept: Vec<u8>,
    /// Size and digest so far, once the bytes were too many to keep.
    digest: Option<(u64, Sha256)>,
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl FileWriter {
    /// Opens a file as `>` (or `>>`) does: it is there, and empty, at once.
    pub(in crate::engine::simulated) fn open(
        host: &Arc<Host>,
        path: &str,
        append: bool,
        user: &str,
    ) -> Result<Self, FsError> {
        let mut system = host.system();
        let kept = match system.files.content(path) {
            Ok(Content::Bytes(bytes)) if append => bytes.to_vec(),
            Ok(Content::Digest { .. }) if append => return Err(FsError::NotKept),
            _ => Vec::new(),
        };
        let content = Content::Bytes(kept.clone().into());
        system.files.write(path, content, 0o644, user)?;
        drop(system);
        Ok(Self {
            host: Arc::clone(host),
            path: path.to_owned(),
            kept,
            digest: None,
        })
    }

    pub(in crate::engine::simulated) fn write(&mut self, bytes: &[u8]) {
        if let Some((size, hash)) = &mut self.digest {
            *size += bytes.len() as u64;
            hash.update(bytes);
        } else if (self.kept.len() + bytes.len()) as u64 > self.host.keep_file_bytes {
            let mut hash = Sha256::new();
            hash.update(&self.kept);
            hash.update(bytes);
            self.digest = Some(((self.kept.len() + bytes.len()) as u64, hash));
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }

    /// Puts the bytes so far into the tree.
    pub(in crate::engine::simulated) fn flush(&mut self) {
        let content = match &self.digest {
            Some((size, hash)) => Content::Digest {
                size: *size,
                sha256: hex::encode(hash.clone().finalize()),
            },
            None => Content::Bytes(self.kept.clone().into()),
        };
        self.commit(content);
    }

    fn commit(&self, content: Content) {
        // The file may have been removed under its writer, as on any Unix; then its bytes are nobody's.
        let mut system = self.host.system();
        if let Ok(node) = system.files.get_mut(&self.path)
            && let super::super::files::Kind::File(old) = &mut node.kind
        {
            *old = content;
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        let content = match self.digest.take() {
            Some((size, hash)) => Content::Digest {
                size,
                sha256: hex::encode(hash.finalize()),
            },
            None => Content::Bytes(std::mem::take(&mut self.kept).into()),
        };
        self.commit(content);
    }
}
