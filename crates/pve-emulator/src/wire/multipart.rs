//! Uploads: a streaming multipart reader with PVE's habits.
//!
//! PVE reads the fields in a fixed order, takes everything after the file's header up to the very last boundary as
//! the file, and so appends later fields to it (`FACTS` 54, 55). Memory stays flat: bytes go from the socket to the
//! file as they come.

use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::{Failure, Params, Shape};

/// Headers of a part are a few hundred bytes; more than this is not a part.
const MAX_HEAD: usize = 32 * 1024;

/// Plain fields in the only order that PVE reads them in, each once (`FACTS` 54).
const FIELDS: [&str; 3] = ["content", "checksum-algorithm", "checksum"];

/// Bytes are gathered to this size before they go to the file: each write is a trip to another thread.
const WRITE_SIZE: usize = 1024 * 1024;

/// A received file and the fields before it.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) params: Params,
    /// The name as the client sent it.
    pub(crate) filename: String,
    /// Where the bytes are.
    pub(crate) file: TemporaryFile,
    /// How many.
    pub(crate) size_bytes: u64,
}

/// A file on its way that goes away unless it has been moved.
#[derive(Debug)]
pub(crate) struct TemporaryFile(PathBuf);

impl TemporaryFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %self.0.display(), "temporary file left behind");
            }
            _ => {}
        }
    }
}

/// Why an upload was not received.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// PVE answers so.
    Refused(Failure),
    /// The client went away or the disk failed: nobody to answer.
    Broken(std::io::Error),
}

