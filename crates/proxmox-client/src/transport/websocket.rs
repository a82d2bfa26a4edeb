//! Websockets over the client's own connections: the same certificate policy, proxy and identity as any request.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message,
        error::ProtocolError,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    connection::Connection,
    reply::{self, Reply},
};
use crate::{error::Error, request::Request};

/// The largest frame and message taken, in bytes; PVE sends at most 128 KiB (`FACTS` 62).
const MAX_MESSAGE: usize = 1 << 20;
/// The largest frame sent, in bytes; a larger one than 128 KiB leaves PVE's stream dead (`FACTS` 62).
const MAX_SENT: usize = 32 * 1024;

/// An open websocket, as a stream of bytes in messages.
pub(crate) struct Socket {
    inner: WebSocketStream<reqwest::Upgraded>,
    request: Request,
}

impl Connection {
    /// Asks for a websocket, once: a console's ticket serves once, and a late one can cost other people's sessions (`FACTS` 63).
    pub(crate) async fn websocket(&self, request: &Request) -> Result<Socket, Error> {
        // The TLS handshake within makes this future one of many kilobytes, and every caller's with it.
        self.limited(request, Box::pin(self.upgrade(request))).await
    }

    async fn upgrade(&self, request: &Request) -> Result<Socket, Error> {
        let identity = self.identity(&request.method).await?;
        let key = generate_key();
        let mut outgoing = self
            .http
            .request(request.method.clone(), self.endpoint.url(&request.path_and_query()))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .header(SEC_WEBSOCKET_PROTOCOL, "binary");
        for (name, value) in &identity.headers {
            outgoing = outgoing.header(name, value.clone());
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut response = outgoing.send().await.map_err(|error| self.failure(request, error))?;
        let unreadable = |reason: &str| reply::unreadable(&request.method, &request.path, reason, None);
        if response.status().as_u16() != 101 {
            let status = response.status().as_u16();
            let reason = super::connection::reason_of(&response);
            let body = self.read_body(request, &mut response).await?;
            let refused = Reply {
                method: &request.method,
                path: &request.path,
                status,
                reason: &reason,
                body: &body,
            };
            refused.decode()?;
            return Err(unreadable("the server did not switch to a websocket"));
        }
        let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(unreadable("the server's websocket key does not fit"));
        }
        let upgraded = response.upgrade().await.map_err(|error| self.failure(request, error))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let mut request = request.clone();
        // The ticket is used up and need not stay around.
        request.params.clear();
        Ok(Socket {
            inner: WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await,
            request,
        })
    }
}

impl Socket {
    /// The next bytes; `None` at the end, which PVE makes by dropping the connection (`FACTS` 62). Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.inner.next().await {
                None
                | Some(
                    Ok(Message::Close(_))
                    | Err(
                        SocketError::ConnectionClosed
                        | SocketError::AlreadyClosed
                        | SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                    ),
                ) => return Ok(None),
                // rustls tells an end without its own goodbye apart from one with.
                Some(Err(SocketError::Io(error)))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                    ) =>
                {
                    return Ok(None);
                }
                Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes)),
                Some(Ok(Message::Text(text))) => return Ok(Some(text.into())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.broken(error)),
            }
        }
    }

    /// Sends bytes, each message small enough for PVE and never fragmented.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for part in bytes.chunks(MAX_SENT) {
            let sent = self.inner.send(Message::binary(Bytes::copy_from_slice(part))).await;
            sent.map_err(|error| self.broken(error))?;
        }
        Ok(())
    }

    /// Something that came is not what this stream carries.
    pub(crate) fn unreadable(&self, reason: &str) -> Error {
        reply::unreadable(&self.request.method, &self.request.path, reason, None)
    }

    pub(crate) fn ended(&self, when: &str) -> Error {
        Error::Transport {
            method: self.request.method.clone(),
            path: self.request.path.clone(),
            attempts: 1,
            source: format!("the console's connection ended {when}").into(),
        }
    }

    fn broken(&self, error: SocketError) -> Error {
        match error {
            SocketError::Capacity(error) => self.unreadable(&error.to_string()),
            SocketError::Protocol(error) => self.unreadable(&error.to_string()),
            error => Error::Transport {
                method: self.request.method.clone(),
                path: self.request.path.clone(),
                attempts: 1,
                source: error.into(),
            },
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("path", &self.request.path)
            .finish_non_exhaustive()
    }
}
