//! What an exchange leaves that did not end: what `gc` makes of it, and who goes on with it.

use super::*;

#[tokio::test]
async fn a_kept_build_is_collected_without_its_image() {
    let lab = with_old().await;
    lab.pve.fault(task_fails("qmclone", NEW, "no"));
    let keeping = builder(&lab).vmid(OLD).on_error(OnError::Keep).build().unwrap();
    let run = replace(&lab, keeping, quick(OldTemplate::Retire)).await;
    assert_eq!(run.error().step(), Some("renumber"));
    let build = build_of(&lab, NEW);
    let removed = gc(&lab).await;
    assert_eq!(removed, ["the build's mark on template 101 on pve, which is complete"]);
    is_the_image(&lab, NEW);
    is_retired(&lab, MOVED, &build);
    assert_eq!(lab.pve.vmids(), [NEW, MOVED]);
}

/// A person's clone of the template bears its journal and tag; a copy bears the build's name, and the journal its number.
#[tokio::test]
async fn what_a_dead_builder_had_half_made_is_told_from_what_people_made() {
    let lab = with_old().await;
    lab.pve.fault(task_fails("qmclone", NEW, "no"));
    run(&lab, OldTemplate::Retire).await.error();
    let build = build_of(&lab, NEW);
    // As a builder leaves it that dies between the copy and its conversion, with the name gone from the one and not yet at the other.
    let copy = CloneVm::new(OLD.try_into().unwrap())
        .name(format!("k3simage-copy-{build}"))
        .full(true);
    done(&lab, vm(&lab, NEW).clone_to(&copy).await.unwrap()).await;
    let nameless = VmConfigUpdate::new()
        .name(format!("k3simage-build-{build}"))
        .tags([format!("k3simage-build-{build}"), "v1.29.0+k3s1".to_owned()]);
    vm(&lab, NEW).update_config(&nameless).await.unwrap();
    let mine = CloneVm::new(600.try_into().unwrap()).name("mine").full(true);
    done(&lab, vm(&lab, NEW).clone_to(&mine).await.unwrap()).await;
    let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
    let things: Vec<String> = found[0].things.iter().map(ToString::to_string).collect();
    assert_eq!(
        things,
        [
            "the build's mark on template 101 on pve, which is complete",
            "the copy 100 on pve, which is not needed"
        ]
    );
    gc(&lab).await;
    is_the_image(&lab, NEW);
    assert_eq!(lab.pve.vmids(), [NEW, MOVED, 600]);
}

/// A build whose deletion of the old one outlasts its limit. `lost`: the answer to the call that began it is lost too. The build's id, and the
/// deletion's task, which does nothing until somebody stops it.
async fn with_a_deletion_that_hangs(lab: &Lab, lost: bool) -> (String, Upid) {
    lab.pve.fault(Fault {
        when: FaultMatch::Task {
            kind: "qmdestroy".to_owned(),
            id: OLD.to_string(),
        },
        action: FaultAction::Task(TaskFault::Hangs),
        times: 1,
    });
    if lost {
        lab.pve
            .fail_next("DELETE", "/nodes/pve/qemu/100", FaultAction::LoseAnswer);
    }
    let mut spec = same(lab);
    spec.timeouts.task = Duration::from_secs(8);
    let run = replace(lab, spec, quick(OldTemplate::Retire)).await;
    let text = run.error().chain();
    let (still, copy) = (
        "template 100: Proxmox VE still deletes it (task UPID:pve:",
        "its copy, vm 102, is not removed",
    );
    has(
        &text,
        &[
            "is complete as template 101, but does not have vmid 100 yet",
            still,
            copy,
        ],
    );
    is_complete_at(lab, NEW);
    assert_eq!(lab.pve.vmids(), [OLD, NEW, MOVED]);
    let build = build_of(lab, NEW);

    // Nobody else removes the copy meanwhile either.
    let living = "it counts as living until Proxmox VE has deleted template 100";
    let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
    assert_eq!(found[0].state, State::Alive, "{found:?}");
    assert_eq!(found[0].because, living);
    let refused = image_build::resume(&lab.client, same(lab), build.as_str()).await;
    has(&refused.unwrap_err().chain(), &[living]);

    let filter = TaskFilter {
        kind: Some("qmdestroy".to_owned()),
        vmid: Some(OLD.try_into().unwrap()),
        with_active: true,
        ..TaskFilter::default()
    };
    let node = lab.client.node(&"pve".parse().unwrap());
    let tasks = node.tasks(&filter).await.unwrap();
    let [task] = tasks.as_slice() else {
        panic!("the deletion was asked for more than once: {tasks:?}")
    };
    (build, task.upid.clone())
}

