//! A plain HTTPS client that shows what is on the wire: reason phrases, bare bodies, hang-ups.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A reply as it came.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// 0 when the connection was closed without an answer.
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

pub(crate) struct Client {
    address: std::net::SocketAddr,
    tls: TlsConnector,
}

impl Client {
    pub(crate) fn new(address: std::net::SocketAddr, ca_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            address,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A connection on which nothing was sent yet.
    pub(crate) async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        Ok(self.tls.connect(ServerName::try_from("localhost")?, stream).await?)
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(String, String)],
        body: Option<&[u8]>,
    ) -> Result<Reply> {
        let mut stream = self.connect().await?;
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n")?;
        }
        if let Some(body) = body {
            write!(head, "Content-Length: {}\r\n", body.len())?;
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await?;
        if let Some(body) = body {
            // The server may answer and close before it has read everything.
            let _ = stream.write_all(body).await;
        }
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        if bytes.is_empty() {
            return Ok(Reply::default());
        }
        parse(&bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<Reply> {
    let end = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .context("no end of the header")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status_line = lines.next().context("no status line")?;
    let rest = status_line.strip_prefix("HTTP/1.1 ").context("no HTTP/1.1")?;
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let headers = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
    Ok(Reply {
        status: status.parse()?,
        reason: reason.to_owned(),
        headers: headers.collect(),
        body: bytes[end + 4..].to_vec(),
    })
}
