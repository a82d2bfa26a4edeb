//! What hostile answers cost in memory: the operating system's peak for this process, which runs this one test.
#![cfg(target_os = "linux")]

mod support;

use std::time::Duration;

use support::{Reaction, TestServer};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("the peak");
    line.split_whitespace().next().expect("a number").parse().expect("KiB")
}

/// Begins the peak anew, at what is in use now.
fn reset_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("one's own process");
    peak_kib()
}

fn forever(first: &[u8], again: Vec<u8>) -> Reaction {
    Reaction::Forever(first.to_vec(), again, Duration::ZERO)
}

#[tokio::test]
async fn hostile_answers_cost_bounded_memory() {
    const MIB: u64 = 1024;
    let body = [HEAD, b"\r\n{\"data\":["].concat();
    let text = [HEAD, b"\r\n{\"data\":\""].concat();
    let declared = [HEAD, b"Content-Length: 99999999999\r\n\r\n{\"data\":["].concat();
    let whole = |head: &[u8], unit: &str, bytes: usize, end: &str| {
        let middle = unit.repeat(bytes / unit.len());
        let length = head.len() + middle.len() + end.len();
        let start = format!("Content-Length: {length}\r\n\r\n");
        Reaction::Raw([HEAD, start.as_bytes(), head, middle.as_bytes(), end.as_bytes()].concat())
    };
    // With the default limit of 64 MiB for an answer, which a growing buffer holds twice for a moment.
    let cases = [
        ("a list without end", forever(&body, b"0,".repeat(8192)), 200),
        ("a text without end", forever(&text, vec![b'x'; 16384]), 200),
        ("a declared length", forever(&declared, vec![b'0'; 16384]), 8),
        ("headers without end", forever(HEAD, b"X-A: b\r\n".repeat(1000)), 8),
        (
            "one header without end",
            forever(&[HEAD, b"X-A: "].concat(), vec![b'a'; 16384]),
            8,
        ),
        (
            "1xx without end",
            forever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(500)),
            8,
        ),
        // The server's own copies of these count too, twice 60 MiB.
        ("30 million numbers", whole(b"{\"data\":[", "0,", 60 << 20, "0]}"), 320),
        ("20 million maps", whole(b"{\"data\":[", "{},", 60 << 20, "0]}"), 320),
        ("deep", whole(b"{\"data\":", "[", 60 << 20, ""), 320),
    ];
    for (what, reaction, limit_mib) in cases {
        let server = TestServer::start(move |_, _| reaction.clone()).await;
        let client = server
            .builder()
            .request_timeout(Duration::from_secs(30))
            .build()
            .expect("a client");
        let before = reset_peak();
        let error = client.nodes().await.expect_err("no answer of PVE");
        let growth = peak_kib().saturating_sub(before);
        println!(
            "{what:24} {:6.1} MiB  {error}",
            f64::from(u32::try_from(growth).expect("small")) / 1024.0
        );
        assert!(growth < limit_mib * MIB, "{what}: {growth} KiB, {error:?}");
    }
}
