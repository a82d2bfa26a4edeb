//! Reading an answer: status, reason phrase and body become data or an error. Pure.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{error::Error, types::lenient};

/// Longer messages are cut: they end in logs and on terminals.
const MESSAGE_MAX: usize = 4096;

/// The most values that an answer may hold. Parsed, the shortest (`0,`) takes some thirty times its length, so that the limit in
/// bytes alone would let 64 MiB become gigabytes. A cluster of 10,000 guests answers some 400,000.
const VALUES_MAX: usize = 2_000_000;

/// An answer as it came, with what it answers.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) reason: &'a str,
    pub(crate) body: &'a [u8],
}

/// The members of a good answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Envelope {
    pub(crate) data: Value,
    /// Beside the data of lists that are cut (`FACTS` 52).
    pub(crate) total: Option<u64>,
}

impl Reply<'_> {
    /// Tells good from bad by the status and reads the body.
    pub(crate) fn decode(&self) -> Result<Envelope, Error> {
        if !(200..300).contains(&self.status) {
            return Err(self.api_error());
        }
        if has_more_values(self.body, VALUES_MAX) {
            return Err(self.unreadable(&format!("it holds more than {VALUES_MAX} values"), None));
        }
        let parsed: Value =
            serde_json::from_slice(self.body).map_err(|error| self.unreadable("its body is not JSON", Some(error)))?;
        let Value::Object(mut members) = parsed else {
            return Err(self.unreadable("its body is not a JSON object", None));
        };
        let Some(data) = members.remove("data") else {
            return Err(self.unreadable("its body has no `data`", None));
        };
        Ok(Envelope {
            data,
            total: members.get("total").and_then(Value::as_u64),
        })
    }

    fn api_error(&self) -> Error {
        let members = match self.body {
            flood if has_more_values(flood, VALUES_MAX) => Map::new(),
            body => serde_json::from_slice(body).unwrap_or_default(),
        };
        // The body repeats the reason phrase in full, of which the phrase is the first line; PVE 8 sends the phrase only.
        let in_body = members.get("message").and_then(Value::as_str).unwrap_or_default();
        let canonical = || {
            StatusCode::from_u16(self.status)
                .ok()
                .and_then(|status| status.canonical_reason())
        };
        let message = [in_body, self.reason]
            .into_iter()
            .map(one_line)
            .find(|text| !text.is_empty());
        let message = message
            .or_else(|| canonical().map(str::to_owned))
            .unwrap_or_else(|| "no reason given".to_owned());
        let mut params = BTreeMap::new();
        if let Some(Value::Object(errors)) = members.get("errors") {
            for (name, text) in errors {
                let text = lenient::as_text(text).unwrap_or_else(|| text.to_string());
                params.insert(cut(name), cut(text.trim_end()));
            }
        }
        Error::Api {
            method: self.method.clone(),
            path: self.path.to_owned(),
            status: self.status,
            message,
            params,
        }
    }

    pub(crate) fn unreadable(&self, reason: &str, source: Option<serde_json::Error>) -> Error {
        unreadable(self.method, self.path, reason, source)
    }
}

/// Brings the data of a good answer into its type.
pub(crate) fn typed<T: DeserializeOwned>(method: &Method, path: &str, data: Value) -> Result<T, Error> {
    serde_json::from_value(data).map_err(|error| unreadable(method, path, "its data has another form", Some(error)))
}

pub(crate) fn unreadable(method: &Method, path: &str, reason: &str, source: Option<serde_json::Error>) -> Error {
    Error::Decode {
        method: method.clone(),
        path: path.to_owned(),
        reason: reason.to_owned(),
        source: source.map(Into::into),
    }
}

