//! `IsoSource`: where the installer's ISO comes from, and what says which bytes it must have.

use std::path::{Path, PathBuf};

use proxmox_client::VolId;
use serde::Serialize;
use url::Url;

use super::checksum::Checksum;
use crate::checksum_list;
use crate::diagnostic::Diagnostic;

/// Subject of a diagnostic about the ISO's own text.
const ISO: &str = "iso";
/// Subject of one about its checksum.
const CHECKSUM: &str = "iso_checksum";

const CHECKSUM_HELP: &str = "write sha256: and the 64 digits from the CHECKSUM file beside the ISO, file:https://... with the \
                             address of such a file, or \"none\", which leaves the ISO unchecked";

/// Where the installer's ISO comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IsoSource {
    /// A volume that the node has. PVE cannot tell its checksum.
    Volid(VolId),
    /// The node downloads it.
    Url {
        /// From there.
        url: Url,
        /// PVE checks it.
        checksum: IsoChecksum,
    },
    /// It is uploaded from this machine.
    File {
        /// The file. Written out it is the name alone: where it lies on this machine decides nothing.
        #[serde(rename = "name", serialize_with = "name_alone")]
        path: PathBuf,
        /// Checked here and by PVE.
        checksum: IsoChecksum,
    },
}

/// What says which bytes an ISO must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IsoChecksum {
    /// Nothing: the user said so.
    Unchecked,
    /// This checksum.
    Given(Checksum),
    /// The ISO's line in the list at this `https://` address, which preflight fetches.
    Listed(Url),
}

impl IsoSource {
    /// Reads an ISO and its checksum as people write them.
    ///
    /// `iso` is a volume `local:iso/NAME.iso`, an `http(s)://` address, or the path of a file, `file://` or plain; paths
    /// begin at `dir`. `checksum` is `sha256:DIGITS`, `file:` with the address or path of a list, `auto` for the list named
    /// `CHECKSUM` beside the ISO, `none`, or nothing: that is `auto` for an address, `none` for a file. What is given beside
    /// a volume must be well formed, and has no effect.
    ///
    /// ```
    /// use image_build::spec::{IsoChecksum, IsoSource};
    /// let address = "https://repo.almalinux.org/almalinux/9.6/isos/x86_64/AlmaLinux-9.6-x86_64-dvd.iso";
    /// let IsoSource::Url { checksum: IsoChecksum::Listed(list), .. } = IsoSource::read(".".as_ref(), address, None)? else {
    ///     unreachable!("an address without a checksum is looked up in the list beside it")
    /// };
    /// assert_eq!(list.as_str(), "https://repo.almalinux.org/almalinux/9.6/isos/x86_64/CHECKSUM");
    /// # Ok::<(), Box<image_build::Diagnostic>>(())
    /// ```
    ///
    /// # Errors
    /// A diagnostic about `iso` or `iso_checksum`, with what to write instead. A list that is a file here is read, so it can
    /// be one of those of the list.
    pub fn read(dir: &Path, iso: &str, checksum: Option<&str>) -> Result<Self, Box<Diagnostic>> {
        let said = checksum.map(str::trim).filter(|text| !text.is_empty());
        if let Some(path) = iso.strip_prefix("file://") {
            return Self::of_file(dir, dir.join(path), said);
        }
        if iso.contains("://") {
            let url = Url::parse(iso)
                .map_err(|error| Box::new(Diagnostic::error(ISO, format!("`{iso}` is no address: {error}"))))?;
            let checksum = IsoChecksum::beside_url(dir, &url, said)?;
            return Ok(Self::Url { url, checksum });
        }
        // `C:\isos\x.iso` and `./a:b.iso` are paths; `local:iso/x.iso` is a volume.
        match iso.parse::<VolId>() {
            Ok(volid) if !dir.join(iso).exists() => {
                if let Some(text) = said.filter(|text| !matches!(*text, "auto" | "none") && !text.starts_with("file:"))
                {
                    IsoChecksum::given(text)?;
                }
                Ok(Self::Volid(volid))
            }
            _ => Self::of_file(dir, dir.join(iso), said),
        }
    }

    fn of_file(dir: &Path, path: PathBuf, said: Option<&str>) -> Result<Self, Box<Diagnostic>> {
        let checksum = match said {
            None | Some("none") => IsoChecksum::Unchecked,
            Some("auto") => {
                let list = path.with_file_name(checksum_list::FILE_NAME);
                IsoChecksum::in_file(&list, &file_name_of(&path))?
            }
            Some(text) => IsoChecksum::said(dir, &file_name_of(&path), text)?,
        };
        Ok(Self::File { path, checksum })
    }

