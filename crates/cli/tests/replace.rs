//! `build --replace` by the command: the old template stays until the new one is proven, and a builder that is killed in the swap
//! leaves one template with the image's name, after `resume` and after `gc`.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::kill::{Kill, after_the_lease, each, wait};
use common::{Cluster, Ended, Folder, IMAGE, k3simage};
use proxmox_client::{DeleteVm, Method, NodeName, Wait};
use pve_emulator::{Emulator, Timing};

/// The folder of `init` names a vmid; here each template gets the next free one.
const FREE: [&str; 2] = ["-var", "vm_id=0"];
/// The old template, and the VM that the next build makes.
const OLD: u32 = 100;
const NEW: u32 = 101;

fn with_old(folder: &Folder) -> Cluster {
    let cluster = Cluster::start(Emulator::builder().timing(Timing::Scaled(300.0)));
    cluster.run(&["build", folder.path()], &FREE).expect(0, &["vmid 100"]);
    cluster
}

type Config = BTreeMap<String, String>;

fn config(cluster: &Cluster, vmid: u32) -> Config {
    cluster.emulator.vm_config(vmid).expect("it is there")
}

/// The guests that bear the image's name.
fn named(cluster: &Cluster) -> Vec<u32> {
    let has = |vmid: &u32| {
        cluster
            .emulator
            .vm_config(*vmid)
            .is_some_and(|vm| vm.get("name").is_some_and(|name| name == IMAGE))
    };
    cluster.emulator.vmids().into_iter().filter(has).collect()
}

#[track_caller]
fn is_image(cluster: &Cluster, vmid: u32) {
    let config = config(cluster, vmid);
    assert_eq!((config["name"].as_str(), config["template"].as_str()), (IMAGE, "1"));
    assert_eq!(config["tags"], "alma9;k3s;k3simage;v1.29.0+k3s1");
    assert!(!config["description"].contains("k3simage-journal"), "{config:?}");
}

#[test]
fn a_person_sees_what_becomes_of_the_old_one() {
    let folder = Folder::new();
    let cluster = with_old(&folder);
    cluster
        .run(&["build", folder.path()], &FREE)
        .expect(2, &["is taken by template 100", "--replace"]);
    cluster.run(&["plan", folder.path(), "--replace=delete"], &FREE).expect(
        0,
        &[
            "template 100",
            "is deleted once the new one is verified",
            "a build can begin",
        ],
    );
    cluster
        .run(&["build", folder.path(), "--no-verify"], &FREE)
        .expect(2, &["--replace"]);
    cluster
        .run(&["build", folder.path(), "--replace", "--ipconfig", "ip=dhcp"], &FREE)
        .expect(2, &["--ipconfig is given 1 times"]);
    let ended = cluster
        .run(&["build", folder.path(), "--replace"], &FREE)
        .expect(0, &["verify", "17 checks passed", "retire", "-retired-", "vmid 101"]);
    assert!(ended.all().contains("template 100 is"), "{}", ended.all());
    is_image(&cluster, NEW);
    let retired = config(&cluster, OLD)["name"].clone();
    let listed = cluster.run(&["list"], &[]).expect(0, &[IMAGE, "101"]);
    assert!(!listed.all().contains("retired"), "{}", listed.all());
    cluster
        .run(&["list", "--retired"], &[])
        .expect(0, &[&retired, "100", "101"]);
}

const KILLS: [Kill; 8] = [
    // The clones of a verification are there by then.
    Kill::At("verify", "POST", "/nodes/pve/qemu/102/status/start"),
    Kill::At("retire", "PUT", "/nodes/pve/qemu/100/config"),
    Kill::Asked("PUT", "/nodes/pve/qemu/100/config", 0),
    Kill::Answered("PUT", "/nodes/pve/qemu/100/config", 0),
    Kill::At("publish", "DELETE", "/nodes/pve/qemu/100"),
    Kill::At("delete_old", "DELETE", "/nodes/pve/qemu/100"),
    Kill::Asked("DELETE", "/nodes/pve/qemu/100", 0),
    Kill::Answered("DELETE", "/nodes/pve/qemu/100", 0),
];

