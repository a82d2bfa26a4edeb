//! Verifications of templates on the emulator: a good one passes, what was planted is found by its name, and the clones are gone
//! whatever happens.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::time::Duration;

use common::{Lab, finished, story, without_polls};
use image_build::spec::{Bios, CommunicatorKind, ImageSpecBuilder, ProvisionerSpec, ShellSpec};
use image_build::verify::{Outcome, VerifyTimeouts};
use image_build::{Error, Event, EventKind, VerifyReport, VerifySpec};
use pve_emulator::FaultAction;
use pve_emulator::engine::simulated::{Fault, FaultKind};
use tokio_util::sync::CancellationToken;

const TEMPLATE: &str = "alma9-k3-node-amd64-v1.29.0-v1";
const SEAL: &str = include_str!("../../../scripts/seal.sh");

const STEPS: [&str; 6] = ["preflight", "clone", "first", "join", "compare", "clean_up"];

/// Requests that a verification takes besides its looks whether something has ended.
const REQUESTS: usize = 90;

/// Builds the tests' image with a change, and leaves it as a template.
async fn with_template(change: impl FnOnce(ImageSpecBuilder) -> ImageSpecBuilder) -> Lab {
    let lab = Lab::start().await;
    let spec = change(lab.spec()).build().unwrap();
    let (ended, seen) = lab.build(spec).await;
    ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    lab
}

fn spec(lab: &Lab) -> VerifySpec {
    let mut spec = VerifySpec::new(TEMPLATE);
    spec.ssh_port = lab.guests.ssh_port();
    let limit = Duration::from_secs(60);
    spec.timeouts = VerifyTimeouts {
        boot: limit,
        k3s: limit,
        task: limit,
        undo: limit,
    };
    spec
}

async fn verify(lab: &Lab, spec: VerifySpec) -> (Result<VerifyReport, Error>, Vec<Event>) {
    let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
    let ended = image_build::verify(&lab.client, spec).events(to).await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    (ended, seen)
}

/// A report, with the cluster as it was before.
async fn report(lab: &Lab, spec: VerifySpec) -> VerifyReport {
    let before = lab.inventory();
    let (ended, seen) = verify(lab, spec).await;
    assert_eq!(lab.inventory(), before, "something is left\n{}", story(&seen));
    ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)))
}

#[tokio::test]
async fn a_good_template_passes_every_check_and_its_clones_are_gone() {
    let lab = with_template(|spec| spec).await;
    let before = lab.inventory();
    let built = lab.pve.requests().len();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("verify.json");
    let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
    let ended = image_build::verify(&lab.client, spec(&lab))
        .events(to)
        .report(&path)
        .await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    let report = ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    let bad: Vec<_> = report
        .checks
        .iter()
        .filter(|check| check.outcome != Outcome::Ok)
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(report.ok);
    assert_eq!(report.checks.len(), 17);
    assert_eq!(
        (report.template.as_str(), report.vmid, report.node.as_str()),
        (TEMPLATE, 9000, "pve")
    );
    assert_eq!(finished(&seen), STEPS);
    assert_eq!(lab.inventory(), before);
    let requests = &lab.pve.requests()[built..];
    assert_eq!(report.api_requests, requests.len() as u64);
    let calls = without_polls(requests);
    assert!(calls.len() <= REQUESTS, "{} requests: {calls:#?}", calls.len());

    let names: Vec<&str> = report.clones.iter().map(|clone| clone.name.as_str()).collect();
    assert_eq!(
        names,
        [
            format!("verify-{}-1", report.verify_id),
            format!("verify-{}-2", report.verify_id)
        ]
    );
    for clone in &report.clones {
        assert!(
            clone.k3s_seconds.is_some_and(|k3s| k3s >= clone.ssh_seconds),
            "{clone:?}"
        );
        assert_eq!(clone.os.as_deref(), Some("AlmaLinux 9.3"));
    }
    let written: VerifyReport = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(written, report);
    assert!(matches!(
        &seen.last().unwrap().kind,
        EventKind::VerifyFinished { ok: true, report: Some(told), .. } if **told == report
    ));
    // The token of the first clone has been on its way to the second, and nowhere else.
    let story = story(&seen);
    assert!(!story.contains("K10"), "{story}");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("K10"));
}

#[tokio::test]
async fn full_clones_and_an_image_that_starts_nothing_pass_too() {
    let lab = with_template(|spec| {
        let mut scripts = common::scripts();
        if let Some(ProvisionerSpec::Shell(k3s)) = scripts.last_mut() {
            *k3s = k3s.clone().env("K3S_ROLE", "none");
        }
        spec.provisioners(scripts)
    })
    .await;
    let mut spec = spec(&lab);
    spec.template = "9000".to_owned();
    spec.full = true;
    spec.storage = Some("local-lvm".parse().unwrap());
    let report = report(&lab, spec).await;
    assert!(report.ok, "{:#?}", report.checks);
    let joined = report.checks.iter().find(|check| check.name == "k3s joined").unwrap();
    assert_eq!(joined.outcome, Outcome::NotChecked, "{joined:?}");
    assert_eq!(report.clones[0].k3s_seconds, None);
}

