//! Ports on which console workers wait for their one connection, and the tickets that open them.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Identity;

/// PVE's range (`PVE::Tools::next_vnc_port`).
const PORTS: std::ops::Range<u16> = 5900..6000;
/// A VNC ticket is good for so long (`PVE::AccessControl::verify_vnc_ticket`); its port listens for less.
const TICKET_LIFE: Duration = Duration::from_secs(40);
/// What a socket would hold on its way.
const BUFFER: usize = 256 * 1024;

struct Door {
    ticket: String,
    who: String,
    vmid: u32,
    port: u16,
    made: Instant,
    /// Taken by the one connection that the worker accepts.
    listener: Option<oneshot::Sender<DuplexStream>>,
}

/// A worker's side: where to connect, and the connection when it comes.
pub(crate) struct Listening {
    pub(crate) port: u16,
    pub(crate) ticket: String,
    pub(crate) connection: oneshot::Receiver<DuplexStream>,
}

/// Without the tickets.
impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("vmid", &self.vmid)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// All doors of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    doors: Mutex<Vec<Door>>,
    closed: CancellationToken,
}

impl Doors {
    fn doors(&self) -> MutexGuard<'_, Vec<Door>> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|door| door.made.elapsed() < TICKET_LIFE);
        doors
    }

    /// Listens on a free port for one connection. `prefix` comes before the ticket: the password of a VNC session.
    ///
    /// # Errors
    /// PVE's text when all hundred ports are taken.
    pub(crate) fn listen(&self, who: &Identity, vmid: u32, prefix: &str) -> Result<Listening, String> {
        let mut doors = self.doors();
        let taken = |port: u16| {
            doors
                .iter()
                .any(|door| door.port == port && door.listener.as_ref().is_some_and(|l| !l.is_closed()))
        };
        let port = PORTS
            .into_iter()
            .find(|port| !taken(*port))
            .ok_or("unable to find free port (5900-6000)")?;
        // As long as a real one, which is an RSA signature.
        let signature = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            (0..256).map(|_| rand::random::<u8>()).collect::<Vec<_>>(),
        );
        let ticket = format!("{prefix}PVEVNC:{:08X}::{signature}", super::now());
        let (listener, connection) = oneshot::channel();
        doors.push(Door {
            ticket: ticket.clone(),
            who: who.full(),
            vmid,
            port,
            made: Instant::now(),
            listener: Some(listener),
        });
        Ok(Listening {
            port,
            ticket,
            connection,
        })
    }

    /// Whether the ticket was made for this caller, VM and port. A used one still passes: it is the port that is gone.
    pub(crate) fn fits(&self, ticket: &str, who: &Identity, vmid: u32, port: u16) -> bool {
        let who = who.full();
        self.doors()
            .iter()
            .any(|door| door.ticket == ticket && door.who == who && door.vmid == vmid && door.port == port)
    }

    /// Whether the ticket is one that was made, for whomever.
    pub(crate) fn knows(&self, ticket: &str) -> bool {
        self.doors().iter().any(|door| door.ticket == ticket)
    }

    /// Connects to a ticket's port; `None` when nothing listens there any more.
    pub(crate) fn connect(&self, ticket: &str) -> Option<DuplexStream> {
        let listener = self
            .doors()
            .iter_mut()
            .find(|door| door.ticket == ticket)?
            .listener
            .take()?;
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        listener.send(theirs).ok()?;
        Some(ours)
    }

    /// Ends every connection: the emulator stops.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Cancelled by [`close`](Self::close).
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closed.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> Identity {
        Identity {
            user: "a@pve".into(),
            token: Some(name.into()),
        }
    }

    #[tokio::test]
    async fn a_ticket_serves_one_connection_of_its_owner() {
        let doors = Doors::default();
        let mut first = doors.listen(&token("x"), 100, "").expect("a port");
        let second = doors.listen(&token("x"), 100, "12:45678:").expect("a port");
        assert_eq!((first.port, second.port), (5900, 5901));
        assert!(second.ticket.starts_with("12:45678:PVEVNC:"));
        assert!(second.ticket.len() <= 512, "the schema's limit");
        assert!(doors.fits(&first.ticket, &token("x"), 100, 5900));
        for (who, vmid, port) in [
            (token("y"), 100, 5900),
            (token("x"), 101, 5900),
            (token("x"), 100, 5901),
        ] {
            assert!(!doors.fits(&first.ticket, &who, vmid, port));
        }
        assert!(doors.connect(&first.ticket).is_some());
        assert!(first.connection.try_recv().is_ok());
        assert!(doors.connect(&first.ticket).is_none());
        assert!(doors.fits(&first.ticket, &token("x"), 100, 5900));
        drop(second.connection);
        assert!(doors.connect(&second.ticket).is_none(), "the worker has given up");
        assert_eq!(doors.listen(&token("x"), 100, "").expect("a port").port, 5900);
    }
}
