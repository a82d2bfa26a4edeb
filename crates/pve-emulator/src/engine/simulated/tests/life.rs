//! The course of a life: install, reboot, power off, clone.

use super::*;

#[tokio::test]
async fn installs_from_oemdrv_reboots_and_answers() {
    let rig = Rig::new(SimulatedOptions::default());
    let record = rig
        .installed(9000, "network --bootproto=dhcp --hostname=node1", "qemu-guest-agent")
        .await;
    assert_eq!(record.kickstart_source.as_deref(), Some("OEMDRV:/ks.cfg"));
    assert_eq!(
        record.kernel_line.as_deref(),
        Some("inst.stage2=hd:LABEL=AlmaLinux-9-4-x86_64-dvd rd.live.check quiet")
    );
    assert_eq!(record.boots, 2, "installer and installed system");
    let installed = record.installed.unwrap();
    assert_eq!(
        (installed.os.as_str(), installed.hostname.as_str()),
        ("AlmaLinux 9.4", "node1")
    );
    assert!(installed.packages.contains(&"qemu-guest-agent".to_owned()));

    rig.agent_up(9000, "guest-ping", json!({})).await;
    let interfaces = rig
        .agent(9000, "guest-network-get-interfaces", json!({}))
        .await
        .unwrap();
    assert_eq!(interfaces[0]["name"], "lo");
    assert_eq!(interfaces[1]["hardware-address"], "bc:24:11:00:00:01");
    let address = interfaces[1]["ip-addresses"][0]["ip-address"].as_str().unwrap();
    assert_eq!(Some(address), record.address.as_deref());
    assert!(address.starts_with("127.64."), "{address}");

    let mut ssh = rig.ssh(9000).await;
    let outcome = ssh.exec("hostname; id -un; false").await;
    assert_eq!(
        outcome,
        Outcome {
            stdout: "node1\nroot\n".into(),
            stderr: String::new(),
            code: Some(1)
        }
    );
    rig.engine.stop(9000).await;
    assert_eq!(rig.engine.status(9000), None);
    assert_eq!(*lock(&rig.exits), [(9000, Exit::Stopped)]);
}

#[tokio::test]
async fn a_fixed_address_is_kept_where_it_can_be() {
    let rig = Rig::new(SimulatedOptions::default());
    let line =
        |ip| format!("network --bootproto=static --ip={ip} --netmask=255.192.0.0 --gateway=127.64.0.1 --device=link");
    for (vmid, ip, becomes) in [
        (9000, "127.64.77.7", "127.64.77.7"),
        // Taken by the first; outside of the guests' network.
        (301, "127.64.77.7", "127.64.1.45"),
        (302, "10.23.45.60", "127.64.1.46"),
    ] {
        let record = rig.installed(vmid, &line(ip), "").await;
        assert_eq!(record.address.as_deref(), Some(becomes));
        let said = record
            .console
            .contains(&format!("{ip} is not to be had, {becomes} instead"));
        assert_eq!(said, ip != becomes, "{}", record.console);
    }
}

#[tokio::test]
async fn reboot_0_makes_the_end_of_an_install_an_end_of_the_process() {
    let rig = Rig::new(SimulatedOptions::default());
    let kickstart = rig.kickstart("", "qemu-guest-agent");
    rig.engine
        .start(rig.launch(101, Some(&kickstart), &[("reboot", "0")]))
        .await
        .unwrap();
    let record = rig.until(101, GuestState::Stopped).await;
    assert_eq!(*lock(&rig.exits), [(101, Exit::RebootRefused)]);
    assert!(record.installed.is_some());
    assert_eq!(rig.engine.status(101), None);

    // Started again with the option put back, it is the installed system that boots.
    rig.engine.start(rig.launch(101, None, &[])).await.unwrap();
    rig.until(101, GuestState::Running).await;
    rig.engine.powerdown(101, Powerdown::Acpi).await;
    rig.until(101, GuestState::Stopped).await;
    assert_eq!(lock(&rig.exits).last(), Some(&(101, Exit::PowerOff)));
}

