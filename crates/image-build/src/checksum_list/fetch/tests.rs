//! Against a server with a certificate of its own authority: what is trusted, and what is not followed.

use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A mirror: the answer to each path, and what it was asked.
struct Mirror {
    port: u16,
    authority: CertificateDer<'static>,
    asked: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

type Answers = Arc<dyn Fn(&str) -> String + Send + Sync>;

impl Mirror {
    /// Over TLS, with a certificate for this name.
    async fn start_as(name: &str, answers: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = ca.self_signed(&ca_key).unwrap().der().clone();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &rcgen::Issuer::new(ca, ca_key))
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, answers): (_, Answers) = (Arc::clone(&asked), Arc::new(answers));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen, answers) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&answers));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &seen, &answers).await;
                    }
                });
            }
        });
        Self {
            port,
            authority,
            asked,
            serving,
        }
    }

    async fn start(answers: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start_as("127.0.0.1", answers).await
    }

    fn url(&self, path: &str) -> Url {
        format!("https://127.0.0.1:{}{path}", self.port).parse().unwrap()
    }

    fn fetcher(&self) -> Fetcher {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        Fetcher::trusting(roots).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, seen: &Mutex<Vec<String>>, answers: &Answers) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    seen.lock().unwrap().push(head);
    // What a client does that has seen enough is its own affair.
    let _ = stream.write_all(answers(&path).as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn to(place: &str) -> String {
    answer("302 Found", &format!("Location: {place}\r\n"), "")
}

#[tokio::test]
async fn a_list_is_fetched_and_redirects_within_tls_are_followed() {
    let mirror = Mirror::start(|path| match path {
        "/9/CHECKSUM" => to("/9.6/CHECKSUM"),
        _ => answer("200 OK", "", "the list"),
    })
    .await;
    assert_eq!(
        mirror.fetcher().fetch(&mirror.url("/9/CHECKSUM")).await.unwrap(),
        "the list"
    );
    assert_eq!(mirror.asked().len(), 2);
    let told = mirror.asked().concat().to_lowercase();
    assert!(
        !told.contains("authorization") && !told.contains("cookie") && !told.contains("referer"),
        "{told}"
    );
}

#[tokio::test]
async fn no_redirect_leaves_tls() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    let mirror = Mirror::start(move |_| to(&format!("http://127.0.0.1:{port}/CHECKSUM"))).await;
    let error = mirror
        .fetcher()
        .fetch(&mirror.url("/CHECKSUM"))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the mirror redirects to 127.0.0.1 without TLS");
    // Nothing waits to be accepted: no connection was even tried.
    let nobody = tokio::time::timeout(Duration::from_millis(50), plain.accept()).await;
    assert!(nobody.is_err(), "the client went there");

    let error = mirror
        .fetcher()
        .fetch(&format!("http://127.0.0.1:{port}/CHECKSUM").parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "a list is fetched over https:// alone");
}

#[tokio::test]
async fn a_ring_of_redirects_ends() {
    let mirror = Mirror::start(|_| to("/again")).await;
    let error = mirror
        .fetcher()
        .fetch(&mirror.url("/CHECKSUM"))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the mirror redirects more than 5 times");
    assert_eq!(mirror.asked().len(), MAX_REDIRECTS + 1);
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_and_another_name_are_refused() {
    let (mirror, other) = (
        Mirror::start(|_| answer("200 OK", "", "x")).await,
        Mirror::start(|_| String::new()).await,
    );
    let error = other
        .fetcher()
        .fetch(&mirror.url("/CHECKSUM"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("UnknownIssuer") || error.contains("BadSignature"),
        "{error}"
    );
    let elsewhere = Mirror::start_as("mirror.example.com", |_| answer("200 OK", "", "x")).await;
    let error = elsewhere
        .fetcher()
        .fetch(&elsewhere.url("/CHECKSUM"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not valid for name"), "{error}");
    assert!(
        mirror.asked().is_empty() && elsewhere.asked().is_empty(),
        "nothing was asked"
    );
}

#[tokio::test]
async fn what_is_no_list_is_told() {
    let long = "x".repeat(MAX_BYTES + 1);
    let mirror = Mirror::start(move |path| match path {
        "/gone" => answer("404 Not Found", "", "gone"),
        "/long" => answer("200 OK", "", &long),
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nSHA256 (".to_owned(),
    })
    .await;
    let fetcher = mirror.fetcher();
    for (path, expected) in [
        ("/gone", "the mirror answers 404 Not Found"),
        ("/long", "longer than 1 MiB"),
        // Half a list could lack the line that contradicts the other.
        ("/torn", "end of file before message length reached"),
    ] {
        let error = fetcher.fetch(&mirror.url(path)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{path}: {error}");
    }
}
