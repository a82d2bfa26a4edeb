//! Which Proxmox VE is played, and how an older one differs from the one whose schema was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The differences of 8.4, each with its source.
const OVERLAY_8_4: &str = include_str!("pve-8.4.json");

/// The privileges of the built-in roles of PVE 9.2 (`pve/scenarios/base.json`).
const ROLES_9_2: &str = include_str!("../state/roles.json");

/// A Proxmox VE whose API is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Edition {
    /// 8.4, by the differences in `pve-8.4.json`.
    V8_4,
    /// 9.2, as recorded.
    V9_2,
}

/// One kind of difference to the 9.2 schema. `source` names an entry of the file's `sources`.
#[derive(Debug, Deserialize)]
pub(super) struct Overlay {
    sources: BTreeMap<String, String>,
    repoid: String,
    qemu: String,
    permissions: Vec<OtherPermission>,
    without_parameters: Vec<WithoutParameters>,
    without_keys: Vec<WithoutKeys>,
    with_keys: Vec<WithKeys>,
    without_privileges: BTreeSet<String>,
    with_privileges: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct OtherPermission {
    source: String,
    /// The calls at and below this path that check a privilege.
    under: String,
    check: Value,
}

#[derive(Debug, Deserialize)]
struct WithoutParameters {
    source: String,
    calls: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct WithoutKeys {
    source: String,
    calls: Vec<String>,
    parameters: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct WithKeys {
    source: String,
    calls: Vec<String>,
    parameters: Vec<String>,
    keys: Map<String, Value>,
}

/// The releases that can be named, each with its edition and the third number it gets when none is given.
///
/// What 9.0 and 9.1 have otherwise than 9.2 is not known well enough to play it: they answer as 9.2 under their own number.
const RELEASES: [(&str, Edition, u32); 4] = [
    ("8.4", Edition::V8_4, 1),
    ("9.0", Edition::V9_2, 3),
    ("9.1", Edition::V9_2, 1),
    ("9.2", Edition::V9_2, 11),
];

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V8_4 => "8.4",
            Self::V9_2 => "9.2",
        })
    }
}

impl Edition {
    /// All that can be played, the oldest first.
    pub(crate) const ALL: [Self; 2] = [Self::V8_4, Self::V9_2];

    /// The edition and full version for `9.2` or `9.2.11`.
    ///
    /// # Errors
    /// The versions there are, for a text that is none of them.
    pub(crate) fn parse(text: &str) -> Result<(Self, String), String> {
        for (release, edition, third) in RELEASES {
            let Some(rest) = text.strip_prefix(release) else {
                continue;
            };
            if rest.is_empty() {
                return Ok((edition, format!("{release}.{third}")));
            }
            let given = rest.strip_prefix(['.', '-']);
            if given.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit())) {
                return Ok((edition, text.to_owned()));
            }
        }
        let known = RELEASES.map(|(release, ..)| release).join(", ");
        Err(format!(
            "the emulator can play {known}, each with or without a third number such as 9.2.11"
        ))
    }

    /// The hash of pve-manager's source that `/version` shows.
    pub(crate) fn repoid(self) -> &'static str {
        self.overlay()
            .map_or("14a22df35955d97d", |overlay| overlay.repoid.as_str())
    }

    /// The QEMU that comes with it.
    pub(crate) fn qemu(self) -> &'static str {
        self.overlay().map_or("10.1.2", |overlay| overlay.qemu.as_str())
    }

    /// The built-in roles with their privileges.
    pub(crate) fn roles(self) -> BTreeMap<String, BTreeSet<String>> {
        let mut roles: BTreeMap<String, BTreeSet<String>> =
            serde_json::from_str(ROLES_9_2).expect("embedded file, parsed by the tests");
        if let Some(overlay) = self.overlay() {
            for privileges in roles.values_mut() {
                privileges.retain(|p| !overlay.without_privileges.contains(p));
            }
            for (privilege, holders) in &overlay.with_privileges {
                for holder in holders {
                    roles.entry(holder.clone()).or_default().insert(privilege.clone());
                }
            }
        }
        roles
    }

    pub(super) fn overlay(self) -> Option<&'static Overlay> {
        static V8_4: OnceLock<Overlay> = OnceLock::new();
        match self {
            Self::V8_4 => Some(
                V8_4.get_or_init(|| serde_json::from_str(OVERLAY_8_4).expect("embedded file, parsed by the tests")),
            ),
            Self::V9_2 => None,
        }
    }
}

