//! Option texts: reading PVE's, writing QEMU's.

use std::collections::BTreeMap;

use crate::schema::{Format, PropertyString, Schema};

/// A VM's options in effect.
pub(super) type Config = BTreeMap<String, String>;

/// The parts of an option that is a property string, empty when the option is not set.
///
/// # Errors
/// The option and what is wrong with it.
pub(super) fn parts(config: &Config, key: &str) -> Result<PropertyString, String> {
    let Some(text) = config.get(key) else {
        return Ok(PropertyString::default());
    };
    let create = Schema::get().find("POST", "/nodes/x/qemu").map(|f| f.endpoint);
    let format = create.and_then(|e| e.property(key)).and_then(|p| p.format.as_ref());
    let structure = match format {
        Some(Format::Structure(structure)) => Some(structure),
        Some(Format::Named(name)) => Schema::get().named(name),
        None => None,
    };
    let structure = structure.ok_or_else(|| format!("option '{key}' has no parts"))?;
    PropertyString::parse(Schema::get(), structure, text, key)
        .map_err(|e| format!("option '{key}': {}", e.trim_end().replace('\n', "; ")))
}

/// A whole number of an option, `None` when it is not set.
///
/// # Errors
/// The option and its text.
pub(super) fn number(config: &Config, key: &str) -> Result<Option<u64>, String> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|_| format!("option '{key}': '{text}' is not a whole number"))
    };
    config.get(key).map(parse).transpose()
}

/// A yes-no option.
pub(super) fn flag(config: &Config, key: &str) -> Option<bool> {
    config.get(key).map(|text| text != "0")
}

/// The indexed options of a family in the order of their numbers: `net0`, `net2`, `net10`.
pub(super) fn family<'a>(config: &'a Config, family: &str) -> Vec<(u32, &'a str)> {
    let mut found: Vec<(u32, &str)> = config
        .iter()
        .filter_map(|(key, text)| {
            let index = key.strip_prefix(family)?;
            let plain = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
            Some((index.parse().ok().filter(|_| plain)?, text.as_str()))
        })
        .collect();
    found.sort_unstable();
    found
}

/// A value inside one of QEMU's comma-separated options: a comma is written twice.
pub(super) fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// An argument list in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Argv(pub(super) Vec<String>);

impl Argv {
    /// Adds an option with its value.
    pub(super) fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }

    /// Adds an option that takes no value.
    pub(super) fn flag(&mut self, option: &str) {
        self.0.push(option.to_owned());
    }

    /// Adds `-device`.
    pub(super) fn device(&mut self, value: impl Into<String>) {
        self.add("-device", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_by_the_schema() {
        let config = Config::from([
            ("net0".into(), "virtio=BC:24:11:00:00:01,bridge=vmbr0".into()),
            ("net10".into(), "e1000=BC:24:11:00:00:02".into()),
            ("net2".into(), "e1000=BC:24:11:00:00:03".into()),
            ("cores".into(), "two".into()),
            ("agent".into(), "1,nonsense=2".into()),
        ]);
        let net = parts(&config, "net0").unwrap();
        assert_eq!(
            (net.get("model"), net.get("macaddr")),
            (Some("virtio"), Some("BC:24:11:00:00:01"))
        );
        let numbers: Vec<u32> = family(&config, "net").iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [0, 2, 10]);
        assert_eq!(
            number(&config, "cores").unwrap_err(),
            "option 'cores': 'two' is not a whole number"
        );
        assert!(
            parts(&config, "agent").unwrap_err().starts_with("option 'agent': "),
            "unknown parts are refused"
        );
        assert_eq!(escape("a,b"), "a,,b");
    }
}
