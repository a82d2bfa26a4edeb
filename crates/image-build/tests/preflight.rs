//! Preflight on the emulator's API: what the cluster or the login lacks is found before anything is created.

mod common;

use common::{ISO, Lab, story};
use image_build::plan::Level;
use image_build::spec::OnError;
use image_build::{EventKind, ImageSpec};
use proxmox_client::{CreateVm, Vmid, Wait};
use pve_emulator::engine::simulated::SimulatedOptions;
use pve_emulator::{Emulator, StorageSpec};

/// The chain of the error that a build ends with.
async fn refused(lab: &Lab, spec: ImageSpec) -> String {
    let before = lab.inventory();
    let (ended, seen) = lab.build(spec).await;
    let error = ended.err().unwrap_or_else(|| panic!("it built\n{}", story(&seen)));
    assert_eq!(lab.inventory(), before, "something is left\n{}", story(&seen));
    assert!(matches!(
        seen.last().expect("events").kind,
        EventKind::BuildFinished { ok: false, .. }
    ));
    error.chain()
}

#[tokio::test]
async fn what_the_cluster_lacks_is_found_before_anything_is_created() {
    let storages = vec![
        StorageSpec::dir("local", "/var/lib/vz").content(["iso", "backup"]),
        StorageSpec::lvmthin("local-lvm"),
    ];
    let lab = Lab::of(Emulator::builder().storages(storages), SimulatedOptions::default()).await;
    let other = lab.client.node(&"pve".parse().unwrap()).qemu(Vmid::new(200).unwrap());
    let upid = other
        .create(&CreateVm::new().name("alma9-k3-node-amd64-v1.29.0-v7"))
        .await
        .unwrap();
    let _ = lab
        .client
        .wait_task(&upid, Wait::at_most(std::time::Duration::from_secs(30)))
        .await
        .unwrap();

    let cases: Vec<(image_build::ImageSpecBuilder, &[&str])> = vec![
        (lab.spec().node("pvv"), &["no node `pvv`", "did you mean `pve`"]),
        (
            lab.spec().storage("local-lmv"),
            &["no storage `local-lmv`", "did you mean `local-lvm`"],
        ),
        (
            lab.spec().storage("local"),
            &["`local` does not hold content `images`", "local-lvm"],
        ),
        (
            lab.spec().iso_storage("local-lvm"),
            &["`local-lvm` does not hold content `iso`", "local"],
        ),
        (lab.spec().bridge("vmbr9"), &["no bridge `vmbr9`", "vmbr0"]),
        (
            lab.spec().iso(image_build::spec::IsoSource::Volid(
                "local:iso/AlmaLinux-9.4-x86_64-minimal.iso".parse().unwrap(),
            )),
            &["there is no `local:iso/AlmaLinux-9.4-x86_64-minimal.iso`", ISO],
        ),
        (
            lab.spec().vmid(200),
            &["vmid 200 is taken by 200 (alma9-k3-node-amd64-v1.29.0-v7)"],
        ),
        (
            lab.spec().name("alma9-k3-node-amd64-v1.29.0-v7"),
            &["is taken by vm 200", "alma9-k3-node-amd64-v1.29.0-v8"],
        ),
        (
            lab.spec().cpu_type("x86-64-v9"),
            &["does not offer the CPU type `x86-64-v9`"],
        ),
    ];
    for (spec, parts) in cases {
        let spec = spec.build().unwrap();
        let report = image_build::plan(&lab.client, &spec).await.unwrap();
        assert!(!report.is_ok(), "{parts:?}");
        assert!(
            report.at(Level::Error).all(|finding| finding.fix.is_some()),
            "{report:#?}"
        );
        let text = refused(&lab, spec).await;
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in `{text}`");
        }
    }
    let writes = lab
        .pve
        .requests()
        .iter()
        .filter(|request| request.method != "GET")
        .count();
    assert_eq!(writes, 1, "only this test's own create call changed anything");
}

#[tokio::test]
async fn ask_without_anyone_to_ask_is_refused() {
    let lab = Lab::start().await;
    let (ended, seen) = lab.build(lab.spec().on_error(OnError::Ask).build().unwrap()).await;
    assert!(
        ended
            .unwrap_err()
            .to_string()
            .contains("on_error: is `ask`, but there is no one to ask here")
    );
    assert!(seen.is_empty());
}

