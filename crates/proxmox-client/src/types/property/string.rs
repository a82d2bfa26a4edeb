//! `PropertyString`: parsing and printing, without knowledge of any single option.

use crate::{error::Error, types::lenient};

/// A parsed property string. What was bare stays bare, what was unknown stays, the order stays.
///
/// # Source
/// `parse_property_string` of pve-common: parts are cut at commas, there is no quoting, a part without `=` belongs to the
/// default key, empty parts mean nothing, and a key may come once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyString {
    default_key: &'static str,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    /// Empty for a bare value of the default key.
    key: String,
    value: String,
}

impl PropertyString {
    /// An empty one; `default_key` is the key of a bare value, empty where the option has none.
    pub fn new(default_key: &'static str) -> Self {
        Self {
            default_key,
            items: Vec::new(),
        }
    }

    /// Reads `text`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bare value where the option knows none, an empty key or value, or a repeated key.
    pub fn parse(text: &str, default_key: &'static str) -> Result<Self, Error> {
        let mut parsed = Self::new(default_key);
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key, value),
                None if default_key.is_empty() => {
                    return Err(invalid(&format!("{part:?} has no key; write key=value")));
                }
                None => ("", part),
            };
            if value.is_empty() || part.starts_with('=') {
                return Err(invalid(&format!("{part:?} has an empty key or value")));
            }
            let full = if key.is_empty() { default_key } else { key };
            if parsed.get(full).is_some() {
                return Err(invalid(&format!("key {full:?} comes twice")));
            }
            parsed.items.push(Item {
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
        Ok(parsed)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.items
            .iter()
            .find(|item| self.full_key(item) == key)
            .map(|item| item.value.as_str())
    }

    /// The value of `key` read as a boolean.
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(lenient::bool_of_text)
    }

    /// Sets `key`; one that is there keeps its place and form, the default key is added bare and first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when key or value cannot stand in a property string.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        if key.is_empty() || key.contains([',', '=']) || key.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid(&format!("{key:?} cannot be a key of a property string")));
        }
        if value.trim().is_empty() || value.contains(',') || value.chars().any(char::is_control) {
            return Err(invalid(&format!(
                "{value:?} cannot be the value of {key:?}: a property string has no way to write commas, control \
                 characters or an empty value"
            )));
        }
        self.put(key, value);
        Ok(())
    }

    /// Sets a value that by its type needs no check.
    pub(crate) fn put(&mut self, key: &str, value: &str) {
        if let Some(index) = self.items.iter().position(|item| self.full_key(item) == key) {
            value.clone_into(&mut self.items[index].value);
        } else if key == self.default_key && !value.contains('=') {
            self.items.insert(
                0,
                Item {
                    key: String::new(),
                    value: value.to_owned(),
                },
            );
        } else {
            self.items.push(Item {
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
    }

    pub(crate) fn put_bool(&mut self, key: &str, value: bool) {
        self.put(key, if value { "1" } else { "0" });
    }

    /// Takes `key` away.
    pub fn remove(&mut self, key: &str) {
        let default_key = self.default_key;
        self.items.retain(|item| {
            (if item.key.is_empty() {
                default_key
            } else {
                item.key.as_str()
            }) != key
        });
    }

    /// All keys and values in their order; the key of a bare value is the default key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.items.iter().map(|item| (self.full_key(item), item.value.as_str()))
    }

    fn full_key<'a>(&self, item: &'a Item) -> &'a str
    where
        'static: 'a,
    {
        if item.key.is_empty() {
            self.default_key
        } else {
            &item.key
        }
    }
}

impl std::fmt::Display for PropertyString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, Item { key, value }) in self.items.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if key.is_empty() {
                write!(f, "{comma}{value}")?;
            } else {
                write!(f, "{comma}{key}={value}")?;
            }
        }
        Ok(())
    }
}

fn invalid(reason: &str) -> Error {
    Error::invalid("property string", reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bare_values_belong_to_the_default_key() {
        let parsed = PropertyString::parse("local:32,ssd=1,strange=x=y", "file").expect("well formed");
        assert_eq!(parsed.get("file"), Some("local:32"));
        assert_eq!(parsed.get_bool("ssd"), Some(true));
        assert_eq!(parsed.get("strange"), Some("x=y"));
        assert_eq!(parsed.to_string(), "local:32,ssd=1,strange=x=y");
        assert_eq!(
            PropertyString::parse("ssd=1,file=a:b", "file")
                .expect("named")
                .get("file"),
            Some("a:b")
        );
    }

    #[test]
    fn malformed_texts_are_errors() {
        for (text, default_key) in [
            ("a", ""),
            ("a=", "x"),
            ("=b", "x"),
            ("a=1,a=2", "x"),
            ("a,b", "x"),
            ("x=1,a", "x"),
        ] {
            assert!(
                PropertyString::parse(text, default_key).is_err(),
                "{text:?} with {default_key:?}"
            );
        }
        assert_eq!(PropertyString::parse(" ", "x").expect("blank is empty").to_string(), "");
    }

    #[test]
    fn setting_keeps_place_and_refuses_commas() {
        let mut parsed = PropertyString::parse("a,k=1,l=2", "x").expect("well formed");
        parsed.set("k", "9").expect("plain");
        parsed.set("x", "b").expect("plain");
        parsed.set("new", "n").expect("plain");
        assert_eq!(parsed.to_string(), "b,k=9,l=2,new=n");
        for (key, value) in [
            ("k", "a,b"),
            ("k", ""),
            ("k", "a\nb"),
            ("", "a"),
            ("a=b", "c"),
            ("a b", "c"),
        ] {
            assert!(parsed.set(key, value).is_err(), "{key:?}={value:?}");
        }
        parsed.remove("k");
        parsed.remove("x");
        assert_eq!(parsed.to_string(), "l=2,new=n");
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_the_same(items in proptest::collection::btree_map("[a-z][a-z0-9_-]{0,6}", "[!-+\\--~]{1,12}", 0..6)) {
            let text = items.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
            let parsed = PropertyString::parse(&text, "file").expect("well formed");
            prop_assert_eq!(parsed.to_string(), text);
            for (key, value) in &items {
                prop_assert_eq!(parsed.get(key), Some(value.as_str()));
            }
        }

        #[test]
        fn printing_is_stable(text in "\\PC{0,60}") {
            if let Ok(parsed) = PropertyString::parse(&text, "file") {
                let printed = parsed.to_string();
                prop_assert_eq!(PropertyString::parse(&printed, "file").expect("printed by us"), parsed);
            }
        }

        #[test]
        fn what_is_set_is_got(key in "[a-z]{1,5}", value in "[!-+\\--~]{1,12}") {
            let mut property = PropertyString::new("file");
            property.set(&key, &value).expect("no comma");
            prop_assert_eq!(property.get(&key), Some(value.as_str()));
            let again = PropertyString::parse(&property.to_string(), "file").expect("printed by us");
            prop_assert_eq!(again.get(&key), Some(value.as_str()));
        }
    }
}