/// The seal script without one of its lines.
fn seal_without(line: &str) -> ShellSpec {
    assert!(SEAL.contains(line), "{line}");
    ShellSpec::new("seal.sh", SEAL.replace(line, "true"))
}

fn script(text: &str) -> ProvisionerSpec {
    ProvisionerSpec::Shell(ShellSpec::new(
        "plant.sh",
        format!("#!/bin/bash\nset -euo pipefail\n{text}\n"),
    ))
}

async fn found(change: impl FnOnce(ImageSpecBuilder) -> ImageSpecBuilder) -> (Vec<String>, Vec<String>) {
    let lab = with_template(change).await;
    let report = report(&lab, spec(&lab)).await;
    assert!(!report.ok);
    let names = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
    (names(report.shared()), names(report.failed()))
}

fn only(name: &str) -> (Vec<String>, Vec<String>) {
    (vec![name.to_owned()], Vec::new())
}

#[tokio::test]
async fn a_planted_machine_id_is_found() {
    let seal = seal_without(": >\"${root}/etc/machine-id\"");
    assert_eq!(found(|spec| spec.seal(Some(seal))).await, only("machine id"));
}

#[tokio::test]
async fn planted_host_keys_are_found() {
    let keep = script("cat >/etc/cloud/cloud.cfg.d/99-keys.cfg <<'CFG'\nssh_deletekeys: false\nCFG");
    let seal = seal_without("rm -f \"${root}\"/etc/ssh/ssh_host_*");
    let shared = found(|spec| {
        let scripts = common::scripts().into_iter().chain([keep]).collect();
        spec.provisioners(scripts).seal(Some(seal))
    });
    assert_eq!(shared.await, only("ssh host keys"));
}

#[tokio::test]
async fn a_planted_authorised_key_is_found() {
    let seal = seal_without("rm -rf \"${home}/.ssh\"");
    assert_eq!(found(|spec| spec.seal(Some(seal))).await, only("authorized keys"));
}

#[tokio::test]
async fn a_planted_cluster_identity_is_found() {
    let plant = script(
        "cat >/var/lib/rancher/k3s/server/token <<'T'\nK10aa::server:canary\nT\n\
         cat >/var/lib/rancher/k3s/server/tls/server-ca.crt <<'C'\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\nC\n\
         cat >/etc/rancher/node/password <<'P'\ncanary\nP",
    );
    let seal = seal_without(
        "\"${root}\"/var/lib/rancher/k3s/{server,data,storage,agent/{[!i]*,i[!m]*}} \"${root}\"/etc/rancher/node",
    );
    let lab = with_template(|spec| {
        let scripts = common::scripts().into_iter().chain([plant]).collect();
        spec.provisioners(scripts).seal(Some(seal))
    })
    .await;
    let report = report(&lab, spec(&lab)).await;
    assert_eq!(
        report.shared(),
        ["k3s token", "k3s ca", "k3s node password"],
        "{:#?}",
        report.checks
    );
    assert!(!serde_json::to_string(&report).unwrap().contains("canary"));
}

#[tokio::test]
async fn a_token_in_the_image_is_found() {
    let plant = script("cat >/etc/rancher/k3s/config.yaml <<'Y'\ntoken: \"canary\"\nY");
    let shared = found(|spec| {
        let scripts = common::scripts().into_iter().chain([plant]).collect();
        spec.provisioners(scripts)
    });
    assert_eq!(shared.await, only("k3s token"));
}

#[tokio::test]
async fn an_agent_that_was_left_open_is_found() {
    // Without these two lines the file stays as the build opened it.
    let open = SEAL
        .lines()
        .filter(|line| !line.contains("FILTER_RPC_ARGS=\"--allow-rpcs=%s") && !line.contains("setsebool"))
        .collect::<Vec<_>>()
        .join("\n");
    let (shared, failed) = found(|spec| {
        spec.communicator(CommunicatorKind::Agent)
            .seal(Some(ShellSpec::new("seal.sh", open)))
    })
    .await;
    assert_eq!((shared.len(), failed), (0, vec!["agent lock".to_owned()]), "{shared:?}");
}

