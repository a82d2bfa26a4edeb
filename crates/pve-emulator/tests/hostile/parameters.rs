//! Every parameter of every served call.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::Reply;
use crate::judge::{Call, calls, is_required, is_scalar, is_wrong};
use crate::subject::{Subject, encode, json as body_of};

/// Texts that fit few parameters. None is long: many stand in one request.
const TEXTS: [&str; 18] = [
    "",
    " ",
    "x",
    "true",
    "-1",
    "1.5",
    "0x10",
    "1e999",
    "nan",
    "999999999999999999999999999999",
    "\u{1}\u{7f}\u{1b}[2J",
    "a\0b",
    "a\r\nX-Injected: 1",
    "\u{e4}\u{20ac}\u{1f600}",
    "../../../../../../etc/passwd",
    "..%2f..%2f",
    "=,=,;=",
    "local:iso/../../../x.iso",
];

/// What stands for a path's parameter.
fn usual(name: &str) -> &'static str {
    match name {
        "node" => "pve",
        "vmid" => "100",
        "storage" => "local",
        "newid" => "101",
        "volume" => "local:iso/a.iso",
        "userid" => "u@pve",
        "poolid" => "p",
        "upid" => "UPID:pve:00000001:00000001:00000001:qmcreate:100:root@pam:",
        _ => "x1",
    }
}

fn path_with(call: &Call, name: &str, encoded: &str) -> String {
    let mut path = call.template.clone();
    for other in call.params.keys() {
        let value = if other == name {
            encoded.to_owned()
        } else {
            encode(usual(other))
        };
        path = path.replace(&format!("{{{other}}}"), &value);
    }
    path
}

/// What the rights of a call ask for, with usual values: without it the answer would be about rights.
fn for_rights(call: &Call) -> Vec<(&str, &'static str)> {
    let needed = call
        .free()
        .filter(|(name, param)| is_required(param) && call.is_in_rights(name));
    let vmid = |name: &str| if name == "vmid" { "101" } else { usual(name) };
    needed.map(|(name, _)| (name.as_str(), vmid(name))).collect()
}

/// Sends pairs as they are, percent-encoded already, in a form.
async fn form(subject: &Subject, call: &Call, path: &str, mut pairs: Vec<String>) -> Reply {
    pairs.extend(
        for_rights(call)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    subject.form(&call.method, path, &pairs.join("&")).await
}

/// Sends the same value for all names, in JSON.
async fn json_of(subject: &Subject, call: &Call, path: &str, names: &BTreeSet<&str>, value: &Value) -> Reply {
    let given = names.iter().map(|name| ((*name).to_owned(), value.clone()));
    let rights = for_rights(call)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)));
    let body: Value = given.chain(rights).collect();
    subject.json(&call.method, path, &body.to_string()).await
}

/// The free parameters for which it holds and that are no matter of rights.
fn those(call: &Call, holds: impl Fn(&Value) -> bool) -> BTreeSet<&str> {
    let free = call
        .free()
        .filter(|(name, param)| holds(param) && !call.is_in_rights(name));
    free.map(|(name, _)| name.as_str()).collect()
}

fn served(subject: &Subject) -> Vec<Call> {
    let served = subject.pve.calls();
    let mut found = calls();
    found.retain(|call| served.contains(&call.key().as_str()));
    assert_eq!(found.len(), served.len(), "every handler is a call of the schema");
    found
}

