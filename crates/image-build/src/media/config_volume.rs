//! The `K3SIMAGE` volume: what a clone is told at its first boot, for a Proxmox VE whose API can upload ISO files and no snippets.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// The label that the first-boot unit looks for (`scripts/k3s-install.sh`).
pub const CONFIG_VOLUME_LABEL: &str = "K3SIMAGE";

/// What a clone is told: the k3s role, and for one that joins the server and the token to join with.
#[derive(Clone)]
pub struct ConfigVolume {
    role: &'static str,
    join: Option<(String, SecretString)>,
}

impl fmt::Debug for ConfigVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigVolume")
            .field("role", &self.role)
            .field("url", &self.join.as_ref().map(|(url, _)| url))
            .finish_non_exhaustive()
    }
}

/// Why there is no volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigVolumeError {
    /// A value that would become a line of its own, or that the first boot would read as another.
    #[error("{name} cannot be told to a clone: it holds a blank, a quote or a control character, or nothing")]
    Value {
        /// The setting: `K3S_URL`, `K3S_TOKEN`.
        name: &'static str,
    },
    /// A failure of the writer of ISO 9660.
    #[error("laying out the volume {CONFIG_VOLUME_LABEL}")]
    Layout(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ConfigVolume {
    /// For an agent that joins the server at `url` (`https://NAME:6443`) with `token`.
    pub fn agent(url: impl Into<String>, token: SecretString) -> Self {
        Self {
            role: "agent",
            join: Some((url.into(), token)),
        }
    }

    /// The bytes of the ISO 9660 volume with the file `k3simage.env`.
    ///
    /// # Errors
    /// A value cannot stand in the file, or the writer of ISO 9660 failed.
    pub fn to_iso(&self) -> Result<Vec<u8>, ConfigVolumeError> {
        let role = self.role;
        let text = match &self.join {
            None => format!("K3S_ROLE={role}\n"),
            Some((url, token)) => {
                let token = token.expose_secret();
                // Lines of NAME=value, which the first boot takes without quotes around the whole.
                let fits = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'');
                for (name, value) in [("K3S_URL", url.as_str()), ("K3S_TOKEN", token)] {
                    if value.is_empty() || !value.chars().all(fits) {
                        return Err(ConfigVolumeError::Value { name });
                    }
                }
                format!("K3S_ROLE={role}\nK3S_URL={url}\nK3S_TOKEN={token}\n")
            }
        };
        super::volume::volume(CONFIG_VOLUME_LABEL, "k3simage.env", text.as_bytes()).map_err(ConfigVolumeError::Layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volume_carries_its_label_and_the_lines() {
        let volume = ConfigVolume::agent("https://10.0.0.5:6443", SecretString::from("K10abc::server:canary"));
        let bytes = volume.to_iso().unwrap();
        assert_eq!(bytes[16 * 2048 + 40..16 * 2048 + 72].trim_ascii_end(), b"K3SIMAGE");
        let wanted = b"K3S_ROLE=agent\nK3S_URL=https://10.0.0.5:6443\nK3S_TOKEN=K10abc::server:canary\n";
        assert!(bytes.windows(wanted.len()).any(|window| window == wanted));
        assert_eq!(bytes, volume.to_iso().unwrap());
        assert!(!format!("{volume:?}").contains("canary"), "{volume:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_arrives_as_one_line_or_is_refused(url in "(\\PC|[\n\r \"'=#]){0,20}", token in "(\\PC|[\n\r \"'=#]){0,20}") {
            let volume = ConfigVolume::agent(url.clone(), SecretString::from(token.clone()));
            if let Ok(bytes) = volume.to_iso() {
                let text = format!("K3S_ROLE=agent\nK3S_URL={url}\nK3S_TOKEN={token}\n");
                proptest::prop_assert_eq!(text.lines().count(), 3);
                let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
                proptest::prop_assert!(at.is_some());
            }
        }
    }

    #[test]
    fn another_role_cannot_be_smuggled_in() {
        for (url, token, name) in [
            ("https://a:6443\nK3S_ROLE=server", "t", "K3S_URL"),
            ("https://a:6443", "t\rK3S_ARGS=--x", "K3S_TOKEN"),
            ("https://a:6443", "\"t\"", "K3S_TOKEN"),
            ("https://a:6443", "", "K3S_TOKEN"),
        ] {
            let error = ConfigVolume::agent(url, SecretString::from(token))
                .to_iso()
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(name) && !error.contains("K3S_ARGS"), "{error}");
        }
    }
}
