//! Builders that die: `resume` goes on with what they left, `gc` collects it, and neither touches anything else.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::process::Child;
use std::time::Duration;

use common::kill::{forget_faults, settle, wait, with_held};
use common::{Cluster, Ended, Folder, IMAGE, k3simage, signal, until};
use pve_emulator::engine::simulated::{Fault as GuestFault, FaultKind};
use pve_emulator::{Emulator, FaultAction, Gate, Timing};
use serde_json::Value;

/// Longer than a machine with much else to do needs between two signs of life, in seconds.
const LEASE: &str = "60";
/// When it has ended by the server's clock, whose time is cut to the second.
const LEASE_AND_MORE: Duration = Duration::from_secs(65);

/// Guests take some time, so that a step can be hit in its middle.
fn cluster() -> Cluster {
    Cluster::start(Emulator::builder().timing(Timing::Scaled(300.0)))
}

/// What a build does not get past in a step, however late it is looked at: the last of these calls.
fn held_in(step: &str) -> &'static [(&'static str, &'static str)] {
    const DOWN: (&str, &str) = ("POST", "/nodes/pve/qemu/9000/status/shutdown");
    const CONVERT: (&str, &str) = ("POST", "/nodes/pve/qemu/9000/template");
    match step {
        // Whether the upload's task has ended. A server that stands in the middle of a body does not see that its sender is gone.
        "media" => &[("GET", "/nodes/pve/tasks/*/status")],
        "create" => &[("POST", "/nodes/pve/qemu")],
        "install" => &[("POST", "/nodes/pve/qemu/9000/status/start")],
        "connect" => &[("GET", "/nodes/pve/qemu/9000/agent/network-get-interfaces")],
        "provision" | "seal" | "shut_down" => &[DOWN],
        "finalise" | "template" => &[CONVERT],
        // Whether its name is still free is asked once more before it is published.
        "publish" => &[CONVERT, ("GET", "/cluster/resources")],
        other => panic!("nothing is known of {other}"),
    }
}

/// Lets a script of the next build's guest stand in its middle.
fn script_waits(cluster: &Cluster, script: &str) -> Gate {
    let gate = Gate::default();
    let waits = FaultKind::ScriptWaits {
        script: script.to_owned(),
        gate: gate.clone(),
    };
    let guests = cluster.emulator.simulated_guests().unwrap();
    guests.inject(GuestFault::once(waits).on(9000));
    gate
}

/// Starts a build and kills it without warning in a step; answers its id. Its lease has ended then.
fn killed(cluster: &Cluster, folder: &Folder, step: &str) -> String {
    let mut command = k3simage(&["build", folder.path(), "--json", "--lease", LEASE]);
    cluster.lead(&mut command);
    let script = match step {
        "provision" => Some("os-update.sh"),
        "seal" => Some("seal.sh"),
        _ => None,
    };
    let script = script.map(|script| script_waits(cluster, script));
    let (mut child, lines) = with_held(cluster, held_in(step), || until(&mut command, at(step)));
    dies(cluster, &mut child);
    drop(lines);
    if let Some(script) = script {
        script.open();
    }
    let id = cluster.emulator.vm_config(9000).and_then(|config| {
        let tags = config.get("tags")?.clone();
        tags.split(';')
            .find_map(|tag| tag.strip_prefix("k3simage-build-").map(str::to_owned))
    });
    id.unwrap_or_default()
}

/// Kills it without warning. What it had asked for has ended then, and so has its lease.
fn dies(cluster: &Cluster, child: &mut Child) {
    signal(child, "KILL");
    child.wait().unwrap();
    settle(cluster);
    forget_faults(cluster);
    cluster.emulator.advance_clock(LEASE_AND_MORE);
}

fn at(step: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "step_started" && event["step"] == step
}

/// Resumes a build.
fn resumed(cluster: &Cluster, folder: &Folder, build: &str, more: &[&str]) -> Ended {
    cluster.run(&["resume", build, folder.path()], more)
}

