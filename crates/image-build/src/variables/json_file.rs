//! Reads `*.pkrvars.json`: one object with the values.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::hcl_file::{Assignment, Source, cut_behind};
use crate::diagnostic::{Diagnostic, Diagnostics, Location};

/// Reads the values of a JSON variable file. Keys that stand twice are refused, where JSON libraries take the last.
pub(super) fn assignments(source: Source<'_>, found: &mut Diagnostics) -> Vec<Assignment> {
    let mut deserializer = serde_json::Deserializer::from_str(source.text);
    let entries = deserializer
        .deserialize_map(Entries)
        .and_then(|entries| deserializer.end().map(|()| entries));
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            // The library's text can quote the value; its category and place are enough.
            let what = if error.is_eof() {
                "the file ends too early"
            } else {
                "this is no JSON object with values"
            };
            let location = Location::of_line(source.file, source.text, error.line()).without_text();
            found.push(
                Diagnostic::error("", what)
                    .at(location)
                    .help("write { \"vm_memory\": 4096 }"),
            );
            return Vec::new();
        }
    };
    let mut result: Vec<Assignment> = Vec::new();
    for (name, value) in entries {
        let location = place_of(source, &name);
        if name.starts_with("//") {
            continue;
        }
        if result.iter().any(|earlier| earlier.name == name) {
            found.push(Diagnostic::error(&name, "it is set twice in this file").at(location));
            continue;
        }
        match hcl::Value::deserialize(value) {
            Ok(value) => {
                let name_location = cut_behind(location.clone());
                result.push(Assignment {
                    name,
                    value,
                    name_location,
                    location,
                });
            }
            Err(_) => found.push(Diagnostic::error(&name, "HCL has no such value").at(location.without_text())),
        }
    }
    result
}

/// The key in quotes, or the beginning when it is written with escapes.
fn place_of(source: Source<'_>, name: &str) -> Location {
    let quoted = format!("\"{name}\"");
    let start = source.text.find(&quoted).unwrap_or(0);
    Location::of_range(source.file, source.text, start..start + quoted.len())
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, serde_json::Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}
