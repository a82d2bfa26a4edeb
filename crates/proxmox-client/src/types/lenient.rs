//! Reading PVE's loose JSON: booleans as 0/1 or text, numbers as text, nulls for absent values (`FACTS` 24, 25).

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// What a scalar of a reply means as a whole number; `None` when it is none.
fn as_u64(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(flag) => Some(u64::from(*flag)),
        _ => None,
    }
}

/// Perl prints large sums as `1.5e+11`: taken when the value is whole and fits.
fn whole(number: f64) -> Option<u64> {
    /// From here on an `f64` no longer holds every whole number.
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && (0.0..=LIMIT).contains(&number) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be whole and in range"
        )]
        Some(number as u64)
    } else {
        None
    }
}

fn as_f64(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// What a scalar of a reply means as a boolean, in the words that PVE's own parser knows.
pub(crate) fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        Value::String(text) => bool_of_text(text),
        _ => None,
    }
}

/// The boolean words of a property string or a form field.
pub(crate) fn bool_of_text(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" | "" => Some(false),
        _ => None,
    }
}

/// A scalar as the text that PVE would write; `None` for null, lists and maps.
pub(crate) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(u8::from(*flag).to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(crate) fn u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    as_u64(&value).ok_or_else(|| D::Error::custom(format!("expected a whole number, found {}", short(&value))))
}

/// A port: a text where the schema has an integer.
pub(crate) fn u16<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = u64(deserializer)?;
    u16::try_from(number).map_err(|_| D::Error::custom(format!("{number} is more than 65535")))
}

pub(crate) fn opt_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    optional(deserializer, "a whole number", as_u64)
}

pub(crate) fn opt_i64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    optional(deserializer, "a whole number", |value| match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

pub(crate) fn opt_f64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    optional(deserializer, "a number", as_f64)
}

/// Absent, null and empty text count as `false`.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(opt_flag(deserializer)?.unwrap_or(false))
}

pub(crate) fn opt_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    optional(deserializer, "a boolean", as_bool)
}

pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    as_text(&value).ok_or_else(|| D::Error::custom(format!("expected a text, found {}", short(&value))))
}

pub(crate) fn opt_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    optional(deserializer, "a text", as_text)
}

fn optional<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    wanted: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(read(&Value::String(text))),
        Some(value) => match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(D::Error::custom(format!("expected {wanted}, found {}", short(&value)))),
        },
    }
}

/// A value for an error text: its start only, so that a hostile reply cannot flood a log.
pub(crate) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Loose {
        #[serde(default, deserialize_with = "opt_u64")]
        number: Option<u64>,
        #[serde(default, deserialize_with = "flag")]
        flag: bool,
        #[serde(default, deserialize_with = "opt_text")]
        text: Option<String>,
    }

    fn read(json: &str) -> Result<Loose, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn numbers_come_as_numbers_or_text() {
        for (json, want) in [
            (r#"{"number":5}"#, Some(5)),
            (r#"{"number":"5"}"#, Some(5)),
            (r#"{"number":1.5e3}"#, Some(1500)),
            (r#"{"number":null}"#, None),
            (r#"{"number":""}"#, None),
            ("{}", None),
        ] {
            assert_eq!(read(json).expect(json).number, want, "{json}");
        }
        for bad in [
            r#"{"number":-1}"#,
            r#"{"number":1.5}"#,
            r#"{"number":"x"}"#,
            r#"{"number":[]}"#,
            r#"{"number":1e300}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn booleans_come_in_every_form() {
        for (json, want) in [
            (r#"{"flag":1}"#, true),
            (r#"{"flag":"1"}"#, true),
            (r#"{"flag":true}"#, true),
            (r#"{"flag":0}"#, false),
            (r#"{"flag":"0"}"#, false),
            (r#"{"flag":""}"#, false),
            (r#"{"flag":null}"#, false),
            ("{}", false),
        ] {
            assert_eq!(read(json).expect(json).flag, want, "{json}");
        }
        assert!(read(r#"{"flag":"maybe"}"#).is_err());
    }

    #[test]
    fn texts_may_be_numbers() {
        assert_eq!(read(r#"{"text":7}"#).expect("a number").text.as_deref(), Some("7"));
        assert!(read(r#"{"text":{}}"#).is_err());
    }

    #[test]
    fn an_error_text_stays_short() {
        let error = read(&format!(r#"{{"number":"{}"}}"#, "ä".repeat(10_000)))
            .err()
            .expect("not a number")
            .to_string();
        assert!(error.len() < 300, "{} bytes", error.len());
    }
}