/// PVE's refusal of parameters, which names each of them.
fn names_all(reply: &Reply, wrong: &BTreeSet<&str>, what: &str) {
    let body = body_of(reply);
    assert_eq!(reply.status, 400, "{what}: {} {body}", reply.reason);
    assert_eq!(reply.reason, "Parameter verification failed.", "{what}");
    let named: BTreeSet<&str> = body["errors"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let missed: Vec<_> = wrong.difference(&named).collect();
    assert!(missed.is_empty(), "{what}: {missed:?} not named in {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_schema_refuses_is_400_and_named() {
    let subject = Subject::start().await;
    let before = subject.files();
    let mut checked = 0;
    // An upload's parameters are parts of its body; `transport` has them.
    let reached = |call: &&Call| call.open_to_token && !call.template.ends_with("/upload");
    for call in served(&subject).iter().filter(reached) {
        let path = path_with(call, "", "");
        let with_body = matches!(call.method.as_str(), "POST" | "PUT");
        for text in TEXTS {
            let wrong = those(call, |param| is_wrong(param, text));
            if wrong.is_empty() {
                continue;
            }
            let pairs = wrong
                .iter()
                .map(|name| format!("{}={}", encode(name), encode(text)))
                .collect();
            let what = format!("{} with {text:?}", call.key());
            names_all(&form(&subject, call, &path, pairs).await, &wrong, &what);
            checked += wrong.len();
            if with_body {
                let reply = json_of(&subject, call, &path, &wrong, &Value::from(text)).await;
                names_all(&reply, &wrong, &format!("{what} in JSON"));
            }
        }
        checked += structure(&subject, call, &path, with_body).await;
        checked += path_parameters(&subject, call).await;
        assert_eq!(
            subject.files(),
            before,
            "{} was refused and changed something",
            call.key()
        );
        subject.is_sound(&call.key()).await;
    }
    assert!(checked > 3000, "only {checked} values were judged");
}

/// Missing, unknown, repeated and nested parameters, and texts that are longer than they may be.
async fn structure(subject: &Subject, call: &Call, path: &str, with_body: bool) -> usize {
    let key = call.key();
    let required = those(call, is_required);
    if !required.is_empty() {
        let reply = form(subject, call, path, Vec::new()).await;
        names_all(&reply, &required, &format!("{key} without parameters"));
    }
    if call.closed {
        let odd = ["no-such-parameter", "net00", "data[]", "\u{fffd}"];
        let pairs = ["no-such-parameter=1", "net00=1", "data[]=1", "%FF=1"];
        let reply = form(subject, call, path, pairs.map(str::to_owned).to_vec()).await;
        names_all(&reply, &odd.into(), &format!("{key} with unknown parameters"));
    }
    let scalars = those(call, is_scalar);
    if !scalars.is_empty() {
        let pair = |name: &&str| format!("{}=1", encode(name));
        let twice = scalars.iter().map(pair).chain(scalars.iter().map(pair)).collect();
        let reply = form(subject, call, path, twice).await;
        names_all(&reply, &scalars, &format!("{key} with everything twice"));
    }
    if with_body && !scalars.is_empty() {
        for value in [json!([]), json!(["1", "2"]), json!({}), json!({"a": {"b": [1]}})] {
            let reply = json_of(subject, call, path, &scalars, &value).await;
            names_all(&reply, &scalars, &format!("{key} with {value}"));
        }
    }
    let long = "x".repeat(20_000);
    let wrong: Vec<&str> = those(call, |param| is_wrong(param, &long)).into_iter().collect();
    for some in wrong.chunks(20).filter(|_| with_body) {
        let pairs = some.iter().map(|name| format!("{}={long}", encode(name))).collect();
        let reply = form(subject, call, path, pairs).await;
        names_all(
            &reply,
            &some.iter().copied().collect(),
            &format!("{key} with long texts"),
        );
    }
    required.len() + 6 * scalars.len() + wrong.len()
}

/// What stands in the path, one at a time. A node that is not there is looked up before anything else (`FACTS` 29).
async fn path_parameters(subject: &Subject, call: &Call) -> usize {
    let mut checked = 0;
    for (name, param) in call
        .params
        .iter()
        .filter(|(name, _)| call.is_in_path(name) && *name != "node")
    {
        for text in TEXTS.into_iter().chain(["%FF%FE"]) {
            let (encoded, text) = match text {
                "%FF%FE" => (text.to_owned(), "\u{fffd}\u{fffd}"),
                text => (encode(text), text),
            };
            // Slashes make other paths, and so do empty segments.
            if text.is_empty() || text.contains('/') || !is_wrong(param, text) {
                continue;
            }
            let reply = subject.form(&call.method, &path_with(call, name, &encoded), "").await;
            let what = format!("{} with {{{name}}} = {text:?}", call.key());
            // Rights come first, and there are none on a path with such characters (recorded in traces/http, `utf-8 node`).
            let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
            if plain || reply.status != 403 {
                names_all(&reply, &[name.as_str()].into(), &what);
            }
            checked += 1;
        }
    }
    checked
}

/// Numbers in a fixed order (Knuth's multiplier), so that a failure can be had again.
struct Picks(u64);

impl Picks {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count
    }
}

/// Texts that come close to what calls take.
const CLOSE: [&str; 22] = [
    "local:iso/../../../../x.iso",
    "local:100/../../../x.raw",
    "local:../100/vm-100-disk-0.qcow2",
    "../../100/base-100-disk-0.qcow2/100/vm-100-disk-0.qcow2",
    "local:iso/a\0.iso",
    "local:99999999999999999999",
    "local-lvm:1e308",
    "local-lvm:vm-100-disk-0,size=9999999999999999999T",
    "local:import/..%2f..%2fx.qcow2",
    "+18446744073709551615T",
    "virtio=ff:ff:ff:ff:ff:ff,bridge=\u{202e}",
    "order=;;;scsi99999999999",
    "ip=1.2.3.4/99999999999,gw=::1",
    "base64=1,serial=====",
    "1",
    "0",
    "100",
    "4294967296",
    "18446744073709551616",
    "p/../../q",
    "/etc/passwd",
    "UPID:pve:FFFFFFFF:FFFFFFFFF:FFFFFFFF:qmcreate:../../x:root@pam:",
];

/// Any parameters of any call, with texts that partly fit. The schema does not tell what comes of them; that it is an
/// answer, without a panic, and without a trace when it is a refusal, holds always.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_refused_leaves_no_trace() {
    let mut subject = Subject::start().await;
    let mut calls = served(&subject);
    // A running guest writes when it likes, and then a change would be nobody's fault.
    let starts = ["/start", "/reset", "/reboot", "/resume"];
    calls.retain(|call| !starts.iter().any(|end| call.template.ends_with(end)));
    let mut picks = Picks(7);
    for round in 0..3 * calls.len() {
        let call = &calls[round % calls.len()];
        let mut pick = |list: &[&'static str]| list[picks.below(list.len())];
        let path = {
            let in_path: Vec<&String> = call.params.keys().filter(|name| call.is_in_path(name)).collect();
            match in_path.as_slice() {
                [.., last] if round % 3 == 0 => path_with(call, last, &encode(pick(&CLOSE))),
                _ => path_with(call, "", ""),
            }
        };
        let mut given: Vec<(String, &str)> = Vec::new();
        for (index, (name, param)) in call.free().enumerate() {
            if is_required(param) || (index + round) % 5 == 0 {
                given.push((name.clone(), if round % 2 == 0 { pick(&CLOSE) } else { pick(&TEXTS) }));
            }
        }
        let what = format!("{} {path} {given:?}", call.method);
        let files = |subject: &Subject| {
            let mut files = subject.files();
            // A task of an earlier call may end now.
            files.remove("tasks.jsonl");
            files
        };
        let before = files(&subject);
        let reply = if round % 4 == 3 && matches!(call.method.as_str(), "POST" | "PUT") {
            let body: Value = given
                .into_iter()
                .map(|(name, text)| (name, Value::from(text)))
                .collect();
            subject.json(&call.method, &path, &body.to_string()).await
        } else {
            let form: Vec<String> = given
                .iter()
                .map(|(name, text)| format!("{}={}", encode(name), encode(text)))
                .collect();
            subject.form(&call.method, &path, &form.join("&")).await
        };
        // Only an upload that is none ends without an answer (FACTS 57).
        let silent = reply.status == 0 && path.ends_with("/upload");
        assert!(silent || (200..600).contains(&reply.status), "{what}: {}", reply.status);
        assert!(reply.header("x-injected").is_none(), "{what} wrote a header");
        if reply.status == 200 {
            subject.settle(&reply).await;
            // The next call is to find a VM again.
            if subject.form("GET", "/nodes/pve/qemu/100/config", "").await.status != 200 {
                subject.is_sound(&what).await;
                subject = Subject::start().await;
            }
        } else {
            let after = files(&subject);
            let changed: Vec<_> = after
                .iter()
                .filter(|(name, hash)| before.get(*name) != Some(*hash))
                .collect();
            assert!(
                after == before,
                "{what} was refused with {} {} and changed {changed:?}",
                reply.status,
                reply.reason
            );
        }
        subject.is_sound(&what).await;
    }
}
