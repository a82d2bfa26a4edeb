//! Parameter verification with PVE's own sentences (`PVE::JSONSchema::validate`).

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::{Map, Value};

use super::formats::check_named;
use super::{Endpoint, Format, Property, PropertyString, Schema};

const NOT_DEFINED: &str = "property is not defined in schema and the schema does not allow additional properties";
const MISSING: &str = "property is missing and it is not optional";

/// Joins arrays given for lists that the schema has as texts, as PVE does before it checks (`FACTS` 26).
pub(crate) fn join_lists(endpoint: &Endpoint, params: &mut Map<String, Value>) {
    for (key, value) in params.iter_mut() {
        let Value::Array(items) = value else { continue };
        let format = endpoint.property(key).and_then(|p| p.format.as_ref());
        if matches!(format, Some(Format::Named(name)) if name.ends_with("-list")) {
            let texts: Vec<String> = items
                .iter()
                .map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned))
                .collect();
            *value = texts.join(";").into();
        }
    }
}

/// Checks all parameters of a call; the map is empty when they are fine.
pub(crate) fn verify(schema: &Schema, endpoint: &Endpoint, params: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut errors = BTreeMap::new();
    for (key, property) in &endpoint.properties {
        match params.get(key) {
            None | Some(Value::Null) => {
                if !property.optional && !key.ends_with(']') {
                    errors.insert(key.clone(), MISSING.to_owned());
                }
            }
            Some(_) => {
                if let Some(other) = property.requires.as_ref().filter(|r| !params.contains_key(*r)) {
                    errors.insert(other.clone(), format!("missing property required by '{key}'"));
                }
            }
        }
    }
    for (key, value) in params {
        match endpoint.property(key) {
            Some(property) => {
                if let Err(message) = check_value(schema, property, value, key) {
                    errors.insert(key.clone(), message);
                }
            }
            None if endpoint.additional_properties => {}
            None => {
                errors.insert(key.clone(), NOT_DEFINED.to_owned());
            }
        }
    }
    errors
}

/// Checks the parts of a property string; messages go under `path.key`.
pub(super) fn check_object(
    schema: &Schema,
    structure: &BTreeMap<String, Property>,
    additional: bool,
    values: &BTreeMap<String, String>,
    path: &str,
    errors: &mut BTreeMap<String, String>,
) {
    for (key, property) in structure {
        let name = format!("{path}.{key}");
        if values.contains_key(key) {
            if let Some(other) = property.requires.as_ref().filter(|r| !values.contains_key(*r)) {
                errors.insert(
                    format!("{path}.{other}"),
                    format!("missing property required by '{name}'"),
                );
            }
        } else if !property.optional && property.alias.is_none() {
            errors.insert(name, MISSING.to_owned());
        }
    }
    for (key, value) in values {
        let name = format!("{path}.{key}");
        match structure.get(key).filter(|p| p.alias.is_none()) {
            Some(property) => {
                if let Err(message) = check_scalar(schema, property, value, &name) {
                    errors.insert(name, message);
                }
            }
            None if additional => {}
            None => {
                errors.insert(name, NOT_DEFINED.to_owned());
            }
        }
    }
}

fn check_value(schema: &Schema, property: &Property, value: &Value, path: &str) -> Result<(), String> {
    let kind = property.kind.as_deref().unwrap_or("string");
    match (kind, value) {
        // An option that is null counts as not given; an object for an object is the handler's matter.
        (_, Value::Null) | ("object", Value::Object(_)) => Ok(()),
        ("array", Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                if let Some(property) = &property.items {
                    check_value(schema, property, item, &format!("{path}[{index}]"))?;
                }
            }
            Ok(())
        }
        // A single form value stands for a list of one.
        ("array", Value::String(text)) => match &property.items {
            Some(item) => check_scalar(schema, item, text, path),
            None => Ok(()),
        },
        (kind, Value::Array(_)) => Err(format!("type check ('{kind}') failed - got ARRAY")),
        (kind, Value::Object(_)) => Err(format!("type check ('{kind}') failed - got HASH")),
        (_, Value::Bool(flag)) => check_scalar(schema, property, if *flag { "1" } else { "0" }, path),
        (_, Value::Number(number)) => check_scalar(schema, property, &number.to_string(), path),
        (_, Value::String(text)) => check_scalar(schema, property, text, path),
    }
}

fn check_scalar(schema: &Schema, property: &Property, text: &str, path: &str) -> Result<(), String> {
    let kind = property.kind.as_deref().unwrap_or("string");
    let fits = match kind {
        "integer" => is_integer(text),
        "number" => is_number(text),
        "boolean" => matches!(text, "0" | "1"),
        _ => true,
    };
    if !fits {
        return Err(format!("type check ('{kind}') failed - got '{text}'"));
    }
    match &property.format {
        Some(Format::Named(name)) => {
            check_named(schema, name, text, path).map_err(|e| format!("invalid format - {e}"))?;
        }
        Some(Format::Structure(structure)) => {
            PropertyString::parse(schema, structure, text, path).map_err(|e| format!("invalid format - {e}"))?;
        }
        None => {}
    }
    if let Some(pattern) = &property.pattern
        && !matches(pattern, text)
    {
        return Err("value does not match the regex pattern".into());
    }
    let length = text.chars().count();
    if let Some(max) = property.max_length
        && length > whole(max)
    {
        return Err(format!("value may only be {max} characters long"));
    }
    if let Some(min) = property.min_length
        && length < whole(min)
    {
        return Err(format!("value must be at least {min} characters long"));
    }
    if is_number(text) && matches!(kind, "integer" | "number") {
        let number: f64 = text.parse().unwrap_or_default();
        if let Some(max) = property.maximum
            && number > max
        {
            return Err(format!("value must have a maximum value of {max}"));
        }
        if let Some(min) = property.minimum
            && number < min
        {
            return Err(format!("value must have a minimum value of {min}"));
        }
    }
    if let Some(words) = &property.words {
        let words: Vec<String> = words
            .iter()
            .map(|w| w.as_str().map_or_else(|| w.to_string(), ToOwned::to_owned))
            .collect();
        if !words.iter().any(|w| w == text) {
            return Err(format!(
                "value '{text}' does not have a value in the enumeration '{}'",
                words.join(", ")
            ));
        }
    }
    Ok(())
}

/// Perl anchors the whole pattern. The few that use what this regex engine lacks are let through: refusing a value
/// that PVE takes would be worse.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern = pattern
        .strip_prefix("(?^:")
        .and_then(|p| p.strip_suffix(')'))
        .unwrap_or(pattern);
    Regex::new(&format!("^(?:{pattern})$")).map_or(true, |r| r.is_match(text))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lengths in the schema are small whole numbers"
)]
fn whole(limit: f64) -> usize {
    limit as usize
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok()
}
