//! Builds that take the place of a template of the same name: the old one is as it was until the new one is proven, no two ever bear
//! the name, and whatever breaks, one of them does.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::future::IntoFuture as _;
use std::time::Duration;

use common::old::{
    NAME, NEW, OLD, Run, builder, clone, done, gc, has, is_image, named, next, replace, replace_around, replace_until,
    same, vm, with_old,
};
use common::{Lab, finished, story};
use image_build::plan::{Level, plan_replacing};
use image_build::spec::{OnError, ShellSpec};
use image_build::{Error, EventKind, ImageSpec, OldTemplate, Replace};
use proxmox_client::{CloneVm, CreateVm, DeleteVm, VmConfigUpdate};
use pve_emulator::{Fault, FaultAction, FaultMatch, FaultPlan, Gate, TaskFault};

const SEAL: &str = include_str!("../../../scripts/seal.sh");

async fn replaced(lab: &Lab, how: impl Into<Replace>) -> Run {
    replace(lab, next(lab), how).await
}

async fn set(lab: &Lab, vmid: u32, update: &VmConfigUpdate) {
    vm(lab, vmid).update_config(update).await.unwrap();
}

#[tokio::test]
async fn the_old_one_is_kept_under_another_name_and_untouched_until_then() {
    let lab = with_old().await;
    let before = lab.pve.vm_config(OLD).unwrap();
    let first_request = lab.pve.requests().len();
    let report = plan_replacing(&lab.client, &next(&lab), &OldTemplate::Retire.into())
        .await
        .unwrap();
    assert!(report.is_ok(), "{report:?}");
    assert_eq!((report.replaces, report.vmid), (Some(OLD), Some(NEW)));
    assert!(report.summary().contains("template 100"), "{}", report.summary());

    let run = replaced(&lab, OldTemplate::Retire).await;
    let (artifact, steps) = (run.artifact(), finished(&run.seen));
    assert_eq!(steps[steps.len() - 4..], ["template", "verify", "retire", "publish"]);
    assert_eq!((artifact.vmid, artifact.name.as_str()), (NEW, NAME));
    let retired = format!("{NAME}-retired-{}", artifact.build_id);
    let told = artifact.replaced.as_ref().unwrap();
    assert_eq!((told.vmid, told.kept_as.as_deref()), (OLD, Some(retired.as_str())));
    is_image(&lab, NEW);
    assert_eq!(lab.pve.vmids(), [OLD, NEW], "the clones are gone");

    // But for its name and tag it is as it was, bit for bit.
    let mut after = lab.pve.vm_config(OLD).unwrap();
    assert_eq!(after.insert("name".to_owned(), NAME.to_owned()), Some(retired));
    assert_eq!(
        after.insert("tags".to_owned(), before["tags"].clone()).as_deref(),
        Some("k3simage-retired;v1.29.0+k3s1")
    );
    assert_eq!(after, before);

    // One call changed it, the one before the call that published the new one.
    let requests = lab.pve.requests().split_off(first_request);
    let writes = |vmid: u32| {
        let start = format!("/nodes/pve/qemu/{vmid}/");
        let of = move |(_, request): &(usize, &pve_emulator::RequestRecord)| {
            request.method != "GET" && request.path.starts_with(&start)
        };
        requests
            .iter()
            .enumerate()
            .filter(of)
            .map(|(index, _)| index)
            .collect::<Vec<_>>()
    };
    let (old, new) = (writes(OLD), writes(NEW));
    assert_eq!(old.len(), 1, "{requests:#?}");
    assert_eq!(
        new.iter().filter(|index| **index > old[0]).count(),
        1,
        "{new:?} {old:?}"
    );

    // The retired one is not in the way of the next.
    let run = replaced(&lab, OldTemplate::Retire).await;
    let after = run.artifact();
    assert_eq!(after.replaced.as_ref().unwrap().vmid, NEW);
    assert_eq!(named(&lab, NAME), [after.vmid]);
}

#[tokio::test]
async fn the_old_one_is_deleted_when_that_is_asked() {
    let lab = with_old().await;
    let run = replaced(&lab, OldTemplate::Delete).await;
    let (artifact, steps) = (run.artifact(), finished(&run.seen));
    assert_eq!(steps[steps.len() - 4..], ["verify", "retire", "publish", "delete_old"]);
    let told = artifact.replaced.as_ref().unwrap();
    assert_eq!((told.vmid, told.kept_as.as_deref()), (OLD, None));
    is_image(&lab, NEW);
    assert_eq!(lab.pve.vmids(), [NEW]);
    assert!(lab.pve.volids("pve").iter().all(|volume| !volume.contains("100")));
    let manifest = serde_json::to_value(artifact).unwrap();
    assert_eq!(manifest["replaced"]["vmid"], OLD);
}

