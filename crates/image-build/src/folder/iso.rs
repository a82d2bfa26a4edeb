//! The installer's ISO out of `alma_iso_url` and `alma_iso_checksum`.

use std::path::Path;

use crate::spec::IsoSource;
use crate::variables::Reader;

/// Reads both variables; `None` when something is wrong with them, which is noted then.
pub(super) fn read(dir: &Path, reader: &mut Reader<'_>) -> Option<IsoSource> {
    let Some(text) = reader.text("alma_iso_url") else {
        reader.missing("alma_iso_url");
        return None;
    };
    let checksum = reader.text("alma_iso_checksum");
    let iso = match IsoSource::read(dir, text, checksum) {
        Ok(iso) => iso,
        Err(problem) => {
            let name = match problem.subject.as_str() {
                "iso_checksum" => "alma_iso_checksum",
                _ => "alma_iso_url",
            };
            reader.error(name, problem.message, problem.help);
            return None;
        }
    };
    match &iso {
        IsoSource::Volid(volid) if !matches!(checksum, None | Some("none")) => {
            let message = format!("it is noted, but not checked: Proxmox VE cannot tell the checksum of {volid}");
            reader.warn("alma_iso_checksum", message, Some("write \"none\"".to_owned()));
        }
        IsoSource::File { path, .. } => {
            if let Err(reason) = is_iso_here(path) {
                let help = "write local:iso/NAME.iso for a volume on the node, an https:// address, or the path of a file here";
                reader.error("alma_iso_url", format!("`{text}` {reason}"), Some(help.to_owned()));
                return None;
            }
        }
        _ => {}
    }
    Some(iso)
}

/// Whether a path leads to an ISO, links followed.
///
/// An ISO may lie anywhere, but a folder from elsewhere must not send another file of this machine to the cluster by a link
/// that is called one.
fn is_iso_here(path: &Path) -> Result<(), String> {
    let real = match path.canonicalize() {
        Ok(real) if real.is_file() => real,
        _ => return Err("is no file here".to_owned()),
    };
    let named_iso = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("iso"))
    };
    if named_iso(path) && !named_iso(&real) {
        return Err(format!("is a link to {}, which is not named .iso", real.display()));
    }
    Ok(())
}
