//! Builds that take the place of a template and its vmid: both are moved by full copies after the image is complete, and whatever breaks,
//! the image stays complete under its name, nothing half made stays, and the old one is never lost before its copy is whole.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::time::Duration;

use common::old::{
    Config, NAME, NEW, OLD, Run, builder, clone, config, done, gc, has, is_image, named, of, replace, replace_around,
    replace_until, same, task_fails, vm, with_old,
};
use common::{Lab, finished};
use image_build::gc::State;
use image_build::plan::{Level, plan_replacing};
use image_build::spec::OnError;
use image_build::{Artifact, Error, EventKind, OldTemplate, PlanReport, Replace};
use proxmox_client::{
    Auth, Client, CloneVm, CreateVm, DeleteVm, Method, TaskFilter, Tls, Upid, VmConfigUpdate, VolId, Wait,
};
use pve_emulator::engine::simulated::SimulatedOptions;
use pve_emulator::{Emulator, Fault, FaultAction, FaultMatch, StorageSpec, TaskFault};
use tokio_util::sync::CancellationToken;

/// Where an old one that is kept goes.
const MOVED: u32 = 102;

/// The swap alone: what a verification finds is of no interest here.
fn quick(old: OldTemplate) -> Replace {
    Replace::new(old).verify(false)
}

async fn run(lab: &Lab, old: OldTemplate) -> Run {
    replace(lab, same(lab), quick(old)).await
}

/// The swap, held at the next call of a kind.
async fn run_around(lab: &Lab, old: OldTemplate, method: &str, path: &str, between: impl AsyncFnOnce()) -> Run {
    replace_around(lab, (same(lab), quick(old)), (method, path), between).await
}

async fn linked_clone(lab: &Lab, of: u32, to: u32) {
    clone(lab, of, to, false).await;
}

/// A finished image, and the only one of the name.
#[track_caller]
fn is_the_image(lab: &Lab, vmid: u32) -> Config {
    assert_eq!(named(lab, NAME), [vmid]);
    is_image(lab, vmid)
}

/// An image that is complete at the number that it was built at, while its build has not ended.
#[track_caller]
fn is_complete_at(lab: &Lab, vmid: u32) {
    assert_eq!(named(lab, NAME), [vmid]);
    let config = config(lab, vmid);
    assert_eq!(config["template"], "1");
    assert!(config["tags"].split(';').any(|tag| tag == "k3simage"), "{config:?}");
}

/// The old one as the swap leaves it, where it was or moved.
#[track_caller]
fn is_retired(lab: &Lab, vmid: u32, build: &str) {
    let config = config(lab, vmid);
    assert_eq!(config["name"], format!("{NAME}-retired-{build}"));
    assert_eq!(config["tags"], "k3simage-retired;v1.29.0+k3s1");
    assert_eq!(config["template"], "1");
    assert!(
        config["scsi0"].contains(&format!("{vmid}/base-{vmid}-disk")),
        "{config:?}"
    );
}

/// The id of the build whose mark a template bears.
fn build_of(lab: &Lab, vmid: u32) -> String {
    let tags = config(lab, vmid)["tags"].clone();
    let build = tags.split(';').find_map(|tag| tag.strip_prefix("k3simage-build-"));
    build.unwrap_or_else(|| panic!("{tags}")).to_owned()
}

async fn resume(lab: &Lab, build: &str) -> Artifact {
    let resumed = image_build::resume(&lab.client, same(lab), build).await;
    resumed.unwrap_or_else(|error| panic!("{}", error.chain()))
}

