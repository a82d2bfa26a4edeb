//! The built command, killed again and again while it is written to: what it acknowledged is there at the next start, and
//! nothing is half-written.
#![expect(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{k3simage, run, until};
use proxmox_client::{Auth, Client, Method, Tls};
use serde_json::Value;

/// How often it is killed.
const KILLS: u32 = 10;

/// What the load has been told, and what it has at least tried.
#[derive(Clone, Default)]
struct Told {
    /// With the tasks that make them.
    vms: BTreeMap<u64, String>,
    /// VMs whose deletion has been asked for.
    doomed: BTreeSet<u64>,
    tokens: BTreeSet<String>,
    doomed_tokens: BTreeSet<String>,
    upids: Vec<String>,
    /// The last description that was acknowledged, and the last that was sent.
    description: (u64, u64),
    isos: BTreeSet<String>,
}

type Shared = Arc<Mutex<Told>>;

struct Running {
    child: std::process::Child,
    client: Client,
    // Keeps the pipe open: the command must not end for want of a reader.
    _lines: std::io::BufReader<std::process::ChildStdout>,
}

fn start(data: &Path) -> Running {
    let told = std::cell::RefCell::new(Value::Null);
    let data = data.to_str().unwrap();
    let args = [
        "emulator",
        "--listen",
        "127.0.0.1:0",
        "--data",
        data,
        "--time-scale",
        "0",
        "--json",
    ];
    let (child, lines) = until(&mut k3simage(&args), |object| {
        told.replace(object.clone());
        object["event"] == "emulator_started"
    });
    let told = told.into_inner();
    let text = |key: &str| told[key].as_str().unwrap().to_owned();
    let client = Client::builder(text("url"))
        .auth(Auth::token(text("token_id"), text("token_secret")))
        .tls(Tls::Pinned(text("fingerprint").parse().unwrap()))
        .build()
        .unwrap();
    Running {
        child,
        client,
        _lines: lines,
    }
}

async fn call(client: &Client, method: Method, path: &str, form: &[(&str, &str)]) -> Option<Value> {
    let form: Vec<(&str, String)> = form.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    // Refused, for a lock most likely, or killed: either way nothing was acknowledged.
    client.request(method, path, &form).await.ok()
}

