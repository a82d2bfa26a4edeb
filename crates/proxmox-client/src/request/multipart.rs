//! The body of an upload: what stands before and after the file's bytes.

use http::HeaderValue;

use super::storage::Checksum;
use crate::types::content::Content;

/// The frame around a file in `multipart/form-data`.
///
/// PVE reads the parts strictly in the order content, checksum-algorithm, checksum, filename, and appends whatever follows the
/// file to the file (`FACTS` 54, 55): nothing may come after it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    boundary: String,
    pub(crate) head: String,
    pub(crate) tail: String,
}

impl Frame {
    /// `boundary` must not occur in the file; 32 random characters do not.
    pub(crate) fn new(boundary: &str, content: &Content, checksum: Option<&Checksum>, file_name: &str) -> Self {
        let field = |name: &str, value: &str| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let mut head = field("content", content.as_str());
        if let Some(checksum) = checksum {
            head += &field("checksum-algorithm", checksum.algorithm());
            head += &field("checksum", checksum.hex());
        }
        // The name was checked to hold neither quotes nor line breaks, so it needs no escaping.
        let file = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"{file_name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        head += &file;
        Self {
            boundary: boundary.to_owned(),
            head,
            tail: format!("\r\n--{boundary}--\r\n"),
        }
    }

    /// The body's length for a file of so many bytes; chunked bodies are 501 (`FACTS` 17).
    pub(crate) fn content_length(&self, file_bytes: u64) -> u64 {
        file_bytes + (self.head.len() + self.tail.len()) as u64
    }

    /// # Panics
    /// Never: boundaries are letters and digits.
    pub(crate) fn content_type(&self) -> HeaderValue {
        HeaderValue::from_str(&format!("multipart/form-data; boundary={}", self.boundary))
            .expect("a boundary of letters and digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_one_that_pve_reads() {
        let checksum = Checksum::sha256(&"ab".repeat(32)).expect("a digest");
        let frame = Frame::new("bnd", &Content::Iso, Some(&checksum), "a.iso");
        let want = format!(
            "--bnd\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\niso\r\n\
             --bnd\r\nContent-Disposition: form-data; name=\"checksum-algorithm\"\r\n\r\nsha256\r\n\
             --bnd\r\nContent-Disposition: form-data; name=\"checksum\"\r\n\r\n{}\r\n\
             --bnd\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"a.iso\"\r\nContent-Type: application/octet-stream\r\n\r\n",
            "ab".repeat(32)
        );
        assert_eq!(frame.head, want);
        assert_eq!(frame.tail, "\r\n--bnd--\r\n");
        assert_eq!(frame.content_length(10), (want.len() + 11 + 10) as u64);
        assert_eq!(frame.content_type(), "multipart/form-data; boundary=bnd");
        let plain = Frame::new("bnd", &Content::Iso, None, "a.iso");
        assert!(!plain.head.contains("checksum"));
    }
}
