//! The virtual machine: CPU, memory, firmware, disks and network devices.

use proxmox_client::{MiB, StorageId};
use serde::Serialize;

words! {
    /// The firmware.
    Bios, "a firmware" {
        /// BIOS.
        SeaBios => "seabios",
        /// UEFI; the VM gets a small disk for its variables.
        Ovmf => "ovmf",
    }
}

words! {
    /// A disk image's format; block storages take raw only.
    DiskFormat, "a disk format" {
        /// Plain blocks.
        Raw => "raw",
        /// QEMU's format; file storages only.
        Qcow2 => "qcow2",
        /// VMware's format; file storages only.
        Vmdk => "vmdk",
    }
}

/// CPU, memory, firmware and devices that a VM has once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// Cores of each socket.
    pub cores: u32,
    /// Sockets.
    pub sockets: u32,
    /// Memory.
    pub memory: MiB,
    /// CPU type. AlmaLinux 9 needs x86-64-v2, which PVE's own default `kvm64` is not.
    pub cpu_type: String,
    /// Firmware.
    pub bios: Bios,
    /// Storage of the UEFI variables; `None` is the first disk's. Only read with [`Bios::Ovmf`].
    pub efi_storage: Option<StorageId>,
    /// Machine type such as `q35`; `None` is PVE's default.
    pub machine: Option<String>,
    /// SCSI controller.
    pub scsi_controller: String,
    /// Display; `None` is PVE's default.
    pub vga: Option<String>,
    /// A serial port at a socket, from which the install can be followed.
    pub serial: bool,
    /// A random number device.
    pub rng: bool,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            cores: 2,
            sockets: 1,
            memory: MiB(4096),
            cpu_type: "x86-64-v2-AES".to_owned(),
            bios: Bios::SeaBios,
            efi_storage: None,
            machine: None,
            scsi_controller: "virtio-scsi-single".to_owned(),
            vga: None,
            serial: true,
            rng: false,
        }
    }
}

/// A disk that is made for the VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Size in GiB: the unit in which PVE allocates (`FACTS` 34).
    pub size_gib: u64,
    /// Where it is allocated.
    pub storage: StorageId,
    /// Format; `None` is the storage's default.
    pub format: Option<DiskFormat>,
    /// Tell the storage which blocks are free.
    pub discard: bool,
    /// Show it to the guest as a solid-state disk.
    pub ssd: bool,
    /// Give it an I/O thread of its own.
    pub iothread: bool,
}

impl Disk {
    /// A disk of so many GiB with discard, shown as solid state, with an I/O thread.
    pub fn new(storage: StorageId, size_gib: u64) -> Self {
        Self {
            size_gib,
            storage,
            format: None,
            discard: true,
            ssd: true,
            iothread: true,
        }
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// The bridge it is plugged into.
    pub bridge: String,
    /// Model; `virtio` unless there is a reason.
    pub model: String,
    /// VLAN tag, 1 to 4094.
    pub vlan: Option<u16>,
    /// Put PVE's firewall in front of it.
    pub firewall: bool,
}

impl Nic {
    /// A virtio device on that bridge.
    pub fn virtio(bridge: impl Into<String>) -> Self {
        Self {
            bridge: bridge.into(),
            model: "virtio".to_owned(),
            vlan: None,
            firewall: false,
        }
    }
}

/// Is it a name that PVE takes for a VM: a DNS name?
///
/// # Source
/// Format `dns-name` of the API schema (`PVE::JSONSchema`): labels of letters, digits and inner dashes, parted by dots.
pub fn is_dns_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.len() <= 63
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
                && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
                && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        })
}
