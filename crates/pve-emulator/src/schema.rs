//! The API tree that Proxmox VE dumps of itself: which calls exist, which parameters and rights each has.
//!
//! `pve/api-schema.json` is read once per process; a lookup walks the path's segments and copies nothing. What an older
//! release has otherwise is in `schema/pve-8.4.json`, entry by entry with its source.

mod edition;
mod formats;
mod property_string;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub(crate) use edition::Edition;
pub(crate) use formats::valid_mac;
pub(crate) use property_string::{PropertyString, parse_boolean};
pub(crate) use verify::{join_lists, verify};

const API_SCHEMA: &str = include_str!("../../../pve/api-schema.json");

/// Formats that PVE registers by name with a structure of their own; the API dump only names them.
const NAMED_FORMATS: &str = include_str!("schema/formats.json");

/// How many of each indexed option a VM can have; the dump only says `net[n]`.
///
/// # Source
/// qemu-server 9.2: `$MAX_NETS`, `$MAX_SCSI_DISKS` and so on; `pve/scenarios/03` shows net40, scsi31, sata6 and ide4
/// refused.
const INDEXED: [(&str, u32); 14] = [
    ("hostpci", 16),
    ("ide", 4),
    ("ipconfig", 32),
    ("link", 8),
    ("net", 32),
    ("numa", 8),
    ("parallel", 3),
    ("sata", 6),
    ("scsi", 31),
    ("serial", 4),
    ("unused", 256),
    ("usb", 14),
    ("virtio", 16),
    ("virtiofs", 10),
];

/// The whole tree.
#[derive(Debug)]
pub(crate) struct Schema {
    root: Node,
    named: BTreeMap<String, BTreeMap<String, Property>>,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<String, Node>,
    param: Option<(String, Box<Node>)>,
    endpoints: HashMap<String, Endpoint>,
}

/// One path and method pair.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// `POST /nodes/{node}/qemu`: the key handlers are registered under.
    pub(crate) key: String,
    pub(crate) properties: BTreeMap<String, Property>,
    pub(crate) additional_properties: bool,
    pub(crate) permissions: Permissions,
    /// Whether API tokens may call it.
    pub(crate) allow_token: bool,
    /// Whether the node that the path names does the work: others hand the call on to it.
    pub(crate) proxied: bool,
}

/// Who may call an endpoint.
#[derive(Debug)]
pub(crate) enum Permissions {
    /// No login needed.
    World,
    /// Anyone who is logged in; the handler may check more.
    All,
    /// A check expression, for instance `["perm", "/vms/{vmid}", ["VM.Audit"]]`.
    Check(Value),
    /// Only the user root@pam itself.
    Root,
}

/// One parameter.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Property {
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) format: Option<Format>,
    #[serde(default, deserialize_with = "flag")]
    pub(crate) optional: bool,
    #[serde(default, deserialize_with = "flag")]
    pub(crate) default_key: bool,
    #[serde(default)]
    pub(crate) alias: Option<String>,
    #[serde(default, rename = "keyAlias")]
    pub(crate) key_alias: Option<String>,
    #[serde(default, rename = "enum")]
    pub(crate) words: Option<Vec<Value>>,
    #[serde(default)]
    pub(crate) pattern: Option<String>,
    #[serde(default, deserialize_with = "number")]
    pub(crate) minimum: Option<f64>,
    #[serde(default, deserialize_with = "number")]
    pub(crate) maximum: Option<f64>,
    #[serde(default, rename = "minLength", deserialize_with = "number")]
    pub(crate) min_length: Option<f64>,
    #[serde(default, rename = "maxLength", deserialize_with = "number")]
    pub(crate) max_length: Option<f64>,
    #[serde(default)]
    pub(crate) requires: Option<String>,
    #[serde(default)]
    pub(crate) items: Option<Box<Property>>,
}

/// A format is either a registered name or the structure of a property string.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Format {
    Named(String),
    Structure(BTreeMap<String, Property>),
}

