//! `Drive`: `scsiN`, `virtioN`, `sataN`, `ideN`, `efidisk0`, `tpmstate0`, `unusedN`.

use super::{property_type, string::PropertyString};
use crate::{
    error::Error,
    types::{name::StorageId, unit::disk_size_bytes, volid::VolId},
};

property_type!(
    /// A disk or CD drive of a VM.
    ///
    /// ```
    /// use proxmox_client::{Drive, StorageId};
    /// let disk = Drive::allocate(&StorageId::new("local-lvm")?, 32).discard(true).ssd(true).iothread(true);
    /// assert_eq!(disk.to_string(), "local-lvm:32,discard=on,ssd=1,iothread=1");
    /// let read: Drive = "local:iso/alma.iso,media=cdrom,size=18700K".parse()?;
    /// assert!(read.is_cdrom() && read.size_bytes() == Some(19_148_800));
    /// # Ok::<(), proxmox_client::Error>(())
    /// ```
    ///
    /// # Source
    /// `scsi[n]`, `virtio[n]`, `sata[n]`, `ide[n]`, `efidisk0` in the API schema; `FACTS` 33, 34 for what PVE makes of them.
    Drive, "file"
);

impl Drive {
    /// Asks PVE to allocate a new volume of so many GiB.
    ///
    /// A unit is not possible there: `local:32G` is refused (`FACTS` 34).
    pub fn allocate(storage: &StorageId, size_gib: u64) -> Self {
        Self::with_volume(&format!("{storage}:{size_gib}"))
    }

    /// Asks PVE for the small volume that holds the UEFI variables; its size is PVE's business (`FACTS` 33).
    pub fn efi_disk(storage: &StorageId) -> Self {
        let mut drive = Self::with_volume(&format!("{storage}:1"));
        drive.0.put("efitype", "4m");
        drive
    }

    /// Uses an existing volume as a disk.
    pub fn volume(volid: &VolId) -> Self {
        Self::with_volume(volid.as_str())
    }

    /// Puts an ISO into a CD drive.
    pub fn cdrom(iso: &VolId) -> Self {
        let mut drive = Self::with_volume(iso.as_str());
        drive.0.put("media", "cdrom");
        drive
    }

    /// A CD drive with nothing in it.
    pub fn empty_cdrom() -> Self {
        let mut drive = Self::with_volume("none");
        drive.0.put("media", "cdrom");
        drive
    }

    /// A drive that PVE fills with cloud-init's data; it needs `VM.Config.Cloudinit` (`FACTS` 82).
    pub fn cloud_init(storage: &StorageId) -> Self {
        Self::with_volume(&format!("{storage}:cloudinit"))
    }

    /// Allocates a volume and fills it from another one.
    pub fn import(storage: &StorageId, source: &VolId) -> Self {
        let mut drive = Self::with_volume(&format!("{storage}:0"));
        drive.0.put("import-from", source.as_str());
        drive
    }

    fn with_volume(volume: &str) -> Self {
        let mut property = PropertyString::new("file");
        property.put("file", volume);
        Self(property)
    }

    /// Tells the storage which blocks are free: `discard=on` or `ignore`.
    #[must_use]
    pub fn discard(mut self, on: bool) -> Self {
        self.0.put("discard", if on { "on" } else { "ignore" });
        self
    }

    /// Shows the disk to the guest as a solid-state disk. Not for virtio disks.
    #[must_use]
    pub fn ssd(mut self, on: bool) -> Self {
        self.0.put_bool("ssd", on);
        self
    }

    /// Gives the disk a thread of its own (needs `virtio-scsi-single` for SCSI disks).
    #[must_use]
    pub fn iothread(mut self, on: bool) -> Self {
        self.0.put_bool("iothread", on);
        self
    }

    /// The disk's file format, for example `qcow2`; file storages only.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the word cannot stand in a property string.
    pub fn format(self, format: &str) -> Result<Self, Error> {
        self.with("format", format)
    }

    /// Should the UEFI variables come with Microsoft's keys enrolled (Secure Boot)?
    #[must_use]
    pub fn pre_enrolled_keys(mut self, on: bool) -> Self {
        self.0.put_bool("pre-enrolled-keys", on);
        self
    }

