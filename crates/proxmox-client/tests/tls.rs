//! Which certificates are accepted, and what is said about the others.

mod support;

use proxmox_client::{Error, ErrorKind, Fingerprint, Method, Tls, TlsProblem};
use support::{TestServer, data};
use tokio::{io::AsyncWriteExt, net::TcpListener};

async fn version_server() -> TestServer {
    TestServer::start(|_, _| data(r#"{"version":"9.2.11","release":"9.2","repoid":"x"}"#)).await
}

fn problem(error: Error) -> TlsProblem {
    assert!(!error.was_sent() && !error.is_retryable() && error.kind() == ErrorKind::Tls);
    assert!(error.advice().is_some());
    match error {
        Error::Tls { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_policy_accepts_what_it_should() {
    let server = version_server().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &server.ca_pem).expect("written");
    for tls in [
        server.tls(),
        Tls::CaFile(file.path().to_owned()),
        Tls::Pinned(server.fingerprint),
        Tls::Insecure,
    ] {
        let client = server.builder().tls(tls.clone()).build().expect("a client");
        assert!(client.version().await.expect("accepted").at_least(9, 2), "{tls:?}");
    }
}

#[tokio::test]
async fn another_certificate_than_the_pinned_is_told_with_both_fingerprints() {
    let server = version_server().await;
    let expected = Fingerprint::from([7; 32]);
    let client = server.builder().tls(Tls::Pinned(expected)).build().expect("a client");
    for method in [Method::GET, Method::POST] {
        match problem(
            client
                .request(method, "/version", &[])
                .await
                .expect_err("not the pinned one"),
        ) {
            TlsProblem::FingerprintMismatch {
                expected: told,
                presented,
            } => {
                assert_eq!((told, presented), (expected, server.fingerprint));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(server.requests().is_empty(), "nothing was sent");
    assert_eq!(client.request_count(), 2, "and nothing tried again");
}

#[tokio::test]
async fn an_unknown_authority_is_told_with_the_fingerprint() {
    let (server, other) = (version_server().await, version_server().await);
    for tls in [other.tls(), Tls::Verify] {
        let client = match server.builder().tls(tls).build() {
            Ok(client) => client,
            // A machine without any authorities cannot verify at all, and says so.
            Err(Error::Invalid { reason, .. }) if reason.contains("ca-certificates") => continue,
            Err(error) => panic!("{error}"),
        };
        match problem(client.version().await.expect_err("unknown")) {
            TlsProblem::Untrusted { presented, .. } => assert_eq!(presented, server.fingerprint),
            other => panic!("{other:?}"),
        }
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_pinned() {
    let server = TestServer::start_as("pve.example.com", |_, _| data(r#"{"version":"9.2.11"}"#)).await;
    match problem(server.client().version().await.expect_err("another name")) {
        TlsProblem::Untrusted { reason, .. } => assert!(reason.contains("host name"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let pinned = server
        .builder()
        .tls(Tls::Pinned(server.fingerprint))
        .build()
        .expect("a client");
    assert!(pinned.version().await.is_ok(), "a given fingerprint decides alone");
}

#[tokio::test]
async fn a_server_without_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let plain = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream
                .write_all(b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    });
    let server = version_server().await;
    let client = proxmox_client::Client::builder(format!("https://{addr}"))
        .auth(proxmox_client::Auth::token("packer@pve!build", "s"))
        .tls(server.tls())
        .build()
        .expect("a client");
    assert!(matches!(
        problem(client.version().await.expect_err("no TLS")),
        TlsProblem::Handshake { .. }
    ));
    plain.abort();
}