/// What the documentation tells people to grant, per path.
const GRANTS: [(&str, &str, &[&str]); 4] = [
    (
        "/vms",
        "VmRole",
        &[
            "VM.Allocate",
            "VM.Audit",
            "VM.PowerMgmt",
            "VM.Config.CDROM",
            "VM.Config.CPU",
            "VM.Config.Disk",
            "VM.Config.HWType",
            "VM.Config.Memory",
            "VM.Config.Network",
            "VM.Config.Options",
            "VM.Config.Cloudinit",
            "VM.Console",
            "VM.GuestAgent.Audit",
        ],
    ),
    (
        "/storage/local",
        "IsoRole",
        &["Datastore.Audit", "Datastore.AllocateTemplate", "Datastore.Allocate"],
    ),
    ("/storage/local-lvm", "DiskRole", &["Datastore.AllocateSpace"]),
    ("/sdn/zones/localnetwork/vmbr0", "NetRole", &["SDN.Use"]),
];

/// A cluster whose token holds [`GRANTS`] but for one privilege.
async fn lab_without(removed: Option<(&str, &str)>) -> Lab {
    let secret = "11111111-2222-3333-4444-555555555555";
    let mut builder = Emulator::builder()
        .user("packer@pve", "unused")
        .token("packer@pve", "build", secret, true);
    for (path, role, privileges) in GRANTS {
        let held = privileges
            .iter()
            .copied()
            .filter(|privilege| Some((path, *privilege)) != removed);
        builder = builder
            .role(role, held)
            .acl(path, "packer@pve", role)
            .acl(path, "packer@pve!build", role);
    }
    let mut lab = Lab::of(builder, SimulatedOptions::default()).await;
    lab.client = common::client(&lab.pve, "packer@pve!build", secret);
    lab
}

#[tokio::test]
async fn the_documented_privileges_are_enough_and_each_missing_one_is_named() {
    let lab = lab_without(None).await;
    let spec = lab.spec().build().unwrap();
    let report = image_build::plan(&lab.client, &spec).await.unwrap();
    assert!(report.is_ok(), "{report:#?}");

    for (path, _, privileges) in GRANTS {
        for privilege in privileges {
            let lab = lab_without(Some((path, privilege))).await;
            let report = image_build::plan(&lab.client, &spec).await.unwrap();
            let lack: Vec<String> = report
                .at(Level::Error)
                .filter(|finding| finding.check == "privileges")
                .map(ToString::to_string)
                .collect();
            assert_eq!(lack.len(), 1, "without {privilege} on {path}: {report:#?}");
            let grant = format!("pveum acl modify {path} --users packer@pve --tokens 'packer@pve!build'");
            for part in [&format!("lacks {privilege} on "), &grant] {
                assert!(lack[0].contains(part.as_str()), "`{part}` is not in `{}`", lack[0]);
            }
        }
    }
}

#[tokio::test]
async fn a_token_with_privilege_separation_and_no_rights_is_told_so() {
    let secret = "11111111-2222-3333-4444-555555555555";
    let builder = Emulator::builder()
        .user("packer@pve", "unused")
        .token("packer@pve", "build", secret, true);
    let mut lab = Lab::of(builder, SimulatedOptions::default()).await;
    lab.client = common::client(&lab.pve, "packer@pve!build", secret);
    let report = image_build::plan(&lab.client, &lab.spec().build().unwrap())
        .await
        .unwrap();
    let text: Vec<String> = report.at(Level::Error).map(ToString::to_string).collect();
    assert!(
        text.iter().any(|line| line.contains("privilege separation")),
        "{text:?}"
    );
}

#[tokio::test]
async fn a_wrong_certificate_or_secret_is_an_error_of_its_own() {
    let lab = Lab::start().await;
    let spec = lab.spec().build().unwrap();
    let wrong = common::client(&lab.pve, lab.pve.token_id(), "canary-secret");
    let error = image_build::build(&wrong, spec.clone()).await.unwrap_err().chain();
    assert!(
        error.starts_with("preflight failed: asking https://127.0.0.1:") && error.contains("401"),
        "{error}"
    );
    assert!(!error.contains("canary"), "{error}");

    let pin = "00:".repeat(31) + "00";
    let stranger = proxmox_client::Client::builder(lab.pve.url())
        .auth(proxmox_client::Auth::token(lab.pve.token_id(), lab.pve.token_secret()))
        .tls(proxmox_client::Tls::Pinned(pin.parse().unwrap()))
        .build()
        .unwrap();
    let error = image_build::build(&stranger, spec).await.unwrap_err().chain();
    assert!(
        error.contains("not the pinned one") && error.contains(lab.pve.fingerprint()),
        "{error}"
    );
}
