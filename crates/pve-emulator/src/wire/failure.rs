//! A call that PVE refuses, with the words it uses.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the body of an error reply holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"data":null,"message":"text\n"}` with `errors` when there are any.
    Json,
    /// The same without the newline: errors that the HTTP server itself raises.
    JsonBare,
    /// The message as plain text.
    Text,
    /// No body and no `Content-Length` (`FACTS` 3).
    Empty,
    /// No body, though the header announces JSON: what is left of an answer whose status line broke (`FACTS` 2).
    EmptyJson,
    /// The connection is closed without any answer (`FACTS` 18, 22, 57).
    HangUp,
}

/// A refused call.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    /// The text without its trailing newline; its first line is the reason phrase (`FACTS` 1).
    pub(crate) message: String,
    pub(crate) errors: BTreeMap<String, String>,
    pub(crate) shape: Shape,
    /// Whether the server waits 3 s before it answers (`FACTS` 4).
    pub(crate) delayed: bool,
}

impl Failure {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.ends_with('\n') {
            message.pop();
        }
        Self {
            status,
            message,
            errors: BTreeMap::new(),
            shape: Shape::Json,
            delayed: false,
        }
    }

    /// Perl's `die "text\n"`: 500 with the text.
    pub(crate) fn die(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// 400 that names one parameter.
    pub(crate) fn param(name: &str, message: impl Into<String>) -> Self {
        Self::params(BTreeMap::from([(name.to_owned(), message.into())]))
    }

    /// 400 that names several parameters.
    pub(crate) fn params(errors: BTreeMap<String, String>) -> Self {
        Self {
            errors,
            ..Self::new(400, "Parameter verification failed.")
        }
    }

    /// 403 with its detail, `/path, Priv`, or without any.
    pub(crate) fn permission(detail: &str) -> Self {
        if detail.is_empty() {
            Self::new(403, "Permission check failed")
        } else {
            Self::new(403, format!("Permission check failed ({detail})"))
        }
    }

    /// 401 of the authentication stage: delayed, without a body.
    pub(crate) fn unauthorized(reason: &str) -> Self {
        Self {
            shape: Shape::Empty,
            delayed: true,
            ..Self::new(401, reason)
        }
    }

    pub(crate) fn not_implemented(method: &str, path: &str) -> Self {
        Self {
            shape: Shape::JsonBare,
            ..Self::new(501, format!("Method '{method} {path}' not implemented"))
        }
    }

    pub(crate) fn with_shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    pub(crate) fn delayed(mut self) -> Self {
        self.delayed = true;
        self
    }

    /// The JSON body.
    pub(crate) fn body(&self) -> Value {
        let newline = if self.shape == Shape::Json { "\n" } else { "" };
        let mut body = serde_json::json!({ "data": null, "message": format!("{}{newline}", self.message) });
        if !self.errors.is_empty() {
            body["errors"] = serde_json::json!(self.errors);
        }
        body
    }
}
