//! The schema that PVE 9.2 dumps of itself, and what it finds wrong with a request.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pve");

/// Method and path template to what the schema says of it.
pub(crate) type Schema = BTreeMap<(String, String), Value>;

pub(crate) fn schema() -> Schema {
    fn walk(entry: &Value, into: &mut Schema) {
        let path = entry["path"].as_str().expect("each entry has a path");
        for (method, info) in entry["info"].as_object().into_iter().flatten() {
            into.insert((method.clone(), path.to_owned()), info.clone());
        }
        for child in entry["children"].as_array().into_iter().flatten() {
            walk(child, into);
        }
    }
    let text = std::fs::read_to_string(format!("{ROOT}/api-schema.json")).expect("the schema is in the repository");
    let tree: Vec<Value> = serde_json::from_str(&text).expect("the schema is JSON");
    let mut schema = Schema::new();
    for entry in &tree {
        walk(entry, &mut schema);
    }
    assert_eq!(schema.len(), 661, "path and method pairs, as its README says");
    schema
}

/// The template that a path fits, and what stands in the place of its names.
fn find<'a>(schema: &'a Schema, method: &str, path: &str) -> Option<(&'a Value, Vec<(String, String)>)> {
    let parts: Vec<&str> = path.split('/').collect();
    let fitting = |template: &str| {
        let names: Vec<&str> = template.split('/').collect();
        if names.len() != parts.len() {
            return None;
        }
        let mut taken = Vec::new();
        for (name, part) in names.iter().zip(&parts) {
            let decoded = percent_decode_str(part).decode_utf8().expect("UTF-8").into_owned();
            match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => taken.push((name.to_owned(), decoded)),
                None if *name == decoded => {}
                None => return None,
            }
        }
        Some(taken)
    };
    let all = schema.iter().filter(|((known, _), _)| known == method);
    all.filter_map(|((_, template), info)| Some((info, fitting(template)?)))
        .min_by_key(|(_, taken)| taken.len())
}

/// What is wrong with a request by the schema; nothing is right. The path begins below `/api2/json` and is percent-encoded.
pub(crate) fn faults(schema: &Schema, method: &str, path: &str, params: &[(String, String)]) -> Vec<String> {
    let Some((info, taken)) = find(schema, method, path) else {
        return vec![format!("{method} {path} is not in the schema")];
    };
    let none = Map::new();
    let properties = info["parameters"]["properties"].as_object().unwrap_or(&none);
    let mut faults = Vec::new();
    let mut given = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (name, value) in taken.iter().chain(params) {
        let Some((key, property)) = property_of(properties, name) else {
            faults.push(format!("{name} is not a parameter"));
            continue;
        };
        given.insert(key);
        // A repeated key becomes an array, which a scalar then is not (FACTS 27).
        if !names.insert(name) && property["type"] != "array" {
            faults.push(format!("{name} is given twice"));
        }
        if let Some(fault) = fault_of(property, value) {
            faults.push(format!("{name}={value}: {fault}"));
        }
    }
    for (name, property) in properties {
        if !is_optional(property) && !given.contains(name.as_str()) {
            faults.push(format!("{name} is missing"));
        }
        if let Some(needed) = property["requires"].as_str()
            && given.contains(name.as_str())
            && !given.contains(needed)
        {
            faults.push(format!("{name} needs {needed}"));
        }
    }
    faults
}

fn is_optional(property: &Value) -> bool {
    property["optional"].as_u64() == Some(1)
}

/// Numbered options stand as `scsi[n]` in the schema.
fn property_of<'a>(properties: &'a Map<String, Value>, name: &str) -> Option<(&'a str, &'a Value)> {
    let numbered = format!("{}[n]", name.trim_end_matches(|c: char| c.is_ascii_digit()));
    let found = properties.get_key_value(name);
    let found = found.or_else(|| {
        properties
            .get_key_value(&numbered)
            .filter(|_| name.ends_with(|c: char| c.is_ascii_digit()))
    });
    found.map(|(key, property)| (key.as_str(), property))
}

fn fault_of(property: &Value, value: &str) -> Option<String> {
    let number = |key: &str| property[key].as_i64().or_else(|| property[key].as_str()?.parse().ok());
    match property["type"].as_str().unwrap_or("string") {
        "boolean" => (!matches!(value, "0" | "1")).then(|| "a boolean travels as 0 or 1".to_owned()),
        "integer" => match value.parse::<i64>() {
            Ok(n) if number("minimum").is_some_and(|min| n < min) || number("maximum").is_some_and(|max| n > max) => {
                Some("out of range".to_owned())
            }
            Ok(_) => None,
            Err(_) => Some("not an integer".to_owned()),
        },
        "number" => match value.parse::<f64>() {
            Ok(n)
                if property["minimum"].as_f64().is_some_and(|min| n < min)
                    || property["maximum"].as_f64().is_some_and(|max| n > max) =>
            {
                Some("out of range".to_owned())
            }
            Ok(_) => None,
            Err(_) => Some("not a number".to_owned()),
        },
        "string" => fault_of_string(property, value),
        "array" => fault_of(&property["items"], value),
        other => Some(format!("type {other} is unknown to this test")),
    }
}

