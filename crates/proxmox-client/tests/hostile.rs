//! Answers that no PVE gives: each ends in an error of the right kind, in bounded time, and no credential goes elsewhere.

mod support;

use std::time::{Duration, Instant};

use proxmox_client::{Client, Error, ErrorKind, Method};
use support::{Reaction, Received, TestServer, data};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/// Each attempt may take this long, and a read has three of them, with pauses of a second in all.
const LIMIT: Duration = Duration::from_secs(3);
/// All of it, on a machine with much else to do.
const IN_TIME: Duration = Duration::from_secs(60);

fn forever(first: &[u8], again: &[u8], pause_ms: u64) -> Reaction {
    Reaction::Forever(first.to_vec(), again.to_vec(), Duration::from_millis(pause_ms))
}

async fn failure_of(client: &Client) -> Error {
    let begun = Instant::now();
    let error = client.nodes().await.expect_err("no answer of PVE");
    assert!(begun.elapsed() < IN_TIME, "{:?} for {error:?}", begun.elapsed());
    let text = error.to_string();
    assert!(text.len() < 400 && !text.contains(char::is_control), "{text:?}");
    error
}

#[tokio::test]
async fn each_hostile_answer_has_its_kind_and_its_time() {
    use ErrorKind as K;
    let with_body = [HEAD, b"\r\n{\"data\":"].concat();
    let reply = |body: String| Reaction::Reply("200 OK".into(), body);
    let cases: Vec<(&str, Reaction, &[K])> = vec![
        (
            "a body without end",
            forever(&with_body, &[b'['; 8192], 0),
            &[K::Decode, K::Timeout],
        ),
        ("a byte now and then", forever(&with_body, b" ", 100), &[K::Timeout]),
        (
            "headers without end",
            forever(HEAD, &b"X-A: b\r\n".repeat(500), 0),
            &[K::Transport],
        ),
        (
            "one header without end",
            forever(&[HEAD, b"X-A: "].concat(), &[b'a'; 8192], 0),
            &[K::Transport],
        ),
        ("headers, a byte now and then", forever(HEAD, b"a", 100), &[K::Timeout]),
        (
            "a reason phrase without end",
            forever(b"HTTP/1.1 500 ", &[b'a'; 8192], 0),
            &[K::Transport],
        ),
        (
            "1xx without end",
            forever(b"", &b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(500), 0),
            &[K::Timeout, K::Transport],
        ),
        (
            "100 without end",
            forever(b"", &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(500), 0),
            &[K::Timeout, K::Transport],
        ),
        (
            "HTTP/2 instead",
            forever(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
                b"\x00",
                100,
            ),
            &[K::Transport],
        ),
        (
            "another protocol",
            Reaction::Raw(b"SSH-2.0-OpenSSH_9\r\n".to_vec()),
            &[K::Transport],
        ),
        (
            "nothing but bytes",
            Reaction::Raw((0..=255).cycle().take(100_000).collect()),
            &[K::Transport],
        ),
        (
            "an upgrade that was not asked for",
            Reaction::Raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec()),
            &[K::Transport, K::Server],
        ),
        (
            "a body cut in the middle",
            Reaction::Raw([HEAD, b"Content-Length: 100\r\n\r\n{\"data\":["].concat()),
            &[K::Transport],
        ),
        (
            "a chunked body cut in the middle",
            Reaction::Raw([HEAD, b"Transfer-Encoding: chunked\r\n\r\n5\r\n{\"dat\r\n"].concat()),
            &[K::Transport],
        ),
        (
            "a chunk of more bytes than there are",
            Reaction::Raw([HEAD, b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nx"].concat()),
            &[K::Transport],
        ),
        (
            "two lengths",
            Reaction::Raw([HEAD, b"Content-Length: 11\r\nContent-Length: 12\r\n\r\n{\"data\":[]}"].concat()),
            &[K::Transport],
        ),
        (
            "a page",
            Reaction::Raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>log in</html>".to_vec()),
            &[K::Decode],
        ),
        // A body that claims to be compressed was not asked for and is not unpacked: there is no bomb.
        (
            "a compressed body",
            Reaction::Raw(
                [
                    HEAD,
                    b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
                ]
                .concat(),
            ),
            &[K::Decode],
        ),
        ("truncated JSON", reply("{\"data\":[{\"node\":\"p".into()), &[K::Decode]),
        (
            "deep JSON",
            reply(format!("{{\"data\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000))),
            &[K::Decode],
        ),
        (
            "deep objects",
            reply(format!("{{\"data\":{}1", "{\"a\":".repeat(100_000))),
            &[K::Decode],
        ),
        (
            "more values than memory should hold",
            reply(format!("{{\"data\":[{}0]}}", "0,".repeat(3_000_000))),
            &[K::Decode],
        ),
        (
            "a number beyond 64 bits",
            data(r#"[{"node":"pve","maxmem":18446744073709551616}]"#),
            &[K::Decode],
        ),
        ("a negative size", data(r#"[{"node":"pve","maxmem":-1}]"#), &[K::Decode]),
        ("no number", data(r#"[{"node":"pve","maxmem":"NaN"}]"#), &[K::Decode]),
        ("infinity", data(r#"[{"node":"pve","uptime":"inf"}]"#), &[K::Decode]),
        (
            "a huge number",
            data(r#"[{"node":"pve","maxmem":1e308}]"#),
            &[K::Decode],
        ),
        (
            "too huge a number",
            data(r#"[{"node":"pve","maxmem":1e309}]"#),
            &[K::Decode],
        ),
    ];
    for (what, reaction, kinds) in cases {
        let server = TestServer::start(move |_, _| reaction.clone()).await;
        let client = server
            .builder()
            .request_timeout(LIMIT * if kinds.contains(&K::Timeout) { 1 } else { 20 })
            .reply_max_bytes(1 << (20 + 4 * usize::from(what.contains("values"))))
            .build()
            .expect("a client");
        let error = failure_of(&client).await;
        assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
        assert!(error.was_sent(), "{what}");
    }
}

/// A write meets the same once: nothing is sent again when its answer is garbage.
#[tokio::test]
async fn a_write_with_a_hostile_answer_is_not_repeated() {
    for reaction in [
        Reaction::Raw(b"garbage\r\n\r\n".to_vec()),
        Reaction::Raw([HEAD, b"Content-Length: 100\r\n\r\n{"].concat()),
        Reaction::Raw(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /api2/json/again\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        Reaction::Raw(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Reaction::Raw(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Reaction::Close,
    ] {
        let server = TestServer::start(move |_, _| reaction.clone()).await;
        server
            .client()
            .request(Method::POST, "/x", &[])
            .await
            .expect_err("no answer");
        assert_eq!(server.lines(), ["POST /x"]);
    }
}

/// Wherever a redirect points, nobody there hears of us.
#[tokio::test]
async fn no_redirect_is_followed() {
    let elsewhere = TestServer::start(|_, _| data("[]")).await;
    let plain = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let plain_address = plain.local_addr().expect("bound");
    let targets = [
        elsewhere.url(),
        format!("http://{plain_address}/api2/json/nodes"),
        "/api2/json/version".to_owned(),
        "//127.0.0.1:1/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ];
    for status in [301, 302, 303, 307, 308] {
        for target in &targets {
            let head = format!("HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
            let server = TestServer::start(move |_, _| Reaction::Raw(head.clone().into_bytes())).await;
            let error = failure_of(&server.client()).await;
            assert_eq!((error.status(), server.requests().len()), (Some(status), 1), "{target}");
        }
    }
    assert_eq!(elsewhere.requests().len(), 0);
    let knocked = tokio::time::timeout(Duration::from_millis(50), plain.accept()).await;
    assert!(knocked.is_err(), "the redirect to plain HTTP was followed");
}

/// A server that takes the connection and then does what it likes instead of TLS.
async fn without_tls(
    first: &'static [u8],
    again: &'static [u8],
) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            open.push(tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let mut good = stream.write_all(first).await.is_ok();
                while good && !again.is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    good = stream.write_all(again).await.is_ok();
                }
                std::future::pending::<()>().await;
            }));
        }
    });
    (address, serving)
}

#[tokio::test]
async fn a_handshake_that_stalls_ends_in_time_and_nothing_was_sent() {
    let trusting = TestServer::start(|_, _| data("[]")).await;
    let cases: [(&'static [u8], &'static [u8], &[ErrorKind]); 4] = [
        (b"", b"", &[ErrorKind::Connect]),
        // A record of 16 KiB that comes a byte at a time.
        (
            b"\x16\x03\x03\x40\x00\x02",
            b"\x00",
            &[ErrorKind::Connect, ErrorKind::Tls],
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", &[ErrorKind::Tls]),
        (b"\x15\x03\x03\x00\x02\x02\x28", b"", &[ErrorKind::Tls]),
    ];
    for (first, again, kinds) in cases {
        let (address, serving) = without_tls(first, again).await;
        let client = Client::builder(format!("https://{address}"))
            .auth(proxmox_client::Auth::token("packer@pve!build", "secret-of-the-token"))
            .tls(trusting.tls())
            .connect_timeout(LIMIT)
            .build()
            .expect("a client");
        let error = failure_of(&client).await;
        assert!(
            kinds.contains(&error.kind()) && !error.was_sent(),
            "{first:?}: {error:?}"
        );
        serving.abort();
    }
}

/// An answer that comes before the upload has ended, or never, does not hold it up for ever.
#[tokio::test]
async fn what_is_asked_for_is_only_what_is_needed() {
    let server = TestServer::start(|_, _| data("[]")).await;
    server.client().nodes().await.expect("answered");
    let request: Received = server.requests().remove(0);
    assert_eq!(
        request.header("accept-encoding"),
        None,
        "no compressed answer is asked for"
    );
    assert_eq!(request.header("upgrade"), None);
    assert_eq!(request.header("referer"), None);
}