async fn get(client: &Client, path: &str) -> Value {
    let answer = client.request(Method::GET, path, &[]).await;
    answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

fn note(told: &Shared, upid: Option<Value>, then: impl FnOnce(&mut Told)) {
    if let Some(upid) = upid {
        let mut told = told.lock().unwrap();
        told.upids.extend(upid.as_str().map(str::to_owned));
        then(&mut told);
    }
}

fn made(told: &Shared, vmid: u64, upid: Option<Value>) {
    if let Some(text) = upid.as_ref().and_then(Value::as_str).map(str::to_owned) {
        note(told, upid, |t| {
            t.vms.insert(vmid, text);
        });
    }
}

async fn status_of(client: &Client, upid: &str) -> Value {
    let path = upid.replace(':', "%3A").replace('!', "%21").replace('@', "%40");
    get(client, &format!("/nodes/pve/tasks/{path}/status")).await
}

/// Creates, clones and deletes VMs.
async fn machines(client: Client, told: Shared, first: u64) {
    for vmid in first.. {
        let id = vmid.to_string();
        let form = [
            ("vmid", id.as_str()),
            ("scsi0", "local-lvm:1"),
            ("scsi1", "local:1"),
            ("name", "vm"),
        ];
        let upid = call(&client, Method::POST, "/nodes/pve/qemu", &form).await;
        if upid.is_none() {
            return;
        }
        made(&told, vmid, upid);
        match vmid % 3 {
            0 => {
                told.lock().unwrap().doomed.insert(vmid);
                let upid = call(&client, Method::DELETE, &format!("/nodes/pve/qemu/{vmid}"), &[]).await;
                note(&told, upid, |_| {});
            }
            1 => {
                let newid = (vmid + 100_000).to_string();
                let upid = call(&client, Method::POST, "/nodes/pve/qemu/900/clone", &[("newid", &newid)]).await;
                made(&told, vmid + 100_000, upid);
            }
            _ => {
                let upid = call(&client, Method::POST, &format!("/nodes/pve/qemu/{vmid}/template"), &[]).await;
                note(&told, upid, |_| {});
            }
        }
    }
}

/// Changes one VM's description all the time.
async fn descriptions(client: Client, told: Shared) {
    loop {
        let next = {
            let mut told = told.lock().unwrap();
            told.description.1 += 1;
            told.description.1
        };
        let form = [("description", next.to_string())];
        if client
            .request(Method::PUT, "/nodes/pve/qemu/900/config", &form)
            .await
            .is_err()
        {
            return;
        }
        told.lock().unwrap().description.0 = next;
    }
}

/// Uploads ISOs of many sizes, some of them again and again under one name.
async fn uploads(client: Client, told: Shared, round: u32) {
    let storage = client.node(&"pve".parse().unwrap()).storage(&"local".parse().unwrap());
    for index in 0_usize.. {
        let name = if index % 2 == 0 {
            "same.iso".to_owned()
        } else {
            format!("r{round}-{index}.iso")
        };
        let bytes = vec![7; 100_000 + index * 4_321];
        let upload = proxmox_client::Upload::iso_bytes(&name, bytes).unwrap();
        let Ok(upid) = storage.upload(&upload).await else {
            return;
        };
        let wait = proxmox_client::Wait::at_most(Duration::from_secs(60));
        let done = client.wait_task(&upid, wait).await;
        note(&told, Some(Value::from(upid.to_string())), |t| {
            if done.is_ok() {
                t.isos.insert(name);
            }
        });
    }
}

async fn tokens(client: Client, told: Shared, round: u32) {
    for index in 0.. {
        let name = format!("t{round}x{index}");
        let path = format!("/access/users/root@pam/token/{name}");
        if call(&client, Method::POST, &path, &[]).await.is_none() {
            return;
        }
        told.lock().unwrap().tokens.insert(name.clone());
        if index % 4 == 0 {
            told.lock().unwrap().doomed_tokens.insert(name);
            call(&client, Method::DELETE, &path, &[]).await;
        }
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Every volume has its file with the listed size, and every file its volume.
async fn check_storage(client: &Client, data: &Path, storage: &str) {
    let dir = data.join("storage/pve").join(storage);
    let listed = get(client, &format!("/nodes/pve/storage/{storage}/content")).await;
    let mut expected = BTreeMap::new();
    for volume in listed.as_array().unwrap() {
        let name = volume["volid"].as_str().unwrap().split_once(':').unwrap().1;
        // A linked clone's volid has its base in front.
        let own = if storage == "local" {
            let parts: Vec<&str> = name.split('/').collect();
            parts[parts.len() - 2..].join("/")
        } else {
            name.to_owned()
        };
        let file = match own.strip_prefix("iso/") {
            Some(iso) => dir.join("template/iso").join(iso),
            None => dir.join("images").join(&own),
        };
        expected.insert(file, volume.clone());
    }
    let found: BTreeSet<PathBuf> = files_below(&dir)
        .into_iter()
        .filter(|f| f.file_name().is_some_and(|n| n != "volumes.json"))
        .collect();
    let listed: BTreeSet<PathBuf> = expected.keys().cloned().collect();
    assert_eq!(found, listed, "files and volumes of {storage}");
    for (file, volume) in expected {
        if volume["content"] == "iso" {
            assert_eq!(volume["size"], std::fs::metadata(&file).unwrap().len(), "{volume}");
        } else {
            assert_eq!(volume["size"], 1_u64 << 30, "{volume}");
        }
    }
}

async fn check(client: &Client, data: &Path, told: &Told) {
    for file in files_below(data) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            !name.starts_with(".tmp") && !name.starts_with("pveupload-"),
            "left: {}",
            file.display()
        );
        if file.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
    for line in std::fs::read_to_string(data.join("tasks.jsonl")).unwrap().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    check_storage(client, data, "local").await;
    check_storage(client, data, "local-lvm").await;
    let resources = get(client, "/cluster/resources").await;
    let vms: BTreeSet<u64> = resources
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|r| r["vmid"].as_u64())
        .collect();
    for (vmid, upid) in told.vms.iter().filter(|(vmid, _)| !told.doomed.contains(vmid)) {
        if !vms.contains(vmid) {
            // A task that failed for a reason of its own, such as a lock, has taken its VM away and says so.
            let exit = status_of(client, upid).await["exitstatus"].clone();
            assert!(
                exit != "OK" && exit != "unexpected status",
                "VM {vmid} was acknowledged and is lost: {exit}"
            );
            continue;
        }
        let config = get(client, &format!("/nodes/pve/qemu/{vmid}/config")).await;
        let whole = config.get("scsi0").is_some();
        let unfinished = config["lock"] == "create" || config["lock"] == "clone";
        assert!(
            whole != unfinished,
            "VM {vmid} is neither whole nor marked as unfinished: {config}"
        );
    }
    let description = get(client, "/nodes/pve/qemu/900/config").await["description"].clone();
    let written: u64 = description.as_str().map_or(0, |d| d.trim().parse().unwrap());
    let (acknowledged, sent) = told.description;
    assert!(
        (acknowledged..=sent).contains(&written),
        "{acknowledged} <= {written} <= {sent}"
    );
    let listed = get(client, "/access/users/root@pam/token").await;
    let listed: BTreeSet<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["tokenid"].as_str().unwrap().to_owned())
        .collect();
    for token in told.tokens.difference(&told.doomed_tokens) {
        assert!(listed.contains(token), "token {token} was acknowledged and is lost");
    }
    for iso in &told.isos {
        assert!(
            data.join("storage/pve/local/template/iso").join(iso).exists(),
            "{iso} is lost"
        );
    }
    for upid in &told.upids {
        let status = status_of(client, upid).await;
        assert_eq!(status["status"], "stopped", "{upid}");
        assert!(status["exitstatus"].is_string(), "{status}");
    }
}

