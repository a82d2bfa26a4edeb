//! Property strings: `virtio=BC:24:11:00:00:01,bridge=vmbr0` against the structure the schema gives.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::verify::check_object;
use super::{Property, Schema};

/// A parsed property string: key to text, aliases resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PropertyString(pub(crate) BTreeMap<String, String>);

impl PropertyString {
    /// Parses and checks `text`; `path` names the option in messages.
    ///
    /// # Errors
    /// PVE's own text, which ends in a newline and may have several lines.
    pub(crate) fn parse(
        schema: &Schema,
        structure: &BTreeMap<String, Property>,
        text: &str,
        path: &str,
    ) -> Result<Self, String> {
        let parsed = Self::split(structure, text)?;
        let mut errors = BTreeMap::new();
        check_object(schema, structure, false, &parsed.0, path, &mut errors);
        if errors.is_empty() {
            return Ok(parsed);
        }
        let mut message = String::from("format error\n");
        for (key, error) in errors {
            let _ = writeln!(message, "{key}: {error}");
        }
        Err(message)
    }

    fn split(structure: &BTreeMap<String, Property>, text: &str) -> Result<Self, String> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        let mut default_used = false;
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            match part.split_once('=') {
                Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                    let mut name = key.to_owned();
                    if found.contains_key(&name) {
                        return Err(format!("duplicate key in comma-separated list property: {name}\n"));
                    }
                    if let Some(alias) = structure.get(key).and_then(|p| p.alias.clone()) {
                        if let Some(target) = structure.get(key).and_then(|p| p.key_alias.clone()) {
                            if found.contains_key(&target) {
                                return Err(format!("key alias '{target}' is already defined\n"));
                            }
                            found.insert(target, key.to_owned());
                        }
                        name = alias;
                    }
                    let boolean = structure
                        .get(&name)
                        .is_some_and(|p| p.kind.as_deref() == Some("boolean"));
                    let value = match parse_boolean(value).filter(|_| boolean) {
                        Some(flag) => u8::from(flag).to_string(),
                        None => value.to_owned(),
                    };
                    found.insert(name, value);
                }
                None => {
                    let key = structure.iter().find(|(_, p)| p.default_key).map(|(k, _)| k.clone());
                    let Some(key) = key else {
                        return Err("value without key, but schema does not define a default key\n".into());
                    };
                    if default_used || found.contains_key(&key) {
                        return Err(format!("duplicate key in comma-separated list property: {key}\n"));
                    }
                    default_used = true;
                    let boolean = structure
                        .get(&key)
                        .is_some_and(|p| p.kind.as_deref() == Some("boolean"));
                    let value = match parse_boolean(part).filter(|_| boolean) {
                        Some(flag) => u8::from(flag).to_string(),
                        None => part.to_owned(),
                    };
                    found.insert(key, value);
                }
                Some(_) => return Err("missing key in comma-separated list property\n".into()),
            }
        }
        Ok(Self(found))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_owned(), value.into());
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// Prints with the bare value of `default_key` first and the rest in order of its names, as PVE stores it.
    ///
    /// A value with `=` in it, such as a volume of that name, is printed with its key: bare it would read as another key.
    pub(crate) fn print(&self, default_key: &str) -> String {
        let first = self.0.get(default_key).map(|value| {
            if value.contains('=') {
                format!("{default_key}={value}")
            } else {
                value.clone()
            }
        });
        let mut parts: Vec<String> = first.into_iter().collect();
        parts.extend(
            self.0
                .iter()
                .filter(|(k, _)| *k != default_key)
                .map(|(k, v)| format!("{k}={v}")),
        );
        parts.join(",")
    }
}

/// The words PVE takes for a boolean inside property strings and configuration files.
pub(crate) fn parse_boolean(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}