/// Kills a build; answers its id.
fn killed(cluster: &Cluster, folder: &Folder, kill: Kill, old: &str) -> String {
    let verifies = matches!(kill, Kill::At("verify", ..));
    let mut more = vec![old];
    more.extend(FREE);
    // The clones of a verification take a while; one kill is in its middle.
    if !verifies {
        more.push("--no-verify");
    }
    kill.build(cluster, folder, &more, || {
        let clones = || cluster.emulator.vmids().len() > 2 && !config(cluster, 102).contains_key("lock");
        if verifies {
            wait(clones);
        }
    })
}

#[test]
fn a_killed_swap_is_finished_by_resume() {
    let folder = Folder::new();
    each(&KILLS, |kill| {
        let cluster = with_old(&folder);
        let build = killed(&cluster, &folder, kill, "--replace=delete");
        assert!(named(&cluster).len() <= 1, "{kill:?}");
        let resume = || {
            let mut command = k3simage(&["resume", &build, folder.path()]);
            cluster.lead(&mut command);
            Ended::of(&command.args(FREE).output().unwrap())
        };
        let ended = after_the_lease(&cluster, resume);
        assert_eq!(ended.code, Some(0), "{kill:?}:\n{}", ended.all());
        is_image(&cluster, NEW);
        assert_eq!(
            cluster.emulator.vmids(),
            [NEW],
            "{kill:?}: the old one and all clones are gone"
        );
        let gc = cluster.run(&["gc"], &["--yes", "--volume-age", "0"]);
        gc.expect(0, &["nothing is left"]);
    });
}

#[test]
fn a_killed_swap_is_taken_back_or_ended_by_gc() {
    let folder = Folder::new();
    each(&KILLS, |kill| {
        let cluster = with_old(&folder);
        let before = (config(&cluster, OLD), cluster.inventory());
        killed(&cluster, &folder, kill, "--replace=delete");
        let published = named(&cluster) == [NEW];
        let listed = after_the_lease(&cluster, || cluster.run(&["gc"], &["--volume-age", "0"]));
        listed.expect(0, &["dead"]);
        let ended = cluster.run(&["gc"], &["--yes", "--volume-age", "0"]);
        assert_eq!(ended.code, Some(0), "{kill:?}:\n{}", ended.all());
        if published {
            // The image is complete: it is never removed, and whatever is left of the old one is not either.
            is_image(&cluster, NEW);
            if cluster.emulator.vmids().contains(&OLD) {
                assert!(config(&cluster, OLD)["name"].contains("-retired-"), "{kill:?}");
            }
        } else {
            assert_eq!(
                (config(&cluster, OLD), cluster.inventory()),
                before,
                "{kill:?}:\n{}",
                ended.all()
            );
        }
        assert_eq!(named(&cluster).len(), 1, "{kill:?}");
        cluster
            .run(&["gc"], &["--yes", "--volume-age", "0"])
            .expect(0, &["nothing is left"]);
    });
}

#[test]
fn a_name_that_waits_for_a_deleted_build_is_told() {
    let folder = Folder::new();
    let cluster = with_old(&folder);
    let image = config(&cluster, OLD);
    let renamed = Kill::Answered("PUT", "/nodes/pve/qemu/100/config", 0);
    let build = killed(&cluster, &folder, renamed, "--replace");
    // Somebody deletes the new one, and its journal with it.
    cluster.block_on(async {
        let pve = cluster.client();
        let vm = pve
            .node(&NodeName::new("pve").unwrap())
            .qemu(NEW.to_string().parse().unwrap());
        let upid = vm.delete(&DeleteVm::new()).await.unwrap();
        let _ = pve
            .wait_task(&upid, Wait::at_most(Duration::from_secs(60)))
            .await
            .unwrap();
    });
    let tags = &image["tags"];
    let advice = format!("`qm set 100 --name {IMAGE} --tags '");
    let gc = || after_the_lease(&cluster, || cluster.run(&["gc"], &["--yes", "--volume-age", "0"]));
    gc().expect(0, &[&build, "unclear", &advice, "k3simage'", "nothing of this is dead"]);
    assert!(named(&cluster).is_empty(), "nobody was told to take it back by itself");
    // What it says is done.
    cluster.block_on(async {
        let told = [("name", IMAGE.to_owned()), ("tags", tags.clone())];
        let config = "/nodes/pve/qemu/100/config";
        cluster.client().request(Method::PUT, config, &told).await.unwrap();
    });
    is_image(&cluster, OLD);
    gc().expect(0, &["nothing is left"]);
}
