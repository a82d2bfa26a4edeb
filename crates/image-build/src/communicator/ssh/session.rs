//! A session: the TCP connection, the pinned host key, the login.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;

use super::super::CommunicatorError;
use super::{SshAuth, SshTarget};

/// Silence after which the server is asked for a sign of life, and how many such questions may stay unanswered. A paused
/// guest (a snapshot, a backup that begins) is silent for a while, so half a minute is given.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVES_UNANSWERED: usize = 3;

/// The handler of a session: accepts one host key and no other.
pub(super) struct PinnedHostKey {
    expected: PublicKey,
}

/// What ends a session early.
#[derive(Debug)]
pub(super) enum SessionError {
    /// Another host key than the pinned one; its fingerprint.
    HostKey(String),
    /// Anything else.
    Ssh(russh::Error),
}

impl From<russh::Error> for SessionError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for PinnedHostKey {
    type Error = SessionError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SessionError> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.expected.key_data() => Ok(true),
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                Err(SessionError::HostKey(key.fingerprint(HashAlg::Sha256).to_string()))
            }
            PublicKeyOrCertificate::Certificate(_) => Err(SessionError::HostKey("a host certificate".to_owned())),
        }
    }
}

pub(super) async fn log_in(target: &SshTarget) -> Result<Handle<PinnedHostKey>, CommunicatorError> {
    tokio::time::timeout(target.attempt_timeout, attempt(target))
        .await
        .unwrap_or_else(|_| {
            Err(CommunicatorError::NoAnswer {
                address: target.address(),
                after: target.attempt_timeout,
            })
        })
}

async fn attempt(target: &SshTarget) -> Result<Handle<PinnedHostKey>, CommunicatorError> {
    let address = target.address();
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::ConnectionRefused => CommunicatorError::Refused {
                address: address.clone(),
            },
            _ => CommunicatorError::Unreachable {
                address: address.clone(),
                source,
            },
        })?;
    // Without it, each small request waits for the answer to the one before (Nagle against delayed acknowledgements).
    stream
        .set_nodelay(true)
        .map_err(|source| CommunicatorError::Unreachable {
            address: address.clone(),
            source,
        })?;
    let handshake = |source| CommunicatorError::Handshake {
        address: address.clone(),
        source: Box::new(source),
    };
    let config = client::Config {
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES_UNANSWERED,
        ..client::Config::default()
    };
    let handler = PinnedHostKey {
        expected: target.host_key.clone(),
    };
    let mut session = client::connect_stream(Arc::new(config), stream, handler)
        .await
        .map_err(|error| match error {
            SessionError::HostKey(presented) => CommunicatorError::HostKey {
                address: address.clone(),
                expected: target.host_key.fingerprint(HashAlg::Sha256).to_string(),
                presented,
            },
            SessionError::Ssh(source) => handshake(source),
        })?;
    let (method, advice, answer) = match &target.auth {
        SshAuth::Key(key) => {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
            let answer = session
                .authenticate_publickey(&target.user, key)
                .await
                .map_err(handshake)?;
            (
                "key",
                "does the kickstart create this user, and did the installer take the build's own `sshkey` line?",
                answer,
            )
        }
        SshAuth::Password(password) => {
            let answer = session
                .authenticate_password(&target.user, password.expose_secret())
                .await
                .map_err(handshake)?;
            (
                "password",
                "does ssh_password agree with the kickstart? root needs `rootpw --allow-ssh` too; without ssh_password the \
                 build logs in with its own key",
                answer,
            )
        }
    };
    match answer {
        AuthResult::Success => Ok(session),
        AuthResult::Failure { remaining_methods, .. } => {
            let offered: Vec<String> = remaining_methods.iter().map(|m| <&str>::from(m).to_owned()).collect();
            Err(CommunicatorError::Auth {
                address,
                user: target.user.clone(),
                method,
                offered: if offered.is_empty() {
                    "nothing".to_owned()
                } else {
                    offered.join(", ")
                },
                advice,
            })
        }
    }
}
