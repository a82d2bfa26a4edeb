//! Builds that cannot end well: each names its cause and leaves the cluster as it was.

mod common;

use common::{ISO, Lab, finished, story};
use image_build::plan::Level;
use image_build::spec::{OnError, ProvisionerSpec, ShellSpec};
use image_build::{Error, EventKind, ImageSpec};
use proxmox_client::{CreateVm, Vmid, Wait};

/// The chain of the error that a build ends with.
async fn refused(lab: &Lab, spec: ImageSpec) -> String {
    let before = lab.inventory();
    let (ended, seen) = lab.build(spec).await;
    let error = ended.err().unwrap_or_else(|| panic!("it built\n{}", story(&seen)));
    assert_eq!(lab.inventory(), before, "something is left\n{}", story(&seen));
    assert!(matches!(seen.last().unwrap().kind, EventKind::BuildFinished { ok: false, .. }));
    error.chain()
}

#[tokio::test]
async fn what_the_cluster_lacks_is_found_before_anything_is_created() {
    let lab = Lab::start().await;
    let other = lab.client.node(&"pve".parse().unwrap()).qemu(Vmid::new(200).unwrap());
    let upid = other.create(&CreateVm::new().name("alma9-k3-node-amd64-v1.29.0-v7")).await.unwrap();
    let _ = lab.client.wait_task(&upid, Wait::at_most(std::time::Duration::from_secs(30))).await.unwrap();

    let cases: Vec<(image_build::ImageSpecBuilder, &[&str])> = vec![
        (lab.spec().node("pvv"), &["no node `pvv`", "did you mean `pve`"]),
        (lab.spec().storage("local-lmv"), &["no storage `local-lmv`", "did you mean `local-lvm`"]),
        (lab.spec().storage("local"), &["`local` does not hold content `images`", "local-lvm"]),
        (lab.spec().iso_storage("local-lvm"), &["`local-lvm` does not hold content `iso`", "local"]),
        (lab.spec().bridge("vmbr9"), &["no bridge `vmbr9`", "vmbr0"]),
        (
            lab.spec().iso(image_build::spec::IsoSource::Volid("local:iso/AlmaLinux-9.4-x86_64-minimal.iso".parse().unwrap())),
            &["there is no `local:iso/AlmaLinux-9.4-x86_64-minimal.iso`", ISO],
        ),
        (lab.spec().vmid(200), &["vmid 200 is taken by 200 (alma9-k3-node-amd64-v1.29.0-v7)"]),
        (lab.spec().name("alma9-k3-node-amd64-v1.29.0-v7"), &["is taken by vm 200", "alma9-k3-node-amd64-v1.29.0-v8"]),
        (lab.spec().cpu_type("x86-64-v9"), &["does not offer the CPU type `x86-64-v9`"]),
    ];
    for (spec, parts) in cases {
        let spec = spec.build().unwrap();
        let report = image_build::plan(&lab.client, &spec).await.unwrap();
        assert!(!report.is_ok() && report.at(Level::Error).all(|finding| finding.fix.is_some()));
        let text = refused(&lab, spec).await;
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in `{text}`");
        }
    }
    let writes = lab.pve.requests().iter().filter(|request| request.method != "GET").count();
    assert_eq!(writes, 1, "only this test's own create call changed anything");
}

#[tokio::test]
async fn a_failing_script_is_named_with_its_last_lines() {
    let lab = Lab::start().await;
    let failing = ShellSpec::new("check.sh", "#!/bin/bash\nset -euo pipefail\nexit 7\n");
    lab.pve.simulated().fault(pve_emulator::engine::simulated::Fault::always(
        pve_emulator::engine::simulated::FaultKind::ScriptExits { script: "check.sh".to_owned(), code: 7 },
    ));
    let spec = lab.spec().provisioners(vec![ProvisionerSpec::Shell(failing)]).build().unwrap();
    let text = refused(&lab, spec).await;
    assert!(text.starts_with("provision failed: check.sh ended with exit code 7; its last lines: "), "{text}");
}

#[tokio::test]
async fn cancel_in_each_step_leaves_nothing() {
    let lab = Lab::start().await;
    let before = lab.inventory();
    for step in [
        "preflight", "reserve", "media", "create", "install", "connect", "provision", "seal", "shut_down", "finalise", "template",
    ] {
        let spec = lab.spec().build().unwrap();
        let at = |kind: &EventKind| matches!(kind, EventKind::StepStarted { step: begun } if begun == step);
        let (ended, seen) = lab.build_until(spec, at).await;
        match ended {
            Err(error) => {
                assert!(error.is_cancelled(), "{step}: {}", error.chain());
                assert!(matches!(&error, Error::Step { cleanup, kept, .. } if cleanup.is_empty() && kept.is_empty()), "{error}");
                assert_eq!(lab.inventory(), before, "{step} left something\n{}", story(&seen));
            }
            // The conversion itself is not torn: a cancel that comes with it comes too late.
            Ok(artifact) => {
                assert_eq!((step, artifact.vmid), ("template", 9000));
                assert!(finished(&seen).contains(&"template".to_owned()));
            }
        }
    }
}

#[tokio::test]
async fn keep_leaves_the_vm_for_a_look() {
    let lab = Lab::start().await;
    lab.pve.simulated().fault(pve_emulator::engine::simulated::Fault::always(
        pve_emulator::engine::simulated::FaultKind::ScriptExits { script: "seal.sh".to_owned(), code: 1 },
    ));
    let (ended, _) = lab.build(lab.spec().on_error(OnError::Keep).build().unwrap()).await;
    let text = ended.unwrap_err().to_string();
    assert_eq!(text, "seal failed (kept: vm 9000 on pve)");
    assert_eq!(lab.pve.vmids(), [9000]);
}

#[tokio::test]
async fn ask_without_anyone_to_ask_is_refused() {
    let lab = Lab::start().await;
    let (ended, seen) = lab.build(lab.spec().on_error(OnError::Ask).build().unwrap()).await;
    assert!(ended.unwrap_err().to_string().contains("on_error: is `ask`, but there is no one to ask here"));
    assert!(seen.is_empty());
}

#[tokio::test]
async fn of_two_builds_of_one_name_one_wins() {
    let lab = Lab::start().await;
    let spec = |vmid: u32| lab.spec().vmid(vmid).build().unwrap();
    let ((first, _), (second, _)) = tokio::join!(lab.build(spec(9000)), lab.build(spec(9001)));
    let (won, lost) = match (first, second) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("{other:?}"),
    };
    assert!(lost.chain().contains("the name alma9-k3-node-amd64-v1.29.0-v1 is taken"), "{}", lost.chain());
    assert_eq!(lab.pve.vmids(), [won.vmid]);
}

#[tokio::test]
async fn many_builds_at_once_get_vmids_of_their_own() {
    let lab = Lab::start().await;
    let builds = (1..=12).map(|iteration| {
        let spec = image_build::ImageSpec::builder()
            .k3s_version("v1.29.0+k3s1".parse().unwrap())
            .name(format!("alma9-k3-node-amd64-v1.29.0-v{iteration}"))
            .ssh_port(lab.pve.guest_ssh_port())
            .build()
            .unwrap();
        lab.build(spec)
    });
    let mut vmids: Vec<u32> =
        futures_util::future::join_all(builds).await.into_iter().map(|(ended, _)| ended.map_err(|e| e.chain()).unwrap().vmid).collect();
    vmids.sort_unstable();
    assert_eq!(vmids, (100..112).collect::<Vec<u32>>());
}
