//! VM options: which privilege each needs, and the forms PVE keeps them in.

use crate::api::Call;
use crate::schema::{Edition, Format, PropertyString, Schema, valid_mac};
use crate::state::ConfigMap;
use crate::wire::Failure;

/// Options that change at once in a running VM (`fast_plug_options` in PVE::QemuServer, and what its hotplug code
/// handles without the guest's help).
const LIVE: [&str; 14] = [
    "lock",
    "name",
    "onboot",
    "shares",
    "startup",
    "description",
    "protection",
    "vmstatestorage",
    "hookscript",
    "tags",
    "migrate_downtime",
    "migrate_speed",
    "cpuunits",
    "cpulimit",
];

/// Splits `scsi12` into its family and number.
pub(super) fn indexed(key: &str) -> Option<(&str, u32)> {
    let family = key.trim_end_matches(|c: char| c.is_ascii_digit());
    Some((family, key[family.len()..].parse().ok()?))
}

/// Whether an option is a drive: a disk, a CD-ROM, EFI variables or TPM state.
pub(super) fn is_drive(key: &str) -> bool {
    indexed(key).is_some_and(|(f, _)| matches!(f, "ide" | "scsi" | "sata" | "virtio" | "efidisk" | "tpmstate"))
}

pub(super) fn is_unused(key: &str) -> bool {
    indexed(key).is_some_and(|(family, _)| family == "unused")
}

pub(super) fn is_net(key: &str) -> bool {
    indexed(key).is_some_and(|(family, _)| family == "net")
}

/// Whether a change of the option takes effect while the VM runs.
pub(super) fn is_live(key: &str, config: &ConfigMap) -> bool {
    if LIVE.contains(&key) {
        return true;
    }
    let plugs = config.get("hotplug").map_or("network,disk,usb", String::as_str);
    let plugs = if plugs == "1" { "network,disk,usb" } else { plugs };
    let has = |feature: &str| plugs.split([',', ';', ' ']).any(|p| p == feature);
    match indexed(key) {
        Some(("net", _)) => has("network"),
        Some(("scsi" | "virtio", _)) => has("disk"),
        Some(("usb", _)) => has("usb"),
        Some(("unused", _)) => true,
        _ => {
            matches!(
                key,
                "ciuser"
                    | "cipassword"
                    | "sshkeys"
                    | "nameserver"
                    | "searchdomain"
                    | "cicustom"
                    | "ciupgrade"
                    | "citype"
            ) || indexed(key).is_some_and(|(family, _)| family == "ipconfig")
                || key == "tablet" && has("usb")
        }
    }
}

/// The parts of an option that is a property string.
///
/// What the played edition does not know was refused before; here a part may be any edition's, and 9.2 tells what is wrong.
pub(super) fn parse(key: &str, text: &str) -> Result<PropertyString, Failure> {
    let mut editions = Edition::ALL.into_iter().rev();
    let first = parse_as(editions.next().unwrap_or(Edition::V9_2), key, text);
    first.or_else(|failure| {
        editions
            .find_map(|edition| parse_as(edition, key, text).ok())
            .ok_or(failure)
    })
}

fn parse_as(edition: Edition, key: &str, text: &str) -> Result<PropertyString, Failure> {
    let schema = Schema::of(edition);
    let create = schema.find("POST", "/nodes/x/qemu").map(|f| f.endpoint);
    let format = create.and_then(|e| e.property(key)).and_then(|p| p.format.as_ref());
    let structure = match format {
        Some(Format::Structure(structure)) => Some(structure),
        Some(Format::Named(name)) => schema.named(name),
        None => None,
    };
    let structure = structure.ok_or_else(|| Failure::die(format!("option '{key}' has no parts")))?;
    PropertyString::parse(schema, structure, text, key)
        .map_err(|e| Failure::param(key, format!("invalid format - {e}")))
}

