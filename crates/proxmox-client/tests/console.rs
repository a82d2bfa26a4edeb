//! Serial console and screen against the emulated API, and against servers that are not what they should be.

mod support;

use std::time::Duration;

use proxmox_client::{
    Auth, Boot, Client, CreateVm, Drive, Error, ErrorKind, MiB, NodeName, Qemu, StorageId, Tls, Upid, Vmid, Wait,
};
use pve_emulator::Emulator;
use pve_emulator::engine::qemu::{Accel, QemuOptions};
use support::{Reaction, TestServer, data};

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn client(emulator: &Emulator) -> Client {
    Client::builder(emulator.url())
        .auth(Auth::token(emulator.token_id(), emulator.token_secret()))
        .tls(Tls::Pinned(emulator.fingerprint().parse().expect("a fingerprint")))
        .build()
        .expect("a client")
}

async fn done(client: &Client, upid: &Upid) {
    // OVMF without a disk for its variables ends with a warning.
    let _ = client.wait_task(upid, Wait::at_most(LONG)).await.expect("done");
}

/// A VM with an empty disk and a serial port.
async fn created(client: &Client, vmid: u32, bios: &str) -> Qemu {
    let vm = client
        .node(&NodeName::new("pve").expect("a name"))
        .qemu(Vmid::new(vmid).expect("in range"));
    let disk = Drive::allocate(&StorageId::new("local").expect("a name"), 1);
    let create = CreateVm::new()
        .name("con")
        .memory(MiB(256))
        .bios(bios)
        .disk("scsi0", &disk)
        .boot(&Boot::order(["scsi0"]).expect("a device"))
        .set("serial0", "socket");
    let upid = vm.create(&create).await.expect("accepted");
    done(client, &upid).await;
    vm
}

/// The same, started: it stays in its firmware, whose lines are known.
async fn running(client: &Client, vmid: u32, bios: &str) -> Qemu {
    let vm = created(client, vmid, bios).await;
    let upid = vm.start().await.expect("accepted");
    done(client, &upid).await;
    vm
}

async fn text_until(console: &mut proxmox_client::SerialConsole, wanted: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(wanted) {
            let bytes = console.read().await.expect("readable").expect("not the end");
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    tokio::time::timeout(LONG, reading).await.expect("in time");
    text
}

#[tokio::test]
async fn the_serial_port_is_followed_over_a_reset() {
    let emulator = Emulator::start().await.expect("started");
    let client = client(&emulator);
    let vm = running(&client, 100, "ovmf").await;
    let mut console = vm.serial_console(0).await.expect("attached");
    console.resize(132, 40).await.expect("told");
    console.write(b"x".repeat(40_000).as_slice()).await.expect("typed");
    client
        .request(proxmox_client::Method::POST, "/nodes/pve/qemu/100/status/reset", &[])
        .await
        .expect("reset");
    let text = text_until(&mut console, "No bootable option").await;
    assert!(text.starts_with("BdsDxe: loading Boot Options"), "{text}");
    // A second reader gets nothing until the first has left.
    let mut second = vm.serial_console(0).await.expect("attached too");
    let silence = tokio::time::timeout(Duration::from_millis(300), second.read()).await;
    assert!(silence.is_err(), "{silence:?}");
    // The end of the guest is not the end of the stream.
    let upid = vm.stop().await.expect("accepted");
    done(&client, &upid).await;
    let still = tokio::time::timeout(Duration::from_millis(300), console.read()).await;
    assert!(still.is_err(), "{still:?}");
}

/// Whether QEMU is missing; says so. In CI that is an error.
#[expect(clippy::print_stdout, reason = "a test that does nothing must say so")]
fn no_qemu() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if there("qemu-system-x86_64") && there("qemu-img") {
        return false;
    }
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "QEMU is missing: apt-get install qemu-system-x86 qemu-utils");
    println!(
        "SKIPPED  consoles of a real machine: no QEMU here. To get it: apt-get install qemu-system-x86 qemu-utils"
    );
    true
}

/// The boot sector of the emulator's own tests: says a word, and echoes what is typed; `R` resets.
const BOOT: &[u8; 512] = include_bytes!("../../pve-emulator/tests/qemu_guests/boot.bin");

