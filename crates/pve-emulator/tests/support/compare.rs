//! Recorded and actual JSON side by side, under the masks of the recording.

use regex_lite::Regex;
use serde_json::Value;

/// What a step says about values that may differ.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    pub(crate) volatile: Vec<String>,
    pub(crate) host: Vec<String>,
    pub(crate) unordered: Vec<String>,
    pub(crate) shapes: Vec<(String, String)>,
}

impl Masks {
    pub(crate) fn of(step: &Value) -> Self {
        let list = |key: &str| -> Vec<String> {
            let items = step[key].as_array().into_iter().flatten();
            items.filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let shapes = step["shapes"].as_object().into_iter().flatten();
        Self {
            volatile: list("volatile"),
            host: list("host"),
            unordered: list("unordered"),
            shapes: shapes
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect(),
        }
    }

    fn has(list: &[String], path: &[Segment<'_>]) -> bool {
        list.iter().any(|pattern| fits(pattern, path))
    }
}

/// One step of the way into a value: its key or index, and the value that contains it.
#[derive(Clone)]
struct Segment<'a> {
    name: String,
    value: &'a Value,
}

/// Whether a pointer with `*` and `[member=value]` leads here.
fn fits(pattern: &str, path: &[Segment<'_>]) -> bool {
    let parts: Vec<String> = pattern
        .split('/')
        .skip(1)
        .map(|p| p.replace("~1", "/").replace("~0", "~"))
        .collect();
    parts.len() == path.len()
        && parts.iter().zip(path).all(|(part, segment)| {
            if part == "*" || *part == segment.name {
                return true;
            }
            let condition = part
                .strip_prefix('[')
                .and_then(|p| p.strip_suffix(']'))
                .and_then(|p| p.split_once('='));
            condition.is_some_and(|(member, value)| match &segment.value[member] {
                Value::String(text) => text == value,
                other => other.to_string().as_str() == value,
            })
        })
}

/// The differences, each as `pointer: expected ..., got ...`.
pub(crate) fn differences(expected: &Value, actual: &Value, masks: &Masks) -> Vec<String> {
    let mut found = Vec::new();
    walk(expected, actual, masks, &mut Vec::new(), &mut found);
    found
}

/// A JSON pointer to here.
fn pointer_of(path: &[Segment<'_>]) -> String {
    path.iter()
        .fold(String::new(), |pointer, segment| pointer + "/" + &segment.name)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn walk<'a>(expected: &'a Value, actual: &Value, masks: &Masks, path: &mut Vec<Segment<'a>>, found: &mut Vec<String>) {
    let here = pointer_of(path);
    let pointer = || here.clone();
    if Masks::has(&masks.host, path) {
        if kind(expected) != kind(actual) {
            found.push(format!("{}: expected a {}, got {actual}", pointer(), kind(expected)));
        }
        return;
    }
    if let Some((_, shape)) = masks.shapes.iter().find(|(p, _)| fits(p, path)) {
        let text = actual.as_str().map_or_else(|| actual.to_string(), str::to_owned);
        let good = Regex::new(&format!("^(?:{shape})$")).is_ok_and(|r| r.is_match(&text));
        if kind(expected) != kind(actual) || !good {
            found.push(format!("{}: expected the shape {shape}, got {actual}", pointer()));
        }
        return;
    }
    if Masks::has(&masks.volatile, path) {
        if kind(expected) != kind(actual) {
            found.push(format!("{}: expected a {}, got {actual}", pointer(), kind(expected)));
        }
        return;
    }
    match (expected, actual) {
        (Value::Object(e), Value::Object(a)) => {
            for (key, value) in e {
                path.push(Segment {
                    name: key.clone(),
                    value,
                });
                match a.get(key) {
                    Some(other) => walk(value, other, masks, path, found),
                    None => found.push(format!("{}: missing, expected {value}", pointer_of(path))),
                }
                path.pop();
            }
            for (key, value) in a.iter().filter(|(k, _)| !e.contains_key(*k)) {
                found.push(format!("{}/{key}: not expected, got {value}", pointer()));
            }
        }
        (Value::Array(e), Value::Array(a)) if Masks::has(&masks.unordered, path) => {
            let mut left: Vec<&Value> = a.iter().collect();
            for (index, value) in e.iter().enumerate() {
                path.push(Segment {
                    name: index.to_string(),
                    value,
                });
                let equal = |candidate: &&Value| {
                    let mut differences = Vec::new();
                    walk(value, candidate, masks, &mut path.clone(), &mut differences);
                    differences.len()
                };
                let best = left.iter().enumerate().map(|(i, c)| (equal(c), i)).min();
                match best {
                    Some((0, at)) => {
                        left.remove(at);
                    }
                    Some((count, at)) if count < 6 => {
                        let candidate = left.remove(at);
                        walk(value, candidate, masks, path, found);
                    }
                    _ => found.push(format!(
                        "/{}: no such element: {value}",
                        path.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join("/")
                    )),
                }
                path.pop();
            }
            for value in left {
                found.push(format!("{}: not expected: {value}", pointer_of(path)));
            }
        }
        (Value::Array(e), Value::Array(a)) => {
            if e.len() != a.len() {
                found.push(format!(
                    "{}: expected {} elements, got {}: {actual}",
                    pointer(),
                    e.len(),
                    a.len()
                ));
                return;
            }
            for (index, (value, other)) in e.iter().zip(a).enumerate() {
                path.push(Segment {
                    name: index.to_string(),
                    value,
                });
                walk(value, other, masks, path, found);
                path.pop();
            }
        }
        (Value::String(e), Value::String(a)) if Masks::has(&masks.unordered, path) => {
            let sorted = |t: &str| {
                let mut parts: Vec<String> = t.split(',').map(str::to_owned).collect();
                parts.sort();
                parts
            };
            if sorted(e) != sorted(a) {
                found.push(format!("{}: expected {expected}, got {actual}", pointer()));
            }
        }
        _ if expected == actual => {}
        _ => found.push(format!("{}: expected {expected}, got {actual}", pointer())),
    }
}
