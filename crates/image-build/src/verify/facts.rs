//! What a clone tells of itself over SSH: two small scripts, and their answers.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Gathers everything that is compared.
pub(super) const FACTS: &str = include_str!("facts.sh");
/// Tells how far the boot is.
pub(super) const STATE: &str = include_str!("state.sh");

/// The answer of a script: names with their values, in the order told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(Vec<(String, String)>);

impl Facts {
    /// Reads lines `NAME=VALUE`; other lines are no facts.
    pub(super) fn parse(text: &str) -> Self {
        let facts = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Self(facts.collect())
    }

    /// A value that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Every value of a name.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Facts about several things of one kind, `KIND THING=VALUE`: thing and value.
    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| {
            let thing = name.strip_prefix(kind)?.strip_prefix(' ')?;
            Some((thing, value.as_str()))
        })
    }

    /// State of a unit as `systemctl is-active` words it.
    pub(super) fn unit(&self, name: &str) -> &str {
        self.of_kind("unit")
            .find_map(|(unit, state)| (unit == name).then_some(state))
            .unwrap_or_default()
    }

    /// Host keys by their kind: `ssh-ed25519` with its base64.
    pub(super) fn host_keys(&self) -> BTreeMap<&str, &str> {
        self.all("host_key").filter_map(|line| line.split_once(' ')).collect()
    }

    /// Whether the image carries k3s as k3simage lays it down.
    pub(super) fn has_k3s(&self) -> bool {
        self.get("image_role").is_some()
    }
}

/// The hash that the script makes of a secret.
pub(super) fn hash(salt: &str, secret: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(secret);
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let facts = Facts::parse(
            "hostname=a\nunit k3s=active\nauthorized /root=ssh-ed25519 AAAA=\nauthorized /root=x\nhost_key=ssh-rsa AAA=\nnoise\nselinux=\n",
        );
        assert_eq!(facts.get("hostname"), Some("a"));
        assert_eq!(facts.get("selinux"), None);
        assert_eq!((facts.unit("k3s"), facts.unit("sshd")), ("active", ""));
        let lines: Vec<_> = facts.of_kind("authorized").collect();
        assert_eq!(lines, [("/root", "ssh-ed25519 AAAA="), ("/root", "x")]);
        assert_eq!(facts.host_keys()["ssh-rsa"], "AAA=");
        assert!(!facts.has_k3s());
    }
}
