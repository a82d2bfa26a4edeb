//! Tokens, tickets, their renewal, and what never leaves in the wrong place.

mod support;

use std::time::Duration;

use proxmox_client::{Error, ErrorKind, Method};
use support::{Reaction, Received, TestServer, data, error};

fn ticket(number: usize) -> Reaction {
    data(&format!(
        r#"{{"ticket":"PVE:root@pam:{number}::a+b/c=","CSRFPreventionToken":"csrf-{number}","username":"root@pam"}}"#
    ))
}

fn is_login(request: &Received) -> bool {
    request.target == "/api2/json/access/ticket"
}

fn logins(server: &TestServer) -> Vec<String> {
    server
        .requests()
        .iter()
        .filter(|request| is_login(request))
        .map(Received::text)
        .collect()
}

/// Lets time pass for the client without waiting for it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_token_is_sent_as_pve_reads_it() {
    let server = TestServer::start(|_, _| data("null")).await;
    server
        .client()
        .request(Method::POST, "/x", &[("a", "1".into())])
        .await
        .expect("answered");
    let request = &server.requests()[0];
    assert_eq!(
        request.header("authorization"),
        Some("PVEAPIToken=packer@pve!build=secret-of-the-token")
    );
    assert_eq!(
        (request.header("cookie"), request.header("csrfpreventiontoken")),
        (None, None)
    );
    assert_eq!(
        (request.text().as_str(), request.header("content-type")),
        ("a=1", Some("application/x-www-form-urlencoded"))
    );
    assert_eq!(
        (request.header("content-length"), request.header("transfer-encoding")),
        (Some("3"), None)
    );
    assert_eq!(
        request.header("accept-encoding"),
        None,
        "a compressed body could not be limited"
    );
}

#[tokio::test]
async fn a_refused_token_is_an_auth_error_and_not_repeated() {
    let server = TestServer::start(|_, _| Reaction::Reply("401 Authentication failed!".into(), String::new())).await;
    let error = server.client().nodes().await.expect_err("refused");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Auth, Some(401)));
    assert!(error.to_string().contains("Authentication failed!") && error.advice().is_some());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_password_buys_one_ticket_and_writes_carry_its_token() {
    let server = TestServer::start(|_, request| if is_login(request) { ticket(1) } else { data("null") }).await;
    let client = server.password_client();
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    client.request(Method::POST, "/b", &[]).await.expect("answered");
    client.request(Method::DELETE, "/c", &[]).await.expect("answered");
    assert_eq!(
        server.lines(),
        ["POST /access/ticket", "GET /a", "POST /b", "DELETE /c"]
    );
    let requests = server.requests();
    assert_eq!(requests[0].text(), "username=root%40pam&password=the-password");
    assert_eq!(
        (requests[0].header("cookie"), requests[0].header("authorization")),
        (None, None)
    );
    for request in &requests[1..] {
        assert_eq!(
            request.header("cookie"),
            Some("PVEAuthCookie=PVE%3Aroot%40pam%3A1%3A%3Aa%2Bb%2Fc%3D")
        );
        assert_eq!(
            request.header("csrfpreventiontoken"),
            (request.method != "GET").then_some("csrf-1")
        );
    }
    assert_eq!(client.request_count(), 4);
}

#[tokio::test]
async fn many_requests_at_once_log_in_once() {
    let server = TestServer::start(|_, request| if is_login(request) { ticket(1) } else { data("null") }).await;
    let client = server.password_client();
    let calls = (0..8).map(|_| client.request(Method::GET, "/a", &[]));
    for answer in futures_util::future::join_all(calls).await {
        answer.expect("answered");
    }
    assert_eq!(logins(&server).len(), 1);
}