    /// What stands for the volume: a volid, `none`, `cdrom`, a path, or `storage:size` before allocation.
    pub fn file(&self) -> Option<&str> {
        // `volume` is an alias in the schema.
        self.get("file").or_else(|| self.get("volume"))
    }

    /// The volume, if [`file`](Self::file) names one that exists (not `none`, a path, or a size to allocate).
    pub fn volid(&self) -> Option<VolId> {
        let volid = VolId::new(self.file()?).ok()?;
        let is_size = volid.name().bytes().all(|b| b.is_ascii_digit() || b == b'.');
        (!is_size && volid.name() != "cloudinit").then_some(volid)
    }

    /// Is it a CD drive?
    pub fn is_cdrom(&self) -> bool {
        self.get("media") == Some("cdrom")
    }

    /// Is it a drive with cloud-init's data?
    ///
    /// # Source
    /// PVE names that volume `vm-VMID-cloudinit` (qemu-server, `QemuServer/Cloudinit.pm`).
    pub fn is_cloud_init(&self) -> bool {
        self.file().is_some_and(|file| {
            let name = file.rsplit(['/', ':']).next().unwrap_or_default();
            name == "cloudinit" || (name.starts_with("vm-") && name.contains("-cloudinit"))
        })
    }

    /// The size that PVE noted, in bytes. Informational: PVE ignores it on input (`FACTS` 34).
    pub fn size_bytes(&self) -> Option<u64> {
        disk_size_bytes(self.get("size")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> StorageId {
        StorageId::new("local-lvm").expect("a good name")
    }

    #[test]
    fn made_drives_print_as_pve_wants_them() {
        let iso = VolId::new("local:iso/a.iso").expect("a volume");
        let cases = [
            (Drive::allocate(&storage(), 32), "local-lvm:32"),
            (
                Drive::efi_disk(&storage()).pre_enrolled_keys(false),
                "local-lvm:1,efitype=4m,pre-enrolled-keys=0",
            ),
            (Drive::cdrom(&iso), "local:iso/a.iso,media=cdrom"),
            (Drive::empty_cdrom(), "none,media=cdrom"),
            (Drive::cloud_init(&storage()), "local-lvm:cloudinit"),
            (
                Drive::import(&storage(), &iso),
                "local-lvm:0,import-from=local:iso/a.iso",
            ),
            (
                Drive::allocate(&storage(), 8).discard(false).ssd(false),
                "local-lvm:8,discard=ignore,ssd=0",
            ),
        ];
        for (drive, want) in cases {
            assert_eq!(drive.to_string(), want);
            assert_eq!(want.parse::<Drive>().expect(want), drive);
        }
    }

    #[test]
    fn recorded_drives_are_read() {
        let disk: Drive = "local-lvm:9000/vm-9000-disk-1.raw,discard=on,iothread=1,size=32G,ssd=1"
            .parse()
            .expect("recorded");
        assert_eq!(disk.volid().expect("a volume").name(), "9000/vm-9000-disk-1.raw");
        assert_eq!(disk.size_bytes(), Some(32 << 30));
        assert!(!disk.is_cdrom() && !disk.is_cloud_init());
        for (text, cloud_init, volume) in [
            ("local:600/vm-600-cloudinit.qcow2,media=cdrom", true, true),
            ("local-lvm:vm-600-cloudinit,media=cdrom,size=4M", true, true),
            ("local:cloudinit", true, false),
            ("none,media=cdrom", false, false),
            ("local:32", false, false),
            ("/dev/sda", false, false),
        ] {
            let drive: Drive = text.parse().expect(text);
            assert_eq!(
                (drive.is_cloud_init(), drive.volid().is_some()),
                (cloud_init, volume),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_keys_survive_a_change() {
        let drive: Drive = "volume=local:100/vm-100-disk-0.raw,future=7,ssd=0"
            .parse()
            .expect("well formed");
        assert_eq!(drive.file(), Some("local:100/vm-100-disk-0.raw"));
        assert_eq!(
            drive.ssd(true).to_string(),
            "volume=local:100/vm-100-disk-0.raw,future=7,ssd=1"
        );
    }
}
