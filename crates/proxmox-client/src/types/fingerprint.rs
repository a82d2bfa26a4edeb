//! The SHA-256 fingerprint of a certificate.

use sha2::{Digest, Sha256};

use crate::error::Error;

/// SHA-256 over a certificate's DER form, as `AC:8D:...` in PVE's web interface and in `pvenode cert info`.
///
/// Parses with colons or without, in either case; prints as PVE does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes the fingerprint of a certificate in DER form.
    pub fn of_der(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::invalid(
                "fingerprint",
                "not a SHA-256 fingerprint: 64 hexadecimal digits are needed, with or without colons; \
                 `pvenode cert info` on the node prints it",
            )
        };
        let text = text.trim();
        let digits: String = if text.contains(':') {
            let pairs: Vec<&str> = text.split(':').collect();
            if pairs.iter().any(|pair| pair.len() != 2) {
                return Err(bad());
            }
            pairs.concat()
        } else {
            text.to_owned()
        };
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str =
        "AC:8D:4D:EF:5D:B6:E1:EA:BD:82:40:B3:03:2C:40:5D:03:9C:D7:6F:A2:B3:E7:62:45:3B:BB:78:42:54:C6:B4";

    #[test]
    fn both_spellings_are_one() {
        let with: Fingerprint = RECORDED.parse().expect("recorded");
        let without: Fingerprint = RECORDED.replace(':', "").to_lowercase().parse().expect("plain");
        assert_eq!(with, without);
        assert_eq!(with.to_string(), RECORDED);
    }

    #[test]
    fn wrong_lengths_and_digits_are_errors() {
        for bad in [
            "",
            "AC",
            &RECORDED[3..],
            &format!("{RECORDED}:00"),
            &RECORDED.replace('A', "G"),
            "A:C8D",
            &RECORDED.replace(':', "-"),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_empty_message() {
        // SHA-256 of nothing, from FIPS 180-4's example values.
        let text = Fingerprint::of_der(b"").to_string();
        assert!(text.starts_with("E3:B0:C4:42:98:FC:1C:14"), "{text}");
    }
}
