//! Several builders at once, as processes of their own on one cluster: of those who want the same, one gets it and the others say so.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Cluster, Ended, Folder, IMAGE, k3simage};
use pve_emulator::{Emulator, Fault, FaultAction, FaultMatch, Gate, TaskFault, Timing};

/// The last call before a build makes anything.
const LAST_LOOK: &str = "/nodes/pve/capabilities/qemu/cpu";
/// Far more than two builds take to start their guests.
const PATIENCE: Duration = Duration::from_secs(120);

fn cluster() -> Cluster {
    Cluster::start(Emulator::builder().timing(Timing::Scaled(300.0)))
}

/// Runs them all at once, each as a process.
fn race(commands: Vec<Command>) -> Vec<Ended> {
    std::thread::scope(|scope| {
        let running: Vec<_> = commands
            .into_iter()
            .map(|mut command| scope.spawn(move || Ended::of(&command.output().unwrap())))
            .collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

fn build(cluster: &Cluster, folder: &Folder, more: &[&str]) -> Command {
    let mut command = k3simage(&["build", folder.path()]);
    cluster.lead(&mut command);
    command.args(more);
    command
}

/// One has ended well; what the others said.
#[track_caller]
fn one_won(ends: &[Ended]) -> Vec<String> {
    let won = ends.iter().filter(|end| end.code == Some(0)).count();
    assert_eq!(won, 1, "{ends:#?}");
    ends.iter().filter(|end| end.code != Some(0)).map(Ended::all).collect()
}

/// All that is there: the template of this vmid, and nothing of whoever lost.
#[track_caller]
fn is_alone(cluster: &Cluster, before: &[String]) -> u32 {
    let vmids = cluster.emulator.vmids();
    assert_eq!(vmids.len(), 1, "{vmids:?}");
    let config = cluster.emulator.vm_config(vmids[0]).unwrap();
    assert_eq!((config["name"].as_str(), config["template"].as_str()), (IMAGE, "1"));
    assert_eq!(config["tags"], "alma9;k3s;k3simage;v1.29.0+k3s1");
    let own = vmids[0].to_string();
    let (_, volumes) = cluster.inventory();
    let left: Vec<&String> = volumes
        .iter()
        .filter(|volume| !before.contains(volume) && !volume.contains(&own))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    vmids[0]
}

#[test]
fn of_two_that_build_the_same_name_one_wins() {
    let folder = Folder::new();
    let cluster = cluster();
    let (_, before) = cluster.inventory();
    let ends = race((0..3).map(|_| build(&cluster, &folder, &["-var", "vm_id=0"])).collect());
    for lost in one_won(&ends) {
        assert!(lost.contains(&format!("the name {IMAGE} is taken by")), "{lost}");
    }
    is_alone(&cluster, &before);
}

#[test]
fn who_finds_the_name_taken_when_its_vm_is_made_installs_nothing() {
    let folder = Folder::new();
    let cluster = cluster();
    let (_, before) = cluster.inventory();
    let hold = |path| {
        let gate = Gate::default();
        cluster
            .emulator
            .fail_next("POST", path, FaultAction::Hold(gate.clone()));
        gate
    };
    let started = || {
        let builder = build(&cluster, &folder, &["-var", "vm_id=0"]);
        std::thread::spawn(move || Ended::of(&{ builder }.output().unwrap()))
    };
    // It has looked at the cluster when the other one makes its VM.
    let create = hold("/nodes/pve/qemu");
    let late = started();
    cluster.block_on(create.reached());
    let start = hold("/nodes/pve/qemu/*/status/start");
    let early = started();
    cluster.block_on(start.reached());
    create.open();
    let lost = late.join().unwrap().all();
    start.open();
    early.join().unwrap().expect(0, &[]);
    assert!(
        lost.contains(&format!("the name {IMAGE} is taken by guest 100")),
        "{lost}"
    );
    assert!(!lost.contains("install "), "{lost}");
    assert_eq!(is_alone(&cluster, &before), 100);
}

#[test]
fn of_two_that_ask_for_the_same_vmid_one_wins() {
    let folder = Folder::new();
    let cluster = cluster();
    let (_, before) = cluster.inventory();
    // Different names, so that the vmid alone is in the way.
    let other = ["-var", "image_version=alma9-k3-node-amd64-v1.29.0-v2"];
    let ends = race(vec![build(&cluster, &folder, &[]), build(&cluster, &folder, &other)]);
    for lost in one_won(&ends) {
        assert!(lost.contains("vmid 9000 is taken by"), "{lost}");
    }
    let config = cluster.emulator.vm_config(9000).unwrap();
    assert_eq!(
        (cluster.emulator.vmids(), config["template"].as_str()),
        (vec![9000], "1")
    );
    let (_, volumes) = cluster.inventory();
    assert!(
        volumes
            .iter()
            .all(|volume| before.contains(volume) || volume.contains("9000")),
        "{volumes:?}"
    );
}

#[test]
fn of_two_that_replace_the_same_template_one_wins() {
    let folder = Folder::new();
    let cluster = cluster();
    cluster
        .run(&["build", folder.path()], &["-var", "vm_id=0"])
        .expect(0, &[]);
    let (_, before) = cluster.inventory();
    let replace = ["-var", "vm_id=0", "--replace=delete", "--no-verify"];
    // Whoever comes first does not get past its own conversion before the other is well on its way.
    let gate = Gate::default();
    let convert = "/nodes/pve/qemu/*/template";
    cluster
        .emulator
        .fail_next("POST", convert, FaultAction::Hold(gate.clone()));
    let ends = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each looks once, and so did the build of the template that is replaced.
            let looks = || {
                let requests = cluster.emulator.requests();
                requests.iter().filter(|request| request.path == LAST_LOOK).count()
            };
            let begun = Instant::now();
            while looks() < 3 && begun.elapsed() < PATIENCE {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            gate.open();
            assert!(begun.elapsed() < PATIENCE, "both look at the cluster");
        });
        race(vec![
            build(&cluster, &folder, &replace),
            build(&cluster, &folder, &replace),
        ])
    });
    for lost in one_won(&ends) {
        assert!(
            ["is replacing", "somebody else", "is taken by", "was deleted"]
                .iter()
                .any(|said| lost.contains(said)),
            "{lost}"
        );
    }
    let before: Vec<String> = before.into_iter().filter(|volume| !volume.contains("-100-")).collect();
    assert_ne!(is_alone(&cluster, &before), 100);
}

