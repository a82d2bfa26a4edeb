//! The installer's ISO out of `alma_iso_url` and `alma_iso_checksum`.

use std::path::Path;

use proxmox_client::VolId;
use url::Url;

use crate::spec::{Checksum, IsoSource};
use crate::variables::Reader;

/// Reads both variables; `None` when something is wrong with them, which is noted then.
pub(super) fn read(dir: &Path, reader: &mut Reader<'_>) -> Option<IsoSource> {
    const HELP: &str =
        "write sha256: and the 64 digits from the CHECKSUM file beside the ISO; \"none\" leaves it unchecked";
    let Some(text) = reader.text("alma_iso_url") else {
        reader.missing("alma_iso_url");
        return None;
    };
    let checksum = match reader.text("alma_iso_checksum") {
        None | Some("none") => None,
        Some(checksum) => match checksum.parse::<Checksum>() {
            Ok(checksum) => Some(checksum),
            Err(error) => {
                reader.error("alma_iso_checksum", error.to_string(), Some(HELP.to_owned()));
                return None;
            }
        },
    };
    let said_none = reader.text("alma_iso_checksum") == Some("none");
    if let Some(path) = text.strip_prefix("file://") {
        return Some(IsoSource::File {
            path: dir.join(path),
            checksum,
        });
    }
    if text.contains("://") {
        return match Url::parse(text) {
            Ok(_) if checksum.is_none() && !said_none => {
                let message = format!("{text} is downloaded, and nothing says what it must be");
                reader.error("alma_iso_checksum", message, Some(HELP.to_owned()));
                None
            }
            Ok(url) => Some(IsoSource::Url { url, checksum }),
            Err(error) => {
                reader.error("alma_iso_url", format!("`{text}` is no address: {error}"), None);
                None
            }
        };
    }
    // `C:\isos\x.iso` and `./a:b.iso` are paths; `local:iso/x.iso` is a volume.
    match text.parse::<VolId>() {
        Ok(volid) if !dir.join(text).exists() => {
            if checksum.is_some() {
                let message = format!("it is noted, but not checked: Proxmox VE cannot tell the checksum of {volid}");
                reader.warn("alma_iso_checksum", message, Some("write \"none\"".to_owned()));
            }
            Some(IsoSource::Volid(volid))
        }
        _ => {
            let path = dir.join(text);
            if !path.is_file() {
                let help = "write local:iso/NAME.iso for a volume on the node, an https:// address, or the path of a file here";
                reader.error(
                    "alma_iso_url",
                    format!("`{text}` is no file here"),
                    Some(help.to_owned()),
                );
                return None;
            }
            Some(IsoSource::File { path, checksum })
        }
    }
}
