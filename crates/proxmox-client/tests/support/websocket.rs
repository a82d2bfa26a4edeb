//! The server's side of a websocket, frame by frame.

use std::{sync::Mutex, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Received;

/// One act of the server.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// A whole binary message.
    Say(Vec<u8>),
    /// Bytes in place of a frame.
    Bytes(Vec<u8>),
    /// Waits for a frame of the client and keeps its content.
    Hear,
    /// The same message until the client has gone.
    Forever(Vec<u8>),
    /// Nothing more, and the connection stays for so long.
    Stay(Duration),
}

/// A frame as servers send it: whole, of this opcode, without a mask.
pub(crate) fn frame(opcode: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match content.len() {
        short @ 0..=125 => bytes.push(u8::try_from(short).expect("short")),
        long => {
            bytes.push(127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

/// Upgrades and acts; afterwards the connection is dropped, as PVE does it (`FACTS` 62).
pub(super) async fn play<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    stream: &mut S,
    request: &Received,
    plays: &[Play],
    frames: &Mutex<Vec<Vec<u8>>>,
) {
    let key = request.header("sec-websocket-key").expect("a websocket's request");
    assert_eq!(request.header("sec-websocket-version"), Some("13"));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {}\r\n\
         Sec-WebSocket-Protocol: binary\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    if write(stream, head.as_bytes()).await.is_none() {
        return;
    }
    for play in plays {
        let went = match play {
            Play::Say(content) => write(stream, &frame(2, content)).await,
            Play::Bytes(bytes) => write(stream, bytes).await,
            Play::Hear => match read(stream).await {
                Some(content) => {
                    frames.lock().expect("not poisoned").push(content);
                    Some(())
                }
                None => None,
            },
            Play::Forever(content) => {
                let again = frame(2, content);
                while write(stream, &again).await.is_some() {}
                None
            }
            Play::Stay(time) => {
                tokio::time::sleep(*time).await;
                Some(())
            }
        };
        if went.is_none() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn write<S: AsyncWriteExt + Unpin>(stream: &mut S, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()
}

/// The content of the client's next frame, which is whole, masked and at most 128 KiB long (`FACTS` 62).
async fn read<S: AsyncReadExt + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    assert_eq!(head[0] & 0xf0, 0x80, "a fragment");
    assert_ne!(head[1] & 0x80, 0, "no mask");
    let length = match head[1] & 0x7f {
        126 => usize::from(stream.read_u16().await.ok()?),
        127 => usize::try_from(stream.read_u64().await.ok()?).expect("a length"),
        short => usize::from(short),
    };
    assert!(length <= 128 * 1024, "{length} bytes in a frame");
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await.ok()?;
    let mut content = vec![0; length];
    stream.read_exact(&mut content).await.ok()?;
    for (byte, mask) in content.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Some(content)
}
