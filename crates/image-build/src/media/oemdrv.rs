//! The `OEMDRV` volume: a small ISO 9660 image with `/ks.cfg`, which Anaconda finds by its label.

use crate::kickstart::KickstartText;

/// The label that Anaconda looks for.
///
/// # Source
/// `dracut/kickstart-genrules.sh` of Anaconda 34.25 (EL9): a volume with this label and `/ks.cfg` on it is used unless
/// the kernel line has an `inst.ks`.
pub const OEMDRV_LABEL: &str = "OEMDRV";

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
    super::volume::volume(OEMDRV_LABEL, "ks.cfg", text.as_bytes()).map_err(OemdrvError::Layout)
}

#[cfg(test)]
mod tests;
