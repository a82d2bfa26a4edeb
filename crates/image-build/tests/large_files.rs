//! Large files of a build through the guest agent: they go on a medium, in pieces where that fails, and nothing of them is left.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Lab, story};
use image_build::spec::{
    Bios, CommunicatorKind, FileContent, FileSpec, ImageSpecBuilder, LocalFile, ProvisionerSpec, ShellSpec,
};
use image_build::{Event, EventKind};
use pve_emulator::{Fault, FaultAction, FaultMatch, TaskFault};
use sha2::{Digest as _, Sha256};

const BYTES: usize = (5 << 20) + 1;

/// A file in a folder of its own, and provisioners that bring it and look at it.
struct Large {
    _folder: tempfile::TempDir,
    path: PathBuf,
    sum: String,
}

impl Large {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.tar");
        let content: Vec<u8> = (0..=252).cycle().step_by(31).take(BYTES).collect();
        std::fs::write(&path, &content).unwrap();
        let sum = hex::encode(Sha256::digest(&content));
        Self {
            _folder: folder,
            path,
            sum,
        }
    }

    fn provisioners(&self) -> Vec<ProvisionerSpec> {
        let look = format!(
            "#!/bin/bash\nset -e\ncase \"$(sha256sum </root/images.tar)\" in \"{} \"*) ;; *) exit 9 ;; esac\n\
             [ \"$(stat -c %a /root/images.tar)\" = 640 ]\n[ ! -e /root/images.tar.part ]\n[ ! -e /root/images.tar.volume ]\n",
            self.sum
        );
        let mut provisioners = vec![ProvisionerSpec::File(FileSpec {
            name: "images.tar".into(),
            content: FileContent::Local(LocalFile::read(&self.path).unwrap()),
            destination: "/root/images.tar".into(),
            mode: 0o640,
        })];
        provisioners.push(ProvisionerSpec::Shell(ShellSpec::new("look.sh", look)));
        provisioners.extend(common::scripts());
        provisioners
    }

    fn spec(&self, lab: &Lab) -> ImageSpecBuilder {
        lab.spec()
            .communicator(CommunicatorKind::Agent)
            .provisioners(self.provisioners())
    }
}

fn calls(lab: &Lab, method: &str, end: &str) -> usize {
    let requests = lab.pve.requests();
    let fits = requests
        .iter()
        .filter(|request| request.method == method && request.path.ends_with(end));
    fits.count()
}

fn warnings(seen: &[Event]) -> Vec<String> {
    seen.iter()
        .filter_map(|event| match &event.kind {
            EventKind::Warning { message, .. } => Some(message.clone()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_large_file_goes_on_a_medium_and_nothing_of_it_is_left() {
    let large = Large::new();
    for bios in [Bios::SeaBios, Bios::Ovmf] {
        let lab = Lab::start().await;
        let (ended, seen) = lab.build(large.spec(&lab).bios(bios).build().unwrap()).await;
        ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
        let told = story(&seen);
        assert!(
            told.contains("images.tar to /root/images.tar, 5.0 MiB on a medium in"),
            "{told}"
        );
        assert_eq!(
            calls(&lab, "POST", "/upload"),
            2,
            "the kickstart's volume and the file's"
        );
        assert!(calls(&lab, "POST", "/agent/file-write") < 30, "the scripts alone");
        let config = lab.pve.vm_config(9000).unwrap();
        assert!(config["scsi1"].contains("cloudinit"), "{config:#?}");
        let (_, volumes) = lab.inventory();
        assert!(
            !volumes.iter().any(|volume| volume.contains("k3simage-build")),
            "{volumes:?}"
        );
    }
}

#[tokio::test]
async fn without_a_cloud_init_drive_the_drive_for_media_goes() {
    let (lab, large) = (Lab::start().await, Large::new());
    let (ended, seen) = lab.build(large.spec(&lab).cloud_init(None).build().unwrap()).await;
    ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
    let config = lab.pve.vm_config(9000).unwrap();
    assert!(
        !config.contains_key("scsi1") && !config.contains_key("ide2"),
        "{config:#?}"
    );
}

/// Whether the file's own volume is being sent.
fn sends_the_file(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Progress { step, note, .. } if step == "provision" && note == "uploading")
}

/// Whether the provisioners begin.
fn provision_begins(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StepStarted { step } if step == "provision")
}

#[tokio::test]
async fn a_medium_that_cannot_be_brought_makes_way_for_pieces() {
    type Moment = fn(&EventKind) -> bool;
    let full = FaultAction::Task(TaskFault::Fails("No space left on device".into()));
    let refused = FaultAction::Status(500, "unable to change the medium".into());
    let cases: [(Moment, &str, &str, FaultAction, &str); 2] = [
        (
            provision_begins,
            "POST",
            "/nodes/*/storage/*/upload",
            full,
            "No space left on device",
        ),
        (
            sends_the_file,
            "PUT",
            "/nodes/*/qemu/*/config",
            refused,
            "unable to change the medium",
        ),
    ];
    for (moment, method, path, action, words) in cases {
        let (lab, large) = (Lab::start().await, Large::new());
        let injected = AtomicBool::new(false);
        // Earlier calls of the kind are the installation's, and their number is nobody's promise.
        let when = |kind: &EventKind| {
            if moment(kind) && !injected.swap(true, Ordering::Relaxed) {
                lab.pve.fault(Fault {
                    when: FaultMatch::Path {
                        method: method.to_owned(),
                        path: path.to_owned(),
                    },
                    action: action.clone(),
                    times: 1,
                });
            }
            false
        };
        let (ended, seen) = lab.build_until(large.spec(&lab).build().unwrap(), when).await;
        ended.unwrap_or_else(|error| panic!("{}\n{}", error.chain(), story(&seen)));
        let warned = warnings(&seen);
        assert!(
            warned
                .iter()
                .any(|line| line.contains("images.tar does not go by a medium") && line.contains(words)),
            "{warned:?}"
        );
        assert!(calls(&lab, "POST", "/agent/file-write") > 80, "in pieces");
        let (_, volumes) = lab.inventory();
        assert!(
            !volumes.iter().any(|volume| volume.contains("k3simage-build")),
            "{volumes:?}"
        );
    }
}

#[tokio::test]
async fn a_cancel_in_the_middle_leaves_nothing() {
    let (lab, large) = (Lab::start().await, Large::new());
    let before = lab.inventory();
    let spec = large.spec(&lab).build().unwrap();
    let (ended, seen) = lab.build_until(spec, sends_the_file).await;
    let error = ended.unwrap_err();
    assert!(error.is_cancelled(), "{}\n{}", error.chain(), story(&seen));
    assert_eq!(lab.inventory(), before);
}
