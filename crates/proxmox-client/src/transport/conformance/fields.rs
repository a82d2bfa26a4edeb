//! The fields of the reply types, read from their sources: beside what the schema says of the answers, and beside what was recorded.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{ROOT, fits, recorded};

/// A call, its type, and where in the data the type's objects lie (`*` for each of a list).
const REPLIES: &[(&str, &str, &str, &str)] = &[
    ("GET", "/version", "Version", ""),
    ("GET", "/cluster/resources", "Resource", "*"),
    ("GET", "/nodes", "NodeEntry", "*"),
    ("GET", "/nodes/{node}/status", "NodeStatus", ""),
    ("GET", "/nodes/{node}/status", "Usage", "memory"),
    ("GET", "/nodes/{node}/status", "Usage", "rootfs"),
    ("GET", "/nodes/{node}/storage", "StorageStatus", "*"),
    ("GET", "/nodes/{node}/network", "NetworkInterface", "*"),
    ("GET", "/nodes/{node}/qemu", "VmStatus", "*"),
    ("GET", "/nodes/{node}/tasks", "TaskEntry", "*"),
    ("GET", "/nodes/{node}/tasks/{upid}/status", "TaskStatus", ""),
    ("GET", "/nodes/{node}/tasks/{upid}/log", "LogLine", "*"),
    ("GET", "/nodes/{node}/storage/{storage}/status", "StorageStatus", ""),
    ("GET", "/nodes/{node}/storage/{storage}/content", "Volume", "*"),
    ("POST", "/access/ticket", "TicketReply", ""),
    ("GET", "/pools", "Pool", "*"),
    ("GET", "/pools/{poolid}", "Pool", ""),
    ("GET", "/pools/{poolid}", "PoolMember", "members/*"),
    ("GET", "/nodes/{node}/qemu/{vmid}/pending", "PendingOption", "*"),
    ("GET", "/nodes/{node}/qemu/{vmid}/status/current", "VmStatus", ""),
    (
        "GET",
        "/nodes/{node}/qemu/{vmid}/agent/network-get-interfaces",
        "AgentInterface",
        "result/*",
    ),
    (
        "GET",
        "/nodes/{node}/qemu/{vmid}/agent/network-get-interfaces",
        "AgentAddress",
        "result/*/ip-addresses/*",
    ),
    (
        "GET",
        "/nodes/{node}/qemu/{vmid}/agent/exec-status",
        "RawExecStatus",
        "",
    ),
    ("GET", "/nodes/{node}/qemu/{vmid}/agent/file-read", "RawFileContent", ""),
    ("POST", "/nodes/{node}/qemu/{vmid}/agent/exec", "Started", ""),
    ("POST", "/nodes/{node}/qemu/{vmid}/vncproxy", "ConsoleTicket", ""),
    ("POST", "/nodes/{node}/qemu/{vmid}/termproxy", "ConsoleTicket", ""),
];

/// A field as its source declares it.
#[derive(Debug)]
struct Field {
    wire: String,
    kind: String,
    may_lack: bool,
}

/// A reply type: its fields, and whether it keeps what it has no field for.
#[derive(Debug, Default)]
struct Type {
    fields: Vec<Field>,
    keeps_rest: bool,
}

/// The reply types in the (formatted) sources.
fn types() -> BTreeMap<String, Type> {
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let replies = std::fs::read_dir(format!("{src}/types/reply")).expect("the sources are there");
    let mut files: Vec<_> = replies.map(|entry| entry.expect("readable").path()).collect();
    files.extend(["types/version.rs", "transport/auth.rs", "api/agent.rs"].map(|name| format!("{src}/{name}").into()));
    let block = regex_lite::Regex::new(r"^(?:pub(?:\(crate\))? )?struct (\w+)(?:<\w+>)? \{$").expect("an expression");
    let field = regex_lite::Regex::new(r"^    (?:pub(?:\(crate\))? )?(\w+): (.+),$").expect("an expression");
    let renamed = regex_lite::Regex::new(r#"rename = "([^"]+)""#).expect("an expression");
    let read_by = regex_lite::Regex::new(r#"deserialize_with = "lenient::(\w+)""#).expect("an expression");
    let mut types: BTreeMap<String, Type> = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("readable");
        let (mut owner, mut attribute) = (None, String::new());
        for line in text.lines() {
            if let Some(found) = block.captures(line) {
                owner = Some(found[1].to_owned());
            } else if line == "}" {
                owner = None;
            }
            let Some(name) = &owner else { continue };
            if line.starts_with("    #[serde") {
                line.clone_into(&mut attribute);
            } else if let Some(found) = field.captures(line) {
                let kind = read_by
                    .captures(&attribute)
                    .map_or_else(|| found[2].to_owned(), |by| by[1].to_owned());
                let into = types.entry(name.clone()).or_default();
                if attribute.contains("flatten") {
                    into.keeps_rest = true;
                } else {
                    into.fields.push(Field {
                        wire: renamed
                            .captures(&attribute)
                            .map_or_else(|| found[1].to_owned(), |name| name[1].to_owned()),
                        kind,
                        may_lack: attribute.contains("default"),
                    });
                }
                attribute.clear();
            }
        }
    }
    types
}

/// What the schema says that the call answers, at that place of the answer.
fn returns(tree: &[Value], method: &str, path: &str, place: &str) -> Value {
    fn find<'a>(entries: &'a [Value], path: &str) -> Option<&'a Value> {
        entries.iter().find_map(|entry| {
            if entry["path"] == path {
                return Some(entry);
            }
            find(entry["children"].as_array()?, path)
        })
    }
    let entry = find(tree, path).expect(path);
    let mut at = &entry["info"][method]["returns"];
    for step in place.split('/').filter(|step| !step.is_empty()) {
        at = if step == "*" {
            &at["items"]
        } else {
            &at["properties"][step]
        };
    }
    at["properties"].clone()
}