#[tokio::test]
async fn a_ticket_is_renewed_with_itself_before_its_end() {
    let server = TestServer::start(|before, request| {
        if is_login(request) {
            ticket(before)
        } else {
            data("null")
        }
    })
    .await;
    let client = server.password_client();
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    pass(Duration::from_secs(80 * 60)).await;
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    assert_eq!(logins(&server).len(), 1, "still fresh");
    pass(Duration::from_secs(20 * 60)).await;
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    let texts = logins(&server);
    assert_eq!(texts.len(), 2);
    assert!(
        texts[1].ends_with("password=PVE%3Aroot%40pam%3A0%3A%3Aa%2Bb%2Fc%3D"),
        "{}",
        texts[1]
    );
    pass(Duration::from_secs(3 * 60 * 60)).await;
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    assert!(
        logins(&server)[2].ends_with("password=the-password"),
        "a dead ticket renews nothing"
    );
}

#[tokio::test]
async fn a_renewal_that_is_refused_falls_back_to_the_password() {
    let server = TestServer::start(|before, request| match is_login(request) {
        true if request.text().contains("PVE%3A") => error("401 authentication failure"),
        true => ticket(before),
        false => data("null"),
    })
    .await;
    let client = server.password_client();
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    pass(Duration::from_secs(100 * 60)).await;
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    assert_eq!(logins(&server).len(), 3);
}

#[tokio::test]
async fn a_renewal_that_fails_for_now_leaves_the_old_ticket() {
    let server = TestServer::start(|before, request| match is_login(request) {
        true if before > 0 => error("500 not now"),
        true => ticket(before),
        false => data("null"),
    })
    .await;
    let client = server.password_client();
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    pass(Duration::from_secs(100 * 60)).await;
    client
        .request(Method::GET, "/a", &[])
        .await
        .expect("the old ticket still holds");
}

#[tokio::test]
async fn a_ticket_that_is_no_longer_accepted_is_replaced_once() {
    for method in [Method::GET, Method::POST] {
        let server = TestServer::start(|before, request| match is_login(request) {
            true => ticket(before),
            false if before == 1 => Reaction::Reply("401 Authentication failed!".into(), String::new()),
            false => data("7"),
        })
        .await;
        let client = server.password_client();
        assert_eq!(client.request(method.clone(), "/a", &[]).await.expect("answered"), 7);
        let line = format!("{method} /a");
        assert_eq!(
            server.lines(),
            ["POST /access/ticket", &line, "POST /access/ticket", &line]
        );
    }
    let refused = || Reaction::Reply("401 Authentication failed!".into(), String::new());
    let server =
        TestServer::start(move |before, request| if is_login(request) { ticket(before) } else { refused() }).await;
    let error = server
        .password_client()
        .request(Method::GET, "/a", &[])
        .await
        .expect_err("refused twice");
    assert_eq!((error.kind(), server.requests().len()), (ErrorKind::Auth, 4));
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let server = TestServer::start(|_, _| error("401 authentication failure")).await;
    let error = server.password_client().nodes().await.expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(!format!("{error} {error:?}").contains("the-password"));
    assert_eq!(
        server.requests().len(),
        1,
        "a wrong password is not tried again: accounts get locked"
    );
}

#[tokio::test]
async fn a_second_factor_is_told() {
    let server =
        TestServer::start(|_, _| data(r#"{"ticket":"PVE:!tfa!x","CSRFPreventionToken":"y","NeedTFA":1}"#)).await;
    let error = server.password_client().nodes().await.expect_err("no second factor");
    assert!(
        matches!(error, Error::SecondFactor { .. }) && error.to_string().contains("API token"),
        "{error}"
    );
}

#[tokio::test]
async fn secrets_are_in_no_debug_text() {
    let server = TestServer::start(|_, request| if is_login(request) { ticket(1) } else { data("null") }).await;
    let client = server.password_client();
    client.request(Method::GET, "/a", &[]).await.expect("answered");
    let careless = proxmox_client::Client::builder("https://root:geheim@pve").proxy("http://me:geheim@proxy");
    let careless = format!("{careless:?}");
    assert!(!careless.contains("geheim"), "{careless}");
    for text in [
        format!("{client:?}"),
        format!("{:?}", server.client()),
        format!("{:?}", server.builder()),
    ] {
        assert!(
            !text.contains("the-password") && !text.contains("secret-of-the-token") && !text.contains("a+b/c"),
            "{text}"
        );
        assert!(text.contains("root@pam") || text.contains("packer@pve!build"), "{text}");
    }
}
