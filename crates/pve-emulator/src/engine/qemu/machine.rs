//! The machine itself: type, processors, memory, clock, identity.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Accel;
use super::property::{Argv, Config, escape, flag, number, parts};

/// Options that would need something which is not there. A VM with one of them is refused rather than started without.
const NOT_EMULATED: [&str; 8] = [
    "amd-sev",
    "intel-tdx",
    "arch",
    "audio0",
    "hugepages",
    "ivshmem",
    "spice_enhancements",
    "vmstate",
];
/// The same for numbered options.
const NOT_EMULATED_FAMILIES: [&str; 6] = ["hostpci", "numa", "parallel", "usb", "tpmstate", "virtiofs"];

/// Refuses what cannot be honoured.
///
/// # Errors
/// The first such option.
pub(super) fn check(config: &Config) -> Result<(), String> {
    let numbered = |key: &str| {
        NOT_EMULATED_FAMILIES
            .iter()
            .any(|family| key.strip_prefix(family).is_some_and(|n| n.parse::<u32>().is_ok()))
    };
    let refused = config
        .iter()
        .find(|(key, text)| NOT_EMULATED.contains(&key.as_str()) && text.as_str() != "x86_64" || numbered(key));
    match refused {
        Some((key, _)) => Err(format!(
            "option '{key}' is not emulated by the engine qemu: remove it from the VM to start it here"
        )),
        None => Ok(()),
    }
}

/// The machine type, its properties apart from flash, and whether it is a q35.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) kind: String,
    pub(super) q35: bool,
}

impl Machine {
    /// # Errors
    /// The option cannot be read or asks for an IOMMU.
    pub(super) fn read(config: &Config) -> Result<Self, String> {
        let option = parts(config, "machine")?;
        if option.get("viommu").is_some() {
            return Err(
                "option 'machine': a virtual IOMMU is not emulated by the engine qemu: leave viommu out".into(),
            );
        }
        let kind = option.get("type").unwrap_or("pc");
        // PVE's own revision of a version is about how its code lays out the command line.
        let kind = kind.split('+').next().unwrap_or(kind).to_owned();
        let q35 = kind.contains("q35");
        Ok(Self { kind, q35 })
    }
}