impl Overlay {
    /// Changes the 9.2 dump into the older one.
    ///
    /// # Errors
    /// What an entry wants to change and the dump does not have: such an entry is out of date.
    pub(super) fn apply(&self, tree: &mut [Value]) -> Result<(), String> {
        for source in self.cited() {
            if !self.sources.contains_key(source) {
                return Err(format!("source '{source}' is not in the list of sources"));
            }
        }
        for other in &self.permissions {
            let mut changed = 0;
            visit(tree, &mut |path, info| {
                let below = path.strip_prefix(other.under.as_str());
                if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                    return;
                }
                for method in info.values_mut() {
                    if let Some(check) = method.pointer_mut("/permissions/check") {
                        *check = other.check.clone();
                        changed += 1;
                    }
                }
            });
            if changed == 0 {
                return Err(format!("no call under {} checks a privilege", other.under));
            }
        }
        for gone in &self.without_parameters {
            for call in &gone.calls {
                let properties = properties(tree, call)?;
                for name in &gone.names {
                    properties
                        .remove(name)
                        .ok_or_else(|| format!("{call} has no parameter {name}"))?;
                }
            }
        }
        for gone in &self.without_keys {
            for (call, parameter) in pairs(&gone.calls, &gone.parameters) {
                let keys = keys(tree, call, parameter)?;
                for name in &gone.names {
                    keys.remove(name)
                        .ok_or_else(|| format!("{parameter} of {call} has no key {name}"))?;
                }
            }
        }
        for more in &self.with_keys {
            for (call, parameter) in pairs(&more.calls, &more.parameters) {
                let keys = keys(tree, call, parameter)?;
                for (name, property) in &more.keys {
                    if keys.insert(name.clone(), property.clone()).as_ref() == Some(property) {
                        return Err(format!("{parameter} of {call} has the key {name} already"));
                    }
                }
            }
        }
        Ok(())
    }

    fn cited(&self) -> impl Iterator<Item = &String> {
        let permissions = self.permissions.iter().map(|o| &o.source);
        let parameters = self.without_parameters.iter().map(|o| &o.source);
        let gone = self.without_keys.iter().map(|o| &o.source);
        let more = self.with_keys.iter().map(|o| &o.source);
        permissions.chain(parameters).chain(gone).chain(more)
    }
}

fn pairs<'a>(calls: &'a [String], parameters: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    calls
        .iter()
        .flat_map(move |call| parameters.iter().map(move |p| (call.as_str(), p.as_str())))
}

/// Calls `change` with each path of the dump and its methods.
fn visit(tree: &mut [Value], change: &mut dyn FnMut(&str, &mut Map<String, Value>)) {
    for node in tree {
        let path = node["path"].as_str().unwrap_or_default().to_owned();
        if let Some(info) = node.get_mut("info").and_then(Value::as_object_mut) {
            change(&path, info);
        }
        if let Some(children) = node.get_mut("children").and_then(Value::as_array_mut) {
            visit(children, change);
        }
    }
}

/// The node of a path, which each node's parents are a prefix of.
fn node_of<'a>(tree: &'a mut [Value], path: &str) -> Option<&'a mut Value> {
    for node in tree {
        let here = node["path"].as_str().unwrap_or_default().to_owned();
        if here == path {
            return Some(node);
        }
        if path.strip_prefix(&here).is_some_and(|rest| rest.starts_with('/'))
            && let Some(children) = node.get_mut("children").and_then(Value::as_array_mut)
        {
            return node_of(children, path);
        }
    }
    None
}

/// The parameters of `POST /nodes/{node}/qemu`.
fn properties<'a>(tree: &'a mut [Value], call: &str) -> Result<&'a mut Map<String, Value>, String> {
    let (method, path) = call.split_once(' ').ok_or_else(|| format!("{call} is no call"))?;
    node_of(tree, path)
        .and_then(|node| node.get_mut("info")?.get_mut(method))
        .and_then(|info| info.get_mut("parameters")?.get_mut("properties")?.as_object_mut())
        .ok_or_else(|| format!("there is no call {call}"))
}

