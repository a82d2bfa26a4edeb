//! `KickstartText`: a kickstart that may hold secrets, so that it is shown to nobody by accident.

use std::fmt;

use secrecy::SecretString;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The text of a kickstart. `Debug` hides it and serde gives only its SHA-256, because passwords and private keys can
/// stand in it.
#[derive(Clone)]
pub struct KickstartText {
    text: String,
    secrets: Vec<SecretString>,
}

/// What it installs is all that counts.
impl PartialEq for KickstartText {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for KickstartText {}

impl KickstartText {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            secrets: Vec::new(),
        }
    }

    /// Names values in it that the guest's console must not show: an installer that stops at a line prints it.
    #[must_use]
    pub fn with_secrets(self, secrets: impl IntoIterator<Item = SecretString>) -> Self {
        Self {
            secrets: secrets.into_iter().collect(),
            ..self
        }
    }

    pub(crate) fn secrets(&self) -> &[SecretString] {
        &self.secrets
    }

    /// The same secrets in another text.
    pub(super) fn with_text(&self, text: String) -> Self {
        Self {
            text,
            secrets: self.secrets.clone(),
        }
    }

    /// The text, for the installer's eyes only.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the text, in hex.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.text))
    }
}

impl fmt::Debug for KickstartText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KickstartText({} bytes)", self.text.len())
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