#[derive(Deserialize)]
struct RawNode {
    path: String,
    #[serde(default)]
    info: BTreeMap<String, RawMethod>,
    #[serde(default)]
    children: Vec<RawNode>,
}

#[derive(Deserialize)]
struct RawMethod {
    #[serde(default)]
    parameters: RawParameters,
    #[serde(default)]
    permissions: Option<Value>,
    #[serde(default, deserialize_with = "flag")]
    allowtoken: bool,
    #[serde(default)]
    proxyto: Option<String>,
}

#[derive(Default, Deserialize)]
struct RawParameters {
    #[serde(default)]
    properties: BTreeMap<String, Property>,
    #[serde(default, rename = "additionalProperties")]
    additional: Option<Value>,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) endpoint: &'a Endpoint,
    /// Values of the `{name}` segments.
    pub(crate) path: Vec<(String, String)>,
}

impl Schema {
    /// The schema of PVE 9.2, read on first use: for what all editions share.
    pub(crate) fn get() -> &'static Self {
        Self::of(Edition::V9_2)
    }

    /// The schema of an edition, read on first use.
    pub(crate) fn of(edition: Edition) -> &'static Self {
        static V8_4: OnceLock<Schema> = OnceLock::new();
        static V9_2: OnceLock<Schema> = OnceLock::new();
        match edition {
            Edition::V8_4 => V8_4.get_or_init(|| Self::load(edition)),
            Edition::V9_2 => V9_2.get_or_init(|| Self::load(edition)),
        }
    }

    fn load(edition: Edition) -> Self {
        let embedded = "embedded file, parsed by the tests";
        let tree: Vec<RawNode> = match edition.overlay() {
            None => serde_json::from_str(API_SCHEMA).expect(embedded),
            Some(overlay) => {
                let mut tree: Vec<Value> = serde_json::from_str(API_SCHEMA).expect(embedded);
                overlay.apply(&mut tree).expect(embedded);
                serde_json::from_value(Value::from(tree)).expect(embedded)
            }
        };
        let named = serde_json::from_str(NAMED_FORMATS).expect(embedded);
        let mut root = Node::default();
        for node in tree {
            root.insert(node);
        }
        Self { root, named }
    }

    /// Finds the endpoint for a decoded path below `/api2/FORMAT`, `None` when the API has no such call.
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<Found<'_>> {
        let mut node = &self.root;
        let mut values = Vec::new();
        let mut segments = path.split('/').filter(|s| !s.is_empty()).peekable();
        while let Some(segment) = segments.next() {
            if let Some(next) = node.literal.get(segment) {
                node = next;
                continue;
            }
            let (name, next) = node.param.as_ref()?;
            let mut value = segment.to_owned();
            // A volume's name holds slashes, and PVE decodes the path before it splits it.
            if name == "volume" {
                for rest in segments.by_ref() {
                    value.push('/');
                    value.push_str(rest);
                }
            }
            values.push((name.clone(), value));
            node = next;
        }
        let endpoint = node.endpoints.get(method)?;
        Some(Found { endpoint, path: values })
    }

    /// Names of the children of an API directory, for its index.
    pub(crate) fn children(&self, template: &str) -> Vec<String> {
        fn walk<'a>(node: &'a Node, segments: &mut dyn Iterator<Item = &str>) -> Option<&'a Node> {
            let Some(segment) = segments.next() else {
                return Some(node);
            };
            match node.literal.get(segment) {
                Some(next) => walk(next, segments),
                None => walk(&node.param.as_ref()?.1, segments),
            }
        }
        let mut segments = template.split('/').filter(|s| !s.is_empty());
        let mut names: Vec<String> = walk(&self.root, &mut segments)
            .map(|n| n.literal.keys().cloned().collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    /// The structure registered under a format name.
    pub(crate) fn named(&self, name: &str) -> Option<&BTreeMap<String, Property>> {
        self.named.get(name)
    }

    /// Every registered key, for tests that compare handlers with the schema.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<String> {
        fn walk(node: &Node, keys: &mut Vec<String>) {
            keys.extend(node.endpoints.values().map(|e| e.key.clone()));
            node.literal.values().for_each(|n| walk(n, keys));
            if let Some((_, n)) = &node.param {
                walk(n, keys);
            }
        }
        let mut keys = Vec::new();
        walk(&self.root, &mut keys);
        keys
    }
}