fn collected(cluster: &Cluster, more: &[&str]) -> Ended {
    cluster.run(&["gc"], more)
}

#[track_caller]
fn is_one_good_template(cluster: &Cluster, before: &(Vec<u32>, Vec<String>)) {
    let config = cluster.emulator.vm_config(9000).expect("the template");
    assert_eq!(config.get("template").map(String::as_str), Some("1"), "{config:?}");
    assert_eq!(config["name"], IMAGE);
    let tags = &config["tags"];
    assert!(tags.contains("k3simage") && !tags.contains("k3simage-build"), "{tags}");
    assert!(!config["description"].contains("k3simage-journal"), "{config:?}");
    assert_eq!(cluster.emulator.vmids(), [9000]);
    let (_, volumes) = cluster.inventory();
    let added: Vec<&String> = volumes.iter().filter(|volume| !before.1.contains(volume)).collect();
    assert!(
        added.iter().all(|volume| volume.contains("9000")),
        "something else is left: {added:?}"
    );
}

#[test]
fn a_build_goes_on_from_every_step() {
    let folder = Folder::new();
    for step in [
        "install",
        "connect",
        "provision",
        "seal",
        "shut_down",
        "finalise",
        "template",
        "publish",
    ] {
        let cluster = cluster();
        let before = cluster.inventory();
        let build = killed(&cluster, &folder, step);
        assert_eq!(build.len(), 8, "{step}: no VM with a tag is left");
        let ended = resumed(&cluster, &folder, &build, &[]);
        assert_eq!(ended.code, Some(0), "killed at {step}:\n{}", ended.all());
        is_one_good_template(&cluster, &before);
        // It has ended: nothing to go on with, nothing to collect.
        resumed(&cluster, &folder, &build, &[]).expect(2, &["cannot be resumed", "has ended"]);
        collected(&cluster, &["--yes", "--volume-age", "0"]).expect(0, &["nothing is left"]);
    }
}

#[test]
fn what_a_dead_build_left_is_collected() {
    let folder = Folder::new();
    for step in ["media", "create", "install", "provision", "template"] {
        let cluster = cluster();
        let before = cluster.inventory();
        killed(&cluster, &folder, step);
        collected(&cluster, &["--volume-age", "0"]).expect(0, &[]);
        collected(&cluster, &["--yes", "--volume-age", "0"]).expect(0, &[]);
        assert_eq!(cluster.inventory(), before, "killed at {step}");
    }
}

/// 2 and 3 say that nothing was changed, so they end with the first removal; and what is gone is told whatever follows.
#[test]
fn a_failure_in_the_middle_of_a_collection_hides_nothing_of_what_is_gone() {
    let folder = Folder::new();
    let cluster = cluster();
    killed(&cluster, &folder, "install");
    collected(&cluster, &["--volume-age", "0"]).expect(0, &["vm 9000", "k3simage-build-"]);
    let refuse = |path: &str| {
        let denied = FaultAction::Status(403, "Permission check failed (/, on purpose)".to_owned());
        cluster.emulator.fail_next("DELETE", path, denied);
    };
    let gc = || cluster.run(&["gc", "--yes", "--json", "--volume-age", "0"], &[]);
    let events = |ended: &Ended, kind: &str| {
        let mut all = ended.objects();
        all.retain(|event| event["event"] == kind);
        all
    };
    refuse("/nodes/pve/qemu/9000");
    let ended = gc().expect(2, &["on purpose"]);
    assert_eq!(events(&ended, "removed"), [] as [Value; 0]);
    assert_eq!(cluster.emulator.vmids(), [9000]);
    // What was to remove it has taken it over, until its lease ends.
    cluster.emulator.advance_clock(Duration::from_secs(600));
    refuse("/nodes/pve/storage/*");
    let ended = gc().expect(1, &["on purpose"]);
    let removed = events(&ended, "removed");
    assert_eq!(removed.len(), 1, "{removed:?}");
    assert_eq!(removed[0]["thing"], "vm 9000 on pve");
    assert_eq!(
        events(&ended, "error")[0]["exit_code"],
        2,
        "the removal of the volume alone"
    );
    gc().expect(0, &["\"removed\"", ".iso on pve"]);
}