/// Are there more values in this JSON than `limit`? Counted by what begins or divides them outside of texts, so a little too high.
fn has_more_values(json: &[u8], limit: usize) -> bool {
    // Too short for so many, as nearly all are.
    if json.len() <= limit {
        return false;
    }
    let (mut values, mut in_text, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values > limit
}

/// A foreign text for people, on one line: without control characters, which could steer a terminal.
pub(crate) fn one_line(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A foreign line for people: its spaces are kept, control characters become one, and it is cut.
pub(crate) fn printable(line: &str) -> String {
    cut(&line.replace(|c: char| c.is_control() && c != '\t', " "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn reply(status: u16, reason: &'static str, body: &'static str) -> Result<Envelope, Error> {
        Reply {
            method: &Method::GET,
            path: "/x",
            status,
            reason,
            body: body.as_bytes(),
        }
        .decode()
    }

    #[test]
    fn good_answers() {
        assert_eq!(reply(200, "OK", r#"{"data":null}"#).expect("good").data, Value::Null);
        assert_eq!(
            reply(200, "OK", r#"{"data":[],"total":3}"#).expect("good").total,
            Some(3)
        );
    }

    #[test]
    fn the_message_comes_from_wherever_it_is() {
        for (status, reason, body, want) in [
            (
                500,
                "VM 1 not running",
                r#"{"data":null,"message":"VM 1 not running\n"}"#,
                "VM 1 not running",
            ),
            (500, "VM 1 not running", r#"{"data":null}"#, "VM 1 not running"),
            (
                500,
                "first",
                r#"{"data":null,"message":"first\nsecond\n"}"#,
                "first second",
            ),
            (401, "No ticket", "", "No ticket"),
            (400, "", "", "Bad Request"),
            (596, "Broken pipe", "", "Broken pipe"),
            (596, "", "<html>", "no reason given"),
        ] {
            match reply(status, reason, body) {
                Err(Error::Api { message, .. }) => assert_eq!(message, want),
                other => panic!("{status} {reason}: {other:?}"),
            }
        }
    }

    #[test]
    fn parameters_are_kept() {
        let body = r#"{"errors":{"a":"x\n","b":7,"c":["y"]},"data":null,"message":"Parameter verification failed.\n"}"#;
        let error = reply(400, "Parameter verification failed.", body).expect_err("400");
        assert_eq!(error.kind(), ErrorKind::Parameter);
        let Error::Api { params, .. } = error else {
            panic!("not an API error")
        };
        let pairs: Vec<(&str, &str)> = params
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "x"), ("b", "7"), ("c", "[\"y\"]")]);
    }

    #[test]
    fn hostile_bodies_are_errors() {
        let deep = Box::leak(format!("{{\"data\":{}", "[".repeat(100_000)).into_boxed_str());
        for body in ["", "{", "[]", "7", "null", r#"{"dat":1}"#, "<html>", deep] {
            let error = reply(200, "OK", body).expect_err("no answer of PVE");
            assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
        }
        let long = Box::leak(format!("{{\"message\":\"{}\"}}", "ä".repeat(100_000)).into_boxed_str());
        assert!(reply(500, "x", long).expect_err("500").to_string().len() < 10_000);
    }

    #[test]
    fn more_values_than_memory_should_hold_are_an_error() {
        for (json, limit, more) in [
            ("[0,0,0]", 3, false),
            ("[0,0,0]", 2, true),
            (r#"{"a":"[,{,\",,,","b":1}"#, 2, false),
            ("[[],{}]", 3, true),
        ] {
            assert_eq!(has_more_values(json.as_bytes(), limit), more, "{json} {limit}");
        }
        let flood = Box::leak(format!("{{\"data\":[{}0]}}", "0,".repeat(VALUES_MAX)).into_boxed_str());
        let error = reply(200, "OK", flood).expect_err("too many");
        assert!(
            error.kind() == ErrorKind::Decode && error.to_string().contains("values"),
            "{error}"
        );
        assert!(reply(500, "x", flood).expect_err("500").status() == Some(500));
        let long = Box::leak(format!("{{\"data\":\"{}\"}}", ",".repeat(VALUES_MAX * 2)).into_boxed_str());
        assert!(reply(200, "OK", long).is_ok(), "one long text is one value");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(one_line("a\u{1b}[31m\r\n\tb\u{7}"), "a [31m b ");
        assert_eq!(printable("a\tb  c\r\u{0}"), "a\tb  c  ");
        let text = reply(500, "\u{1b}]0;x\u{7}", "").expect_err("500").to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_data_or_an_error(status in 100_u16..1000, reason in "\\PC{0,40}", body: Vec<u8>, json in "[\\[\\]{}\":,a-z0-9. -]{0,40}") {
            for body in [body.as_slice(), json.as_bytes()] {
                let reply = Reply { method: &Method::GET, path: "/x", status, reason: &reason, body };
                if let Err(error) = reply.decode() {
                    proptest::prop_assert!(!error.to_string().contains(char::is_control));
                    let _ = (error.kind(), error.advice(), error.missing_privileges());
                }
            }
        }
    }
}