impl From<std::io::Error> for UploadError {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Reads a whole upload from `body` into a file at `file`.
///
/// The file is removed again when the upload fails, and when nobody wants what was received.
pub(crate) async fn receive<S>(body: S, boundary: &str, file: &Path) -> Result<Upload, UploadError>
where
    S: Stream<Item = std::io::Result<Bytes>> + Unpin,
{
    let mut reader = Reader {
        body,
        buffer: BytesMut::new(),
    };
    reader.receive(boundary, TemporaryFile::new(file.to_owned())).await
}

struct Reader<S> {
    body: S,
    buffer: BytesMut,
}

impl<S> Reader<S>
where
    S: Stream<Item = std::io::Result<Bytes>> + Unpin,
{
    async fn fill(&mut self) -> Result<bool, UploadError> {
        if let Some(chunk) = self.body.next().await {
            self.buffer.extend_from_slice(&chunk?);
            return Ok(true);
        }
        Ok(false)
    }

    /// Reads until `needle` is in the buffer and returns its place.
    async fn find(&mut self, needle: &[u8]) -> Result<usize, UploadError> {
        let mut from = 0;
        loop {
            // What is too far is refused however the bytes were cut on their way.
            if let Some(at) = find(&self.buffer[from..], needle) {
                let at = from + at;
                return if at > MAX_HEAD { Err(bad_request()) } else { Ok(at) };
            }
            from = self.buffer.len().saturating_sub(needle.len());
            if self.buffer.len() > MAX_HEAD + needle.len() || !self.fill().await? {
                return Err(bad_request());
            }
        }
    }

    async fn receive(&mut self, boundary: &str, file: TemporaryFile) -> Result<Upload, UploadError> {
        let delimiter = format!("--{boundary}");
        let mut params = Params::default();
        let mut next_field = 0;
        let mut passed_over = false;
        let start = self.find(delimiter.as_bytes()).await?;
        self.buffer.advance(start + delimiter.len());
        loop {
            while self.buffer.len() < 2 {
                if !self.fill().await? {
                    return Err(bad_request());
                }
            }
            if self.buffer.starts_with(b"--") {
                return Err(UploadError::Refused(perl(1370, "upload failed")));
            }
            let end = self.find(b"\r\n\r\n").await?;
            let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.advance(end + 4);
            let Some(name) = attribute(&head, "name") else {
                return Err(bad_request());
            };
            if let Some(filename) = attribute(&head, "filename").filter(|filename| !filename.is_empty()) {
                if passed_over {
                    return Err(bad_request());
                }
                if name != "filename" {
                    return Err(UploadError::Refused(perl(
                        1325,
                        &format!("wrong field name '{name}' for file upload, expected 'filename'"),
                    )));
                }
                let size_bytes = self.store(&delimiter, file.path()).await?;
                return Ok(Upload {
                    params,
                    filename,
                    file,
                    size_bytes,
                });
            }
            let end = self.find(format!("\r\n{delimiter}").as_bytes()).await?;
            let value = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            self.buffer.advance(end + 2 + delimiter.len());
            match FIELDS
                .iter()
                .position(|field| *field == name)
                .filter(|place| *place >= next_field)
            {
                Some(place) => {
                    next_field = place + 1;
                    params.set(&name, value);
                }
                // PVE passes over what it does not expect, and then takes no file behind it (recorded in traces/upload).
                None => passed_over = true,
            }
        }
    }

    /// Streams the rest of the body into `file`, without the closing boundary.
    async fn store(&mut self, delimiter: &str, file: &Path) -> Result<u64, UploadError> {
        let tail = format!("\r\n{delimiter}--");
        // The closing boundary is the last thing in the body, perhaps followed by a line end.
        let keep = tail.len() + 2;
        let mut out = File::create(file).await?;
        let mut size = 0;
        loop {
            if self.buffer.len() >= WRITE_SIZE + keep {
                let mut ready = self.buffer.split_to(self.buffer.len() - keep);
                size += ready.len() as u64;
                out.write_all_buf(&mut ready).await?;
            }
            if !self.fill().await? {
                break;
            }
        }
        let last = self.buffer.len().saturating_sub(keep);
        let end = find(&self.buffer[last..], tail.as_bytes()).map(|at| last + at);
        let Some(end) = end else {
            return Err(UploadError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
        };
        size += end as u64;
        out.write_all(&self.buffer[..end]).await?;
        out.flush().await?;
        Ok(size)
    }
}

fn bad_request() -> UploadError {
    UploadError::Refused(Failure::new(400, "Bad Request").with_shape(Shape::Empty))
}

fn perl(line: u32, what: &str) -> Failure {
    Failure::die(format!(
        "{what} at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line {line}."
    ))
    .with_shape(Shape::Text)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// A quoted attribute of the `Content-Disposition` line.
fn attribute(head: &str, name: &str) -> Option<String> {
    let line = head
        .lines()
        .find(|l| l.to_ascii_lowercase().starts_with("content-disposition:"))?;
    let start = line.find(&format!(" {name}=\""))? + name.len() + 3;
    let end = line[start..].find('"')? + start;
    Some(line[start..end].to_owned())
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn part(name: &str, filename: Option<&str>, value: &str) -> String {
        let file = filename.map(|f| format!("; filename=\"{f}\"")).unwrap_or_default();
        format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
    }

    async fn run(body: &str, chunk: usize) -> Result<(Upload, Vec<u8>), UploadError> {
        let dir = tempfile::tempdir().unwrap();
        let chunks: Vec<_> = body
            .as_bytes()
            .chunks(chunk)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect();
        let file = dir.path().join("up");
        let upload = receive(stream::iter(chunks), "B", &file).await;
        if upload.is_err() {
            assert!(!file.exists(), "a failed upload leaves nothing");
        }
        let upload = upload?;
        let bytes = std::fs::read(upload.file.path()).unwrap();
        Ok((upload, bytes))
    }

    #[tokio::test]
    async fn a_file_survives_any_cut() {
        let body = format!(
            "{}{}--B--\r\n",
            part("content", None, "iso"),
            part("filename", Some("a.iso"), "x\r\n--Bx")
        );
        for chunk in [1, 2, 3, 7, 1000] {
            let (upload, bytes) = run(&body, chunk).await.unwrap();
            assert_eq!(bytes, b"x\r\n--Bx", "chunk {chunk}");
            assert_eq!(upload.size_bytes, 7);
            assert_eq!(upload.params.text("content").as_deref(), Some("iso"));
            assert_eq!(upload.filename, "a.iso");
        }
    }

    #[tokio::test]
    async fn wrong_orders_are_refused_as_pve_does() {
        let cases = [
            (format!("{}--B--\r\n", part("content", None, "iso")), 500),
            (
                format!(
                    "{}{}--B--\r\n",
                    part("colour", None, "x"),
                    part("filename", Some("a.iso"), "x")
                ),
                400,
            ),
            (
                format!(
                    "{}{}{}--B--\r\n",
                    part("checksum", None, "x"),
                    part("checksum-algorithm", None, "md5"),
                    part("filename", Some("a.iso"), "x")
                ),
                400,
            ),
            (format!("{}--B--\r\n", part("file", Some("a.iso"), "x")), 500),
            (format!("{}--B--\r\n", part("filename", None, "a.iso")), 500),
            (format!("{}--B--\r\n", part("filename", Some(""), "x")), 500),
            (
                format!(
                    "{0}{0}{1}--B--\r\n",
                    part("content", None, "iso"),
                    part("filename", Some("a.iso"), "x")
                ),
                400,
            ),
            (
                format!(
                    "{}{}{}--B--\r\n",
                    part("content", None, "iso"),
                    part("tmpfilename", None, "x"),
                    part("filename", Some("a.iso"), "x")
                ),
                400,
            ),
            ("no multipart at all".to_owned(), 400),
        ];
        for (body, status) in cases {
            match run(&body, 10).await {
                Err(UploadError::Refused(failure)) => assert_eq!(failure.status, status, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_cut_off_upload_is_broken() {
        let body = part("filename", Some("a.iso"), "half of the");
        assert!(matches!(run(&body, 10).await, Err(UploadError::Broken(_))));
    }
}