#[tokio::test]
async fn an_image_that_was_never_sealed_shares_nearly_everything() {
    let (shared, failed) = found(|spec| spec.seal(None)).await;
    for name in ["machine id", "authorized keys"] {
        assert!(shared.contains(&name.to_owned()), "{name} is not in {shared:?}");
    }
    // Without the mark of a sealed image its first boot does nothing.
    assert!(failed.contains(&"k3s role".to_owned()), "{failed:?}");
}

#[tokio::test]
async fn cancel_in_each_step_leaves_nothing() {
    let lab = with_template(|spec| spec).await;
    let before = lab.inventory();
    for step in STEPS {
        let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let verify = image_build::verify(&lab.client, spec(&lab))
            .events(to)
            .cancel(cancel.clone());
        let running = tokio::spawn(async move { verify.await });
        let mut seen = Vec::new();
        while let Some(event) = events.recv().await {
            if matches!(&event.kind, EventKind::StepStarted { step: begun } if begun == step) {
                cancel.cancel();
            }
            seen.push(event);
        }
        let error = running.await.unwrap().expect_err("it was cancelled");
        assert!(error.is_cancelled(), "{step}: {}", error.chain());
        assert!(
            matches!(&error, Error::Step { cleanup, .. } if cleanup.is_empty()),
            "{step}: {error}"
        );
        assert_eq!(lab.inventory(), before, "{step} left something\n{}", story(&seen));
    }
}

