//! `/nodes/{node}/storage/{storage}`.

use std::time::Duration;

use super::{Request, path};
use crate::{
    error::Error,
    types::{
        content::Content,
        name::{NodeName, StorageId},
        volid::VolId,
    },
};

/// A digest that PVE checks a file against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    algorithm: &'static str,
    hex: String,
}

impl Checksum {
    /// A SHA-256 digest in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not 64 hexadecimal digits.
    pub fn sha256(hex: &str) -> Result<Self, Error> {
        Self::new("sha256", hex)
    }

    /// Reads `sha256:HEX`, `sha512:HEX`, `md5:HEX` and the like, as Packer writes them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown algorithm or a digest of the wrong length.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (algorithm, hex) = text
            .split_once(':')
            .ok_or_else(|| Error::invalid("checksum", format!("{text:?} must have the form sha256:HEX")))?;
        Self::new(algorithm, hex)
    }

    fn new(algorithm: &str, hex: &str) -> Result<Self, Error> {
        let known = [
            ("md5", 32),
            ("sha1", 40),
            ("sha224", 56),
            ("sha256", 64),
            ("sha384", 96),
            ("sha512", 128),
        ];
        let Some((algorithm, digits)) = known.into_iter().find(|(name, _)| *name == algorithm) else {
            return Err(Error::invalid(
                "checksum",
                format!("{algorithm:?} is unknown: md5, sha1, sha224, sha256, sha384 or sha512"),
            ));
        };
        if hex.len() != digits || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::invalid(
                "checksum",
                format!("{hex:?} is not a {algorithm} digest: {digits} hexadecimal digits are needed"),
            ));
        }
        Ok(Self {
            algorithm,
            hex: hex.to_ascii_lowercase(),
        })
    }

    /// The algorithm's name, for example `sha256`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The digest in lower-case hexadecimal.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

/// A file that the node fetches by itself.
///
/// Needs `Datastore.AllocateTemplate` and, on `/`, `Sys.Audit` and `Sys.Modify`, or `Sys.AccessNetwork` on the node. PVE refuses to
/// overwrite a file of the same name unless its checksum already fits (`FACTS` 56).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadUrl {
    url: String,
    file_name: String,
    content: Content,
    checksum: Option<Checksum>,
    verify_certificates: bool,
}

impl DownloadUrl {
    /// Fetches an ISO from `url` and keeps it as `file_name`.
    pub fn iso(url: impl Into<String>, file_name: impl Into<String>) -> Self {
        Self::new(Content::Iso, url, file_name)
    }

    /// Fetches any content that PVE lets be downloaded.
    pub fn new(content: Content, url: impl Into<String>, file_name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            file_name: file_name.into(),
            content,
            checksum: None,
            verify_certificates: true,
        }
    }

    /// The digest that PVE checks it against.
    #[must_use]
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Lets the node accept any certificate of the file's server. Give a checksum then.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.verify_certificates = false;
        self
    }

    /// Checks what can be known without the server.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the value.
    pub fn validate(&self) -> Result<(), Error> {
        check_uploadable(&self.content)?;
        check_file_name(&self.content, &self.file_name)?;
        let well_formed = self.url.starts_with("https://") || self.url.starts_with("http://");
        if !well_formed || !self.url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid(
                "url",
                format!("{:?} is not an http or https URL", self.url),
            ));
        }
        Ok(())
    }
}

pub(crate) fn check_uploadable(content: &Content) -> Result<(), Error> {
    match content {
        Content::Iso | Content::Vztmpl | Content::Import => Ok(()),
        other => Err(Error::invalid(
            "content",
            format!("{other} cannot be uploaded: iso, vztmpl or import"),
        )),
    }
}

