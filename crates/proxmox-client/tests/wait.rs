//! Waiting for tasks: how they end, what may come in between, and when to stop.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proxmox_client::{Client, Error, ErrorKind, TaskOutcome, Upid, Wait};
use support::{Reaction, Received, TestServer, data, error};
use tokio_util::sync::CancellationToken;

const UPID: &str = "UPID:pve:0000778E:000B3A73:6B046495:qmstart:100:root@pam:";

fn upid() -> Upid {
    UPID.parse().expect("a UPID")
}

fn running() -> Reaction {
    data(&format!(
        r#"{{"upid":"{UPID}","status":"running","type":"qmstart","pid":30606}}"#
    ))
}

fn ended(exit: &str) -> Reaction {
    data(&format!(
        r#"{{"upid":"{UPID}","status":"stopped","exitstatus":"{exit}"}}"#
    ))
}

/// A part of a log of `total` lines `line 1`, `line 2`, ... as the request asks for it.
fn log(request: &Received, total: u64) -> Reaction {
    let asked = |name: &str, default: u64| {
        let found = request
            .target
            .split(['?', '&'])
            .find_map(|pair| pair.strip_prefix(name));
        found.map_or(default, |value| value.parse().expect("a number"))
    };
    let start = asked("start=", 0);
    let end = total.min(start.saturating_add(asked("limit=", 50)));
    let lines: Vec<String> = (start..end)
        .map(|index| format!(r#"{{"n":{},"t":"line {}"}}"#, index + 1, index + 1))
        .collect();
    Reaction::Reply(
        "200 OK".into(),
        format!(r#"{{"total":{total},"data":[{}]}}"#, lines.join(",")),
    )
}

fn is_log(request: &Received) -> bool {
    request.target.contains("/log?")
}

async fn wait(client: &Client) -> Result<TaskOutcome, Error> {
    client.wait_task(&upid(), Wait::at_most(Duration::from_secs(20))).await
}

#[tokio::test]
async fn a_task_that_ends_well_costs_its_looks_only() {
    let server = TestServer::start(|before, _| if before < 2 { running() } else { ended("OK") }).await;
    assert_eq!(wait(&server.client()).await.expect("well"), TaskOutcome::Ok);
    assert_eq!(server.lines().len(), 3);
    assert!(server.lines().iter().all(|line| line.ends_with("/status")));
}

#[tokio::test]
async fn a_failed_task_tells_the_end_of_its_log() {
    for (total, first) in [(7, 1), (45, 16), (2500, 2471)] {
        let server = TestServer::start(move |_, request| {
            if is_log(request) {
                log(request, total)
            } else {
                ended("start failed")
            }
        })
        .await;
        match wait(&server.client()).await.expect_err("failed") {
            Error::Task { upid, exit, log_tail } => {
                assert_eq!((upid.as_str(), exit.as_str()), (UPID, "start failed"));
                assert_eq!(log_tail.first(), Some(&format!("line {first}")));
                assert_eq!(log_tail.last(), Some(&format!("line {total}")), "read to its end");
            }
            other => panic!("{other:?}"),
        }
        assert!(server.lines().len() <= 3);
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_read_does_not_hide_the_failure() {
    let server = TestServer::start(|_, request| {
        if is_log(request) {
            error("403 Permission check failed")
        } else {
            ended("boom")
        }
    })
    .await;
    match wait(&server.client()).await.expect_err("failed") {
        Error::Task { exit, log_tail, .. } => {
            assert_eq!(exit, "boom");
            assert!(log_tail[0].contains("could not be read"), "{log_tail:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn warnings_are_told() {
    let body = r#"{"total":3,"data":[{"n":1,"t":"x"},{"n":2,"t":"WARN: no efidisk configured! Using temporary efivars disk."},{"n":3,"t":"TASK WARNINGS: 1"}]}"#;
    let server = TestServer::start(move |_, request| {
        if is_log(request) {
            Reaction::Reply("200 OK".into(), body.into())
        } else {
            ended("WARNINGS: 1")
        }
    })
    .await;
    let outcome = wait(&server.client()).await.expect("well enough");
    assert_eq!(
        outcome,
        TaskOutcome::Warnings(vec!["no efidisk configured! Using temporary efivars disk.".into()])
    );
}

#[tokio::test]
async fn troubles_in_between_are_survived() {
    // More in a row than one request repeats by itself. A task that is not known is looked for a few seconds only.
    let troubles = [
        (error("596 Broken pipe"), 4),
        (Reaction::Close, 4),
        (error("595 x"), 4),
        (error("599 x"), 4),
        (error("400 no such task"), 1),
    ];
    for (trouble, times) in troubles {
        let server =
            TestServer::start(move |before, _| if before < times { trouble.clone() } else { ended("OK") }).await;
        assert_eq!(wait(&server.client()).await.expect("well in the end"), TaskOutcome::Ok);
        assert!(
            server.lines().iter().all(|line| line.starts_with("GET ")),
            "nothing but looking"
        );
    }
}

#[tokio::test]
async fn a_new_ticket_in_between_is_no_trouble() {
    let ticket = |number: usize| data(&format!(r#"{{"ticket":"PVE:t{number}","CSRFPreventionToken":"c"}}"#));
    let server = TestServer::start(move |before, request| match (request.line().as_str(), before) {
        ("POST /access/ticket", _) => ticket(before),
        (_, 1) => running(),
        (_, 2) => Reaction::Reply("401 Authentication failed!".into(), String::new()),
        _ => ended("OK"),
    })
    .await;
    assert_eq!(wait(&server.password_client()).await.expect("well"), TaskOutcome::Ok);
}

#[tokio::test]
async fn what_does_not_pass_ends_the_wait() {
    let server = TestServer::start(|_, _| error("403 Permission check failed (/nodes/pve, Sys.Audit)")).await;
    assert_eq!(
        wait(&server.client()).await.expect_err("no right").kind(),
        ErrorKind::Permission
    );
    assert_eq!(server.requests().len(), 1);

    let server = TestServer::start(|_, _| error("596 Broken pipe")).await;
    let limited = Wait::at_most(Duration::from_secs(20)).outage(Duration::from_millis(1));
    assert_eq!(
        server
            .client()
            .wait_task(&upid(), limited)
            .await
            .expect_err("out of reach")
            .kind(),
        ErrorKind::Proxy
    );
}

#[tokio::test]
async fn limits_and_cancellation_stop_the_looking() {
    let server = TestServer::start(|_, _| running()).await;
    let client = server.client();
    let error = client
        .wait_task(&upid(), Wait::at_most(Duration::from_millis(150)))
        .await
        .expect_err("too long");
    assert!(
        matches!(&error, Error::Timeout { what, .. } if what.contains(UPID)),
        "{error:?}"
    );

    let token = CancellationToken::new();
    let task = upid();
    let waiting = client.wait_task(&task, Wait::at_most(Duration::from_secs(60)).cancel(token.clone()));
    let (ended, ()) = tokio::join!(waiting, async { token.cancel() });
    assert!(matches!(ended, Err(Error::Cancelled { .. })));
    assert!(
        server.lines().iter().all(|line| line.starts_with("GET ")),
        "the task itself is left alone"
    );

    // A server that does not answer at all delays neither.
    let server = TestServer::start(|_, _| Reaction::Hang).await;
    let started = std::time::Instant::now();
    let error = server
        .client()
        .wait_task(&upid(), Wait::at_most(Duration::from_millis(150)))
        .await
        .expect_err("too long");
    assert!(matches!(error, Error::Timeout { .. }) && started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn the_log_is_followed_each_line_once() {
    // Three looks; the log grows from nothing over 3 to 1203 lines, so that the last look needs two requests.
    let looks = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&looks);
    let server = TestServer::start(move |_, request| {
        let mut looks = counted.lock().expect("not poisoned");
        if !is_log(request) {
            *looks += 1;
            return if *looks < 3 { running() } else { ended("OK") };
        }
        match *looks {
            1 => Reaction::Reply(
                "200 OK".into(),
                r#"{"total":1,"data":[{"n":1,"t":"no content"}]}"#.into(),
            ),
            2 => log(request, 3),
            _ => log(request, 1203),
        }
    })
    .await;
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&lines);
    let following = Wait::at_most(Duration::from_secs(20))
        .on_log(move |line| sink.lock().expect("not poisoned").push(line.to_owned()));
    assert_eq!(
        server.client().wait_task(&upid(), following).await.expect("well"),
        TaskOutcome::Ok
    );
    let want: Vec<String> = (1..=1203).map(|n| format!("line {n}")).collect();
    assert_eq!(*lines.lock().expect("not poisoned"), want);
}

/// A wait can be spawned, and its parts sent to other threads.
#[test]
fn futures_are_send() {
    fn send<T: Send>(_: &T) {}
    let client = Client::builder("pve")
        .auth(proxmox_client::Auth::token("a@b!c", "s"))
        .tls(proxmox_client::Tls::Insecure);
    let client = client.build().expect("a client");
    let task = upid();
    send(&client.wait_task(&task, Wait::at_most(Duration::from_secs(1))));
    let node = client.node(&"pve".parse().expect("a name"));
    let upload = proxmox_client::Upload::iso_bytes("a.iso", "").expect("a name");
    let storage = node.storage(&"local".parse().expect("a name"));
    send(&storage.upload(&upload));
    send(&client.version());
}
