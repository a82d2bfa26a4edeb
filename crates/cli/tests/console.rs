//! `console` against a cluster: serial output as it is and as JSON, the screen as PNG, and what cannot be.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::io::{Read, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Cluster, signal, until};
use proxmox_client::{Boot, Client, CreateVm, Drive, Method, MiB, NodeName, Qemu, StorageId, Upid, Vmid, Wait};
use pve_emulator::Emulator;

async fn done(client: &Client, upid: &Upid) {
    let wait = Wait::at_most(Duration::from_secs(60));
    // OVMF without a disk for its variables ends with a warning.
    let _ = client.wait_task(upid, wait).await.unwrap();
}

/// A VM with nothing to boot, whose firmware says so on its serial port after each reset.
fn running(cluster: &Cluster, vmid: u32) -> (Client, Qemu) {
    let client = cluster.client();
    let vm = client
        .node(&NodeName::new("pve").unwrap())
        .qemu(Vmid::new(vmid).unwrap());
    let create = CreateVm::new()
        .name("nothing")
        .memory(MiB(256))
        .bios("ovmf")
        .disk("scsi0", &Drive::allocate(&StorageId::new("local").unwrap(), 1))
        .boot(&Boot::order(["scsi0"]).unwrap())
        .set("serial0", "socket");
    cluster.block_on(async {
        // One after the other: while the creation runs, the VM is locked and does not start.
        done(&client, &vm.create(&create).await.unwrap()).await;
        done(&client, &vm.start().await.unwrap()).await;
    });
    (client, vm)
}

#[test]
fn the_screen_is_saved() {
    let cluster = Cluster::start(Emulator::builder());
    running(&cluster, 100);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("screen.png");
    let path = file.to_str().unwrap();
    cluster
        .run(&["console", "nothing", "--screenshot", path], &[])
        .expect(0, &["1280 by 800 pixels"]);
    assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"));
    let ended = cluster
        .run(&["console", "100", "--screenshot", path, "--json"], &[])
        .expect(0, &[]);
    assert_eq!(ended.objects()[0]["event"], "screenshot");
}

#[test]
fn what_has_no_console_is_named() {
    let cluster = Cluster::start(Emulator::builder());
    let (client, vm) = running(&cluster, 100);
    cluster
        .run(&["console", "other"], &[])
        .expect(2, &["there is no vm `other`"]);
    cluster
        .run(&["console", "100", "--port", "2"], &[])
        .expect(1, &["serial port 2 of vm 100", "'serial2' is not configured"]);
    cluster
        .run(&["console", "100", "--port", "4"], &[])
        .expect(2, &["--port"]);
    cluster.block_on(async {
        let upid = vm.stop().await.unwrap();
        done(&client, &upid).await;
    });
    cluster.run(&["console", "100"], &[]).expect(1, &["VM 100 not running"]);
    cluster
        .run(&["console", "100", "--screenshot", "/nonexistent/x.png"], &[])
        .expect(1, &["vm 100 is stopped"]);
}

/// Makes the firmware speak again and again: a command attaches at some moment, and nothing is replayed.
struct Speaking<'a> {
    cluster: &'a Cluster,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl<'a> Speaking<'a> {
    fn start(cluster: &'a Cluster, client: Client) -> Self {
        let mut task = None;
        cluster.block_on(async {
            task = Some(tokio::spawn(async move {
                loop {
                    client
                        .request(Method::POST, "/nodes/pve/qemu/100/status/reset", &[])
                        .await
                        .unwrap();
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }));
        });
        Self { cluster, task }
    }

    fn stop(mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        assert!(self.cluster.block_on(task).unwrap_err().is_cancelled());
    }
}

#[test]
fn lines_come_as_json_and_a_signal_ends_it() {
    let cluster = Cluster::start(Emulator::builder());
    let (client, _) = running(&cluster, 100);
    let mut command = common::k3simage(&["console", "100", "--json"]);
    cluster.lead(&mut command);
    let speaking = Speaking::start(&cluster, client);
    // What it goes on to write has a reader until the end.
    let (mut child, _rest) = until(&mut command, |line| {
        line["event"] == "console" && line["line"].as_str().is_some_and(|text| text.contains("BdsDxe"))
    });
    speaking.stop();
    signal(&child, "INT");
    let begun = Instant::now();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(60));
}

/// Reads until the text is there, and gives all that was read.
fn read_until(from: &mut impl Read, wanted: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains(wanted) {
        let count = from.read(&mut bytes).unwrap();
        assert!(count > 0, "the end, without {wanted}: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    text
}

#[test]
fn without_a_terminal_it_copies_until_the_vm_stops() {
    let cluster = Cluster::start(Emulator::builder());
    let (client, vm) = running(&cluster, 100);
    let mut command = common::k3simage(&["console", "nothing"]);
    cluster.lead(&mut command);
    let speaking = Speaking::start(&cluster, client.clone());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    // As it came, with the guest's own line ends.
    let text = read_until(&mut out, "No bootable option or device was found.\r\n");
    assert!(text.contains("BdsDxe"), "{text}");
    speaking.stop();
    cluster.block_on(async {
        let upid = vm.stop().await.unwrap();
        done(&client, &upid).await;
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// `script` of util-linux gives it a terminal.
#[test]
fn on_a_terminal_it_types_and_its_key_leaves() {
    let cluster = Cluster::start(Emulator::builder());
    let (client, _) = running(&cluster, 100);
    let mut inner = common::k3simage(&["console", "100"]);
    cluster.lead(&mut inner);
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"])
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let speaking = Speaking::start(&cluster, client);
    let mut child = command.spawn().unwrap();
    let (mut keys, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let attached = "attached to vm 100; Ctrl-], or ~. on a new line, leaves";
    let mut text = read_until(&mut out, attached);
    // The guest may have spoken before this was read.
    let (before, after) = text.split_once(attached).unwrap();
    assert!(!before.contains("BdsDxe"), "{text}");
    if !after.contains("BdsDxe") {
        text = read_until(&mut out, "BdsDxe");
        assert!(text.contains("BdsDxe"), "{text}");
    }
    // Ctrl-C goes to the guest.
    keys.write_all(b"\x03").unwrap();
    read_until(&mut out, "BdsDxe");
    keys.write_all(b"\x1d").unwrap();
    read_until(&mut out, "left");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    speaking.stop();
}
