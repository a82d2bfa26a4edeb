//! What each recorded text means, and what may be asked of an error.

use super::*;
use std::collections::BTreeMap;

fn api(status: u16, message: &str) -> Error {
    Error::Api {
        method: Method::POST,
        path: "/x".into(),
        status,
        message: message.into(),
        params: BTreeMap::new(),
    }
}

fn task(exit: &str) -> Error {
    let upid = "UPID:pve:0000778E:000B3A73:6B046495:qmstart:100:root@pam:"
        .parse()
        .expect("a UPID");
    Error::Task {
        upid,
        exit: exit.into(),
        log_tail: Vec::new(),
    }
}

#[test]
fn recorded_texts_have_their_kind() {
    use ErrorKind as K;
    for (status, message, want) in [
        (401, "Authentication failed!", K::Auth),
        (403, "Permission check failed (/vms/201, VM.Console)", K::Permission),
        (
            403,
            "Permission check failed (pool 'nosuch' does not exist)",
            K::NotFound,
        ),
        (400, "Parameter verification failed.", K::Parameter),
        (400, "Bad Request", K::Parameter),
        (400, "no such task", K::NotFound),
        (
            500,
            "Configuration file 'nodes/pve/qemu-server/999.conf' does not exist",
            K::NotFound,
        ),
        (
            500,
            "hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Name or service not known",
            K::NotFound,
        ),
        (500, "storage 'nosuch' does not exist", K::NotFound),
        (
            500,
            "unable to create VM 200 - VM 200 already exists on node 'pve'",
            K::AlreadyExists,
        ),
        (
            500,
            "unable to create VM 213: config file already exists",
            K::AlreadyExists,
        ),
        (500, "VM is locked (backup)", K::Locked),
        (500, "checksum mismatch (file change by other user?)", K::Conflict),
        (
            500,
            "can't lock file '/var/lock/qemu-server/lock-202.conf' - got timeout",
            K::Busy,
        ),
        (500, "VM 201 is not running", K::State),
        (500, "VM 202 not running", K::State),
        (500, "QEMU guest agent is not running", K::Agent),
        (500, "No QEMU guest agent configured", K::Agent),
        (
            500,
            "VM 201 qga command 'guest-exec-status' failed - got timeout",
            K::Agent,
        ),
        (
            500,
            "VM 201 qmp command 'guest-network-get-interfaces' failed - got timeout",
            K::Agent,
        ),
        (
            500,
            "unable to connect to VM 201 qga socket - timeout after 31 retries",
            K::Agent,
        ),
        (500, "Agent error: Invalid parameter 'pid'", K::AgentError),
        (
            500,
            "Agent error: failed to open file '/nosuch' (mode: 'r'): No such file or directory",
            K::AgentError,
        ),
        (500, "can't remove VM 231 - protection mode enabled", K::State),
        (500, "invalid bootorder: device 'ide2' does not exist'", K::Parameter),
        (500, "only root can set 'args' config", K::Permission),
        (501, "Method 'GET /nosuch' not implemented", K::Unsupported),
        (506, "upload 'Content-Type 'text/plain' not implemented", K::Unsupported),
        (595, "No route to host", K::Proxy),
        (596, "Broken pipe", K::Proxy),
        (502, "Bad Gateway", K::Proxy),
        (599, "Too many redirections", K::Proxy),
        (500, "something new", K::Server),
    ] {
        assert_eq!(api(status, message).kind(), want, "{status} {message}");
    }
}

#[test]
fn a_parameter_text_can_be_an_answer() {
    let with = |name: &str, text: &str| Error::Api {
        method: Method::GET,
        path: "/x".into(),
        status: 400,
        message: "Parameter verification failed.".into(),
        params: BTreeMap::from([(name.to_owned(), text.to_owned())]),
    };
    assert_eq!(with("vmid", "VM 200 already exists\n").kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        with("storage", "storage 'nosuch' does not exist").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        with("cores", "type check ('integer') failed").kind(),
        ErrorKind::Parameter
    );
    let text = with("net0", "invalid format\nnet0.model: property is missing\n").to_string();
    assert_eq!(
        text,
        "GET /x: 400 Parameter verification failed. (net0: invalid format net0.model: property is missing)"
    );
}

