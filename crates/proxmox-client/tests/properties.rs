//! Any text given to a parser is a value that prints as it was read, or an error: never a panic.

use proptest::prelude::*;
use proxmox_client::{
    Agent, Boot, Checksum, Cpu, Drive, Error, Fingerprint, Net, Release, Smbios1, Upid, Vmid, VolId, disk_size_bytes,
    normalise_tags, split_tags,
};

/// Texts that come close: keys, values and separators of property strings in any order.
fn near_property_strings() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("file".to_owned()),
        Just("local:32".to_owned()),
        Just("local:iso/a.iso".to_owned()),
        Just("media=cdrom".to_owned()),
        Just("virtio=BC:24:11:23:DA:1A".to_owned()),
        Just("order=scsi0;ide2".to_owned()),
        Just("base64=1".to_owned()),
        Just("serial=AAAA".to_owned()),
        Just("size=32G".to_owned()),
        "[ -~ä\n\t]{0,8}",
        "[a-z]{1,6}=[ -~]{0,8}",
    ];
    proptest::collection::vec(word, 0..5).prop_map(|words| words.join(","))
}

/// Printed and read again it is the same value.
fn settles<T: std::str::FromStr<Err = Error> + std::fmt::Display + PartialEq + std::fmt::Debug>(
    text: &str,
) -> Option<T> {
    let value: T = text.parse().ok()?;
    let again: T = value.to_string().parse().expect("what we print we can read");
    assert_eq!(again, value, "from {text:?}");
    Some(value)
}

proptest! {
    #[test]
    fn property_strings(text in near_property_strings()) {
        if let Some(drive) = settles::<Drive>(&text) {
            let _ = (drive.volid(), drive.is_cdrom(), drive.is_cloud_init(), drive.size_bytes());
            let with = drive.clone().ssd(true);
            prop_assert_eq!(with.get("ssd"), Some("1"));
            prop_assert!(drive.without("ssd").get("ssd").is_none());
        }
        if let Some(net) = settles::<Net>(&text) {
            let bridge = net.bridge().map(str::to_owned);
            let _ = (net.model(), net.mac());
            let moved = net.with_mac("BC:24:11:00:00:02").expect("a good address");
            prop_assert_eq!(moved.bridge().map(str::to_owned), bridge, "nothing else changes");
        }
        if let Some(boot) = settles::<Boot>(&text) {
            prop_assert!(boot.devices().iter().all(|device| !device.is_empty()));
        }
        if let Some(smbios) = settles::<Smbios1>(&text) {
            let uuid = smbios.uuid().map(str::to_owned);
            let _ = smbios.text("serial");
            if let Ok(set) = smbios.with_text("product", "k3s, and more") {
                prop_assert_eq!(set.text("product"), Some("k3s, and more".to_owned()));
                prop_assert_eq!(set.uuid().map(str::to_owned), uuid);
            }
        }
        let _ = settles::<Cpu>(&text).map(|cpu| cpu.flags().len());
        let _ = settles::<Agent>(&text).map(|agent| agent.is_enabled());
    }

    #[test]
    fn any_text(text in "\\PC{0,100}") {
        let _ = (settles::<Upid>(&text), settles::<VolId>(&text), settles::<Vmid>(&text), settles::<Fingerprint>(&text));
        let _ = (Checksum::parse(&text), Release::parse(&text), disk_size_bytes(&text), split_tags(&text));
        if let Ok(tags) = normalise_tags([&text]) {
            prop_assert_eq!(normalise_tags(split_tags(&tags)).expect("already in form"), tags);
        }
    }

    #[test]
    fn fingerprints(bytes: [u8; 32]) {
        let fingerprint = Fingerprint::from(bytes);
        prop_assert_eq!(settles::<Fingerprint>(&fingerprint.to_string()), Some(fingerprint));
    }

    #[test]
    fn vmids(number: u32) {
        match Vmid::new(number) {
            Ok(vmid) => prop_assert_eq!(settles::<Vmid>(&number.to_string()), Some(vmid)),
            Err(_) => prop_assert!(!(100..=999_999_999).contains(&number)),
        }
    }
}
