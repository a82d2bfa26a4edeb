//! Errors, repetition, limits, and answers that no PVE would give.

mod support;

use std::time::Duration;

use proxmox_client::{CreateVm, Error, ErrorKind, Method, NodeName, VmConfigUpdate, Vmid};
use support::{Reaction, TestServer, data, error};

fn pve() -> NodeName {
    NodeName::new("pve").expect("a name")
}

#[tokio::test]
async fn the_reason_phrase_and_the_parameters_arrive() {
    let body = r#"{"data":null,"errors":{"cores":"type check ('integer') failed"},"message":"Parameter verification failed.\n"}"#;
    let server = TestServer::start(move |before, _| match before {
        0 => Reaction::Reply("400 Parameter verification failed.".into(), body.into()),
        1 => error("500 VM 100 is not running"),
        _ => error("596 Broken pipe"),
    })
    .await;
    let vm = server.client().node(&pve()).qemu(Vmid::MIN);
    let refused = vm.create(&CreateVm::new()).await.expect_err("refused");
    match &refused {
        Error::Api {
            method,
            path,
            status,
            params,
            ..
        } => {
            assert_eq!(
                (method.as_str(), path.as_str(), *status),
                ("POST", "/nodes/pve/qemu", 400)
            );
            assert_eq!(params["cores"], "type check ('integer') failed");
        }
        other => panic!("{other:?}"),
    }
    let stopped = vm.send_key("ret").await.expect_err("stopped");
    assert_eq!(
        (stopped.kind(), stopped.to_string().as_str()),
        (
            ErrorKind::State,
            "PUT /nodes/pve/qemu/100/sendkey: 500 VM 100 is not running"
        )
    );
    let proxy = vm.start().await.expect_err("a proxy failed");
    assert_eq!((proxy.kind(), proxy.status()), (ErrorKind::Proxy, Some(596)));
    assert_eq!(server.requests().len(), 3, "writes are not repeated");
}

#[tokio::test]
async fn reads_are_repeated_after_a_lost_connection_or_a_failed_proxy() {
    for trouble in [
        Reaction::Close,
        error("595 No route to host"),
        error("596 x"),
        error("599 Too many redirections"),
    ] {
        let server = TestServer::start(move |before, _| if before < 2 { trouble.clone() } else { data("[]") }).await;
        let client = server.client();
        assert!(client.nodes().await.expect("the third time").is_empty());
        assert_eq!((server.requests().len(), client.request_count()), (3, 3));
    }
}

#[tokio::test]
async fn a_repetition_that_gives_up_says_so() {
    let server = TestServer::start(|_, _| Reaction::Close).await;
    let error = server.client().nodes().await.expect_err("always closed");
    assert!(matches!(error, Error::Transport { attempts: 3, .. }), "{error:?}");
    assert!(error.to_string().contains("(3 attempts)"), "{error}");
}