#[tokio::test]
async fn where_there_is_none_it_is_an_ordinary_build() {
    let lab = Lab::start().await;
    let spec = || lab.open_spec().name(NAME).build().unwrap();
    let report = plan_replacing(&lab.client, &spec(), &OldTemplate::Retire.into())
        .await
        .unwrap();
    assert!(report.summary().contains("an ordinary build"), "{}", report.summary());
    let run = replace(&lab, spec(), OldTemplate::Delete).await;
    let artifact = run.artifact();
    assert_eq!(artifact.replaced, None);
    is_image(&lab, artifact.vmid);
}

/// What the plan and the build say against it; nothing is created.
async fn refused(lab: &Lab, spec: ImageSpec, how: Replace) -> String {
    let before = (lab.inventory(), lab.pve.vm_config(OLD));
    let report = plan_replacing(&lab.client, &spec, &how).await.unwrap();
    let found: Vec<String> = report.at(Level::Error).map(ToString::to_string).collect();
    let run = replace(lab, spec, how).await;
    let error = run.error();
    assert_eq!(error.step(), Some("preflight"), "{}", error.chain());
    for finding in &found {
        assert!(error.chain().contains(finding), "{finding} is not in {}", error.chain());
    }
    assert_eq!((lab.inventory(), lab.pve.vm_config(OLD)), before);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[tokio::test]
async fn what_must_not_be_replaced_is_refused_by_name() {
    let lab = with_old().await;
    let retire = || Replace::new(OldTemplate::Retire);
    let delete = || Replace::new(OldTemplate::Delete);

    // Without being asked nothing is replaced; the refusal says how to ask.
    let (ended, _) = lab.build(next(&lab)).await;
    has(&ended.unwrap_err().chain(), &["taken by template 100", "--replace"]);

    let own = lab.pve.vm_config(OLD).unwrap()["tags"].clone();
    set(&lab, OLD, &VmConfigUpdate::new().tags(["somebody"])).await;
    has(
        &refused(&lab, next(&lab), retire()).await,
        &["100", "does not bear the tag k3simage"],
    );
    set(&lab, OLD, &VmConfigUpdate::new().set("tags", &own)).await;

    let open = lab.open_spec().storage("local").build().unwrap();
    has(
        &refused(&lab, open, retire()).await,
        &["no name is set", "image_version"],
    );
    let bare = || builder(&lab).cloud_init(None).build().unwrap();
    has(
        &refused(&lab, bare(), retire()).await,
        &["no cloud-init drive", "--no-verify"],
    );
    let report = plan_replacing(&lab.client, &bare(), &retire().verify(false))
        .await
        .unwrap();
    assert!(report.is_ok(), "{report:?}");

    set(&lab, OLD, &VmConfigUpdate::new().flag("protection", true)).await;
    has(&refused(&lab, next(&lab), delete()).await, &["100", "protected"]);
    has(
        &refused(&lab, same(&lab), retire()).await,
        &["100", "cannot give up its vmid", "protected", "vm_id to 0"],
    );
    set(&lab, OLD, &VmConfigUpdate::new().delete("protection")).await;

    // A full clone stands on its own disks.
    clone(&lab, OLD, 500, true).await;
    let report = plan_replacing(&lab.client, &next(&lab), &delete()).await.unwrap();
    assert!(report.is_ok(), "{report:?}");
    clone(&lab, OLD, 501, false).await;
    clone(&lab, OLD, 502, false).await;
    has(
        &refused(&lab, next(&lab), delete()).await,
        &["linked clones", "vms 501, 502", "--replace=retire"],
    );
    for how in [retire(), delete()] {
        has(
            &refused(&lab, same(&lab), how).await,
            &["cannot give up its vmid", "linked clones", "vms 501, 502", "vm_id to 0"],
        );
    }

    let plain = CreateVm::new().name(NAME);
    let upid = vm(&lab, 600).create(&plain).await.unwrap();
    done(&lab, upid).await;
    has(
        &refused(&lab, next(&lab), retire()).await,
        &["2 guests are called", "100", "600"],
    );
    set(&lab, OLD, &VmConfigUpdate::new().name("other")).await;
    has(
        &refused(&lab, next(&lab), retire()).await,
        &["600", "is a VM and no template"],
    );
    set(&lab, OLD, &VmConfigUpdate::new().name(NAME)).await;
    set(&lab, 600, &VmConfigUpdate::new().name("plain")).await;

    // Those clones stay as they are, and so does what they stand on.
    let run = replaced(&lab, OldTemplate::Retire).await;
    assert_eq!(named(&lab, NAME), [run.artifact().vmid]);
    assert!(lab.pve.vm_config(501).unwrap()["scsi0"].contains("100/base-100-disk"));
}

/// The name that the old one was left with.
#[track_caller]
fn kept(run: &Run) -> String {
    let replaced = run.artifact().replaced.as_ref().expect("it replaced one");
    replaced.kept_as.clone().expect("it is kept")
}

#[tokio::test]
async fn a_linked_clone_that_appears_during_the_build_keeps_the_old_one() {
    let lab = with_old().await;
    let run = replace_around(
        &lab,
        (next(&lab), OldTemplate::Delete),
        ("POST", "/nodes/pve/qemu/101/template"),
        async || clone(&lab, OLD, 500, false).await,
    )
    .await;
    let kept = kept(&run);
    assert_eq!(lab.pve.vm_config(OLD).unwrap()["name"], kept);
    has(&run.warnings(), &["template 100 is kept as", "linked clones", "vm 500"]);
    is_image(&lab, NEW);
}

#[tokio::test]
async fn one_that_pve_alone_sees_keeps_it_too() {
    let lab = with_old().await;
    lab.pve.fault(Fault {
        when: FaultMatch::Task {
            kind: "qmdestroy".to_owned(),
            id: "100".to_owned(),
        },
        action: FaultAction::Task(TaskFault::Fails(
            "base volume 'local:100/base-100-disk-0.qcow2' is still in use by linked cloned".to_owned(),
        )),
        times: u32::MAX,
    });
    let run = replaced(&lab, Replace::new(OldTemplate::Delete).verify(false)).await;
    let kept = kept(&run);
    assert_eq!(lab.pve.vm_config(OLD).unwrap()["name"], kept);
    has(&run.warnings(), &["template 100 is kept as", "linked clones"]);
    is_image(&lab, NEW);
}

#[tokio::test]
async fn a_template_that_is_not_well_replaces_nothing() {
    let lab = with_old().await;
    let before = (lab.inventory(), lab.pve.vm_config(OLD));
    let line = ": >\"${root}/etc/machine-id\"";
    assert!(SEAL.contains(line));
    let seal = ShellSpec::new("seal.sh", SEAL.replace(line, "true"));
    let spec = builder(&lab).seal(Some(seal.clone())).build().unwrap();
    let run = replace(&lab, spec, OldTemplate::Delete).await;
    let error = run.error();
    assert_eq!(error.step(), Some("verify"));
    has(
        &error.chain(),
        &["clones of the new template", "machine id", "untouched"],
    );
    assert!(
        matches!(error, Error::Step { cleanup, kept, .. } if cleanup.is_empty() && kept.is_empty()),
        "{error}"
    );
    assert_eq!(
        (lab.inventory(), lab.pve.vm_config(OLD)),
        before,
        "{}",
        story(&run.seen)
    );

    // Whoever does not want to know is believed.
    let spec = builder(&lab).seal(Some(seal)).build().unwrap();
    let run = replace(&lab, spec, Replace::new(OldTemplate::Delete).verify(false)).await;
    assert_eq!(lab.pve.vmids(), [run.artifact().vmid]);
    assert!(!finished(&run.seen).contains(&"verify".to_owned()));
}

#[tokio::test]
async fn cancel_in_each_step_leaves_the_old_one_or_the_new_one() {
    for step in ["template", "verify", "retire", "publish", "delete_old"] {
        let lab = with_old().await;
        let before = (lab.inventory(), lab.pve.vm_config(OLD));
        let at = |kind: &EventKind| matches!(kind, EventKind::StepStarted { step: begun } if begun == step);
        let run = replace_until(&lab, next(&lab), OldTemplate::Delete, at).await;
        match &run.ended {
            Err(error) => {
                assert!(error.is_cancelled(), "{step}: {}", error.chain());
                assert!(
                    matches!(error, Error::Step { cleanup, kept, .. } if cleanup.is_empty() && kept.is_empty()),
                    "{step}: {error}"
                );
                assert_ne!(step, "delete_old", "the image was complete");
                assert_eq!(
                    (lab.inventory(), lab.pve.vm_config(OLD)),
                    before,
                    "{step}\n{}",
                    story(&run.seen)
                );
            }
            // A single call is not torn: a cancel that comes with it comes too late.
            Ok(artifact) => {
                is_image(&lab, artifact.vmid);
                assert_eq!(lab.pve.vmids(), [NEW], "{step}");
            }
        }
        assert_eq!(named(&lab, NAME).len(), 1, "{step}");
    }
}

#[tokio::test]
async fn a_name_that_was_taken_from_the_old_one_is_given_back() {
    // The call that publishes is refused for good, once the old one is renamed.
    let lab = with_old().await;
    let before = (lab.inventory(), lab.pve.vm_config(OLD));
    let gate = Gate::default();
    lab.pve.fail_next(
        "PUT",
        "/nodes/pve/qemu/100/config",
        FaultAction::HoldAnswer(gate.clone()),
    );
    let build = image_build::build(&lab.client, next(&lab)).replace(OldTemplate::Retire);
    let running = tokio::spawn(build.into_future());
    gate.reached().await;
    assert!(named(&lab, NAME).is_empty(), "neither bears it for this moment");
    lab.pve.fail_next(
        "PUT",
        "/nodes/pve/qemu/101/config",
        FaultAction::Status(403, "Permission check failed (/vms/101, VM.Config.Options)".to_owned()),
    );
    gate.open();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.step(), Some("publish"), "{}", error.chain());
    assert_eq!((lab.inventory(), lab.pve.vm_config(OLD)), before, "{}", error.chain());
}

