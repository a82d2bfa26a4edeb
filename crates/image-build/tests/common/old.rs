//! A cluster with a template on it, builds that take its place, and what is seen of both after that.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

use std::collections::BTreeMap;
use std::time::Duration;

use image_build::spec::ImageSpecBuilder;
use image_build::{Artifact, Error, Event, EventKind, ImageSpec, Replace};
use proxmox_client::{CloneVm, NodeName, Qemu, Upid, Wait};
use pve_emulator::engine::simulated::SimulatedOptions;
use pve_emulator::{Emulator, Fault, FaultAction, FaultMatch, Gate, StorageSpec, TaskFault};
use tokio_util::sync::CancellationToken;

use super::{Lab, story};

pub(crate) const NAME: &str = "alma9-k3-node-amd64-v1.29.0-v1";
/// The old template, and the VM that the next build makes beside it.
pub(crate) const OLD: u32 = 100;
pub(crate) const NEW: u32 = 101;

pub(crate) type Config = BTreeMap<String, String>;

/// An empty cluster with one storage.
pub(crate) async fn of(storage: StorageSpec) -> Lab {
    let storages = vec![storage.content(["iso", "images"])];
    Lab::of(Emulator::builder().storages(storages), SimulatedOptions::default()).await
}

/// A cluster whose disks are files, so that linked clones show, with one template on it.
pub(crate) async fn with_old() -> Lab {
    let lab = of(StorageSpec::dir("local", "/var/lib/vz")).await;
    let (ended, seen) = lab.build(next(&lab)).await;
    let artifact = ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    assert_eq!(artifact.vmid, OLD);
    lab
}

pub(crate) fn builder(lab: &Lab) -> ImageSpecBuilder {
    lab.open_spec().name(NAME).storage("local")
}

/// One that takes the next free vmid.
pub(crate) fn next(lab: &Lab) -> ImageSpec {
    builder(lab).build().unwrap()
}

/// One that is to have the old one's vmid.
pub(crate) fn same(lab: &Lab) -> ImageSpec {
    builder(lab).vmid(OLD).build().unwrap()
}

/// A build that ended, and what it said.
pub(crate) struct Run {
    pub(crate) ended: Result<Artifact, Error>,
    pub(crate) seen: Vec<Event>,
}

impl Run {
    #[track_caller]
    pub(crate) fn artifact(&self) -> &Artifact {
        let ended = self.ended.as_ref();
        ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&self.seen)))
    }

    #[track_caller]
    pub(crate) fn error(&self) -> &Error {
        let error = self.ended.as_ref().err();
        error.unwrap_or_else(|| panic!("it ended well\n{}", story(&self.seen)))
    }

    pub(crate) fn warnings(&self) -> String {
        let texts = self.seen.iter().filter_map(|event| match &event.kind {
            EventKind::Warning { message, .. } => Some(message.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// Builds in place of the old one.
pub(crate) async fn replace(lab: &Lab, spec: ImageSpec, how: impl Into<Replace>) -> Run {
    replace_until(lab, spec, how, |_| false).await
}

/// The same, cancelled as soon as `when` says so of an event.
pub(crate) async fn replace_until(
    lab: &Lab,
    spec: ImageSpec,
    how: impl Into<Replace>,
    when: impl Fn(&EventKind) -> bool,
) -> Run {
    let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
    let cancel = CancellationToken::new();
    let build = image_build::build(&lab.client, spec)
        .events(to)
        .cancel(cancel.clone())
        .replace(how);
    let running = tokio::spawn(async move { build.await });
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        if when(&event.kind) {
            cancel.cancel();
        }
        seen.push(event);
    }
    Run {
        ended: running.await.unwrap(),
        seen,
    }
}

/// The same, held at the next call of a kind, while something else is done.
pub(crate) async fn replace_around(
    lab: &Lab,
    (spec, how): (ImageSpec, impl Into<Replace>),
    (method, path): (&str, &str),
    between: impl AsyncFnOnce(),
) -> Run {
    let gate = Gate::default();
    lab.pve.fail_next(method, path, FaultAction::Hold(gate.clone()));
    let between = async {
        gate.reached().await;
        between().await;
        gate.open();
    };
    tokio::join!(replace(lab, spec, how), between).0
}

pub(crate) fn vm(lab: &Lab, vmid: u32) -> Qemu {
    let node = NodeName::new("pve").unwrap();
    lab.client.node(&node).qemu(vmid.try_into().unwrap())
}

/// Waits for a task to end well.
pub(crate) async fn done(lab: &Lab, upid: Upid) {
    let limit = Wait::at_most(Duration::from_secs(60));
    let _ = lab.client.wait_task(&upid, limit).await.unwrap();
}

pub(crate) async fn clone(lab: &Lab, of: u32, to: u32, full: bool) {
    let how = CloneVm::new(to.try_into().unwrap()).name("mine").full(full);
    done(lab, vm(lab, of).clone_to(&how).await.unwrap()).await;
}

#[track_caller]
pub(crate) fn config(lab: &Lab, vmid: u32) -> Config {
    let config = lab.pve.vm_config(vmid);
    config.unwrap_or_else(|| panic!("vm {vmid} is not there: {:?}", lab.pve.vmids()))
}

/// The guests of that name.
pub(crate) fn named(lab: &Lab, name: &str) -> Vec<u32> {
    let has = |vmid: &u32| {
        let config = lab.pve.vm_config(*vmid);
        config.is_some_and(|config| config.get("name").is_some_and(|held| held == name))
    };
    lab.pve.vmids().into_iter().filter(has).collect()
}

/// A finished image and nothing of its build.
#[track_caller]
pub(crate) fn is_image(lab: &Lab, vmid: u32) -> Config {
    let config = config(lab, vmid);
    assert_eq!(config["template"], "1");
    assert_eq!(config["name"], NAME);
    assert_eq!(config["tags"], "k3simage;v1.29.0+k3s1");
    assert!(!config["description"].contains("k3simage-journal"), "{config:?}");
    assert!(config["description"].contains(&format!("**{NAME}**")), "{config:?}");
    let disk = format!("base-{vmid}-disk");
    assert!(config["scsi0"].contains(&disk), "{config:?}");
    config
}

#[track_caller]
pub(crate) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

/// Collects all that dead builds left, and answers what was removed. Nothing is left to collect then.
pub(crate) async fn gc(lab: &Lab) -> Vec<String> {
    let mut removed = Vec::new();
    for found in image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap() {
        assert_eq!(found.state, image_build::gc::State::Dead, "{found:?}");
        let ended = image_build::gc::remove(&lab.client, &found, &CancellationToken::new(), &mut removed).await;
        ended.unwrap_or_else(|error| panic!("{}", error.chain()));
    }
    assert_eq!(image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap(), []);
    removed
}

/// The next task of a kind ends with an error.
pub(crate) fn task_fails(kind: &str, id: u32, why: &str) -> Fault {
    Fault {
        when: FaultMatch::Task {
            kind: kind.to_owned(),
            id: id.to_string(),
        },
        action: FaultAction::Task(TaskFault::Fails(why.to_owned())),
        times: 1,
    }
}