/// Checks that the caller may set or delete an option (`check_vm_modify_config_perm`).
///
/// # Errors
/// 403 with the privilege, or 500 for options that only root may touch (`FACTS` 14).
pub(super) fn check_privilege(call: &Call, vmid: u32, key: &str, value: Option<&str>) -> Result<(), Failure> {
    if call.who.is_root() {
        return Ok(());
    }
    let access = call.world.access();
    let any: &[&str] = match key {
        "cpu" | "vcpus" | "cores" | "sockets" | "cpulimit" | "cpuunits" | "numa" | "affinity" | "smp" => {
            &["VM.Config.CPU"]
        }
        "memory" | "balloon" | "shares" | "hugepages" | "keephugepages" | "allow-ksm" => &["VM.Config.Memory"],
        "acpi" | "hotplug" | "kvm" | "machine" | "scsihw" | "smbios1" | "tablet" | "vga" | "watchdog" | "audio0"
        | "vmgenid" | "rng0" | "intel-tdx" | "amd-sev" | "ivshmem" => &["VM.Config.HWType"],
        "ciuser" | "cipassword" | "sshkeys" | "nameserver" | "searchdomain" | "citype" | "ciupgrade" => {
            &["VM.Config.Cloudinit", "VM.Config.Network"]
        }
        "cicustom" => &["VM.Config.Cloudinit"],
        "cdrom" => &["VM.Config.CDROM"],
        "vmstate" => &["VM.Snapshot"],
        "startup" => {
            return access.require(&call.who, "/", &["Sys.Modify"]);
        }
        "agent" | "autostart" | "bios" | "description" | "keyboard" | "localtime" | "migrate_downtime"
        | "migrate_speed" | "name" | "onboot" | "ostype" | "protection" | "reboot" | "startdate" | "tdf"
        | "template" | "tags" | "boot" | "bootdisk" | "freeze" | "arch" => &["VM.Config.Options"],
        _ => match indexed(key) {
            Some(("net", _)) => &["VM.Config.Network"],
            Some(("ipconfig", _)) => &["VM.Config.Cloudinit", "VM.Config.Network"],
            Some(("numa", _)) => &["VM.Config.CPU"],
            Some(("unused", _)) => &["VM.Config.Disk"],
            Some(("serial", _)) if value.is_none_or(|v| v == "socket") => &["VM.Config.HWType"],
            Some(("usb", _)) if value.is_none_or(|v| v.split(',').any(|p| p == "spice" || p == "host=spice")) => {
                &["VM.Config.HWType"]
            }
            Some(("serial" | "parallel" | "usb" | "hostpci", _)) => {
                return Err(Failure::die(format!(
                    "only root can set '{key}' config for real devices"
                )));
            }
            _ if is_drive(key) => match value {
                Some(v) if is_cloudinit(v) => &["VM.Config.Cloudinit"],
                Some(v) if is_cdrom(v) => &["VM.Config.CDROM"],
                _ => &["VM.Config.Disk"],
            },
            // args, lock, hookscript and whatever else: root's.
            _ => return Err(Failure::die(format!("only root can set '{key}' config"))),
        },
    };
    require_on_vm(call, vmid, any)
}

/// Checks for any of `privileges` on a VM, or on the pool that a new one is to join (`check_vm_perm`).
///
/// # Errors
/// 403 that names them all, on the VM.
pub(super) fn require_on_vm(call: &Call, vmid: u32, privileges: &[&str]) -> Result<(), Failure> {
    let access = call.world.access();
    let by_pool = call
        .params
        .text("pool")
        .is_some_and(|pool| access.has_any(&call.who, &format!("/pool/{pool}"), privileges));
    if by_pool {
        return Ok(());
    }
    access.require_any(&call.who, &format!("/vms/{vmid}"), privileges)
}

/// Whether a drive's text is a CD-ROM.
pub(super) fn is_cdrom(text: &str) -> bool {
    let file = text.split(',').next().unwrap_or_default();
    text.split(',').any(|p| p == "media=cdrom") || matches!(file, "none" | "cdrom" | "file=none" | "file=cdrom")
}

/// Whether a drive's text is a cloud-init drive, new or there already.
pub(super) fn is_cloudinit(text: &str) -> bool {
    let file = text.split(',').next().unwrap_or_default();
    let name = file.rsplit([':', '/']).next().unwrap_or_default();
    name == "cloudinit" || name.starts_with("vm-") && name.split('.').next().is_some_and(|n| n.ends_with("-cloudinit"))
}

/// The value as PVE stores it (`FACTS` 31).
pub(super) fn normalise(key: &str, text: &str) -> Result<String, Failure> {
    match key {
        "tags" => {
            let mut tags: Vec<String> = text
                .split([',', ';', ' ', '\0'])
                .filter(|t| !t.is_empty())
                .map(str::to_lowercase)
                .collect();
            tags.sort();
            tags.dedup();
            Ok(if tags.is_empty() {
                " ".to_owned()
            } else {
                tags.join(";")
            })
        }
        // PVE keeps only a hash; one that is given already stays.
        "cipassword" if !text.starts_with('$') => Ok(crate::crypt::hash_sha256(text)),
        "description" => Ok(text.trim_end_matches('\n').to_owned()),
        _ if is_net(key) => net(key, text),
        _ => Ok(text.to_owned()),
    }
}

/// A network device with a MAC address, in PVE's order.
fn net(key: &str, text: &str) -> Result<String, Failure> {
    let mut parts = parse(key, text)?;
    let model = parts.remove("model").unwrap_or_else(|| "virtio".into());
    let mac = parts
        .remove("macaddr")
        .filter(|m| valid_mac(m))
        .unwrap_or_else(random_mac);
    let rest = parts.print("");
    let first = format!("{model}={}", mac.to_uppercase());
    Ok(if rest.is_empty() {
        first
    } else {
        format!("{first},{rest}")
    })
}