    /// The ISO's own file name.
    pub fn file_name(&self) -> &str {
        match self {
            Self::Volid(volid) => volid.file_name(),
            Self::Url { url, .. } => name_in(url),
            Self::File { path, .. } => path.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
        }
    }

    /// The AlmaLinux release in the file name, major and minor: `AlmaLinux-9.3-x86_64-minimal.iso` is (9, Some(3)).
    ///
    /// # Source
    /// File names under `isos/x86_64/` of AlmaLinux's mirrors; `AlmaLinux-9-latest-x86_64-boot.iso` exists too.
    pub fn alma_release(&self) -> Option<(u32, Option<u32>)> {
        let rest = self.file_name().strip_prefix("AlmaLinux-")?;
        let release = rest.split('-').next()?;
        match release.split_once('.') {
            Some((major, minor)) => Some((major.parse().ok()?, Some(minor.parse().ok()?))),
            None => Some((release.parse().ok()?, None)),
        }
    }

    /// What says which bytes it must have; `None` for a volume, of which PVE tells nothing.
    pub fn checksum(&self) -> Option<&IsoChecksum> {
        match self {
            Self::Volid(_) => None,
            Self::Url { checksum, .. } | Self::File { checksum, .. } => Some(checksum),
        }
    }
}

impl IsoChecksum {
    fn beside_url(dir: &Path, iso: &Url, said: Option<&str>) -> Result<Self, Box<Diagnostic>> {
        match said {
            Some("none") => Ok(Self::Unchecked),
            None | Some("auto") => {
                if iso.scheme() == "http" {
                    return Err(refused(
                        "the ISO comes over http://, where the mirror's own list of checksums proves nothing",
                    ));
                }
                let mut list = iso
                    .join(checksum_list::FILE_NAME)
                    .map_err(|error| Box::new(Diagnostic::error(ISO, format!("`{iso}` has no folder: {error}"))))?;
                list.set_query(None);
                list.set_fragment(None);
                Ok(Self::Listed(list))
            }
            Some(text) => Self::said(dir, name_in(iso), text),
        }
    }

    /// `file:...` or a checksum itself.
    fn said(dir: &Path, iso_name: &str, text: &str) -> Result<Self, Box<Diagnostic>> {
        let Some(place) = text.strip_prefix("file:") else {
            return Self::given(text);
        };
        if let Some(path) = place.strip_prefix("//") {
            return Self::in_file(&dir.join(path), iso_name);
        }
        if let Some(path) = place.strip_prefix("file://") {
            return Self::in_file(&dir.join(path), iso_name);
        }
        if !place.contains("://") {
            return Self::in_file(&dir.join(place), iso_name);
        }
        match Url::parse(place) {
            Ok(url) if url.scheme() == "https" => Ok(Self::Listed(url)),
            Ok(url) if url.scheme() == "http" => Err(refused(format!(
                "{url} comes over http://, where a list of checksums proves nothing"
            ))),
            Ok(url) => Err(refused(format!("a list cannot be fetched by `{}:`", url.scheme()))),
            Err(error) => Err(refused(format!("`{place}` is no address: {error}"))),
        }
    }

    fn given(text: &str) -> Result<Self, Box<Diagnostic>> {
        text.parse()
            .map(Self::Given)
            .map_err(|error: super::ChecksumError| refused(error.to_string()))
    }

    /// The line of a list that is a file on this machine.
    fn in_file(list: &Path, iso_name: &str) -> Result<Self, Box<Diagnostic>> {
        let cannot = |reason: String| refused(format!("the list {} cannot be used: {reason}", list.display()));
        match std::fs::metadata(list) {
            Err(error) => return Err(cannot(error.to_string())),
            Ok(metadata) if !metadata.is_file() => return Err(cannot("it is no file".to_owned())),
            Ok(metadata) if metadata.len() > checksum_list::MAX_BYTES as u64 => {
                return Err(cannot("it is longer than 1 MiB".to_owned()));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(list).map_err(|error| cannot(error.to_string()))?;
        checksum_list::checksum_of(&text, iso_name)
            .map(Self::Given)
            .map_err(|error| cannot(error.to_string()))
    }
}

fn refused(message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(CHECKSUM, message).help(CHECKSUM_HELP))
}

fn name_alone<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&file_name_of(path))
}

fn name_in(url: &Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

fn file_name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
