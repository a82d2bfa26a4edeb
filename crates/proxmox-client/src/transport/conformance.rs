//! Each answer that was recorded from the real PVE, given to the decoding: none panics, none is lost, each error has its kind.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Map, Value};

use super::{
    auth::TicketReply,
    reply::{Envelope, Reply, typed},
};
use crate::{
    error::{Error, ErrorKind},
    types::{
        property::{boot::Boot, cpu::Cpu, net::Net, smbios::Smbios1},
        reply::{
            access::Permissions,
            agent::{AgentInterface, RawExecStatus, RawFileContent},
            cluster::Resource,
            node::{NetworkInterface, NodeEntry, NodeStatus},
            pool::Pool,
            qemu::{PendingOption, VmStatus},
            storage::{StorageStatus, Volume},
            task::{LogLine, TaskEntry, TaskStatus},
        },
        upid::Upid,
        version::Version,
        vm_config::VmConfig,
        vmid::Vmid,
    },
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pve");

/// A recorded exchange, as far as a client sees it.
struct Exchange {
    origin: String,
    method: Method,
    /// Below `/api2/json`, without a query.
    path: String,
    status: u16,
    reason: String,
    body: Vec<u8>,
}

impl Exchange {
    fn decode(&self) -> Result<Envelope, Error> {
        Reply {
            method: &self.method,
            path: &self.path,
            status: self.status,
            reason: &self.reason,
            body: &self.body,
        }
        .decode()
    }
}

/// The recorded body as the bytes that came. Scenarios keep it parsed only; traces cut the exact text at 3,000 characters.
fn body_of(response: &Value) -> Vec<u8> {
    match &response["body"] {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        parsed => parsed.to_string().into_bytes(),
    }
}

fn exchange(origin: String, request: &Value, response: &Value) -> Option<Exchange> {
    // Transcripts and series of measurements have no status; switched protocols are no answers of the API.
    let status = u16::try_from(response["status"].as_u64()?).expect("a status code");
    let whole = request["path"].as_str()?;
    let path = whole.split('?').next().unwrap_or_default();
    // Answers outside of /api2/json are of another form (extjs, pages).
    let path = path.strip_prefix("/api2/json").filter(|_| status != 101)?;
    // This client never asks for a compressed body, and so never gets one (FACTS 21).
    let compressed = request["headers"].get("Accept-Encoding").is_some();
    if compressed && status == 200 {
        return None;
    }
    let method = request["method"].as_str().unwrap_or("GET").parse().expect("a method");
    let reason = response["reason"].as_str().unwrap_or_default().to_owned();
    Some(Exchange {
        origin,
        method,
        path: path.to_owned(),
        status,
        reason,
        body: body_of(response),
    })
}

fn files(folder: &str) -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(format!("{ROOT}/{folder}")).expect("the recordings are in the repository");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let json = paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| {
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, serde_json::from_str(&text).expect("JSON"))
    })
    .collect()
}

fn recorded() -> Vec<Exchange> {
    let mut all = Vec::new();
    for (name, file) in files("traces") {
        for entry in file.as_array().expect("a list") {
            let origin = format!("{name}: {}", entry["name"].as_str().unwrap_or_default());
            all.extend(exchange(origin, &entry["request"], &entry["response"]));
        }
    }
    for (name, file) in files("scenarios") {
        for step in file["steps"].as_array().into_iter().flatten() {
            let origin = format!("{name}: {}", step["id"].as_str().unwrap_or_default());
            all.extend(exchange(
                format!("{origin} (first)"),
                &step["request"],
                &step["poll"]["first"],
            ));
            all.extend(exchange(origin, &step["request"], &step["response"]));
        }
    }
    all
}

