//! `build`: on the embedded emulator from end to end, and on one that outlives it, to see what is left.

mod common;

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Cluster, Ended, Folder, IMAGE, k3simage, run, signal, until};
use pve_emulator::{Emulator, FaultAction, Timing};
use serde_json::Value;

#[test]
fn the_fresh_folder_becomes_a_template_and_a_manifest() {
    let folder = Folder::new();
    let manifest = folder.temp.path().join("out/manifest.json");
    let args = [
        "build",
        folder.path(),
        "--emulator",
        "--manifest",
        manifest.to_str().unwrap(),
    ];
    let ended = run(&args).expect(
        0,
        &[
            IMAGE,
            "the guest is simulated",
            " ok  preflight",
            " ok  install",
            " ok  connect",
            " ok  template",
            "vmid 9000 on pve",
            "the guest was simulated",
            "manifest.json",
        ],
    );
    assert_eq!(ended.err, "", "{}", ended.all());

    let manifest: Value = serde_json::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    let build = &manifest["builds"][0];
    assert_eq!(build["name"], IMAGE);
    assert_eq!(build["artifact_id"], "9000");
    assert_eq!(build["custom_data"]["simulated"], "true");
    assert_eq!(build["custom_data"]["k3s_version"], "v1.29.0+k3s1");
    assert_eq!(build["packer_run_uuid"], manifest["last_run_uuid"]);
}

#[test]
fn json_is_the_stream_of_events_and_says_that_it_was_simulated() {
    let folder = Folder::new();
    let ended = run(&["build", folder.path(), "--emulator", "--json"]).expect(0, &[]);
    assert_eq!(ended.err, "");
    let events = ended.objects();
    for event in &events {
        assert_eq!(
            (&event["version"], &event["simulated"]),
            (&1.into(), &true.into()),
            "{event}"
        );
    }
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("build_started", "build_finished"));
    let steps = |kind: &str| -> Vec<&Value> {
        events
            .iter()
            .filter(|event| event["event"] == kind)
            .map(|event| &event["step"])
            .collect()
    };
    let wanted: Vec<&Value> = events[0]["steps"].as_array().unwrap().iter().collect();
    assert_eq!(steps("step_started"), wanted);
    assert_eq!(steps("step_finished"), wanted);
    let last = events.last().unwrap();
    assert_eq!((&last["ok"], &last["artifact"]["vmid"]), (&true.into(), &9000.into()));
}

#[test]
fn no_connection_variable_is_needed_for_the_embedded_emulator() {
    let folder = Folder::new();
    folder.edit("variables.auto.pkrvars.hcl", "proxmox_url", "# proxmox_url");
    folder.edit("variables.auto.pkrvars.hcl", "proxmox_username", "# proxmox_username");
    run(&["build", folder.path(), "--emulator", "-q"]).expect(0, &[IMAGE]);
}

#[test]
fn the_embedded_emulator_has_what_the_folder_names() {
    let folder = Folder::new();
    let vars = [
        "proxmox_node=lab-3",
        "vm_storage_pool=fast",
        "alma_iso_storage_pool=isos",
        "alma_iso_url=shelf:iso/AlmaLinux-9.5-x86_64-dvd.iso",
    ];
    let mut args = vec!["build", folder.path(), "--emulator"];
    args.extend(vars.iter().flat_map(|var| ["-var", var]));
    run(&args).expect(0, &["on lab-3"]);
}