#[tokio::test]
async fn a_reboot_takes_ssh_and_agent_away_and_keeps_the_process() {
    let options = SimulatedOptions {
        time: TimeScale::Scaled(200.0),
        ..SimulatedOptions::default()
    };
    let rig = Rig::new(options);
    let kickstart = rig.kickstart("", "qemu-guest-agent");
    rig.engine.start(rig.launch(102, Some(&kickstart), &[])).await.unwrap();
    let first = rig.until(102, GuestState::Running).await;
    // sshd and the agent come later than the login prompt.
    assert_eq!(
        rig.agent(102, "guest-ping", json!({})).await,
        Err(AgentError::NotRunning)
    );
    assert!(rig.connect(102).await.is_err());
    rig.agent_up(102, "guest-ping", json!({})).await;
    let mut ssh = rig.ssh(102).await;
    let pid = rig.engine.status(102).unwrap().pid;
    let boot_id = ssh.exec("cat /proc/sys/kernel/random/boot_id").await.stdout;
    assert_eq!(ssh.exec("echo kept > /root/note; reboot").await.code, Some(0));
    rig.wait("shutdown", 102, |record| record.state != GuestState::Running)
        .await;
    assert_eq!(
        rig.agent(102, "guest-ping", json!({})).await,
        Err(AgentError::NotRunning)
    );
    assert!(rig.connect(102).await.is_err());
    let second = rig
        .wait("second boot", 102, |record| {
            record.boots > first.boots && record.state == GuestState::Running
        })
        .await;
    assert_eq!(second.address, first.address);
    assert_eq!(rig.engine.status(102).unwrap().pid, pid);
    let mut ssh = rig.ssh(102).await;
    assert_eq!(ssh.exec("cat /root/note").await.stdout, "kept\n");
    assert_ne!(ssh.exec("cat /proc/sys/kernel/random/boot_id").await.stdout, boot_id);
}

#[tokio::test]
async fn typed_keys_lead_to_a_kickstart_over_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (bios, before, after) in [
        ("seabios", "up tab spc", "ret"),
        ("ovmf", "up e down down end spc", "ctrl-x"),
    ] {
        let rig = Rig::new(SimulatedOptions::default());
        let kickstart = rig.kickstart("", "qemu-guest-agent");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = kickstart.clone();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        rig.engine
            .start(rig.launch(103, None, &[("bios", bios)]))
            .await
            .unwrap();
        rig.until(103, GuestState::Menu).await;
        let port_keys: Vec<String> = port.to_string().chars().map(String::from).collect();
        let keys = format!(
            "{before} i n s t dot k s equal h t t p shift-semicolon slash slash 1 2 7 dot 0 dot 0 dot 1 shift-semicolon {} slash k {after}",
            port_keys.join(" ")
        );
        rig.type_keys(103, &keys).await;
        let record = rig.until(103, GuestState::Running).await;
        assert!(server.await.unwrap().starts_with("GET /k HTTP/1.1"));
        assert_eq!(
            record.kernel_line,
            Some(format!(
                "inst.stage2=hd:LABEL=AlmaLinux-9-4-x86_64-dvd quiet inst.ks=http://127.0.0.1:{port}/k"
            ))
        );
        assert_eq!(record.kickstart_text, Some(kickstart));
    }
}

#[tokio::test]
async fn a_copied_disk_is_a_clone_and_a_sealed_one_gets_its_own_identity() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.installed(104, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(104).await;
    let original = ssh.host_key.clone();
    assert_eq!(
        ssh.exec(": > /etc/machine-id; rm -f /etc/ssh/ssh_host_*").await.code,
        Some(0)
    );
    rig.engine.stop(104).await;
    assert_eq!(rig.engine.guest(104).unwrap().installed.unwrap().machine_id, "");

    let mut identities = Vec::new();
    for vmid in [105, 106] {
        let disk = |vmid| rig.dir.path().join(format!("vm-{vmid}-disk-0.raw"));
        std::fs::copy(disk(104), disk(vmid)).unwrap();
        rig.engine.start(rig.launch(vmid, None, &[])).await.unwrap();
        let record = rig.until(vmid, GuestState::Running).await;
        let mut clone = rig.ssh(vmid).await;
        let machine_id = clone.exec("cat /etc/machine-id").await.stdout;
        assert_eq!(machine_id.trim().len(), 32);
        identities.push((machine_id, clone.host_key.clone(), record.address));
    }
    assert_ne!(identities[0].0, identities[1].0);
    assert_ne!(identities[0].1, identities[1].1);
    assert_ne!(identities[0].2, identities[1].2);
    assert!(identities.iter().all(|identity| identity.1 != original));
}

