//! Parameters of a call, whichever way they came: path, query, form, JSON.

use std::fmt;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{Failure, Shape};

/// Parameters by name. Form values are strings, JSON keeps its types, a repeated key is an array (`FACTS` 27).
#[derive(Clone, Default)]
pub(crate) struct Params(pub(crate) Map<String, Value>);

/// Names alone: values can be passwords.
impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Params {
    /// The value as text; numbers and booleans are printed as PVE's Perl would.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        as_text(self.0.get(key)?)
    }

    /// The value as text, for a parameter that the schema requires.
    pub(crate) fn required(&self, key: &str) -> Result<String, Failure> {
        self.text(key)
            .ok_or_else(|| Failure::param(key, "property is missing and it is not optional"))
    }

    /// A boolean; absent is `None`.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.text(key).map(|t| t == "1")
    }

    /// A whole number that the schema has already checked.
    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        self.text(key)?.trim_start_matches('+').parse().ok()
    }

    /// A list parameter: an array, one string, or texts separated by commas, semicolons or spaces.
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        match self.0.get(key) {
            Some(Value::Array(items)) => items.iter().filter_map(as_text).collect(),
            Some(value) => as_text(value)
                .unwrap_or_default()
                .split([',', ';', ' ', '\0'])
                .filter(|p| !p.is_empty())
                .map(str::to_owned)
                .collect(),
            None => Vec::new(),
        }
    }

    /// An argument vector: an array, or one string that is one element (`FACTS` 48).
    pub(crate) fn vector(&self, key: &str) -> Vec<String> {
        match self.0.get(key) {
            Some(Value::Array(items)) => items.iter().filter_map(as_text).collect(),
            Some(value) => as_text(value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Adds a pair; a key that is there already becomes an array.
    pub(crate) fn push(&mut self, key: String, value: Value) {
        match self.0.get_mut(&key) {
            Some(Value::Array(items)) => items.push(value),
            Some(first) => {
                let first = first.take();
                self.0.insert(key, Value::Array(vec![first, value]));
            }
            None => {
                self.0.insert(key, value);
            }
        }
    }

    /// Sets a value whatever was there.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_owned(), Value::String(value.into()));
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(if *b { "1" } else { "0" }.to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads `a=1&b=2` into `params`.
pub(crate) fn parse_form(text: &str, params: &mut Params) {
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        params.push(decode(key), Value::String(decode(value)));
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

/// Reads a JSON object into `params`.
///
/// # Errors
/// PVE's 500 with the Perl parser's text as a plain body (`FACTS` 26).
pub(crate) fn parse_json(bytes: &[u8], params: &mut Params) -> Result<(), Failure> {
    let line = |line: u32, what: String| {
        Failure::die(format!(
            "{what} at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line {line}."
        ))
        .with_shape(Shape::Text)
    };
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(map)) => {
            for (key, value) in map {
                params.0.insert(key, value);
            }
            Ok(())
        }
        Ok(_) => Err(line(978, "Not a HASH reference".into())),
        Err(error) => {
            let offset = bytes.len().min(error.column());
            let rest = String::from_utf8_lossy(&bytes[offset..])
                .chars()
                .take(20)
                .collect::<String>();
            let rest = if rest.is_empty() {
                "(end of string)".to_owned()
            } else {
                rest
            };
            Err(line(
                934,
                format!(
                    "malformed JSON string, neither tag, array, object, number, string or atom, at character offset \
                     {offset} (before \"{rest}\")"
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_become_arrays() {
        let mut params = Params::default();
        parse_form("command=/bin/echo&command=a+b&command=%C3%A4&x", &mut params);
        assert_eq!(params.vector("command"), ["/bin/echo", "a b", "ä"]);
        assert_eq!(params.text("command"), None);
        assert_eq!(params.text("x").as_deref(), Some(""));
    }

    #[test]
    fn bad_json_speaks_perl() {
        let mut params = Params::default();
        let failure = parse_json(b"{\"cores\":", &mut params).unwrap_err();
        assert_eq!(failure.status, 500);
        assert!(
            failure
                .message
                .contains("at character offset 9 (before \"(end of string)\")"),
            "{}",
            failure.message
        );
        assert!(
            parse_json(b"[1]", &mut params)
                .unwrap_err()
                .message
                .starts_with("Not a HASH reference")
        );
    }
}
