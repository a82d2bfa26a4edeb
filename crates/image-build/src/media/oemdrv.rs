//! The `OEMDRV` volume: a small ISO 9660 image with `/ks.cfg`, which Anaconda finds by its label.

use std::io::Cursor;

use hadris_iso::joliet::JolietLevel;
use hadris_iso::read::PathSeparator;
use hadris_iso::rrip::RripOptions;
use hadris_iso::write::options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{InputEntry, InputTree, IsoImageWriter};

use crate::kickstart::KickstartText;

/// The label that Anaconda looks for.
///
/// # Source
/// `dracut/kickstart-genrules.sh` of Anaconda 34.25 (EL9): a volume with this label and `/ks.cfg` on it is used unless
/// the kernel line has an `inst.ks`.
pub const OEMDRV_LABEL: &str = "OEMDRV";

/// Bytes of a sector.
const SECTOR: usize = 2048;
/// Largest kickstart that is put on the volume; real ones are some ten KiB, and a slip would be uploaded to the node.
const MAX_KICKSTART_BYTES: usize = 256 * 1024;

/// Why the volume could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OemdrvError {
    /// The kickstart is larger than any real one.
    #[error(
        "the kickstart has {size} bytes, more than the {MAX_KICKSTART_BYTES} that go on the volume: is it the right file?"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The writer of ISO 9660 failed.
    #[error("laying out the volume with the kickstart")]
    Layout(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The bytes of an ISO 9660 volume labelled [`OEMDRV_LABEL`] with the kickstart as `/ks.cfg`.
///
/// The file is there by its plain name `KS.CFG;1` and, for readers of Rock Ridge and Joliet, as `ks.cfg`. The same
/// kickstart gives the same bytes: no time and no random number is in them.
///
/// # Errors
/// [`OemdrvError::TooLarge`] for what cannot be a kickstart.
pub fn oemdrv(kickstart: &KickstartText) -> Result<Vec<u8>, OemdrvError> {
    let text = kickstart.expose();
    if text.len() > MAX_KICKSTART_BYTES {
        return Err(OemdrvError::TooLarge { size: text.len() });
    }
    let tree = InputTree::new(
        PathSeparator::ForwardSlash,
        vec![InputEntry::file("ks.cfg", text.as_bytes())],
    );
    let options = IsoFormatOptions {
        volume_name: OEMDRV_LABEL.to_owned(),
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: Some("K3SIMAGE".to_owned()),
        sector_size: SECTOR,
        features: CreationFeatures {
            filenames: BaseIsoLevel::Level1 {
                supports_lowercase: false,
                supports_rrip: true,
            },
            joliet: Some(JolietLevel::Level3),
            rock_ridge: Some(RripOptions::default()),
            ..CreationFeatures::default()
        },
        path_separator: PathSeparator::ForwardSlash,
        strict_charset: false,
    };
    let image = IsoImageWriter::create(Cursor::new(Vec::new()), tree, options)
        .map_err(|error| OemdrvError::Layout(Box::new(error)))?;
    let mut bytes = image.into_inner();
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    super::fixed_times::fix(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
