//! The emulator as a product: restarts, nodes, faults, compression, the status page.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop anywhere")]

#[path = "../support/client.rs"]
mod client;
mod faults;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Client, Reply};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pve_emulator::{Emulator, EmulatorBuilder, Error, Fault, FaultAction, FaultMatch, FaultPlan, Gate, TaskFault};
use serde_json::Value;

/// Longer than any machine takes, shorter than anyone waits.
const PATIENCE: Duration = Duration::from_secs(60);

fn builder() -> EmulatorBuilder {
    Emulator::builder().delays(false)
}

/// Calls as root's token at one node's listener.
struct Api {
    client: Client,
    token: (String, String),
}

impl Api {
    fn of(pve: &Emulator) -> Self {
        Self::at(pve, pve.address())
    }

    fn at(pve: &Emulator, address: SocketAddr) -> Self {
        let token = format!("PVEAPIToken={}={}", pve.token_id(), pve.token_secret());
        Self {
            client: Client::new(address, pve.ca_pem()).unwrap(),
            token: ("Authorization".into(), token),
        }
    }

    async fn call(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Reply {
        let encode = |t: &str| utf8_percent_encode(t, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> = form
            .iter()
            .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
            .collect();
        let mut headers = vec![self.token.clone()];
        let target = format!("/api2/json{path}");
        let body = pairs.join("&");
        if matches!(method, "POST" | "PUT") {
            headers.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
            return self
                .client
                .send(method, &target, &headers, Some(body.as_bytes()))
                .await
                .unwrap();
        }
        self.client.send(method, &target, &headers, None).await.unwrap()
    }

    async fn data(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Value {
        let reply = self.call(method, path, form).await;
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.reason);
        serde_json::from_slice::<Value>(&reply.body).unwrap()["data"].clone()
    }

    /// Waits for a task's end; its exit status and its log.
    async fn end_of(&self, upid: &Value) -> (String, Vec<String>) {
        let upid = upid.as_str().unwrap();
        let node = upid.split(':').nth(1).unwrap();
        let base = format!("/nodes/{node}/tasks/{}", utf8_percent_encode(upid, NON_ALPHANUMERIC));
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let status = self.data("GET", &format!("{base}/status"), &[]).await;
            if let Some(exit) = status["exitstatus"].as_str() {
                let log = self.data("GET", &format!("{base}/log"), &[]).await;
                let lines = log
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|l| l["t"].as_str().unwrap().to_owned());
                return (exit.to_owned(), lines.collect());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the task {upid} does not end");
    }

    async fn make_vm(&self, node: &str, vmid: &str) -> (String, Vec<String>) {
        let form = [("vmid", vmid), ("name", "vm"), ("scsi0", "local-lvm:4")];
        let upid = self.data("POST", &format!("/nodes/{node}/qemu"), &form).await;
        self.end_of(&upid).await
    }

    async fn page(&self, path: &str) -> (Reply, String) {
        let reply = self.client.send("GET", path, &[], None).await.unwrap();
        let text = String::from_utf8(reply.body.clone()).unwrap();
        (reply, text)
    }
}

#[tokio::test]
async fn one_directory_has_one_emulator() {
    let dir = tempfile::tempdir().unwrap();
    let first = builder().data_dir(dir.path()).start().await.unwrap();
    let error = builder().data_dir(dir.path()).start().await.unwrap_err();
    assert!(
        matches!(&error, Error::InUse { pid, .. } if *pid == std::process::id().to_string()),
        "{error:?}"
    );
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    first.shutdown().await;
    builder().data_dir(dir.path()).start().await.unwrap();
}

#[tokio::test]
async fn what_a_kill_leaves_is_put_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let first = builder().data_dir(dir.path()).start().await.unwrap();
    let api = Api::of(&first);
    assert_eq!(api.make_vm("pve", "100").await.0, "OK");
    first.add_file("local", "iso", "a.iso", b"four").unwrap();
    first.fault(Fault {
        when: FaultMatch::Task {
            kind: "qmcreate".into(),
            id: "*".into(),
        },
        action: FaultAction::Task(TaskFault::Hangs),
        times: 1,
    });
    let form = [("vmid", "101"), ("scsi0", "local-lvm:4")];
    let hanging = api.data("POST", "/nodes/pve/qemu", &form).await;
    first.shutdown().await;

    // As a kill leaves it: files being written, an upload on its way, an ISO that is there and not listed, a listed disk
    // whose file is gone, a task's line cut short.
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(at("tmp")).unwrap();
    let leftovers = [
        ".tmpAb12Cd",
        "nodes/pve/qemu-server/.tmpAb12Cd",
        "storage/pve/local/.tmpAb12Cd",
        "storage/pve/local-lvm/images/.tmpAb12Cd",
        "tmp/pveupload-00",
    ];
    for leftover in leftovers {
        std::fs::write(at(leftover), "half").unwrap();
    }
    std::fs::write(at("storage/pve/local/template/iso/b.iso"), "seven77").unwrap();
    std::fs::write(at("storage/pve/local/template/iso/a.iso"), "grown").unwrap();
    std::fs::remove_file(at("storage/pve/local-lvm/images/vm-100-disk-0")).unwrap();
    let tasks = std::fs::read_to_string(at("tasks.jsonl")).unwrap();
    std::fs::write(at("tasks.jsonl"), format!("{tasks}{{\"upid\":{{\"no")).unwrap();

    let second = builder().data_dir(dir.path()).start().await.unwrap();
    let api = Api::of(&second);
    for leftover in leftovers {
        assert!(!at(leftover).exists(), "{leftover}");
    }
    assert_eq!(second.volids("pve"), ["local:iso/a.iso", "local:iso/b.iso"]);
    let content = api.data("GET", "/nodes/pve/storage/local/content", &[]).await;
    assert_eq!((&content[0]["size"], &content[1]["size"]), (&5.into(), &7.into()));
    // The worker is gone and the VM keeps its lock, as on a real node.
    assert_eq!(
        api.end_of(&hanging).await,
        ("unexpected status".into(), vec!["no content".into()])
    );
    let config = api.data("GET", "/nodes/pve/qemu/101/config", &[]).await;
    assert_eq!(config["lock"], "create");
    let delete = api.data("DELETE", "/nodes/pve/qemu/101", &[]).await;
    assert_eq!(api.end_of(&delete).await.0, "VM is locked (create)");
    // New tasks have UPIDs of their own, and the archive goes on.
    assert_eq!(api.make_vm("pve", "102").await.0, "OK");
    drop(second);
    let third = builder().data_dir(dir.path()).start().await.unwrap();
    let api = Api::of(&third);
    let tasks = api.data("GET", "/nodes/pve/tasks", &[]).await;
    assert_eq!(tasks.as_array().unwrap().len(), 4, "{tasks}");
}

#[tokio::test]
async fn a_corrupt_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nodes/pve/qemu-server/100.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{").unwrap();
    let error = builder().data_dir(dir.path()).start().await.unwrap_err();
    assert!(error.to_string().contains("100.json"), "{error}");
}

#[tokio::test]
async fn every_node_answers_for_every_node() {
    let pve = builder().nodes(["a", "b", "c"]).start().await.unwrap();
    let addresses: Vec<SocketAddr> = pve.nodes().map(|n| n.address()).collect();
    assert_eq!(addresses.len(), 3);
    assert!(addresses[0] != addresses[1] && addresses[1] != addresses[2]);
    assert_eq!(pve.volids("a"), Vec::<String>::new());
    for (address, local) in addresses.iter().zip(["a", "b", "c"]) {
        let api = Api::at(&pve, *address);
        let status = api.data("GET", "/cluster/status", &[]).await;
        let is_local: Vec<_> = status.as_array().unwrap().iter().filter(|e| e["local"] == 1).collect();
        assert_eq!((is_local.len(), &is_local[0]["name"]), (1, &local.into()));
        assert!(api.data("GET", "/nodes/b/status", &[]).await["uptime"].is_number());
        let reply = api.call("GET", "/nodes/d/status", &[]).await;
        assert_eq!(reply.status, 500);
        assert!(
            reply.reason.starts_with("hostname lookup 'd' failed"),
            "{}",
            reply.reason
        );
    }
    let storages = Api::of(&pve).data("GET", "/nodes/c/storage", &[]).await;
    assert!(
        storages
            .as_array()
            .unwrap()
            .iter()
            .any(|s| s["storage"] == "shared" && s["shared"] == 1)
    );
    for (nodes, part) in [
        (vec!["a", "a"], "twice"),
        (vec!["-x"], "letters"),
        (vec![], "1 to 32"),
        (vec!["shared"], "keeps"),
    ] {
        let error = builder().nodes(nodes).start().await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_node_without_power_is_away_with_all_it_had() {
    let pve = builder().nodes(["a", "b", "c"]).start().await.unwrap();
    let (a, b) = (Api::of(&pve), pve.node("b").unwrap());
    assert_eq!(a.make_vm("b", "100").await.0, "OK");
    let start = a.data("POST", "/nodes/b/qemu/100/status/start", &[]).await;
    assert_eq!(a.end_of(&start).await.0, "OK");
    pve.fail_next("POST", "/nodes/b/qemu", FaultAction::Task(TaskFault::Hangs));
    let hanging = a.data("POST", "/nodes/b/qemu", &[("vmid", "101")]).await;

    b.offline().await;
    assert!(!b.is_online());
    let reply = a.call("GET", "/nodes/b/qemu/100/status/current", &[]).await;
    assert_eq!(
        (reply.status, reply.reason.as_str(), reply.body.len()),
        (595, "No route to host", 0)
    );
    let began = Instant::now();
    while tokio::net::TcpStream::connect(b.address()).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "its listener still answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let resources = a.data("GET", "/cluster/resources", &[]).await;
    let status = |id: &str| {
        let found = resources.as_array().unwrap().iter().find(|r| r["id"] == id);
        found.unwrap_or_else(|| panic!("{id} is missing"))["status"].clone()
    };
    for (id, expected) in [
        ("node/a", "online"),
        ("node/b", "offline"),
        ("qemu/100", "unknown"),
        ("storage/b/local", "unknown"),
        ("storage/b/shared", "unknown"),
        ("storage/a/local", "available"),
    ] {
        assert_eq!(status(id), expected, "{id}");
    }
    let nodes = a.data("GET", "/nodes", &[]).await;
    assert_eq!((&nodes[1]["status"], nodes[1].get("maxmem")), (&"offline".into(), None));
    let cluster = a.data("GET", "/cluster/status", &[]).await;
    assert_eq!((&cluster[0]["quorate"], &cluster[2]["online"]), (&1.into(), &0.into()));
    assert_eq!(a.make_vm("a", "200").await.0, "OK", "two of three are a quorum");

    // Without a quorum everything can be read and nothing changed.
    pve.node("c").unwrap().offline().await;
    let reply = a.call("POST", "/nodes/a/qemu", &[("vmid", "201")]).await;
    assert_eq!(
        (reply.status, reply.reason.as_str()),
        (500, "cluster not ready - no quorum?")
    );
    assert_eq!(a.data("GET", "/cluster/status", &[]).await[0]["quorate"], 0);

    pve.node("c").unwrap().online();
    b.online();
    let at_b = Api::at(&pve, b.address());
    let began = Instant::now();
    while tokio::net::TcpStream::connect(b.address()).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "it does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = at_b.data("GET", "/nodes/b/qemu/100/status/current", &[]).await;
    assert_eq!(status["status"], "stopped", "its guests lost their power too");
    assert_eq!(at_b.end_of(&hanging).await.0, "unexpected status");
}

#[tokio::test]
async fn a_slow_node_is_slow_from_everywhere() {
    let pve = builder().nodes(["a", "b"]).start().await.unwrap();
    let api = Api::of(&pve);
    let by = Duration::from_millis(400);
    pve.node("b").unwrap().slow(by);
    let began = Instant::now();
    api.data("GET", "/nodes/b/status", &[]).await;
    assert!(began.elapsed() >= by);
    let began = Instant::now();
    Api::at(&pve, pve.node("b").unwrap().address())
        .data("GET", "/version", &[])
        .await;
    assert!(began.elapsed() >= by);
    pve.node("b").unwrap().slow(Duration::ZERO);
    pve.node("a").unwrap().slow(Duration::from_secs(3600));
    Api::at(&pve, pve.node("b").unwrap().address())
        .data("GET", "/nodes/b/status", &[])
        .await;
}

#[tokio::test]
async fn a_plan_brings_nodes_into_its_state() {
    let plan = |text: &str| FaultPlan::parse(text).unwrap();
    let offline = plan("[[node]]\nname = \"b\"\noffline = true\n");
    let pve = builder().nodes(["a", "b", "c"]).faults(offline).start().await.unwrap();
    assert!(!pve.node("b").unwrap().is_online());
    let then = "[[fault]]\ncall = \"GET /version\"\nthen = { node-offline = \"c\" }\n";
    pve.apply_faults(plan(then)).await.unwrap();
    assert!(pve.node("b").unwrap().is_online());
    Api::of(&pve).data("GET", "/version", &[]).await;
    assert!(!pve.node("c").unwrap().is_online());
    let unknown = plan("[[node]]\nname = \"d\"\noffline = true\n");
    let error = pve.apply_faults(unknown).await.unwrap_err();
    assert!(error.to_string().contains("a, b, c"), "{error}");
    assert!(!pve.node("c").unwrap().is_online(), "a wrong plan changes nothing");
}

#[tokio::test]
async fn large_answers_are_compressed_when_asked() {
    use std::io::Read as _;
    let pve = builder().start().await.unwrap();
    let api = Api::of(&pve);
    let plain = api.call("GET", "/nodes/pve/capabilities/qemu/cpu", &[]).await;
    assert_eq!(plain.header("content-encoding"), None);
    let target = "/api2/json/nodes/pve/capabilities/qemu/cpu";
    for asked in ["gzip", "deflate"] {
        let headers = [api.token.clone(), ("Accept-Encoding".to_owned(), asked.to_owned())];
        let reply = api.client.send("GET", target, &headers, None).await.unwrap();
        assert_eq!(reply.header("content-encoding"), Some(asked));
        assert_eq!(
            reply.header("content-length"),
            Some(reply.body.len().to_string().as_str())
        );
        let mut text = Vec::new();
        if asked == "gzip" {
            flate2::read::GzDecoder::new(&reply.body[..])
                .read_to_end(&mut text)
                .unwrap();
        } else {
            flate2::read::ZlibDecoder::new(&reply.body[..])
                .read_to_end(&mut text)
                .unwrap();
        }
        assert_eq!(text, plain.body);
        let small = api
            .client
            .send("GET", "/api2/json/version", &headers, None)
            .await
            .unwrap();
        assert_eq!(small.header("content-encoding"), None, "a small body is sent as it is");
    }
}

#[tokio::test]
async fn the_status_page_shows_what_is_no_secret() {
    let pve = builder().nodes(["a", "b", "c"]).start().await.unwrap();
    let api = Api::of(&pve);
    let (reply, text) = api.page("/").await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(text.contains("There are none yet."), "{text}");
    pve.add_installer_iso("local", "AlmaLinux-9.3-x86_64-minimal.iso")
        .unwrap();
    let form = [
        ("vmid", "100"),
        ("name", "web"),
        ("memory", "2048"),
        ("cpu", "x86-64-v2-AES"),
        ("scsi0", "local-lvm:8"),
        ("ide2", "local:iso/AlmaLinux-9.3-x86_64-minimal.iso,media=cdrom"),
        ("cipassword", "hidden-password"),
        ("description", "<b>secret note</b>"),
    ];
    let upid = api.data("POST", "/nodes/a/qemu", &form).await;
    assert_eq!(api.end_of(&upid).await.0, "OK");
    let upid = api.data("POST", "/nodes/a/qemu/100/status/start", &[]).await;
    assert_eq!(api.end_of(&upid).await.0, "OK");
    assert_eq!(api.make_vm("b", "101").await.0, "OK");
    pve.node("b").unwrap().offline().await;
    pve.node("c").unwrap().slow(Duration::from_millis(1500));
    let (_, text) = api.page("/").await;
    for part in [
        "<h2>Nodes</h2>",
        "<tr><td>a<td><span class=\"badge good\">online</span>",
        "<tr><td>b<td><span class=\"badge bad\">offline</span>",
        "slow by 1.5s",
        "<a href=\"/guest/100\">100</a><td>web<td>a<td><span class=\"badge good\">running</span>",
        "<td>vm<td>b<td><span class=\"badge bad\">unknown</span>",
        "<td>qmstart 100<td>root@pam!emulator<td><span class=\"badge good\">OK</span>",
        "<meta http-equiv=\"refresh\"",
        "Console of <a href=\"/guest/100\">100</a>",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (_, guest) = api.page("/guest/100").await;
    assert!(guest.contains("<h1>100 web</h1>") && guest.contains("<pre>"), "{guest}");
    for page in [&text, &guest] {
        for secret in [pve.token_secret(), "hidden-password", "secret note", "<script"] {
            assert!(!page.contains(secret), "{secret} is in {page}");
        }
    }
    let (_, stopped) = api.page("/guest/101").await;
    assert!(stopped.contains("It does not run"), "{stopped}");
    assert_eq!(api.page("/guest/999").await.0.status, 404);
    assert!(
        pve.requests().iter().all(|r| r.path != "/"),
        "looking at the page is no call"
    );
    assert_ne!(api.page("/guest/../etc").await.0.status, 200);
    let off = pve.node("a").unwrap();
    pve.node("c").unwrap().offline().await;
    assert!(off.is_online());
    let (_, text) = api.page("/").await;
    assert!(text.contains("No quorum"), "{text}");
}
