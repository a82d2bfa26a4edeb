//! `VmConfig`: a VM's options as text, with typed views.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    lenient,
    property::{agent::Agent, boot::Boot, cpu::Cpu, drive::Drive, net::Net, smbios::Smbios1},
    tags::split_tags,
    unit::MiB,
};
use crate::error::Error;

/// The configuration of a VM: option to text, ordered by option, nothing lost.
///
/// Numbers and booleans are kept as the text that PVE would write (`FACTS` 24). The digest is beside the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmConfig {
    options: BTreeMap<String, String>,
    digest: Option<String>,
}

impl VmConfig {
    /// Takes what `/nodes/{node}/qemu/{vmid}/config` answers, also to a call that was made untyped. A value that is no scalar is kept as
    /// its JSON.
    pub fn from_json(map: Map<String, Value>) -> Self {
        let mut config = Self::default();
        for (option, value) in map {
            if value.is_null() {
                continue;
            }
            let text = lenient::as_text(&value).unwrap_or_else(|| value.to_string());
            if option == "digest" {
                config.digest = Some(text);
            } else {
                config.options.insert(option, text);
            }
        }
        config
    }

    /// The hash over the configuration, for compare-and-set: the same content has the same digest (`FACTS` 37).
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// An option's text.
    pub fn get(&self, option: &str) -> Option<&str> {
        self.options.get(option).map(String::as_str)
    }

    /// All options, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options
            .iter()
            .map(|(option, text)| (option.as_str(), text.as_str()))
    }

    /// The VM's name.
    pub fn name(&self) -> Option<&str> {
        self.get("name")
    }

    /// The description; PVE strips newlines from its end (`FACTS` 31).
    pub fn description(&self) -> Option<&str> {
        self.get("description")
    }

    /// The tags, in PVE's order.
    pub fn tags(&self) -> Vec<String> {
        self.get("tags").map(split_tags).unwrap_or_default()
    }

    /// Is the VM a template?
    pub fn is_template(&self) -> bool {
        self.flag("template").unwrap_or(false)
    }

    /// What PVE holds the VM locked for, for example `create` or `backup`.
    pub fn lock(&self) -> Option<&str> {
        self.get("lock")
    }

    /// The memory. PVE's default of 512 MiB is not filled in.
    pub fn memory(&self) -> Option<MiB> {
        // `current=2048` is the same since memory became a property string in PVE 8.
        let text = self.get("memory")?;
        text.strip_prefix("current=")
            .unwrap_or(text)
            .split(',')
            .next()?
            .parse()
            .ok()
            .map(MiB)
    }

    /// A boolean option, for example `onboot`.
    pub fn flag(&self, option: &str) -> Option<bool> {
        self.get(option).and_then(lenient::bool_of_text)
    }

    /// The drive at a slot such as `scsi0`, `ide2`, `efidisk0` or `unused0`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the text is not a property string.
    pub fn disk(&self, slot: &str) -> Result<Option<Drive>, Error> {
        self.view(slot)
    }

    /// All drives with their slots, CD drives and unused disks included.
    pub fn drives(&self) -> impl Iterator<Item = (&str, Drive)> {
        self.iter()
            .filter(|(option, _)| is_drive_slot(option))
            .filter_map(|(slot, text)| Some((slot, text.parse().ok()?)))
    }

    /// The network device `net{index}`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the text is not a property string.
    pub fn net(&self, index: u32) -> Result<Option<Net>, Error> {
        self.view(&format!("net{index}"))
    }

    /// The CPU type.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the text is not a property string.
    pub fn cpu(&self) -> Result<Option<Cpu>, Error> {
        self.view("cpu")
    }

    /// The boot order.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the text is not a property string.
    pub fn boot(&self) -> Result<Option<Boot>, Error> {
        self.view("boot")
    }

    /// The guest agent's channel.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the text is not a property string.
    pub fn agent(&self) -> Result<Option<Agent>, Error> {
        self.view("agent")
    }

    /// The SMBIOS texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the text is not a property string.
    pub fn smbios1(&self) -> Result<Option<Smbios1>, Error> {
        self.view("smbios1")
    }

    fn view<T: std::str::FromStr<Err = Error>>(&self, option: &str) -> Result<Option<T>, Error> {
        self.get(option)
            .map(|text| {
                text.parse().map_err(|error| match error {
                    Error::Invalid { reason, .. } => Error::invalid(option, reason),
                    other => other,
                })
            })
            .transpose()
    }
}

