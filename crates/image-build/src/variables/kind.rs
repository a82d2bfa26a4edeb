//! Types of variables, and Packer's conversions between them.

use hcl::Value;
use hcl_edit::expr::Expression;

/// The type of a declared variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    String,
    Number,
    Bool,
    /// Lists, and sets, which differ only in that order says nothing.
    List(Box<Kind>),
    Map(Box<Kind>),
}

impl Kind {
    /// Reads a type constraint such as `list(string)`.
    pub(super) fn of(expression: &Expression) -> Option<Self> {
        match expression {
            Expression::Variable(name) => match name.as_str() {
                "any" => Some(Self::Any),
                "string" => Some(Self::String),
                "number" => Some(Self::Number),
                "bool" => Some(Self::Bool),
                "list" | "set" => Some(Self::List(Box::new(Self::Any))),
                "map" => Some(Self::Map(Box::new(Self::Any))),
                _ => None,
            },
            Expression::FuncCall(call) => {
                let name = call.name.name.as_str();
                let mut args = call.args.iter();
                let first = args.next()?;
                match name {
                    "list" | "set" => Self::of(first).map(|kind| Self::List(Box::new(kind))),
                    "map" => Self::of(first).map(|kind| Self::Map(Box::new(kind))),
                    // Fields of these may each have another type; what reads them checks what it needs.
                    "object" | "tuple" | "optional" => Some(Self::Any),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What to write for a value of this type.
    pub(super) fn example(&self) -> &'static str {
        match self {
            Self::Any => "a value",
            Self::String => "a text in double quotes",
            Self::Number => "a number, as in 9000",
            Self::Bool => "true or false",
            Self::List(_) => "a list, as in [\"a\", \"b\"]",
            Self::Map(_) => "a map, as in { key = \"value\" }",
        }
    }

    /// The value as this type, by the conversions that HCL makes; `None` when there is none.
    pub(super) fn convert(&self, value: Value) -> Option<Value> {
        if value.is_null() {
            return Some(Value::Null);
        }
        match (self, value) {
            (Self::Any, value)
            | (Self::String, value @ Value::String(_))
            | (Self::Number, value @ Value::Number(_))
            | (Self::Bool, value @ Value::Bool(_)) => Some(value),
            (Self::String, Value::Number(number)) => Some(Value::String(number.to_string())),
            (Self::String, Value::Bool(bool)) => Some(Value::String(bool.to_string())),
            (Self::Number, Value::String(text)) => {
                let text = text.trim();
                if let Ok(number) = text.parse::<u64>() {
                    return Some(Value::Number(number.into()));
                }
                if let Ok(number) = text.parse::<i64>() {
                    return Some(Value::Number(number.into()));
                }
                hcl::Number::from_f64(text.parse().ok()?).map(Value::Number)
            }
            (Self::Bool, Value::String(text)) => match text.as_str() {
                "true" | "1" => Some(Value::Bool(true)),
                "false" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            (Self::List(kind), Value::Array(values)) => values
                .into_iter()
                .map(|value| kind.convert(value))
                .collect::<Option<Vec<_>>>()
                .map(Value::Array),
            (Self::Map(kind), Value::Object(map)) => map
                .into_iter()
                .map(|(key, value)| kind.convert(value).map(|value| (key, value)))
                .collect::<Option<_>>()
                .map(Value::Object),
            _ => None,
        }
    }

    /// Is a text on the command line or in the environment the value itself, rather than an HCL expression?
    ///
    /// # Source
    /// Packer's documentation of input variables: strings are taken literally, everything else is parsed.
    pub(super) fn is_literal(&self) -> bool {
        matches!(self, Self::Any | Self::String)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<Kind> {
        Kind::of(&text.parse().expect(text))
    }

    #[test]
    fn constraints() {
        assert_eq!(kind("string"), Some(Kind::String));
        assert_eq!(kind("list(string)"), Some(Kind::List(Box::new(Kind::String))));
        assert_eq!(
            kind("map(list(number))"),
            Some(Kind::Map(Box::new(Kind::List(Box::new(Kind::Number)))))
        );
        assert_eq!(kind("object({ a = string })"), Some(Kind::Any));
        for bad in ["strng", "list(strng)", "\"string\"", "12"] {
            assert_eq!(kind(bad), None, "{bad}");
        }
    }

    #[test]
    fn conversions() {
        let text = |text: &str| Value::String(text.to_owned());
        for (to, from, want) in [
            (Kind::String, Value::from(9000), Some(text("9000"))),
            (Kind::String, Value::from(true), Some(text("true"))),
            (Kind::Number, text("9000"), Some(Value::from(9000_u64))),
            (Kind::Number, text("-1"), Some(Value::from(-1))),
            (Kind::Number, text("many"), None),
            (Kind::Bool, text("true"), Some(Value::from(true))),
            (Kind::Bool, text("yes"), None),
            (Kind::Bool, Value::from(1), None),
            (Kind::String, Value::Array(vec![]), None),
            (Kind::List(Box::new(Kind::String)), text("a"), None),
            (
                Kind::List(Box::new(Kind::String)),
                Value::from(vec![1, 2]),
                Some(Value::from(vec!["1", "2"])),
            ),
            (Kind::Number, Value::Null, Some(Value::Null)),
        ] {
            assert_eq!(to.convert(from.clone()), want, "{from:?} as {to:?}");
        }
    }
}