/// The keys of a parameter that is a property string.
fn keys<'a>(tree: &'a mut [Value], call: &str, parameter: &str) -> Result<&'a mut Map<String, Value>, String> {
    properties(tree, call)?
        .get_mut(parameter)
        .and_then(|p| p.get_mut("format")?.as_object_mut())
        .ok_or_else(|| format!("{parameter} of {call} is no property string"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Permissions, Schema};

    #[test]
    fn only_known_versions_are_played() {
        for (text, want) in [
            ("9.2", Some((Edition::V9_2, "9.2.11"))),
            ("9.2.3", Some((Edition::V9_2, "9.2.3"))),
            ("8.4", Some((Edition::V8_4, "8.4.1"))),
            ("8.4.14", Some((Edition::V8_4, "8.4.14"))),
            ("8.4-1", Some((Edition::V8_4, "8.4-1"))),
            ("8.4.", None),
            ("8.40", None),
            ("8.4.1.2", None),
            ("8.4.x", None),
            ("8.3", None),
            ("9.0", Some((Edition::V9_2, "9.0.3"))),
            ("9.1.2", Some((Edition::V9_2, "9.1.2"))),
            ("9.20", None),
            ("9.3", None),
            ("9", None),
            ("10.0", None),
            ("", None),
        ] {
            let got = Edition::parse(text).ok();
            let want = want.map(|(edition, version)| (edition, version.to_owned()));
            assert_eq!(got, want, "{text:?}");
        }
        let refused = Edition::parse("7.4").unwrap_err();
        assert!(refused.contains("8.4, 9.0, 9.1, 9.2"), "{refused}");
    }

    /// Base and overlay cannot drift apart: each difference is seen in the schema it makes.
    #[test]
    fn the_schema_of_8_4_differs_as_its_list_says() {
        let property = |edition, method: &str, path: &str, key: &str| {
            let found = Schema::of(edition).find(method, path).expect("a call");
            found.endpoint.property(key).is_some()
        };
        for (method, path, key) in [
            ("POST", "/nodes/x/qemu", "allow-ksm"),
            ("POST", "/nodes/x/qemu", "ha-managed"),
            ("POST", "/nodes/x/qemu", "intel-tdx"),
            ("PUT", "/nodes/x/qemu/100/config", "allow-ksm"),
            ("POST", "/nodes/x/qemu/100/config", "intel-tdx"),
        ] {
            assert!(property(Edition::V9_2, method, path, key), "{method} {path} {key}");
            assert!(!property(Edition::V8_4, method, path, key), "{method} {path} {key}");
        }
        for key in ["virtiofs3", "amd-sev", "import-working-storage", "memory"] {
            assert!(property(Edition::V8_4, "POST", "/nodes/x/qemu", key), "{key}");
        }
        for (path, method) in [
            ("ping", "POST"),
            ("exec", "POST"),
            ("exec-status", "GET"),
            ("file-read", "GET"),
        ] {
            let path = format!("/nodes/x/qemu/100/agent/{path}");
            let found = Schema::of(Edition::V8_4).find(method, &path).expect("a call");
            let Permissions::Check(check) = &found.endpoint.permissions else {
                panic!("{path} checks nothing");
            };
            assert_eq!(
                check,
                &serde_json::json!(["perm", "/vms/{vmid}", ["VM.Monitor"]]),
                "{path}"
            );
        }
        assert_eq!(
            Schema::of(Edition::V8_4).keys().len(),
            Schema::of(Edition::V9_2).keys().len()
        );
    }

    #[test]
    fn the_roles_of_8_4_are_those_of_its_source() {
        let (old, new) = (Edition::V8_4.roles(), Edition::V9_2.roles());
        assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>());
        for (role, gained, lost) in [
            ("Administrator", &["VM.Monitor"][..], 6),
            ("PVEAdmin", &["VM.Monitor"], 6),
            ("PVEVMAdmin", &["VM.Monitor"], 6),
            ("PVEVMUser", &[], 4),
            ("PVEAuditor", &[], 1),
            ("PVEDatastoreAdmin", &[], 0),
            ("PVETemplateUser", &[], 0),
        ] {
            let more: Vec<&String> = old[role].difference(&new[role]).collect();
            assert_eq!(more, gained, "{role}");
            assert_eq!(new[role].difference(&old[role]).count(), lost, "{role}");
        }
        assert!(
            old.values()
                .flatten()
                .all(|p| !p.contains("GuestAgent") && p != "VM.Replicate")
        );
        assert_eq!(old["Administrator"].len(), new["Administrator"].len() - 5);
    }

    type Change<'a> = &'a dyn Fn(&mut Overlay);

    #[test]
    fn an_entry_that_hits_nothing_is_an_error() {
        let tree = || -> Vec<Value> { serde_json::from_str(crate::schema::API_SCHEMA).unwrap() };
        let overlay = |change: Change<'_>| {
            let mut overlay: Overlay = serde_json::from_str(OVERLAY_8_4).unwrap();
            change(&mut overlay);
            overlay.apply(&mut tree())
        };
        assert_eq!(overlay(&|_| ()), Ok(()));
        let cases: [(Change<'_>, &str); 6] = [
            (
                &|o| o.without_parameters[0].names.push("nosuch".into()),
                "no parameter nosuch",
            ),
            (
                &|o| o.without_parameters[0].calls.push("GET /x".into()),
                "no call GET /x",
            ),
            (&|o| o.without_keys[0].names.push("nosuch".into()), "no key nosuch"),
            (
                &|o| o.without_keys[0].parameters.push("cores".into()),
                "no property string",
            ),
            (&|o| o.permissions[0].under = "/nosuch".into(), "no call under /nosuch"),
            (&|o| o.permissions[0].source = "hearsay".into(), "source 'hearsay'"),
        ];
        for (change, want) in cases {
            let error = overlay(change).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
