//! Websockets: the upgrade, and frames on one side joined with bytes on the other.
//!
//! # Source
//! `pve/traces/vnc.json`, `FACTS` 61, 62: binary frames out of at most 128 KiB, text and binary taken alike, ping answered, the
//! end is a dropped TCP and never a close frame; a client's unmasked, fragmented, too large or unknown frame leaves its side
//! of the stream dead, without a word.

use std::io::{Cursor, Error, ErrorKind};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_util::codec::{Decoder, FramedRead};
use tokio_util::sync::CancellationToken;

use super::auth::header;
use crate::wire::{Body, Failure, Shape};

/// The largest frame in either direction, in bytes.
const MAX_FRAME: usize = 128 * 1024;
/// Answers to pings that wait for the wire; more are not owed.
const PONGS: usize = 8;

/// An upgrade that a request asks for.
pub(super) struct Wish {
    upgrade: OnUpgrade,
    headers: HeaderMap,
}

impl Wish {
    /// The wish of a request, if it has one.
    pub(super) fn of(request: &mut Request<Incoming>) -> Option<Self> {
        let wanted = header(request.headers(), UPGRADE.as_str())?.eq_ignore_ascii_case("websocket");
        wanted.then(|| Self {
            headers: request.headers().clone(),
            upgrade: hyper::upgrade::on(request),
        })
    }

    /// # Errors
    /// PVE's text for another version than 13, or for no key.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let die = |text: String| Err(Failure::die(text).with_shape(Shape::Text));
        match header(&self.headers, "sec-websocket-version") {
            Some("13") => {}
            version => {
                return die(format!(
                    "unsupported websocket-version '{}'",
                    version.unwrap_or_default()
                ));
            }
        }
        match header(&self.headers, "sec-websocket-key") {
            Some(key) if !key.is_empty() => Ok(()),
            _ => die("missing websocket-key".into()),
        }
    }

    /// Answers 101 and joins what follows with `tunnel`.
    pub(super) fn grant(self, tunnel: DuplexStream, closing: CancellationToken) -> Response<Body> {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let key = header(&self.headers, "sec-websocket-key").unwrap_or_default();
        if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        // Echoed as it is, even a list.
        if let Some(protocol) = self.headers.get(SEC_WEBSOCKET_PROTOCOL) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
        }
        let upgrade = self.upgrade;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => tokio::select! {
                    () = pump(upgraded, tunnel) => {}
                    () = closing.cancelled() => {}
                },
                Err(error) => tracing::debug!(%error, "no upgrade"),
            }
        });
        response
    }
}

async fn pump(upgraded: Upgraded, tunnel: DuplexStream) {
    let (from_client, mut to_client) = tokio::io::split(TokioIo::new(upgraded));
    let (mut from_tunnel, mut to_tunnel) = tokio::io::split(tunnel);
    let (pong, mut pongs) = mpsc::channel::<Bytes>(PONGS);
    let outward = async {
        let mut bytes = BytesMut::with_capacity(MAX_FRAME);
        loop {
            let frame = tokio::select! {
                count = from_tunnel.read_buf(&mut bytes) => match count {
                    Ok(0) | Err(_) => break,
                    Ok(_) => frame(OpCode::Data(Data::Binary), &bytes.split()),
                },
                Some(payload) = pongs.recv() => frame(OpCode::Control(Control::Pong), &payload),
            };
            if to_client.write_all(&frame).await.is_err() || to_client.flush().await.is_err() {
                return;
            }
            bytes.reserve(MAX_FRAME);
        }
        // What was written still reaches the client; then the connection just ends.
        let _ = to_client.shutdown().await;
    };
    let inward = async {
        let mut frames = FramedRead::new(from_client, Frames);
        loop {
            match frames.next().await {
                Some(Ok((OpCode::Data(Data::Text | Data::Binary), payload))) => {
                    if to_tunnel.write_all(&payload).await.is_err() {
                        break;
                    }
                }
                Some(Ok((OpCode::Control(Control::Ping), payload))) => drop(pong.try_send(payload)),
                Some(Ok((OpCode::Control(Control::Pong), _))) => {}
                None | Some(Ok((OpCode::Control(Control::Close), _))) => return,
                Some(Ok(_) | Err(_)) => break,
            }
        }
        // Dead, but not closed: until the client goes, or the other side ends.
        let _ = tokio::io::copy(frames.get_mut(), &mut tokio::io::sink()).await;
    };
    tokio::select! {
        () = outward => {}
        () = inward => {}
    }
}

/// A whole unmasked frame.
fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    let mut bytes = Vec::with_capacity(payload.len() + 10);
    if let Err(error) = header.format(payload.len() as u64, &mut bytes) {
        tracing::error!(%error, "a frame header could not be written");
    }
    bytes.extend(payload);
    bytes
}

/// Reads a client's frames as PVE does, payload unmasked.
struct Frames;

impl Decoder for Frames {
    type Item = (OpCode, Bytes);
    type Error = Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, Error> {
        let dead = || Error::from(ErrorKind::InvalidData);
        let mut cursor = Cursor::new(&bytes[..]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| dead())? else {
            return Ok(None);
        };
        let start = usize::try_from(cursor.position()).map_err(|_| dead())?;
        let length = usize::try_from(length).map_err(|_| dead())?;
        let (Some(mask), true, true) = (header.mask, header.is_final, length <= MAX_FRAME) else {
            return Err(dead());
        };
        if bytes.len() < start + length {
            bytes.reserve(start + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(start);
        let mut payload = bytes.split_to(length);
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Ok(Some((header.opcode, payload.freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let mut bytes = BytesMut::from(&[0x82, 0x83, 1, 2, 3, 4, 0x62, 0x60, 0x60, 0x81, 0x81, 0, 0, 0, 0][..]);
        let (opcode, payload) = Frames.decode(&mut bytes).expect("good").expect("whole");
        assert_eq!((opcode, &payload[..]), (OpCode::Data(Data::Binary), &b"cbc"[..]));
        assert!(Frames.decode(&mut bytes).expect("good").is_none(), "not whole");
        bytes.extend(b"x");
        let (opcode, payload) = Frames.decode(&mut bytes).expect("good").expect("whole");
        assert_eq!((opcode, &payload[..]), (OpCode::Data(Data::Text), &b"x"[..]));
    }

    #[test]
    fn what_kills_the_stream() {
        for (what, bytes) in [
            ("unmasked", &[0x82, 0x01, b'x'][..]),
            ("fragmented", &[0x02, 0x81, 0, 0, 0, 0, b'x']),
            ("too large", &[0x82, 0xff, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0]),
        ] {
            assert!(Frames.decode(&mut BytesMut::from(bytes)).is_err(), "{what}");
        }
    }

    #[test]
    fn recorded_accept_key() {
        assert_eq!(
            derive_accept_key(b"IGniMjVUoXD4SlyBcBU7Cg=="),
            "Zau0t/WhrTvl2BsoxXts9L/dBPY="
        );
    }
}
