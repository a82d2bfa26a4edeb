//! Waiting for a task while everything goes wrong: the action is sent once, the end is found, and cancelling works at any moment.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use proxmox_client::{Auth, Client, Error, ErrorKind, NodeName, TaskOutcome, Tls, Upid, Vmid, Wait};
use pve_emulator::{Emulator, FaultAction};
use support::{Reaction, Received, TestServer, data, error};
use tokio_util::sync::CancellationToken;

const UPID: &str = "UPID:pve:0000778E:000B3A73:6B046495:qmstart:100:root@pam:";

/// Far more than anything here takes, on a machine with much else to do.
const LONG: Duration = Duration::from_secs(120);

fn upid() -> Upid {
    UPID.parse().expect("a UPID")
}

fn state(rest: &str) -> Reaction {
    data(&format!(r#"{{"upid":"{UPID}",{rest}}}"#))
}

fn running() -> Reaction {
    state(r#""status":"running""#)
}

fn ended(exit: &str) -> Reaction {
    state(&format!(r#""status":"stopped","exitstatus":"{exit}""#))
}

fn lost() -> Reaction {
    state(r#""status":"stopped""#)
}

fn ticket(number: usize) -> Reaction {
    data(&format!(r#"{{"ticket":"PVE:t{number}","CSRFPreventionToken":"c"}}"#))
}

fn is_login(request: &Received) -> bool {
    request.target.ends_with("/access/ticket")
}

fn is_log(request: &Received) -> bool {
    request.target.contains("/log?")
}

fn asked(request: &Received, name: &str) -> u64 {
    let mut pairs = request.target.split(['?', '&']).filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(found, _)| *found == name).expect("given");
    found.1.parse().expect("a number")
}

/// A part of a log in which line `n` says what `text` makes of it.
fn log(request: &Received, total: u64, text: impl Fn(u64) -> String) -> Reaction {
    let start = asked(request, "start");
    let lines: Vec<String> = (start..total.min(start + asked(request, "limit")))
        .map(|index| format!(r#"{{"n":{},"t":"{}"}}"#, index + 1, text(index + 1)))
        .collect();
    Reaction::Reply(
        "200 OK".into(),
        format!(r#"{{"total":{total},"data":[{}]}}"#, lines.join(",")),
    )
}

/// Answers each look at the state by the next of these, the last again and again.
fn looks(answers: Vec<Reaction>) -> impl Fn(&Received) -> Reaction + Send + Sync {
    let next = AtomicUsize::new(0);
    move |_| {
        let index = next.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
        answers[index].clone()
    }
}

fn posts(server: &TestServer) -> Vec<String> {
    let lines = server.lines().into_iter();
    lines
        .filter(|line| !line.starts_with("GET ") && line != "POST /access/ticket")
        .collect()
}

#[tokio::test]
async fn the_action_is_sent_once_whatever_comes_after() {
    let looks = looks(vec![
        running(),
        error("596 Broken pipe"),
        error("595 No route to host"),
        error("599 Too many redirections"),
        error("502 Bad Gateway"),
        Reaction::Close,
        Reaction::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":{".to_vec()),
        Reaction::Raw(b"\x15\x03\x01 garbage".to_vec()),
        Reaction::Hang,
        error("401 permission denied - invalid PVE ticket"),
        Reaction::Close,
        running(),
        ended("OK"),
    ]);
    let logins = AtomicUsize::new(0);
    let server = TestServer::start(move |_, request| {
        if is_login(request) {
            // The second login, in the middle of the wait, fails at first as the rest does.
            return match logins.fetch_add(1, Ordering::Relaxed) {
                1 => Reaction::Close,
                2 => error("596 Broken pipe"),
                number => ticket(number),
            };
        }
        if request.method == "POST" {
            data(&format!("\"{UPID}\""))
        } else {
            looks(request)
        }
    })
    .await;
    let client = server
        .builder()
        .auth(Auth::password("root@pam", "the-password"))
        .request_timeout(Duration::from_secs(10))
        .build()
        .expect("a client");
    let vm = client.node(&NodeName::new("pve").expect("a name")).qemu(Vmid::MIN);
    let started = vm.start().await.expect("started");
    assert_eq!(
        client.wait_task(&started, Wait::at_most(LONG)).await.expect("well"),
        TaskOutcome::Ok
    );
    assert_eq!(posts(&server), ["POST /nodes/pve/qemu/100/status/start"]);
    let logins: Vec<String> = server
        .requests()
        .iter()
        .filter(|request| is_login(request))
        .map(Received::text)
        .collect();
    assert_eq!(logins.len(), 4, "one at first; the other three until one came through");
}

/// The same against the emulator, whose own account of its requests counts.
#[tokio::test]
async fn the_emulator_saw_the_action_once() {
    let emulator = Emulator::start().await.expect("started");
    let client = Client::builder(emulator.url())
        .auth(Auth::token(emulator.token_id(), emulator.token_secret()))
        .tls(Tls::Pinned(emulator.fingerprint().parse().expect("a fingerprint")))
        .build()
        .expect("a client");
    let vm = client.node(&NodeName::new("pve").expect("a name")).qemu(Vmid::MIN);
    let looks = "/nodes/*/tasks/*/status";
    for _ in 0..3 {
        emulator.fail_next("GET", looks, FaultAction::Status(596, "Broken pipe".into()));
        emulator.fail_next("GET", looks, FaultAction::LoseAnswer);
        emulator.fail_next("GET", looks, FaultAction::Refuse);
        emulator.fail_next("GET", looks, FaultAction::Delay(Duration::from_millis(50)));
        emulator.fail_next("GET", looks, FaultAction::Status(599, "Too many redirections".into()));
    }
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&lines);
    let wait = Wait::at_most(LONG).on_log(move |line| sink.lock().expect("not poisoned").push(line.to_owned()));
    let created = vm.create(&proxmox_client::CreateVm::new()).await.expect("accepted");
    assert_eq!(
        client.wait_task(&created, wait).await.expect("created"),
        TaskOutcome::Ok
    );
    assert_eq!(
        lines.lock().expect("not poisoned").last().map(String::as_str),
        Some("TASK OK")
    );
    let writes = emulator
        .requests()
        .iter()
        .filter(|request| request.method != "GET")
        .count();
    assert_eq!(writes, 1);
}

#[tokio::test]
async fn a_state_that_flaps_is_looked_at_again() {
    let well = looks(vec![lost(), running(), lost(), lost(), running(), ended("OK")]);
    let server = TestServer::start(move |_, request| well(request)).await;
    let outcome = server.client().wait_task(&upid(), Wait::at_most(LONG)).await;
    assert_eq!(outcome.expect("it went on"), TaskOutcome::Ok);
    assert_eq!(server.lines().len(), 6);

    // A worker that was killed says so each time.
    for gone in [lost(), ended("unexpected status")] {
        let server = TestServer::start(move |_, request| {
            if is_log(request) {
                log(request, 1, |_| "x".into())
            } else {
                gone.clone()
            }
        })
        .await;
        match server.client().wait_task(&upid(), Wait::at_most(LONG)).await {
            Err(Error::Task { exit, .. }) => assert_eq!(exit, "unexpected status"),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            server.lines().iter().filter(|line| line.ends_with("/status")).count(),
            3
        );
    }
}

/// Cancels when the server has seen so many requests, and tells how long the wait took to end from there.
async fn cancelled(server: &TestServer, client: Client, after: usize, pause: Duration) -> Duration {
    let token = CancellationToken::new();
    let wait = Wait::at_most(LONG * 10).outage(LONG * 10).cancel(token.clone());
    let waiting = tokio::spawn(async move { client.wait_task(&upid(), wait).await });
    let limit = Instant::now() + LONG;
    while server.requests().len() < after {
        assert!(Instant::now() < limit, "no such many requests: {:?}", server.lines());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(pause).await;
    let begun = Instant::now();
    token.cancel();
    let ended = waiting.await.expect("no panic");
    assert!(matches!(ended, Err(Error::Cancelled { .. })), "{ended:?}");
    let took = begun.elapsed();
    let seen = server.requests().len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(server.requests().len() <= seen + 1, "it goes on asking");
    took
}

#[tokio::test]
async fn cancelling_works_at_any_moment() {
    let pause = Duration::from_millis(20);
    // In the middle of a request; in the pause between two; in the back-off of a broken read; in a login; in a log.
    let hang = TestServer::start(|_, _| Reaction::Hang).await;
    assert!(cancelled(&hang, hang.client(), 1, pause).await < LONG / 4);
    let idle = TestServer::start(|_, _| running()).await;
    assert!(cancelled(&idle, idle.client(), 4, pause).await < LONG / 4);
    let broken = TestServer::start(|_, _| Reaction::Close).await;
    assert!(cancelled(&broken, broken.client(), 2, pause).await < LONG / 4);
    let login = TestServer::start(|_, _| Reaction::Hang).await;
    assert!(cancelled(&login, login.password_client(), 1, pause).await < LONG / 4);
    let drip = Reaction::Forever(b"HTTP/1.1 200 OK\r\n\r\n{".to_vec(), b" ".to_vec(), pause);
    let slow = TestServer::start(move |_, _| drip.clone()).await;
    assert!(cancelled(&slow, slow.client(), 1, pause * 5).await < LONG / 4);
}

/// Who is cancelled while a ticket is renewed has not lost the one that still holds.
#[tokio::test]
async fn a_cancelled_renewal_keeps_the_ticket() {
    let logins = AtomicUsize::new(0);
    let server = TestServer::start(move |_, request| {
        if !is_login(request) {
            return running();
        }
        match logins.fetch_add(1, Ordering::Relaxed) {
            1 => Reaction::Hang,
            number => ticket(number),
        }
    })
    .await;
    let client = server.password_client();
    client.version().await.expect_err("no version, but logged in");
    pass(Duration::from_secs(100 * 60)).await;
    let waited = cancelled(&server, client.clone(), 3, Duration::from_millis(20)).await;
    assert!(waited < LONG / 4);
    let task = client.node(&NodeName::new("pve").expect("a name")).task(&upid());
    task.status().await.expect("logged in");
    let texts: Vec<String> = server
        .requests()
        .iter()
        .filter(|request| is_login(request))
        .map(Received::text)
        .collect();
    assert!(
        texts[1..].iter().all(|text| text.ends_with("password=PVE%3At0")),
        "renewed with the ticket: {texts:?}"
    );
}

/// Lets time pass for the client without waiting for it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_wait_outlives_its_ticket() {
    let logins = AtomicUsize::new(0);
    let over = Arc::new(Mutex::new(false));
    let end = Arc::clone(&over);
    let server = TestServer::start(move |_, request| {
        if is_login(request) {
            return ticket(logins.fetch_add(1, Ordering::Relaxed));
        }
        if *end.lock().expect("not poisoned") {
            ended("OK")
        } else {
            running()
        }
    })
    .await;
    // Time jumps in the middle of requests too, which must not end them.
    let day = Duration::from_secs(24 * 3600);
    let client = server
        .builder()
        .auth(Auth::password("root@pam", "the-password"))
        .request_timeout(day)
        .connect_timeout(day)
        .build()
        .expect("a client");
    let waiting = tokio::spawn(async move {
        let wait = Wait::at_most(day).outage(day);
        client.wait_task(&upid(), wait).await
    });
    let mut seen = 0;
    // Five hours in steps of a quarter; each time the wait has looked before time goes on.
    for _ in 0..20 {
        let limit = Instant::now() + LONG;
        while server.requests().len() <= seen {
            assert!(!waiting.is_finished() && Instant::now() < limit, "it no longer looks");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        seen = server.requests().len();
        pass(Duration::from_secs(15 * 60)).await;
    }
    *over.lock().expect("not poisoned") = true;
    assert_eq!(waiting.await.expect("no panic").expect("well"), TaskOutcome::Ok);
    let requests = server.requests();
    let texts: Vec<String> = requests
        .iter()
        .filter(|request| is_login(request))
        .map(Received::text)
        .collect();
    assert!(texts.len() >= 3, "{texts:?}");
    assert!(texts[0].ends_with("password=the-password"));
    assert!(
        texts[1..].iter().all(|text| text.contains("password=PVE%3At")),
        "renewed while it held: {texts:?}"
    );
    let newest = requests
        .last()
        .and_then(|request| request.header("cookie"))
        .expect("a cookie");
    assert_ne!(newest, "PVEAuthCookie=PVE%3At0");
    assert_eq!(posts(&server), Vec::<String>::new());
}

#[tokio::test]
async fn a_log_of_fifty_thousand_lines_is_read_to_its_end() {
    const TOTAL: u64 = 50_001;
    let server = TestServer::start(|_, request| {
        if is_log(request) {
            log(request, TOTAL, |n| format!("line {n}"))
        } else {
            ended("boom")
        }
    })
    .await;
    // Followed: each line once. Then the failure's tail: two requests more.
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&lines);
    let wait = Wait::at_most(LONG).on_log(move |line| sink.lock().expect("not poisoned").push(line.to_owned()));
    match server.client().wait_task(&upid(), wait).await {
        Err(Error::Task { log_tail, .. }) => {
            assert_eq!(
                (log_tail.len(), log_tail.last().map(String::as_str)),
                (30, Some("line 50001"))
            );
        }
        other => panic!("{other:?}"),
    }
    let lines = lines.lock().expect("not poisoned").clone();
    assert!(
        lines
            .iter()
            .map(String::as_str)
            .eq((1..=TOTAL).map(|n| format!("line {n}")).collect::<Vec<_>>())
    );
    assert_eq!(server.lines().len(), 1 + 51 + 2);

    // Warnings at both ends of such a log are told.
    let server = TestServer::start(|_, request| {
        if is_log(request) {
            log(request, TOTAL, |n| {
                if n == 7 || n == 49_999 {
                    format!("WARN: {n}")
                } else {
                    "x".into()
                }
            })
        } else {
            ended("WARNINGS: 2")
        }
    })
    .await;
    let outcome = server
        .client()
        .wait_task(&upid(), Wait::at_most(LONG))
        .await
        .expect("well enough");
    assert_eq!(outcome, TaskOutcome::Warnings(vec!["7".into(), "49999".into()]));
}

#[tokio::test]
async fn odd_logs_do_not_end_a_wait() {
    // Control characters and what Perl makes of other bytes; an empty line; a line without text.
    let odd = r#"{"n":1,"t":"a\u001b[31m\r\u0000b"},{"n":2,"t":"Ã¤\u00ff"},{"n":3},{"n":"4","t":7}"#;
    // Then it shrinks (rotated away), says nothing, jumps, and grows again.
    let pages = [
        odd,
        r#"{"n":1,"t":"no content"}"#,
        "",
        r#"{"n":2,"t":"old"}"#,
        r#"{"n":9,"t":"new"}"#,
    ];
    let step = Arc::new(AtomicUsize::new(0));
    let server = TestServer::start(move |_, request| {
        if is_log(request) {
            let page = pages[(step.load(Ordering::Relaxed) - 1).min(pages.len() - 1)];
            return Reaction::Reply("200 OK".into(), format!(r#"{{"total":4,"data":[{page}]}}"#));
        }
        let before = step.fetch_add(1, Ordering::Relaxed);
        if before + 1 < pages.len() {
            running()
        } else {
            ended("OK")
        }
    })
    .await;
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&lines);
    let wait = Wait::at_most(LONG).on_log(move |line| sink.lock().expect("not poisoned").push(line.to_owned()));
    assert_eq!(
        server.client().wait_task(&upid(), wait).await.expect("well"),
        TaskOutcome::Ok
    );
    assert_eq!(
        *lines.lock().expect("not poisoned"),
        ["a [31m  b", "Ã¤ÿ", "", "7", "new"]
    );
}

#[tokio::test]
async fn an_unreadable_log_is_told_and_does_not_end_a_wait() {
    for broken in [
        Reaction::Raw(
            [
                b"HTTP/1.1 200 OK\r\n\r\n{\"data\":[{\"n\":1,\"t\":\"".as_slice(),
                b"\xff\xfe\"}]}",
            ]
            .concat(),
        ),
        Reaction::Reply(
            "200 OK".into(),
            r#"{"data":[{"n":18446744073709551616,"t":"x"}]}"#.into(),
        ),
        error("403 Permission check failed"),
    ] {
        let looks = looks(vec![running(), running(), ended("WARNINGS: 1")]);
        let server = TestServer::start(move |_, request| {
            if is_log(request) {
                broken.clone()
            } else {
                looks(request)
            }
        })
        .await;
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&lines);
        let wait = Wait::at_most(LONG).on_log(move |line| sink.lock().expect("not poisoned").push(line.to_owned()));
        match server.client().wait_task(&upid(), wait).await.expect("it went well") {
            TaskOutcome::Warnings(told) => assert!(told[0].contains("could not be read"), "{told:?}"),
            TaskOutcome::Ok => panic!("there were warnings"),
        }
        let lines = lines.lock().expect("not poisoned");
        assert!(lines.len() == 1 && lines[0].contains("could not be read"), "{lines:?}");
    }
}

#[tokio::test]
async fn a_log_without_end_is_cut() {
    let server =
        TestServer::start(|_, request| log(request, u64::MAX, |n| format!("line {n} {}", "x".repeat(1000)))).await;
    let client = server.builder().reply_max_bytes(4 << 20).build().expect("a client");
    let task = client.node(&NodeName::new("pve").expect("a name")).task(&upid());
    let error = task.log().await.expect_err("never whole");
    assert!(
        error.kind() == ErrorKind::Decode && error.to_string().contains("larger than"),
        "{error}"
    );
    assert_eq!(task.log_page(5_000_000, 10).await.expect("a part").lines.len(), 10);
}
