//! Disks and CD-ROM drives.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::pci::Buses;
use super::property::{Argv, Config, escape, family, parts};
use crate::engine::{Drive, Launch};
use crate::schema::PropertyString;

/// Bytes of a MiB, in which PVE counts the limits of a drive.
const MIB: f64 = 1024.0 * 1024.0;

/// One drive of a VM, with a medium or without.
#[derive(Debug)]
struct Slot<'a> {
    key: String,
    bus: &'static str,
    index: u32,
    option: PropertyString,
    medium: Option<&'a Drive>,
}

impl Slot<'_> {
    fn is_cdrom(&self) -> bool {
        self.option.get("media") == Some("cdrom") || self.medium.is_some_and(|m| m.cdrom)
    }

    fn on(&self, key: &str) -> bool {
        self.option.get(key) == Some("1")
    }
}

/// The drives in the order of PVE's own command lines.
fn slots(launch: &Launch) -> Result<Vec<Slot<'_>>, String> {
    let mut slots = Vec::new();
    for bus in ["ide", "sata", "scsi", "virtio"] {
        for (index, _) in family(&launch.config, bus) {
            let key = format!("{bus}{index}");
            let option = parts(&launch.config, &key)?;
            let medium = launch.drives.iter().find(|drive| drive.slot == key);
            slots.push(Slot {
                key,
                bus,
                index,
                option,
                medium,
            });
        }
    }
    Ok(slots)
}

/// Adds all drives.
///
/// # Errors
/// A drive's option cannot be read.
pub(super) fn drives(launch: &Launch, q35: bool, buses: &mut Buses, argv: &mut Argv) -> Result<(), String> {
    let boot = BootOrder::read(&launch.config);
    let hardware = launch.config.get("scsihw").map_or("lsi", String::as_str);
    let mut controllers: Vec<String> = Vec::new();
    let mut cdroms = 0;
    for slot in slots(launch)? {
        let index = if slot.is_cdrom() {
            let index = boot.cdrom(&slot.key, cdroms);
            cdroms += u32::from(!is_cloudinit(&slot));
            index.filter(|_| boot.listed() || !is_cloudinit(&slot))
        } else {
            boot.disk(&slot.key)
        };
        let boot_index = index.map(|n| format!(",bootindex={n}")).unwrap_or_default();
        let place = place(&slot, q35, hardware, buses, &mut controllers, argv);
        let back = backend(&slot, argv);
        let kind = if slot.is_cdrom() { "cd" } else { "hd" };
        let device = match slot.bus {
            "virtio" => format!("virtio-blk-pci,{back}id={}{place}", slot.key),
            "scsi" => format!("scsi-{kind},{place}{back}id={}", slot.key),
            _ => format!("ide-{kind},{place}{back}id={}", slot.key),
        };
        argv.device(format!("{device}{}{boot_index}", traits(&slot)));
    }
    Ok(())
}

/// Where the device hangs; adds its controller when that is not there yet.
///
/// # Source
/// `print_drivedevice_full` of PVE::QemuServer: a controller of type lsi has 7 disks, virtio-scsi-single one, others 256; q35 has
/// no second unit on its IDE channels and so spreads them.
fn place(
    slot: &Slot<'_>,
    q35: bool,
    hardware: &str,
    buses: &mut Buses,
    controllers: &mut Vec<String>,
    argv: &mut Argv,
) -> String {
    let index = slot.index;
    match slot.bus {
        "ide" => {
            let (channel, unit) = (index / 2, index % 2);
            let (channel, unit) = if q35 { (channel + 2 * unit, 0) } else { (channel, unit) };
            format!("bus=ide.{channel},unit={unit},")
        }
        "sata" => {
            if !controllers.iter().any(|c| c == "ahci0") {
                controllers.push("ahci0".into());
                argv.device(format!("ahci,id=ahci0,multifunction=on{}", buses.address("ahci0")));
            }
            format!("bus=ahci0.{index},")
        }
        "scsi" => {
            let single = hardware == "virtio-scsi-single";
            let (most, model) = match hardware {
                "virtio-scsi-single" => (1, "virtio-scsi-pci"),
                "lsi" | "lsi53c810" | "pvscsi" => (7, hardware),
                other => (256, other),
            };
            let (controller, unit) = (index / most, index % most);
            let id = if single {
                format!("virtioscsi{controller}")
            } else {
                format!("scsihw{controller}")
            };
            if !controllers.contains(&id) {
                controllers.push(id.clone());
                let mut thread = String::new();
                if slot.on("iothread") && single {
                    argv.add("-object", format!("iothread,id=iothread-{id}"));
                    thread = format!(",iothread=iothread-{id}");
                }
                argv.device(format!("{model},id={id}{}{thread}", buses.address(&id)));
            }
            if model.starts_with("lsi") {
                format!("bus={id}.0,scsi-id={unit},")
            } else {
                format!("bus={id}.0,channel=0,scsi-id=0,lun={unit},")
            }
        }
        _ => {
            let mut text = buses.address(&slot.key);
            if slot.on("iothread") {
                argv.add("-object", format!("iothread,id=iothread-{}", slot.key));
                let _ = write!(text, ",iothread=iothread-{}", slot.key);
            }
            text
        }
    }
}

