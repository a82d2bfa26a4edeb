//! The client against the emulated API: the life of a VM as an image build goes through it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proxmox_client::{
    Agent, Auth, Boot, Client, CloneVm, ConfigView, Content, CreateVm, DeleteVm, Drive, Error, ErrorKind, MiB, Net,
    NodeName, Qemu, ResourceKind, StorageId, TaskOutcome, Tls, Upid, Upload, VmConfigUpdate, Vmid, Wait,
};
use pve_emulator::{Emulator, FaultAction};

fn pve() -> NodeName {
    NodeName::new("pve").expect("a name")
}

fn local() -> StorageId {
    StorageId::new("local").expect("a name")
}

fn client(emulator: &Emulator) -> Client {
    Client::builder(emulator.url())
        .auth(Auth::token(emulator.token_id(), emulator.token_secret()))
        .tls(Tls::Pinned(emulator.fingerprint().parse().expect("a fingerprint")))
        .build()
        .expect("a client")
}

async fn done(client: &Client, upid: &Upid) -> Result<TaskOutcome, Error> {
    client.wait_task(upid, Wait::at_most(Duration::from_secs(30))).await
}

/// A small VM with one disk.
async fn created(client: &Client, vmid: u32) -> Qemu {
    let vm = client.node(&pve()).qemu(Vmid::new(vmid).expect("in range"));
    let create = CreateVm::new()
        .name("small")
        .memory(MiB(256))
        .disk("scsi0", &Drive::allocate(&local(), 1))
        .boot(&Boot::order(["scsi0"]).expect("a device"))
        .agent(&Agent::enabled(true))
        .reboot(false);
    let upid = vm.create(&create).await.expect("accepted");
    assert_eq!(done(client, &upid).await.expect("created"), TaskOutcome::Ok);
    vm
}

#[tokio::test]
async fn both_ways_to_trust_and_the_readable_branches() {
    let emulator = Emulator::start().await.expect("started");
    let by_authority = Client::builder(emulator.url())
        .auth(Auth::token(emulator.token_id(), emulator.token_secret()))
        .tls(Tls::CaPem(emulator.ca_pem().as_bytes().to_vec()))
        .build()
        .expect("a client");
    assert!(by_authority.version().await.expect("trusted").at_least(8, 0));
    let client = client(&emulator);
    let nodes = client.nodes().await.expect("nodes");
    assert!(nodes.iter().any(|node| node.node == pve() && node.is_online()));
    let node = client.node(&pve());
    assert!(node.status().await.expect("status").memory.total.is_some());
    let storages = node.storages().await.expect("storages");
    assert!(
        storages
            .iter()
            .any(|storage| storage.storage == Some(local()) && storage.holds(&Content::Iso))
    );
    assert!(
        node.networks()
            .await
            .expect("networks")
            .iter()
            .any(proxmox_client::NetworkInterface::is_bridge)
    );
    assert!(
        client
            .permissions(None)
            .await
            .expect("permissions")
            .allows("/vms/100", "VM.Allocate")
    );
    assert!(client.pools().await.expect("pools").is_empty());
    assert!(
        client
            .cluster_resources(Some(ResourceKind::Node))
            .await
            .expect("resources")
            .len()
            == nodes.len()
    );
    assert_eq!(client.next_id(None).await.expect("a vmid"), Vmid::MIN);
    emulator.shutdown().await;
}

