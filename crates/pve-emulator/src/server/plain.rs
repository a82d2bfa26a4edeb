//! Plain HTTP on the port of HTTPS.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::IDLE;

/// Sends whoever speaks plain HTTP to HTTPS (`FACTS` 21).
pub(super) async fn redirect_to_https(stream: &mut TcpStream, local: Option<SocketAddr>) {
    let Some(local) = local else { return };
    // What is left unread would turn the answer into a reset.
    let mut request = [0; 8192];
    let read = tokio::time::timeout(IDLE, stream.read(&mut request)).await;
    if !matches!(read, Ok(Ok(_))) {
        return;
    }
    let text = format!(
        "HTTP/1.1 301 Moved Permanently\r\nLocation: https://{local}/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    if let Err(error) = stream.write_all(text.as_bytes()).await {
        tracing::debug!(%error, "no redirect sent");
    }
}
