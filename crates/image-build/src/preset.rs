//! The seed's k3s image as one value of `ImageSpec`. No step of the engine knows it.

use proxmox_client::{NodeName, StorageId, VolId};

use crate::assets;
use crate::boot_command::BootCommand;
use crate::k3s_version::K3sVersion;
use crate::kickstart::Kickstart;
use crate::name::ImageName;
use crate::spec::{
    Bios, CommunicatorSpec, Delivery, Disk, EnvValue, Hardware, ImageSpec, Installer, IsoSource, K3s, K3sRole,
    KickstartSource, Nic, OnError, ProvisionerSpec, ShellSpec, TemplateName, Timeouts,
};

/// Every default of the seed's page that is a text; the table of variables shows the same ones.
pub(crate) const ISO: &str = "local:iso/AlmaLinux-9.3-x86_64-minimal.iso";
pub(crate) const ISO_STORAGE: &str = "local";
pub(crate) const K3S_VERSION: &str = "v1.28.5+k3s1";
pub(crate) const NODE: &str = "pve";
pub(crate) const DISK_STORAGE: &str = "local-lvm";
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
///
/// # Panics
/// Never: a test types each of the commands.
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

/// The scripts of the seed, in the order in which they run.
pub(crate) const SCRIPTS: &[&str] = &["os-update.sh", "guest-agent.sh", "k3s-install.sh", "hardening-oscap.sh"];
/// The script that runs after them.
pub(crate) const SEAL: &str = "seal.sh";

/// What the scripts are told, beside the k3s that they install.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptOptions {
    /// Install all updates of AlmaLinux.
    pub os_update: bool,
    /// Check the image with OpenSCAP and keep the report in it.
    pub hardening_oscap: bool,
    /// Profile of the SCAP Security Guide for it.
    pub hardening_profile: String,
    /// Lay down the release's container images.
    pub airgap_images: bool,
    /// SHA-256 of the k3s binary, beside the release's own list.
    pub k3s_sha256: Option<String>,
    /// SHA-256 of the archive of container images, beside the release's own list.
    pub airgap_sha256: Option<String>,
}

impl Default for ScriptOptions {
    fn default() -> Self {
        Self {
            os_update: true,
            hardening_oscap: false,
            hardening_profile: "cis_server_l1".to_owned(),
            airgap_images: false,
            k3s_sha256: None,
            airgap_sha256: None,
        }
    }
}

/// The environment of every script; each one's header says what it reads.
pub(crate) fn environment(k3s: &K3s, options: &ScriptOptions) -> Vec<(String, EnvValue)> {
    let switch = |on: bool| if on { "1" } else { "0" }.to_owned();
    let ScriptOptions {
        os_update,
        hardening_oscap,
        hardening_profile,
        airgap_images,
        k3s_sha256,
        airgap_sha256,
    } = options;
    let mut environment = vec![
        ("OS_UPDATE", switch(*os_update)),
        ("K3S_VERSION", k3s.version.to_string()),
        ("K3S_ROLE", k3s.role.to_string()),
        ("K3S_AIRGAP_IMAGES", switch(*airgap_images)),
        ("HARDENING_OSCAP", switch(*hardening_oscap)),
        ("HARDENING_PROFILE", hardening_profile.clone()),
    ];
    environment.extend(k3s.mirror_url.clone().map(|url| ("K3S_MIRROR_URL", url)));
    environment.extend(k3s_sha256.clone().map(|sum| ("K3S_SHA256", sum)));
    environment.extend(airgap_sha256.clone().map(|sum| ("K3S_AIRGAP_SHA256", sum)));
    environment
        .into_iter()
        .map(|(name, value)| (name.to_owned(), EnvValue::Plain(value)))
        .collect()
}

/// The embedded scripts, in the order in which they run.
pub(crate) fn provisioners(k3s: &K3s, options: &ScriptOptions) -> Vec<ProvisionerSpec> {
    SCRIPTS
        .iter()
        .map(|name| ProvisionerSpec::Shell(embedded(name, environment(k3s, options))))
        .collect()
}

/// The embedded script that takes away what must not be cloned.
pub(crate) fn seal() -> ShellSpec {
    embedded(SEAL, Vec::new())
}

fn embedded(name: &str, env: Vec<(String, EnvValue)>) -> ShellSpec {
    let content = assets::script(name).expect("a constant that a test checks");
    ShellSpec {
        env,
        ..ShellSpec::new(name, content)
    }
}

/// The model behind the preset's kickstart, to start from.
pub fn kickstart() -> Kickstart {
    Kickstart::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_command::BootValues;

    #[test]
    fn the_preset_is_what_the_seed_says() {
        let spec = spec();
        assert_eq!(spec.name.to_string(), "alma9-k3-node-amd64-v1.28.5-v1");
        assert_eq!(
            (spec.hardware.cores, spec.hardware.memory.0, spec.disks[0].size_gib),
            (2, 4096, 32)
        );
        assert_eq!(provisioners(&k3s(), &ScriptOptions::default()).len(), 4);
        assert!(!seal().content.is_empty());
    }

    #[test]
    fn every_boot_command_can_be_typed() {
        let http = Delivery::Http {
            announce: None,
            bind: None,
            ports: 8000..=9000,
        };
        let values = BootValues {
            http_ip: Some("10.0.0.1".into()),
            http_port: Some("8000/x".into()),
            name: None,
        };
        for bios in [Bios::SeaBios, Bios::Ovmf] {
            let keys = boot_command(bios, &Delivery::Oemdrv).expand(&values).unwrap();
            assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), ["up", "ret"]);
            let keys: Vec<String> = boot_command(bios, &http)
                .expand(&values)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(keys[0], "up");
            assert_eq!(keys.last().unwrap(), if bios == Bios::Ovmf { "ctrl-x" } else { "ret" });
        }
    }
}