/// An address with Proxmox's own prefix.
pub(super) fn random_mac() -> String {
    let [a, b, c]: [u8; 3] = rand::random();
    format!("BC:24:11:{a:02X}:{b:02X}:{c:02X}")
}

/// Checks the right to use the bridge of a network device.
pub(super) fn check_bridge(call: &Call, key: &str, text: &str) -> Result<(), Failure> {
    if call.who.is_root() || !is_net(key) {
        return Ok(());
    }
    let parts = parse(key, text)?;
    let Some(bridge) = parts.get("bridge") else {
        return Ok(());
    };
    let path = match parts.get("tag") {
        Some(tag) => format!("/sdn/zones/localnetwork/{bridge}/{tag}"),
        None => format!("/sdn/zones/localnetwork/{bridge}"),
    };
    call.world.access().require(&call.who, &path, &["SDN.Use"])
}

/// The devices of a boot order.
pub(super) fn boot_order(config: &ConfigMap) -> Vec<String> {
    let boot = config.get("boot").map(String::as_str).unwrap_or_default();
    let order = boot.split(',').find_map(|p| p.strip_prefix("order="));
    order
        .map(|o| o.split(';').filter(|d| !d.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// The text of a boot order; none shows as one space (`FACTS` 34).
pub(super) fn boot_text(devices: &[String]) -> String {
    if devices.is_empty() {
        " ".into()
    } else {
        format!("order={}", devices.join(";"))
    }
}

/// The order that PVE gives a VM without one: first disk, first CD-ROM, first network device.
pub(super) fn default_boot(config: &ConfigMap) -> Vec<String> {
    let rank = |key: &str| {
        let (family, index) = indexed(key).unwrap_or_default();
        let bus = ["ide", "scsi", "virtio", "sata"].iter().position(|b| *b == family);
        bus.map(|bus| (bus, index))
    };
    let mut drives: Vec<(&String, (usize, u32))> = config.keys().filter_map(|k| Some((k, rank(k)?))).collect();
    drives.sort_by_key(|(_, rank)| *rank);
    let disk = drives
        .iter()
        .find(|(k, _)| !is_cdrom(&config[*k]) && !is_cloudinit(&config[*k]));
    let cdrom = drives
        .iter()
        .find(|(k, _)| is_cdrom(&config[*k]) && !is_cloudinit(&config[*k]));
    let net = config
        .keys()
        .filter(|k| is_net(k))
        .min_by_key(|k| indexed(k).map(|(_, i)| i));
    disk.map(|d| d.0)
        .into_iter()
        .chain(cdrom.map(|c| c.0))
        .chain(net)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn values_are_kept_as_pve_keeps_them() {
        for (key, given, kept) in [
            ("tags", "k3simage;Build;alma9;build", "alma9;build;k3simage"),
            ("tags", "", " "),
            ("description", "a\n\nb\n\n", "a\n\nb"),
            (
                "net1",
                "e1000=bc:24:11:00:00:01,tag=42,bridge=vmbr0",
                "e1000=BC:24:11:00:00:01,bridge=vmbr0,tag=42",
            ),
            ("cores", "2", "2"),
        ] {
            assert_eq!(normalise(key, given).unwrap(), kept);
        }
        let made = normalise("net0", "virtio,bridge=vmbr0").unwrap();
        assert!(
            made.starts_with("virtio=BC:24:11:") && made.ends_with(",bridge=vmbr0"),
            "{made}"
        );
    }

    #[test]
    fn a_boot_order_is_found() {
        let vm = config(&[
            ("scsi10", "local:1/vm-1-disk-1.raw"),
            ("scsi2", "local:1/vm-1-disk-0.raw"),
            ("ide2", "local:iso/a.iso,media=cdrom"),
            ("net0", "virtio=x"),
            ("efidisk0", "local:1/vm-1-disk-2.raw"),
        ]);
        assert_eq!(default_boot(&vm), ["scsi2", "ide2", "net0"]);
        assert_eq!(boot_text(&default_boot(&vm)), "order=scsi2;ide2;net0");
        assert_eq!(boot_text(&[]), " ");
        assert_eq!(boot_order(&config(&[("boot", "order=a;b")])), ["a", "b"]);
    }

    #[test]
    fn cloud_init_drives_are_told_from_cds() {
        for (text, cloudinit, cdrom) in [
            ("local:cloudinit", true, false),
            ("local:100/vm-100-cloudinit.qcow2,media=cdrom", true, true),
            ("local-lvm:vm-100-cloudinit,media=cdrom", true, true),
            ("local:iso/a.iso,media=cdrom", false, true),
            ("none,media=cdrom", false, true),
            ("local:100/vm-100-disk-0.raw", false, false),
        ] {
            assert_eq!((is_cloudinit(text), is_cdrom(text)), (cloudinit, cdrom), "{text}");
        }
    }
}
