//! Builds that cannot end well: each names its cause and leaves the cluster as it was.

mod common;

use common::{Lab, finished, story};
use image_build::spec::{OnError, ProvisionerSpec, ShellSpec};
use image_build::{Error, EventKind, ImageSpec};
use pve_emulator::engine::simulated::{Fault, FaultKind};

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
async fn a_failing_script_is_named_with_its_last_lines() {
    let lab = Lab::start().await;
    let failing = ShellSpec::new("check.sh", "#!/bin/bash\nset -euo pipefail\nexit 7\n");
    lab.guests.inject(Fault::always(FaultKind::ScriptExits {
        script: "check.sh".to_owned(),
        code: 7,
    }));
    let spec = lab
        .spec()
        .provisioners(vec![ProvisionerSpec::Shell(failing)])
        .build()
        .unwrap();
    let text = refused(&lab, spec).await;
    assert!(
        text.starts_with("provision failed: check.sh ended with exit code 7; its last lines: "),
        "{text}"
    );
}

#[tokio::test]
async fn cancel_in_each_step_leaves_nothing() {
    let lab = Lab::start().await;
    let before = lab.inventory();
    for step in [
        "preflight",
        "reserve",
        "media",
        "create",
        "install",
        "connect",
        "provision",
        "seal",
        "shut_down",
        "finalise",
        "template",
    ] {
        let spec = lab.spec().build().unwrap();
        let at = |kind: &EventKind| matches!(kind, EventKind::StepStarted { step: begun } if begun == step);
        let (ended, seen) = lab.build_until(spec, at).await;
        match ended {
            Err(error) => {
                assert!(error.is_cancelled(), "{step}: {}", error.chain());
                assert!(
                    matches!(&error, Error::Step { cleanup, kept, .. } if cleanup.is_empty() && kept.is_empty()),
                    "{error}"
                );
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
    lab.guests.inject(Fault::always(FaultKind::ScriptExits {
        script: "seal.sh".to_owned(),
        code: 1,
    }));
    let (ended, _) = lab.build(lab.spec().on_error(OnError::Keep).build().unwrap()).await;
    let text = ended.unwrap_err().to_string();
    assert_eq!(text, "seal failed (kept: vm 9000 on pve)");
    assert_eq!(lab.pve.vmids(), [9000]);
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
    assert!(
        lost.chain()
            .contains("the name alma9-k3-node-amd64-v1.29.0-v1 is taken"),
        "{}",
        lost.chain()
    );
    assert_eq!(lab.pve.vmids(), [won.vmid]);
}

#[tokio::test]
async fn many_builds_at_once_get_vmids_of_their_own() {
    let lab = Lab::start().await;
    let builds = (1..=12).map(|iteration| {
        let spec = lab
            .open_spec()
            .name(format!("alma9-k3-node-amd64-v1.29.0-v{iteration}"))
            .build()
            .unwrap();
        lab.build(spec)
    });
    let mut vmids: Vec<u32> = futures_util::future::join_all(builds)
        .await
        .into_iter()
        .map(|(ended, _)| ended.map_err(|e| e.chain()).unwrap().vmid)
        .collect();
    vmids.sort_unstable();
    assert_eq!(vmids, (100..112).collect::<Vec<u32>>());
}
