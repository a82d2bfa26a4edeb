//! Sending: endpoint, TLS, authentication, retries, reading of answers.

pub(crate) mod auth;
pub(crate) mod clock;
#[cfg(test)]
mod conformance;
pub(crate) mod connection;
pub(crate) mod endpoint;
pub(crate) mod reply;
pub(crate) mod tls;
pub(crate) mod websocket;
