//! Fetches a list of checksums from a mirror: over TLS alone, whatever the mirror redirects to.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use url::Url;

use super::MAX_BYTES;

/// Mirrors send to a nearer one, and that one to its current folder; more is a loop.
const MAX_REDIRECTS: usize = 5;

/// A mirror that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(15);

/// The whole of it, for a text of a few kilobytes.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a list could not be fetched.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    /// This machine trusts no authority at all.
    #[error("this machine has no trusted authorities (package ca-certificates)")]
    NoAuthority,
    /// No answer, or one that is not to be trusted: the name is unknown, the certificate is not right, a redirect left TLS.
    #[error("{0}")]
    Connection(String),
    /// An answer that is no file.
    #[error("the mirror answers {0}")]
    Status(StatusCode),
    /// Longer than any list.
    #[error("what the mirror sends is no list of checksums: it is longer than 1 MiB")]
    TooLong,
    /// Bytes that are no text.
    #[error("what the mirror sends is no list of checksums: it is no text")]
    NoText,
}

/// Fetches lists from servers that the given authorities vouch for.
#[derive(Debug)]
pub(crate) struct Fetcher {
    http: Client,
}

impl Fetcher {
    /// Trusts the authorities of this machine, or those of the file that `SSL_CERT_FILE` names.
    pub(crate) fn new() -> Result<Self, FetchError> {
        let mut roots = RootCertStore::empty();
        // Some machines carry certificates that rustls cannot use; the others still count.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(FetchError::NoAuthority);
        }
        Self::trusting(roots)
    }

    /// Trusts these authorities and no other.
    pub(super) fn trusting(roots: RootCertStore) -> Result<Self, FetchError> {
        let setup = |error: &dyn std::error::Error| FetchError::Connection(format!("cannot set up TLS: {error}"));
        // Given explicitly: a process-wide default may be another one, or missing, which panics.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::custom(follow))
            // A list that a proxy could have written proves nothing, and the environment's proxy was not asked for here.
            .no_proxy()
            .referer(false)
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE)
            .timeout(LIMIT)
            .build()
            .map_err(|error| setup(&error))?;
        Ok(Self { http })
    }

    /// The text at this address, which must be `https://`.
    ///
    /// # Cancel safety
    /// Dropping the future ends the transfer; nothing is kept of it.
    pub(crate) async fn fetch(&self, url: &Url) -> Result<String, FetchError> {
        if url.scheme() != "https" {
            return Err(FetchError::Connection(
                "a list is fetched over https:// alone".to_owned(),
            ));
        }
        let mut response = self.http.get(url.clone()).send().await.map_err(|error| told(&error))?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status()));
        }
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
            if text.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLong);
            }
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).map_err(|_| FetchError::NoText)
    }
}

/// Follows a redirect as long as it stays within TLS: what comes over `http://` could be anybody's.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    if attempt.url().scheme() != "https" {
        let place = attempt.url().host_str().unwrap_or_default().to_owned();
        return attempt.error(format!("the mirror redirects to {place} without TLS"));
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("the mirror redirects more than {MAX_REDIRECTS} times"));
    }
    attempt.follow()
}

/// The innermost cause, which is what a person can act on: the layers above only say that something failed.
fn told(error: &reqwest::Error) -> FetchError {
    let mut cause = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        cause = inner.to_string();
        next = inner.source();
    }
    FetchError::Connection(if error.is_timeout() {
        format!("the mirror did not answer within {} s", LIMIT.as_secs())
    } else {
        cause
    })
}

#[cfg(test)]
mod tests;