#[test]
fn guest_output_is_shown_with_v_and_kept_in_the_log_file() {
    let folder = Folder::new();
    let log = folder.temp.path().join("build.log");
    let ended = run(&[
        "build",
        folder.path(),
        "--emulator",
        "-v",
        "--log-file",
        log.to_str().unwrap(),
    ])
    .expect(0, &["k3s-install.sh |"]);
    let log_text = std::fs::read_to_string(&log).unwrap();
    assert!(
        log_text.contains("\"event\":\"step_finished\"") && log_text.contains("k3s-install.sh"),
        "{log_text}"
    );
    assert!(
        !run(&["build", folder.path(), "--emulator"])
            .out
            .contains("k3s-install.sh |")
    );
    assert!(ended.out.contains(" ok  provision"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_failing_script_ends_the_build_and_leaves_nothing() {
    let folder = Folder::new();
    folder.edit(
        "scripts/os-update.sh",
        "set -euo pipefail",
        "set -euo pipefail\necho 'no mirror answers'\nexit 7",
    );
    let cluster = Cluster::start(Emulator::builder());
    let before = cluster.inventory();
    cluster.run(&["build", folder.path()], &[]).expect(
        1,
        &[
            " ERR provision",
            "os-update.sh",
            "7",
            "no mirror answers",
            "vm 9000 removed",
            "--on-error keep",
        ],
    );
    assert_eq!(cluster.inventory(), before);

    cluster
        .run(&["build", folder.path(), "--on-error", "keep"], &[])
        .expect(1, &[" ERR provision", "kept: vm 9000"]);
    assert!(cluster.emulator.vmids().contains(&9000));
}

#[test]
fn programs_are_told_what_stays_on_the_cluster() {
    let folder = Folder::new();
    folder.edit("scripts/os-update.sh", "set -euo pipefail", "set -euo pipefail\nexit 7");
    let last = |ended: &Ended, field: &str| {
        let object = ended.objects().pop().unwrap();
        assert_eq!(object["event"], "error");
        object[field].to_string()
    };
    let cluster = Cluster::start(Emulator::builder());
    cluster.emulator.fail_next(
        "DELETE",
        "/nodes/pve/qemu/9000",
        FaultAction::Status(500, "made for a test".to_owned()),
    );
    let ended = cluster.run(&["build", folder.path(), "--json"], &[]).expect(1, &[]);
    let left = last(&ended, "left");
    assert!(left.contains("create") && left.contains("made for a test"), "{left}");
    assert_eq!(last(&ended, "kept"), "[]");
    assert!(cluster.emulator.vmids().contains(&9000));

    let cluster = Cluster::start(Emulator::builder());
    let ended = cluster
        .run(&["build", folder.path(), "--json", "--on-error", "keep"], &[])
        .expect(1, &[]);
    assert!(last(&ended, "kept").contains("vm 9000"), "{}", ended.out);
    assert_eq!(last(&ended, "left"), "[]");
}

#[test]
fn asking_without_a_terminal_is_refused_before_anything_is_made() {
    let folder = Folder::new();
    let cluster = Cluster::start(Emulator::builder());
    let before = cluster.inventory();
    cluster
        .run(&["build", folder.path(), "--on-error", "ask"], &[])
        .expect(2, &["no terminal", "--on-error keep"]);
    assert_eq!(cluster.inventory(), before);
}

#[test]
fn one_signal_undoes_the_build() {
    let folder = Folder::new();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        // In real time the install takes minutes: it is surely running when the signal comes.
        let cluster = Cluster::start(Emulator::builder().timing(Timing::Real));
        let before = cluster.inventory();
        let mut command = k3simage(&["build", folder.path(), "--json"]);
        cluster.lead(&mut command);
        let (mut child, mut rest) = until(&mut command, |event| {
            event["event"] == "step_started" && event["step"] == "install"
        });
        assert_eq!(cluster.emulator.vmids(), [9000], "the VM is there while the build runs");
        signal(&child, name);
        let mut out = String::new();
        rest.read_to_string(&mut out).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{out}");
        assert_eq!(cluster.inventory(), before, "{name}");
        let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!((&last["event"], &last["exit_code"]), (&"error".into(), &code.into()));
    }
}

#[test]
fn a_second_signal_stops_waiting_and_says_what_to_look_for() {
    let folder = Folder::new();
    let cluster = Cluster::start(Emulator::builder().timing(Timing::Real));
    let mut command = k3simage(&["build", folder.path(), "--json"]);
    cluster.lead(&mut command);
    let (mut child, mut rest) = until(&mut command, |event| {
        event["event"] == "step_started" && event["step"] == "install"
    });
    // Its clean-up stands still: the answer to its next request never comes.
    let begun = Instant::now();
    signal(&child, "STOP");
    signal(&child, "TERM");
    signal(&child, "INT");
    signal(&child, "CONT");
    let mut out = String::new();
    rest.read_to_string(&mut out).unwrap();
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 143)), "{code:?} {out}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "error");
    assert!(
        last["help"][0]
            .as_str()
            .is_some_and(|help| help.contains("`k3simage gc --yes`") && help.contains("`k3simage resume ")),
        "{last}"
    );
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_build() {
    let folder = Folder::new();
    let manifest = folder.temp.path().join("manifest.json");
    let mut child = k3simage(&[
        "build",
        folder.path(),
        "--emulator",
        "--manifest",
        manifest.to_str().unwrap(),
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    drop(child.stdout.take());
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert!(manifest.exists());
}