#[test]
fn every_recorded_answer_is_data_or_an_error_with_its_status() {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let all = recorded();
    for exchange in &all {
        let kind = match exchange.decode() {
            Ok(_) => {
                assert_eq!(exchange.status, 200, "{}", exchange.origin);
                "data".to_owned()
            }
            // A log as a plain file (`download=1`), which this client never asks for: an error, not a panic.
            Err(error @ Error::Decode { .. }) => {
                assert!(exchange.origin.contains("download=1"), "{}: {error}", exchange.origin);
                "text".to_owned()
            }
            Err(error) => {
                assert_ne!(exchange.status, 200, "{}: {error}", exchange.origin);
                assert_eq!(error.status(), Some(exchange.status), "{}", exchange.origin);
                let text = error.to_string();
                assert!(!text.contains('\n') && text.len() < 5000, "{}: {text}", exchange.origin);
                // The reason phrase is not lost: its words are in the message.
                let Error::Api { message, .. } = &error else {
                    panic!("{}: {error:?}", exchange.origin)
                };
                let first = exchange.reason.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(
                    message.starts_with(&first),
                    "{}: {message:?} lost {first:?}",
                    exchange.origin
                );
                format!("{:?}", error.kind())
            }
        };
        *kinds.entry(kind).or_default() += 1;
    }
    // Counted once and written down, so that no recording falls out of this test unseen.
    let counts: Vec<(&str, usize)> = kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
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
    assert_eq!(counts, want);
    assert_eq!(all.len(), 4229);
}

