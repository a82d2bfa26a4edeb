//! What kind each recorded error is.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Exchange, fits, recorded};
use crate::{
    error::{Error, ErrorKind},
    types::reply::task::{TaskExit, TaskStatus},
};

/// What failed inside of the server, or at yet another one, and means nothing more to a caller.
const PLAIN: &[&str] = &[
    "invalid server response: '",
    "unable to create image: qemu-img",
    "upload failed at ",
    "Timeout while waiting for port ",
    "Signature longer than key",
    "unsupported websocket-version",
];

/// A text that no table knows.
pub(super) fn fault_of(error: &Error) -> Option<String> {
    let text = error.to_string();
    let unknown = error.kind() == ErrorKind::Server && !PLAIN.iter().any(|part| text.contains(part));
    unknown.then(|| format!("{text} is of no kind"))
}

/// The failed tasks among the recorded states, as the errors that a wait makes of them.
pub(super) fn failed_tasks(all: &[Exchange]) -> Vec<Error> {
    let states = all
        .iter()
        .filter(|exchange| fits("/nodes/*/tasks/*/status", &exchange.path))
        .filter_map(|exchange| exchange.decode().ok());
    let read = states.map(|envelope| serde_json::from_value::<TaskStatus>(envelope.data).expect("a state"));
    read.filter_map(|status| match status.exit()? {
        TaskExit::Failed(exit) => Some(Error::Task {
            upid: status.upid,
            exit,
            log_tail: Vec::new(),
        }),
        TaskExit::Ok | TaskExit::Warnings(_) => None,
    })
    .collect()
}

fn counted(kinds: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn owned(counts: &[(&str, usize)]) -> Vec<(String, usize)> {
    counts
        .iter()
        .map(|(kind, count)| ((*kind).to_owned(), *count))
        .collect()
}

/// Counted once and written down: what changes its kind is seen.
#[test]
fn each_kind_is_met_as_often_as_recorded() {
    let all = recorded();
    let kinds = all.iter().map(|exchange| match exchange.decode() {
        Ok(_) => "data".to_owned(),
        Err(Error::Decode { .. }) => "text".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    });
    let want = [
        ("Agent", 23),
        ("AgentError", 11),
        ("AlreadyExists", 21),
        ("Auth", 58),
        ("Busy", 1),
        ("Conflict", 7),
        ("Locked", 10),
        ("NotFound", 78),
        ("Parameter", 304),
        ("Permission", 150),
        ("Server", 12),
        ("State", 31),
        ("Unsupported", 31),
        ("data", 3490),
        ("text", 2),
    ];
    assert_eq!(counted(kinds), owned(&want));
    let tasks = failed_tasks(all);
    assert!(tasks.iter().all(|error| error.kind() == ErrorKind::TaskFailed));
    let causes = tasks.iter().map(|error| format!("{:?}", error.cause_kind()));
    let want = [
        ("AlreadyExists", 6),
        ("Busy", 2),
        ("Locked", 13),
        ("NotFound", 28),
        ("Permission", 2),
        ("State", 11),
        ("TaskFailed", 57),
    ];
    assert_eq!(counted(causes), owned(&want));
}

/// A refused parameter is named: its error holds what PVE said of it.
#[test]
fn refused_parameters_are_named() {
    let mut named = 0;
    for exchange in recorded() {
        let body: Value = serde_json::from_slice(&exchange.body).unwrap_or_default();
        let Some(errors) = body["errors"].as_object() else {
            continue;
        };
        let Err(Error::Api { params, .. }) = exchange.decode() else {
            panic!("{}: errors without an error", exchange.origin)
        };
        assert!(
            params
                .keys()
                .eq(errors.keys().collect::<std::collections::BTreeSet<_>>()),
            "{}",
            exchange.origin
        );
        let text = exchange.decode().expect_err("an error").to_string();
        assert!(
            errors.keys().all(|name| text.contains(name.as_str())),
            "{}: {text}",
            exchange.origin
        );
        named += 1;
    }
    assert_eq!(named, 279);
}

#[test]
fn single_recordings_have_their_kind() {
    use ErrorKind as K;
    let all = recorded();
    for (origin, want) in [
        ("auth.json: ticket bad password", K::Auth),
        ("auth.json: token wrong secret", K::Auth),
        ("auth.json: cookie write without CSRF", K::Auth),
        ("auth.json: privsep token without ACL: create VM", K::Permission),
        ("auth.json: pool again (exists)", K::AlreadyExists),
        ("basics.json: nextid with taken vmid", K::AlreadyExists),
        ("basics.json: GET /nodes/pve/storage/nosuch/status", K::NotFound),
        ("basics.json: GET /nodes/pve/storage/nosuch/content", K::NotFound),
        ("vm_create.json: create with vmid taken", K::AlreadyExists),
        ("vm_create.json: create: args by non-root", K::Permission),
        ("vm_create.json: create: size with unit", K::Parameter),
        ("vm_config.json: PUT digest mismatch", K::Conflict),
        ("vm_config.json: PUT boot order of missing device", K::Parameter),
        ("vm_config.json: PUT skiplock by token", K::Permission),
        ("vm_locked.json: PUT config while locked", K::Locked),
        (
            "concurrency.json: PUT config during shutdown (waits for lock file)",
            K::Busy,
        ),
        ("vm_power.json: sendkey on stopped VM", K::State),
        ("vm_template.json: delete running VM", K::State),
        ("vm_template.json: clone nonexistent", K::NotFound),
        ("agent.json: ping, agent configured but not yet running", K::Agent),
        ("agent.json: exec: command does not exist", K::Agent),
        ("agent.json: exec-status asked a second time", K::AgentError),
        ("agent.json: file-read missing file", K::AgentError),
        ("upload.json: nonexistent node", K::NotFound),
        ("upload.json: storage without that content", K::Parameter),
        ("param_errors.json: wrong type integer", K::Parameter),
    ] {
        let found = all.iter().find(|exchange| exchange.origin == origin).expect(origin);
        assert_eq!(found.decode().expect_err(origin).kind(), want, "{origin}");
    }
}
