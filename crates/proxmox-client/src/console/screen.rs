//! `Screen`: a guest's screen, seen once or several times over one connection.

use std::time::Duration;

use super::rfb::Rfb;
use crate::{client::Client, error::Error, types::reply::console::ConsoleTicket};

/// The recorded server needs under a second for both; a node at work may need more.
const LIMIT: Duration = Duration::from_secs(30);

/// A picture, 8 bits each of red, green and blue, row by row from the top.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScreenImage {
    /// In pixels.
    pub width: u16,
    /// In pixels.
    pub height: u16,
    /// Three bytes a pixel.
    pub rgb: Vec<u8>,
}

impl std::fmt::Debug for ScreenImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScreenImage")
            .field("width", &self.width)
            .field("height", &self.height)
            .finish_non_exhaustive()
    }
}

/// A connection to a guest's screen. It ends when the guest's process ends.
///
/// Others may watch at the same time. PVE has one VNC password a VM: opening a screen while somebody else is just opening one
/// can make either fail (`FACTS` 65).
///
/// # Source
/// `POST .../vncproxy` and `GET .../vncwebsocket`; RFC 6143; `FACTS` 59 to 67.
#[derive(Debug)]
pub struct Screen(Rfb);

impl Screen {
    pub(crate) async fn open(
        client: &Client,
        ticket: &ConsoleTicket,
        request: &crate::request::Request,
    ) -> Result<Self, Error> {
        let opening = async {
            let socket = client.connection().websocket(request).await?;
            Ok(Self(Rfb::begin(socket, &ticket.vnc_password()).await?))
        };
        limited("opening", &request.path, opening).await
    }

    /// The whole screen as it is now.
    ///
    /// # Errors
    /// [`Error::Transport`] when the guest stopped, [`Error::Decode`] for what is not RFB or larger than 4K, [`Error::Timeout`]
    /// after 30 s.
    ///
    /// # Cancel safety
    /// Not safe: drop the screen too.
    pub async fn capture(&mut self) -> Result<ScreenImage, Error> {
        limited("reading", "the screen", self.0.capture()).await
    }
}

async fn limited<T>(doing: &str, what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| {
        Err(Error::Timeout {
            what: format!("{doing} {what}"),
            after: LIMIT,
        })
    })
}