#[test]
fn killed_while_it_writes_it_starts_again_with_everything_whole() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("pve");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let told = Shared::default();
    {
        let mut running = start(&data);
        runtime.block_on(async {
            let form = [("vmid", "900"), ("scsi0", "local-lvm:1"), ("scsi1", "local:1")];
            let upid = call(&running.client, Method::POST, "/nodes/pve/qemu", &form)
                .await
                .unwrap();
            let wait = proxmox_client::Wait::at_most(Duration::from_secs(60));
            let upid = upid.as_str().unwrap().parse().unwrap();
            assert!(matches!(
                running.client.wait_task(&upid, wait).await.unwrap(),
                proxmox_client::TaskOutcome::Ok
            ));
        });
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }
    for round in 0..KILLS {
        let mut running = start(&data);
        let client = running.client.clone();
        runtime.block_on(async {
            let so_far = told.lock().unwrap().clone();
            check(&client, &data, &so_far).await;
            let first = 1_000 + u64::from(round) * 5_000;
            let load = [
                tokio::spawn(machines(client.clone(), Arc::clone(&told), first)),
                tokio::spawn(machines(client.clone(), Arc::clone(&told), first + 2_500)),
                tokio::spawn(descriptions(client.clone(), Arc::clone(&told))),
                tokio::spawn(uploads(client.clone(), Arc::clone(&told), round)),
                tokio::spawn(tokens(client.clone(), Arc::clone(&told), round)),
            ];
            // Not a wait for something: each round is killed at another point of the load.
            tokio::time::sleep(Duration::from_millis(150 + u64::from(round) * 83)).await;
            running.child.kill().unwrap();
            running.child.wait().unwrap();
            for part in load {
                part.abort();
                let _ = part.await;
            }
        });
    }
    let mut running = start(&data);
    runtime.block_on(async {
        let told = told.lock().unwrap().clone();
        check(&running.client, &data, &told).await;
        assert!(
            told.vms.len() > KILLS as usize,
            "the load was none: {} VMs",
            told.vms.len()
        );
        assert!(!told.tokens.is_empty() && told.description.0 > 0, "the load was none");
    });
    // A second one on the same directory is refused, by name and number.
    let pid = running.child.id().to_string();
    let args = ["emulator", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    run(&args).expect(2, &["is in use by process", &pid, data.to_str().unwrap()]);
    common::signal(&running.child, "TERM");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}