#[test]
fn no_recorded_text_of_an_error_is_unknown() {
    // What failed inside of the server, or at yet another one, and means nothing more to a caller.
    let plain = [
        "invalid server response: '",
        "unable to create image: qemu-img",
        "upload failed at ",
        "Timeout while waiting for port ",
        "Signature longer than key",
        "unsupported websocket-version",
    ];
    let errors: Vec<Error> = recorded()
        .iter()
        .filter_map(|exchange| exchange.decode().err())
        .collect();
    let server = errors
        .iter()
        .filter(|error| error.kind() == ErrorKind::Server)
        .map(ToString::to_string);
    let (known, unknown): (Vec<String>, Vec<String>) =
        server.partition(|text| plain.iter().any(|part| text.contains(part)));
    assert_eq!(unknown, Vec::<String>::new());
    assert_eq!(known.len(), 12);
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

type Decode = fn(&Method, &str, Value) -> Result<(), Error>;

fn read<T: serde::de::DeserializeOwned>(method: &Method, path: &str, data: Value) -> Result<(), Error> {
    typed::<T>(method, path, data).map(drop)
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only that it can be read counts here")]
struct InResult<T> {
    result: T,
}

/// What each handle reads, by the call that it makes.
const TYPED: &[(&str, &str, Decode)] = &[
    ("GET", "/version", read::<Version>),
    ("GET", "/cluster/nextid", read::<Vmid>),
    ("GET", "/cluster/resources", read::<Vec<Resource>>),
    ("GET", "/nodes", read::<Vec<NodeEntry>>),
    ("GET", "/nodes/*/status", read::<NodeStatus>),
    ("GET", "/nodes/*/storage", read::<Vec<StorageStatus>>),
    ("GET", "/nodes/*/network", read::<Vec<NetworkInterface>>),
    ("GET", "/nodes/*/qemu", read::<Vec<VmStatus>>),
    ("GET", "/nodes/*/tasks", read::<Vec<TaskEntry>>),
    ("GET", "/nodes/*/tasks/*/status", read::<TaskStatus>),
    ("GET", "/nodes/*/tasks/*/log", read::<Vec<LogLine>>),
    ("GET", "/nodes/*/storage/*/status", read::<StorageStatus>),
    ("GET", "/nodes/*/storage/*/content", read::<Vec<Volume>>),
    ("POST", "/nodes/*/storage/*/upload", read::<Upid>),
    ("POST", "/nodes/*/storage/*/download-url", read::<Upid>),
    ("DELETE", "/nodes/*/storage/*/content/*", read::<Option<Upid>>),
    ("GET", "/access/permissions", read::<Permissions>),
    ("POST", "/access/ticket", read::<TicketReply>),
    ("GET", "/pools", read::<Vec<Pool>>),
    ("GET", "/pools/*", read::<Pool>),
    ("POST", "/nodes/*/qemu", read::<Upid>),
    ("DELETE", "/nodes/*/qemu/*", read::<Upid>),
    ("GET", "/nodes/*/qemu/*/config", read::<Map<String, Value>>),
    ("POST", "/nodes/*/qemu/*/config", read::<Option<Upid>>),
    ("PUT", "/nodes/*/qemu/*/config", read::<()>),
    ("GET", "/nodes/*/qemu/*/pending", read::<Vec<PendingOption>>),
    ("GET", "/nodes/*/qemu/*/status/current", read::<VmStatus>),
    ("POST", "/nodes/*/qemu/*/status/start", read::<Upid>),
    ("POST", "/nodes/*/qemu/*/status/stop", read::<Upid>),
    ("POST", "/nodes/*/qemu/*/status/shutdown", read::<Upid>),
    ("POST", "/nodes/*/qemu/*/clone", read::<Upid>),
    ("POST", "/nodes/*/qemu/*/template", read::<Upid>),
    ("PUT", "/nodes/*/qemu/*/resize", read::<Upid>),
    ("PUT", "/nodes/*/qemu/*/sendkey", read::<()>),
    (
        "GET",
        "/nodes/*/qemu/*/agent/network-get-interfaces",
        read::<InResult<Vec<AgentInterface>>>,
    ),
    ("GET", "/nodes/*/qemu/*/agent/exec-status", read::<RawExecStatus>),
    ("GET", "/nodes/*/qemu/*/agent/file-read", read::<RawFileContent>),
];

fn fits(pattern: &str, path: &str) -> bool {
    let (wanted, given): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    wanted.len() == given.len()
        && wanted
            .iter()
            .zip(&given)
            .all(|(wanted, given)| *wanted == "*" || wanted == given)
}

#[test]
fn typed_answers_are_read() {
    let mut read = vec![0_usize; TYPED.len()];
    for exchange in recorded() {
        let Ok(envelope) = exchange.decode() else { continue };
        let found = TYPED
            .iter()
            .position(|(method, path, _)| *method == exchange.method.as_str() && fits(path, &exchange.path));
        let Some(index) = found else { continue };
        let decode = TYPED[index].2;
        if let Err(error) = decode(&exchange.method, &exchange.path, envelope.data) {
            panic!(
                "{}: {error}: {:?}",
                exchange.origin,
                std::error::Error::source(&error).map(ToString::to_string)
            );
        }
        read[index] += 1;
    }
    let unread: Vec<&str> = TYPED
        .iter()
        .zip(&read)
        .filter(|(_, count)| **count == 0)
        .map(|((_, path, _), _)| *path)
        .collect();
    assert_eq!(unread, Vec::<&str>::new(), "no recording at all");
    assert_eq!(read.iter().sum::<usize>(), 3112);
}

#[test]
fn recorded_configurations_round_trip() {
    let (mut configs, mut strings) = (0, 0);
    for exchange in recorded() {
        if !fits("/nodes/*/qemu/*/config", &exchange.path) || exchange.method != Method::GET {
            continue;
        }
        let Ok(envelope) = exchange.decode() else { continue };
        let map: Map<String, Value> = typed(&exchange.method, &exchange.path, envelope.data).expect("a map");
        let given = map.values().filter(|value| !value.is_null()).count();
        let config = VmConfig::from_json(map);
        assert_eq!(
            config.iter().count() + usize::from(config.digest().is_some()),
            given,
            "{}",
            exchange.origin
        );
        configs += 1;
        for (option, text) in config.iter() {
            let name = option.trim_end_matches(|c: char| c.is_ascii_digit());
            let printed = match name {
                "net" => text.parse::<Net>().map(|parsed| parsed.to_string()),
                "cpu" => text.parse::<Cpu>().map(|parsed| parsed.to_string()),
                // A lone space stands for no device (FACTS 34).
                "boot" if text != " " => text.parse::<Boot>().map(|parsed| parsed.to_string()),
                "smbios" => text.parse::<Smbios1>().map(|parsed| parsed.to_string()),
                _ => continue,
            };
            assert_eq!(printed.expect(text), text, "{}", exchange.origin);
            strings += 1;
        }
        for (slot, drive) in config.drives() {
            assert_eq!(
                Some(drive.to_string().as_str()),
                config.get(slot),
                "{}",
                exchange.origin
            );
            assert!(drive.file().is_some(), "{}: {slot}", exchange.origin);
            strings += 1;
        }
        let slots = config
            .iter()
            .filter(|(option, _)| crate::types::vm_config::is_drive_slot(option))
            .count();
        assert_eq!(config.drives().count(), slots, "{}: a drive was lost", exchange.origin);
    }
    assert_eq!((configs, strings), (149, 789));
}