#[tokio::test]
async fn a_lost_or_refused_call_leaves_nothing() {
    let lab = with_template(|spec| spec).await;
    let before = lab.inventory();
    for (method, path) in [
        ("POST", "/nodes/*/qemu/9000/clone"),
        ("PUT", "/nodes/*/qemu/*/config"),
        ("POST", "/nodes/*/qemu/*/status/start"),
        ("POST", "/nodes/*/storage/*/upload"),
        ("POST", "/nodes/*/qemu/*/status/stop"),
        ("DELETE", "/nodes/*/qemu/*"),
        ("DELETE", "/nodes/*/storage/*/content/*"),
    ] {
        for action in [
            FaultAction::LoseAnswer,
            FaultAction::Status(500, "made for a test".to_owned()),
        ] {
            lab.pve.fail_next(method, path, action.clone());
            let (ended, seen) = verify(&lab, spec(&lab)).await;
            // The undo makes good what the step could not, so nothing is left either way.
            assert_eq!(lab.inventory(), before, "{method} {path} {action:?}\n{}", story(&seen));
            if let (Err(error), FaultAction::Status(..)) = (ended, action) {
                assert!(error.chain().contains("made for a test"), "{}", error.chain());
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_removed_is_named() {
    let lab = with_template(|spec| spec).await;
    for _ in 0..4 {
        lab.pve.fail_next(
            "DELETE",
            "/nodes/*/qemu/*",
            FaultAction::Status(500, "made for a test".to_owned()),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("verify.json");
    let error = image_build::verify(&lab.client, spec(&lab))
        .report(&path)
        .await
        .unwrap_err();
    let chain = error.chain();
    assert!(chain.starts_with("clean_up failed"), "{chain}");
    let left: Vec<u32> = lab.pve.vmids().into_iter().filter(|vmid| *vmid != 9000).collect();
    assert_eq!(left.len(), 2);
    for vmid in left {
        assert!(chain.contains(&format!("vm {vmid} on pve")), "{vmid} is not in {chain}");
    }
    // Nobody has to wait for its lease to remove them.
    let found = image_build::gc::find(&lab.client, image_build::gc::VOLUME_AGE)
        .await
        .unwrap();
    assert!(
        found.len() == 1 && found[0].state == image_build::gc::State::Dead,
        "{found:?}"
    );
    // What was found is told all the same.
    let report: VerifyReport = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(report.ok);
}

#[tokio::test]
async fn a_clone_that_never_comes_up_ends_in_time_with_its_cause() {
    for (kind, words) in [
        (FaultKind::SshdNever, "an ssh login did not happen"),
        (
            FaultKind::AgentNever,
            "the guest agent's report of an address did not happen",
        ),
        (FaultKind::PowersOff { after: Duration::ZERO }, "stopped by itself"),
    ] {
        let lab = with_template(|spec| spec).await;
        let before = lab.inventory();
        lab.guests.inject(Fault::always(kind.clone()));
        let mut spec = spec(&lab);
        // One that has stopped is seen long before any limit.
        if !matches!(kind, FaultKind::PowersOff { .. }) {
            spec.timeouts.boot = Duration::from_secs(12);
        }
        let (ended, seen) = verify(&lab, spec).await;
        let chain = ended.unwrap_err().chain();
        assert!(chain.starts_with("first failed: ") && chain.contains(words), "{chain}");
        assert_eq!(lab.inventory(), before, "{}", story(&seen));
    }
}

#[tokio::test]
async fn what_cannot_be_verified_is_refused_before_anything_is_cloned() {
    let lab = with_template(|spec| spec).await;
    let with = |change: &dyn Fn(&mut VerifySpec)| {
        let mut spec = spec(&lab);
        change(&mut spec);
        spec
    };
    for (spec, words) in [
        (
            with(&|spec| spec.template = TEMPLATE.replace("v1.29.0", "v1.29.1")),
            format!("there is no template `alma9-k3-node-amd64-v1.29.1-v1`; did you mean `{TEMPLATE}`?"),
        ),
        (
            with(&|spec| spec.template = "4711".to_owned()),
            "there is no template `4711`".to_owned(),
        ),
        (
            with(&|spec| spec.iso_storage = "nowhere".parse().unwrap()),
            "node `pve` has no storage `nowhere`".to_owned(),
        ),
        (
            with(&|spec| spec.iso_storage = "local-lvm".parse().unwrap()),
            "does not hold content `iso`".to_owned(),
        ),
        (
            with(&|spec| spec.ssh_port = 0),
            "is 0, where no server listens".to_owned(),
        ),
    ] {
        let before = lab.inventory();
        let chain = verify(&lab, spec).await.0.unwrap_err().chain();
        assert!(chain.contains(&words), "{chain}");
        assert_eq!(lab.inventory(), before);
    }
    let (spec, file) = (spec(&lab), "/nowhere/verify.json");
    let error = image_build::verify(&lab.client, spec).report(file).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

/// Firmware that leaves drives switched off: clones find what they are told all the same.
#[tokio::test]
async fn a_uefi_template_passes_too() {
    let lab = with_template(|spec| spec.bios(Bios::Ovmf)).await;
    let report = report(&lab, spec(&lab)).await;
    assert!(report.ok, "{:#?}", report.checks);
}

#[tokio::test]
async fn a_cloud_init_drive_that_a_clone_would_not_see_is_warned_of() {
    let lab = Lab::start().await;
    let node = lab.client.node(&"pve".parse().unwrap());
    let wait = || proxmox_client::Wait::at_most(Duration::from_secs(30));
    for (vmid, bios, order, slot, machine, warned) in [
        (201, "ovmf", "order=scsi0", "ide2", "pc", true),
        (202, "ovmf", "order=scsi0;ide2", "ide2", "pc", false),
        (203, "ovmf", "order=scsi0", "ide2", "q35", false),
        (204, "ovmf", "order=scsi0", "scsi1", "pc", false),
        (205, "seabios", "order=scsi0", "ide2", "pc", false),
    ] {
        let vm = node.qemu(vmid.to_string().parse().unwrap());
        let options = proxmox_client::CreateVm::new()
            .name(format!("t{vmid}"))
            .set("bios", bios)
            .set("machine", machine)
            .set("agent", "1")
            .set("net0", "virtio,bridge=vmbr0")
            .set("scsi0", "local-lvm:8")
            .set(slot, "local-lvm:cloudinit")
            .set("boot", order);
        // One after the other: a VM that is still being created is locked.
        let upid = vm.create(&options).await.unwrap();
        let _ = lab.client.wait_task(&upid, wait()).await.unwrap();
        let upid = vm.convert_to_template().await.unwrap();
        let _ = lab.client.wait_task(&upid, wait()).await.unwrap();
        let mut spec = spec(&lab);
        spec.template = vmid.to_string();
        let report = image_build::verify::preflight(&lab.client, &spec).await.unwrap();
        assert!(report.is_ok(), "{report:?}");
        let told = report
            .findings
            .iter()
            .any(|finding| format!("{finding:?}").contains("--scsi1"));
        assert_eq!(told, warned, "{bios} {order} {slot} {machine}: {report:?}");
    }
}

#[tokio::test]
async fn a_template_without_cloud_init_or_network_is_refused() {
    let mut without = with_template(|spec| spec.cloud_init(None)).await;
    let chain = verify(&without, spec(&without)).await.0.unwrap_err().chain();
    assert!(
        chain.contains("no cloud-init drive") && chain.contains("qm set VMID --scsi1"),
        "{chain}"
    );
    without = Lab::start().await;
    let node = without.client.node(&"pve".parse().unwrap());
    let vm = node.qemu("100".parse().unwrap());
    let upid = vm.create(&proxmox_client::CreateVm::new().name("plain")).await.unwrap();
    let wait = proxmox_client::Wait::at_most(Duration::from_secs(30));
    let _ = without.client.wait_task(&upid, wait).await.unwrap();
    let mut plain = spec(&without);
    plain.template = "plain".to_owned();
    let chain = verify(&without, plain).await.0.unwrap_err().chain();
    assert!(chain.contains("vm 100 (`plain`) is no template"), "{chain}");
}