impl Node {
    fn insert(&mut self, raw: RawNode) {
        let last = raw.path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut node = Self::default();
        for (method, info) in raw.info {
            let permissions = match info.permissions {
                None => Permissions::Root,
                Some(p) => match (p.get("check"), p.get("user").and_then(Value::as_str)) {
                    (Some(check), _) => Permissions::Check(check.clone()),
                    (None, Some("world")) => Permissions::World,
                    (None, Some("all")) => Permissions::All,
                    (None, _) => Permissions::Root,
                },
            };
            let endpoint = Endpoint {
                key: format!("{method} {}", raw.path),
                properties: info.parameters.properties,
                additional_properties: info.parameters.additional.as_ref().is_some_and(truthy),
                permissions,
                allow_token: info.allowtoken,
                proxied: info.proxyto.as_deref() == Some("node"),
            };
            node.endpoints.insert(method, endpoint);
        }
        for child in raw.children {
            node.insert(child);
        }
        match last.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => self.param = Some((name.to_owned(), Box::new(node))),
            None => {
                self.literal.insert(last, node);
            }
        }
    }
}

impl Endpoint {
    /// The schema of a parameter, also of an indexed one such as `net3`.
    pub(crate) fn property(&self, key: &str) -> Option<&Property> {
        if let Some(property) = self.properties.get(key).filter(|_| !key.ends_with(']')) {
            return Some(property);
        }
        let family = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &key[family.len()..];
        let index: u32 = digits.parse().ok()?;
        // PVE's own names have no leading zero.
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        let (_, count) = INDEXED.iter().find(|(name, _)| *name == family)?;
        if index >= *count {
            return None;
        }
        self.properties.get(&format!("{family}[n]"))
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty() && s != "0",
        Value::Object(_) | Value::Array(_) => true,
        Value::Null => false,
    }
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(truthy(&Value::deserialize(deserializer)?))
}

/// The dump holds limits as numbers or as texts.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_dump_is_read() {
        assert_eq!(Schema::get().keys().len(), 661);
    }

    #[test]
    fn paths_lead_to_endpoints() {
        let cases = [
            ("GET", "/version", Some("GET /version"), vec![]),
            (
                "GET",
                "/nodes/pve/qemu/100/config",
                Some("GET /nodes/{node}/qemu/{vmid}/config"),
                vec!["pve", "100"],
            ),
            (
                "GET",
                "/nodes/pve/storage/local/content/local:iso/a.iso",
                Some("GET /nodes/{node}/storage/{storage}/content/{volume}"),
                vec!["pve", "local", "local:iso/a.iso"],
            ),
            ("POST", "/version", None, vec![]),
            ("GET", "/nosuch", None, vec![]),
        ];
        for (method, path, key, values) in cases {
            let found = Schema::get().find(method, path);
            assert_eq!(found.as_ref().map(|f| f.endpoint.key.as_str()), key, "{method} {path}");
            let got: Vec<String> = found
                .map(|f| f.path.into_iter().map(|p| p.1).collect())
                .unwrap_or_default();
            assert_eq!(got, values, "{method} {path}");
        }
    }

    #[test]
    fn indexed_options_end_where_pve_ends() {
        let create = Schema::get().find("POST", "/nodes/pve/qemu").unwrap().endpoint;
        for (key, known) in [
            ("net0", true),
            ("net31", true),
            ("net32", false),
            ("scsi30", true),
            ("scsi31", false),
            ("sata6", false),
            ("ide4", false),
            ("net", false),
            ("net00", false),
            ("efidisk0", true),
            ("net[n]", false),
        ] {
            assert_eq!(create.property(key).is_some(), known, "{key}");
        }
    }
}
