//! Where the build VM's drives sit.

/// The system disk; further disks follow on the same bus.
pub(super) const SYSTEM_DISK: &str = "scsi0";
/// The installer's CD-ROM drive. Later it becomes the cloud-init drive, where PVE's own GUI puts it too.
pub(super) const INSTALLER: &str = "ide2";
/// The kickstart's CD-ROM drive.
pub(super) const OEMDRV: &str = "ide0";
/// The template's cloud-init drive.
pub(super) const CLOUD_INIT: &str = "ide2";