/// Adds what holds the drive's bytes; the device's reference to it.
fn backend(slot: &Slot<'_>, argv: &mut Argv) -> String {
    let node = format!("drive-{}", slot.key);
    if slot.is_cdrom() {
        // Owned by the drive, so that an eject lets the file go.
        let mut drive = format!("if=none,id={node},media=cdrom,aio=threads");
        if let Some(medium) = slot.medium {
            let path = medium.path.to_string_lossy();
            let _ = write!(drive, ",format={},readonly=on,file={}", medium.format, escape(&path));
        }
        argv.add("-drive", drive);
    } else {
        let Some(medium) = slot.medium else {
            return String::new();
        };
        if let Some(object) = throttle(slot) {
            argv.add("-object", object);
        }
        argv.add("-blockdev", blockdev(slot, medium, &node).to_string());
    }
    format!("drive={node},")
}

fn blockdev(slot: &Slot<'_>, medium: &Drive, node: &str) -> Value {
    // PVE's default is `none`; a file system of a container often cannot open files that way, and the guest sees no difference.
    let cache = slot.option.get("cache").unwrap_or("writeback");
    let direct = matches!(cache, "none" | "directsync");
    let cache = json!({ "direct": direct, "no-flush": cache == "unsafe" });
    let discard = slot.option.get("discard") == Some("on");
    let zeroes = match (slot.option.get("detect_zeroes"), discard) {
        (Some("0"), _) => "off",
        (_, true) => "unmap",
        (_, false) => "on",
    };
    let aio = match slot.option.get("aio") {
        Some("native") if direct => "native",
        _ => "threads",
    };
    let mut file = json!({ "driver": "file", "filename": medium.path, "aio": aio, "cache": cache });
    let mut layer = json!({ "driver": medium.format, "cache": cache, "detect-zeroes": zeroes });
    let words = if discard { "unmap" } else { "ignore" };
    file["discard"] = words.into();
    layer["discard"] = words.into();
    layer["read-only"] = slot.on("ro").into();
    layer["file"] = file;
    if limits(slot).is_empty() {
        layer["node-name"] = node.into();
        return layer;
    }
    json!({ "driver": "throttle", "node-name": node, "throttle-group": format!("throttle-{node}"), "file": layer })
}

/// The drive's limits as the properties of a throttle group.
fn limits(slot: &Slot<'_>) -> Map<String, Value> {
    let mut found = Map::new();
    for (short, long) in [("", "total"), ("_rd", "read"), ("_wr", "write")] {
        for (unit, property, factor) in [("mbps", "bps", MIB), ("iops", "iops", 1.0)] {
            for (given, suffix) in [(format!("{unit}{short}"), ""), (format!("{unit}{short}_max"), "-max")] {
                if let Some(value) = slot.option.get(&given).and_then(|v| v.parse::<f64>().ok()) {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "positive by the schema; too large saturates"
                    )]
                    found.insert(format!("x-{property}-{long}{suffix}"), ((value * factor) as u64).into());
                }
            }
            let length = format!("{property}{short}_max_length");
            if let Some(seconds) = slot.option.get(&length).and_then(|v| v.parse::<u64>().ok()) {
                found.insert(format!("x-{property}-{long}-max-length"), seconds.into());
            }
        }
    }
    found
}