async fn stop(lab: &Lab, upid: &Upid) {
    let node = lab.client.node(&upid.node());
    node.task(upid).stop().await.unwrap();
    let ended = lab.client.wait_task(upid, Wait::at_most(Duration::from_secs(60))).await;
    ended.unwrap_err();
}

#[tokio::test]
async fn while_the_old_one_is_being_deleted_its_copy_stays() {
    // The deletion ends well after all.
    let ends = async {
        let lab = with_old().await;
        let (build, task) = with_a_deletion_that_hangs(&lab, true).await;
        let all = DeleteVm::new().unreferenced_disks(true);
        done(&lab, vm(&lab, OLD).delete(&all).await.unwrap()).await;
        stop(&lab, &task).await;
        let removed = gc(&lab).await.join(", ");
        has(
            &removed,
            &["the build's mark on template 102 on pve, which is the old one, moved"],
        );
        is_the_image(&lab, NEW);
        is_retired(&lab, MOVED, &build);
        assert_eq!(lab.pve.vmids(), [NEW, MOVED]);
    };
    // It ends before it has done anything.
    let fails = async {
        let lab = with_old().await;
        let (build, task) = with_a_deletion_that_hangs(&lab, false).await;
        stop(&lab, &task).await;
        is_retired(&lab, OLD, &build);
        assert_eq!(resume(&lab, &build).await.vmid, OLD);
        is_the_image(&lab, OLD);
        is_retired(&lab, MOVED, &build);
        assert_eq!(lab.pve.vmids(), [OLD, MOVED]);
    };
    // It ends in the middle: what is left of the old one is no template.
    let breaks = async {
        let lab = with_old().await;
        let (_, task) = with_a_deletion_that_hangs(&lab, false).await;
        stop(&lab, &task).await;
        let volid: VolId = config(&lab, OLD)["scsi0"].split(',').next().unwrap().parse().unwrap();
        let storage = lab.client.node(&"pve".parse().unwrap()).storage(&volid.storage());
        if let Some(upid) = storage.delete(&volid).await.unwrap() {
            done(&lab, upid).await;
        }
        let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
        let error = image_build::gc::remove(&lab.client, &found[0], &CancellationToken::new(), &mut Vec::new()).await;
        let text = error.unwrap_err().chain();
        has(
            &text,
            &["template 100", "its disk scsi0", "its copy, vm 102, is not removed"],
        );
        assert_eq!(lab.pve.vmids(), [OLD, NEW, MOVED]);
    };
    tokio::join!(ends, fails, breaks);
}

#[tokio::test]
async fn once_it_is_published_every_error_says_where_the_image_is() {
    let config = "/nodes/pve/qemu/101/config";
    // Before the old one is deleted the new one is looked at; between the two calls of the swap that look is the second one to come. What is
    // written down when `renumber` begins is the first change after the deletion.
    for (held, method, skip, step, what) in [
        (
            ("PUT", "/nodes/pve/qemu/100/config"),
            "GET",
            1,
            "delete_old",
            "but template 100, which it replaced, is not deleted yet",
        ),
        (
            ("DELETE", "/nodes/pve/qemu/100"),
            "PUT",
            0,
            "renumber",
            "but does not have vmid 100 yet",
        ),
    ] {
        let lab = with_old().await;
        let deny = async || {
            lab.pve.fault(Fault {
                when: FaultMatch::PathAfter {
                    method: method.to_owned(),
                    path: config.to_owned(),
                    skip,
                },
                action: FaultAction::Status(403, "Permission check failed (/vms/101, VM.Audit)".to_owned()),
                times: 1,
            });
        };
        let run = run_around(&lab, OldTemplate::Delete, held.0, held.1, deny).await;
        let text = run.error().chain();
        assert_eq!(run.error().step(), Some(step), "{text}");
        has(&text, &["is complete as template 101, ", what, "k3simage resume"]);
        is_complete_at(&lab, NEW);
        let build = build_of(&lab, NEW);
        assert_eq!(resume(&lab, &build).await.vmid, OLD);
        is_the_image(&lab, OLD);
        assert_eq!(lab.pve.vmids(), [OLD]);
    }
}

