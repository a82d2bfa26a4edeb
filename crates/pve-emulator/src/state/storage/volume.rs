//! A volume and its name.

use serde::{Deserialize, Serialize};

use super::StorageKind;
use crate::state::now;

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Its own name without a linked parent: `iso/a.iso`, `100/vm-100-disk-0.raw`, `vm-100-disk-0`.
    pub(crate) name: String,
    /// `images`, `iso`, ...
    pub(crate) content: String,
    /// Owner of a disk.
    pub(crate) vmid: Option<u32>,
    /// `raw`, `qcow2`, `vmdk`, `iso`, ...
    pub(crate) format: String,
    /// Size that the guest sees, in bytes.
    pub(crate) size_bytes: u64,
    /// Bytes that the storage counts as used.
    pub(crate) used_bytes: u64,
    /// Epoch seconds.
    pub(crate) ctime: u64,
    /// Own name of the base it is a linked clone of.
    pub(crate) parent: Option<String>,
    /// Files beside it that its image stands on, where no other volume's name tells: in a thin pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) origins: Vec<String>,
}

impl Volume {
    /// The name as a volid shows it: a linked clone carries its base's name in front.
    pub(crate) fn shown(&self) -> String {
        match &self.parent {
            Some(parent) => format!("{parent}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// Content type of a name in a directory storage.
pub(super) fn classify(name: &str) -> Option<(&'static str, Option<u32>, String)> {
    let (first, rest) = name.split_once('/')?;
    if rest.is_empty() || rest.contains(['/', '\0']) || rest.starts_with("..") {
        return None;
    }
    let extension = rest.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase();
    match first {
        // A hidden file is stored, but it is no volume (recorded for `..iso`).
        "iso" if rest.starts_with('.') => None,
        "iso" if matches!(extension.as_str(), "iso" | "img") => Some(("iso", None, "iso".into())),
        "vztmpl" => Some(("vztmpl", None, extension)),
        "import" => Some(("import", None, extension)),
        "snippets" => Some(("snippets", None, "snippet".into())),
        "backup" => Some(("backup", None, extension)),
        _ => {
            let vmid = owner_id(first)?;
            let disk = rest.starts_with("vm-") || rest.starts_with("base-");
            let format = matches!(extension.as_str(), "raw" | "qcow2" | "vmdk").then_some(extension)?;
            disk.then_some(("images", Some(vmid), format))
        }
    }
}

/// The number of the VM in a name: digits alone, where a number of Rust's could have a sign.
fn owner_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// A volume's own name and base name out of the part of a volid behind the colon.
///
/// # Errors
/// PVE's text for a name that the storage type cannot have.
pub(crate) fn parse_volume_name(kind: StorageKind, name: &str) -> Result<(String, Option<String>), String> {
    match kind {
        StorageKind::Dir => {
            let bad = || format!("unable to parse directory volume name '{name}'\n");
            let parts: Vec<&str> = name.split('/').collect();
            let (own, base) = match parts.as_slice() {
                [a, b] => (format!("{a}/{b}"), None),
                [a, b, c, d] => (format!("{c}/{d}"), Some(format!("{a}/{b}"))),
                _ => return Err(bad()),
            };
            for part in [Some(&own), base.as_ref()].into_iter().flatten() {
                classify(part).ok_or_else(bad)?;
            }
            Ok((own, base))
        }
        StorageKind::LvmThin => {
            let bad = || format!("unable to parse lvm volume name '{name}'\n");
            let owner = name
                .strip_prefix("vm-")
                .or_else(|| name.strip_prefix("base-"))
                .ok_or_else(bad)?;
            let numbered = owner.split_once('-').is_some_and(|(id, _)| owner_id(id).is_some());
            if !numbered || name.contains(['/', '\0']) {
                return Err(bad());
            }
            // A thin volume's name does not tell its origin, unlike that of a file.
            Ok((name.to_owned(), None))
        }
    }
}

/// A volume for a file that is not a disk.
pub(crate) fn file_volume(name: &str, size_bytes: u64) -> Volume {
    let (content, vmid, format) = classify(name).unwrap_or(("iso", None, "iso".into()));
    Volume {
        name: name.to_owned(),
        content: content.to_owned(),
        vmid,
        format,
        size_bytes,
        used_bytes: size_bytes.next_multiple_of(4096),
        ctime: now(),
        parent: None,
        origins: Vec::new(),
    }
}

/// A size as drive options show it: the largest unit that divides it.
pub(crate) fn size_text(bytes: u64) -> String {
    if bytes == 0 {
        return "0T".into();
    }
    let mut value = bytes;
    for unit in ["", "K", "M", "G"] {
        if !value.is_multiple_of(1024) {
            return format!("{value}{unit}");
        }
        value /= 1024;
    }
    format!("{value}T")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_the_largest_unit() {
        for (bytes, text) in [
            (32 << 30, "32G"),
            (540_672, "528K"),
            (19_148_800, "18700K"),
            (375_296, "375296"),
            (1 << 40, "1T"),
            (0, "0T"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn volume_names_follow_the_storage_type() {
        let dir = |n| parse_volume_name(StorageKind::Dir, n);
        assert_eq!(dir("iso/a.iso"), Ok(("iso/a.iso".into(), None)));
        assert_eq!(
            dir("220/base-220-disk-1.qcow2/221/vm-221-disk-1.qcow2"),
            Ok((
                "221/vm-221-disk-1.qcow2".into(),
                Some("220/base-220-disk-1.qcow2".into())
            ))
        );
        for bad in [
            "32G",
            "iso/../x",
            "iso/",
            "../../etc/passwd",
            "iso/a.txt",
            "100/disk.raw",
            "100/../x.raw",
            "+100/vm-100-disk-0.raw",
            "iso/a\0.iso",
            "../../100/vm-100-disk-0.qcow2",
            "220/x/221/vm-221-disk-1.qcow2",
        ] {
            assert_eq!(
                dir(bad),
                Err(format!("unable to parse directory volume name '{bad}'\n"))
            );
        }
        let lvm = |n| parse_volume_name(StorageKind::LvmThin, n);
        assert_eq!(lvm("vm-100-disk-0"), Ok(("vm-100-disk-0".into(), None)));
        assert_eq!(lvm("base-100-disk-0"), Ok(("base-100-disk-0".into(), None)));
        for bad in ["iso/a.iso", "a/vm-1-x/../../y", "vm-+1-disk-0", "vm-x-disk-0", "disk"] {
            assert!(lvm(bad).is_err(), "{bad}");
        }
    }
}