/// Is it an option that names a drive?
///
/// # Source
/// The options with `file` as their default key in the API schema.
pub(crate) fn is_drive_slot(option: &str) -> bool {
    let digits = option.bytes().rev().take_while(u8::is_ascii_digit).count();
    let bus = &option[..option.len() - digits];
    digits > 0 && ["ide", "sata", "scsi", "virtio", "efidisk", "tpmstate", "unused"].contains(&bus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> VmConfig {
        let json = r#"{"digest":"b8c71ea31ace2d3fd4d2ce44dc5b02c37dda1a63","tags":"alma9;build;k3simage","reboot":0,
            "sata0":"local:iso/guest.iso,media=cdrom,size=18700K","name":"alma9-k3-build","agent":"1,fstrim_cloned_disks=1",
            "net0":"virtio=BC:24:11:23:DA:1A,bridge=vmbr0","cpu":"x86-64-v2-AES","memory":"2048","cores":2,"parent":null,
            "efidisk0":"local-lvm:9000/vm-9000-disk-0.raw,efitype=4m,pre-enrolled-keys=0,size=528K","boot":"order=scsi0;sata0",
            "scsi0":"local-lvm:9000/vm-9000-disk-1.raw,discard=on,iothread=1,size=32G,ssd=1","scsihw":"virtio-scsi-single",
            "smbios1":"uuid=11111111-2222-3333-4444-555555555555","description":"k3simage build 7f3a\nsecond line: äö"}"#;
        VmConfig::from_json(serde_json::from_str(json).expect("recorded"))
    }

    #[test]
    fn typed_views_of_a_recorded_config() {
        let config = recorded();
        assert_eq!(config.digest(), Some("b8c71ea31ace2d3fd4d2ce44dc5b02c37dda1a63"));
        assert_eq!(config.get("digest"), None);
        assert_eq!(config.get("cores"), Some("2"));
        assert_eq!(config.get("parent"), None);
        assert_eq!(config.flag("reboot"), Some(false));
        assert_eq!(config.memory(), Some(MiB(2048)));
        assert_eq!(config.tags(), ["alma9", "build", "k3simage"]);
        assert!(!config.is_template() && config.lock().is_none());
        assert_eq!(
            config.boot().expect("parses").expect("is set").devices(),
            ["scsi0", "sata0"]
        );
        assert!(config.agent().expect("parses").expect("is set").is_enabled());
        assert_eq!(
            config.cpu().expect("parses").expect("is set").cputype(),
            Some("x86-64-v2-AES")
        );
        assert_eq!(config.net(0).expect("parses").expect("is set").bridge(), Some("vmbr0"));
        assert!(config.net(1).expect("parses").is_none());
        let slots: Vec<&str> = config.drives().map(|(slot, _)| slot).collect();
        assert_eq!(slots, ["efidisk0", "sata0", "scsi0"]);
        assert!(config.smbios1().expect("parses").expect("is set").uuid().is_some());
    }

    #[test]
    fn a_broken_option_names_itself() {
        let config = VmConfig::from_json(serde_json::from_str(r#"{"scsi0":"a,b"}"#).expect("json"));
        let text = config.disk("scsi0").expect_err("two bare values").to_string();
        assert!(text.contains("scsi0"), "{text}");
        assert_eq!(config.drives().count(), 0);
    }

    #[test]
    fn drive_slots() {
        for (option, is) in [
            ("scsi0", true),
            ("unused12", true),
            ("scsihw", false),
            ("ide", false),
            ("net0", false),
            ("", false),
        ] {
            assert_eq!(is_drive_slot(option), is, "{option:?}");
        }
    }
}