/// The folder that finishes it may not be the one that began it.
#[tokio::test]
async fn a_complete_image_keeps_its_own_tags_and_pool() {
    let lab = with_old().await;
    lab.pve
        .fault(task_fails("qmclone", OLD, "clone failed: no space left on device"));
    run(&lab, OldTemplate::Retire).await.error();
    let build = build_of(&lab, NEW);
    let before = config(&lab, NEW);
    let other = builder(&lab).name("another-image").vmid(OLD).build().unwrap();
    let error = image_build::resume(&lab.client, other, build.as_str())
        .await
        .unwrap_err();
    has(&error.chain(), &["has changed", "name", NAME]);
    assert_eq!(config(&lab, NEW), before);

    let other = builder(&lab).tags(["mine"]).vmid(OLD).build().unwrap();
    let artifact = image_build::resume(&lab.client, other, build.as_str()).await;
    let artifact = artifact.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(artifact.tags, ["k3simage", "v1.29.0+k3s1"]);
    is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &build);
}

/// As a node leaves it that lost its power in the middle of the copy.
#[tokio::test]
async fn half_a_copy_that_nobody_makes_any_more_is_told_from_one_that_is_made() {
    let password = "a-password-of-root";
    let storages = vec![StorageSpec::dir("local", "/var/lib/vz").content(["iso", "images"])];
    let emulator = Emulator::builder().storages(storages).user("root@pam", password);
    let lab = Lab::of(emulator, SimulatedOptions::default()).await;
    let (ended, _) = lab.build(builder(&lab).build().unwrap()).await;
    ended.unwrap_or_else(|error| panic!("{}", error.chain()));
    lab.pve
        .fault(task_fails("qmclone", OLD, "clone failed: no space left on device"));
    run(&lab, OldTemplate::Retire).await.error();
    let build = build_of(&lab, NEW);
    let upid = vm(&lab, MOVED).create(&CreateVm::new()).await.unwrap();
    done(&lab, upid).await;
    let root = Client::builder(lab.pve.url())
        .auth(Auth::password("root@pam", password))
        .tls(Tls::Pinned(lab.pve.fingerprint().parse().unwrap()))
        .build()
        .unwrap();
    let path = format!("/nodes/pve/qemu/{MOVED}/config");
    let lock = [("lock", "clone".to_owned())];
    root.request(Method::PUT, &path, &lock).await.unwrap();

    let what_to_do = ["vm 102 on pve", "half a copy", "qm unlock 102 && qm destroy 102"];
    let found = image_build::gc::find(&lab.client, Duration::ZERO).await.unwrap();
    assert_eq!(found[0].state, State::Unclear, "{found:?}");
    has(&found[0].because, &what_to_do);
    let error = image_build::resume(&lab.client, same(&lab), build.as_str())
        .await
        .unwrap_err();
    has(&error.chain(), &what_to_do);

    let unlock = [("delete", "lock".to_owned()), ("skiplock", "1".to_owned())];
    root.request(Method::PUT, &path, &unlock).await.unwrap();
    done(&lab, vm(&lab, MOVED).delete(&DeleteVm::new()).await.unwrap()).await;
    assert_eq!(resume(&lab, &build).await.vmid, OLD);
    is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &build);
}