#[test]
fn eight_builders_with_five_images_each_leave_forty_right_templates() {
    const BUILDERS: usize = 8;
    const IMAGES: usize = 5;
    let folder = Folder::new();
    // Guests that take no time, but tasks that do, whoever asks for them: the limits of a guest's shutdown are no matter here.
    let cluster = Cluster::start(Emulator::builder());
    let (_, before) = cluster.inventory();
    for kind in ["qmcreate", "qmtemplate"] {
        cluster.emulator.fault(Fault {
            when: FaultMatch::Task {
                kind: kind.to_owned(),
                id: "*".to_owned(),
            },
            action: FaultAction::Task(TaskFault::Delay(Duration::from_millis(300))),
            times: u32::MAX,
        });
    }
    let name = |builder: usize, image: usize| format!("alma9-k3-node-amd64-v1.29.0-v{}", 1 + builder * IMAGES + image);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for builder in 0..BUILDERS {
            let (cluster, folder) = (&cluster, &folder);
            scope.spawn(move || {
                for image in 0..IMAGES {
                    let version = format!("image_version={}", name(builder, image));
                    let ended = Ended::of(
                        &build(cluster, folder, &["-var", "vm_id=0", "-var", &version])
                            .output()
                            .unwrap(),
                    );
                    assert_eq!(ended.code, Some(0), "{version}:\n{}", ended.all());
                }
            });
        }
    });
    let vmids = cluster.emulator.vmids();
    let mut names = BTreeSet::new();
    for vmid in &vmids {
        let config = cluster.emulator.vm_config(*vmid).unwrap();
        assert_eq!(
            (config["template"].as_str(), config["tags"].as_str()),
            ("1", "alma9;k3s;k3simage;v1.29.0+k3s1")
        );
        assert!(!config["description"].contains("k3simage-journal"), "{config:?}");
        assert!(config["scsi0"].contains(&format!("base-{vmid}-disk")), "{config:?}");
        names.insert(config["name"].clone());
    }
    let wanted: BTreeSet<String> = (0..BUILDERS)
        .flat_map(|b| (0..IMAGES).map(move |i| name(b, i)))
        .collect();
    assert_eq!((vmids.len(), &names), (BUILDERS * IMAGES, &wanted));
    let (_, volumes) = cluster.inventory();
    let isos: Vec<&String> = volumes
        .iter()
        .filter(|volume| volume.contains(":iso/") && !before.contains(volume))
        .collect();
    assert!(isos.is_empty(), "{isos:?}");
    println!(
        "{} builds by {BUILDERS} processes at a time: {:?}",
        vmids.len(),
        begun.elapsed()
    );
}
