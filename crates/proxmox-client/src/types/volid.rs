//! `VolId`: a volume on a storage.

use super::name::{StorageId, text_newtype};
use crate::error::Error;

text_newtype!(
    /// A volume: `storage:name`, for example `local:iso/AlmaLinux-9.3-x86_64-minimal.iso` or `local-lvm:vm-9000-disk-0`.
    ///
    /// ```
    /// use proxmox_client::VolId;
    /// let iso: VolId = "local:iso/alma.iso".parse()?;
    /// assert_eq!((iso.storage().as_str(), iso.name(), iso.file_name()), ("local", "iso/alma.iso", "alma.iso"));
    /// # Ok::<(), proxmox_client::Error>(())
    /// ```
    VolId, "volid", check
);

fn check(text: &str) -> Result<(), &'static str> {
    let Some((storage, name)) = text.split_once(':') else {
        return Err("is not a volume: it must have the form storage:name, as in local:iso/alma.iso");
    };
    if StorageId::new(storage).is_err() {
        return Err("is not a volume: what stands before the colon is not a storage name");
    }
    if name.is_empty() || text.len() > 1024 {
        return Err("is not a volume: the name after the colon is empty or too long");
    }
    // A comma would end the value in a property string, a control character would break a header or a log.
    if name
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || c == ',' || c == '\\')
    {
        return Err("is not a volume: the name holds a space, a comma, a backslash or a control character");
    }
    if name.starts_with('/')
        || name
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err("is not a volume: the name after the colon is not a plain relative path");
    }
    Ok(())
}

impl VolId {
    /// Puts a volume together from its storage and the name on it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name cannot be one.
    pub fn of(storage: &StorageId, name: &str) -> Result<Self, Error> {
        Self::new(format!("{storage}:{name}"))
    }

    /// The storage that holds the volume.
    ///
    /// # Panics
    /// Never: the part before the colon was checked when the volume was parsed.
    pub fn storage(&self) -> StorageId {
        let storage = self.as_str().split(':').next().unwrap_or_default();
        StorageId::new(storage).expect("the storage was checked when the volume was parsed")
    }

    /// What follows the colon, for example `iso/alma.iso`.
    pub fn name(&self) -> &str {
        self.as_str().split_once(':').map_or("", |(_, name)| name)
    }

    /// The last part of the name, for example `alma.iso`.
    pub fn file_name(&self) -> &str {
        self.name().rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for good in [
            "local:iso/guest.iso",
            "local:110/vm-110-disk-9.qcow2",
            "local-lvm:vm-9000-disk-0",
            "local:import/a.qcow2",
        ] {
            assert_eq!(VolId::new(good).expect(good).to_string(), good);
        }
        for bad in [
            "",
            "local",
            "local:",
            ":x",
            "a:x",
            "local:/etc/passwd",
            "local:../x",
            "local:iso/../../x",
            "local:iso//x",
            "local:a b",
            "local:a,b",
            "local:a\nb",
            "https://example.com/x.iso",
            "/mnt/x.iso",
            "local:iso\\x",
        ] {
            assert!(VolId::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_make_the_whole(storage in "[a-z][a-z0-9-]{0,6}[a-z0-9]", name in "[a-z0-9]{1,5}(/[a-zA-Z0-9._-]{1,8}[a-z]){0,2}") {
            let volid = VolId::new(format!("{storage}:{name}")).expect("well formed");
            prop_assert_eq!(volid.storage().to_string(), storage);
            prop_assert_eq!(volid.name(), &name);
            prop_assert_eq!(VolId::of(&volid.storage(), volid.name()).expect("same parts"), volid);
        }

        #[test]
        fn any_text_is_a_volume_or_an_error(text in "\\PC{0,60}") {
            if let Ok(volid) = VolId::new(text.clone()) {
                prop_assert_eq!(volid.to_string(), text);
                prop_assert!(!volid.file_name().is_empty());
            }
        }
    }
}