#[tokio::test]
async fn the_new_one_gets_the_vmid_and_the_old_one_another() {
    let lab = with_old().await;
    let before = config(&lab, OLD);
    let report = plan_replacing(&lab.client, &same(&lab), &OldTemplate::Retire.into())
        .await
        .unwrap();
    assert!(report.is_ok(), "{report:?}");
    assert_eq!((report.replaces, report.vmid), (Some(OLD), Some(OLD)));
    has(
        &report.summary(),
        &["gets vmid 100 at the end, and the old one another", "two full copies, "],
    );

    let run = replace(&lab, same(&lab), OldTemplate::Retire).await;
    let artifact = run.artifact();
    let steps = finished(&run.seen);
    assert_eq!(
        steps[steps.len() - 5..],
        ["verify", "retire", "publish", "move_old", "renumber"]
    );
    assert_eq!((artifact.vmid, artifact.name.as_str()), (OLD, NAME));
    let told = artifact.replaced.clone().unwrap();
    let retired = format!("{NAME}-retired-{}", artifact.build_id);
    assert_eq!((told.vmid, told.kept_as), (MOVED, Some(retired.clone())));
    let new = is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &artifact.build_id);
    assert_eq!(lab.pve.vmids(), [OLD, MOVED]);
    assert!(
        lab.pve.volids("pve").iter().all(|volume| !volume.contains("101")),
        "{:?}",
        lab.pve.volids("pve")
    );
    assert_eq!(run.warnings(), "");

    // The old one is what it was, but for what makes a VM itself.
    let mut moved = config(&lab, MOVED);
    for own in ["vmgenid", "smbios1", "net0", "scsi0", "scsi1", "tags", "name"] {
        let (old, now) = (before.get(own), moved.remove(own));
        assert!(old.is_none() || old != now.as_ref(), "{own} is the same");
        moved.extend(old.map(|old| (own.to_owned(), old.clone())));
    }
    assert_eq!(moved, before);
    assert_ne!(new["description"], before["description"]);

    // And once more, with the retired one in the way of nothing.
    let next = replace(&lab, same(&lab), quick(OldTemplate::Delete)).await;
    assert_eq!(next.artifact().vmid, OLD);
    is_the_image(&lab, OLD);
    assert_eq!(lab.pve.vmids(), [OLD, MOVED]);
}

