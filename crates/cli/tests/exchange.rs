//! `build --replace` where the new template gets the old one's vmid: a builder that is killed at any moment of it leaves one complete
//! template with the image's name, and never loses an old one that is to be kept.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::collections::BTreeMap;

use common::kill::{Kill, after_the_lease, each, wait};
use common::{Cluster, Ended, Folder, IMAGE, k3simage, signal, until};
use pve_emulator::{Emulator, Fault, FaultAction, FaultMatch, TaskFault, Timing};

/// The folder of `init` names this vmid.
const OLD: u32 = 9000;
/// Where the new one is built, and where an old one that is kept goes.
const NEW: u32 = 100;
const MOVED: u32 = 101;

type Config = BTreeMap<String, String>;

fn with_old(folder: &Folder) -> Cluster {
    let cluster = Cluster::start(Emulator::builder().timing(Timing::Scaled(300.0)));
    cluster.run(&["build", folder.path()], &[]).expect(0, &["vmid 9000"]);
    cluster
}

fn config(cluster: &Cluster, vmid: u32) -> Config {
    cluster.emulator.vm_config(vmid).expect("it is there")
}

fn vms(cluster: &Cluster) -> BTreeMap<u32, Config> {
    let vmids = cluster.emulator.vmids().into_iter();
    vmids
        .filter_map(|vmid| Some((vmid, cluster.emulator.vm_config(vmid)?)))
        .collect()
}

/// The guests whose names fit.
fn named(cluster: &Cluster, fits: impl Fn(&str) -> bool) -> Vec<u32> {
    let vms = vms(cluster).into_iter();
    vms.filter(|(_, vm)| vm.get("name").is_some_and(|name| fits(name)))
        .map(|(vmid, _)| vmid)
        .collect()
}

#[track_caller]
fn is_image(cluster: &Cluster, vmid: u32) {
    assert_eq!(named(cluster, |name| name == IMAGE), [vmid]);
    let config = config(cluster, vmid);
    assert_eq!(config["template"], "1");
    assert_eq!(config["tags"], "alma9;k3s;k3simage;v1.29.0+k3s1");
    assert!(!config["description"].contains("k3simage-journal"), "{config:?}");
    assert!(config["scsi0"].contains(&format!("base-{vmid}-disk")), "{config:?}");
}

/// The old one, kept: a whole template under its retired name.
#[track_caller]
fn is_retired(cluster: &Cluster) -> u32 {
    let all = named(cluster, |name| name.contains("-retired-"));
    assert_eq!(all.len(), 1, "{:?}", vms(cluster));
    let config = config(cluster, all[0]);
    assert_eq!(
        (config["template"].as_str(), config["tags"].as_str()),
        ("1", "alma9;k3s;k3simage-retired;v1.29.0+k3s1")
    );
    assert!(config["scsi0"].contains(&format!("base-{}-disk", all[0])), "{config:?}");
    all[0]
}

#[test]
fn the_folder_as_it_is_replaces_its_own_template() {
    let folder = Folder::new();
    let cluster = with_old(&folder);
    cluster.run(&["plan", folder.path(), "--replace"], &[]).expect(
        0,
        &[
            "gets vmid 9000 at the end, and the old one another",
            "two full copies",
            "vmid 100 free",
            "a build can begin",
        ],
    );
    let ended = cluster.run(&["build", folder.path(), "--replace"], &[]).expect(
        0,
        &[
            "17 checks passed",
            "move_old",
            "template 9000 is template 101 now",
            "renumber",
            "template 100 is template 9000 now",
        ],
    );
    assert!(
        ended.all().contains(&format!("{IMAGE}: vmid 9000 on pve")),
        "{}",
        ended.all()
    );
    is_image(&cluster, OLD);
    assert_eq!(is_retired(&cluster), MOVED);
    let manifest = cluster.run(
        &["build", folder.path(), "--replace=delete", "--no-verify", "--json"],
        &[],
    );
    let objects = manifest.expect(0, &[]).objects();
    let artifact = &objects.last().unwrap()["artifact"];
    assert_eq!(
        (&artifact["vmid"], &artifact["replaced"]["vmid"]),
        (&9000.into(), &9000.into())
    );
    is_image(&cluster, OLD);
    assert_eq!(cluster.emulator.vmids(), [MOVED, OLD]);
}

