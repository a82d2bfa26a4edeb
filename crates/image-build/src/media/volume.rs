//! A small ISO 9660 volume with one file, which a guest finds by the volume's label.

use std::error::Error;
use std::io::Cursor;

use hadris_iso::joliet::JolietLevel;
use hadris_iso::read::PathSeparator;
use hadris_iso::rrip::RripOptions;
use hadris_iso::write::options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{InputEntry, InputTree, IsoImageWriter};

/// Bytes of a sector.
pub(super) const SECTOR: usize = 2048;

/// The bytes of a volume with this label and this file at its top. The same input gives the same bytes: no time and no random
/// number is in them.
pub(super) fn volume(label: &str, file: &str, content: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let tree = InputTree::new(PathSeparator::ForwardSlash, vec![InputEntry::file(file, content)]);
    let options = options(label, Some(JolietLevel::Level3));
    let image = IsoImageWriter::create(Cursor::new(Vec::new()), tree, options).map_err(Box::new)?;
    let mut bytes = image.into_inner();
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    super::fixed_times::fix(&mut bytes);
    Ok(bytes)
}

/// How our volumes are laid out: names of any length by Rock Ridge, and by Joliet where a reader wants it.
pub(super) fn options(label: &str, joliet: Option<JolietLevel>) -> IsoFormatOptions {
    IsoFormatOptions {
        volume_name: label.to_owned(),
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
            joliet,
            rock_ridge: Some(RripOptions::default()),
            ..CreationFeatures::default()
        },
        path_separator: PathSeparator::ForwardSlash,
        strict_charset: false,
    }
}