#[tokio::test]
async fn an_old_one_that_is_deleted_leaves_its_vmid() {
    let lab = with_old().await;
    let report = plan_replacing(&lab.client, &same(&lab), &OldTemplate::Delete.into())
        .await
        .unwrap();
    has(&report.summary(), &["gets vmid 100 at the end (one full copy, "]);
    let run = run(&lab, OldTemplate::Delete).await;
    let steps = finished(&run.seen);
    assert_eq!(
        steps[steps.len() - 4..],
        ["retire", "publish", "delete_old", "renumber"]
    );
    let told = run.artifact().replaced.clone().unwrap();
    assert_eq!((run.artifact().vmid, told.vmid, told.kept_as), (OLD, OLD, None));
    is_the_image(&lab, OLD);
    assert_eq!(lab.pve.vmids(), [OLD]);
    // Jobs that name the number go on to mean the image, so nothing was purged of it.
    let get = async |path: String| lab.client.request(Method::GET, &path, &[]).await.unwrap().to_string();
    let tasks = lab.client.request(Method::GET, "/nodes/pve/tasks", &[]).await.unwrap();
    let upid = |vmid: &str| {
        let of = |task: &&serde_json::Value| task["type"] == "qmdestroy" && task["id"] == vmid;
        tasks.as_array().unwrap().iter().find(of).unwrap()["upid"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let log = |vmid: &str| get(format!("/nodes/pve/tasks/{}/log", upid(vmid)));
    assert!(!log("100").await.contains("purging"));
    assert!(log("101").await.contains("purging VM 101"));
}

#[tokio::test]
async fn on_thin_storage_it_is_the_same() {
    let lab = Lab::start().await;
    let spec = || lab.open_spec().name(NAME).vmid(OLD).build().unwrap();
    lab.build(spec()).await.0.unwrap();
    let run = replace(&lab, spec(), quick(OldTemplate::Retire)).await;
    assert_eq!(run.artifact().vmid, OLD);
    assert_eq!((named(&lab, NAME), lab.pve.vmids()), (vec![OLD], vec![OLD, MOVED]));
    assert!(config(&lab, OLD)["scsi0"].starts_with("local-lvm:base-100-disk-0,"));
}

#[tokio::test]
async fn a_vmid_that_nobody_has_is_taken_as_ever() {
    let lab = with_old().await;
    let spec = builder(&lab).vmid(9000).build().unwrap();
    let run = replace(&lab, spec, quick(OldTemplate::Retire)).await;
    assert_eq!(run.artifact().vmid, 9000);
    is_retired(&lab, OLD, &run.artifact().build_id);
    assert_eq!((named(&lab, NAME), lab.pve.vmids()), (vec![9000], vec![OLD, 9000]));
}

#[tokio::test]
async fn too_little_room_for_the_copies_is_told_before() {
    let gib = |size: u64| size << 30;
    let lab = of(StorageSpec::dir("local", "/var/lib/vz").total_bytes(gib(50))).await;
    lab.build(same(&lab)).await.0.unwrap();
    let warnings = async |how: OldTemplate| {
        let report: PlanReport = plan_replacing(&lab.client, &same(&lab), &how.into()).await.unwrap();
        assert!(report.is_ok(), "{report:?}");
        report.at(Level::Warning).map(ToString::to_string).collect::<Vec<_>>()
    };
    let told = warnings(OldTemplate::Retire).await;
    assert_eq!(told.len(), 1, "{told:?}");
    has(&told[0], &["`local`", "takes up to", "exchange of vmids", "vm_id to 0"]);
    assert_eq!(warnings(OldTemplate::Delete).await, [""; 0]);
}

/// What fails, and where the old one is then.
#[tokio::test]
async fn a_copy_that_fails_leaves_the_image_where_it_was_built() {
    let no_space = "clone failed: no space left on device";
    let denied = FaultAction::Status(403, "Permission check failed (/vms, VM.Allocate)".to_owned());
    let at = |method: &str, path: &str| Fault {
        when: FaultMatch::Path {
            method: method.to_owned(),
            path: path.to_owned(),
        },
        action: denied.clone(),
        times: 1,
    };
    for (fault, step, old_at) in [
        (task_fails("qmclone", OLD, no_space), "move_old", OLD),
        (at("POST", "/nodes/pve/qemu/100/clone"), "move_old", OLD),
        (task_fails("qmtemplate", MOVED, "no"), "move_old", OLD),
        (task_fails("qmdestroy", OLD, "cannot remove"), "move_old", OLD),
        (task_fails("qmclone", NEW, no_space), "renumber", MOVED),
        (at("POST", "/nodes/pve/qemu/101/clone"), "renumber", MOVED),
        (task_fails("qmtemplate", OLD, "no"), "renumber", MOVED),
    ] {
        let lab = with_old().await;
        lab.pve.fault(fault.clone());
        let run = run(&lab, OldTemplate::Retire).await;
        let (error, what) = (run.error(), format!("{fault:?}"));
        assert_eq!(error.step(), Some(step), "{what}: {}", error.chain());
        has(
            &error.chain(),
            &[
                NAME,
                "is complete as template 101, but does not have vmid 100 yet",
                "k3simage resume",
                "gc --yes",
            ],
        );
        is_complete_at(&lab, NEW);
        let build = build_of(&lab, NEW);
        is_retired(&lab, old_at, &build);
        assert_eq!(
            lab.pve.vmids(),
            if old_at == OLD {
                vec![OLD, NEW]
            } else {
                vec![NEW, MOVED]
            },
            "{what}"
        );
        // What is kept on purpose is the image.
        assert!(
            matches!(error, Error::Step { kept, cleanup, .. } if *kept == ["vm 101 on pve"] && cleanup.is_empty()),
            "{error}"
        );
        let artifact = resume(&lab, &build).await;
        let told = artifact.replaced.unwrap();
        assert_eq!((artifact.vmid, told.vmid), (OLD, MOVED), "{what}");
        is_the_image(&lab, OLD);
        is_retired(&lab, MOVED, &build);
        assert_eq!(lab.pve.vmids(), [OLD, MOVED], "{what}");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_handed_over_is_given_back() {
    let lab = with_old().await;
    // The first is that of the swap.
    lab.pve.fault(Fault {
        when: FaultMatch::PathAfter {
            method: "PUT".to_owned(),
            path: "/nodes/pve/qemu/100/config".to_owned(),
            skip: 2,
        },
        action: FaultAction::Status(403, "Permission check failed (/vms/100, VM.Config.Options)".to_owned()),
        times: 1,
    });
    let run = run(&lab, OldTemplate::Retire).await;
    assert_eq!(run.error().step(), Some("renumber"), "{}", run.error().chain());
    is_complete_at(&lab, NEW);
    let build = build_of(&lab, NEW);
    is_retired(&lab, MOVED, &build);
    assert_eq!(lab.pve.vmids(), [NEW, MOVED]);
    let removed = gc(&lab).await;
    assert_eq!(removed.len(), 1, "{removed:?}");
    is_the_image(&lab, NEW);
    is_retired(&lab, MOVED, &build);
}

#[tokio::test]
async fn a_first_template_that_cannot_be_deleted_is_told_and_collected() {
    let lab = with_old().await;
    lab.pve.fault(task_fails("qmdestroy", NEW, "cannot remove"));
    let run = run(&lab, OldTemplate::Delete).await;
    has(
        &run.error().chain(),
        &["is complete as template 100, but template 101, which it was built as, is still there"],
    );
    is_the_image(&lab, OLD);
    assert_eq!(lab.pve.vmids(), [OLD, NEW]);
    let removed = gc(&lab).await.join(", ");
    has(&removed, &["template 101 on pve"]);
    is_the_image(&lab, OLD);
    assert_eq!(lab.pve.vmids(), [OLD]);
}

#[tokio::test]
async fn linked_clones_that_appear_keep_the_old_one_and_its_vmid() {
    // Before it is copied, and while it is.
    for (method, path, old) in [
        ("POST", "/nodes/pve/qemu/101/template", OldTemplate::Retire),
        ("POST", "/nodes/pve/qemu/102/template", OldTemplate::Retire),
        ("POST", "/nodes/pve/qemu/101/template", OldTemplate::Delete),
    ] {
        let lab = with_old().await;
        let run = run_around(&lab, old, method, path, async || linked_clone(&lab, OLD, 500).await).await;
        let artifact = run.artifact();
        assert_eq!(artifact.vmid, NEW, "{path}");
        let told = artifact.replaced.clone().unwrap();
        assert_eq!(told.vmid, OLD);
        is_the_image(&lab, NEW);
        is_retired(&lab, OLD, &artifact.build_id);
        assert_eq!(config(&lab, OLD)["name"], told.kept_as.unwrap());
        assert_eq!(lab.pve.vmids(), [OLD, NEW, 500], "{path}");
        has(
            &run.warnings(),
            &["keeps vmid 101", "does not get 100", "linked clones", "vm 500"],
        );
        assert_eq!(run.warnings().lines().count(), 1, "{}", run.warnings());
    }
    // What PVE alone sees.
    let lab = with_old().await;
    let in_use = "base volume 'local:100/base-100-disk-0.qcow2' is still in use by linked cloned";
    lab.pve.fault(task_fails("qmdestroy", OLD, in_use));
    let run = run(&lab, OldTemplate::Retire).await;
    assert_eq!(run.artifact().vmid, NEW);
    is_retired(&lab, OLD, &run.artifact().build_id);
    assert_eq!(lab.pve.vmids(), [OLD, NEW]);
}

#[tokio::test]
async fn linked_clones_of_the_new_one_keep_what_it_was_built_as() {
    let lab = with_old().await;
    let clone = async || linked_clone(&lab, NEW, 500).await;
    let run = run_around(&lab, OldTemplate::Retire, "POST", "/nodes/pve/qemu/102/template", clone).await;
    assert_eq!(run.artifact().vmid, OLD);
    is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &run.artifact().build_id);
    let kept = config(&lab, NEW);
    assert_eq!(kept["name"], format!("{NAME}-moved-{}", run.artifact().build_id));
    assert_eq!(kept["tags"], "k3simage-retired;v1.29.0+k3s1");
    assert!(!kept["description"].contains("k3simage-journal"), "{kept:?}");
    has(
        &run.warnings(),
        &["template 101", "is kept as", "linked clones", "vm 500"],
    );
    assert!(config(&lab, 500)["scsi0"].contains("101/base-101-disk"));
}

#[tokio::test]
async fn a_vmid_that_somebody_takes_is_tried_elsewhere_or_named() {
    let make = async |lab: &Lab, vmid: u32| {
        done(lab, vm(lab, vmid).create(&CreateVm::new().name("quick")).await.unwrap()).await;
    };
    // The old one goes to the next.
    let lab = with_old().await;
    let run = run_around(
        &lab,
        OldTemplate::Retire,
        "POST",
        "/nodes/pve/qemu/100/clone",
        async || {
            make(&lab, MOVED).await;
        },
    )
    .await;
    assert_eq!(run.artifact().vmid, OLD);
    is_retired(&lab, 103, &run.artifact().build_id);
    assert_eq!(lab.pve.vmids(), [OLD, MOVED, 103]);
    // The one that was to be had is lost.
    let lab = with_old().await;
    let run = run_around(
        &lab,
        OldTemplate::Retire,
        "POST",
        "/nodes/pve/qemu/101/clone",
        async || {
            make(&lab, OLD).await;
        },
    )
    .await;
    assert_eq!(run.artifact().vmid, NEW);
    is_the_image(&lab, NEW);
    is_retired(&lab, MOVED, &run.artifact().build_id);
    has(&run.warnings(), &["keeps vmid 101", "vmid 100 is taken"]);
    assert_eq!(config(&lab, OLD)["name"], "quick");
}

#[tokio::test]
async fn an_old_one_that_somebody_changed_or_deleted_is_left_to_them() {
    let lab = with_old().await;
    let rename = async || {
        let update = VmConfigUpdate::new().name("mine").tags(["archive"]);
        vm(&lab, OLD).update_config(&update).await.unwrap();
    };
    let run = run_around(
        &lab,
        OldTemplate::Retire,
        "POST",
        "/nodes/pve/qemu/102/template",
        rename,
    )
    .await;
    assert_eq!(run.artifact().vmid, NEW);
    has(&run.warnings(), &["keeps vmid 101", "mine", "somebody has changed it"]);
    assert_eq!(
        (config(&lab, OLD)["name"].as_str(), lab.pve.vmids()),
        ("mine", vec![OLD, NEW])
    );

    let lab = with_old().await;
    let delete = async || {
        let everything = proxmox_client::DeleteVm::new();
        done(&lab, vm(&lab, OLD).delete(&everything).await.unwrap()).await;
    };
    let run = run_around(
        &lab,
        OldTemplate::Retire,
        "POST",
        "/nodes/pve/qemu/102/template",
        delete,
    )
    .await;
    // The copy was nearly made, and is all that there is.
    assert_eq!(run.artifact().vmid, OLD);
    is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &run.artifact().build_id);
}

#[tokio::test]
async fn cancel_ends_a_copy_and_nothing_that_takes_seconds() {
    for step in ["publish", "move_old", "renumber"] {
        let lab = with_old().await;
        let at = |kind: &EventKind| matches!(kind, EventKind::StepStarted { step: begun } if begun == step);
        let run = replace_until(&lab, same(&lab), quick(OldTemplate::Retire), at).await;
        match &run.ended {
            // A cancel before the call that publishes takes all back.
            Err(error) if error.step() == Some("publish") => {
                assert_eq!((named(&lab, NAME), lab.pve.vmids()), (vec![OLD], vec![OLD]));
            }
            Err(error) => {
                assert!(error.is_cancelled(), "{step}: {}", error.chain());
                has(&error.chain(), &["is complete as template 101", "k3simage resume"]);
                is_complete_at(&lab, NEW);
                let build = build_of(&lab, NEW);
                let old = if lab.pve.vmids().contains(&OLD) { OLD } else { MOVED };
                is_retired(&lab, old, &build);
                assert_eq!(lab.pve.vmids().len(), 2, "{step}: {:?}", lab.pve.vmids());
                assert_eq!(resume(&lab, &build).await.vmid, OLD);
                is_the_image(&lab, OLD);
                is_retired(&lab, MOVED, &build);
                assert_eq!(lab.pve.vmids(), [OLD, MOVED], "{step}");
            }
            // It came when there were but calls of seconds left.
            Ok(_) => {
                is_the_image(&lab, OLD);
                assert_eq!(lab.pve.vmids(), [OLD, MOVED], "{step}");
            }
        }
    }
    // In the middle of each copy, whose task is stopped.
    for (of, number, left) in [(OLD, MOVED, vec![OLD, NEW]), (NEW, OLD, vec![NEW, MOVED])] {
        let lab = with_old().await;
        lab.pve.fault(Fault {
            when: FaultMatch::Task {
                kind: "qmclone".to_owned(),
                id: of.to_string(),
            },
            action: FaultAction::Task(TaskFault::Hangs),
            times: 1,
        });
        let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let build = image_build::build(&lab.client, same(&lab))
            .events(to)
            .cancel(cancel.clone())
            .replace(quick(OldTemplate::Retire));
        let running = tokio::spawn(async move { build.await });
        // The other copy, which does not hang, may be seen too.
        let locked = || {
            let copy = lab.pve.vm_config(number);
            copy.is_some_and(|config| config.get("lock").is_some_and(|lock| lock == "clone"))
        };
        while !locked() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            while events.try_recv().is_ok() {}
        }
        cancel.cancel();
        let error = running.await.unwrap().unwrap_err();
        assert!(error.is_cancelled(), "{}", error.chain());
        is_complete_at(&lab, NEW);
        assert_eq!(lab.pve.vmids(), left, "{of}");
    }
}

#[tokio::test]
async fn lost_answers_do_not_break_the_exchange() {
    for (method, path) in [
        ("POST", "/nodes/pve/qemu/100/clone"),
        ("POST", "/nodes/pve/qemu/102/template"),
        ("DELETE", "/nodes/pve/qemu/100"),
        ("PUT", "/nodes/pve/qemu/102/config"),
        ("POST", "/nodes/pve/qemu/101/clone"),
        ("POST", "/nodes/pve/qemu/100/template"),
        ("DELETE", "/nodes/pve/qemu/101"),
    ] {
        let lab = with_old().await;
        lab.pve.fail_next(method, path, FaultAction::LoseAnswer);
        let run = run(&lab, OldTemplate::Retire).await;
        assert_eq!(run.artifact().vmid, OLD, "{method} {path}");
        is_the_image(&lab, OLD);
        is_retired(&lab, MOVED, &run.artifact().build_id);
        assert_eq!(lab.pve.vmids(), [OLD, MOVED], "{method} {path}");
    }
}

#[tokio::test]
async fn a_kept_build_is_collected_without_its_image() {
    let lab = with_old().await;
    lab.pve.fault(task_fails("qmclone", NEW, "no"));
    let keeping = builder(&lab).vmid(OLD).on_error(OnError::Keep).build().unwrap();
    let run = replace(&lab, keeping, quick(OldTemplate::Retire)).await;
    assert_eq!(run.error().step(), Some("renumber"));
    let build = build_of(&lab, NEW);
    let removed = gc(&lab).await;
    assert_eq!(removed, ["the build's mark on template 101 on pve, which is complete"]);
    is_the_image(&lab, NEW);
    is_retired(&lab, MOVED, &build);
    assert_eq!(lab.pve.vmids(), [NEW, MOVED]);
}

/// A person's clone of the template bears its journal and tag; a copy bears the build's name, and the journal its number.
#[tokio::test]
async fn what_a_dead_builder_had_half_made_is_told_from_what_people_made() {
    let lab = with_old().await;
    lab.pve.fault(task_fails("qmclone", NEW, "no"));
    run(&lab, OldTemplate::Retire).await.error();
    let build = build_of(&lab, NEW);
    // As a builder leaves it that dies between the copy and its conversion, with the name gone from the one and not yet at the other.
    let copy = CloneVm::new(OLD.try_into().unwrap())
        .name(format!("k3simage-copy-{build}"))
        .full(true);
    done(&lab, vm(&lab, NEW).clone_to(&copy).await.unwrap()).await;
    let nameless = VmConfigUpdate::new()
        .name(format!("k3simage-build-{build}"))
        .tags([format!("k3simage-build-{build}"), "v1.29.0+k3s1".to_owned()]);
    vm(&lab, NEW).update_config(&nameless).await.unwrap();
    let mine = CloneVm::new(600.try_into().unwrap()).name("mine").full(true);
    done(&lab, vm(&lab, NEW).clone_to(&mine).await.unwrap()).await;
    let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
    let things: Vec<String> = found[0].things.iter().map(ToString::to_string).collect();
    assert_eq!(
        things,
        [
            "the build's mark on template 101 on pve, which is complete",
            "the copy 100 on pve, which is not needed"
        ]
    );
    gc(&lab).await;
    is_the_image(&lab, NEW);
    assert_eq!(lab.pve.vmids(), [NEW, MOVED, 600]);
}

/// A build whose deletion of the old one outlasts its limit. `lost`: the answer to the call that began it is lost too. The build's id, and the
/// deletion's task, which does nothing until somebody stops it.
async fn with_a_deletion_that_hangs(lab: &Lab, lost: bool) -> (String, Upid) {
    lab.pve.fault(Fault {
        when: FaultMatch::Task {
            kind: "qmdestroy".to_owned(),
            id: OLD.to_string(),
        },
        action: FaultAction::Task(TaskFault::Hangs),
        times: 1,
    });
    if lost {
        lab.pve
            .fail_next("DELETE", "/nodes/pve/qemu/100", FaultAction::LoseAnswer);
    }
    let mut spec = same(lab);
    spec.timeouts.task = Duration::from_secs(8);
    let run = replace(lab, spec, quick(OldTemplate::Retire)).await;
    let text = run.error().chain();
    let (still, copy) = (
        "template 100: Proxmox VE still deletes it (task UPID:pve:",
        "its copy, vm 102, is not removed",
    );
    has(
        &text,
        &[
            "is complete as template 101, but does not have vmid 100 yet",
            still,
            copy,
        ],
    );
    is_complete_at(lab, NEW);
    assert_eq!(lab.pve.vmids(), [OLD, NEW, MOVED]);
    let build = build_of(lab, NEW);

    // Nobody else removes the copy meanwhile either.
    let living = "it counts as living until Proxmox VE has deleted template 100";
    let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
    assert_eq!(found[0].state, State::Alive, "{found:?}");
    assert_eq!(found[0].because, living);
    let refused = image_build::resume(&lab.client, same(lab), build.as_str()).await;
    has(&refused.unwrap_err().chain(), &[living]);

    let filter = TaskFilter {
        kind: Some("qmdestroy".to_owned()),
        vmid: Some(OLD.try_into().unwrap()),
        with_active: true,
        ..TaskFilter::default()
    };
    let node = lab.client.node(&"pve".parse().unwrap());
    let tasks = node.tasks(&filter).await.unwrap();
    let [task] = tasks.as_slice() else {
        panic!("the deletion was asked for more than once: {tasks:?}")
    };
    (build, task.upid.clone())
}

async fn stop(lab: &Lab, upid: &Upid) {
    let node = lab.client.node(&upid.node());
    node.task(upid).stop().await.unwrap();
    let ended = lab.client.wait_task(upid, Wait::at_most(Duration::from_secs(60))).await;
    ended.unwrap_err();
}

#[tokio::test]
async fn while_the_old_one_is_being_deleted_its_copy_stays() {
    // The deletion ends well after all.
    let ends = async {
        let lab = with_old().await;
        let (build, task) = with_a_deletion_that_hangs(&lab, true).await;
        let all = DeleteVm::new().unreferenced_disks(true);
        done(&lab, vm(&lab, OLD).delete(&all).await.unwrap()).await;
        stop(&lab, &task).await;
        let removed = gc(&lab).await.join(", ");
        has(
            &removed,
            &["the build's mark on template 102 on pve, which is the old one, moved"],
        );
        is_the_image(&lab, NEW);
        is_retired(&lab, MOVED, &build);
        assert_eq!(lab.pve.vmids(), [NEW, MOVED]);
    };
    // It ends before it has done anything.
    let fails = async {
        let lab = with_old().await;
        let (build, task) = with_a_deletion_that_hangs(&lab, false).await;
        stop(&lab, &task).await;
        is_retired(&lab, OLD, &build);
        assert_eq!(resume(&lab, &build).await.vmid, OLD);
        is_the_image(&lab, OLD);
        is_retired(&lab, MOVED, &build);
        assert_eq!(lab.pve.vmids(), [OLD, MOVED]);
    };
    // It ends in the middle: what is left of the old one is no template.
    let breaks = async {
        let lab = with_old().await;
        let (_, task) = with_a_deletion_that_hangs(&lab, false).await;
        stop(&lab, &task).await;
        let volid: VolId = config(&lab, OLD)["scsi0"].split(',').next().unwrap().parse().unwrap();
        let storage = lab.client.node(&"pve".parse().unwrap()).storage(&volid.storage());
        if let Some(upid) = storage.delete(&volid).await.unwrap() {
            done(&lab, upid).await;
        }
        let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
        let error = image_build::gc::remove(&lab.client, &found[0], &CancellationToken::new(), &mut Vec::new()).await;
        let text = error.unwrap_err().chain();
        has(
            &text,
            &["template 100", "its disk scsi0", "its copy, vm 102, is not removed"],
        );
        assert_eq!(lab.pve.vmids(), [OLD, NEW, MOVED]);
    };
    tokio::join!(ends, fails, breaks);
}

#[tokio::test]
async fn once_it_is_published_every_error_says_where_the_image_is() {
    let config = "/nodes/pve/qemu/101/config";
    // Before the old one is deleted the new one is looked at; between the two calls of the swap that look is the second one to come. What is
    // written down when `renumber` begins is the first change after the deletion.
    for (held, method, skip, step, what) in [
        (
            ("PUT", "/nodes/pve/qemu/100/config"),
            "GET",
            1,
            "delete_old",
            "but template 100, which it replaced, is not deleted yet",
        ),
        (
            ("DELETE", "/nodes/pve/qemu/100"),
            "PUT",
            0,
            "renumber",
            "but does not have vmid 100 yet",
        ),
    ] {
        let lab = with_old().await;
        let deny = async || {
            lab.pve.fault(Fault {
                when: FaultMatch::PathAfter {
                    method: method.to_owned(),
                    path: config.to_owned(),
                    skip,
                },
                action: FaultAction::Status(403, "Permission check failed (/vms/101, VM.Audit)".to_owned()),
                times: 1,
            });
        };
        let run = run_around(&lab, OldTemplate::Delete, held.0, held.1, deny).await;
        let text = run.error().chain();
        assert_eq!(run.error().step(), Some(step), "{text}");
        has(&text, &["is complete as template 101, ", what, "k3simage resume"]);
        is_complete_at(&lab, NEW);
        let build = build_of(&lab, NEW);
        assert_eq!(resume(&lab, &build).await.vmid, OLD);
        is_the_image(&lab, OLD);
        assert_eq!(lab.pve.vmids(), [OLD]);
    }
}

/// The folder that finishes it may not be the one that began it.
#[tokio::test]
async fn a_complete_image_keeps_its_own_tags_and_pool() {
    let lab = with_old().await;
    lab.pve
        .fault(task_fails("qmclone", OLD, "clone failed: no space left on device"));
    run(&lab, OldTemplate::Retire).await.error();
    let build = build_of(&lab, NEW);
    let before = config(&lab, NEW);
    let other = builder(&lab).name("another-image").vmid(OLD).build().unwrap();
    let error = image_build::resume(&lab.client, other, build.as_str())
        .await
        .unwrap_err();
    has(&error.chain(), &["has changed", "name", NAME]);
    assert_eq!(config(&lab, NEW), before);

    let other = builder(&lab).tags(["mine"]).vmid(OLD).build().unwrap();
    let artifact = image_build::resume(&lab.client, other, build.as_str()).await;
    let artifact = artifact.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(artifact.tags, ["k3simage", "v1.29.0+k3s1"]);
    is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &build);
}

