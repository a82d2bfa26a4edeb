//! What the firmware finds to boot: the VM's boot order, its CPU, its media.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::iso::IsoFile;
use super::system::System;
use crate::engine::{Drive, Launch};

/// The two firmwares PVE offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firmware {
    SeaBios,
    Ovmf,
}

impl Firmware {
    pub(super) fn of(config: &BTreeMap<String, String>) -> Self {
        match config.get("bios").map(String::as_str) {
            Some("ovmf") => Self::Ovmf,
            _ => Self::SeaBios,
        }
    }
}

/// An installation medium found in a CD-ROM drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Medium {
    /// The drive it lies in.
    pub(super) slot: String,
    /// Volume label, `AlmaLinux-9-3-x86_64-minimal`.
    pub(super) label: String,
    /// Major release, 9.
    pub(super) major: u32,
    /// Release as people write it, `9.3`; only the major number if the label says no more.
    pub(super) release: String,
    /// What kind of ISO: `boot`, `minimal`, `dvd`, or empty.
    pub(super) kind: String,
}

impl Medium {
    /// Reads the label of an AlmaLinux installation medium, `None` for any other volume.
    pub(super) fn from_label(slot: &str, label: &str) -> Option<Self> {
        let rest = label.strip_prefix("AlmaLinux-")?;
        let mut fields = rest.split(['-', '.']);
        let major: u32 = fields.next()?.parse().ok()?;
        let mut release = major.to_string();
        let mut kind = String::new();
        for field in fields {
            match field {
                "boot" | "minimal" | "dvd" => field.clone_into(&mut kind),
                minor if minor.parse::<u32>().is_ok() && !release.contains('.') => {
                    release.push('.');
                    release.push_str(minor);
                }
                _ => {}
            }
        }
        Some(Self {
            slot: slot.to_owned(),
            label: label.to_owned(),
            major,
            release,
            kind,
        })
    }

    /// Operating system's name and release.
    pub(super) fn os(&self) -> String {
        format!("AlmaLinux {}", self.release)
    }
}

/// What the firmware can hand over to.
#[derive(Debug)]
pub(super) enum Bootable {
    Medium(Medium),
    System {
        slot: String,
        path: PathBuf,
        system: Box<System>,
    },
}

/// One device of the boot order and what became of it.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) slot: String,
    pub(super) found: Result<Bootable, &'static str>,
}

/// The devices in boot order. `boot: order=a;b` names them; without it PVE tries the first disk, then the CD-ROM, then
/// the network; the legacy form `cdn` has the same meaning letter by letter.
pub(super) fn boot_order(launch: &Launch) -> Vec<String> {
    let first = |cdrom: bool| {
        launch
            .drives
            .iter()
            .find(|drive| drive.cdrom == cdrom && is_data_drive(drive))
            .map(|drive| drive.slot.clone())
    };
    let legacy = |letters: &str| {
        letters
            .chars()
            .filter_map(|letter| match letter {
                'c' => first(false),
                'd' => first(true),
                'n' => Some("net0".to_owned()),
                _ => None,
            })
            .collect()
    };
    match launch.config.get("boot").map(|text| text.trim()) {
        None => legacy("cdn"),
        Some(text) => match text.strip_prefix("order=") {
            Some(list) => list
                .split([';', ','])
                .filter(|slot| !slot.is_empty())
                .map(str::to_owned)
                .collect(),
            None => legacy(text.strip_prefix("legacy=").unwrap_or(text)),
        },
    }
}

/// Whether Linux finds the drive at a slot. OVMF switches on only those channels of the IDE controller that the boot order names a
/// drive of, and Linux passes over the others; q35 has no such controller.
///
/// # Source
/// `piix_enable_bits` in Linux's `ata_piix.c`; seen with Debian's OVMF on the engine `qemu`.
pub(super) fn switches_on(launch: &Launch, slot: &str) -> bool {
    let channel = |slot: &str| slot.strip_prefix("ide")?.parse::<u32>().ok().map(|index| index / 2);
    let q35 = launch
        .config
        .get("machine")
        .is_some_and(|machine| machine.contains("q35"));
    if channel(slot).is_none() || q35 || Firmware::of(&launch.config) != Firmware::Ovmf {
        return true;
    }
    let order = boot_order(launch);
    order.is_empty() || order.iter().any(|named| channel(named) == channel(slot))
}

/// Whether a drive holds data, and not firmware variables or TPM state.
pub(super) fn is_data_drive(drive: &Drive) -> bool {
    !drive.slot.starts_with("efidisk") && !drive.slot.starts_with("tpmstate")
}

