//! Builds that cannot end well: each names its cause and leaves the cluster as it was.

#[path = "../common/mod.rs"]
mod common;
mod in_guest;

use std::future::IntoFuture as _;
use std::time::Duration;

use common::old::{done, has, task_fails, vm};
use common::{Lab, finished, story};
use image_build::spec::{
    CommunicatorKind, FileContent, FileSpec, LocalFile, OnError, ProvisionerSpec, ShellSpec, Timeouts,
};
use image_build::{Error, EventKind, ImageSpec};
use proxmox_client::{Auth, Client, CreateVm, DeleteVm, Tls, VmConfigUpdate, Vmid};
use pve_emulator::engine::simulated::{Fault, FaultKind};
use pve_emulator::{FaultAction, Gate};
use tokio_util::sync::CancellationToken;

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
        "publish",
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
            // The conversion and the call that publishes are not torn: a cancel that comes with them comes too late.
            Ok(artifact) => {
                assert!(matches!(step, "template" | "publish"), "{step}");
                assert_eq!(artifact.vmid, 9000);
                assert!(finished(&seen).contains(&"publish".to_owned()));
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

/// A client whose builds the others of this process do not know: claims are made by address.
fn as_of_another_process(lab: &Lab) -> Client {
    Client::builder(lab.pve.url().replace("127.0.0.1", "localhost"))
        .auth(Auth::token(lab.pve.token_id(), lab.pve.token_secret()))
        .tls(Tls::Pinned(lab.pve.fingerprint().parse().expect("a fingerprint")))
        .build()
        .expect("a client")
}

/// The one with the lower vmid comes when the other has looked around already, which ends before its VM is a template: nobody gives way to
/// that.
#[tokio::test]
async fn the_lower_of_two_builds_of_one_name_wins_though_it_was_late() {
    let lab = Lab::start().await;
    let (_, volumes) = lab.inventory();
    let (begun, sealed) = (Gate::default(), Gate::default());
    lab.pve
        .fail_next("POST", "/nodes/*/storage/*/upload", FaultAction::Hold(begun.clone()));
    lab.pve.fail_next(
        "POST",
        "/nodes/*/qemu/9000/status/shutdown",
        FaultAction::Hold(sealed.clone()),
    );
    let late = lab.spec().vmid(9000).build().unwrap();
    let late = tokio::spawn(image_build::build(&lab.client, late).into_future());
    begun.reached().await;
    let held = Gate::default();
    lab.pve.fail_next(
        "POST",
        "/nodes/*/qemu/9001/status/shutdown",
        FaultAction::Hold(held.clone()),
    );
    let early = lab.spec().vmid(9001).on_error(OnError::Keep).build().unwrap();
    let early = tokio::spawn(image_build::build(&as_of_another_process(&lab), early).into_future());
    held.reached().await;
    begun.open();
    sealed.reached().await;
    held.open();
    let lost = early.await.unwrap().unwrap_err().chain();
    has(&lost, &["finalise failed", "is taken by guest 9000"]);
    sealed.open();
    late.await.unwrap().unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(lab.pve.vm_config(9001).unwrap().get("template"), None);
    assert_eq!(lab.pve.vm_config(9000).unwrap()["template"], "1");
    assert_eq!(lab.inventory().0, [9000, 9001]);
    assert!(lab.inventory().1.len() > volumes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_builds_at_once_get_vmids_of_their_own() {
    let lab = Lab::start().await;
    let builds = (1..=12).map(|iteration| {
        let spec = lab
            .open_spec()
            .name(format!("alma9-k3-node-amd64-v1.29.0-v{iteration}"))
            .ssh_timeout(LONG)
            .timeouts(Timeouts {
                install: LONG,
                task: LONG,
                shutdown: LONG,
                undo: LONG,
            })
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

/// So long nothing takes that is to succeed.
const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_lost_answer_ends_in_a_template_or_in_nothing() {
    for (method, path) in [
        ("POST", "/nodes/*/storage/*/upload"),
        ("POST", "/nodes/*/qemu"),
        ("POST", "/nodes/*/qemu/*/status/start"),
        ("PUT", "/nodes/*/qemu/*/config"),
        ("DELETE", "/nodes/*/storage/*/content/*"),
        ("POST", "/nodes/*/qemu/*/status/shutdown"),
        ("POST", "/nodes/*/qemu/*/template"),
    ] {
        for action in [
            FaultAction::LoseAnswer,
            FaultAction::Refuse,
            FaultAction::Status(500, "made for a test".to_owned()),
        ] {
            let lab = Lab::start().await;
            let before = lab.inventory();
            lab.pve.fail_next(method, path, action.clone());
            let (ended, seen) = lab.build(lab.spec().build().unwrap()).await;
            match ended {
                Ok(artifact) => {
                    assert_eq!(lab.pve.vmids(), [artifact.vmid], "{method} {path} {action:?}");
                    let volumes = lab.inventory().1;
                    assert!(
                        !volumes.iter().any(|v| v.contains("k3simage-build")),
                        "{method} {path} {action:?}: {volumes:?}"
                    );
                }
                Err(error) => {
                    // What was done is found, by looking.
                    let is_found = path.ends_with("/template") || path.ends_with("/shutdown");
                    assert!(
                        !(is_found && action == FaultAction::LoseAnswer),
                        "{method} {path}: {}",
                        error.chain()
                    );
                    assert_eq!(
                        lab.inventory(),
                        before,
                        "{method} {path} {action:?}: {}\n{}",
                        error.chain(),
                        story(&seen)
                    );
                    assert!(
                        matches!(&error, Error::Step { cleanup, .. } if cleanup.is_empty()),
                        "{}",
                        error.chain()
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn what_a_build_did_not_make_is_never_removed() {
    let lab = Lab::start().await;
    // Someone takes the vmid between preflight and create, while our own create call is on its way.
    let spec = lab.spec().build().unwrap();
    lab.pve
        .fail_next("POST", "/nodes/*/qemu", FaultAction::Delay(Duration::from_millis(300)));
    let node = lab.client.node(&"pve".parse().unwrap());
    let other = CreateVm::new().name("someone-elses");
    let (ended, _) = lab
        .build_until(spec, |kind| {
            if matches!(kind, EventKind::StepStarted { step } if step == "create") {
                let (vm, other) = (node.qemu(Vmid::new(9000).unwrap()), other.clone());
                tokio::spawn(async move { vm.create(&other).await });
            }
            false
        })
        .await;
    if let Ok(artifact) = &ended {
        // Our call came first after all; then the other one was refused by PVE.
        assert_eq!(artifact.vmid, 9000);
    } else {
        assert_eq!(
            lab.pve.vm_config(9000).expect("it is still there")["name"],
            "someone-elses"
        );
    }
}

/// Somebody deletes the build's VM, and the number is another VM's before the build writes there again.
#[tokio::test]
async fn a_vm_that_got_the_number_of_a_deleted_one_is_left_alone() {
    let lab = Lab::start().await;
    let (_, volumes) = lab.inventory();
    // The journal's first note, and the last change before the VM becomes a template.
    for skip in [0, 6] {
        let gate = Gate::default();
        lab.pve.fault(pve_emulator::Fault {
            when: pve_emulator::FaultMatch::PathAfter {
                method: "PUT".to_owned(),
                path: "/nodes/pve/qemu/9000/config".to_owned(),
                skip,
            },
            action: FaultAction::Hold(gate.clone()),
            times: 1,
        });
        let building = tokio::spawn(image_build::build(&lab.client, lab.spec().build().unwrap()).into_future());
        gate.reached().await;
        let own = vm(&lab, 9000);
        if own.status().await.unwrap().is_running() {
            done(&lab, own.stop().await.unwrap()).await;
        }
        done(&lab, own.delete(&DeleteVm::new()).await.unwrap()).await;
        let theirs = CreateVm::new()
            .name("theirs")
            .description("not of a build")
            .tags(["mine"]);
        done(&lab, own.create(&theirs).await.unwrap()).await;
        let before = lab.pve.vm_config(9000);
        gate.open();
        let error = building.await.unwrap().unwrap_err();
        has(&error.chain(), &["vm 9000", "another one, which is left alone"]);
        assert_eq!(lab.pve.vm_config(9000), before, "{}", error.chain());
        assert_eq!(lab.inventory(), (vec![9000], volumes.clone()), "{}", error.chain());
        done(&lab, own.delete(&DeleteVm::new()).await.unwrap()).await;
    }
}

/// The image's last entry is made on the look at the finished template; what changes after that is seen all the same.
#[tokio::test]
async fn a_template_that_others_change_before_it_is_published_is_looked_at_again() {
    for taken_over in [false, true] {
        let lab = Lab::start().await;
        let gate = Gate::default();
        // Preflight, after the creation, before the conversion, and at last.
        lab.pve.fault(pve_emulator::Fault {
            when: pve_emulator::FaultMatch::PathAfter {
                method: "GET".to_owned(),
                path: "/cluster/resources".to_owned(),
                skip: 3,
            },
            action: FaultAction::Hold(gate.clone()),
            times: 1,
        });
        let building = tokio::spawn(image_build::build(&lab.client, lab.spec().build().unwrap()).into_future());
        gate.reached().await;
        let config = lab.pve.vm_config(9000).unwrap();
        assert_eq!(config["template"], "1", "{config:?}");
        let update = if taken_over {
            let (before, after) = config["description"].split_once("\"holder\":\"").expect("a journal");
            VmConfigUpdate::new().description(format!("{before}\"holder\":\"another{after}"))
        } else {
            VmConfigUpdate::new().cores(7)
        };
        vm(&lab, 9000).update_config(&update).await.unwrap();
        let changed = lab.pve.vm_config(9000).unwrap();
        assert_ne!(changed, config);
        gate.open();
        let ended = building.await.unwrap();
        let now = lab.pve.vm_config(9000).unwrap();
        if taken_over {
            has(
                &ended.unwrap_err().chain(),
                &["publish failed", "names another builder"],
            );
            assert_eq!(now, changed);
        } else {
            ended.unwrap_or_else(|error| panic!("{}", error.chain()));
            assert_eq!(
                (now["cores"].as_str(), now["tags"].as_str()),
                ("7", "k3simage;v1.29.0+k3s1")
            );
        }
    }
}

#[tokio::test]
async fn a_removal_that_failed_can_be_done_again_at_once() {
    let lab = Lab::start().await;
    let before = lab.inventory();
    lab.guests.inject(Fault::always(FaultKind::ScriptExits {
        script: "seal.sh".to_owned(),
        code: 1,
    }));
    let (ended, _) = lab.build(lab.spec().on_error(OnError::Keep).build().unwrap()).await;
    assert_eq!(ended.unwrap_err().step(), Some("seal"));
    lab.pve.fault(task_fails("qmdestroy", 9000, "cannot remove"));
    let collect = async || {
        let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
        assert_eq!(found[0].state, image_build::gc::State::Dead, "{found:?}");
        let mut removed = Vec::new();
        let ended = image_build::gc::remove(&lab.client, &found[0], &CancellationToken::new(), &mut removed).await;
        ended.map(|()| removed)
    };
    let error = collect().await.unwrap_err();
    has(&error.chain(), &["cannot remove"]);
    assert_eq!(collect().await.unwrap(), ["vm 9000 on pve"]);
    assert_eq!(lab.inventory(), before);
}

/// A build with a file of this folder in it.
fn bringing(lab: &Lab, folder: &std::path::Path) -> ImageSpec {
    let file = FileSpec {
        name: "files/motd".to_owned(),
        content: FileContent::Local(LocalFile::read(folder.join("motd")).expect("the file is read")),
        destination: "/etc/motd".to_owned(),
        mode: 0o644,
    };
    let provisioners = std::iter::once(ProvisionerSpec::File(file)).chain(common::scripts());
    let spec = lab.spec().on_error(OnError::Keep).provisioners(provisioners.collect());
    spec.build().expect("a spec")
}

#[tokio::test]
async fn a_resumed_build_knows_a_file_by_what_it_holds() {
    let lab = Lab::start().await;
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&here, &there] {
        std::fs::write(folder.path().join("motd"), "welcome").unwrap();
    }
    lab.guests.inject(Fault::once(FaultKind::ScriptExits {
        script: "seal.sh".to_owned(),
        code: 1,
    }));
    let (ended, seen) = lab.build(bringing(&lab, here.path())).await;
    assert_eq!(ended.unwrap_err().step(), Some("seal"), "{}", story(&seen));
    let tags = lab.pve.vm_config(9000).unwrap()["tags"].clone();
    let build = tags.strip_prefix("k3simage-build-").expect("a build's tag").to_owned();

    std::fs::write(here.path().join("motd"), "go away").unwrap();
    let refused = image_build::resume(&lab.client, bringing(&lab, here.path()), build.as_str()).await;
    let text = refused.unwrap_err().chain();
    assert!(
        text.contains("has changed since it began: provisioner 1 (files/motd);"),
        "{text}"
    );
    let resumed = image_build::resume(&lab.client, bringing(&lab, there.path()), build.as_str()).await;
    assert_eq!(resumed.map_err(|error| error.chain()).unwrap().vmid, 9000);
}

#[tokio::test]
async fn a_file_that_changes_under_a_build_is_named() {
    let lab = Lab::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("motd"), "welcome").unwrap();
    let mut spec = bringing(&lab, folder.path());
    spec.on_error = OnError::Cleanup;
    std::fs::write(folder.path().join("motd"), "go away").unwrap();
    let text = refused(&lab, spec).await;
    assert!(
        text.starts_with("provision failed: ") && text.contains("motd: it has been changed since"),
        "{text}"
    );
}

#[tokio::test]
async fn an_outage_of_a_moment_fails_no_read_at_the_end_of_a_build() {
    // From the moment at which the guest is told to shut down; the client by itself repeats a read once.
    for (path, skip) in [
        ("/cluster/resources", 0),
        ("/cluster/resources", 1),
        ("/nodes/*/qemu/*/config", 0),
        ("/nodes/*/qemu/*/config", 1),
    ] {
        let lab = Lab::start().await;
        let gate = pve_emulator::Gate::default();
        lab.pve.fail_next(
            "POST",
            "/nodes/*/qemu/*/status/shutdown",
            FaultAction::Hold(gate.clone()),
        );
        let outage = async {
            gate.reached().await;
            lab.pve.fault(pve_emulator::Fault {
                when: pve_emulator::FaultMatch::PathAfter {
                    method: "GET".to_owned(),
                    path: path.to_owned(),
                    skip,
                },
                action: FaultAction::Refuse,
                times: 4,
            });
            gate.open();
        };
        let (build, ()) = tokio::join!(lab.build(lab.spec().build().unwrap()), outage);
        let (ended, seen) = build;
        ended.unwrap_or_else(|error| panic!("{path} after {skip}: {}\n{}", error.chain(), story(&seen)));
        assert_eq!(lab.pve.waiting_faults(), 0, "{path} after {skip}");
    }
}