/// Starts of QEMU and its firmware on a machine with ten jobs at once take minutes.
const PATIENCE: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_real_machine_is_heard_typed_to_and_seen() {
    if no_qemu() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let options = QemuOptions {
        accel: Some(Accel::Tcg),
        ..QemuOptions::default()
    };
    let emulator = Emulator::builder()
        .data_dir(folder.path())
        .qemu(options)
        .start()
        .await
        .expect("started");
    let client = client(&emulator);
    let vm = created(&client, 100, "seabios").await;
    let disk = folder.path().join("storage/pve/local/images/100/vm-100-disk-0.raw");
    let mut sectors = vec![0; 1024];
    sectors[..512].copy_from_slice(BOOT);
    sectors[512..516].copy_from_slice(b"word");
    let mut file = std::fs::OpenOptions::new().write(true).open(&disk).expect("a raw disk");
    std::io::Write::write_all(&mut file, &sectors).expect("written");
    drop(file);
    let upid = vm.start().await.expect("accepted");
    done(&client, &upid).await;
    let mut console = vm.serial_console(0).await.expect("attached");
    // Nothing is replayed, and the machine boots meanwhile: it is asked until it answers.
    let echo = async {
        loop {
            console.write(b"x").await.expect("typed");
            let answer = tokio::time::timeout(Duration::from_secs(1), console.read()).await;
            if let Ok(bytes) = answer
                && bytes.expect("readable").expect("not the end").contains(&b'x')
            {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, echo).await.expect("an echo");
    console.write(b"R").await.expect("typed");
    let mut text = String::new();
    let again = async {
        while !text.contains("word") {
            let bytes = console.read().await.expect("readable").expect("not the end");
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("it speaks after the reset");
    let image = vm.screen().await.expect("opened").capture().await.expect("seen");
    assert_eq!((image.width, image.height), (720, 400), "the text mode of a PC");
    let lit = image
        .rgb
        .chunks(3)
        .filter(|pixel| pixel.iter().any(|part| *part > 0x80))
        .count();
    assert!(lit > 100, "{lit} pixels of text");
    let upid = vm.stop().await.expect("accepted");
    done(&client, &upid).await;
    emulator.shutdown().await;
}

#[tokio::test]
async fn no_console_says_why() {
    let emulator = Emulator::start().await.expect("started");
    let client = client(&emulator);
    let vm = running(&client, 100, "seabios").await;
    let other = vm.serial_console(1).await.expect_err("no such port");
    assert_eq!(
        other.to_string(),
        "no console: serial interface 'serial1' is not configured"
    );
    assert!(matches!(vm.serial_console(4).await, Err(Error::Invalid { .. })));
    let upid = vm.stop().await.expect("accepted");
    done(&client, &upid).await;
    let stopped = vm.serial_console(0).await.expect_err("stopped");
    assert_eq!(stopped.to_string(), "no console: VM 100 not running");
    assert_eq!(stopped.kind(), ErrorKind::State);
    let dark = vm.screen().await.expect_err("stopped");
    assert_eq!(dark.kind(), ErrorKind::Transport, "{dark}");
}

#[tokio::test]
async fn the_screen_is_seen_and_follows_its_size() {
    let emulator = Emulator::start().await.expect("started");
    let client = client(&emulator);
    let vm = running(&client, 100, "seabios").await;
    let deadline = tokio::time::Instant::now() + LONG;
    while !emulator
        .guest(100)
        .is_some_and(|guest| guest.console.contains("No bootable device"))
    {
        assert!(tokio::time::Instant::now() < deadline, "the firmware never gave up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut screen = vm.screen().await.expect("opened");
    let image = screen.capture().await.expect("seen");
    assert_eq!((image.width, image.height), (720, 400));
    assert_eq!(image.rgb.len(), 720 * 400 * 3);
    let lit = image.rgb.chunks(3).filter(|pixel| **pixel == [0xa8; 3]).count();
    assert!(lit > 500, "{lit} pixels of text");
    assert_eq!(screen.capture().await.expect("seen again"), image);
    let uefi = running(&client, 101, "ovmf").await;
    let image = uefi.screen().await.expect("opened").capture().await.expect("seen");
    assert_eq!((image.width, image.height), (1280, 800));
    // The process ends, and the stream with it.
    let upid = vm.stop().await.expect("accepted");
    done(&client, &upid).await;
    let ended = screen.capture().await.expect_err("stopped");
    assert_eq!(ended.kind(), ErrorKind::Transport, "{ended}");
}

#[tokio::test]
async fn the_certificate_policy_is_the_clients() {
    let emulator = Emulator::start().await.expect("started");
    let good = client(&emulator);
    let vm = running(&good, 100, "seabios").await;
    vm.serial_console(0).await.expect("trusted");
    let by_authority = Client::builder(emulator.url())
        .auth(Auth::token(emulator.token_id(), emulator.token_secret()))
        .tls(Tls::CaPem(emulator.ca_pem().as_bytes().to_vec()))
        .build()
        .expect("a client");
    let node = NodeName::new("pve").expect("a name");
    let vm = by_authority.node(&node).qemu(Vmid::new(100).expect("in range"));
    vm.screen().await.expect("trusted");
}

#[tokio::test]
async fn a_ticket_serves_once_and_its_owner_only() {
    let emulator = Emulator::builder()
        .user("a@pve", "secret-a")
        .acl("/", "a@pve", "PVEAdmin")
        .delays(false)
        .start()
        .await
        .expect("started");
    let client = client(&emulator);
    let vm = running(&client, 100, "seabios").await;
    let ticket = vm.vncproxy().await.expect("a ticket");
    let query = |port: u16| {
        use secrecy::ExposeSecret as _;
        [
            ("port", port.to_string()),
            ("vncticket", ticket.ticket.expose_secret().to_owned()),
        ]
    };
    // A plain GET passes the same check and says the port.
    let path = "/nodes/pve/qemu/100/vncwebsocket";
    let get = |client: Client, path: &'static str, port: u16| {
        let query = query(port);
        async move { client.request(proxmox_client::Method::GET, path, &query).await }
    };
    let answer = get(client.clone(), path, ticket.port).await.expect("fits");
    assert_eq!(answer, serde_json::json!({ "port": ticket.port.to_string() }));
    let stranger = Client::builder(emulator.url())
        .auth(Auth::password("a@pve", "secret-a"))
        .tls(Tls::Pinned(emulator.fingerprint().parse().expect("a fingerprint")))
        .build()
        .expect("a client");
    for (client, path, port) in [
        (stranger, path, ticket.port),
        (client.clone(), path, 5999),
        (client.clone(), "/nodes/pve/qemu/101/vncwebsocket", ticket.port),
    ] {
        let error = get(client, path, port).await.expect_err("another's");
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    }
}

/// What a server that is none answers to the upgrade is an error in words, in time, and in little memory.
#[tokio::test]
async fn other_servers_are_refused() {
    let ticket = r#"{"port":"5900","ticket":"geheim:PVEVNC:6B0459B6::x","user":"root@pam!build","upid":"UPID:pve:00003E94:0006FB3B:6B0459B6:vncproxy:100:root@pam!build:"}"#;
    for (reaction, expected) in [
        (data(r#"{"port":"5900"}"#), "did not switch to a websocket"),
        (
            Reaction::Raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n".to_vec()),
            "websocket key does not fit",
        ),
        (support::error("401 permission denied - invalid PVEVNC ticket"), "401"),
        (Reaction::Close, "broke"),
    ] {
        let answer = reaction.clone();
        let server = TestServer::start(move |_, request| {
            if request.method == "POST" {
                data(ticket)
            } else {
                answer.clone()
            }
        })
        .await;
        let client = server.client();
        let vm = client.node(&NodeName::new("pve").expect("a name")).qemu(Vmid::new(100).expect("in range"));
        let error = vm.screen().await.expect_err(expected).to_string();
        assert!(error.contains(expected), "{reaction:?}: {error}");
        assert!(!error.contains("geheim"), "{error}");
        let sent = server.requests();
        assert_eq!(sent.iter().filter(|request| request.method == "GET").count(), 1, "never twice: {sent:?}");
    }
}
