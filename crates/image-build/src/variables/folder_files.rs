//! The files of a template folder that say what its variables are: read in Packer's order, none from outside the folder.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::hcl_file::MAX_FILE_BYTES;
use crate::confined::inside;
use crate::diagnostic::Diagnostic;
use crate::error::Error;

/// The kickstart that variables are filled into.
pub(crate) const KICKSTART_TEMPLATE: &str = "http/ks.cfg.j2";

/// What a folder itself says of its variables.
#[derive(Default)]
pub(super) struct FolderFiles {
    /// Text of the kickstart template, empty when there is none.
    pub(super) template: String,
    pub(super) declarations: Vec<PathBuf>,
    pub(super) json_declarations: Vec<PathBuf>,
    pub(super) automatic: Vec<PathBuf>,
}

impl FolderFiles {
    /// The files directly in the folder, each kind in lexical order; of the automatic ones HCL comes before JSON.
    ///
    /// # Source
    /// Packer's `hcl2template/parser.go` reads them in that order.
    pub(super) fn of(dir: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            attempt: "reading the template folder",
            path: dir.to_owned(),
            source,
        };
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        let own = |name: &String| {
            name.ends_with(".pkr.hcl") || name.ends_with(".pkr.json") || name.contains(".auto.pkrvars.")
        };
        for name in names.iter().filter(|name| own(name)) {
            if let Err(reason) = inside(dir, name) {
                return Err(Diagnostic::error("", format!("{name}: {reason}"))
                    .help("keep the file in the folder itself, or name it by -var-file")
                    .into());
            }
        }
        let with = |suffix: &str| {
            names
                .iter()
                .filter(|name| name.ends_with(suffix))
                .map(|name| dir.join(name))
                .collect()
        };
        let mut automatic: Vec<PathBuf> = with(".auto.pkrvars.hcl");
        automatic.extend::<Vec<PathBuf>>(with(".auto.pkrvars.json"));
        Ok(Self {
            // One that cannot be read is told of where it is filled in.
            template: inside(dir, KICKSTART_TEMPLATE)
                .ok()
                .and_then(|path| read_text(&path).ok())
                .unwrap_or_default(),
            declarations: with(".pkr.hcl"),
            json_declarations: with(".pkr.json"),
            automatic,
        })
    }
}

/// A text file of at most [`MAX_FILE_BYTES`].
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Io {
        attempt: "reading",
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other(
            "it is larger than 1 MiB, so it is not what it should be",
        )));
    }
    // Editors of other systems put a byte order mark in front, which is no HCL.
    let text = String::from_utf8(bytes).map_err(|_| failed(std::io::Error::other("it is not UTF-8 text")))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
