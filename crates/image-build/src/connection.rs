//! `Connection`: which cluster, and as whom. Kept apart from what to build.

mod parse;

use std::fmt;
use std::path::PathBuf;

use proxmox_client::{Auth, Client, Fingerprint, Tls};
use secrecy::SecretString;
use url::Url;

pub use parse::{ConnectionInput, ConnectionOutcome};

/// Where Proxmox VE answers, as whom to log in, and whom to trust.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The API's address without a path: `https://10.23.45.10:8006/`.
    pub url: Url,
    /// As whom.
    pub credentials: Credentials,
    /// Which certificate is believed.
    pub tls: TlsTrust,
}

/// As whom to log in.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credentials {
    /// An API token.
    Token {
        /// `user@realm!name`.
        id: String,
        /// Its secret, a UUID.
        secret: SecretString,
    },
    /// A user with a password; tickets are taken and renewed.
    Password {
        /// `user@realm`.
        username: String,
        /// The password.
        password: SecretString,
    },
}

impl Credentials {
    /// The token id or user name.
    pub fn id(&self) -> &str {
        match self {
            Self::Token { id, .. } => id,
            Self::Password { username, .. } => username,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { id, secret: _ } => f.debug_struct("Token").field("id", id).finish_non_exhaustive(),
            Self::Password { username, password: _ } => f
                .debug_struct("Password")
                .field("username", username)
                .finish_non_exhaustive(),
        }
    }
}

/// Which certificate is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsTrust {
    /// One that the system's authorities vouch for.
    #[default]
    Verify,
    /// One that the authority in this PEM file vouches for.
    CaFile(PathBuf),
    /// The one with this SHA-256 fingerprint, whoever vouches for it.
    Pinned(Fingerprint),
    /// Any at all.
    Insecure,
}

impl Connection {
    /// The client for it. Nothing is sent before its first call.
    ///
    /// # Errors
    /// [`proxmox_client::Error::File`] for an unreadable CA file, [`proxmox_client::Error::Invalid`] for a value that cannot be.
    pub fn client(&self) -> Result<Client, proxmox_client::Error> {
        let auth = match &self.credentials {
            Credentials::Token { id, secret } => Auth::token(id, secret.clone()),
            Credentials::Password { username, password } => Auth::password(username, password.clone()),
        };
        let tls = match &self.tls {
            TlsTrust::Verify => Tls::Verify,
            TlsTrust::CaFile(path) => Tls::CaFile(path.clone()),
            TlsTrust::Pinned(fingerprint) => Tls::Pinned(*fingerprint),
            TlsTrust::Insecure => Tls::Insecure,
        };
        Client::builder(self.url.as_str()).auth(auth).tls(tls).build()
    }

    /// A connection.
    pub fn new(url: Url, credentials: Credentials, tls: TlsTrust) -> Self {
        Self { url, credentials, tls }
    }
}