fn fault_of_string(property: &Value, value: &str) -> Option<String> {
    if let Some(words) = property["enum"].as_array()
        && !words.iter().any(|word| word == value)
    {
        return Some("not one of the words".to_owned());
    }
    if property["maxLength"]
        .as_u64()
        .is_some_and(|max| value.chars().count() as u64 > max)
    {
        return Some("too long".to_owned());
    }
    if property["minLength"]
        .as_u64()
        .is_some_and(|min| (value.chars().count() as u64) < min)
    {
        return Some("too short".to_owned());
    }
    if let Some(pattern) = property["pattern"].as_str() {
        // Perl prints its compiled expressions with `(?^:`, and knows `{,n}`.
        let pattern = pattern.replace("(?^:", "(?:").replace("{,", "{0,");
        let anchored = regex_lite::Regex::new(&format!("^(?:{pattern})$")).expect("an expression");
        if !anchored.is_match(value) {
            return Some(format!("does not fit {pattern}"));
        }
    }
    match &property["format"] {
        Value::Object(keys) => fault_of_property_string(keys, value),
        Value::String(format) => fault_of_format(format, value),
        _ => None,
    }
}

/// A property string by its own little schema.
fn fault_of_property_string(keys: &Map<String, Value>, value: &str) -> Option<String> {
    let default_key = keys
        .iter()
        .find(|(_, property)| property["default_key"].as_u64() == Some(1))
        .map(|(key, _)| key);
    let mut given = BTreeSet::new();
    for part in value.split(',') {
        let (mut key, value) = match (part.split_once('='), default_key) {
            (Some((key, value)), _) => (key.to_owned(), value),
            (None, Some(key)) => (key.clone(), part),
            (None, None) => return Some(format!("{part:?} has no key")),
        };
        let Some(mut property) = keys.get(&key) else {
            return Some(format!("{key} is not a key"));
        };
        // `virtio=MAC` stands for the model and the address at once.
        if let Some(other) = property["keyAlias"].as_str() {
            given.insert(other.to_owned());
        }
        if let Some(alias) = property["alias"].as_str() {
            property = &keys[alias];
            alias.clone_into(&mut key);
        }
        if let Some(fault) = fault_of(property, value) {
            return Some(format!("{key}: {fault}"));
        }
        if !given.insert(key.clone()) {
            return Some(format!("{key} is given twice"));
        }
    }
    let missing = keys
        .iter()
        .find(|(key, property)| !is_optional(property) && property["alias"].is_null() && !given.contains(*key));
    missing.map(|(key, _)| format!("{key} is missing"))
}

/// The formats that the schema only names, as pve-common and qemu-server define them.
fn fault_of_format(format: &str, value: &str) -> Option<String> {
    let expression = match format {
        "pve-node" => "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?",
        "pve-vmid" => "[1-9][0-9]{2,8}",
        "pve-storage-id" => r"(?i)[a-z][a-z0-9\-_.]*[a-z0-9]",
        "pve-storage-content" => "iso|images|vztmpl|import|backup|rootdir|snippets",
        "pve-poolid" => r"[A-Za-z0-9.\-_]+(?:/[A-Za-z0-9.\-_]+){0,2}",
        "pve-tag-list" => r"(?:[a-z0-9_][a-z0-9_\-+.]*(?:;|$))*",
        "pve-configid" => "[a-zA-Z][a-zA-Z0-9_-]+",
        "pve-configid-list" => r"[a-zA-Z][a-zA-Z0-9_-]+(?:,[a-zA-Z][a-zA-Z0-9_-]+)*",
        "pve-bridge-id" => r"[-_.\w]{1,15}",
        "dns-name" => r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*",
        "disk-size" => r"\d+(?:\.\d+)?[KMGT]?",
        "pve-volume-id-or-qm-path" => r"none|cdrom|/.+|[a-zA-Z][a-zA-Z0-9\-_.]+:[^,]+",
        "pve-volume-id-or-absolute-path" => r"/.+|[a-zA-Z][a-zA-Z0-9\-_.]+:[^,]+",
        "pve-qm-boot" => r"order=[a-z0-9]+(?:;[a-z0-9]+)*|(?:legacy=)?[acdn]{1,4}",
        "pve-vm-cpu-conf" => r"(?:cputype=)?[a-zA-Z0-9\-_.]+(?:,[a-z-]+=[^,]+)*",
        "pve-qm-smbios1" => r"(?:(?:base64|family|manufacturer|product|serial|sku|uuid|version)=[^,]+,?)*",
        "mac-addr" => "(?i)[a-f0-9][02468ace](?::[a-f0-9]{2}){5}",
        "urlencoded" => r"[-%a-zA-Z0-9_.!~*'()]*",
        _ => return Some(format!("format {format} is unknown to this test")),
    };
    let expression = regex_lite::Regex::new(&format!("^(?:{expression})$")).expect("an expression");
    (!expression.is_match(value)).then(|| format!("is no {format}"))
}
