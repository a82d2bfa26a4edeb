//! `SerialConsole`: a serial port of a guest as a stream of bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use secrecy::ExposeSecret as _;

use crate::{client::Client, error::Error, transport::websocket::Socket, types::reply::console::ConsoleTicket};

/// PVE lets a first line take 10 s, and starts the terminal within a second (`FACTS` 68).
const ATTACH: Duration = Duration::from_secs(20);
/// Text before the terminal says that it has started; the node's own warnings come here.
const MAX_PREAMBLE: usize = 16 * 1024;
/// What `qm terminal` says when it is connected, and what it says instead (`pve/traces/termproxy.json`).
const STARTED: &str = "starting serial terminal on interface";
const COMPLAINTS: [&str; 3] = [
    " is not configured",
    "unable to find a serial interface",
    " not running",
];

/// A serial port of a running guest, attached from now on: nothing is replayed.
///
/// One reader has a port at a time, anybody else's attachment stays silent until this one is dropped. It survives resets and
/// the guest's own reboots. It does not end when the guest's process does: look at the VM's status, drop it, and attach again.
///
/// # Source
/// `POST .../termproxy` and `GET .../vncwebsocket`; `FACTS` 68 to 71.
#[derive(Debug)]
pub struct SerialConsole {
    socket: Socket,
    early: Bytes,
}

impl SerialConsole {
    pub(crate) async fn attach(
        client: &Client,
        ticket: &ConsoleTicket,
        request: &crate::request::Request,
    ) -> Result<Self, Error> {
        let attaching = async {
            let mut socket = client.connection().websocket(request).await?;
            let line = format!("{}:{}\n", ticket.user, ticket.ticket.expose_secret());
            socket.send(line.as_bytes()).await?;
            let early = greeting(&mut socket).await?;
            Ok(Self { socket, early })
        };
        tokio::time::timeout(ATTACH, attaching).await.unwrap_or_else(|_| {
            Err(Error::Timeout {
                what: format!("attaching to {}", request.path),
                after: ATTACH,
            })
        })
    }

    /// The next bytes of the guest; `None` when the connection has ended. The API closing is not the guest stopping, nor the
    /// other way round.
    ///
    /// # Errors
    /// [`Error::Transport`] for a broken connection, [`Error::Decode`] for a server that does not speak websocket.
    ///
    /// # Cancel safety
    /// Safe: no byte is lost.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early)));
        }
        loop {
            match self.socket.next().await? {
                Some(bytes) if bytes.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    /// Types bytes into the guest.
    ///
    /// # Errors
    /// [`Error::Transport`] for a broken connection.
    ///
    /// # Cancel safety
    /// Bytes may have been typed when dropped.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        // Pieces that stay one frame each with their header.
        for part in bytes.chunks(16 * 1024) {
            let mut message = format!("0:{}:", part.len()).into_bytes();
            message.extend(part);
            self.socket.send(&message).await?;
        }
        Ok(())
    }

    /// Tells the size of the terminal that shows it, in characters.
    ///
    /// # Errors
    /// [`Error::Transport`] for a broken connection.
    ///
    /// # Cancel safety
    /// It may have been told when dropped.
    pub async fn resize(&mut self, columns: u16, rows: u16) -> Result<(), Error> {
        self.socket.send(format!("1:{columns}:{rows}:").as_bytes()).await
    }
}

/// Waits for `OK` and the terminal's own first line; what came after it belongs to the guest.
async fn greeting(socket: &mut Socket) -> Result<Bytes, Error> {
    let mut text = BytesMut::new();
    let mut accepted = false;
    let mut received = 0;
    loop {
        let Some(bytes) = socket.next().await? else {
            return Err(socket.ended(if accepted {
                "before the terminal started"
            } else {
                "before the ticket was accepted"
            }));
        };
        received += bytes.len();
        text.extend_from_slice(&bytes);
        if !accepted && text.len() >= 2 {
            if !text.starts_with(b"OK") {
                return Err(socket.unreadable("the terminal did not say OK"));
            }
            accepted = true;
            let _ = text.split_to(2);
        }
        while let Some(end) = text.iter().position(|byte| *byte == b'\n').filter(|_| accepted) {
            let line = text.split_to(end + 1);
            let line = String::from_utf8_lossy(&line);
            if line.starts_with(STARTED) {
                return Ok(text.freeze());
            }
            if COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
                return Err(Error::Console {
                    reason: line.trim().chars().take(200).collect(),
                });
            }
        }
        if received > MAX_PREAMBLE {
            return Err(socket.unreadable("the terminal never said that it has started"));
        }
    }
}