#[test]
fn ctrl_c_in_a_copy_leaves_the_image_and_says_where() {
    let folder = Folder::new();
    let cluster = with_old(&folder);
    cluster.emulator.fault(Fault {
        when: FaultMatch::Task {
            kind: "qmclone".to_owned(),
            id: NEW.to_string(),
        },
        action: FaultAction::Task(TaskFault::Hangs),
        times: 1,
    });
    let mut command = k3simage(&["build", folder.path(), "--json", "--replace", "--no-verify"]);
    cluster.lead(&mut command);
    let (mut child, mut lines) = until(&mut command, |event| {
        event["event"] == "step_started" && event["step"] == "renumber"
    });
    wait(|| vms(&cluster).get(&OLD).is_some_and(|vm| vm.contains_key("lock")));
    signal(&child, "INT");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut lines, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(
        rest.contains(&format!(
            "{IMAGE} is complete as template 100, but does not have vmid 9000 yet"
        )),
        "{rest}"
    );
    assert_eq!(named(&cluster, |name| name == IMAGE), [NEW]);
    assert_eq!(is_retired(&cluster), MOVED);
    assert_eq!(cluster.emulator.vmids(), [NEW, MOVED]);
    // Nobody has to wait for it.
    cluster
        .run(&["gc"], &["--yes"])
        .expect(0, &["removed the build's mark on template 100"]);
    is_image(&cluster, NEW);
}

const RETIRING: [Kill; 17] = [
    Kill::At("move_old", "POST", "/nodes/pve/qemu/9000/clone"),
    Kill::Asked("POST", "/nodes/pve/qemu/9000/clone", 0),
    Kill::Answered("POST", "/nodes/pve/qemu/9000/clone", 0),
    Kill::Asked("POST", "/nodes/pve/qemu/101/template", 0),
    Kill::Answered("POST", "/nodes/pve/qemu/101/template", 0),
    Kill::Asked("DELETE", "/nodes/pve/qemu/9000", 0),
    Kill::Answered("DELETE", "/nodes/pve/qemu/9000", 0),
    Kill::Answered("PUT", "/nodes/pve/qemu/101/config", 0),
    Kill::At("renumber", "POST", "/nodes/pve/qemu/100/clone"),
    Kill::Asked("POST", "/nodes/pve/qemu/100/clone", 0),
    Kill::Answered("POST", "/nodes/pve/qemu/100/clone", 0),
    Kill::Asked("POST", "/nodes/pve/qemu/9000/template", 0),
    Kill::Answered("POST", "/nodes/pve/qemu/9000/template", 0),
    // The first call of this is the swap's, the second marks the copy.
    Kill::Asked("PUT", "/nodes/pve/qemu/9000/config", 2),
    Kill::Answered("PUT", "/nodes/pve/qemu/9000/config", 2),
    Kill::Asked("DELETE", "/nodes/pve/qemu/100", 0),
    Kill::Answered("DELETE", "/nodes/pve/qemu/100", 0),
];

const DELETING: [Kill; 4] = [
    Kill::At("delete_old", "DELETE", "/nodes/pve/qemu/9000"),
    Kill::Answered("DELETE", "/nodes/pve/qemu/9000", 0),
    Kill::At("renumber", "POST", "/nodes/pve/qemu/100/clone"),
    Kill::Answered("POST", "/nodes/pve/qemu/100/clone", 0),
];

fn all() -> impl Iterator<Item = (Kill, &'static str)> {
    let deleting = DELETING.into_iter().map(|kill| (kill, "--replace=delete"));
    RETIRING.into_iter().map(|kill| (kill, "--replace")).chain(deleting)
}