/// Tries the devices in order up to the first that boots. Reads files, so call it off the async threads.
pub(super) fn probe(launch: &Launch) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for slot in boot_order(launch) {
        let found = probe_device(launch, &slot);
        let done = found.is_ok();
        attempts.push(Attempt { slot, found });
        if done {
            break;
        }
    }
    attempts
}

fn probe_device(launch: &Launch, slot: &str) -> Result<Bootable, &'static str> {
    if slot.starts_with("net") {
        return Err("no boot server answers");
    }
    let drive = launch
        .drives
        .iter()
        .find(|drive| drive.slot == slot)
        .ok_or("no medium")?;
    if drive.cdrom {
        let iso = IsoFile::open(&drive.path).map_err(|_| "could not read the medium")?;
        return Medium::from_label(slot, iso.label())
            .map(Bootable::Medium)
            .ok_or("not a bootable medium");
    }
    match System::load(&drive.path) {
        Ok(Some(system)) => Ok(Bootable::System {
            slot: slot.to_owned(),
            path: drive.path.clone(),
            system: Box::new(system),
        }),
        Ok(None) => Err("not a bootable disk"),
        Err(_) => Err("could not read the disk"),
    }
}

/// CPU models below the x86-64-v2 level that EL9 is compiled for. Everything newer, `host` and `max` included, passes.
/// QEMU's list of models: docs/system/cpu-models-x86.rst.
const BELOW_V2: &[&str] = &[
    "486",
    "athlon",
    "core2duo",
    "coreduo",
    "conroe",
    "kvm32",
    "kvm64",
    "opteron_g1",
    "opteron_g2",
    "opteron_g3",
    "penryn",
    "pentium",
    "pentium2",
    "pentium3",
    "phenom",
    "qemu32",
    "qemu64",
];

/// The guest's CPU model. Without the option PVE starts `kvm64`.
pub(super) fn cpu_model(config: &BTreeMap<String, String>) -> String {
    let text = config.get("cpu").map_or("", String::as_str);
    let first = text.split(',').find_map(|field| match field.split_once('=') {
        None => Some(field),
        Some(("cputype", model)) => Some(model),
        Some(_) => None,
    });
    match first {
        Some(model) if !model.is_empty() => model.to_owned(),
        _ => "kvm64".to_owned(),
    }
}

/// What glibc of an EL release prints on a CPU that lacks its baseline, `None` if the CPU will do.
pub(super) fn cpu_complaint(config: &BTreeMap<String, String>, el_major: u32) -> Option<String> {
    let model = cpu_model(config).to_lowercase();
    let below_v2 = BELOW_V2.contains(&model.as_str());
    // EL10 asks for AVX2 and friends: Haswell, EPYC and later.
    let below_v3 = below_v2
        || model.starts_with("x86-64-v2")
        || [
            "nehalem",
            "westmere",
            "sandybridge",
            "ivybridge",
            "opteron_g4",
            "opteron_g5",
        ]
        .iter()
        .any(|old| model.starts_with(old));
    let level = match el_major {
        9 if below_v2 => "x86-64-v2",
        10.. if below_v3 => "x86-64-v3",
        _ => return None,
    };
    Some(format!("Fatal glibc error: CPU does not support {level}"))
}

/// MAC address of the first network device, in capitals as the config has it.
pub(super) fn mac(config: &BTreeMap<String, String>) -> Option<String> {
    let net = config.get("net0")?;
    net.split(',').find_map(|field| {
        let value = field.split_once('=').map_or(field, |(_, value)| value);
        let is_mac = value.split(':').count() == 6
            && value
                .split(':')
                .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        is_mac.then(|| value.to_owned())
    })
}