#[tokio::test]
async fn lost_answers_and_changes_by_others_do_not_break_the_swap() {
    for (method, path) in [
        ("PUT", "/nodes/pve/qemu/100/config"),
        ("DELETE", "/nodes/pve/qemu/100"),
        ("GET", "/nodes/pve/qemu/100/config"),
    ] {
        let lab = with_old().await;
        lab.pve.fail_next(method, path, FaultAction::LoseAnswer);
        let run = replaced(&lab, Replace::new(OldTemplate::Delete).verify(false)).await;
        let artifact = run.artifact();
        assert_eq!(lab.pve.vmids(), [artifact.vmid], "{method} {path}");
        is_image(&lab, artifact.vmid);
    }
    // Somebody edits the old one between our reading and our writing: the second try takes that along.
    let lab = with_old().await;
    let gate = Gate::default();
    lab.pve
        .fail_next("PUT", "/nodes/pve/qemu/100/config", FaultAction::Hold(gate.clone()));
    let build = image_build::build(&lab.client, next(&lab)).replace(Replace::new(OldTemplate::Retire).verify(false));
    let running = tokio::spawn(build.into_future());
    gate.reached().await;
    set(&lab, OLD, &VmConfigUpdate::new().description("mine")).await;
    gate.open();
    let artifact = running
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{}", error.chain()));
    let old = lab.pve.vm_config(OLD).unwrap();
    assert_eq!(
        (old["description"].as_str(), Some(old["name"].as_str())),
        ("mine", artifact.replaced.unwrap().kept_as.as_deref())
    );
}

