//! What comes over the wire and is no proper request.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::subject::{Subject, json};

/// Far more than anything here takes, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

const UPLOAD: &str = "/api2/json/nodes/pve/storage/local/upload";

/// Sends bytes on a connection of their own and reads what comes until its end.
async fn raw(subject: &Subject, bytes: &[u8]) -> String {
    let mut stream = subject.client.connect().await.unwrap();
    // The server may hang up in the middle.
    let _ = stream.write_all(bytes).await;
    read_all(&mut stream).await
}

async fn read_all(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut answer = Vec::new();
    // A hang-up in the middle of what is sent shows as an error.
    let _ = timeout(LONG, stream.read_to_end(&mut answer))
        .await
        .expect("the server ends the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(subject: &Subject, path: &str, more: &str) -> Vec<u8> {
    let (name, value) = &subject.auth;
    format!("GET /api2/json{path} HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\n{more}\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_beyond_the_limits_end_the_connection() {
    let subject = Subject::start().await;
    let lines = |count: usize| {
        let lines: Vec<String> = (0..count).map(|n| format!("X-{n}: a\r\n")).collect();
        lines.concat()
    };
    // Host and Authorization stand beside these.
    for (what, more, answered) in [
        ("64 lines", lines(61) + "Connection: close\r\n", true),
        ("70 lines", lines(68), false),
        (
            "a line of 8,000 bytes",
            format!("X: {}\r\nConnection: close\r\n", "a".repeat(8000)),
            true,
        ),
        ("a line of 9,000 bytes", format!("X: {}\r\n", "a".repeat(9000)), false),
        ("1 MiB in a line", format!("X: {}\r\n", "a".repeat(1 << 20)), false),
        ("1 MiB in lines", lines(1 << 17), false),
        ("a name of 1 MiB", format!("{}: a\r\n", "a".repeat(1 << 20)), false),
        ("no colon", "what is this\r\n".to_owned(), false),
        ("a line end in a value", "X: a\rb\r\n".to_owned(), false),
        ("a NUL", "X: a\0b\r\n".to_owned(), false),
    ] {
        let answer = raw(&subject, &get(&subject, "/version", &more)).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 OK\r\n"), answered, "{what}: {answer}");
        assert!(answered || answer.is_empty(), "{what}: {answer}");
        subject.is_sound(what).await;
    }
    // A long address is only a long address.
    let answer = subject
        .form("GET", "/version", &format!("x={}", "a".repeat(9000)))
        .await;
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (400, "Parameter verification failed.")
    );
    assert!(json(&answer)["errors"]["x"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_the_wrong_length_or_form() {
    let subject = Subject::start().await;
    let (name, value) = &subject.auth;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let post = |more: &str, body: &str| {
        format!("POST /api2/json/pools HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\n{form}{more}\r\n{body}")
    };
    for (what, request, begins) in [
        (
            "chunks",
            post("Transfer-Encoding: chunked\r\n", "9\r\npoolid=cc\r\n0\r\n\r\n"),
            "HTTP/1.1 501 chunked transfer encoding not supported\r\n",
        ),
        (
            "too much",
            post("Content-Length: 600000\r\n", &"x".repeat(600_000)),
            "HTTP/1.1 501 for data too large\r\n",
        ),
        ("no number", post("Content-Length: many\r\n", "poolid=a"), ""),
        ("a negative number", post("Content-Length: -1\r\n", "poolid=b"), ""),
        (
            "more than a number",
            post("Content-Length: 99999999999999999999999\r\n", "poolid=c"),
            "",
        ),
        (
            "two lengths",
            post("Content-Length: 8\r\nContent-Length: 9\r\n", "poolid=dd"),
            "",
        ),
        (
            "both ways",
            post("Content-Length: 8\r\nTransfer-Encoding: chunked\r\n", "poolid=e"),
            "",
        ),
    ] {
        let answer = raw(&subject, request.as_bytes()).await;
        assert!(answer.starts_with(begins), "{what}: {answer}");
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 501 ");
        assert!(refused, "{what}: {answer}");
        subject.is_sound(what).await;
    }
    // A body shorter than announced: the client ends, and its call is not carried out.
    let mut stream = subject.client.connect().await.unwrap();
    stream
        .write_all(post("Content-Length: 40\r\n", "poolid=short").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "");
    // One that goes on: what is behind its length is a request of its own, and none.
    let answer = raw(
        &subject,
        post("Content-Length: 8\r\n", "poolid=fgarbage\r\n\r\n").as_bytes(),
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let pools = json(&subject.form("GET", "/pools", "").await);
    let pools: Vec<_> = pools["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pool| pool["poolid"].clone())
        .collect();
    assert_eq!(pools, ["f", "p"], "none of the refused ones");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_one_go_are_answered_in_order() {
    let subject = Subject::start().await;
    let mut bytes = get(&subject, "/version", "");
    bytes.extend(get(&subject, "/cluster/nextid", ""));
    bytes.extend(get(&subject, "/nosuch", ""));
    bytes.extend(get(&subject, "/version", ""));
    let answer = raw(&subject, &bytes).await;
    let lines: Vec<&str> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|one| one.lines().next().unwrap())
        .collect();
    // Whatever fails ends the connection (FACTS 19), so the fourth stays without an answer.
    assert_eq!(
        lines,
        ["200 OK", "200 OK", "501 Method 'GET /nosuch' not implemented"],
        "{answer}"
    );
    assert!(answer.contains("{\"data\":\"101\"}"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_instead_of_tls_ends_the_connection() {
    let subject = Subject::start().await;
    let mut hello = vec![22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    hello.extend([0xaa; 400]);
    for garbage in [
        &[22][..],
        &[22, 3, 1, 255, 255],
        &[22, 3, 3, 0, 1, 0],
        &hello,
        &[0; 4096],
        &[0x80, 0x2e, 1, 0, 2],
        b"\x16\x03\x01HTTP/1.1",
    ] {
        let mut stream = TcpStream::connect(subject.pve.address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        // What it then sends is an alert or a redirect, never an answer of the API.
        let answer = read_all(&mut stream).await;
        assert!(!answer.contains("200 OK"), "{garbage:?}: {answer}");
    }
    subject.is_sound("garbage").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_shut_nobody_out() {
    let subject = Subject::start().await;
    let mut silent = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(subject.pve.address()).await.unwrap();
        // Some stop in the handshake, some before it.
        if number % 2 == 0 {
            stream.write_all(&[22, 3, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    let mut half = subject.client.connect().await.unwrap();
    half.write_all(b"GET /api2/json/version HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .unwrap();
    for _ in 0..5 {
        subject.is_sound("300 silent connections").await;
    }
    // The first have given way, the others end by themselves.
    assert_eq!(read_all(&mut silent[0]).await, "");
    assert_eq!(read_all(&mut half).await, "");
    assert_eq!(read_all(&mut silent[299]).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_hold_up_their_own_call_alone() {
    let subject = Subject::start().await;
    let (name, value) = &subject.auth;
    let mut slow = Vec::new();
    for (path, kind) in [
        ("/api2/json/pools", "application/x-www-form-urlencoded"),
        (UPLOAD, "multipart/form-data; boundary=B"),
    ] {
        for _ in 0..20 {
            let mut stream = subject.client.connect().await.unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n--B"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            slow.push(stream);
        }
    }
    for _ in 0..3 {
        for stream in &mut slow {
            stream.write_all(b"x").await.unwrap();
        }
        subject.is_sound("40 slow bodies").await;
    }
    drop(slow);
    let answer = subject.form("POST", "/pools", "poolid=q").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_cut_at_any_byte_leaves_nothing() {
    let subject = Subject::start().await;
    let part =
        |name: &str, value: &str| format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let file = "--B\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"cut.iso\"\r\nContent-Type: x/y\r\n\r\nbytes\r\n--B--";
    let body = format!("{}{file}", part("content", "iso"));
    let headers = [
        subject.auth.clone(),
        ("Content-Type".to_owned(), "multipart/form-data; boundary=B".to_owned()),
    ];
    let before = subject.files();
    for end in 0..body.len() {
        let reply = subject
            .client
            .send("POST", UPLOAD, &headers, Some(&body.as_bytes()[..end]))
            .await
            .unwrap();
        assert!(
            matches!(reply.status, 0 | 400 | 500),
            "cut at {end}: {} {}",
            reply.status,
            reply.reason
        );
    }
    assert_eq!(subject.files(), before);
    for (what, body, status) in [
        ("content twice", format!("{0}{0}{file}", part("content", "iso")), 400),
        (
            "content behind a checksum",
            format!("{}{}{file}", part("checksum-algorithm", "md5"), part("content", "iso")),
            400,
        ),
        (
            "two algorithms",
            format!(
                "{0}{1}{1}{file}",
                part("content", "iso"),
                part("checksum-algorithm", "md5")
            ),
            400,
        ),
        (
            "a folder's name",
            format!("{}{}", part("content", "iso"), file.replace("cut.iso", "..")),
            400,
        ),
        ("no content", file.to_owned(), 400),
        ("a strange content", format!("{}{file}", part("content", "../iso")), 400),
    ] {
        let reply = subject
            .client
            .send("POST", UPLOAD, &headers, Some(body.as_bytes()))
            .await
            .unwrap();
        assert_eq!(reply.status, status, "{what}: {} {}", reply.reason, json(&reply));
    }
    let received: Vec<String> = subject
        .files()
        .into_keys()
        .filter(|name| name.contains("pveupload-"))
        .collect();
    assert_eq!(received, Vec::<String>::new(), "a refused file is not kept");
    // A second file is appended to the first (FACTS 55), and a path is cut to its last part (FACTS 56).
    let long = file
        .replace("cut.iso", "../../../up/../whole.iso")
        .replace("bytes\r\n--B--", "one\r\n");
    let twice = format!("{}{long}{file}\r\n", part("content", "iso"));
    let reply = subject
        .client
        .send("POST", UPLOAD, &headers, Some(twice.as_bytes()))
        .await
        .unwrap();
    assert_eq!(reply.status, 200, "{}", reply.reason);
    subject.settle(&reply).await;
    let volumes = subject.pve.volids("pve");
    assert!(volumes.contains(&"local:iso/whole.iso".to_owned()), "{volumes:?}");
    assert!(!volumes.iter().any(|volume| volume.contains("cut")), "{volumes:?}");
    subject.is_sound("uploads").await;
}
