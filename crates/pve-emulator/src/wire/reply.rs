//! Replies as PVE writes them: reason phrases, headers, JSON or its `extjs` variant.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, PRAGMA, SERVER};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use serde_json::{Map, Value};

use super::{Failure, Shape};

/// Bodies are small and whole; uploads only flow inwards.
pub(crate) type Body = Full<Bytes>;

const JSON: HeaderValue = HeaderValue::from_static("application/json;charset=UTF-8");

/// The formatter named in the path: `/api2/json` or `/api2/extjs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Extjs,
}

/// What a handler returns: `data` and what stands beside it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) data: Value,
    pub(crate) beside: Map<String, Value>,
    /// Sent as plain text instead of JSON: a task log as a download.
    pub(crate) text: Option<String>,
    /// The ticket of the port that an upgrade connects to.
    pub(crate) door: Option<String>,
}

impl Answer {
    /// `null`, which is what most changes return.
    pub(crate) fn null() -> Self {
        Value::Null.into()
    }

    /// A download.
    pub(crate) fn plain(text: String) -> Self {
        Self {
            data: Value::Null,
            beside: Map::new(),
            text: Some(text),
            door: None,
        }
    }

    /// Lets a websocket upgrade connect to the port of this ticket.
    pub(crate) fn with_door(mut self, ticket: String) -> Self {
        self.door = Some(ticket);
        self
    }

    /// Adds a member beside `data`, such as `total`.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.beside.insert(key.to_owned(), value.into());
        self
    }
}

impl From<Value> for Answer {
    fn from(data: Value) -> Self {
        Self {
            data,
            beside: Map::new(),
            text: None,
            door: None,
        }
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Value::String(text).into()
    }
}

/// Writes a successful reply.
pub(crate) fn respond(answer: Answer, format: Format) -> Response<Body> {
    if let Some(text) = answer.text {
        let mut response = Response::new(Full::from(text));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        common_headers(&mut response);
        return response;
    }
    let mut body = answer.beside;
    body.insert("data".into(), answer.data);
    if format == Format::Extjs {
        body.insert("success".into(), 1.into());
    }
    let mut response = Response::new(Full::from(Value::Object(body).to_string()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    // The real server adds a second `Connection: close` on proxied calls and keeps the socket open (FACTS 20). hyper
    // would really close, so only the truth is sent.
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("Keep-Alive"));
    common_headers(&mut response);
    response
}

/// Writes a refused call. `None`: the connection is to be closed without an answer.
pub(crate) fn respond_failure(failure: &Failure, format: Format) -> Option<Response<Body>> {
    if failure.shape == Shape::HangUp {
        return None;
    }
    if format == Format::Extjs && matches!(failure.shape, Shape::Json | Shape::JsonBare) {
        let mut body = failure.body();
        body["success"] = 0.into();
        // Parameter errors carry their status as text, all others as a number (FACTS 23).
        body["status"] = if failure.errors.is_empty() {
            failure.status.into()
        } else {
            failure.status.to_string().into()
        };
        let mut response = Response::new(Full::from(body.to_string()));
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        common_headers(&mut response);
        return Some(response);
    }
    let reason = failure.message.lines().next().unwrap_or_default();
    // A carriage return breaks the status line: PVE then sends a bare 400 (FACTS 2).
    let Ok(phrase) = ReasonPhrase::try_from(reason.as_bytes()) else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        close(&mut response);
        return Some(response);
    };
    let body = match failure.shape {
        Shape::Json | Shape::JsonBare => failure.body().to_string(),
        Shape::Text => {
            // Texts that Perl died with end in a newline, the server's own do not.
            let newline = if failure.status == 500 { "\n" } else { "" };
            format!("{}{newline}", failure.message)
        }
        Shape::Empty | Shape::EmptyJson | Shape::HangUp => String::new(),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if matches!(failure.shape, Shape::Json | Shape::JsonBare | Shape::EmptyJson) {
        response.headers_mut().insert(CONTENT_TYPE, JSON);
    }
    response.extensions_mut().insert(phrase);
    close(&mut response);
    Some(response)
}

/// Any status of 400 and more ends the connection (FACTS 19).
fn close(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    common_headers(response);
}

fn common_headers(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(SERVER, HeaderValue::from_static("pve-api-daemon/3.0"));
}
