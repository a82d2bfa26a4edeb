//! What goes wrong, and how it shows.

use super::*;

#[tokio::test]
async fn a_cpu_below_the_baseline_panics() {
    for cpu in ["", "kvm64", "cputype=qemu64"] {
        let rig = Rig::new(SimulatedOptions::default());
        let kickstart = rig.kickstart("", "");
        rig.engine
            .start(rig.launch(300, Some(&kickstart), &[("cpu", cpu)]))
            .await
            .unwrap();
        let record = rig.until(300, GuestState::Panicked).await;
        assert!(
            record
                .console
                .contains("Fatal glibc error: CPU does not support x86-64-v2"),
            "{}",
            record.console
        );
        let status = rig.engine.status(300).unwrap();
        assert!(status.cpu > 0.9);
        assert_eq!(
            rig.agent(300, "guest-ping", json!({})).await,
            Err(AgentError::NotRunning)
        );
        // Only the plug helps.
        rig.engine.powerdown(300, Powerdown::Acpi).await;
        rig.engine.stop(300).await;
        assert_eq!(*lock(&rig.exits), [(300, Exit::Stopped)]);
    }
}

#[tokio::test]
async fn nothing_to_boot_stays_running() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.engine
        .start(rig.launch(301, None, &[("boot", "order=scsi0")]))
        .await
        .unwrap();
    let record = rig.until(301, GuestState::NoBootDevice).await;
    assert!(record.console.contains("No bootable device"));
    assert!(rig.engine.status(301).is_some());
    let missing = Launch {
        drives: vec![Drive {
            slot: "scsi0".into(),
            cdrom: false,
            path: "/no/such".into(),
            format: "raw".into(),
            size_bytes: 0,
        }],
        ..rig.launch(302, None, &[])
    };
    assert!(rig.engine.start(missing).await.unwrap_err().0.contains("No such file"));
    assert!(
        rig.engine
            .start(rig.launch(301, None, &[]))
            .await
            .unwrap_err()
            .0
            .contains("already running")
    );
}

#[tokio::test]
async fn the_installer_says_what_it_lacks_and_waits() {
    let rig = Rig::new(SimulatedOptions::default());
    let complete = rig.kickstart("", "qemu-guest-agent");
    for (kickstart, state, said) in [
        (
            complete.replace("autopart\n", ""),
            GuestState::InstallerWaits,
            "Installation Destination",
        ),
        (
            complete.replace("rootpw --lock\n", ""),
            GuestState::InstallerWaits,
            "Root password",
        ),
        (
            complete
                .replace("cdrom\n", "url --url=http://mirror.example/\n")
                .replace("rootpw --lock\n", ""),
            GuestState::InstallerWaits,
            "Root password",
        ),
        (
            complete.replace("rootpw --lock\n", "cmdline\n"),
            GuestState::InstallerFailed,
            "command line mode",
        ),
        (
            complete.replace("zerombr", "zerombrr"),
            GuestState::InstallerFailed,
            "Unknown command: zerombrr",
        ),
        (
            complete.replace("clearpart --all", "clearpart --all --drives=vda"),
            GuestState::InstallerFailed,
            "Disk \"vda\" given in clearpart command does not exist",
        ),
        (
            format!("{complete}%post --erroronfail\nexit 5\n%end\n"),
            GuestState::InstallerFailed,
            "error running the kickstart script",
        ),
    ] {
        rig.engine.start(rig.launch(303, Some(&kickstart), &[])).await.unwrap();
        let record = rig.until(303, state).await;
        assert!(record.console.contains(said), "{said}: {}", record.console);
        assert_eq!(record.installed, None);
        rig.engine.powerdown(303, Powerdown::Acpi).await;
        rig.until(303, GuestState::Stopped).await;
    }
}

#[tokio::test]
async fn a_minimal_medium_lacks_appstream() {
    let rig = Rig::new(SimulatedOptions::default());
    let local = rig.kickstart("", "qemu-guest-agent");
    let remote = rig.kickstart(
        "repo --name=appstream --baseurl=http://mirror.example/AppStream/",
        "qemu-guest-agent",
    );
    for (kickstart, state) in [(local, GuestState::InstallerWaits), (remote, GuestState::Running)] {
        let launch = rig.launch(304, Some(&kickstart), &[]);
        rig.file("alma.iso", &plain_volume("AlmaLinux-9-3-x86_64-minimal", &[]));
        rig.engine.start(launch).await.unwrap();
        let record = rig.until(304, state).await;
        assert_eq!(
            state == GuestState::InstallerWaits,
            record.console.contains("are missing: qemu-guest-agent"),
            "{}",
            record.console
        );
        rig.engine.stop(304).await;
    }
}

