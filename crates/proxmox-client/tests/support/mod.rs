//! A server for tests that speaks TLS and says, byte by byte, what a test wants said. It knows nothing of PVE.

#![allow(dead_code, reason = "each test file uses a part of it")]

mod websocket;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use proxmox_client::{Auth, Client, ClientBuilder, Fingerprint, Tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};

pub(crate) use websocket::Play;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Method and target without the API's prefix.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target.trim_start_matches("/api2/json"))
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reaction {
    /// A status line's rest and a body.
    Reply(String, String),
    /// Bytes as they are, then the end of the connection.
    Raw(Vec<u8>),
    /// Bytes as they are, and the connection stays.
    Head(Vec<u8>),
    /// An error and the end of the connection before the body has been read: decided by the request's head.
    Early(String),
    /// The end of the connection without an answer.
    Close,
    /// No answer, and the connection stays.
    Hang,
    /// An answer whose body never ends.
    Endless,
    /// A websocket, on which this is said and heard.
    Websocket(Vec<Play>),
    /// These bytes, and then those again and again with a pause in between, for as long as the client listens.
    Forever(Vec<u8>, Vec<u8>, Duration),
}

/// A good answer with this JSON as its data.
pub(crate) fn data(json: &str) -> Reaction {
    Reaction::Reply("200 OK".into(), format!("{{\"data\":{json}}}"))
}

/// An error as PVE sends it.
pub(crate) fn error(status_line: &str) -> Reaction {
    Reaction::Reply(status_line.into(), r#"{"data":null}"#.into())
}

pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) ca_pem: String,
    pub(crate) fingerprint: Fingerprint,
    requests: Arc<Mutex<Vec<Received>>>,
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
}

type Script = dyn Fn(usize, &Received) -> Reaction + Send + Sync;

impl TestServer {
    /// `script` is asked for each request, with how many came before it.
    pub(crate) async fn start(script: impl Fn(usize, &Received) -> Reaction + Send + Sync + 'static) -> Self {
        Self::start_as("127.0.0.1", script).await
    }

    /// The same with a certificate for this name.
    pub(crate) async fn start_as(
        name: &str,
        script: impl Fn(usize, &Received) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let ca_certificate = ca.self_signed(&ca_key).expect("signed");
        let key = rcgen::KeyPair::generate().expect("a key");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
            .expect("a name")
            .signed_by(&key, &issuer)
            .expect("signed");
        let fingerprint = Fingerprint::of_der(leaf.der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key"),
            )
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let requests: Arc<Mutex<Vec<Received>>> = Arc::default();
        let script: Arc<Script> = Arc::new(script);
        let frames: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (seen, heard) = (Arc::clone(&requests), Arc::clone(&frames));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen, script) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&script));
                let heard = Arc::clone(&heard);
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &seen, &heard, &*script).await;
                    }
                });
            }
        });
        Self {
            addr,
            ca_pem: ca_certificate.pem(),
            fingerprint,
            requests,
            frames,
            accepting,
        }
    }

    /// What came over websockets so far, a frame each.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        self.frames.lock().expect("not poisoned").clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// A client with a token, which trusts this server's authority.
    pub(crate) fn client(&self) -> Client {
        self.builder().build().expect("a client")
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(self.url())
            .auth(Auth::token("packer@pve!build", "secret-of-the-token"))
            .tls(self.tls())
    }

    pub(crate) fn password_client(&self) -> Client {
        self.builder()
            .auth(Auth::password("root@pam", "the-password"))
            .build()
            .expect("a client")
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls::CaPem(self.ca_pem.clone().into_bytes())
    }

    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// The lines of the requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Received::line).collect()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    mut stream: S,
    seen: &Mutex<Vec<Received>>,
    frames: &Mutex<Vec<Vec<u8>>>,
    script: &Script,
) {
    let early = |request: &Received| match request.header("content-length") {
        // Only large bodies are worth an early answer; the script is asked twice for those.
        Some(length) if length.len() > 6 => Some(script(0, request)),
        _ => None,
    };
    while let Some(request) = read_request(&mut stream, early).await {
        let before = {
            let mut seen = seen.lock().expect("not poisoned");
            seen.push(request.clone());
            seen.len() - 1
        };
        match script(before, &request) {
            Reaction::Reply(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all((head + &body).as_bytes()).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Reaction::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reaction::Head(bytes) => {
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Reaction::Early(_) => unreachable!("served before the body was read"),
            Reaction::Close => return,
            Reaction::Hang => std::future::pending().await,
            Reaction::Forever(first, again, pause) => {
                let mut good = stream.write_all(&first).await.is_ok() && stream.flush().await.is_ok();
                while good {
                    tokio::time::sleep(pause).await;
                    good = stream.write_all(&again).await.is_ok() && stream.flush().await.is_ok();
                }
                return;
            }
            Reaction::Websocket(plays) => {
                websocket::play(&mut stream, &request, &plays, frames).await;
                return;
            }
            Reaction::Endless => {
                let head =
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"data\":\"";
                if stream.write_all(head).await.is_err() {
                    return;
                }
                while stream.write_all(&[b'x'; 8 * 1024]).await.is_ok() {}
                return;
            }
        }
    }
}

async fn read_request<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    stream: &mut S,
    early: impl Fn(&Received) -> Option<Reaction>,
) -> Option<Received> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).expect("text");
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut request = Received {
        method,
        target,
        headers,
        body: bytes[head_end + 4..].to_vec(),
    };
    let length: usize = request
        .header("content-length")
        .map_or(0, |length| length.parse().expect("a length"));
    if let Some(Reaction::Early(status)) = early(&request) {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        return None;
    }
    while request.body.len() < length {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}