/// Names the guest's kernel gives to its disks, in the order of the slots.
pub(super) fn disk_names(drives: &[Drive]) -> Vec<(String, String)> {
    let mut names = Vec::new();
    let mut next = BTreeMap::from([("vd", b'a'), ("sd", b'a')]);
    for drive in drives.iter().filter(|drive| !drive.cdrom && is_data_drive(drive)) {
        let prefix = if drive.slot.starts_with("virtio") { "vd" } else { "sd" };
        if let Some(letter) = next.get_mut(prefix) {
            names.push((drive.slot.clone(), format!("{prefix}{}", char::from(*letter))));
            *letter = letter.saturating_add(1).min(b'z');
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn launch(config: &[(&str, &str)], drives: &[(&str, bool)]) -> Launch {
        Launch {
            vmid: 100,
            node: "pve".into(),
            config: config
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            drives: drives
                .iter()
                .map(|(slot, cdrom)| Drive {
                    slot: (*slot).into(),
                    cdrom: *cdrom,
                    path: "/nonexistent".into(),
                    format: "raw".into(),
                    size_bytes: 0,
                })
                .collect(),
            on_exit: Arc::new(|_, _| {}),
        }
    }

    #[test]
    fn boot_orders() {
        let drives = &[("efidisk0", false), ("ide2", true), ("scsi0", false)][..];
        for (boot, expected) in [
            (Some("order=scsi0;ide2"), vec!["scsi0", "ide2"]),
            (Some("order=ide2"), vec!["ide2"]),
            (Some(" "), vec![]),
            (Some("dc"), vec!["ide2", "scsi0"]),
            (None, vec!["scsi0", "ide2", "net0"]),
        ] {
            let config: Vec<_> = boot.iter().map(|boot| ("boot", *boot)).collect();
            assert_eq!(boot_order(&launch(&config, drives)), expected, "{boot:?}");
        }
    }

    #[test]
    fn drives_that_linux_finds() {
        for (config, slot, expected) in [
            (&[("bios", "seabios"), ("boot", "order=scsi0")][..], "ide2", true),
            (&[("bios", "ovmf"), ("boot", "order=scsi0")], "ide2", false),
            (&[("bios", "ovmf"), ("boot", "order=scsi0")], "scsi1", true),
            (&[("bios", "ovmf"), ("boot", "order=scsi0;ide2")], "ide3", true),
            (&[("bios", "ovmf"), ("boot", "order=scsi0;ide2")], "ide1", false),
            (
                &[("bios", "ovmf"), ("boot", "order=scsi0"), ("machine", "q35")],
                "ide2",
                true,
            ),
            (&[("bios", "ovmf"), ("boot", " ")], "ide2", true),
        ] {
            let launch = launch(config, &[("scsi0", false)]);
            assert_eq!(switches_on(&launch, slot), expected, "{config:?} {slot}");
        }
    }

    #[test]
    fn cpus() {
        for (cpu, major, complaint) in [
            (None, 9, true),
            (Some("kvm64"), 9, true),
            (Some("cputype=qemu64,flags=+aes"), 9, true),
            (Some("kvm64"), 8, false),
            (Some("x86-64-v2-AES"), 9, false),
            (Some("x86-64-v2-AES"), 10, true),
            (Some("host"), 10, false),
            (Some("host,flags=+aes"), 9, false),
            (Some("Penryn"), 9, true),
        ] {
            let config = cpu.iter().map(|cpu| ("cpu".to_owned(), (*cpu).to_owned())).collect();
            assert_eq!(cpu_complaint(&config, major).is_some(), complaint, "{cpu:?} {major}");
        }
    }

    #[test]
    fn labels() {
        let medium = Medium::from_label("ide2", "AlmaLinux-9-4-x86_64-dvd").unwrap();
        assert_eq!(
            (medium.major, medium.release.as_str(), medium.kind.as_str()),
            (9, "9.4", "dvd")
        );
        let medium = Medium::from_label("ide2", "AlmaLinux-9.3-x86_64-minimal").unwrap();
        assert_eq!(
            (medium.major, medium.release.as_str(), medium.kind.as_str()),
            (9, "9.3", "minimal")
        );
        assert_eq!(Medium::from_label("ide2", "OEMDRV"), None);
        assert_eq!(Medium::from_label("ide2", "AlmaLinux-X"), None);
    }

    #[test]
    fn macs() {
        for (net, expected) in [
            ("virtio=BC:24:11:00:00:01,bridge=vmbr0", Some("BC:24:11:00:00:01")),
            ("model=e1000,macaddr=BC:24:11:00:00:02", Some("BC:24:11:00:00:02")),
            ("virtio,bridge=vmbr0", None),
        ] {
            let config = BTreeMap::from([("net0".to_owned(), net.to_owned())]);
            assert_eq!(mac(&config).as_deref(), expected);
        }
    }

    #[test]
    fn disks_are_named_by_bus() {
        let launch = launch(
            &[],
            &[
                ("efidisk0", false),
                ("ide2", true),
                ("scsi0", false),
                ("scsi1", false),
                ("virtio0", false),
            ],
        );
        let names = disk_names(&launch.drives);
        let names: Vec<_> = names
            .iter()
            .map(|(slot, name)| (slot.as_str(), name.as_str()))
            .collect();
        assert_eq!(names, [("scsi0", "sda"), ("scsi1", "sdb"), ("virtio0", "vda")]);
    }
}