#[tokio::test]
async fn a_kickstart_that_cannot_be_fetched_stops_in_dracut() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.engine.start(rig.launch(305, None, &[])).await.unwrap();
    rig.until(305, GuestState::Menu).await;
    // inst.ks=cdrom:/ks.cfg, and there is none on the medium.
    rig.type_keys(
        305,
        "up tab spc i n s t dot k s equal c d r o m shift-semicolon slash k s dot c f g ret",
    )
    .await;
    let record = rig.until(305, GuestState::InstallerFailed).await;
    assert!(
        record.console.contains("failed to fetch kickstart from cdrom:/ks.cfg"),
        "{}",
        record.console
    );
    assert_eq!(record.kickstart_text, None);
}

#[tokio::test]
async fn without_agent_package_or_port_or_network_nobody_answers() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.installed(306, "", "").await;
    // sshd is up later than the agent would be... in instant time both at once.
    drop(rig.ssh(306).await);
    assert_eq!(
        rig.agent(306, "guest-network-get-interfaces", json!({})).await,
        Err(AgentError::NotRunning)
    );
    // A package installed later starts it, as the seed's own script did.
    rig.ssh(306).await.exec("dnf -y install qemu-guest-agent").await;
    rig.agent_up(306, "guest-ping", json!({})).await;

    let kickstart = rig.kickstart("", "qemu-guest-agent");
    rig.engine
        .start(rig.launch(307, Some(&kickstart), &[("net0", "")]))
        .await
        .unwrap();
    let record = rig.until(307, GuestState::Running).await;
    assert_eq!(record.address, None);
    let interfaces = rig.agent_up(307, "guest-network-get-interfaces", json!({})).await;
    assert_eq!(interfaces.as_array().unwrap().len(), 1);

    rig.engine
        .start(rig.launch(308, Some(&kickstart), &[("agent", "")]))
        .await
        .unwrap();
    rig.until(308, GuestState::Running).await;
    drop(rig.ssh(308).await);
    assert_eq!(
        rig.agent(308, "guest-ping", json!({})).await,
        Err(AgentError::NotRunning)
    );
}

