//! The client against 9.2 and 8.4: what not every server knows is refused with the version it needs, the rest goes through.

use std::time::Duration;

use proxmox_client::{Auth, Client, CreateVm, Error, NodeName, Tls, VmConfigUpdate, Vmid, Wait};
use pve_emulator::Emulator;

async fn emulator(version: &str) -> (Emulator, Client) {
    let emulator = Emulator::builder().pve_version(version).start().await.expect("started");
    let client = Client::builder(emulator.url())
        .auth(Auth::token(emulator.token_id(), emulator.token_secret()))
        .tls(Tls::Pinned(emulator.fingerprint().parse().expect("a fingerprint")))
        .build()
        .expect("a client");
    (emulator, client)
}

/// Creates a VM with one option; what the client or the server said against it.
async fn create(client: &Client, vmid: u32, option: &str, value: &str) -> Result<(), Error> {
    let node = client.node(&NodeName::new("pve").expect("a name"));
    let vm = node.qemu(Vmid::new(vmid).expect("in range"));
    let upid = vm.create(&CreateVm::new().set(option, value)).await?;
    client
        .wait_task(&upid, Wait::at_most(Duration::from_secs(60)))
        .await
        .map(drop)
}

#[tokio::test]
async fn options_go_to_the_servers_that_know_them() {
    let disk = "local-lvm:1,cyls=9,heads=16,secs=63,trans=lba";
    // The option, a value, and what 8.4 and 9.2 are told; none where it goes through.
    let cases = [
        ("allow-ksm", "0", Some("it needs PVE 9.0"), None),
        ("intel-tdx", "type=tdx", Some("it needs PVE 9.0"), None),
        ("agent", "enabled=1,freeze-fs=0", Some("it needs PVE 9.0"), None),
        ("agent", "enabled=1,freeze-fs-on-backup=0", None, None),
        (
            "efidisk0",
            "local-lvm:1,efitype=4m,ms-cert=2023",
            Some("it needs PVE 9.0"),
            None,
        ),
        ("scsi0", disk, None, Some("PVE 9.2 no longer has it")),
        ("memory", "512", None, None),
    ];
    for (version, index) in [("8.4", 0), ("9.2", 1)] {
        let (pve, client) = emulator(version).await;
        for (vmid, (option, value, old, new)) in (300..).zip(cases) {
            let before = pve.requests().len();
            let ended = create(&client, vmid, option, value).await;
            match [old, new][index] {
                Some(part) => {
                    let text = ended.expect_err(option).to_string();
                    assert!(
                        text.contains(part) && text.contains(version),
                        "{version} {option}: {text}"
                    );
                    let writes = pve.requests()[before..].iter().filter(|r| r.method != "GET").count();
                    assert_eq!(writes, 0, "{version} {option}: it was sent");
                }
                None => ended.unwrap_or_else(|error| panic!("{version} {option}={value}: {error:?}")),
            }
        }
    }
}

/// The bounds are true: sent past the client's own check, a server refuses just what they say.
#[tokio::test]
async fn a_server_refuses_what_the_client_keeps_from_it() {
    for (version, option, value, status) in [
        ("8.4", "allow-ksm", "0", 400),
        ("8.4", "intel-tdx", "type=tdx", 400),
        ("8.4", "agent", "enabled=1,freeze-fs=0", 400),
        ("8.4", "efidisk0", "local-lvm:1,ms-cert=2023", 400),
        ("9.2", "scsi0", "local-lvm:1,cyls=9", 400),
        ("8.4", "scsi0", "local-lvm:1,cyls=9", 200),
        ("9.2", "allow-ksm", "0", 200),
    ] {
        let (pve, client) = emulator(version).await;
        let params = [("vmid", "300".to_owned()), (option, value.to_owned())];
        let ended = client
            .request(proxmox_client::Method::POST, "/nodes/pve/qemu", &params)
            .await;
        let last = pve.requests().pop().expect("a request");
        assert_eq!(last.status, status, "{version} {option}={value}: {ended:?}");
        if status == 400 {
            let text = ended.expect_err("refused").to_string();
            assert!(text.contains(option), "{version} {option}: {text}");
        }
    }
}

#[tokio::test]
async fn an_update_asks_the_version_too() {
    let (_pve, client) = emulator("8.4").await;
    create(&client, 300, "memory", "512").await.expect("created");
    let vm = client
        .node(&NodeName::new("pve").expect("a name"))
        .qemu(Vmid::new(300).expect("in range"));
    let error = vm
        .update_config(&VmConfigUpdate::new().set("allow-ksm", 0))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("it needs PVE 9.0, the server is 8.4.1"),
        "{error}"
    );
    vm.update_config(&VmConfigUpdate::new().cores(2))
        .await
        .expect("known to all");
}
