//! What each handle reads, fed with what was recorded for its call.

use http::Method;
use serde_json::{Map, Value};

use super::{Exchange, fits, recorded};
use crate::{
    api::agent::Started,
    error::Error,
    transport::{auth::TicketReply, reply::typed},
    types::{
        property::{boot::Boot, cpu::Cpu, net::Net, smbios::Smbios1},
        reply::{
            access::Permissions,
            agent::{AgentInterface, RawExecStatus, RawFileContent},
            cluster::Resource,
            console::ConsoleTicket,
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

pub(super) type Decode = fn(&Method, &str, Value) -> Result<(), Error>;

fn decode<T: serde::de::DeserializeOwned>(method: &Method, path: &str, data: Value) -> Result<(), Error> {
    typed::<T>(method, path, data).map(drop)
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only that it can be read counts here")]
struct InResult<T> {
    result: T,
}

/// What each handle reads, by the call that it makes.
pub(super) const TYPED: &[(&str, &str, Decode)] = &[
    ("GET", "/version", decode::<Version>),
    ("GET", "/cluster/nextid", decode::<Vmid>),
    ("GET", "/cluster/resources", decode::<Vec<Resource>>),
    ("GET", "/nodes", decode::<Vec<NodeEntry>>),
    ("GET", "/nodes/*/status", decode::<NodeStatus>),
    ("GET", "/nodes/*/storage", decode::<Vec<StorageStatus>>),
    ("GET", "/nodes/*/network", decode::<Vec<NetworkInterface>>),
    ("GET", "/nodes/*/qemu", decode::<Vec<VmStatus>>),
    ("GET", "/nodes/*/tasks", decode::<Vec<TaskEntry>>),
    ("GET", "/nodes/*/tasks/*/status", decode::<TaskStatus>),
    ("DELETE", "/nodes/*/tasks/*", decode::<()>),
    ("GET", "/nodes/*/tasks/*/log", decode::<Vec<LogLine>>),
    ("GET", "/nodes/*/storage/*/status", decode::<StorageStatus>),
    ("GET", "/nodes/*/storage/*/content", decode::<Vec<Volume>>),
    ("POST", "/nodes/*/storage/*/upload", decode::<Upid>),
    ("POST", "/nodes/*/storage/*/download-url", decode::<Upid>),
    ("DELETE", "/nodes/*/storage/*/content/*", decode::<Option<Upid>>),
    ("GET", "/access/permissions", decode::<Permissions>),
    ("POST", "/access/ticket", decode::<TicketReply>),
    ("GET", "/pools", decode::<Vec<Pool>>),
    ("GET", "/pools/*", decode::<Pool>),
    ("POST", "/nodes/*/qemu", decode::<Upid>),
    ("DELETE", "/nodes/*/qemu/*", decode::<Upid>),
    ("GET", "/nodes/*/qemu/*/config", decode::<Map<String, Value>>),
    ("POST", "/nodes/*/qemu/*/config", decode::<Option<Upid>>),
    ("PUT", "/nodes/*/qemu/*/config", decode::<()>),
    ("GET", "/nodes/*/qemu/*/pending", decode::<Vec<PendingOption>>),
    ("GET", "/nodes/*/qemu/*/status/current", decode::<VmStatus>),
    ("POST", "/nodes/*/qemu/*/status/start", decode::<Upid>),
    ("POST", "/nodes/*/qemu/*/status/stop", decode::<Upid>),
    ("POST", "/nodes/*/qemu/*/status/shutdown", decode::<Upid>),
    ("POST", "/nodes/*/qemu/*/clone", decode::<Upid>),
    ("POST", "/nodes/*/qemu/*/template", decode::<Upid>),
    ("PUT", "/nodes/*/qemu/*/resize", decode::<Upid>),
    ("PUT", "/nodes/*/qemu/*/sendkey", decode::<()>),
    (
        "GET",
        "/nodes/*/qemu/*/agent/network-get-interfaces",
        decode::<InResult<Vec<AgentInterface>>>,
    ),
    ("POST", "/nodes/*/qemu/*/agent/ping", decode::<InResult<Value>>),
    ("POST", "/nodes/*/qemu/*/agent/exec", decode::<Started>),
    ("POST", "/nodes/*/qemu/*/agent/file-write", decode::<()>),
    ("POST", "/nodes/*/qemu/*/vncproxy", decode::<ConsoleTicket>),
    ("POST", "/nodes/*/qemu/*/termproxy", decode::<ConsoleTicket>),
    ("GET", "/nodes/*/qemu/*/agent/exec-status", decode::<RawExecStatus>),
    ("GET", "/nodes/*/qemu/*/agent/file-read", decode::<RawFileContent>),
];

/// What its handle makes of an answer; `None` where no handle makes this call.
pub(super) fn read(exchange: &Exchange, data: Value) -> Option<Result<(), Error>> {
    let (_, _, decode) = TYPED.iter().find(|entry| is_of(entry, exchange))?;
    Some(decode(&exchange.method, &exchange.path, data))
}

fn is_of((method, path, _): &(&str, &str, Decode), exchange: &Exchange) -> bool {
    *method == exchange.method.as_str() && fits(path, &exchange.path)
}

/// Every request that there is has its reading here, but for those whose answer is none of the API's.
#[test]
fn no_answer_is_left_out() {
    let unread: Vec<&str> = crate::request::conformance::all()
        .iter()
        .filter(|(_, request)| {
            !TYPED
                .iter()
                .any(|(method, path, _)| *method == request.method.as_str() && fits(path, &request.path))
        })
        .map(|(name, _)| *name)
        .collect();
    // It becomes a stream of bytes.
    assert_eq!(unread, ["console::websocket"]);
}

/// Each call was recorded with a good answer, so that the reading above means something.
#[test]
fn each_typed_call_was_recorded() {
    let mut read = vec![0_usize; TYPED.len()];
    for exchange in recorded() {
        let found = TYPED.iter().position(|entry| is_of(entry, exchange));
        if let (Some(index), Ok(_)) = (found, exchange.decode()) {
            read[index] += 1;
        }
    }
    let unread: Vec<&str> = TYPED
        .iter()
        .zip(&read)
        .filter(|(_, count)| **count == 0)
        .map(|((_, path, _), _)| *path)
        .collect();
    assert_eq!(unread, Vec::<&str>::new(), "no recording at all");
    assert_eq!(read.iter().sum::<usize>(), 3253);
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

/// A recorded good answer of each typed call, to be damaged.
fn samples() -> Vec<Vec<u8>> {
    let all = recorded();
    let first = |entry: &(&str, &str, Decode)| {
        let found = all
            .iter()
            .find(|exchange| is_of(entry, exchange) && exchange.decode().is_ok());
        found.map(|exchange| exchange.body.clone()).expect("recorded")
    };
    TYPED.iter().map(first).collect()
}

static SAMPLES: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(samples);

/// Each reader takes any bytes: data, or an error that a person can read.
fn any_bytes(body: &[u8]) -> Result<(), proptest::test_runner::TestCaseError> {
    for (method, path, decode) in TYPED {
        let method: Method = method.parse().expect("a method");
        let reply = crate::transport::reply::Reply {
            method: &method,
            path,
            status: 200,
            reason: "OK",
            body,
        };
        let read = reply.decode().and_then(|envelope| decode(&method, path, envelope.data));
        if let Err(error) = read {
            let text = error.to_string();
            proptest::prop_assert_eq!(error.kind(), crate::ErrorKind::Decode);
            proptest::prop_assert!(text.len() < 400 && !text.contains(char::is_control), "{}", text);
        }
    }
    Ok(())
}

fn any_json() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just("null".to_owned()),
        "true|false",
        "-?[0-9]{1,25}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?",
        "\"(NaN|inf|-1|18446744073709551616|1e308|OK|UPID:|local:iso/a|\\\\u0000|[a-z/:;,=.]{0,12})\"",
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof![
            "vmid|node|upid|volid|type|status|size|n|t|pid|exited|result|key|members|id",
            "[a-z]{0,5}"
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|list| format!("[{}]", list.join(","))),
            proptest::collection::vec((key, inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_data_or_an_error(body: Vec<u8>) {
        any_bytes(&body)?;
    }

    #[test]
    fn any_json_is_data_or_an_error(json in any_json()) {
        any_bytes(format!("{{\"data\":{json}}}").as_bytes())?;
    }

    #[test]
    fn damaged_recordings_are_data_or_an_error(which: proptest::sample::Index, place: proptest::sample::Index, byte: u8, cut: bool) {
        let mut body = which.get(SAMPLES.as_slice()).clone();
        let place = place.index(body.len());
        if cut { body.truncate(place) } else { body[place] = byte }
        any_bytes(&body)?;
    }
}