/// A name that PVE takes as it is: other characters would silently become `_`, a path would be cut (`FACTS` 56), and an ISO
/// must end in `.iso` or `.img`.
pub(crate) fn check_file_name(content: &Content, name: &str) -> Result<(), Error> {
    let refuse = |reason: &str| Err(Error::invalid("file name", format!("{name:?} {reason}")));
    if name.is_empty() || name.len() > 255 {
        return refuse("must have 1 to 255 characters");
    }
    if name.starts_with('.') || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return refuse("may hold letters, digits and -_. only, and no dot first");
    }
    let lower = name.to_ascii_lowercase();
    let ends = |suffixes: &[&str]| {
        suffixes
            .iter()
            .any(|suffix| lower.len() > suffix.len() && lower.ends_with(suffix))
    };
    match content {
        Content::Iso if !ends(&[".iso", ".img"]) => refuse("is not an ISO's: it must end in .iso or .img"),
        Content::Import if !ends(&[".ova", ".qcow2", ".raw", ".vmdk"]) => {
            refuse("is not a disk image's: it must end in .ova, .qcow2, .raw or .vmdk")
        }
        _ => Ok(()),
    }
}

pub(crate) fn status(node: &NodeName, storage: &StorageId) -> Request {
    Request::get(path::storage(node, storage, &["status"]))
}

pub(crate) fn content(node: &NodeName, storage: &StorageId, only: Option<&Content>) -> Request {
    Request::get(path::storage(node, storage, &["content"])).optional("content", only)
}

pub(crate) fn download_url(node: &NodeName, storage: &StorageId, download: &DownloadUrl) -> Result<Request, Error> {
    download.validate()?;
    let DownloadUrl {
        url,
        file_name,
        content,
        checksum,
        verify_certificates,
    } = download;
    let mut request = Request::post(path::storage(node, storage, &["download-url"]))
        .param("content", content)
        .param("filename", file_name)
        .param("url", url);
    if let Some(Checksum { algorithm, hex }) = checksum {
        request = request.param("checksum", hex).param("checksum-algorithm", algorithm);
    }
    if !verify_certificates {
        request = request.flag("verify-certificates", false);
    }
    Ok(request)
}

/// Within `delay` (1 to 30 seconds) PVE answers without a task if it is done in time (`FACTS` 58).
pub(crate) fn delete(node: &NodeName, volume: &VolId, delay: Option<Duration>) -> Request {
    Request::delete(path::storage(node, &volume.storage(), &["content", volume.as_str()]))
        .optional("delay", delay.map(|delay| delay.as_secs().clamp(1, 30)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums() {
        let hex = "0".repeat(64);
        assert_eq!(
            Checksum::parse(&format!("sha256:{hex}")).expect("good"),
            Checksum::sha256(&hex).expect("good")
        );
        for bad in [
            "sha256:abc123...",
            "sha256:",
            "crc32:00",
            "",
            &hex,
            &format!("sha512:{hex}"),
            &format!("sha256:{}", "g".repeat(64)),
        ] {
            assert!(Checksum::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn file_names() {
        for good in [
            "a.iso",
            "AlmaLinux-9.3-x86_64-minimal.iso",
            "x.IMG",
            "k3simage-7f3a.iso",
        ] {
            assert!(check_file_name(&Content::Iso, good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "a",
            ".iso",
            "a/b.iso",
            "../a.iso",
            "a b.iso",
            "a+b.iso",
            "a\".iso",
            "a.qcow2",
            "ä.iso",
            "a\n.iso",
            &format!("{}.iso", "x".repeat(252)),
        ] {
            assert!(check_file_name(&Content::Iso, bad).is_err(), "{bad:?}");
        }
        assert!(
            check_file_name(&Content::Import, "a.qcow2").is_ok() && check_file_name(&Content::Import, "a.iso").is_err()
        );
        assert!(check_uploadable(&Content::Images).is_err());
    }

    #[test]
    fn urls() {
        for bad in ["local:iso/x.iso", "ftp://x/y.iso", "", "https://x/a b.iso"] {
            assert!(DownloadUrl::iso(bad, "a.iso").validate().is_err(), "{bad:?}");
        }
        assert!(
            DownloadUrl::iso("https://repo.almalinux.org/a.iso", "a.iso")
                .validate()
                .is_ok()
        );
    }
}