#[tokio::test]
async fn writes_and_single_reads_are_sent_once() {
    let server = TestServer::start(|_, _| Reaction::Close).await;
    let vm = server.client().node(&pve()).qemu(Vmid::MIN);
    let error = vm.start().await.expect_err("closed");
    assert!(
        matches!(error, Error::Transport { attempts: 1, .. }) && error.was_sent() && !error.is_retryable(),
        "{error:?}"
    );
    vm.agent().exec_status(7).await.expect_err("closed");
    vm.agent().exec(&["id"]).await.expect_err("closed");
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn what_was_surely_not_sent_is_tried_again_even_if_it_writes() {
    let server = TestServer::start(|_, _| data("null")).await;
    let (url, tls) = (server.url(), server.tls());
    // Dropped, its port is closed; nobody else takes it for the moment of this test.
    drop(server);
    let client = proxmox_client::Client::builder(url)
        .auth(proxmox_client::Auth::token("packer@pve!build", "s"))
        .tls(tls)
        .build()
        .expect("a client");
    let error = client
        .request(Method::POST, "/x", &[])
        .await
        .expect_err("nobody listens");
    assert!(matches!(error, Error::Connect { attempts: 3, .. }), "{error:?}");
    assert!(!error.was_sent() && error.is_retryable() && error.advice().is_some());
}

/// PVE answers proxied calls with both and keeps the socket open (`FACTS` 20).
#[tokio::test]
async fn contradicting_connection_headers_do_no_harm() {
    let server = TestServer::start(|_, _| {
        Reaction::Head(b"HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: Keep-Alive\r\nContent-Length: 11\r\n\r\n{\"data\":[]}".to_vec())
    })
    .await;
    let client = server.client();
    for _ in 0..3 {
        client.request(Method::POST, "/x", &[]).await.expect("answered");
    }
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = TestServer::start(|_, _| {
        Reaction::Raw(b"HTTP/1.1 301 Moved\r\nLocation: https://127.0.0.1:1/evil\r\nContent-Length: 0\r\n\r\n".to_vec())
    })
    .await;
    let error = server.client().nodes().await.expect_err("no answer of the API");
    assert_eq!(error.status(), Some(301));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_endless_or_huge_answer_is_cut() {
    let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{\"data\":".to_vec();
    for reaction in [Reaction::Endless, Reaction::Raw(huge)] {
        let server = TestServer::start(move |_, _| reaction.clone()).await;
        let client = server.builder().reply_max_bytes(1024 * 1024).build().expect("a client");
        let error = client.nodes().await.expect_err("too large");
        assert!(
            matches!(&error, Error::Decode { reason, .. } if reason.contains("larger than")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_ends_in_time() {
    let server = TestServer::start(|_, _| Reaction::Hang).await;
    let client = server
        .builder()
        // The way to the server counts too.
        .request_timeout(Duration::from_secs(15))
        .build()
        .expect("a client");
    let error = client.nodes().await.expect_err("no answer");
    assert!(matches!(error, Error::Timeout { .. }) && error.was_sent(), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_trickling_body_ends_in_time() {
    let server = TestServer::start(|_, _| Reaction::Endless).await;
    let client = server
        .builder()
        .reply_max_bytes(usize::MAX)
        .request_timeout(Duration::from_millis(200))
        .build()
        .expect("a client");
    assert!(matches!(
        client.nodes().await.expect_err("never whole"),
        Error::Timeout { .. }
    ));
}

#[tokio::test]
async fn hostile_answers_are_errors() {
    let reply = |body: &str| Reaction::Reply("200 OK".into(), body.into());
    let deep = "[".repeat(200_000);
    let cases: Vec<(Reaction, ErrorKind)> = vec![
        (reply(""), ErrorKind::Decode),
        (reply("<html>login</html>"), ErrorKind::Decode),
        (reply("{\"data\":"), ErrorKind::Decode),
        (reply("{}"), ErrorKind::Decode),
        (reply(&format!("{{\"data\":{deep}")), ErrorKind::Decode),
        (data("\"not a list\""), ErrorKind::Decode),
        (data(r#"[{"node":"../../etc"}]"#), ErrorKind::Decode),
        (data(r#"[{"node":"pve","maxmem":-1}]"#), ErrorKind::Decode),
        (data(r#"[{"node":"pve","maxmem":1e400}]"#), ErrorKind::Decode),
        (Reaction::Raw(b"SSH-2.0-OpenSSH_9\r\n".to_vec()), ErrorKind::Transport),
        (
            Reaction::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":[".to_vec()),
            ErrorKind::Transport,
        ),
        (
            Reaction::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_vec()),
            ErrorKind::Transport,
        ),
    ];
    for (reaction, want) in cases {
        let told = format!("{reaction:?}").chars().take(80).collect::<String>();
        let server = TestServer::start(move |_, _| reaction.clone()).await;
        let error = server.client().nodes().await.expect_err(&told);
        assert_eq!(error.kind(), want, "{told}: {error:?}");
        assert!(error.to_string().len() < 400, "{error}");
    }
}

#[tokio::test]
async fn a_task_that_is_no_upid_is_an_error() {
    for json in [
        "null",
        "\"UPID:\"",
        "7",
        "\"UPID:pve:zz:000B3A73:6B046495:qmstart:100:root@pam:\"",
    ] {
        let server = TestServer::start(move |_, _| data(json)).await;
        let error = server
            .client()
            .node(&pve())
            .qemu(Vmid::MIN)
            .start()
            .await
            .expect_err(json);
        assert_eq!(error.kind(), ErrorKind::Decode, "{json}");
    }
}

#[tokio::test]
async fn the_version_is_asked_once_and_guards_newer_options() {
    let server = TestServer::start(|_, request| match request.target.as_str() {
        "/api2/json/version" => data(r#"{"version":"8.4.1","release":"8.4","repoid":"x"}"#),
        _ => data("null"),
    })
    .await;
    let client = server.client();
    let vm = client.node(&pve()).qemu(Vmid::MIN);
    vm.update_config(&VmConfigUpdate::new().cores(2))
        .await
        .expect("no question for what all know");
    assert_eq!(server.lines(), ["PUT /nodes/pve/qemu/100/config"]);
    let error = vm
        .update_config(&VmConfigUpdate::new().set("allow-ksm", 0))
        .await
        .expect_err("too old");
    assert!(
        error.to_string().contains("9.0") && error.to_string().contains("8.4.1"),
        "{error}"
    );
    vm.update_config(&VmConfigUpdate::new().set("virtiofs0", "share"))
        .await
        .expect("new enough for this");
    client.version().await.expect("kept");
    assert_eq!(server.lines()[1..], ["GET /version", "PUT /nodes/pve/qemu/100/config"]);
}

#[tokio::test]
async fn typed_handles_reach_their_paths() {
    let server = TestServer::start(|_, request| match request.line().as_str() {
        "GET /cluster/nextid" => data("\"100\""),
        "DELETE /nodes/pve/storage/local/content/local%3Aiso%2Fa.iso?delay=5" => data("null"),
        "POST /nodes/pve/qemu/100/agent/exec" => data(r#"{"pid":"118"}"#),
        "GET /nodes/pve/qemu/100/agent/file-read?file=%2Fx" => data(r#"{"bytes-read":2,"content":"ÿa"}"#),
        _ => error("501 Method not implemented"),
    })
    .await;
    let client = server.client();
    assert_eq!(client.next_id(None).await.expect("a vmid"), Vmid::MIN);
    let node = client.node(&pve());
    let storage = node.storage(&"local".parse().expect("a name"));
    assert_eq!(
        storage
            .delete(&"local:iso/a.iso".parse().expect("a volume"))
            .await
            .expect("deleted"),
        None
    );
    let elsewhere = storage.delete(&"other:iso/a.iso".parse().expect("a volume")).await;
    assert!(matches!(elsewhere, Err(Error::Invalid { .. })));
    let agent = node.qemu(Vmid::MIN).agent();
    assert_eq!(agent.exec(&["/bin/true"]).await.expect("a pid"), 118);
    assert_eq!(agent.file_read("/x").await.expect("a file").bytes, b"\xffa");
    assert_eq!(
        agent.ping().await.expect_err("not served").kind(),
        ErrorKind::Unsupported
    );
}
