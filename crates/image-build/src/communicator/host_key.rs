//! Asks an SSH server for its host key, as `ssh-keyscan` does, without logging in.

use std::sync::Arc;
use std::time::Duration;

use russh::client;
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use tokio::net::TcpStream;

use super::CommunicatorError;

/// The host key that the server at `host` and `port` shows, within `limit`.
///
/// For a guest whose key nobody could know in advance: a clone makes its own at its first boot. Whoever pins the answer trusts the
/// first use.
///
/// # Errors
/// [`CommunicatorError::Refused`], [`CommunicatorError::NoAnswer`], [`CommunicatorError::Unreachable`] or
/// [`CommunicatorError::Handshake`].
///
/// # Cancel safety
/// Dropping the future ends the attempt; nothing stays.
pub async fn host_key(host: &str, port: u16, limit: Duration) -> Result<PublicKey, CommunicatorError> {
    let address = super::ssh::address(host, port);
    tokio::time::timeout(limit, scan(host, port, &address))
        .await
        .unwrap_or_else(|_| {
            Err(CommunicatorError::NoAnswer {
                address: address.clone(),
                after: limit,
            })
        })
}

async fn scan(host: &str, port: u16, address: &str) -> Result<PublicKey, CommunicatorError> {
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::ConnectionRefused => CommunicatorError::Refused {
                address: address.to_owned(),
            },
            _ => CommunicatorError::Unreachable {
                address: address.to_owned(),
                source,
            },
        })?;
    let (to, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let ended = client::connect_stream(Arc::default(), stream, Listener { to }).await;
    match (shown.try_recv(), ended) {
        (Ok(key), _) => Ok(key),
        (Err(_), Err(source)) => Err(CommunicatorError::Handshake {
            address: address.to_owned(),
            source: Box::new(source),
        }),
        (Err(_), Ok(_)) => Err(CommunicatorError::Handshake {
            address: address.to_owned(),
            source: Box::new(russh::Error::UnknownKey),
        }),
    }
}

/// Takes the key down and goes no further.
struct Listener {
    to: tokio::sync::mpsc::UnboundedSender<PublicKey>,
}

impl client::Handler for Listener {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = shown {
            // The receiver waits in the function that made this.
            let _ = self.to.send(key.clone());
        }
        Ok(false)
    }
}