/// As a node leaves it that lost its power in the middle of the copy.
#[tokio::test]
async fn half_a_copy_that_nobody_makes_any_more_is_told_from_one_that_is_made() {
    let password = "a-password-of-root";
    let storages = vec![StorageSpec::dir("local", "/var/lib/vz").content(["iso", "images"])];
    let emulator = Emulator::builder().storages(storages).user("root@pam", password);
    let lab = Lab::of(emulator, SimulatedOptions::default()).await;
    let (ended, _) = lab.build(builder(&lab).build().unwrap()).await;
    ended.unwrap_or_else(|error| panic!("{}", error.chain()));
    lab.pve
        .fault(task_fails("qmclone", OLD, "clone failed: no space left on device"));
    run(&lab, OldTemplate::Retire).await.error();
    let build = build_of(&lab, NEW);
    let upid = vm(&lab, MOVED).create(&CreateVm::new()).await.unwrap();
    done(&lab, upid).await;
    let root = Client::builder(lab.pve.url())
        .auth(Auth::password("root@pam", password))
        .tls(Tls::Pinned(lab.pve.fingerprint().parse().unwrap()))
        .build()
        .unwrap();
    let path = format!("/nodes/pve/qemu/{MOVED}/config");
    let lock = [("lock", "clone".to_owned())];
    root.request(Method::PUT, &path, &lock).await.unwrap();

    let what_to_do = ["vm 102 on pve", "half a copy", "qm unlock 102 && qm destroy 102"];
    let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
    assert_eq!(found[0].state, State::Unclear, "{found:?}");
    has(&found[0].because, &what_to_do);
    let error = image_build::resume(&lab.client, same(&lab), build.as_str())
        .await
        .unwrap_err();
    has(&error.chain(), &what_to_do);

    let unlock = [("delete", "lock".to_owned()), ("skiplock", "1".to_owned())];
    root.request(Method::PUT, &path, &unlock).await.unwrap();
    done(&lab, vm(&lab, MOVED).delete(&DeleteVm::new()).await.unwrap()).await;
    assert_eq!(resume(&lab, &build).await.vmid, OLD);
    is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &build);
}