#[tokio::test]
async fn an_uploaded_iso_is_listed_and_deleted() {
    let emulator = Emulator::start().await.expect("started");
    let client = client(&emulator);
    let storage = client.node(&pve()).storage(&local());
    let seen = Arc::new(AtomicU64::new(0));
    let progress = Arc::clone(&seen);
    let upload = Upload::iso_bytes("seed.iso", vec![7; 600_000])
        .expect("a name")
        .on_progress(move |done, _| progress.store(done, Ordering::Relaxed));
    let upid = storage.upload(&upload).await.expect("uploaded");
    assert_eq!(done(&client, &upid).await.expect("checked"), TaskOutcome::Ok);
    assert_eq!(seen.load(Ordering::Relaxed), 600_000);
    let listed = storage.content(Some(Content::Iso)).await.expect("a list");
    let iso = listed
        .iter()
        .find(|volume| volume.volid.file_name() == "seed.iso")
        .expect("listed");
    assert_eq!(iso.size, Some(600_000));
    if let Some(upid) = storage.delete(&iso.volid).await.expect("deleted") {
        let _ = done(&client, &upid).await.expect("deleted");
    }
    let left = storage.content(Some(Content::Iso)).await.expect("a list");
    assert!(!left.iter().any(|volume| volume.volid == iso.volid));

    let wrong = proxmox_client::Checksum::sha256(&"0".repeat(64)).expect("a digest");
    let upload = Upload::iso_bytes("wrong.iso", "x").expect("a name").checksum(wrong);
    let upid = storage.upload(&upload).await.expect("taken in");
    match done(&client, &upid).await.expect_err("another digest") {
        Error::Task { exit, log_tail, .. } => {
            assert!(exit.contains("checksum"), "{exit}");
            assert!(
                log_tail.last().is_some_and(|line| line.starts_with("TASK ERROR")),
                "{log_tail:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_vm_is_created_changed_cloned_and_destroyed() {
    let emulator = Emulator::start().await.expect("started");
    let client = client(&emulator);
    let vm = created(&client, 9000).await;
    assert_eq!(
        client.next_id(Some(vm.vmid())).await.expect_err("taken").kind(),
        ErrorKind::AlreadyExists
    );
    let again = vm.create(&CreateVm::new()).await.expect_err("taken");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");

    let config = vm.config(ConfigView::Pending).await.expect("a configuration");
    assert_eq!((config.memory(), config.flag("reboot")), (Some(MiB(256)), Some(false)));
    let disk = config.disk("scsi0").expect("parses").expect("is there");
    assert_eq!(disk.size_bytes(), Some(1 << 30));
    assert!(disk.volid().is_some());

    let digest = config.digest().expect("a digest").to_owned();
    let net = Net::virtio("vmbr0").expect("a bridge");
    let change = VmConfigUpdate::new()
        .description("journal: 1\nä")
        .tags(["K3s", "build"])
        .net(0, &net)
        .digest(&digest);
    vm.update_config(&change).await.expect("changed");
    let stale = vm
        .update_config(&VmConfigUpdate::new().cores(2).digest(&digest))
        .await
        .expect_err("stale");
    assert_eq!(stale.kind(), ErrorKind::Conflict, "{stale}");
    let config = vm.config(ConfigView::Current).await.expect("a configuration");
    assert_eq!(
        (config.description(), config.tags()),
        (Some("journal: 1\nä"), vec!["build".to_owned(), "k3s".to_owned()])
    );
    assert!(
        config.net(0).expect("parses").expect("is there").mac().is_some(),
        "PVE chose an address"
    );

    assert!(vm.status().await.expect("a state").is_stopped());
    assert_eq!(vm.send_key("ret").await.expect_err("stopped").kind(), ErrorKind::State);
    assert_eq!(vm.agent().ping().await.expect_err("stopped").kind(), ErrorKind::State);

    let upid = vm.convert_to_template().await.expect("accepted");
    assert_eq!(done(&client, &upid).await.expect("converted"), TaskOutcome::Ok);
    assert!(
        vm.config(ConfigView::Pending)
            .await
            .expect("a configuration")
            .is_template()
    );
    let upid = vm.start().await.expect("accepted");
    let refused = done(&client, &upid).await.expect_err("a template does not start");
    assert_eq!(
        (refused.kind(), refused.cause_kind()),
        (ErrorKind::TaskFailed, ErrorKind::State),
        "{refused}"
    );

    let clone = client.node(&pve()).qemu(Vmid::new(9001).expect("in range"));
    let how = CloneVm::new(clone.vmid()).name("clone").full(true);
    let upid = vm.clone_to(&how).await.expect("accepted");
    assert_eq!(done(&client, &upid).await.expect("cloned"), TaskOutcome::Ok);
    for vm in [&clone, &vm] {
        let upid = vm.delete(&DeleteVm::new().purge(true)).await.expect("accepted");
        assert_eq!(done(&client, &upid).await.expect("destroyed"), TaskOutcome::Ok);
        let gone = vm.config(ConfigView::Pending).await.expect_err("destroyed");
        assert!(gone.is_not_found(), "{gone}");
    }
    assert!(emulator.vmids().is_empty(), "nothing is left");
    emulator.shutdown().await;
}

#[tokio::test]
async fn refusals_have_their_kind() {
    let emulator = Emulator::start().await.expect("started");
    let client = client(&emulator);
    let nowhere = client
        .node(&NodeName::new("nosuch").expect("a name"))
        .status()
        .await
        .expect_err("no such node");
    assert!(
        matches!(nowhere.kind(), ErrorKind::NotFound | ErrorKind::Proxy),
        "{nowhere}"
    );
    let storage = client.node(&pve()).storage(&StorageId::new("nosuch").expect("a name"));
    assert!(storage.status().await.expect_err("no such storage").is_not_found());
    assert!(storage.content(None).await.expect_err("no such storage").is_not_found());
    let vm = client.node(&pve()).qemu(Vmid::MIN);
    assert!(
        vm.config(ConfigView::Pending)
            .await
            .expect_err("no such VM")
            .is_not_found()
    );
    let bad = vm
        .create(&CreateVm::new().set("cores", "two"))
        .await
        .expect_err("not a number");
    assert_eq!(bad.kind(), ErrorKind::Parameter);
    assert!(
        matches!(&bad, Error::Api { params, .. } if params.contains_key("cores")),
        "{bad:?}"
    );

    let stranger = Client::builder(emulator.url())
        .auth(Auth::token(emulator.token_id(), "00000000-0000-0000-0000-000000000000"))
        .tls(Tls::Insecure)
        .build()
        .expect("a client");
    assert_eq!(
        stranger.nodes().await.expect_err("a wrong secret").kind(),
        ErrorKind::Auth
    );
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_password_logs_in_and_writes() {
    let emulator = Emulator::builder()
        .user("packer@pve", "packerpassword")
        .acl("/", "packer@pve", "PVEAdmin")
        .start()
        .await
        .expect("started");
    let client = Client::builder(emulator.url())
        .auth(Auth::password("packer@pve", "packerpassword"))
        .tls(Tls::Pinned(emulator.fingerprint().parse().expect("a fingerprint")))
        .build()
        .expect("a client");
    let _ = created(&client, 100).await;
    assert_eq!(emulator.vmids(), [100]);
    emulator.shutdown().await;
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    let emulator = Emulator::builder()
        .role("Reader", ["VM.Audit", "Datastore.Audit"])
        .user("reader@pve", "readerpassword")
        .token("reader@pve", "t", "11111111-2222-3333-4444-555555555555", false)
        .acl("/", "reader@pve", "Reader")
        .start()
        .await
        .expect("started");
    let client = Client::builder(emulator.url())
        .auth(Auth::token("reader@pve!t", "11111111-2222-3333-4444-555555555555"))
        .tls(Tls::Insecure)
        .build()
        .expect("a client");
    let error = client.node(&pve()).status().await.expect_err("needs Sys.Audit");
    let missing = error.missing_privileges().expect("named");
    assert_eq!(
        (missing.path.as_str(), missing.any_of),
        ("/nodes/pve", vec!["Sys.Audit".to_owned()])
    );
    emulator.shutdown().await;
}

/// A write whose answer is lost is not sent again; the reads of a wait are.
#[tokio::test]
async fn lost_answers_are_told_for_writes_and_ridden_out_by_waits() {
    let emulator = Emulator::start().await.expect("started");
    let client = client(&emulator);
    let vm = created(&client, 100).await;
    emulator.fail_next("PUT", "/nodes/*/qemu/*/config", FaultAction::LoseAnswer);
    let lost = vm
        .update_config(&VmConfigUpdate::new().cores(4))
        .await
        .expect_err("lost");
    assert!(
        matches!(lost, Error::Transport { attempts: 1, .. }) && lost.was_sent(),
        "{lost:?}"
    );
    let config = vm.config(ConfigView::Pending).await.expect("a configuration");
    assert_eq!(config.get("cores"), Some("4"), "it was carried out");

    let writes = |emulator: &Emulator| {
        emulator
            .requests()
            .iter()
            .filter(|request| request.method == "POST")
            .count()
    };
    let before = writes(&emulator);
    let upid = vm.start().await.expect("accepted");
    for action in [
        FaultAction::Refuse,
        FaultAction::LoseAnswer,
        FaultAction::Status(596, "Broken pipe".into()),
    ] {
        emulator.fail_next("GET", "/nodes/*/tasks/*/status", action);
    }
    assert_eq!(done(&client, &upid).await.expect("started"), TaskOutcome::Ok);
    assert_eq!(writes(&emulator), before + 1, "the start was sent once");
    emulator.shutdown().await;
}
