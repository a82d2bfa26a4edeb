//! The seed's k3s image as one value of `ImageSpec`. No step of the engine knows it.

use proxmox_client::{NodeName, StorageId, VolId};

use crate::boot_command::BootCommand;
use crate::k3s_version::K3sVersion;
use crate::kickstart::Kickstart;
use crate::name::ImageName;
use crate::spec::{
    Bios, CommunicatorSpec, Delivery, Disk, Hardware, ImageSpec, Installer, IsoSource, K3s, K3sRole, KickstartSource,
    Nic, OnError, ProvisionerSpec, ShellSpec, TemplateName, Timeouts,
};

/// Every default of the seed's page that is a text; the table of variables shows the same ones.
pub(crate) const ISO: &str = "local:iso/AlmaLinux-9.3-x86_64-minimal.iso";
pub(crate) const ISO_STORAGE: &str = "local";
pub(crate) const K3S_VERSION: &str = "v1.28.5+k3s1";
pub(crate) const NODE: &str = "pve";
pub(crate) const DISK_STORAGE: &str = "local-lvm";
pub(crate) const DISK_SIZE: &str = "32G";
pub(crate) const DISK_GIB: u64 = 32;
pub(crate) const BRIDGE: &str = "vmbr0";

/// AlmaLinux release of an image whose ISO does not tell it.
const ALMA: u32 = 9;

/// The image with every default, and nothing yet to run in the guest.
pub(crate) fn spec() -> ImageSpec {
    let storage: StorageId = DISK_STORAGE.parse().expect("a constant that a test checks");
    let iso = IsoSource::Volid(VolId::new(ISO).expect("a constant that a test checks"));
    let k3s = k3s();
    ImageSpec {
        name: TemplateName::NextFree(image_name(&iso, &k3s.version)),
        description: None,
        tags: Vec::new(),
        node: NodeName::new(NODE).expect("a constant that a test checks"),
        vmid: None,
        pool: None,
        hardware: Hardware::default(),
        disks: vec![Disk::new(storage.clone(), DISK_GIB)],
        nics: vec![Nic::virtio(BRIDGE)],
        cloud_init: Some(storage),
        installer: Installer::new(
            iso,
            ISO_STORAGE.parse().expect("a constant that a test checks"),
            KickstartSource::Model(Box::default()),
        ),
        communicator: CommunicatorSpec::default(),
        provisioners: Vec::new(),
        seal: None,
        k3s: Some(k3s),
        timeouts: Timeouts::default(),
        on_error: OnError::Cleanup,
    }
}

/// The k3s of an image that asks for none in particular.
pub(crate) fn k3s() -> K3s {
    K3s {
        version: K3S_VERSION.parse().expect("a constant that a test checks"),
        role: K3sRole::Server,
        mirror_url: None,
    }
}

/// The name of the first image with that k3s from that ISO.
pub(crate) fn image_name(iso: &IsoSource, k3s: &K3sVersion) -> ImageName {
    ImageName::first(iso.alma_release().map_or(ALMA, |(major, _)| major), k3s)
}

/// Keys for AlmaLinux's menu when the user gives none.
///
/// With OEMDRV the kernel line is right as it is; Up leaves the default entry, which would check the medium first, and
/// Enter starts the install. Over HTTP the address is appended to that line, which BIOS and UEFI edit differently.
///
/// # Source
/// The menus of EL9's lorax templates: isolinux edits with Tab, GRUB with `e` and boots with Ctrl-X.
pub fn boot_command(bios: Bios, delivery: &Delivery) -> BootCommand {
    let text = match (delivery, bios) {
        (Delivery::Oemdrv, _) => "<up><enter>",
        (Delivery::Http { .. }, Bios::SeaBios) => {
            "<up><tab> inst.text inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg<enter>"
        }
        (Delivery::Http { .. }, Bios::Ovmf) => {
            "<up>e<down><down><end> inst.text inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg\
             <leftCtrlOn>x<leftCtrlOff>"
        }
    };
    text.parse().expect("a constant that a test checks")
}

/// The embedded scripts, in the order in which they run.
pub(crate) fn provisioners(_k3s: &K3s, _hardening: bool) -> Vec<ProvisionerSpec> {
    Vec::new()
}

/// The embedded script that takes away what must not be cloned.
pub(crate) fn seal() -> ShellSpec {
    ShellSpec::new("seal.sh", "")
}

/// The model behind the preset's kickstart, to start from.
pub fn kickstart() -> Kickstart {
    Kickstart::default()
}
