//! Where the build VM's drives sit.

/// The system disk; further disks follow on the same bus.
pub(super) const SYSTEM_DISK: &str = "scsi0";
/// The installer's CD-ROM drive. Later it becomes the cloud-init drive, where PVE's own GUI puts it too.
pub(super) const INSTALLER: &str = "ide2";
/// The kickstart's CD-ROM drive, on the installer's own channel: OVMF switches on only the channels of what it boots from, and
/// Linux passes over a channel of that controller that is off (`piix_enable_bits` in its `ata_piix.c`).
pub(super) const OEMDRV: &str = "ide3";
/// The template's cloud-init drive.
pub(super) const CLOUD_INIT: &str = "ide2";
