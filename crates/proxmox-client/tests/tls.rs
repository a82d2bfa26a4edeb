//! Which certificates are accepted, and what is said about the others.

mod support;

use proxmox_client::{Error, ErrorKind, Fingerprint, Method, Tls, TlsProblem};
use support::{TestServer, data};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

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

/// The environment is that of a process, so the test runs itself once more with one that names a proxy.
#[tokio::test]
async fn a_proxy_that_only_the_environment_names_is_not_used() {
    const CHILD: &str = "A_PROXY_IS_IN_THIS_ENVIRONMENT";
    if std::env::var_os(CHILD).is_some() {
        let server = version_server().await;
        server.client().version().await.expect("no proxy is in between");
        return;
    }
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    proxy.set_nonblocking(true).expect("set");
    let url = format!("http://{}", proxy.local_addr().expect("bound"));
    let mut again = tokio::process::Command::new(std::env::current_exe().expect("this test"));
    again
        .args(["--exact", "a_proxy_that_only_the_environment_names_is_not_used"])
        .env(CHILD, "1");
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "HTTP_PROXY",
        "http_proxy",
    ] {
        again.env(name, &url);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        again.env_remove(name);
    }
    let ended = again.output().await.expect("it runs");
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && told.contains("1 passed"), "{told}");
    let asked = proxy.accept().expect_err("nobody asked the proxy");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

/// A proxy that connects whoever asks, and what it was told.
async fn proxy() -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let (told, asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let head = String::from_utf8(head).expect("text");
                let target = head.split(' ').nth(1).expect("a target").to_owned();
                told.send(head).expect("the test listens");
                let mut there = tokio::net::TcpStream::connect(target).await.expect("the server");
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("answered");
                // Either side may end it.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
            });
        }
    });
    (addr.to_string(), asked)
}

#[tokio::test]
async fn a_proxy_that_was_asked_for_sees_no_token_and_cannot_pose_as_the_server() {
    let (server, other) = (version_server().await, version_server().await);
    let (addr, mut asked) = proxy().await;
    let through = |tls: Tls| {
        let url = format!("http://me:of-the-proxy@{addr}");
        server.builder().tls(tls).proxy(url).build().expect("a client")
    };
    through(server.tls()).version().await.expect("through the proxy");
    let head = asked.recv().await.expect("it was asked");
    assert!(head.starts_with(&format!("CONNECT {} ", server.addr)), "{head}");
    assert!(
        !head.contains("secret-of-the-token") && !head.contains("PVEAPIToken"),
        "{head}"
    );
    // Its own password goes to the proxy and nowhere else.
    assert!(head.to_lowercase().contains("proxy-authorization: basic "), "{head}");
    let requests = server.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.header("proxy-authorization").is_none())
    );

    let before = requests.len();
    for tls in [other.tls(), Tls::Pinned(other.fingerprint)] {
        let error = through(tls).version().await.expect_err("another certificate");
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("of-the-proxy"));
    }
    assert_eq!(server.requests().len(), before, "nothing was sent");
}
