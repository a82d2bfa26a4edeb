//! What goes wrong in the guest: found in time, and named.

use super::*;

/// Which limit a build with something wrong in its guest is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Install,
    Login,
    Seal,
    /// What is wrong shows by itself.
    None,
}

/// Long enough for what comes before the fault in the same step, on a machine with much else to do.
const SHORT: Duration = Duration::from_secs(20);

/// One build with one thing wrong in the guest; all limits but the one that it reaches are far away.
async fn with_fault(kind: FaultKind, reached: Reached) -> String {
    let lab = Lab::start().await;
    lab.guests.inject(Fault::always(kind));
    let limit = |of: Reached| if of == reached { SHORT } else { LONG };
    let timeouts = Timeouts {
        install: limit(Reached::Install),
        task: LONG,
        shutdown: LONG,
        undo: LONG,
    };
    let mut spec = lab
        .spec()
        .timeouts(timeouts)
        .ssh_timeout(limit(Reached::Login))
        .build()
        .expect("a spec");
    if let Some(seal) = &mut spec.seal {
        seal.timeout = limit(Reached::Seal);
    }
    refused(&lab, spec).await
}

#[tokio::test]
async fn what_goes_wrong_in_the_guest_is_named_in_time() {
    let script = |name: &str| name.to_owned();
    let cases: Vec<(FaultKind, Reached, &[&str])> = vec![
        (
            FaultKind::InstallFails {
                message: "no space left".to_owned(),
            },
            Reached::Install,
            &[
                "install failed",
                "the end of the installation did not happen within 20.0 s",
                "its screen shows",
            ],
        ),
        (
            FaultKind::KernelPanic,
            Reached::Install,
            &[
                "install failed",
                "the end of the installation",
                "0 B written to disk",
                "kernel panic",
            ],
        ),
        (
            FaultKind::AgentNever,
            Reached::Login,
            &["connect failed", "guest agent", "%packages"],
        ),
        (
            FaultKind::SshdNever,
            Reached::Login,
            &[
                "connect failed",
                "an ssh login did not happen",
                "refused: no sshd listens there",
            ],
        ),
        (
            FaultKind::ScriptHangs {
                script: script("seal.sh"),
            },
            Reached::Seal,
            &["seal failed", "running seal.sh", "did not end within 20s"],
        ),
        (
            FaultKind::ScriptReboots {
                script: script("os-update.sh"),
            },
            Reached::None,
            &[
                "provision failed",
                "running os-update.sh",
                "lost while",
                "expect_disconnect",
            ],
        ),
    ];
    // Side by side: most of the time is waiting.
    futures_util::future::join_all(cases.into_iter().map(async |(kind, reached, parts)| {
        let what = format!("{kind:?}");
        let text = with_fault(kind, reached).await;
        for part in parts {
            assert!(text.contains(part), "{what}: `{part}` is not in `{text}`");
        }
    }))
    .await;
}

#[tokio::test]
async fn a_script_that_may_reboot_the_guest_is_gone_on_from() {
    for kind in [CommunicatorKind::Ssh, CommunicatorKind::Agent] {
        let lab = Lab::start().await;
        lab.guests.inject(Fault::once(FaultKind::ScriptReboots {
            script: "restart.sh".to_owned(),
        }));
        let script = |name: &str| ShellSpec::new(name, "#!/bin/bash\nexit 0\n");
        let mut spec = lab
            .spec()
            .provisioners(vec![
                ProvisionerSpec::Shell(script("restart.sh").expect_disconnect()),
                ProvisionerSpec::Shell(script("after.sh")),
                // Allowed to, and does not.
                ProvisionerSpec::Shell(script("calm.sh").expect_disconnect()),
            ])
            .build()
            .unwrap();
        spec.communicator.kind = kind;
        let (ended, seen) = lab.build(spec).await;
        ended.unwrap_or_else(|error| panic!("{kind}: {}\n{}", error.chain(), story(&seen)));
        let summary = seen.iter().find_map(|event| match &event.kind {
            EventKind::StepFinished { step, summary, .. } if step == "provision" => Some(summary.clone()),
            _ => None,
        });
        let summary = format!("{summary:?}");
        for part in [
            "restart.sh, which ended the connection, rebooted in",
            "after.sh, 0 lines",
            "calm.sh, 0 lines",
        ] {
            assert!(summary.contains(part), "{kind}: {part}: {summary}");
        }
    }
}

#[tokio::test]
async fn a_guest_that_powers_off_by_itself_ends_the_wait_at_once() {
    let begun = std::time::Instant::now();
    let text = with_fault(FaultKind::PowersOff { after: Duration::ZERO }, Reached::None).await;
    assert!(text.contains("stopped") && begun.elapsed() < LONG / 2, "{text}");
}

/// A guest that nobody listens to cannot tell that it boots, but what boots it from outside is a task.
#[tokio::test]
async fn a_guest_that_was_booted_after_its_seal_becomes_no_template() {
    let lab = Lab::start().await;
    let before = lab.inventory();
    let mut spec = lab.spec().build().unwrap();
    spec.hardware.serial = false;
    let gate = Gate::default();
    let shutdown = "/nodes/pve/qemu/9000/status/shutdown";
    lab.pve.fail_next("POST", shutdown, FaultAction::Hold(gate.clone()));
    let building = tokio::spawn(image_build::build(&lab.client, spec).into_future());
    gate.reached().await;
    let own = vm(&lab, 9000);
    done(&lab, own.stop().await.unwrap()).await;
    done(&lab, own.start().await.unwrap()).await;
    gate.open();
    let error = building.await.unwrap().unwrap_err();
    assert!(
        matches!(error.step(), Some("shut_down" | "finalise")),
        "{}",
        error.chain()
    );
    if error.step() == Some("finalise") {
        has(
            &error.chain(),
            &["vm 9000 was started or reset by somebody after it was sealed"],
        );
    }
    assert_eq!(lab.inventory(), before);
}

#[tokio::test]
async fn a_guest_that_was_started_after_its_seal_is_installed_again() {
    for started in [false, true] {
        let lab = Lab::start().await;
        lab.pve
            .fault(task_fails("qmshutdown", 9000, "VM quit/powerdown failed"));
        let keeping = lab.spec().on_error(OnError::Keep).build().unwrap();
        let (ended, seen) = lab.build(keeping).await;
        assert_eq!(ended.unwrap_err().step(), Some("shut_down"), "{}", story(&seen));
        let own = vm(&lab, 9000);
        done(&lab, own.stop().await.unwrap()).await;
        if started {
            // Times of tasks are cut to the second.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            done(&lab, own.start().await.unwrap()).await;
            done(&lab, own.stop().await.unwrap()).await;
        }
        let tags = lab.pve.vm_config(9000).unwrap()["tags"].clone();
        let build = tags
            .split(';')
            .find_map(|tag| tag.strip_prefix("k3simage-build-"))
            .unwrap();
        let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
        let resumed = image_build::resume(&lab.client, lab.spec().build().unwrap(), build).events(to);
        let artifact = resumed.await.unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!(artifact.vmid, 9000);
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            seen.push(event);
        }
        let steps = finished(&seen);
        assert_eq!(steps.contains(&"install".to_owned()), started, "{}", story(&seen));
        assert_eq!(story(&seen).contains("was started after it had been sealed"), started);
    }
}
