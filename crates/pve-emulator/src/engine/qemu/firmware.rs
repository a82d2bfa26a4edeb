//! UEFI firmware: the files of Debian's package `ovmf`.

use std::path::{Path, PathBuf};

use super::property::{Argv, Config, parts};
use crate::engine::Launch;

/// Where Debian and its derivatives put the firmware.
pub(super) const DIR: &str = "/usr/share/OVMF";

/// Code and a template for the variables that fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) code: PathBuf,
    pub(super) vars: PathBuf,
}

impl Files {
    /// The files for an efidisk of 4 MiB or 2 MiB flash, with Microsoft's keys enrolled or without.
    ///
    /// The code is the same with and without keys: Debian's build with `secboot` in its name asks for SMM, which q35 alone has,
    /// while the plain one does Secure Boot without it, on both machine types, as PVE's own build does.
    ///
    /// # Errors
    /// Which file is missing, and what to install.
    pub(super) fn find(dir: &Path, four_mib: bool, keys: bool) -> Result<Self, String> {
        let size = if four_mib { "_4M" } else { "" };
        let enrolled = if keys { ".ms" } else { "" };
        let files = Self {
            code: dir.join(format!("OVMF_CODE{size}.fd")),
            vars: dir.join(format!("OVMF_VARS{size}{enrolled}.fd")),
        };
        let missing = [&files.code, &files.vars]
            .into_iter()
            .find(|file| !file.is_file())
            .cloned();
        match missing {
            None => Ok(files),
            Some(missing) if four_mib => Err(format!(
                "there is no UEFI firmware file {}: install it (Debian: apt-get install ovmf)",
                missing.display()
            )),
            Some(missing) => Err(format!(
                "there is no UEFI firmware file {} for 2 MiB flash: install it (Debian 12: apt-get install ovmf), or make the \
                 efidisk with efitype=4m",
                missing.display()
            )),
        }
    }
}

/// Bytes of the variables in 4 MiB and in 2 MiB flash. A storage may give the volume more; the flash must not show it, because
/// its end has to meet the code.
const VARS_4M: u64 = 540_672;
const VARS_2M: u64 = 131_072;

/// Flash devices of a VM with `bios=ovmf`: block nodes, and the machine properties that plug them in.
///
/// # Errors
/// The firmware is not installed, or `temporary_vars` cannot be written.
pub(super) fn flash(launch: &Launch, dir: &Path, temporary_vars: &Path, argv: &mut Argv) -> Result<String, String> {
    let config: &Config = &launch.config;
    let option = parts(config, "efidisk0")?;
    let drive = launch.drives.iter().find(|drive| drive.slot == "efidisk0");
    // Without an efidisk PVE takes the large flash (`FACTS` 51: a warning in the task).
    let four_mib = drive.is_none() || option.get("efitype") == Some("4m");
    let keys = option.get("pre-enrolled-keys") == Some("1");
    let files = Files::find(dir, four_mib, keys)?;
    let (vars, format) = if let Some(drive) = drive {
        (drive.path.clone(), drive.format.clone())
    } else {
        let text = |e: std::io::Error| format!("writing temporary EFI variables {}: {e}", temporary_vars.display());
        let bytes = std::fs::read(&files.vars).map_err(text)?;
        std::fs::write(temporary_vars, bytes).map_err(text)?;
        (temporary_vars.to_owned(), "raw".to_owned())
    };
    let code = serde_json::json!({
        "node-name": "pflash0", "driver": "raw", "read-only": true,
        "file": { "driver": "file", "filename": files.code },
    });
    let mut inner = serde_json::json!({ "driver": "file", "filename": vars });
    if format != "raw" {
        inner = serde_json::json!({ "driver": format, "file": inner });
    }
    let vars = serde_json::json!({
        "node-name": "drive-efidisk0", "driver": "raw", "offset": 0,
        "size": if four_mib { VARS_4M } else { VARS_2M }, "file": inner,
    });
    argv.add("-blockdev", code.to_string());
    argv.add("-blockdev", vars.to_string());
    Ok("pflash0=pflash0,pflash1=drive-efidisk0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_firmware_says_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let error = Files::find(dir.path(), true, true).unwrap_err();
        assert!(
            error.ends_with("OVMF_CODE_4M.fd: install it (Debian: apt-get install ovmf)"),
            "{error}"
        );
        let error = Files::find(dir.path(), false, false).unwrap_err();
        assert!(error.ends_with("or make the efidisk with efitype=4m"), "{error}");
        for name in ["OVMF_CODE_4M.fd", "OVMF_VARS_4M.ms.fd"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let files = Files::find(dir.path(), true, true).unwrap();
        assert!(files.vars.ends_with("OVMF_VARS_4M.ms.fd"));
        assert!(
            Files::find(dir.path(), true, false).is_err(),
            "the empty template is another file"
        );
    }
}
