//! Where the build VM's drives sit.

/// The system disk; further disks follow on the same bus.
pub(super) const SYSTEM_DISK: &str = "scsi0";
/// The installer's CD-ROM drive.
pub(super) const INSTALLER: &str = "ide2";
/// The kickstart's CD-ROM drive, on the installer's own channel: OVMF switches on only the channels of what it boots from, and
/// Linux passes over a channel of that controller that is off (`piix_enable_bits` in its `ata_piix.c`).
pub(super) const OEMDRV: &str = "ide3";

/// A CD-ROM drive behind the disks, on their bus: for media that a build brings into the installed system, then the template's
/// cloud-init drive.
///
/// PVE's web interface puts the latter on `ide2`, where a clone with OVMF on PVE's default machine does not see it: it boots from its disk, so
/// the channel stays off. What a system boots from it has the driver of, and the same driver finds this drive.
pub(super) fn behind_disks(disks: usize) -> String {
    format!("scsi{disks}")
}
