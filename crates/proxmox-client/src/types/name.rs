//! Names that are checked text: nodes, storages, pools.

use crate::error::Error;

/// Declares a newtype over a checked `String`: parse, print, serde and comparison all go by the same text.
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            /// [`Error::Invalid`] says what is wrong with it.
            pub fn new(text: impl Into<String>) -> Result<Self, Error> {
                let text = text.into();
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => Err(Error::invalid($field, format!("{text:?} {reason}"))),
                }
            }

            /// The text as PVE writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
pub(crate) use text_newtype;

text_newtype!(
    /// The name of a cluster node: one DNS label.
    ///
    /// # Source
    /// Format `pve-node` of the API schema.
    NodeName, "node", check_node
);

text_newtype!(
    /// The name of a configured storage, for example `local-lvm`.
    ///
    /// # Source
    /// Format `pve-storage-id` of the API schema.
    StorageId, "storage", check_storage
);

text_newtype!(
    /// The name of a resource pool; nested pools are written `parent/child`.
    ///
    /// # Source
    /// Format `pve-poolid` of the API schema.
    PoolId, "pool", check_pool
);

type Check = Result<(), &'static str>;

fn check_node(text: &str) -> Check {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {}
        _ => return Err("is not a node name: it must begin and end with a letter or digit"),
    }
    if bytes.len() > 63 {
        return Err("is not a node name: it is longer than 63 characters");
    }
    if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
        return Err("is not a node name: use the short name (letters, digits, `-`), no domain and no address");
    }
    Ok(())
}

fn check_storage(text: &str) -> Check {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) if bytes.len() > 1 && first.is_ascii_alphabetic() && last.is_ascii_alphanumeric() => {
        }
        _ => return Err("is not a storage name: at least two characters, a letter first, a letter or digit last"),
    }
    if bytes.len() > 100 || !bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b)) {
        return Err("is not a storage name: letters, digits, `-`, `_` and `.` only, at most 100");
    }
    Ok(())
}

fn check_pool(text: &str) -> Check {
    let levels: Vec<&str> = text.split('/').collect();
    let level_ok = |level: &&str| {
        !level.is_empty()
            && !level.bytes().all(|b| b == b'.')
            && level.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if text.len() > 200 || levels.len() > 3 || !levels.iter().all(level_ok) {
        return Err("is not a pool name: letters, digits, `-`, `_` and `.`, up to three levels divided by `/`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_edge() {
        for good in ["pve", "pve-1", "PVE01", "a"] {
            assert_eq!(NodeName::new(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "-pve",
            "pve-",
            "pve.lan",
            "192.0.2.1",
            "a/b",
            "a b",
            "ä",
            "..",
            &"x".repeat(64),
        ] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["local", "local-lvm", "a1", "nas_1.iso"] {
            assert!(StorageId::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a", "1a", "a-", "a:b", "../x", "a/b"] {
            assert!(StorageId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["p1", "a/b/c", "a.b"] {
            assert!(PoolId::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "/a", "a//b", "a/b/c/d", "..", "a/../b", "a b"] {
            assert!(PoolId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_names_field_and_value() {
        let text = NodeName::new("pve.lan")
            .expect_err("a domain is no node name")
            .to_string();
        assert!(text.contains("node") && text.contains("pve.lan"), "{text}");
    }

    #[test]
    fn serde_goes_by_the_text_and_checks() {
        let node: NodeName = serde_json::from_str("\"pve\"").expect("a good name");
        assert_eq!(serde_json::to_string(&node).expect("json"), "\"pve\"");
        assert!(serde_json::from_str::<NodeName>("\"..\"").is_err());
    }
}
