//! HTTPS on a socket: connections and what they share.

mod auth;
mod body;
mod plain;
mod serve;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use plain::redirect_to_https;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Routes;
use crate::state::World;

/// PVE closes an idle connection after this time (`FACTS` 19).
const IDLE: Duration = Duration::from_secs(5);

/// PVE serves so many requests on a connection (`FACTS` 19).
const MAX_REQUESTS: u32 = 100;

/// One request as the emulator saw it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RequestRecord {
    /// Counted from 0 since the start.
    pub index: u64,
    /// `GET`, `POST`, ...
    pub method: String,
    /// Path below `/api2/json`, percent-decoded.
    pub path: String,
    /// User or full token id, if it was authenticated.
    pub user: Option<String>,
    /// Status of the answer; 0 when the connection was closed instead.
    pub status: u16,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) world: Arc<World>,
    pub(crate) routes: Routes,
    records: Mutex<VecDeque<RequestRecord>>,
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed without an answer")]
struct HangUp;

impl Server {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self {
            world,
            routes: Routes::new(),
            records: Mutex::default(),
        }
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Accepts connections until `stop`, then waits for none of them.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, tls: TlsAcceptor, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, _) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let server = Arc::clone(&self);
            let tls = tls.clone();
            let stop = stop.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = server.connection(stream, tls) => {}
                }
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, tls: TlsAcceptor) {
        let local = stream.local_addr().ok();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let mut first = [0];
        let peeked = tokio::time::timeout(IDLE, stream.peek(&mut first)).await;
        if !matches!(peeked, Ok(Ok(1))) {
            return;
        }
        // A TLS handshake begins with record type 22.
        if first[0] != 22 {
            redirect_to_https(&mut stream, local).await;
            return;
        }
        let Ok(Ok(stream)) = tokio::time::timeout(IDLE, tls.accept(stream)).await else {
            return;
        };
        let count = AtomicU32::new(0);
        let service = service_fn(|request| {
            let server = Arc::clone(&self);
            let last = count.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_REQUESTS;
            async move {
                let mut response = server.serve(request).await?;
                if last {
                    response
                        .headers_mut()
                        .insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, HangUp>(response)
            }
        });
        let result = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            // PVE takes 64 header lines and 8 KiB a line (FACTS 18).
            .max_headers(64)
            .max_buf_size(512 * 1024)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
    }
}
