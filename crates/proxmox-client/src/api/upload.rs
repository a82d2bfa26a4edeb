//! `Upload`: a file on its way to a storage.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::{
    client::Client,
    error::Error,
    request::{
        Request,
        multipart::Frame,
        path,
        storage::{Checksum, check_file_name, check_uploadable},
    },
    transport::{connection::OutgoingBody, reply},
    types::{
        content::Content,
        name::{NodeName, StorageId},
        upid::Upid,
    },
};

/// Bytes read from the file at a time: large enough that system calls do not count, small enough to be nothing.
const CHUNK_BYTES: usize = 256 * 1024;

/// Buffers of one upload: one that is read into, one that is sent, and two between them.
const BUFFERS: usize = 4;

/// How long nothing may move before an upload is given up. The node may write 4 GiB from its buffer to a slow disk before it
/// answers, so this is long.
const STALL: Duration = Duration::from_secs(120);

type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A file to upload. By default its SHA-256 is computed first and checked by PVE after.
#[derive(Clone)]
pub struct Upload {
    content: Content,
    file_name: String,
    source: Source,
    checksum: ChecksumMode,
    progress: Option<Progress>,
}

#[derive(Clone)]
enum Source {
    File(PathBuf),
    Bytes(Bytes),
}

#[derive(Clone, Debug)]
enum ChecksumMode {
    Compute,
    Given(Checksum),
    None,
}

impl Upload {
    /// An ISO from a file, to be called as the file is; [`Upload::file`] is for another name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the file's name is not one for an ISO on a storage.
    pub fn iso_file(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        Self::new(Content::Iso, name, Source::File(path))
    }

    /// An ISO from memory.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name is not one for an ISO on a storage.
    pub fn iso_bytes(file_name: impl Into<String>, bytes: impl Into<Bytes>) -> Result<Self, Error> {
        Self::new(Content::Iso, file_name.into(), Source::Bytes(bytes.into()))
    }

    /// Any content that PVE lets be uploaded (ISO, container template, disk image), from a file, under a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when content or name cannot be.
    pub fn file(content: Content, file_name: impl Into<String>, path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::new(content, file_name.into(), Source::File(path.into()))
    }

    fn new(content: Content, file_name: String, source: Source) -> Result<Self, Error> {
        check_uploadable(&content)?;
        check_file_name(&content, &file_name)?;
        Ok(Self {
            content,
            file_name,
            source,
            checksum: ChecksumMode::Compute,
            progress: None,
        })
    }

    /// Checks against this digest; none is computed.
    #[must_use]
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = ChecksumMode::Given(checksum);
        self
    }

    /// Leaves the check out, which saves reading the file twice here and once there.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.checksum = ChecksumMode::None;
        self
    }

    /// Is told the bytes sent so far and the bytes in all, for each part that leaves. It must not block.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Its name on the storage.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    async fn checksum_of(&self) -> Result<Option<Checksum>, Error> {
        match &self.checksum {
            ChecksumMode::None => Ok(None),
            ChecksumMode::Given(checksum) => Ok(Some(checksum.clone())),
            ChecksumMode::Compute => {
                let digest = match &self.source {
                    Source::Bytes(bytes) => Sha256::digest(bytes).into(),
                    Source::File(path) => sha256_of_file(path).await?,
                };
                Checksum::sha256(&hex::encode::<[u8; 32]>(digest)).map(Some)
            }
        }
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            content,
            file_name,
            source,
            checksum,
            progress,
        } = self;
        let source = match source {
            Source::File(path) => path.display().to_string(),
            Source::Bytes(bytes) => format!("{} bytes", bytes.len()),
        };
        f.debug_struct("Upload")
            .field("content", content)
            .field("file_name", file_name)
            .field("source", &source)
            .field("checksum", checksum)
            .field("progress", &progress.is_some())
            .finish()
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::File {
        action: "read",
        path,
        source,
    }
}

