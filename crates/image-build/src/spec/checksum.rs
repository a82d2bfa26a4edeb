//! `Checksum`: `sha256:...`, as `alma_iso_checksum` has it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

words! {
    /// A checksum's algorithm, spelled as PVE's upload and download calls want it.
    ///
    /// # Source
    /// `checksum-algorithm` of `storage/{storage}/upload` in the API schema.
    ChecksumAlgorithm, "a checksum algorithm" {
        /// 128 bits; broken, only for old lists.
        Md5 => "md5",
        /// 160 bits; broken, only for old lists.
        Sha1 => "sha1",
        /// 224 bits.
        Sha224 => "sha224",
        /// 256 bits; what AlmaLinux publishes.
        Sha256 => "sha256",
        /// 384 bits.
        Sha384 => "sha384",
        /// 512 bits.
        Sha512 => "sha512",
    }
}

impl ChecksumAlgorithm {
    /// How many hex digits a checksum has.
    pub const fn hex_digits(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha224 => 56,
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    /// Whether two files of the same sum can be made.
    ///
    /// # Source
    /// [RFC 6151](https://www.rfc-editor.org/rfc/rfc6151) for MD5, [SHAttered](https://shattered.io) for SHA-1.
    pub const fn is_weak(self) -> bool {
        matches!(self, Self::Md5 | Self::Sha1)
    }

    const ALL: [Self; 6] = [
        Self::Md5,
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
    ];
}

/// A checksum with its algorithm; the digits are lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Checksum {
    algorithm: ChecksumAlgorithm,
    hex: String,
}

/// Why a text is not a checksum.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is no checksum: {reason}")]
pub struct ChecksumError {
    text: String,
    reason: String,
}

impl Checksum {
    /// The algorithm.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// The digits, lower case.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

/// Reads `sha256:DIGITS`, or the digits alone, whose number then tells the algorithm.
impl FromStr for Checksum {
    type Err = ChecksumError;
    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        let bad = |reason: String| ChecksumError {
            text: text.to_owned(),
            reason,
        };
        let (algorithm, digits) = match text.split_once(':') {
            Some((word, digits)) => (
                Some(
                    word.to_ascii_lowercase()
                        .parse()
                        .map_err(|error| bad(format!("{error}")))?,
                ),
                digits,
            ),
            None => (None, text),
        };
        if digits.contains("...") || digits.contains('\u{2026}') {
            return Err(bad("it is a placeholder".to_owned()));
        }
        let count = digits.chars().count();
        let algorithm = match algorithm {
            Some(algorithm) => algorithm,
            None => ChecksumAlgorithm::ALL
                .into_iter()
                .find(|algorithm| algorithm.hex_digits() == count)
                .ok_or_else(|| bad("the form is sha256: and 64 hex digits".to_owned()))?,
        };
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad(format!("what follows `{algorithm}:` must be hex digits only")));
        }
        if count != algorithm.hex_digits() {
            return Err(bad(format!(
                "{algorithm} has {} hex digits, these are {count}",
                algorithm.hex_digits()
            )));
        }
        Ok(Self {
            algorithm,
            hex: digits.to_ascii_lowercase(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let digits = "AB".repeat(32);
        for text in [format!("sha256:{digits}"), digits.clone(), format!("SHA256:{digits}")] {
            let checksum: Checksum = text.parse().expect("well formed");
            assert_eq!(checksum.algorithm(), ChecksumAlgorithm::Sha256);
            assert_eq!(checksum.to_string(), format!("sha256:{}", digits.to_lowercase()));
        }
        assert_eq!(
            "c".repeat(128).parse::<Checksum>().unwrap().algorithm(),
            ChecksumAlgorithm::Sha512
        );
        for (text, reason) in [
            ("sha256:abc123...", "placeholder"),
            ("sha256:abc123", "64 hex digits, these are 6"),
            ("sha256:", "64 hex digits, these are 0"),
            ("crc32:00", "`crc32` is not a checksum algorithm"),
            (
                "file:https://example.com/CHECKSUM",
                "`file` is not a checksum algorithm",
            ),
            ("abc", "the form is"),
            ("", "the form is"),
            (&"g".repeat(64), "hex digits only"),
        ] {
            let error = text.parse::<Checksum>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