/// Which of the schema's types a reader takes.
fn takes(kind: &str, schema_type: &str) -> bool {
    match kind {
        "u16" | "u64" | "opt_u64" | "opt_i64" | "Vmid" | "Option<Vmid>" => schema_type == "integer",
        "opt_f64" => ["number", "integer"].contains(&schema_type),
        "flag" | "opt_flag" => ["boolean", "integer"].contains(&schema_type),
        "Usage" => schema_type == "object",
        list if list.starts_with("Vec<") => schema_type == "array",
        _ => schema_type == "string",
    }
}

#[test]
fn fields_are_those_of_the_schema() {
    let text = std::fs::read_to_string(format!("{ROOT}/api-schema.json")).expect("the schema is in the repository");
    let tree: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let types = types();
    let (mut faults, mut open, mut checked) = (Vec::new(), BTreeSet::new(), 0);
    for (method, path, name, place) in REPLIES {
        let known = returns(&tree, method, path, place);
        for Field { wire, kind, may_lack } in &types[*name].fields {
            let property = &known[wire];
            let Some(schema_type) = property["type"]
                .as_str()
                .or_else(|| property.is_object().then_some("string"))
            else {
                open.insert(format!("{name}.{wire} of {path}"));
                continue;
            };
            checked += 1;
            if !takes(kind, schema_type) {
                faults.push(format!("{name}.{wire}: {kind} reads no {schema_type} ({path})"));
            }
            if property["optional"].as_u64() == Some(1)
                && !may_lack
                && !kind.starts_with("Option<")
                && !kind.starts_with("opt_")
            {
                faults.push(format!("{name}.{wire} may lack in the answer ({path})"));
            }
        }
    }
    println!(
        "client: {checked} fields of replies are those of the schema, {} are beyond it",
        open.len()
    );
    assert_eq!(faults, Vec::<String>::new());
    let whole: Vec<String> = open.into_iter().collect();
    insta::assert_snapshot!("beyond_the_schema", whole.join("\n"));
}

/// The objects at a place of the data.
fn objects<'a>(data: &'a Value, place: &str) -> Vec<&'a Value> {
    place
        .split('/')
        .filter(|step| !step.is_empty())
        .fold(vec![data], |at, step| {
            at.into_iter()
                .flat_map(|value| match step {
                    "*" => value.as_array().map_or_else(Vec::new, |list| list.iter().collect()),
                    key => value.get(key).into_iter().collect(),
                })
                .collect()
        })
}

/// What was recorded and is in no field: kept in `extra`, or left out on purpose, and then named here.
#[test]
fn what_is_dropped_is_known() {
    let types = types();
    let mut dropped: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept = 0;
    for exchange in recorded() {
        let Ok(envelope) = exchange.decode() else { continue };
        for (method, path, name, place) in REPLIES {
            let pattern: Vec<&str> = path
                .split('/')
                .map(|part| if part.starts_with('{') { "*" } else { part })
                .collect();
            if *method != exchange.method.as_str() || !fits(&pattern.join("/"), &exchange.path) {
                continue;
            }
            let known = &types[*name];
            for object in objects(&envelope.data, place) {
                for key in object.as_object().into_iter().flat_map(serde_json::Map::keys) {
                    if known.fields.iter().any(|field| field.wire == *key) || known.keeps_rest {
                        kept += 1;
                    } else {
                        *dropped.entry(format!("{name}.{key}")).or_default() += 1;
                    }
                }
            }
        }
    }
    println!(
        "client: {kept} recorded members are kept, {} are left out",
        dropped.values().sum::<usize>()
    );
    let whole: Vec<String> = dropped.iter().map(|(key, count)| format!("{key} {count}")).collect();
    insta::assert_snapshot!("left_out", whole.join("\n"));
}
