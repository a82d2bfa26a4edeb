//! What breaks, or is changed by others, while the numbers are exchanged.

use super::*;

/// What fails, and where the old one is then.
#[tokio::test]
async fn a_copy_that_fails_leaves_the_image_where_it_was_built() {
    let no_space = "clone failed: no space left on device";
    let denied = FaultAction::Status(403, "Permission check failed (/vms, VM.Allocate)".to_owned());
    let at = |method: &str, path: &str| Fault {
        when: FaultMatch::Path {
            method: method.to_owned(),
            path: path.to_owned(),
        },
        action: denied.clone(),
        times: 1,
    };
    for (fault, step, old_at) in [
        (task_fails("qmclone", OLD, no_space), "move_old", OLD),
        (at("POST", "/nodes/pve/qemu/100/clone"), "move_old", OLD),
        (task_fails("qmtemplate", MOVED, "no"), "move_old", OLD),
        (task_fails("qmdestroy", OLD, "cannot remove"), "move_old", OLD),
        (task_fails("qmclone", NEW, no_space), "renumber", MOVED),
        (at("POST", "/nodes/pve/qemu/101/clone"), "renumber", MOVED),
        (task_fails("qmtemplate", OLD, "no"), "renumber", MOVED),
    ] {
        let lab = with_old().await;
        lab.pve.fault(fault.clone());
        let run = run(&lab, OldTemplate::Retire).await;
        let (error, what) = (run.error(), format!("{fault:?}"));
        assert_eq!(error.step(), Some(step), "{what}: {}", error.chain());
        has(
            &error.chain(),
            &[
                NAME,
                "is complete as template 101, but does not have vmid 100 yet",
                "k3simage resume",
                "gc --yes",
            ],
        );
        is_complete_at(&lab, NEW);
        let build = build_of(&lab, NEW);
        is_retired(&lab, old_at, &build);
        assert_eq!(
            lab.pve.vmids(),
            if old_at == OLD {
                vec![OLD, NEW]
            } else {
                vec![NEW, MOVED]
            },
            "{what}"
        );
        // What is kept on purpose is the image.
        assert!(
            matches!(error, Error::Step { kept, cleanup, .. } if *kept == ["vm 101 on pve"] && cleanup.is_empty()),
            "{error}"
        );
        let artifact = resume(&lab, &build).await;
        let told = artifact.replaced.unwrap();
        assert_eq!((artifact.vmid, told.vmid), (OLD, MOVED), "{what}");
        is_the_image(&lab, OLD);
        is_retired(&lab, MOVED, &build);
        assert_eq!(lab.pve.vmids(), [OLD, MOVED], "{what}");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_handed_over_is_given_back() {
    let lab = with_old().await;
    // The first is that of the swap.
    lab.pve.fault(Fault {
        when: FaultMatch::PathAfter {
            method: "PUT".to_owned(),
            path: "/nodes/pve/qemu/100/config".to_owned(),
            skip: 2,
        },
        action: FaultAction::Status(403, "Permission check failed (/vms/100, VM.Config.Options)".to_owned()),
        times: 1,
    });
    let run = run(&lab, OldTemplate::Retire).await;
    assert_eq!(run.error().step(), Some("renumber"), "{}", run.error().chain());
    is_complete_at(&lab, NEW);
    let build = build_of(&lab, NEW);
    is_retired(&lab, MOVED, &build);
    assert_eq!(lab.pve.vmids(), [NEW, MOVED]);
    let removed = gc(&lab).await;
    assert_eq!(removed.len(), 1, "{removed:?}");
    is_the_image(&lab, NEW);
    is_retired(&lab, MOVED, &build);
}

#[tokio::test]
async fn a_first_template_that_cannot_be_deleted_is_told_and_collected() {
    let lab = with_old().await;
    lab.pve.fault(task_fails("qmdestroy", NEW, "cannot remove"));
    let run = run(&lab, OldTemplate::Delete).await;
    has(
        &run.error().chain(),
        &["is complete as template 100, but template 101, which it was built as, is still there"],
    );
    is_the_image(&lab, OLD);
    assert_eq!(lab.pve.vmids(), [OLD, NEW]);
    let removed = gc(&lab).await.join(", ");
    has(&removed, &["template 101 on pve"]);
    is_the_image(&lab, OLD);
    assert_eq!(lab.pve.vmids(), [OLD]);
}

#[tokio::test]
async fn linked_clones_that_appear_keep_the_old_one_and_its_vmid() {
    // Before it is copied, and while it is.
    for (method, path, old) in [
        ("POST", "/nodes/pve/qemu/101/template", OldTemplate::Retire),
        ("POST", "/nodes/pve/qemu/102/template", OldTemplate::Retire),
        ("POST", "/nodes/pve/qemu/101/template", OldTemplate::Delete),
    ] {
        let lab = with_old().await;
        let run = run_around(&lab, old, method, path, async || linked_clone(&lab, OLD, 500).await).await;
        let artifact = run.artifact();
        assert_eq!(artifact.vmid, NEW, "{path}");
        let told = artifact.replaced.clone().unwrap();
        assert_eq!(told.vmid, OLD);
        is_the_image(&lab, NEW);
        is_retired(&lab, OLD, &artifact.build_id);
        assert_eq!(config(&lab, OLD)["name"], told.kept_as.unwrap());
        assert_eq!(lab.pve.vmids(), [OLD, NEW, 500], "{path}");
        has(
            &run.warnings(),
            &["keeps vmid 101", "does not get 100", "linked clones", "vm 500"],
        );
        assert_eq!(run.warnings().lines().count(), 1, "{}", run.warnings());
    }
    // What PVE alone sees.
    let lab = with_old().await;
    let in_use = "base volume 'local:100/base-100-disk-0.qcow2' is still in use by linked cloned";
    lab.pve.fault(task_fails("qmdestroy", OLD, in_use));
    let run = run(&lab, OldTemplate::Retire).await;
    assert_eq!(run.artifact().vmid, NEW);
    is_retired(&lab, OLD, &run.artifact().build_id);
    assert_eq!(lab.pve.vmids(), [OLD, NEW]);
}

#[tokio::test]
async fn linked_clones_of_the_new_one_keep_what_it_was_built_as() {
    let lab = with_old().await;
    let clone = async || linked_clone(&lab, NEW, 500).await;
    let run = run_around(&lab, OldTemplate::Retire, "POST", "/nodes/pve/qemu/102/template", clone).await;
    assert_eq!(run.artifact().vmid, OLD);
    is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &run.artifact().build_id);
    let kept = config(&lab, NEW);
    assert_eq!(kept["name"], format!("{NAME}-moved-{}", run.artifact().build_id));
    assert_eq!(kept["tags"], "k3simage-retired;v1.29.0+k3s1");
    assert!(!kept["description"].contains("k3simage-journal"), "{kept:?}");
    has(
        &run.warnings(),
        &["template 101", "is kept as", "linked clones", "vm 500"],
    );
    assert!(config(&lab, 500)["scsi0"].contains("101/base-101-disk"));
}

#[tokio::test]
async fn a_vmid_that_somebody_takes_is_tried_elsewhere_or_named() {
    let make = async |lab: &Lab, vmid: u32| {
        done(lab, vm(lab, vmid).create(&CreateVm::new().name("quick")).await.unwrap()).await;
    };
    // The old one goes to the next.
    let lab = with_old().await;
    let run = run_around(
        &lab,
        OldTemplate::Retire,
        "POST",
        "/nodes/pve/qemu/100/clone",
        async || {
            make(&lab, MOVED).await;
        },
    )
    .await;
    assert_eq!(run.artifact().vmid, OLD);
    is_retired(&lab, 103, &run.artifact().build_id);
    assert_eq!(lab.pve.vmids(), [OLD, MOVED, 103]);
    // The one that was to be had is lost.
    let lab = with_old().await;
    let run = run_around(
        &lab,
        OldTemplate::Retire,
        "POST",
        "/nodes/pve/qemu/101/clone",
        async || {
            make(&lab, OLD).await;
        },
    )
    .await;
    assert_eq!(run.artifact().vmid, NEW);
    is_the_image(&lab, NEW);
    is_retired(&lab, MOVED, &run.artifact().build_id);
    has(&run.warnings(), &["keeps vmid 101", "vmid 100 is taken"]);
    assert_eq!(config(&lab, OLD)["name"], "quick");
}

#[tokio::test]
async fn an_old_one_that_somebody_changed_or_deleted_is_left_to_them() {
    let lab = with_old().await;
    let rename = async || {
        let update = VmConfigUpdate::new().name("mine").tags(["archive"]);
        vm(&lab, OLD).update_config(&update).await.unwrap();
    };
    let run = run_around(
        &lab,
        OldTemplate::Retire,
        "POST",
        "/nodes/pve/qemu/102/template",
        rename,
    )
    .await;
    assert_eq!(run.artifact().vmid, NEW);
    has(&run.warnings(), &["keeps vmid 101", "mine", "somebody has changed it"]);
    assert_eq!(
        (config(&lab, OLD)["name"].as_str(), lab.pve.vmids()),
        ("mine", vec![OLD, NEW])
    );

    let lab = with_old().await;
    let delete = async || {
        let everything = proxmox_client::DeleteVm::new();
        done(&lab, vm(&lab, OLD).delete(&everything).await.unwrap()).await;
    };
    let run = run_around(
        &lab,
        OldTemplate::Retire,
        "POST",
        "/nodes/pve/qemu/102/template",
        delete,
    )
    .await;
    // The copy was nearly made, and is all that there is.
    assert_eq!(run.artifact().vmid, OLD);
    is_the_image(&lab, OLD);
    is_retired(&lab, MOVED, &run.artifact().build_id);
}

#[tokio::test]
async fn cancel_ends_a_copy_and_nothing_that_takes_seconds() {
    for step in ["publish", "move_old", "renumber"] {
        let lab = with_old().await;
        let at = |kind: &EventKind| matches!(kind, EventKind::StepStarted { step: begun } if begun == step);
        let run = replace_until(&lab, same(&lab), quick(OldTemplate::Retire), at).await;
        match &run.ended {
            // A cancel before the call that publishes takes all back.
            Err(error) if error.step() == Some("publish") => {
                assert_eq!((named(&lab, NAME), lab.pve.vmids()), (vec![OLD], vec![OLD]));
            }
            Err(error) => {
                assert!(error.is_cancelled(), "{step}: {}", error.chain());
                has(&error.chain(), &["is complete as template 101", "k3simage resume"]);
                is_complete_at(&lab, NEW);
                let build = build_of(&lab, NEW);
                let old = if lab.pve.vmids().contains(&OLD) { OLD } else { MOVED };
                is_retired(&lab, old, &build);
                assert_eq!(lab.pve.vmids().len(), 2, "{step}: {:?}", lab.pve.vmids());
                assert_eq!(resume(&lab, &build).await.vmid, OLD);
                is_the_image(&lab, OLD);
                is_retired(&lab, MOVED, &build);
                assert_eq!(lab.pve.vmids(), [OLD, MOVED], "{step}");
            }
            // It came when there were but calls of seconds left.
            Ok(_) => {
                is_the_image(&lab, OLD);
                assert_eq!(lab.pve.vmids(), [OLD, MOVED], "{step}");
            }
        }
    }
    // In the middle of each copy, whose task is stopped.
    for (of, number, left) in [(OLD, MOVED, vec![OLD, NEW]), (NEW, OLD, vec![NEW, MOVED])] {
        let lab = with_old().await;
        lab.pve.fault(Fault {
            when: FaultMatch::Task {
                kind: "qmclone".to_owned(),
                id: of.to_string(),
            },
            action: FaultAction::Task(TaskFault::Hangs),
            times: 1,
        });
        let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let build = image_build::build(&lab.client, same(&lab))
            .events(to)
            .cancel(cancel.clone())
            .replace(quick(OldTemplate::Retire));
        let running = tokio::spawn(async move { build.await });
        // The other copy, which does not hang, may be seen too.
        let locked = || {
            let copy = lab.pve.vm_config(number);
            copy.is_some_and(|config| config.get("lock").is_some_and(|lock| lock == "clone"))
        };
        while !locked() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            while events.try_recv().is_ok() {}
        }
        cancel.cancel();
        let error = running.await.unwrap().unwrap_err();
        assert!(error.is_cancelled(), "{}", error.chain());
        is_complete_at(&lab, NEW);
        assert_eq!(lab.pve.vmids(), left, "{of}");
    }
}

#[tokio::test]
async fn lost_answers_do_not_break_the_exchange() {
    for (method, path) in [
        ("POST", "/nodes/pve/qemu/100/clone"),
        ("POST", "/nodes/pve/qemu/102/template"),
        ("DELETE", "/nodes/pve/qemu/100"),
        ("PUT", "/nodes/pve/qemu/102/config"),
        ("POST", "/nodes/pve/qemu/101/clone"),
        ("POST", "/nodes/pve/qemu/100/template"),
        ("DELETE", "/nodes/pve/qemu/101"),
    ] {
        let lab = with_old().await;
        lab.pve.fail_next(method, path, FaultAction::LoseAnswer);
        let run = run(&lab, OldTemplate::Retire).await;
        assert_eq!(run.artifact().vmid, OLD, "{method} {path}");
        is_the_image(&lab, OLD);
        is_retired(&lab, MOVED, &run.artifact().build_id);
        assert_eq!(lab.pve.vmids(), [OLD, MOVED], "{method} {path}");
    }
}