/// Processors, memory, clock and identity; the number of processors.
///
/// # Errors
/// An option that cannot be read.
pub(super) fn machine(config: &Config, accel: Accel, machine: &Machine, argv: &mut Argv) -> Result<u64, String> {
    let memory = memory_mib(config)?;
    if let Some(smbios) = smbios(config)? {
        argv.add("-smbios", smbios);
    }
    let sockets = number(config, "sockets")?.unwrap_or(1).max(1);
    let cores = number(config, "cores")?.unwrap_or(1).max(1);
    let most = sockets * cores;
    let now = number(config, "vcpus")?.unwrap_or(most).clamp(1, most);
    argv.add("-smp", format!("{now},sockets={sockets},cores={cores},maxcpus={most}"));
    argv.add("-cpu", super::cpu::cpu(config, accel)?);
    argv.add("-m", memory.to_string());
    if flag(config, "numa") == Some(true) {
        // One node a socket, as PVE divides.
        for node in 0..sockets {
            let share = memory / sockets;
            let cpus = format!("{}-{}", node * cores, (node + 1) * cores - 1);
            argv.add("-object", format!("memory-backend-ram,id=ram-node{node},size={share}M"));
            argv.add("-numa", format!("node,nodeid={node},cpus={cpus},memdev=ram-node{node}"));
        }
    }
    // PVE keeps guests from sleeping unless told otherwise.
    let option = parts(config, "machine")?;
    let pm = if machine.q35 { "ICH9-LPC" } else { "PIIX4_PM" };
    for (state, key) in [("s3", "enable-s3"), ("s4", "enable-s4")] {
        if option.get(key) != Some("1") {
            argv.add("-global", format!("{pm}.disable_{state}=1"));
        }
    }
    if machine.q35 && config.get("ostype").is_some_and(|os| os.starts_with("l2")) {
        // Without this Linux names its network cards otherwise than on PVE.
        argv.add("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
    }
    if let Some(clock) = clock(config) {
        argv.add("-rtc", clock);
    }
    if let Some(keyboard) = config.get("keyboard") {
        argv.add("-k", keyboard);
    }
    Ok(now)
}

/// Memory in MiB.
///
/// # Errors
/// The option is no number.
pub(super) fn memory_mib(config: &Config) -> Result<u64, String> {
    let option = parts(config, "memory")?;
    match option.get("current") {
        None => Ok(512),
        Some(text) => text
            .parse()
            .map_err(|_| format!("option 'memory': '{text}' is not a whole number")),
    }
}

fn smbios(config: &Config) -> Result<Option<String>, String> {
    let option = parts(config, "smbios1")?;
    if option.0.is_empty() {
        return Ok(None);
    }
    let encoded = option.get("base64") == Some("1");
    let mut text = "type=1".to_owned();
    for key in ["uuid", "manufacturer", "product", "version", "serial", "sku", "family"] {
        let Some(value) = option.get(key) else { continue };
        let value = if encoded && key != "uuid" {
            let bytes = STANDARD
                .decode(value)
                .map_err(|_| format!("option 'smbios1': '{key}' is not base64"))?;
            String::from_utf8_lossy(&bytes).into_owned()
        } else {
            value.to_owned()
        };
        let _ = write!(text, ",{key}={}", escape(&value));
    }
    Ok(Some(text))
}

/// `-rtc`, when it is not QEMU's default.
fn clock(config: &Config) -> Option<String> {
    let windows = config.get("ostype").is_some_and(|os| os.starts_with('w'));
    let local = flag(config, "localtime").unwrap_or(windows);
    let start = config.get("startdate").filter(|date| *date != "now");
    let base = match start {
        Some(date) => Some(date.clone()),
        None if local => Some("localtime".to_owned()),
        None => None,
    };
    let drift = flag(config, "tdf").unwrap_or(windows).then_some("driftfix=slew");
    match (drift, base) {
        (None, None) => None,
        (drift, base) => {
            let base = base.map(|base| format!("base={base}"));
            Some(
                drift
                    .map(str::to_owned)
                    .into_iter()
                    .chain(base)
                    .collect::<Vec<_>>()
                    .join(","),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Config {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for key in [
            "hostpci0",
            "usb1",
            "tpmstate0",
            "hugepages",
            "amd-sev",
            "numa0",
            "parallel0",
        ] {
            let error = check(&config(&[(key, "x")])).unwrap_err();
            assert!(error.starts_with(&format!("option '{key}' is not emulated")), "{error}");
        }
        assert_eq!(
            check(&config(&[("numa", "1"), ("arch", "x86_64"), ("cores", "2")])),
            Ok(())
        );
        let error = Machine::read(&config(&[("machine", "q35,viommu=virtio")])).unwrap_err();
        assert!(error.contains("IOMMU"), "{error}");
    }

    #[test]
    fn types_lose_pve_s_revision() {
        for (given, kind, q35) in [
            (None, "pc", false),
            (Some("q35"), "q35", true),
            (Some("pc-q35-7.2+pve1"), "pc-q35-7.2", true),
            (Some("pc-i440fx-7.2"), "pc-i440fx-7.2", false),
        ] {
            let config = given.iter().map(|m| ("machine".to_owned(), (*m).to_owned())).collect();
            let machine = Machine::read(&config).unwrap();
            assert_eq!((machine.kind.as_str(), machine.q35), (kind, q35));
        }
    }

    #[test]
    fn identity_and_clock() {
        let smbios1 = "uuid=7b10d7af-b932-4c66-b2c3-3996152ec465,serial=YSxi,base64=1";
        assert_eq!(
            smbios(&config(&[("smbios1", smbios1)])).unwrap().unwrap(),
            "type=1,uuid=7b10d7af-b932-4c66-b2c3-3996152ec465,serial=a,,b"
        );
        for (options, expected) in [
            (&[][..], None),
            (&[("ostype", "win11")][..], Some("driftfix=slew,base=localtime")),
            (&[("localtime", "1")][..], Some("base=localtime")),
            (&[("startdate", "2026-01-01")][..], Some("base=2026-01-01")),
        ] {
            assert_eq!(clock(&config(options)).as_deref(), expected, "{options:?}");
        }
    }
}
