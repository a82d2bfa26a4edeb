//! Builds that take the place of a template and its vmid: both are moved by full copies after the image is complete, and whatever breaks,
//! the image stays complete under its name, nothing half made stays, and the old one is never lost before its copy is whole.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

#[path = "../common/mod.rs"]
mod common;
mod left;
mod trouble;

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
