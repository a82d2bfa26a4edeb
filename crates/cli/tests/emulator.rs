//! `emulator`: says how to reach it, serves, keeps its data, ends by a signal.
#![expect(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::io::Read as _;
use std::process::Stdio;

use common::{Ended, Folder, IMAGE, k3simage, run, signal, until};
use proxmox_client::{Auth, Client, Tls};
use serde_json::Value;

fn start(args: &[&str]) -> (std::process::Child, Value) {
    let mut all = vec!["emulator", "--listen", "127.0.0.1:0", "--json", "--time-scale", "0"];
    all.extend(args);
    let told = std::cell::RefCell::new(Value::Null);
    let (child, _) = until(&mut k3simage(&all), |object| {
        told.replace(object.clone());
        object["event"] == "emulator_started"
    });
    (child, told.into_inner())
}

fn text<'a>(told: &'a Value, key: &str) -> &'a str {
    told[key].as_str().unwrap()
}

#[test]
fn it_serves_until_a_signal_and_keeps_its_data() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("pve");
    let mut secrets = Vec::new();
    for (name, code) in [("INT", 0), ("TERM", 0)] {
        let (mut child, told) = start(&["--data", data.to_str().unwrap(), "--pve-version", "9.1.2"]);
        let pve = Client::builder(text(&told, "url"))
            .auth(Auth::token(
                text(&told, "token_id"),
                text(&told, "token_secret").to_owned(),
            ))
            .tls(Tls::Pinned(text(&told, "fingerprint").parse().unwrap()))
            .build()
            .unwrap();
        let version = tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(async { pve.version().await.unwrap().version.clone() });
        assert_eq!(version, "9.1.2");
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        secrets.push((told["token_secret"].clone(), told["fingerprint"].clone()));
    }
    assert_eq!(secrets[0], secrets[1], "who connected before connects again");
}

#[test]
fn a_build_runs_on_it_by_the_variables_that_it_prints() {
    let temp = tempfile::tempdir().unwrap();
    let isos = temp.path().join("isos");
    let folder = Folder::new();
    let (mut child, told) = start(&["--data", isos.to_str().unwrap()]);
    let mut build = k3simage(&["build", folder.path(), "-q"]);
    for (name, value) in told["variables"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        // The folder's own file stands above the environment, as in Packer.
        if name == "proxmox_token" {
            build.env("PKR_VAR_proxmox_token", value);
        } else {
            build.args(["-var", &format!("{name}={value}")]);
        }
    }
    Ended::of(&build.output().unwrap()).expect(0, &[IMAGE]);
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn people_are_told_url_fingerprint_and_token() {
    let mut child = k3simage(&["emulator", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut told = String::new();
    let mut part = [0; 4096];
    while !told.contains("Ctrl-C ends it.") {
        let read = out.read(&mut part).unwrap();
        assert_ne!(read, 0, "ended: {told}");
        told.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    for part in [
        "https://127.0.0.1:",
        "fingerprint",
        "root@pam!",
        "PKR_VAR_proxmox_token=",
        "k3simage build DIR -var 'proxmox_url=https://127.0.0.1:",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_address_in_use_is_bad_input() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(&["emulator", "--listen", &address]).expect(2, &["cannot listen on", &address, "port 0"]);
}

#[test]
fn a_version_that_it_cannot_play_is_bad_input_and_told_with_those_that_it_can() {
    for version in ["7.4", "8.3", "9.3", "latest"] {
        let parts = [version, "is not possible", "8.4, 9.0, 9.1, 9.2"];
        run(&["emulator", "--listen", "127.0.0.1:0", "--pve-version", version]).expect(2, &parts);
    }
}

#[test]
fn nodes_storages_and_faults_are_given_on_the_command_line() {
    let temp = tempfile::tempdir().unwrap();
    let faults = temp.path().join("faults.toml");
    let made_up = "[[fault]]\ncall = \"GET /nodes\"\nthen = { answer = { status = 500, reason = \"made up\" } }\n";
    std::fs::write(&faults, made_up).unwrap();
    let args = [
        "emulator",
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--time-scale",
        "0",
        "--nodes",
        "a,b,c",
    ];
    let args = [
        &args[..],
        &["--storage", "nfs:dir:shared", "--faults", faults.to_str().unwrap()],
    ]
    .concat();
    let told = std::cell::RefCell::new(Value::Null);
    let (mut child, mut lines) = until(&mut k3simage(&args), |object| {
        told.replace(object.clone());
        object["event"] == "emulator_started"
    });
    let told = told.into_inner();
    let names: Vec<&str> = told["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let get = |url: &str, path: &str| {
        let pve = Client::builder(url)
            .auth(Auth::token(
                text(&told, "token_id"),
                text(&told, "token_secret").to_owned(),
            ))
            .tls(Tls::Pinned(text(&told, "fingerprint").parse().unwrap()))
            .build()
            .unwrap();
        runtime.block_on(async move { pve.request(proxmox_client::Method::GET, path, &[]).await })
    };
    let first = text(&told, "url");
    let refused = format!("{:?}", get(first, "/nodes").unwrap_err());
    assert!(refused.contains("made up"), "{refused}");
    let storages = get(told["nodes"][1]["url"].as_str().unwrap(), "/nodes/c/storage").unwrap();
    let shared = storages.as_array().unwrap().iter().filter(|s| s["shared"] == 1);
    assert_eq!(shared.map(|s| &s["storage"]).collect::<Vec<_>>(), ["nfs"]);

    // The file is read again on demand; one with a mistake changes nothing.
    let mut read_again = |content: &str| {
        use std::io::BufRead as _;
        std::fs::write(&faults, content).unwrap();
        signal(&child, "HUP");
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let read = read_again("[[node]]\nname = \"b\"\noffline = true\n");
    assert_eq!(read["offline"], serde_json::json!(["b"]), "{read}");
    let away = format!("{:?}", get(first, "/nodes/b/status").unwrap_err());
    assert!(away.contains("595"), "{away}");
    let wrong = read_again("[[node]]\nname = 1\n");
    assert!(wrong["message"].as_str().unwrap().contains("line 2"), "{wrong}");
    assert!(get(first, "/nodes/b/status").is_err());
    assert_eq!(read_again("")["offline"], serde_json::json!([]));
    get(first, "/nodes/b/status").unwrap();
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));

    std::fs::write(&faults, "[[fault]]\n").unwrap();
    run(&["emulator", "--faults", faults.to_str().unwrap()]).expect(2, &["faults.toml", "line 1"]);
    run(&["emulator", "--nodes", "33"]).expect(2, &["1 to 32"]);
    run(&["emulator", "--storage", "x:zfs"]).expect(2, &["zfs", "dir or lvmthin"]);
}