/// Hashes off the runtime's threads: hashing 4 GiB keeps a core busy for seconds.
async fn sha256_of_file(path: &Path) -> Result<[u8; 32], Error> {
    let owned = path.to_owned();
    let hash = move || -> io::Result<[u8; 32]> {
        let mut file = File::open(owned)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finalize().into()),
                read => hasher.update(&buffer[..read]),
            }
        }
    };
    match tokio::task::spawn_blocking(hash).await {
        Ok(hashed) => hashed.map_err(unreadable(path)),
        Err(panicked) => Err(unreadable(path)(io::Error::other(panicked))),
    }
}

type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Opens the source: its length and its bytes.
async fn open(source: &Source) -> Result<(u64, ByteStream), Error> {
    match source {
        Source::Bytes(bytes) => {
            let bytes = bytes.clone();
            let length = bytes.len() as u64;
            let parts = std::iter::successors(Some(bytes), |rest| {
                (rest.len() > CHUNK_BYTES).then(|| rest.slice(CHUNK_BYTES..))
            });
            let parts = parts.map(|rest| Ok(rest.slice(..rest.len().min(CHUNK_BYTES))));
            Ok((length, Box::pin(stream::iter(parts))))
        }
        Source::File(path) => {
            let owned = path.clone();
            let opened = move || {
                let file = File::open(owned)?;
                let meta = file.metadata()?;
                if meta.is_file() {
                    Ok((file, meta.len()))
                } else {
                    Err(io::Error::other("it is not a regular file"))
                }
            };
            let opened = tokio::task::spawn_blocking(opened).await;
            let opened = opened.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
            let (file, length) = opened.map_err(unreadable(path))?;
            // Never more than was promised, should the file grow meanwhile; a shorter one is caught by the counter.
            Ok((length, Box::pin(read_ahead(file.take(length)))))
        }
    }
}

/// Reads on a thread of its own into a few buffers that come back to it, so that a large file costs neither a copy nor an
/// allocation a part. The thread ends with the file, at an error, or when the stream is dropped.
fn read_ahead(mut file: impl Read + Send + 'static) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (parts, receiver) = mpsc::channel(BUFFERS);
    let (home, returned) = std::sync::mpsc::channel();
    for _ in 0..BUFFERS {
        // The other end is here.
        let _ = home.send(vec![0; CHUNK_BYTES]);
    }
    let read = move || {
        while let Ok(mut bytes) = returned.recv() {
            let part = match file.read(&mut bytes) {
                Ok(0) => return,
                Ok(filled) => {
                    let home = home.clone();
                    Ok(Bytes::from_owner(Lent { bytes, filled, home }))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    let _ = home.send(bytes);
                    continue;
                }
                Err(error) => Err(error),
            };
            let failed = part.is_err();
            // Nobody waits for it any more, or there is no more to come.
            if parts.blocking_send(part).is_err() || failed {
                return;
            }
        }
    };
    // Its end is the channel's: nobody needs the handle.
    drop(tokio::task::spawn_blocking(read));
    stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|part| (part, receiver))
    })
}