#[tokio::test]
async fn an_old_one_that_somebody_changed_is_left_to_them() {
    let lab = with_old().await;
    let gate = Gate::default();
    let quick = || Replace::new(OldTemplate::Retire).verify(false);
    lab.pve
        .fail_next("POST", "/nodes/pve/qemu/101/template", FaultAction::Hold(gate.clone()));
    let build = image_build::build(&lab.client, next(&lab)).replace(quick());
    let one = tokio::spawn(build.into_future());
    gate.reached().await;
    // Whoever would do the same now is told who does it.
    let error = replace(&lab, next(&lab), quick()).await.ended.unwrap_err();
    has(&error.chain(), &["is replacing", NAME, "already"]);
    set(&lab, OLD, &VmConfigUpdate::new().name("gone-by-hand").tags(["archive"])).await;
    gate.open();
    let error = one.await.unwrap().unwrap_err();
    assert_eq!(error.step(), Some("retire"), "{}", error.chain());
    has(&error.chain(), &["template 100", "gone-by-hand", "somebody else"]);
    assert_eq!(lab.pve.vmids(), [OLD]);
    assert_eq!(lab.pve.vm_config(OLD).unwrap()["name"], "gone-by-hand");
}

#[tokio::test]
async fn a_new_one_that_somebody_deleted_keeps_the_old_one() {
    let lab = with_old().await;
    let (retired, published) = (Gate::default(), Gate::default());
    lab.pve.fail_next(
        "PUT",
        "/nodes/pve/qemu/100/config",
        FaultAction::HoldAnswer(retired.clone()),
    );
    let build = image_build::build(&lab.client, next(&lab)).replace(Replace::new(OldTemplate::Delete).verify(false));
    let running = tokio::spawn(build.into_future());
    retired.reached().await;
    lab.pve.fail_next(
        "PUT",
        "/nodes/pve/qemu/101/config",
        FaultAction::HoldAnswer(published.clone()),
    );
    retired.open();
    published.reached().await;
    assert_eq!(named(&lab, NAME), [NEW]);
    let upid = vm(&lab, NEW).delete(&DeleteVm::new()).await.unwrap();
    done(&lab, upid).await;
    published.open();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.step(), Some("delete_old"), "{}", error.chain());
    has(
        &error.chain(),
        &[
            "template 101",
            "somebody has deleted or renamed it",
            "template 100",
            "is kept as",
            "-retired-",
        ],
    );
    assert_eq!(lab.pve.vmids(), [OLD]);
}