#[tokio::test]
async fn services_that_are_off_stay_off() {
    let rig = Rig::new(SimulatedOptions::default());
    for (vmid, lines, packages) in [
        (309, "services --disabled=sshd", "qemu-guest-agent"),
        (310, "", "qemu-guest-agent\n-openssh-server"),
    ] {
        rig.installed(vmid, lines, packages).await;
        rig.agent_up(vmid, "guest-ping", json!({})).await;
        assert!(rig.connect(vmid).await.is_err());
        rig.engine.stop(vmid).await;
    }
    // Stopping sshd leaves its sessions and refuses new ones.
    rig.installed(311, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(311).await;
    ssh.exec("systemctl stop sshd").await;
    rig.wait_refused(311).await;
    assert_eq!(
        ssh.exec("systemctl start sshd; systemctl is-active sshd").await.stdout,
        "active\n"
    );
    drop(rig.ssh(311).await);
}

#[tokio::test]
async fn faults_strike_as_ordered() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.engine.inject(Fault::once(FaultKind::ScriptExits {
        script: "a.sh".into(),
        code: 7,
    }));
    rig.engine
        .inject(Fault::once(FaultKind::ScriptReboots { script: "b.sh".into() }).on(312));
    rig.engine.inject(Fault::always(FaultKind::IgnoresAcpi));
    rig.installed(312, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(312).await;
    for name in ["a", "b"] {
        ssh.exec_with(&format!("cat > /root/{name}.sh"), b"echo hi\n").await;
    }
    assert_eq!(ssh.exec("bash /root/a.sh").await.code, Some(7));
    assert_eq!(ssh.exec("bash /root/a.sh").await.code, Some(0));
    let boots = rig.engine.guest(312).unwrap().boots;
    let lost = ssh.exec("bash /root/b.sh").await;
    assert_eq!(lost.code, None, "the connection went down with the guest");
    let record = rig
        .wait("reboot", 312, |record| {
            record.boots > boots && record.state == GuestState::Running
        })
        .await;
    let codes: Vec<_> = record.script_runs.iter().map(|run| run.exit_code).collect();
    assert_eq!(codes, [Some(7), Some(0), None]);
    drop(rig.ssh(312).await);
    rig.engine.powerdown(312, Powerdown::Acpi).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(rig.engine.guest(312).unwrap().state, GuestState::Running);

    for (kind, state) in [
        (
            FaultKind::InstallFails {
                message: "disk on fire".into(),
            },
            GuestState::InstallerFailed,
        ),
        (FaultKind::KernelPanic, GuestState::Panicked),
        (
            FaultKind::PowersOff {
                after: Duration::from_secs(60),
            },
            GuestState::Stopped,
        ),
    ] {
        rig.engine.inject(Fault::once(kind).on(313));
        let kickstart = rig.kickstart("", "");
        rig.engine.start(rig.launch(313, Some(&kickstart), &[])).await.unwrap();
        rig.until(313, state).await;
        rig.engine.stop(313).await;
    }
}

#[tokio::test]
async fn a_hanging_script_ends_with_its_guest() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.engine.inject(Fault::always(FaultKind::ScriptHangs {
        script: "hang.sh".into(),
    }));
    rig.installed(314, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(314).await;
    ssh.exec_with("cat > /root/hang.sh", b"sleep 1\n").await;
    let hanging = tokio::spawn(async move { ssh.exec("bash /root/hang.sh").await });
    rig.wait("the script", 314, |record| record.script_runs.len() == 1)
        .await;
    rig.engine.stop(314).await;
    assert_eq!(hanging.await.unwrap().code, None);
}

#[tokio::test]
async fn a_paused_guest_stands_still() {
    let mut options = SimulatedOptions {
        time: TimeScale::Scaled(100.0),
        ..SimulatedOptions::default()
    };
    // Five seconds of this machine's to pause it in.
    options.durations.firmware = Duration::from_secs(500);
    let rig = Rig::new(options);
    let kickstart = rig.kickstart("", "qemu-guest-agent");
    rig.engine.start(rig.launch(315, Some(&kickstart), &[])).await.unwrap();
    rig.engine.pause(315, true).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.engine.guest(315).unwrap().state, GuestState::Firmware);
    assert_eq!(rig.engine.status(315).unwrap().state, RunState::Paused);
    rig.engine.pause(315, false).await;
    rig.until(315, GuestState::Running).await;
}

#[tokio::test]
async fn a_reset_begins_again_and_counters_go_on() {
    let rig = Rig::new(SimulatedOptions {
        instant_menu_wait: Duration::from_secs(600),
        ..SimulatedOptions::default()
    });
    rig.engine.start(rig.launch(316, None, &[])).await.unwrap();
    rig.until(316, GuestState::Menu).await;
    let before = rig.engine.status(316).unwrap().drive_bytes["ide2"].read;
    rig.engine.reset(316).await;
    rig.wait("second menu", 316, |record| {
        record.boots == 2 && record.state == GuestState::Menu
    })
    .await;
    assert_eq!(rig.engine.status(316).unwrap().drive_bytes["ide2"].read, 2 * before);
    rig.engine.send_key(316, "ctrl-alt-delete").await.unwrap();
    rig.wait("third menu", 316, |record| {
        record.boots == 3 && record.state == GuestState::Menu
    })
    .await;
    assert_eq!(
        rig.engine.send_key(316, "nosuchkey").await,
        Err("invalid parameter: nosuchkey".into())
    );
    assert_eq!(rig.engine.send_key(999, "a").await, Err("VM 999 not running".into()));
}

#[tokio::test]
async fn a_hundred_guests_at_once() {
    let rig = Rig::new(SimulatedOptions::default());
    let kickstart = rig.kickstart("", "qemu-guest-agent");
    for vmid in 1000..1100 {
        rig.engine.start(rig.launch(vmid, Some(&kickstart), &[])).await.unwrap();
    }
    let mut addresses = std::collections::BTreeSet::new();
    for vmid in 1000..1100 {
        let record = rig.until(vmid, GuestState::Running).await;
        addresses.insert(record.address.unwrap());
    }
    assert_eq!(addresses.len(), 100);
    for vmid in [1000, 1050, 1099] {
        assert_eq!(rig.ssh(vmid).await.exec("echo here").await.stdout, "here\n");
    }
}