#[test]
fn a_broken_pipe_of_the_agent_is_not_a_lost_node() {
    let error = Error::Api {
        method: Method::POST,
        path: "/nodes/pve/qemu/201/agent/exec".into(),
        status: 596,
        message: "Broken pipe".into(),
        params: BTreeMap::new(),
    };
    assert_eq!(error.kind(), ErrorKind::Agent);
    assert!(error.advice().expect("says what to do").contains("guest"));
    assert!(!error.is_retryable());
}

#[test]
fn missing_privileges_are_read() {
    for (message, path, any_of) in [
        (
            "Permission check failed (/storage/local, Datastore.Audit|Datastore.AllocateSpace)",
            "/storage/local",
            vec!["Datastore.Audit", "Datastore.AllocateSpace"],
        ),
        ("Permission check failed (, Sys.Audit)", "", vec!["Sys.Audit"]),
        ("Permission check failed", "", vec![]),
        ("Permission check failed (user != root@pam)", "", vec![]),
    ] {
        let missing = api(403, message).missing_privileges().expect(message);
        assert_eq!(
            (missing.path.as_str(), missing.any_of),
            (path, any_of.iter().map(ToString::to_string).collect()),
            "{message}"
        );
    }
    assert!(
        api(500, "Permission check failed (/x, A.B)")
            .missing_privileges()
            .is_none()
    );
    let in_task = task("403 Permission check failed (/storage/local, Datastore.AllocateSpace)");
    assert_eq!(
        in_task.missing_privileges().expect("in a task too").any_of,
        ["Datastore.AllocateSpace"]
    );
    assert_eq!(
        (in_task.kind(), in_task.cause_kind()),
        (ErrorKind::TaskFailed, ErrorKind::Permission)
    );
    assert!(
        in_task
            .advice()
            .expect("says what to do")
            .contains("Datastore.AllocateSpace on /storage/local")
    );
}

#[test]
fn failed_tasks_tell_their_cause() {
    for (exit, want) in [
        (
            "can't lock file '/var/lock/qemu-server/lock-280.conf' - got timeout",
            ErrorKind::Busy,
        ),
        ("VM 201 already running", ErrorKind::State),
        ("VM is locked (backup)", ErrorKind::Locked),
        (
            "unable to create VM 140 - volume 'local:iso/nosuch.iso' does not exist",
            ErrorKind::NotFound,
        ),
        ("start failed: QEMU exited with code 1", ErrorKind::TaskFailed),
    ] {
        assert_eq!(task(exit).cause_kind(), want, "{exit}");
    }
    assert_eq!(task("x").to_string(), "task qmstart 100 on pve failed: x");
}

#[test]
fn what_may_be_repeated() {
    let get = |status, message: &str| Error::Api {
        method: Method::GET,
        path: "/x".into(),
        status,
        message: message.into(),
        params: BTreeMap::new(),
    };
    let io = || Box::new(std::io::Error::other("reset"));
    assert!(get(596, "Broken pipe").is_retryable() && !api(596, "Broken pipe").is_retryable());
    assert!(api(500, "can't lock file 'x' - got timeout").is_retryable());
    assert!(!api(500, "VM is locked (backup)").is_retryable());
    let connect = Error::Connect {
        endpoint: "e".into(),
        method: Method::POST,
        path: "/x".into(),
        attempts: 1,
        source: io(),
    };
    assert!(connect.is_retryable() && !connect.was_sent());
    for (method, want) in [(Method::GET, true), (Method::POST, false), (Method::DELETE, false)] {
        let broken = Error::Transport {
            method,
            path: "/x".into(),
            attempts: 1,
            source: io(),
        };
        assert!(broken.is_retryable() == want && broken.was_sent());
    }
}

#[test]
fn the_cause_is_only_in_source() {
    use std::error::Error as _;
    let broken = Error::Transport {
        method: Method::GET,
        path: "/x".into(),
        attempts: 1,
        source: Box::new(std::io::Error::other("reset by peer")),
    };
    assert!(!broken.to_string().contains("reset by peer"));
    assert_eq!(broken.source().expect("kept").to_string(), "reset by peer");
}
