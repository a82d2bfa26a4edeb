//! `Error`: what went wrong, as data. The questions about it are in `error/kind.rs`, what to do in `error/advice.rs`.

mod advice;
mod kind;

use std::{collections::BTreeMap, error::Error as StdError, time::Duration};

use http::Method;

pub use kind::{ErrorKind, MissingPrivileges};

use crate::{
    transport::reply::one_line,
    types::{fingerprint::Fingerprint, upid::Upid},
};

/// A cause from another crate, kept for `source()`.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// Any failure of this crate.
///
/// `Display` is one line about this layer; what caused it is in `source()` only. [`Error::advice`] says what to do where
/// that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// PVE answered with an error.
    #[error("{method} {path}: {status} {message}{}", Params(params))]
    Api {
        /// The method of the request.
        method: Method,
        /// Its path, below `/api2/json`.
        path: String,
        /// The status code; PVE uses 595, 596 and 599 beside the common ones.
        status: u16,
        /// The reason phrase, which is where PVE puts the first line of the error (`FACTS` 1).
        message: String,
        /// What PVE said about single parameters.
        params: BTreeMap<String, String>,
    },

    /// No connection could be made, so the request was surely not sent.
    #[error("cannot connect to {endpoint} for {method} {path}{}", Attempts(*attempts))]
    Connect {
        /// The server.
        endpoint: String,
        /// The method of the request.
        method: Method,
        /// Its path.
        path: String,
        /// How often it was tried.
        attempts: u32,
        /// Why not, the last time.
        source: Cause,
    },

    /// The server's certificate is not the expected or a trusted one; nothing was sent.
    #[error("the certificate of {endpoint} {problem}")]
    Tls {
        /// The server.
        endpoint: String,
        /// What is wrong with it.
        problem: TlsProblem,
    },

    /// The connection broke after the request had begun to be sent: it may have been carried out.
    #[error("the connection broke during {method} {path}; it may have been carried out{}", Attempts(*attempts))]
    Transport {
        /// The method of the request.
        method: Method,
        /// Its path.
        path: String,
        /// How often it was tried; more than once for reads only.
        attempts: u32,
        /// Why, the last time.
        source: Cause,
    },

    /// The answer is not what this call answers.
    #[error("cannot read the answer to {method} {path}: {reason}")]
    Decode {
        /// The method of the request.
        method: Method,
        /// Its path.
        path: String,
        /// What is wrong with the answer.
        reason: String,
        /// The parser's error, where one ran.
        source: Option<Cause>,
    },

    /// A task of the server failed.
    #[error("task {} on {} failed: {exit}", task_name(upid), upid.node())]
    Task {
        /// The task.
        upid: Upid,
        /// How it ended, in PVE's words, on one line.
        exit: String,
        /// The last lines of its log, at most 30, to its end; the cause is often there and not in `exit`.
        log_tail: Vec<String>,
    },

    /// Something took longer than it may. A request may have been carried out; a task goes on.
    #[error("{what} did not end within {after:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// The limit.
        after: Duration,
    },

    /// The caller's token was cancelled. What the server was doing goes on.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was waited for.
        what: String,
    },

    /// A value given to this crate cannot be; nothing was sent.
    #[error("invalid {field}: {reason}")]
    Invalid {
        /// Which value.
        field: String,
        /// What is wrong, and what to write instead.
        reason: String,
    },

    /// A local file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, for example `read`.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// A console could not be had, in the words of the program that serves it.
    #[error("no console: {reason}")]
    Console {
        /// Why not.
        reason: String,
    },

    /// The account needs a second factor to log in, which a program cannot give.
    #[error("{username} needs a second factor to log in; use an API token instead of the password")]
    SecondFactor {
        /// The account.
        username: String,
    },
}

/// What is wrong with a server's certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsProblem {
    /// It is another one than the pinned.
    #[error("is not the pinned one: expected {expected}, presented {presented}")]
    FingerprintMismatch {
        /// The one given to [`Tls::Pinned`](crate::Tls::Pinned).
        expected: Fingerprint,
        /// The one that the server showed.
        presented: Fingerprint,
    },
    /// No trusted authority vouches for it, or not for this name or time.
    #[error("with fingerprint {presented} is not trusted: {reason}")]
    Untrusted {
        /// The one that the server showed.
        presented: Fingerprint,
        /// The verifier's reason.
        reason: String,
    },
    /// The handshake failed before or beside the certificate, for example against a server without TLS.
    #[error("could not be seen, the TLS handshake failed: {reason}")]
    Handshake {
        /// The TLS library's reason.
        reason: String,
    },
}

impl Error {
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

fn task_name(upid: &Upid) -> String {
    match upid.id() {
        "" => upid.kind().to_owned(),
        id => format!("{} {id}", upid.kind()),
    }
}

/// A retry that gave up says so.
struct Attempts(u32);

impl std::fmt::Display for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 > 1 {
            write!(f, " ({} attempts)", self.0)
        } else {
            Ok(())
        }
    }
}

/// Prints per-parameter errors on the same line; PVE's texts may be of several lines (`FACTS` 28).
struct Params<'a>(&'a BTreeMap<String, String>);

impl std::fmt::Display for Params<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, text)) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { " (" } else { "; " })?;
            write!(f, "{}: {}", one_line(name), one_line(text))?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}