/// What nobody can tell is neither alive nor dead: a person has to look at it.
#[test]
fn a_vm_with_a_tag_and_no_journal_is_unclear_and_stays() {
    let cluster = cluster();
    cluster.block_on(async {
        let pve = cluster.client();
        let node = pve.node(&proxmox_client::NodeName::new("pve").unwrap());
        let vm = proxmox_client::CreateVm::new().tags(["k3simage-build-0123abcd"]);
        let upid = node.qemu("600".parse().unwrap()).create(&vm).await.unwrap();
        let _ = pve
            .wait_task(&upid, proxmox_client::Wait::at_most(Duration::from_secs(60)))
            .await
            .unwrap();
    });
    let wanted = &[
        "0123abcd  unclear  build",
        "look at it yourself",
        "nothing of this is dead",
    ];
    cluster.run(&["gc", "--yes"], &[]).expect(0, wanted);
    let found = cluster.run(&["gc", "--json"], &[]).expect(0, &[]).objects();
    assert_eq!(
        (&found[0]["event"], &found[0]["state"]),
        (&"found".into(), &"unclear".into())
    );
    assert_eq!(cluster.emulator.vmids(), [600]);
}

#[test]
fn what_a_dead_verification_left_is_collected() {
    let folder = Folder::new();
    let cluster = cluster();
    cluster.run(&["build", folder.path()], &[]).expect(0, &[]);
    let before = cluster.inventory();
    let report = folder.temp.path().join("verify.json");
    let report = report.to_str().unwrap();
    let verify = || {
        let mut command = k3simage(&["verify", IMAGE, "--json", "--report", report, "--lease", LEASE]);
        cluster.lead(&mut command);
        command
    };
    for (step, call) in [
        ("clone", "/nodes/pve/qemu/100/status/start"),
        ("first", "/nodes/pve/qemu/100/status/start"),
        ("join", "/nodes/pve/qemu/101/status/start"),
        ("compare", "/nodes/pve/qemu/100/status/stop"),
    ] {
        let (mut child, lines) = with_held(&cluster, &[("POST", call)], || until(&mut verify(), at(step)));
        if step == "clone" {
            // A clone that PVE still makes shows nothing of whose it is.
            wait(|| {
                let config = cluster.emulator.vm_config(100);
                config.is_some_and(|config| !config.contains_key("lock"))
            });
        }
        dies(&cluster, &mut child);
        drop(lines);
        let seen =
            collected(&cluster, &["--volume-age", "0"]).expect(0, &["dead", &format!("verification of {IMAGE}")]);
        assert!(
            !seen.all().contains("vm 9000"),
            "the template is no part of it: {}",
            seen.all()
        );
        collected(&cluster, &["--yes", "--volume-age", "0"]).expect(0, &["removed vm"]);
        assert_eq!(cluster.inventory(), before, "killed at {step}");
    }
    // One that lives is left alone, and ends well.
    let gate = Gate::default();
    cluster.emulator.fail_next(
        "POST",
        "/nodes/pve/qemu/100/status/stop",
        FaultAction::Hold(gate.clone()),
    );
    let (mut child, lines) = until(&mut verify(), at("first"));
    cluster
        .run(&["gc", "--yes", "--volume-age", "0"], &[])
        .expect(0, &["alive", "nothing of this is dead"]);
    gate.open();
    std::io::copy(&mut { lines }, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(cluster.inventory(), before);
}

#[test]
fn a_living_build_is_left_alone() {
    let folder = Folder::new();
    let cluster = cluster();
    let gate = script_waits(&cluster, "k3s-install.sh");
    let mut command = k3simage(&["build", folder.path(), "--json"]);
    cluster.lead(&mut command);
    let (mut child, _lines) = until(&mut command, at("provision"));
    cluster.block_on(gate.reached());
    let config = cluster.emulator.vm_config(9000).unwrap();
    let build = config["tags"].split("k3simage-build-").nth(1).unwrap()[..8].to_owned();
    cluster
        .run(&["gc", "--yes", "--volume-age", "0"], &[])
        .expect(0, &["alive", "nothing of this is dead"]);
    resumed(&cluster, &folder, &build, &[]).expect(2, &["cannot be resumed", "counts as living until"]);
    assert!(cluster.emulator.vmids().contains(&9000));
    signal(&child, "KILL");
    child.wait().unwrap();
    gate.open();
}

#[test]
fn inputs_that_changed_are_named() {
    let folder = Folder::new();
    let cluster = cluster();
    let build = killed(&cluster, &folder, "provision");
    folder.edit(
        "scripts/os-update.sh",
        "set -euo pipefail",
        "set -euo pipefail\n: changed",
    );
    let ended = resumed(&cluster, &folder, &build, &["-var", "vm_cores=4"]);
    let ended = ended.expect(2, &["cannot be resumed", "hardware", "os-update.sh"]);
    assert!(!ended.all().contains("k3s-install.sh"), "{}", ended.all());
    assert!(ended.all().contains("vm_cores"), "{}", ended.all());
    let ended = resumed(&cluster, &folder, &build, &["-var", "vm_id=9001"]);
    ended.expect(2, &["cannot be resumed", "vm_id (its vm has 9000)"]);
    assert!(
        cluster.emulator.vmids().contains(&9000),
        "nothing is removed by a refusal"
    );
    folder.edit("scripts/os-update.sh", "\n: changed", "");
    resumed(&cluster, &folder, &build, &[]).expect(0, &[]);
}

#[test]
fn of_two_that_resume_one_goes_on() {
    let folder = Folder::new();
    let cluster = cluster();
    let before = cluster.inventory();
    let build = killed(&cluster, &folder, "install");
    std::thread::scope(|scope| {
        let run = || resumed(&cluster, &folder, &build, &[]);
        let (first, second) = (scope.spawn(run), scope.spawn(run));
        let ends = [first.join().unwrap(), second.join().unwrap()];
        let won = ends.iter().filter(|end| end.code == Some(0)).count();
        assert_eq!(won, 1, "{ends:#?}");
        let lost = ends.iter().find(|end| end.code != Some(0)).unwrap();
        let all = lost.all();
        assert!(
            all.contains("in other hands") || all.contains("counts as living") || all.contains("has ended"),
            "{all}"
        );
    });
    is_one_good_template(&cluster, &before);
}

#[test]
fn a_clone_of_a_builds_vm_is_no_build() {
    let folder = Folder::new();
    let cluster = cluster();
    let build = killed(&cluster, &folder, "shut_down");
    let clone = cluster.block_on(async {
        let pve = cluster.client();
        let node = pve.node(&proxmox_client::NodeName::new("pve").unwrap());
        let vm = node.qemu("9000".parse().unwrap());
        let limit = || proxmox_client::Wait::at_most(Duration::from_secs(60));
        if vm.status().await.unwrap().is_running() {
            let stop = vm.stop().await.unwrap();
            let _ = pve.wait_task(&stop, limit()).await.unwrap();
        }
        let clone = proxmox_client::CloneVm::new("777".parse().unwrap())
            .name("mine")
            .full(true);
        let upid = vm.clone_to(&clone).await.unwrap();
        let _ = pve.wait_task(&upid, limit()).await.unwrap();
        777
    });
    let config = cluster.emulator.vm_config(clone).unwrap();
    assert!(config["tags"].contains(&build), "the clone carries the tag: {config:?}");
    collected(&cluster, &["--yes"]).expect(0, &["removed vm 9000"]);
    assert_eq!(cluster.emulator.vmids(), [clone]);
}