#[tokio::test(start_paused = true)]
async fn counters_settle_in_the_menu_and_grow_in_the_install() {
    let rig = Rig::new(SimulatedOptions {
        time: TimeScale::Real,
        ..SimulatedOptions::default()
    });
    let kickstart = rig.kickstart("", "qemu-guest-agent");
    rig.engine.start(rig.launch(107, Some(&kickstart), &[])).await.unwrap();
    let iso = || rig.engine.status(107).unwrap().drive_bytes["ide2"].read;
    let disk = || rig.engine.status(107).unwrap().drive_bytes["scsi0"].written;
    assert_eq!(iso(), 0);
    rig.until(107, GuestState::Menu).await;
    let in_menu = iso();
    assert!(in_menu > 0);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((iso(), disk()), (in_menu, 0));
    // A key stops the countdown for good.
    rig.type_keys(107, "down").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(rig.engine.guest(107).unwrap().state, GuestState::Menu);
    rig.type_keys(107, "up up ret").await;
    rig.wait("install", 107, |record| record.state == GuestState::Installing)
        .await;
    let mut last = (iso(), disk());
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let now = (iso(), disk());
        assert!(now.0 > last.0 && now.1 > last.1, "{now:?} after {last:?}");
        last = now;
    }
    rig.until(107, GuestState::Running).await;
    assert_eq!(
        rig.engine.guest(107).unwrap().kernel_line.as_deref(),
        Some("inst.stage2=hd:LABEL=AlmaLinux-9-4-x86_64-dvd quiet")
    );
}

/// The repository's example folder and the scripts beside it.
fn of_the_repository(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[tokio::test]
async fn the_example_installs_and_its_seal_takes_the_identities() {
    let rig = Rig::new(SimulatedOptions::default());
    let example = of_the_repository("kickstart/alma9.ks.cfg");
    let kickstart = format!(
        "{example}\nsshkey --username=root \"{}\"\n%post --erroronfail\nset -euo pipefail\n\
         cp -p /etc/sysconfig/qemu-ga /etc/sysconfig/qemu-ga.k3simage\n\
         sed -i -e 's/^FILTER_RPC_ARGS=.*/FILTER_RPC_ARGS=/' /etc/sysconfig/qemu-ga\n\
         setsebool -P -N virt_qemu_ga_run_unconfined on\necho root:known | chpasswd\n%end\n",
        rig.public_key()
    );
    let launch = rig.launch(108, Some(&kickstart), &[]);
    rig.file("alma.iso", &plain_volume("AlmaLinux-9-3-x86_64-minimal", &[]));
    rig.engine.start(launch).await.unwrap();
    rig.until(108, GuestState::Running).await;
    rig.agent_up(108, "guest-ping", json!({})).await;
    let exec = json!({ "path": "/usr/bin/true" });
    rig.agent(108, "guest-exec", exec.clone()).await.unwrap();

    let mut ssh = rig.ssh(108).await;
    for script in ["os-update", "guest-agent", "k3s-install", "hardening-oscap", "seal"] {
        let text = of_the_repository(&format!("scripts/{script}.sh"));
        assert_eq!(
            ssh.exec_with(&format!("cat > /root/{script}.sh"), text.as_bytes())
                .await
                .code,
            Some(0)
        );
        let run = ssh.exec(&format!("bash /root/{script}.sh")).await;
        assert_eq!(run.code, Some(0), "{script}: {}", run.stderr);
    }
    assert_eq!(
        ssh.exec("cat /etc/machine-id /etc/ssh/ssh_host_* /root/.ssh/authorized_keys")
            .await
            .stdout,
        ""
    );
    assert_eq!(
        ssh.exec("hostname; getsebool virt_qemu_ga_run_unconfined").await.stdout,
        "localhost\nvirt_qemu_ga_run_unconfined --> off\n"
    );
    let refused = rig.agent(108, "guest-exec", exec).await;
    assert!(matches!(refused, Err(AgentError::Failed { .. })), "{refused:?}");
    assert!(!rig.connect(108).await.unwrap().login_by_key("root", &rig.key).await);
    assert_eq!(ssh.exec("grep '^root:!!:' /etc/shadow | wc -l").await.stdout, "1\n");
    assert_eq!(rig.engine.guest(108).unwrap().script_runs.len(), 5);
}
