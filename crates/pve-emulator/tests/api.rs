//! The emulator as clients of its Rust API and strangers on the wire meet it: restarts, faults, hostile input.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop anywhere")]

#[path = "support/client.rs"]
mod client;

use std::time::Duration;

use client::{Client, Reply};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use pve_emulator::{Emulator, Fault, FaultAction, FaultMatch};
use serde_json::Value;

/// Calls as root's token.
struct Api {
    client: Client,
    headers: Vec<(String, String)>,
}

impl Api {
    fn of(pve: &Emulator) -> Self {
        let token = format!("PVEAPIToken={}={}", pve.token_id(), pve.token_secret());
        let client = Client::new(pve.address(), pve.ca_pem()).unwrap();
        Self {
            client,
            headers: vec![("Authorization".into(), token)],
        }
    }

    async fn call(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Reply {
        let encode = |t: &str| utf8_percent_encode(t, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> = form
            .iter()
            .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
            .collect();
        let body = pairs.join("&");
        let mut headers = self.headers.clone();
        let mut target = format!("/api2/json{path}");
        if matches!(method, "POST" | "PUT") {
            headers.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
            return self
                .client
                .send(method, &target, &headers, Some(body.as_bytes()))
                .await
                .unwrap();
        }
        if !body.is_empty() {
            target = format!("{target}?{body}");
        }
        self.client.send(method, &target, &headers, None).await.unwrap()
    }

    async fn data(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Value {
        let reply = self.call(method, path, form).await;
        assert_eq!(
            reply.status,
            200,
            "{method} {path}: {} {}",
            reply.reason,
            String::from_utf8_lossy(&reply.body)
        );
        serde_json::from_slice::<Value>(&reply.body).unwrap()["data"].clone()
    }

    /// Waits for a task's end and returns its exit status.
    async fn exit_of(&self, upid: &Value) -> String {
        let upid = utf8_percent_encode(upid.as_str().unwrap(), NON_ALPHANUMERIC).to_string();
        for _ in 0..2000 {
            let status = self.data("GET", &format!("/nodes/pve/tasks/{upid}/status"), &[]).await;
            if let Some(exit) = status["exitstatus"].as_str() {
                return exit.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the task {upid} does not end");
    }

    async fn make_vm(&self, vmid: &str) {
        let form = [
            ("vmid", vmid),
            ("name", "vm"),
            ("memory", "512"),
            ("scsi0", "local-lvm:4"),
            ("boot", "order=scsi0"),
        ];
        let upid = self.data("POST", "/nodes/pve/qemu", &form).await;
        assert_eq!(self.exit_of(&upid).await, "OK");
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || Emulator::builder().data_dir(dir.path()).delays(false);
    let first = builder().start().await.unwrap();
    let api = Api::of(&first);
    api.make_vm("100").await;
    api.data(
        "PUT",
        "/nodes/pve/qemu/100/config",
        &[("description", "kept"), ("tags", "b;a")],
    )
    .await;
    api.data("POST", "/pools", &[("poolid", "p")]).await;
    api.data("PUT", "/pools/p", &[("vms", "100")]).await;
    first.add_file("local", "iso", "a.iso", b"bytes").unwrap();
    let (secret, fingerprint) = (first.token_secret().to_owned(), first.fingerprint().to_owned());
    let digest = api.data("GET", "/nodes/pve/qemu/100/config", &[]).await["digest"].clone();
    let tasks = api.data("GET", "/nodes/pve/tasks", &[]).await;
    first.shutdown().await;

    let second = builder().start().await.unwrap();
    let api = Api::of(&second);
    assert_eq!(
        (second.token_secret(), second.fingerprint()),
        (secret.as_str(), fingerprint.as_str())
    );
    let config = api.data("GET", "/nodes/pve/qemu/100/config", &[]).await;
    assert_eq!(config["description"], "kept");
    assert_eq!(config["tags"], "a;b");
    assert_eq!(config["digest"], digest);
    assert_eq!(second.volids("pve"), ["local:iso/a.iso", "local-lvm:vm-100-disk-0"]);
    assert_eq!(api.data("GET", "/pools/p", &[]).await["members"][0]["vmid"], 100);
    assert_eq!(api.data("GET", "/nodes/pve/tasks", &[]).await, tasks);
}

#[tokio::test]
async fn dropping_it_leaves_nothing() {
    let pve = Emulator::start().await.unwrap();
    let dir = pve.data_dir().to_owned();
    let address = pve.address();
    assert!(dir.exists());
    drop(pve);
    assert!(!dir.exists());
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(address).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still listening");
}

#[tokio::test]
async fn faults_meet_their_calls() {
    let pve = Emulator::builder().delays(false).start().await.unwrap();
    let api = Api::of(&pve);
    pve.fail_next(
        "POST",
        "/nodes/*/qemu",
        FaultAction::Status(596, "Connection timed out".into()),
    );
    pve.fail_next("PUT", "*/config", FaultAction::LoseAnswer);
    pve.fail_next("GET", "/version", FaultAction::Refuse);

    let reply = api.call("POST", "/nodes/pve/qemu", &[("vmid", "100")]).await;
    assert_eq!((reply.status, reply.reason.as_str()), (596, "Connection timed out"));
    assert_eq!(reply.header("connection"), Some("close"), "errors end the connection");
    assert!(pve.vmids().is_empty(), "a fault with a status does nothing");
    api.make_vm("100").await;

    let reply = api.call("PUT", "/nodes/pve/qemu/100/config", &[("name", "done")]).await;
    assert_eq!(reply.status, 0, "the answer is lost");
    assert_eq!(pve.vm_config(100).unwrap()["name"], "done", "but the work is done");

    assert_eq!(api.call("GET", "/version", &[]).await.status, 0);
    assert_eq!(api.call("GET", "/version", &[]).await.status, 200);

    let next = pve.requests().last().unwrap().index + 1;
    let when = FaultMatch::Index(next + 1);
    pve.fault(Fault {
        when,
        action: FaultAction::Status(595, "no route".into()),
        times: 1,
    });
    assert_eq!(api.call("GET", "/version", &[]).await.status, 200);
    assert_eq!(api.call("GET", "/version", &[]).await.status, 595);
    assert_eq!(pve.requests().last().unwrap().status, 595);
}

#[tokio::test]
async fn several_nodes_share_what_is_shared() {
    let storages = vec![
        pve_emulator::StorageSpec::dir("local", "/var/lib/vz"),
        pve_emulator::StorageSpec::dir("nfs", "/mnt/pve/nfs").shared(true),
    ];
    let pve = Emulator::builder()
        .nodes(["one", "two"])
        .storages(storages)
        .start()
        .await
        .unwrap();
    let api = Api::of(&pve);
    let form = [("vmid", "100"), ("scsi0", "nfs:1"), ("scsi1", "local:1")];
    let upid = api.data("POST", "/nodes/two/qemu", &form).await;
    let path = utf8_percent_encode(upid.as_str().unwrap(), NON_ALPHANUMERIC).to_string();
    for _ in 0..500 {
        let status = api.data("GET", &format!("/nodes/two/tasks/{path}/status"), &[]).await;
        if status["status"] == "stopped" {
            assert_eq!(status["exitstatus"], "OK");
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let of = |node: &str| pve.volids(node);
    assert_eq!(of("one"), ["nfs:100/vm-100-disk-0.raw"]);
    assert_eq!(of("two"), ["local:100/vm-100-disk-0.raw", "nfs:100/vm-100-disk-0.raw"]);
    assert_eq!(api.call("GET", "/nodes/one/qemu/100/config", &[]).await.status, 500);
    let resources = api.data("GET", "/cluster/resources", &[("type", "vm")]).await;
    assert_eq!(resources[0]["node"], "two");
}

/// Method, path, hostile parameter, other parameters.
type Target = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// Calls that take parameters, with the place for a hostile value and values that make the rest valid.
const TARGETS: [Target; 22] = [
    ("POST", "/nodes/pve/qemu", "name", &[("vmid", "500")]),
    ("POST", "/nodes/pve/qemu", "scsi0", &[("vmid", "500")]),
    ("POST", "/nodes/pve/qemu", "net0", &[("vmid", "500")]),
    ("POST", "/nodes/pve/qemu", "memory", &[("vmid", "500")]),
    ("POST", "/nodes/pve/qemu", "boot", &[("vmid", "500")]),
    ("POST", "/nodes/pve/qemu", "vmid", &[]),
    ("PUT", "/nodes/pve/qemu/100/config", "description", &[]),
    ("PUT", "/nodes/pve/qemu/100/config", "ide2", &[]),
    ("PUT", "/nodes/pve/qemu/100/config", "delete", &[]),
    ("PUT", "/nodes/pve/qemu/100/config", "sshkeys", &[]),
    ("PUT", "/nodes/pve/qemu/100/config", "ipconfig0", &[]),
    ("PUT", "/nodes/pve/qemu/100/resize", "size", &[("disk", "scsi0")]),
    ("POST", "/nodes/pve/qemu/100/clone", "newid", &[]),
    ("POST", "/nodes/pve/qemu/100/snapshot", "snapname", &[]),
    ("PUT", "/nodes/pve/qemu/100/sendkey", "key", &[]),
    ("POST", "/nodes/pve/qemu/100/agent/exec", "command", &[]),
    ("GET", "/nodes/pve/storage/local/content", "content", &[]),
    ("GET", "/nodes/pve/tasks", "limit", &[]),
    (
        "POST",
        "/nodes/pve/storage/local/content",
        "filename",
        &[("vmid", "100"), ("size", "1M")],
    ),
    (
        "POST",
        "/nodes/pve/storage/local/content",
        "size",
        &[("vmid", "100"), ("filename", "vm-100-x.raw")],
    ),
    ("GET", "/access/permissions", "path", &[]),
    ("POST", "/access/ticket", "username", &[("password", "x")]),
];

/// Values that parsers stumble over.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("../../../etc/passwd".to_owned()),
        Just("local:iso/../../x.iso".to_owned()),
        Just("local:100/../../../x.raw".to_owned()),
        Just("local:999999999999999999999999999".to_owned()),
        Just("local:1e999".to_owned()),
        Just("local:0.0000000001".to_owned()),
        Just("=,=,==,".to_owned()),
        Just("a=b=c,d".to_owned()),
        Just("\r\n\r\nHTTP/1.1 200 OK".to_owned()),
        Just("\0".to_owned()),
        Just("99999999999999999999999".to_owned()),
        Just("+18446744073709551615T".to_owned()),
        Just("ip=1.2.3.4/99999999999,gw=::1".to_owned()),
        Just("order=;;;".to_owned()),
        Just("x".repeat(100_000)),
        Just("ä".repeat(5000)),
        ".{0,60}",
        "[a-z0-9:=,;/._-]{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, the server answers in HTTP, stays up, and writes nothing outside its directory.
    #[test]
    fn hostile_values_are_answered(values in proptest::collection::vec(hostile(), TARGETS.len()), path in ".{0,80}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let parent = tempfile::tempdir().unwrap();
            let data = parent.path().join("data");
            let pve = Emulator::builder().data_dir(&data).delays(false).start().await.unwrap();
            let api = Api::of(&pve);
            api.make_vm("100").await;
            for ((method, target, key, rest), value) in TARGETS.iter().zip(&values) {
                let mut form = rest.to_vec();
                form.push((key, value));
                let reply = api.call(method, target, &form).await;
                // A request that is far too long ends its connection without an answer (FACTS 18).
                let line = if *method == "GET" { utf8_percent_encode(value, NON_ALPHANUMERIC).to_string().len() } else { 0 };
                let answered = if line > 65_000 { reply.status == 0 } else { (200..600).contains(&reply.status) };
                let start: String = value.chars().take(80).collect();
                assert!(answered, "{method} {target} {key}={start:?} ({} bytes): {}", value.len(), reply.status);
            }
            let odd = utf8_percent_encode(&path, NON_ALPHANUMERIC).to_string();
            let reply = api.call("DELETE", &format!("/nodes/pve/storage/local/content/{odd}"), &[]).await;
            assert!((200..600).contains(&reply.status), "{path:?}");
            assert_eq!(api.call("GET", "/version", &[]).await.status, 200, "it still serves");
            let left: Vec<_> = std::fs::read_dir(parent.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, ["data"]);
            for task in api.data("GET", "/nodes/pve/tasks", &[("limit", "1000")]).await.as_array().unwrap() {
                assert_ne!(task["status"], "unexpected status", "a task panicked: {task}");
            }
            pve.shutdown().await;
        });
    }
}

#[tokio::test]
async fn broken_requests_get_an_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let pve = Emulator::start().await.unwrap();
    // Plain HTTP is sent to HTTPS.
    let mut plain = tokio::net::TcpStream::connect(pve.address()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
    // Garbage instead of a handshake ends the connection.
    let mut garbage = tokio::net::TcpStream::connect(pve.address()).await.unwrap();
    garbage.write_all(&[22, 3, 1, 255, 255, 0, 0, 0]).await.unwrap();
    garbage.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = garbage.read_to_end(&mut rest).await;
    let api = Api::of(&pve);
    let mut headers = api.headers.clone();
    headers.push(("Content-Type".into(), "multipart/form-data; boundary=B".into()));
    // An upload that ends in the middle of the file leaves nothing behind.
    let half = b"--B\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\niso\r\n--B\r\nContent-Disposition: form-data; \
                 name=\"filename\"; filename=\"a.iso\"\r\n\r\nhalf of it";
    let target = "/api2/json/nodes/pve/storage/local/upload";
    let reply = api.client.send("POST", target, &headers, Some(half)).await.unwrap();
    assert_eq!(reply.status, 0);
    assert!(pve.volids("pve").is_empty());
    assert_eq!(std::fs::read_dir(pve.data_dir().join("tmp")).unwrap().count(), 0);
    assert_eq!(api.call("GET", "/version", &[]).await.status, 200);
}