/// A buffer that goes back to the reader when the last part of it has been sent.
struct Lent {
    bytes: Vec<u8>,
    filled: usize,
    home: std::sync::mpsc::Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The reader may have ended before.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// What stands around the file, without the file: for tests and for [`send`].
pub(crate) fn request(node: &NodeName, storage: &StorageId) -> Request {
    Request::post(path::storage(node, storage, &["upload"]))
}

pub(crate) async fn send(
    client: &Client,
    node: &NodeName,
    storage: &StorageId,
    upload: &Upload,
) -> Result<Upid, Error> {
    let checksum = upload.checksum_of().await?;
    let (file_bytes, bytes) = open(&upload.source).await?;
    let frame = Frame::new(&boundary(), &upload.content, checksum.as_ref(), &upload.file_name);
    let sent = Arc::new(AtomicU64::new(0));
    let counted = counted(bytes, file_bytes, Arc::clone(&sent), upload.progress.clone());
    let (head, tail) = (Bytes::from(frame.head.clone()), Bytes::from(frame.tail.clone()));
    let whole = stream::iter([Ok(head)]).chain(counted).chain(stream::iter([Ok(tail)]));
    let body = OutgoingBody {
        content_type: frame.content_type(),
        length: frame.content_length(file_bytes),
        body: reqwest::Body::wrap_stream(whole),
    };
    let request = request(node, storage);
    let exchange = client.connection().send_body(&request, body);
    tokio::pin!(exchange);
    let mut last = (sent.load(Ordering::Relaxed), tokio::time::Instant::now());
    loop {
        tokio::select! {
            answer = &mut exchange => return reply::typed(&request.method, &request.path, answer?.data),
            () = tokio::time::sleep_until(last.1 + STALL) => {
                let now = sent.load(Ordering::Relaxed);
                if now == last.0 {
                    let what = format!("upload of {} ({now} of {file_bytes} bytes sent)", upload.file_name);
                    return Err(Error::Timeout { what, after: STALL });
                }
                last = (now, tokio::time::Instant::now());
            }
        }
    }
}

/// Counts and reports what passes, and turns a file that has become shorter into an error.
fn counted(
    bytes: ByteStream,
    total: u64,
    sent: Arc<AtomicU64>,
    progress: Option<Progress>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let seen = Arc::clone(&sent);
    let checked_end = stream::once(async move {
        let short = seen.load(Ordering::Relaxed) < total;
        short.then(|| {
            Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was sent",
            ))
        })
    });
    let counted = bytes.map(move |part| {
        let part = part?;
        let now = sent.fetch_add(part.len() as u64, Ordering::Relaxed) + part.len() as u64;
        if let Some(progress) = &progress {
            progress(now, total);
        }
        Ok(part)
    });
    counted.chain(checked_end.filter_map(std::future::ready))
}

/// Letters and digits that do not occur in the file: 128 bits of the hasher keys that the standard library draws at random.
fn boundary() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!(
        "k3simage{:016x}{:016x}",
        RandomState::new().hash_one(0),
        RandomState::new().hash_one(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collect(source: Source) -> Vec<u8> {
        let (length, bytes) = open(&source).await.expect("opens");
        let parts: Vec<io::Result<Bytes>> = bytes.collect().await;
        let all: Vec<u8> = parts.into_iter().flat_map(|part| part.expect("reads")).collect();
        assert_eq!(all.len() as u64, length);
        all
    }

    #[tokio::test]
    async fn both_sources_give_their_bytes_in_order() {
        let want: Vec<u8> = (0..CHUNK_BYTES * 2 + 7)
            .map(|index| u8::try_from(index % 251).expect("small"))
            .collect();
        assert_eq!(collect(Source::Bytes(want.clone().into())).await, want);
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &want).expect("written");
        assert_eq!(collect(Source::File(file.path().to_owned())).await, want);
        assert!(collect(Source::Bytes(Bytes::new())).await.is_empty());
        let digest: [u8; 32] = Sha256::digest(&want).into();
        assert_eq!(sha256_of_file(file.path()).await.expect("hashed"), digest);
    }

    #[tokio::test]
    async fn a_shrunk_file_is_an_error() {
        let bytes: ByteStream = Box::pin(stream::iter([Ok(Bytes::from_static(b"abc"))]));
        let parts: Vec<io::Result<Bytes>> = counted(bytes, 5, Arc::default(), None).collect().await;
        assert_eq!(parts.len(), 2);
        assert_eq!(
            parts[1].as_ref().expect_err("too short").kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn names_and_contents_are_checked() {
        assert!(Upload::iso_file("/tmp/alma.iso").is_ok());
        for bad in ["/tmp/alma.qcow2", "/", "/tmp/a b.iso"] {
            assert!(Upload::iso_file(bad).is_err(), "{bad:?}");
        }
        assert!(Upload::iso_bytes("x.iso", Bytes::new()).is_ok());
        assert!(Upload::file(Content::Images, "x.raw", "/tmp/x").is_err());
        assert_ne!(boundary(), boundary());
    }
}