/// Kills a build; answers its id.
fn killed(cluster: &Cluster, folder: &Folder, kill: Kill, how: &str) -> String {
    let build = kill.build(cluster, folder, &[how, "--no-verify"], || {});
    assert!(named(cluster, |name| name == IMAGE).len() <= 1, "{kill:?}");
    // Of an old one that is to be kept there is a whole template at every moment.
    if how == "--replace" {
        let whole = |vmid: &u32| {
            vms(cluster).get(vmid).is_some_and(|vm| {
                let name = &vm["name"];
                (name.contains("-retired-") || name.starts_with("k3simage-copy-")) && vm.get("template").is_some()
            })
        };
        assert!([OLD, MOVED].iter().any(whole), "{kill:?}: {:?}", vms(cluster));
    }
    build
}

#[test]
fn a_killed_exchange_is_finished_by_resume() {
    let folder = Folder::new();
    let all: Vec<_> = all().collect();
    each(&all, |(kill, how)| {
        let cluster = with_old(&folder);
        let build = killed(&cluster, &folder, kill, how);
        let resume = |more: &[&str]| {
            let mut command = k3simage(&["resume", &build, folder.path()]);
            cluster.lead(&mut command);
            Ended::of(&command.args(more).output().unwrap())
        };
        // What keeps the old one where it is would no longer be this build.
        let other = after_the_lease(&cluster, || resume(&["-var", "vm_id=0"])).expect(2, &[]);
        let ended = resume(&[]);
        let told = format!("{kill:?} {how}:\n{}\n{:#?}", ended.all(), vms(&cluster));
        let refused = format!("vm_id (the template gets {OLD})");
        assert!(
            other.all().contains(&refused) || ended.code == Some(2),
            "{told}\n{}",
            other.all()
        );
        if ended.code == Some(2) {
            // It had ended but for the answer.
            assert!(ended.all().contains("it has ended"), "{told}");
            assert!(
                matches!(kill, Kill::Asked("DELETE", ..) | Kill::Answered("DELETE", ..)),
                "{told}"
            );
        } else {
            assert_eq!(ended.code, Some(0), "{told}");
        }
        is_image(&cluster, OLD);
        if how == "--replace" {
            assert_eq!(is_retired(&cluster), MOVED, "{told}");
            assert_eq!(cluster.emulator.vmids(), [MOVED, OLD], "{told}");
        } else {
            assert_eq!(cluster.emulator.vmids(), [OLD], "{told}");
        }
        let gc = cluster.run(&["gc"], &["--yes", "--volume-age", "0"]);
        gc.expect(0, &["nothing is left"]);
    });
}

#[test]
fn a_killed_exchange_is_ended_by_gc() {
    let folder = Folder::new();
    let all: Vec<_> = all().collect();
    each(&all, |(kill, how)| {
        let cluster = with_old(&folder);
        killed(&cluster, &folder, kill, how);
        after_the_lease(&cluster, || cluster.run(&["gc"], &["--volume-age", "0"])).expect(0, &[]);
        let ended = cluster.run(&["gc"], &["--yes", "--volume-age", "0"]);
        let told = format!("{kill:?} {how}:\n{}\n{:#?}", ended.all(), vms(&cluster));
        assert_eq!(ended.code, Some(0), "{told}");
        let image = named(&cluster, |name| name == IMAGE);
        assert_eq!(image.len(), 1, "{told}");
        is_image(&cluster, image[0]);
        let mut left = vec![image[0]];
        if how == "--replace" {
            left.push(is_retired(&cluster));
        } else {
            // Not deleted yet, or deleted.
            left.extend(named(&cluster, |name| name.contains("-retired-")));
        }
        left.sort_unstable();
        assert_eq!(cluster.emulator.vmids(), left, "{told}");
        cluster
            .run(&["gc"], &["--yes", "--volume-age", "0"])
            .expect(0, &["nothing is left"]);
    });
}