fn throttle(slot: &Slot<'_>) -> Option<String> {
    let limits = limits(slot);
    (!limits.is_empty()).then(|| {
        let mut text = format!("throttle-group,id=throttle-drive-{}", slot.key);
        for (key, value) in &limits {
            let _ = write!(text, ",{key}={value}");
        }
        text
    })
}

/// What the guest sees of a disk beyond its bytes.
fn traits(slot: &Slot<'_>) -> String {
    let mut text = String::new();
    if slot.is_cdrom() {
        return text;
    }
    if slot.on("ssd") && slot.bus != "virtio" {
        text.push_str(",rotation_rate=1");
    }
    if let Some(serial) = slot.option.get("serial") {
        let serial = percent_encoding::percent_decode_str(serial).decode_utf8_lossy();
        let _ = write!(text, ",serial={}", escape(&serial));
    }
    for (key, property) in [("wwn", "wwn"), ("vendor", "vendor"), ("product", "product")] {
        if let Some(value) = slot.option.get(key) {
            let _ = write!(text, ",{property}={}", escape(value));
        }
    }
    if matches!(slot.option.get("cache"), Some("writethrough" | "directsync")) {
        text.push_str(",write-cache=off");
    }
    text
}

fn is_cloudinit(slot: &Slot<'_>) -> bool {
    slot.option.get("file").is_some_and(|file| {
        let name = file.rsplit([':', '/']).next().unwrap_or_default();
        name.split('.').next().is_some_and(|stem| stem.ends_with("-cloudinit"))
    })
}

/// Which device the firmware tries when.
#[derive(Debug)]
pub(super) enum BootOrder {
    /// `order=scsi0;ide2;net0`.
    Listed(Vec<String>),
    /// The old form: letters for kinds of devices, `cdn`, and the one disk that counts.
    Kinds { letters: String, disk: Option<String> },
}

impl BootOrder {
    /// # Source
    /// `device_bootorder` of PVE::QemuServer and its recorded command lines: 100 and up in a list; for the letters, 100 times the
    /// place of the letter.
    pub(super) fn read(config: &Config) -> Self {
        let text = config.get("boot").map_or("cdn", String::as_str);
        if let Some(order) = text.split(',').find_map(|part| part.strip_prefix("order=")) {
            let devices = order.split(';').filter(|d| !d.is_empty()).map(str::to_owned);
            return Self::Listed(devices.collect());
        }
        if text.trim().is_empty() {
            return Self::Listed(Vec::new());
        }
        let first = || {
            ["ide", "scsi", "virtio", "sata"].iter().find_map(|bus| {
                let found = family(config, bus);
                let (index, _) = found.iter().find(|(_, text)| !text.contains("media=cdrom"))?;
                Some(format!("{bus}{index}"))
            })
        };
        Self::Kinds {
            letters: text.strip_prefix("legacy=").unwrap_or(text).to_owned(),
            disk: config.get("bootdisk").cloned().or_else(first),
        }
    }

    fn listed(&self) -> bool {
        matches!(self, Self::Listed(_))
    }

    fn index(&self, letter: char) -> Option<u32> {
        match self {
            Self::Listed(_) => None,
            Self::Kinds { letters, .. } => {
                let at = letters.chars().position(|l| l == letter)?;
                Some(100 * (u32::try_from(at).unwrap_or(0) + 1))
            }
        }
    }

    fn of(&self, key: &str) -> Option<u32> {
        match self {
            Self::Listed(devices) => {
                let at = devices.iter().position(|device| device == key)?;
                Some(100 + u32::try_from(at).unwrap_or(0))
            }
            Self::Kinds { .. } => None,
        }
    }

    fn disk(&self, key: &str) -> Option<u32> {
        match self {
            Self::Kinds { disk, .. } if disk.as_deref() == Some(key) => self.index('c'),
            _ => self.of(key),
        }
    }

    fn cdrom(&self, key: &str, before: u32) -> Option<u32> {
        self.index('d').map(|n| n + before).or_else(|| self.of(key))
    }

    /// `number` is how many network devices stand before this one.
    pub(super) fn net(&self, key: &str, number: u32) -> Option<u32> {
        self.index('n').map(|n| n + number).or_else(|| self.of(key))
    }
}
