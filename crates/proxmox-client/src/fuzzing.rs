//! The parsers with what must hold of them, for the targets in `fuzz/` and the replay of their corpora.

use std::fmt::{Debug, Display};
use std::str::{FromStr, from_utf8};

use crate::{
    Agent, Boot, Cpu, Drive, Error, Net, PropertyString, Smbios1, StorageId, Upid, VolId, disk_size_bytes,
    normalise_tags, split_tags,
};

/// What is printed reads as the same value again.
fn settles<T: FromStr<Err = Error> + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let printed = value.to_string();
    assert!(printed.len() <= text.len(), "{text:?} grew to {printed:?}");
    assert_eq!(printed.parse::<T>().expect("what we print we can read"), value);
    Some(value)
}

/// Property strings of every kind, tags and sizes.
///
/// # Panics
/// When a property does not hold.
pub fn property_string(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    for default_key in ["file", "model", ""] {
        let Ok(parsed) = PropertyString::parse(text, default_key) else {
            continue;
        };
        let printed = parsed.to_string();
        assert_eq!(
            PropertyString::parse(&printed, default_key).expect("printed by us"),
            parsed
        );
        for (key, value) in parsed.pairs() {
            assert_eq!(parsed.get(key), Some(value), "{key:?} comes once");
            let mut again = parsed.clone();
            if again.set(key, value).is_ok() {
                assert_eq!(again, parsed, "setting what is there changes nothing");
            }
            again.remove(key);
            assert_eq!(again.get(key), None);
        }
    }
    if let Some(drive) = settles::<Drive>(text) {
        let _ = (
            drive.volid(),
            drive.is_cdrom(),
            drive.is_cloud_init(),
            drive.size_bytes(),
        );
    }
    if let Some(net) = settles::<Net>(text) {
        let bridge = net.bridge().map(str::to_owned);
        let _ = net.model();
        let moved = net.with_mac("BC:24:11:00:00:02").expect("a good address");
        assert_eq!(moved.mac(), Some("BC:24:11:00:00:02"));
        assert_eq!(moved.bridge().map(str::to_owned), bridge, "nothing else changes");
    }
    if let Some(boot) = settles::<Boot>(text) {
        assert!(boot.devices().iter().all(|device| !device.is_empty()));
    }
    if let Some(smbios) = settles::<Smbios1>(text)
        && let Ok(set) = smbios.with_text("product", "k3s, and more")
    {
        assert_eq!(set.text("product").as_deref(), Some("k3s, and more"));
    }
    let _ = settles::<Cpu>(text).map(|cpu| cpu.flags().len());
    let _ = settles::<Agent>(text).map(|agent| agent.is_enabled());
    let _ = disk_size_bytes(text);
    if let Ok(tags) = normalise_tags([text]) {
        assert_eq!(normalise_tags(split_tags(&tags)).expect("already in form"), tags);
    }
}

/// UPIDs. Tells whether it is one.
///
/// # Panics
/// When a property does not hold.
pub fn upid(data: &[u8]) -> bool {
    let Ok(text) = from_utf8(data) else { return false };
    let Some(upid) = settles::<Upid>(text) else {
        return false;
    };
    assert_eq!(upid.to_string(), text);
    assert!(text.starts_with(&format!("UPID:{}:", upid.node())));
    let end = format!(":{}:{}:{}:", upid.kind(), upid.id(), upid.user());
    let begin = text.strip_suffix(&end).expect("the last parts stand at the end");
    let start = begin.rsplit(':').next().unwrap_or_default();
    assert_eq!(start.to_uppercase(), format!("{:08X}", upid.start_epoch_seconds()));
    true
}

/// Volume ids. Tells whether it is one.
///
/// # Panics
/// When a property does not hold.
pub fn volid(data: &[u8]) -> bool {
    let Ok(text) = from_utf8(data) else { return false };
    // The name of a storage alone must survive too.
    let _ = settles::<StorageId>(text);
    let Some(volid) = settles::<VolId>(text) else {
        return false;
    };
    assert_eq!(volid.to_string(), text);
    assert_eq!(VolId::of(&volid.storage(), volid.name()).expect("same parts"), volid);
    assert!(!volid.file_name().is_empty() && volid.name().ends_with(volid.file_name()));
    assert!(
        volid.name().split('/').all(|part| !matches!(part, "" | "." | "..")),
        "{text:?} leads elsewhere"
    );
    true
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn corpora() {
        replay("property_string", super::property_string);
        replay("upid", |data| {
            super::upid(data);
        });
        replay("volid", |data| {
            super::volid(data);
        });
    }
}