#[tokio::test]
async fn a_kept_build_goes_on_where_it_failed() {
    let lab = with_old().await;
    // The old one cannot be renamed for good.
    lab.pve.fail_next(
        "PUT",
        "/nodes/pve/qemu/100/config",
        FaultAction::Status(403, "Permission check failed (/vms/100, VM.Config.Options)".to_owned()),
    );
    let keeping = builder(&lab).on_error(OnError::Keep).build().unwrap();
    let run = replace(&lab, keeping, OldTemplate::Delete).await;
    let error = run.error();
    assert_eq!(error.step(), Some("retire"), "{}", error.chain());
    let tags = lab.pve.vm_config(NEW).unwrap()["tags"].clone();
    let build = tags
        .split(';')
        .find_map(|tag| tag.strip_prefix("k3simage-build-"))
        .unwrap();
    // What it was asked for stands in the journal, not in what resumes it.
    let artifact = image_build::resume(&lab.client, next(&lab), build)
        .await
        .unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(lab.pve.vmids(), [NEW]);
    assert_eq!(artifact.replaced.unwrap().vmid, OLD);
    is_image(&lab, NEW);
}

/// The call that publishes is refused, and then the old one cannot be renamed any more.
async fn left_without_the_name(lab: &Lab) -> Error {
    let refused =
        |vmid: u32| FaultAction::Status(403, format!("Permission check failed (/vms/{vmid}, VM.Config.Options)"));
    let gate = Gate::default();
    lab.pve.fail_next(
        "PUT",
        "/nodes/pve/qemu/100/config",
        FaultAction::HoldAnswer(gate.clone()),
    );
    let build = image_build::build(&lab.client, next(lab)).replace(Replace::new(OldTemplate::Retire).verify(false));
    let running = tokio::spawn(build.into_future());
    gate.reached().await;
    lab.pve.fail_next("PUT", "/nodes/pve/qemu/101/config", refused(NEW));
    lab.pve.fault(Fault {
        when: FaultMatch::Path {
            method: "PUT".to_owned(),
            path: "/nodes/pve/qemu/100/config".to_owned(),
        },
        action: refused(OLD),
        times: u32::MAX,
    });
    gate.open();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.step(), Some("publish"), "{}", error.chain());
    assert_eq!(lab.pve.vmids(), [OLD, NEW], "{}", error.chain());
    assert!(named(lab, NAME).is_empty());
    lab.pve.apply_faults(FaultPlan::default()).await.unwrap();
    error
}

#[tokio::test]
async fn a_name_that_could_not_be_given_back_keeps_the_new_one_which_tells_whose_it_was() {
    let lab = with_old().await;
    let before = (lab.inventory(), lab.pve.vm_config(OLD));
    let error = left_without_the_name(&lab).await;
    has(
        &error.chain(),
        &[
            "not cleaned up",
            "giving template 100 its name back",
            "vm 101 stays",
            "k3simage gc --yes",
        ],
    );
    let removed = gc(&lab).await.join(", ");
    has(&removed, &["of template 100 on pve", "template 101 on pve"]);
    assert_eq!((lab.inventory(), lab.pve.vm_config(OLD)), before);
}

#[tokio::test]
async fn a_name_that_another_template_bears_by_now_is_not_given_to_a_second_one() {
    let lab = with_old().await;
    let _ = left_without_the_name(&lab).await;
    // Nothing has the name, so somebody makes a template with it.
    let theirs = CloneVm::new(500.try_into().unwrap()).name(NAME).full(true);
    done(&lab, vm(&lab, OLD).clone_to(&theirs).await.unwrap()).await;
    let retired = lab.pve.vm_config(OLD);
    let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
    has(
        &found[0].because,
        &["template 100 stays", "-retired-", "guest 500", NAME],
    );
    assert_eq!(gc(&lab).await, ["template 101 on pve"]);
    assert_eq!(lab.pve.vmids(), [OLD, 500]);
    assert_eq!(named(&lab, NAME), [500]);
    assert_eq!(lab.pve.vm_config(OLD), retired);
}
