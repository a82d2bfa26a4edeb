//! The kickstart HTTP server: one file, at one path that cannot be guessed, only while the installer needs it.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Error;

/// Characters of the secret path element. All are typed with one key each on a US keyboard, none needs Shift.
const SECRET_ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// 16 of 36 characters are 82 bits, and every one costs a key press in a typed boot command.
const SECRET_LENGTH: usize = 16;
/// An installer needs one connection; a few more let a person look while nobody can use up our file descriptors.
const CONNECTIONS: usize = 16;
/// A client that sends its request slower than this is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Told of each request: who asked, for what, and the answer's status. Paths of refused requests are shown as they came.
pub type OnRequest = Arc<dyn Fn(&HttpRequestSeen) + Send + Sync>;

/// A request that the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequestSeen {
    /// Address of the client.
    pub peer: SocketAddr,
    /// Method and path, the secret path element masked.
    pub request: String,
    /// HTTP status of the answer.
    pub status: u16,
}

/// A running server; dropping it closes the port.
pub struct KickstartServer {
    address: SocketAddr,
    secret: String,
    served: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl fmt::Debug for KickstartServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            secret: _,
            served,
            _stop,
        } = self;
        f.debug_struct("KickstartServer")
            .field("address", address)
            .field("served", served)
            .finish_non_exhaustive()
    }
}

impl KickstartServer {
    /// Binds a free port of `ports` on `bind` (all IPv4 addresses when `None`) and serves `kickstart`.
    ///
    /// # Errors
    /// [`Error::HttpBind`] when no port of the range can be had.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing open.
    pub async fn start(
        bind: Option<IpAddr>,
        ports: RangeInclusive<u16>,
        kickstart: Bytes,
        on_request: OnRequest,
    ) -> Result<Self, Error> {
        let listener = bind_one_of(bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), ports).await?;
        let address = listener.local_addr().map_err(|source| Error::HttpBind {
            what: "a bound port".to_owned(),
            source,
        })?;
        let secret: String = {
            let mut rng = rand::rng();
            (0..SECRET_LENGTH)
                .map(|_| char::from(SECRET_ALPHABET[rng.random_range(0..SECRET_ALPHABET.len())]))
                .collect()
        };
        let served = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            path: format!("/{secret}/ks.cfg"),
            secret: secret.clone(),
            kickstart,
            served: Arc::clone(&served),
            on_request,
        });
        tokio::spawn(accept(listener, shared, stop.clone()));
        Ok(Self {
            address,
            secret,
            served,
            _stop: stop.drop_guard(),
        })
    }

    /// The port that was bound.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The path element that must precede `/ks.cfg`.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// How often the kickstart was handed out.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

struct Shared {
    path: String,
    secret: String,
    kickstart: Bytes,
    served: Arc<AtomicU64>,
    on_request: OnRequest,
}

async fn bind_one_of(bind: IpAddr, ports: RangeInclusive<u16>) -> Result<TcpListener, Error> {
    // In random order: builds that start together then rarely try the same port one after the other.
    let what = format!("a port of {}-{} on {bind}", ports.start(), ports.end());
    let mut ports: Vec<u16> = ports.collect();
    ports.shuffle(&mut rand::rng());
    let mut last = std::io::Error::from(std::io::ErrorKind::InvalidInput);
    for port in ports {
        match TcpListener::bind((bind, port)).await {
            Ok(listener) => return Ok(listener),
            // Another address than one of this machine fails alike on every port.
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                return Err(Error::HttpBind { what, source: error });
            }
            Err(error) => last = error,
        }
    }
    Err(Error::HttpBind { what, source: last })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors or a connection that was reset in the queue: both pass.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(&shared, peer, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // A client that breaks the protocol or hangs up has got its answer or wants none.
                _ = connection => {}
            }
        });
    }
}

fn answer(shared: &Shared, peer: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    let allowed = matches!(*request.method(), Method::GET | Method::HEAD);
    if request.uri().path() != shared.path {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if allowed {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.body_mut() = Full::new(shared.kickstart.clone());
        if request.method() == Method::GET {
            shared.served.fetch_add(1, Ordering::Relaxed);
        }
    } else {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    (shared.on_request)(&HttpRequestSeen {
        peer,
        request: format!(
            "{} {}",
            request.method(),
            request.uri().path().replace(&shared.secret, "***")
        ),
        status: response.status().as_u16(),
    });
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(port: u16, head: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream
            .write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn only_the_one_path_is_answered_and_every_request_is_told() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let on_request: OnRequest = {
            let seen = Arc::clone(&seen);
            Arc::new(move |request| seen.lock().unwrap().push((request.request.clone(), request.status)))
        };
        let loopback = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let server = KickstartServer::start(loopback, 0..=0, Bytes::from_static(b"text\nreboot\n"), on_request)
            .await
            .unwrap();
        let (port, path) = (server.port(), format!("/{}/ks.cfg", server.secret()));
        assert_eq!(server.secret().len(), SECRET_LENGTH);

        let good = ask(port, &format!("GET {path} HTTP/1.1")).await;
        assert!(
            good.starts_with("HTTP/1.1 200 ") && good.ends_with("\r\n\r\ntext\nreboot\n"),
            "{good}"
        );
        for (head, status) in [
            ("GET / HTTP/1.1".to_owned(), "404"),
            ("GET /ks.cfg HTTP/1.1".to_owned(), "404"),
            (format!("GET {path}/../ks.cfg HTTP/1.1"), "404"),
            (format!("GET {path}.bak HTTP/1.1"), "404"),
            (format!("DELETE {path} HTTP/1.1"), "405"),
        ] {
            let reply = ask(port, &head).await;
            assert!(
                reply.starts_with(&format!("HTTP/1.1 {status} ")) && !reply.contains("reboot"),
                "{head}: {reply}"
            );
        }
        let head = ask(port, &format!("HEAD {path} HTTP/1.1")).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("reboot"), "{head}");
        assert_eq!(server.served(), 1);
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 7);
        assert_eq!(seen.first().unwrap(), &("GET /***/ks.cfg".to_owned(), 200));
    }

    #[tokio::test]
    async fn dropping_it_closes_the_port() {
        let quiet: OnRequest = Arc::new(|_| {});
        let loopback = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let server = KickstartServer::start(loopback, 0..=0, Bytes::new(), quiet)
            .await
            .unwrap();
        let port = server.port();
        drop(server);
        tokio::time::timeout(Duration::from_secs(20), async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the port closes");
    }

    #[tokio::test]
    async fn a_range_without_a_free_port_is_named() {
        let quiet: OnRequest = Arc::new(|_| {});
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let loopback = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let error = KickstartServer::start(loopback, port..=port, Bytes::new(), quiet.clone())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains(&format!("{port}-{port} on 127.0.0.1")),
            "{error}"
        );
        let elsewhere = Some("192.0.2.1".parse().unwrap());
        let error = KickstartServer::start(elsewhere, 8000..=9000, Bytes::new(), quiet)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::HttpBind { .. }), "{error}");
    }
}
