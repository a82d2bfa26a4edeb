//! `/access/permissions`: what the caller may do where.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::lenient;

/// Path to privilege to whether it is handed down to the paths below.
///
/// A token with privilege separation and no ACL of its own has none at all (`FACTS` 11).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, Map<String, Value>>")]
pub struct Permissions(BTreeMap<String, BTreeMap<String, bool>>);

impl From<BTreeMap<String, Map<String, Value>>> for Permissions {
    fn from(raw: BTreeMap<String, Map<String, Value>>) -> Self {
        // A key stands for a privilege that is held; its value says whether it propagates.
        let privileges = |map: Map<String, Value>| {
            map.into_iter()
                .map(|(privilege, value)| (privilege, lenient::as_bool(&value).unwrap_or(false)))
                .collect()
        };
        Self(raw.into_iter().map(|(path, map)| (path, privileges(map))).collect())
    }
}

impl Permissions {
    /// Does the caller hold `privilege` on `path`?
    ///
    /// A path that PVE did not list inherits from the nearest one above that it did, as far as that hands down.
    ///
    /// # Source
    /// `/access/permissions` without a path lists the top-level paths and each path with an ACL, with what holds there
    /// (pve-access-control, `RPCEnvironment::get_effective_permissions`). Paths on which nothing is held are left out, so a
    /// path that an ACL with `NoAccess` closes looks like an inherited one: ask for that path alone to be exact.
    pub fn allows(&self, path: &str, privilege: &str) -> bool {
        let path = if path.len() > 1 {
            path.trim_end_matches('/')
        } else {
            path
        };
        if let Some(here) = self.0.get(path) {
            return here.contains_key(privilege);
        }
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            above = if parent.is_empty() { "/" } else { parent };
            if let Some(inherited) = self.0.get(above) {
                return inherited.get(privilege).copied().unwrap_or(false);
            }
            if above == "/" {
                break;
            }
        }
        false
    }

    /// The privileges that PVE listed for exactly this path, each with whether it is handed down.
    pub fn at(&self, path: &str) -> Option<&BTreeMap<String, bool>> {
        self.0.get(path)
    }

    /// The listed paths.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Is there nothing at all?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_handed_down_as_far_as_they_propagate() {
        let json =
            r#"{"/":{"VM.Audit":1,"Sys.Audit":0},"/vms":{"VM.Audit":1,"VM.Allocate":1},"/vms/100":{"VM.Audit":"1"}}"#;
        let permissions: Permissions = serde_json::from_str(json).expect("well formed");
        for (path, privilege, want) in [
            ("/", "Sys.Audit", true),
            ("/nodes/pve", "Sys.Audit", false),
            ("/nodes/pve", "VM.Audit", true),
            ("/vms/200", "VM.Allocate", true),
            ("/vms/100", "VM.Allocate", false),
            ("/vms/100", "VM.Audit", true),
            ("/storage/local/", "VM.Audit", true),
            ("", "VM.Audit", false),
        ] {
            assert_eq!(permissions.allows(path, privilege), want, "{privilege} on {path}");
        }
        let none: Permissions = serde_json::from_str("{}").expect("recorded");
        assert!(none.is_empty() && !none.allows("/", "VM.Audit"));
    }
}
