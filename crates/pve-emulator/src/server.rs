//! HTTPS on a socket: connections and what they share.

mod auth;
mod body;
mod half_open;
mod hang_up;
mod plain;
mod serve;
mod websocket;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use half_open::{HalfOpen, Waiting};
use hang_up::OnlyOurs;
use http::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use plain::redirect_to_https;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Routes;
use crate::state::{NodeState, World};

/// PVE closes an idle connection after this time (`FACTS` 19).
const IDLE: Duration = Duration::from_secs(5);

/// PVE serves so many requests on a connection (`FACTS` 19).
const MAX_REQUESTS: u32 = 100;

/// More header lines than this are no request to PVE, which then hangs up (`FACTS` 18).
const MAX_HEADERS: usize = 64;

/// Nor are longer ones, in bytes of name and value (`FACTS` 18).
const MAX_HEADER: usize = 8 * 1024;

/// What a client has sent is read within this time, unless the machine has very much else to do.
const UNREAD: Duration = Duration::from_millis(20);

/// One request as the emulator saw it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RequestRecord {
    /// Counted from 0 since the start.
    pub index: u64,
    /// `GET`, `POST`, ...
    pub method: String,
    /// Path below `/api2/json`, percent-decoded, its first 1,000 characters.
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
    half_open: Arc<HalfOpen>,
    panics: AtomicU64,
    /// How far the clock that answers show is ahead, in seconds.
    clock_ahead: AtomicU64,
    /// How many requests are being handled.
    handling: watch::Sender<usize>,
}

/// A request is being handled as long as this is there.
#[derive(Debug)]
struct Handling<'a>(&'a watch::Sender<usize>);

impl<'a> Handling<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Handling<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Waits until a node is offline, or until it is online; `false` when nobody tells any more.
async fn until(state: &mut watch::Receiver<NodeState>, offline: bool) -> bool {
    state.wait_for(|s| s.offline == offline).await.is_ok()
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
            half_open: Arc::default(),
            panics: AtomicU64::new(0),
            clock_ahead: AtomicU64::new(0),
            handling: watch::Sender::new(0),
        }
    }

    /// Waits until no request is being handled, and none has come for a moment: what was sent may not have been read yet.
    pub(crate) async fn idle(&self) {
        let mut handling = self.handling.subscribe();
        loop {
            let before = self.world.faults.calls();
            tokio::time::sleep(UNREAD).await;
            // The sender is our own.
            let none = handling.wait_for(|count| *count == 0).await.is_ok();
            if !none || self.world.faults.calls() == before {
                return;
            }
        }
    }

    /// Sets the clock that answers show forward.
    pub(crate) fn advance_clock(&self, by: Duration) {
        self.clock_ahead.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// How many handlers panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Serves a node at its listener until `stop`, then waits for the connections to end. While the node is offline
    /// nobody listens there, and who was connected is no more.
    pub(crate) async fn run(
        self: Arc<Self>,
        node: Arc<str>,
        listener: TcpListener,
        tls: TlsAcceptor,
        stop: CancellationToken,
    ) {
        let Some(mut state) = self.world.nodes.watch(&node) else {
            return;
        };
        let address = listener.local_addr();
        let mut listener = Some(listener);
        loop {
            let up = stop.child_token();
            if let Some(listener) = listener.take() {
                let connections = TaskTracker::new();
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = until(&mut state, true) => {}
                    () = Arc::clone(&self).accept(&node, listener, &tls, &up, &connections) => {}
                }
                up.cancel();
                connections.close();
                connections.wait().await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                known = until(&mut state, false) => if !known { return },
            }
            let Ok(address) = address else { return };
            match TcpListener::bind(address).await {
                Ok(again) => listener = Some(again),
                Err(error) => {
                    tracing::error!(%error, %node, %address, "the node cannot listen again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn accept(
        self: Arc<Self>,
        node: &Arc<str>,
        listener: TcpListener,
        tls: &TlsAcceptor,
        up: &CancellationToken,
        connections: &TaskTracker,
    ) {
        loop {
            let (stream, peer) = match listener.accept().await {
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
            let up = up.clone();
            let node = Arc::clone(node);
            let waiting = self.half_open.enter();
            connections.spawn(async move {
                tokio::select! {
                    () = up.cancelled() => {}
                    () = waiting.evicted() => tracing::debug!("a connection without a request gives way to others"),
                    () = server.connection(node, stream, peer.ip(), tls, &waiting) => {}
                }
            });
        }
    }

    async fn connection(
        self: Arc<Self>,
        node: Arc<str>,
        mut stream: TcpStream,
        peer: IpAddr,
        tls: TlsAcceptor,
        waiting: &Waiting,
    ) {
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
            let node = Arc::clone(&node);
            let before = count.fetch_add(1, Ordering::Relaxed);
            if before == 0 {
                waiting.arrived();
            }
            let last = before + 1 >= MAX_REQUESTS;
            async move {
                let mut response = server.serve(request, &node, peer).await?;
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
            // How long a header may be is looked at with each request.
            .max_headers(MAX_HEADERS)
            .max_buf_size(512 * 1024)
            .serve_connection(TokioIo::new(OnlyOurs(stream)), service)
            .with_upgrades()
            .await;
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
    }
}
