//! `KickstartText`: a kickstart that may hold secrets, so that it is shown to nobody by accident.

use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The text of a kickstart. `Debug` hides it and serde gives only its SHA-256, because passwords and private keys can
/// stand in it.
#[derive(Clone, PartialEq, Eq)]
pub struct KickstartText(String);

impl KickstartText {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the installer's eyes only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the text, in hex.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.0))
    }
}

impl fmt::Debug for KickstartText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KickstartText({} bytes)", self.0.len())
    }
}

impl Serialize for KickstartText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.sha256())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_not_shown() {
        let text = KickstartText::new("rootpw --plaintext geheim\n");
        assert_eq!(format!("{text:?}"), "KickstartText(26 bytes)");
        assert!(!serde_json::to_string(&text).unwrap().contains("geheim"));
        assert_eq!(text.expose(), "rootpw --plaintext geheim\n");
    }
}
