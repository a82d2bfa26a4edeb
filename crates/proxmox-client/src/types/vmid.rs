//! `Vmid`: the number of a VM or container.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Error;

/// The number of a guest, unique in the cluster: 100 to 999,999,999.
///
/// # Source
/// Format `pve-vmid` of the API schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Vmid(u32);

impl Vmid {
    /// The least number that PVE accepts.
    pub const MIN: Self = Self(100);
    /// The greatest number that PVE accepts.
    pub const MAX: Self = Self(999_999_999);

    /// Checks and takes `number`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it lies outside of 100..=999,999,999.
    pub fn new(number: u32) -> Result<Self, Error> {
        if (Self::MIN.0..=Self::MAX.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(Error::invalid(
                "vmid",
                format!("{number} is out of range: PVE takes 100 to 999999999"),
            ))
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for Vmid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Vmid {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let digits_only = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits_only => Self::new(number),
            _ => Err(Error::invalid(
                "vmid",
                format!("{text:?} is not a number from 100 to 999999999"),
            )),
        }
    }
}

impl TryFrom<u32> for Vmid {
    type Error = Error;
    fn try_from(number: u32) -> Result<Self, Error> {
        Self::new(number)
    }
}

impl From<Vmid> for u32 {
    fn from(vmid: Vmid) -> u32 {
        vmid.0
    }
}

impl<'de> Deserialize<'de> for Vmid {
    /// Takes a number or a text: `/cluster/nextid` answers the text `"100"` (`FACTS` 24).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = super::lenient::u64(deserializer)?;
        u32::try_from(number)
            .ok()
            .and_then(|number| Self::new(number).ok())
            .ok_or_else(|| serde::de::Error::custom(format!("{number} is not a vmid (100 to 999999999)")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_and_forms() {
        for (text, good) in [
            ("100", true),
            ("999999999", true),
            ("99", false),
            ("1000000000", false),
            ("+100", false),
        ] {
            assert_eq!(text.parse::<Vmid>().is_ok(), good, "{text}");
        }
        for bad in ["", "abc", "1e3", " 100", "100 ", "99999999999999999999"] {
            assert!(bad.parse::<Vmid>().is_err(), "{bad:?}");
        }
        for (json, good) in [
            ("100", true),
            ("\"100\"", true),
            ("99", false),
            ("\"x\"", false),
            ("-1", false),
            ("null", false),
        ] {
            assert_eq!(serde_json::from_str::<Vmid>(json).is_ok(), good, "{json}");
        }
    }
}
