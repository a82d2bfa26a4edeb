//! A VM's configuration: options in effect, pending changes, snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha1::{Digest, Sha1};

use crate::schema::Schema;

/// Option name to its text.
pub(crate) type ConfigMap = BTreeMap<String, String>;

/// A snapshot: the configuration at that time and what the snapshot itself carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) config: ConfigMap,
    /// Epoch seconds.
    pub(crate) time: u64,
    pub(crate) description: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) vmstate: bool,
}

/// A VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) node: String,
    /// Options in effect: what the running process has, or what the next start uses.
    pub(crate) config: ConfigMap,
    /// New values that wait for a stop (`FACTS` 39).
    #[serde(default)]
    pub(crate) pending: ConfigMap,
    /// Options whose removal waits for a stop.
    #[serde(default)]
    pub(crate) pending_delete: BTreeSet<String>,
    #[serde(default)]
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    /// The options that the cloud-init drive of the running guest was made from.
    #[serde(default)]
    pub(crate) cloudinit: Option<ConfigMap>,
}

impl Machine {
    /// Options as they will be after the next stop.
    pub(crate) fn effective(&self) -> ConfigMap {
        let mut config = self.config.clone();
        config.retain(|key, _| !self.pending_delete.contains(key));
        config.extend(self.pending.clone());
        config
    }

    /// Puts pending changes into effect.
    pub(crate) fn apply_pending(&mut self) {
        self.config = self.effective();
        self.pending.clear();
        self.pending_delete.clear();
    }

    pub(crate) fn is_template(&self) -> bool {
        self.config.get("template").is_some_and(|t| t == "1")
    }

    pub(crate) fn name(&self, vmid: u32) -> String {
        self.effective()
            .get("name")
            .cloned()
            .unwrap_or_else(|| format!("VM {vmid}"))
    }

    /// SHA-1 over the configuration as PVE writes its file: the same content has the same digest (`FACTS` 37).
    pub(crate) fn digest(&self) -> String {
        let mut text = section(&self.config);
        if !self.pending.is_empty() || !self.pending_delete.is_empty() {
            text.push_str("\n[PENDING]\n");
            if !self.pending_delete.is_empty() {
                let list: Vec<&str> = self.pending_delete.iter().map(String::as_str).collect();
                let _ = writeln!(text, "delete: {}", list.join(","));
            }
            text.push_str(&section(&self.pending));
        }
        for (name, snapshot) in &self.snapshots {
            let _ = writeln!(
                text,
                "\n[{name}]\n{}snaptime: {}",
                section(&snapshot.config),
                snapshot.time
            );
        }
        hex::encode(Sha1::digest(text))
    }
}

fn section(config: &ConfigMap) -> String {
    let mut text = String::new();
    for line in config.get("description").iter().flat_map(|d| d.lines()) {
        let _ = writeln!(text, "#{line}");
    }
    for (key, value) in config.iter().filter(|(k, _)| *k != "description") {
        let _ = writeln!(text, "{key}: {value}");
    }
    text
}

/// An option as the API shows it: numbers where the schema says integer or boolean, texts otherwise (`FACTS` 24).
pub(crate) fn typed(key: &str, text: &str) -> Value {
    let create = Schema::get().find("POST", "/nodes/x/qemu").map(|f| f.endpoint);
    let kind = create.and_then(|e| e.property(key)).and_then(|p| p.kind.as_deref());
    match kind {
        Some("integer" | "boolean") => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
        Some("number") => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(whole), _) => whole.into(),
            (_, Ok(number)) => number.into(),
            _ => text.into(),
        },
        _ => text.into(),
    }
}

/// A configuration as a JSON object.
pub(crate) fn typed_map(config: &ConfigMap) -> Map<String, Value> {
    config
        .iter()
        .filter(|(k, _)| *k != "cipassword")
        .map(|(k, v)| (k.clone(), typed(k, v)))
        .chain(
            config
                .get("cipassword")
                .map(|_| ("cipassword".to_owned(), Value::from("**********"))),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_has_the_same_digest() {
        let mut machine = Machine {
            node: "pve".into(),
            ..Machine::default()
        };
        machine.config.insert("cores".into(), "2".into());
        let first = machine.digest();
        machine.config.insert("cores".into(), "4".into());
        assert_ne!(machine.digest(), first);
        machine.config.insert("cores".into(), "2".into());
        assert_eq!(machine.digest(), first);
        machine.pending_delete.insert("cores".into());
        assert_ne!(machine.digest(), first, "pending changes count too");
    }

    #[test]
    fn pending_changes_wait() {
        let config = BTreeMap::from([("cores".into(), "2".into()), ("numa".into(), "0".into())]);
        let mut machine = Machine {
            config,
            ..Machine::default()
        };
        machine.pending.insert("cores".into(), "4".into());
        machine.pending_delete.insert("numa".into());
        assert_eq!(
            machine.effective(),
            BTreeMap::from([("cores".to_owned(), "4".to_owned())])
        );
        assert_eq!(machine.config["cores"], "2");
        machine.apply_pending();
        assert_eq!(machine.config, BTreeMap::from([("cores".to_owned(), "4".to_owned())]));
    }

    #[test]
    fn types_follow_the_schema() {
        for (key, text, value) in [
            ("cores", "2", Value::from(2)),
            ("onboot", "1", Value::from(1)),
            ("template", "1", Value::from(1)),
            ("memory", "512", Value::from("512")),
            ("agent", "1", Value::from("1")),
        ] {
            assert_eq!(typed(key, text), value, "{key}");
        }
    }
}
