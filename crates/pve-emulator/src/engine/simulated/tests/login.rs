//! Who gets in, and what sessions can do.

use super::*;

#[tokio::test]
async fn only_what_the_kickstart_set_opens_the_door() {
    let rig = Rig::new(SimulatedOptions::default());
    let hash = crypt::hash("hashed");
    let lines = format!(
        "rootpw --plaintext rootpass\nuser --name=packer --groups=wheel --password=secret\nuser --name=ops --iscrypted --password={hash}\nuser --name=locked --password=x --lock"
    );
    rig.installed(200, &lines, "").await;
    drop(rig.ssh(200).await);
    let other = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    for (user, password, opens) in [
        // EL9 refuses root's password.
        ("root", "rootpass", false),
        ("packer", "secret", true),
        ("packer", "wrong", false),
        ("ops", "hashed", true),
        ("locked", "x", false),
        ("nobody", "", false),
        ("ghost", "secret", false),
    ] {
        let mut ssh = rig.connect(200).await.unwrap();
        assert_eq!(ssh.login_by_password(user, password).await, opens, "{user} {password}");
    }
    for (user, key, opens) in [
        ("root", &rig.key, true),
        ("root", &other, false),
        ("packer", &rig.key, false),
    ] {
        let mut ssh = rig.connect(200).await.unwrap();
        assert_eq!(ssh.login_by_key(user, key).await, opens, "{user}");
    }
    // The door can be opened wider, and shut, from within.
    let mut root = rig.ssh(200).await;
    assert_eq!(
        root.exec("echo 'PermitRootLogin yes' > /etc/ssh/sshd_config.d/00.conf; chmod 666 /root/.ssh/authorized_keys")
            .await
            .code,
        Some(0)
    );
    assert!(
        rig.connect(200)
            .await
            .unwrap()
            .login_by_password("root", "rootpass")
            .await
    );
    assert!(
        !rig.connect(200).await.unwrap().login_by_key("root", &rig.key).await,
        "StrictModes"
    );
}

#[tokio::test]
async fn post_sections_set_host_key_and_authorised_keys() {
    let rig = Rig::new(SimulatedOptions::default());
    let host_key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let pem = host_key.to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
    let kickstart = format!(
        "{}%post --erroronfail\nset -eu\numask 077\ncat > /etc/ssh/ssh_host_ed25519_key <<'EOF'\n{}EOF\nchmod 600 /etc/ssh/ssh_host_ed25519_key\n\
         useradd -m build\ninstall -d -m 0700 -o build /home/build/.ssh\necho '{}' > /home/build/.ssh/authorized_keys\n\
         some-tool-of-el9 --that=is-unknown-here\nsystemctl disable firewalld\n%end\n",
        rig.kickstart("", "qemu-guest-agent"),
        pem.as_str(),
        rig.public_key(),
    );
    rig.engine.start(rig.launch(201, Some(&kickstart), &[])).await.unwrap();
    let record = rig.until(201, GuestState::Running).await;
    assert!(
        !record
            .installed
            .unwrap()
            .enabled_units
            .contains(&"firewalld.service".to_owned())
    );
    let ssh = rig.ssh(201).await;
    assert_eq!(ssh.host_key.key_data(), host_key.public_key().key_data());
    assert!(rig.connect(201).await.unwrap().login_by_key("build", &rig.key).await);
    let shown = rig.engine.guest(201).unwrap().installed.unwrap().ssh_host_key.unwrap();
    assert_eq!(
        PublicKey::from_openssh(&shown).unwrap().key_data(),
        host_key.public_key().key_data()
    );
}

#[tokio::test]
async fn a_provisioner_uploads_runs_and_reads_back() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.installed(202, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(202).await;
    let script = "#!/bin/bash\nset -euo pipefail\necho starting\ndnf -y install git-core\n  exit 9\necho done\n";
    let upload = ssh
        .exec_with(
            "umask 077 && mkdir -p /tmp/p && cat > /tmp/p/k3s.sh && sha256sum /tmp/p/k3s.sh",
            script.as_bytes(),
        )
        .await;
    let sum = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(script));
    assert_eq!(upload.stdout, format!("{sum}  /tmp/p/k3s.sh\n"));
    assert_eq!(ssh.exec("stat -c %a /tmp/p/k3s.sh").await.stdout, "600\n");
    ssh.exec_with("cat > /tmp/p/env", b"K3S_VERSION='v1.29.0+k3s1'\nTOKEN=\"a b\"\n")
        .await;
    let run = ssh
        .exec("set -a; . /tmp/p/env; set +a; MORE=1 bash /tmp/p/k3s.sh one two")
        .await;
    assert_eq!(
        (run.code, run.stdout.lines().next(), run.stdout.lines().last()),
        (Some(0), Some("starting"), Some("done"))
    );
    let record = rig.engine.guest(202).unwrap();
    let [script_run] = &record.script_runs[..] else {
        panic!("{:?}", record.script_runs)
    };
    assert_eq!(script_run.name, "/tmp/p/k3s.sh");
    assert_eq!(script_run.args, ["one", "two"]);
    assert_eq!(script_run.content, script);
    assert_eq!((script_run.user.as_str(), script_run.exit_code), ("root", Some(0)));
    for (name, value) in [
        ("K3S_VERSION", "v1.29.0+k3s1"),
        ("TOKEN", "a b"),
        ("MORE", "1"),
        ("HOME", "/root"),
    ] {
        assert_eq!(script_run.env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(record.installed.unwrap().packages.contains(&"git-core".to_owned()));
    // The record outlives the process, and serialises.
    rig.engine.stop(202).await;
    let record = rig.engine.guest(202).unwrap();
    assert_eq!(record.script_runs.len(), 1);
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<GuestRecord>(&json).unwrap(), record);
}

#[tokio::test]
async fn uploads_beyond_the_limit_keep_size_and_digest() {
    let rig = Rig::new(SimulatedOptions {
        keep_file_bytes: 100_000,
        ..SimulatedOptions::default()
    });
    rig.installed(203, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(203).await;
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    assert_eq!(ssh.exec_with("cat > /root/big", &bytes).await.code, Some(0));
    let sum = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes));
    assert_eq!(
        ssh.exec("sha256sum /root/big; stat -c %s /root/big").await.stdout,
        format!("{sum}  /root/big\n5000000\n")
    );
    let read = ssh.exec("cat /root/big").await;
    assert_eq!(read.code, Some(1));
    assert!(read.stderr.contains("keeps only its size"), "{}", read.stderr);
}

#[tokio::test]
async fn sessions_behave_as_openssh_does() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.installed(204, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(204).await;
    let outcome = ssh.exec("echo out; echo err >&2; exit 42").await;
    assert_eq!(
        outcome,
        Outcome {
            stdout: "out\n".into(),
            stderr: "err\n".into(),
            code: Some(42)
        }
    );
    let outcome = ssh.exec("kubectl get nodes").await;
    assert_eq!(
        (outcome.code, outcome.stderr.as_str()),
        (Some(127), "bash: line 1: kubectl: command not found\n")
    );
    // A signal ends a command that would never end by itself.
    let mut channel = ssh.handle.channel_open_session().await.unwrap();
    channel.exec(true, "cat").await.unwrap();
    channel.signal(russh::Sig::TERM).await.unwrap();
    let mut died_of = None;
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::ExitSignal { signal_name, .. } = message {
            died_of = Some(signal_name);
        }
    }
    assert!(matches!(died_of, Some(russh::Sig::TERM)), "{died_of:?}");
    // Both directions at once, more than any window.
    let bytes = vec![b'x'; 6 << 20];
    let echoed = ssh.exec_with("cat", &bytes).await;
    assert_eq!(echoed.stdout.len(), bytes.len());
}

#[tokio::test]
async fn scp_speaks_its_protocol() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.installed(205, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(205).await;
    let outcome = ssh.exec_with("scp -vt /tmp", b"C0755 5 a.sh\nhello\0").await;
    assert_eq!((outcome.stdout.as_str(), outcome.code), ("\0\0\0", Some(0)));
    assert_eq!(ssh.exec("stat -c '%a %s' /tmp/a.sh").await.stdout, "755 5\n");
    let outcome = ssh.exec_with("scp -f /tmp/a.sh", b"\0\0\0").await;
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("C0755 5 a.sh\nhello\0", Some(0))
    );
    let outcome = ssh.exec_with("scp -t /no/such/dir/x", b"C0644 1 x\n").await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stdout
            .contains("\u{1}scp: /no/such/dir/x: No such file or directory"),
        "{:?}",
        outcome.stdout
    );
}

#[tokio::test]
async fn the_agent_runs_programs_only_when_both_locks_are_open() {
    let rig = Rig::new(SimulatedOptions::default());
    rig.installed(206, "", "qemu-guest-agent").await;
    rig.agent_up(206, "guest-ping", json!({})).await;
    let exec = json!({ "path": "/bin/sh", "arg": ["-c", "cat; echo $0 $1 $K >&2; exit 3", "zero", "one"], "env": ["K=v"],
        "input-data": "aGk=", "capture-output": true });
    let refused = rig.agent(206, "guest-exec", exec.clone()).await;
    assert!(
        matches!(refused, Err(AgentError::Failed { ref class, ref desc }) if class == "CommandNotFound" && desc.contains("has been disabled")),
        "{refused:?}"
    );
    let mut ssh = rig.ssh(206).await;
    ssh.exec("sed -i '/^FILTER_RPC_ARGS=/d' /etc/sysconfig/qemu-ga").await;
    // The running agent has read its list already.
    let refused = rig.agent(206, "guest-exec", exec.clone()).await;
    assert!(
        matches!(refused, Err(AgentError::Failed { ref desc, .. }) if desc.contains("has been disabled")),
        "{refused:?}"
    );
    ssh.exec("systemctl restart qemu-guest-agent").await;
    let refused = rig.agent(206, "guest-exec", exec.clone()).await;
    assert!(
        matches!(refused, Err(AgentError::Failed { ref desc, .. }) if desc.contains("Permission denied")),
        "{refused:?}"
    );
    ssh.exec("setsebool -P virt_qemu_ga_run_unconfined on").await;

    let pid = rig.agent(206, "guest-exec", exec).await.unwrap()["pid"].clone();
    let status = loop {
        let status = rig
            .agent(206, "guest-exec-status", json!({ "pid": pid }))
            .await
            .unwrap();
        if status["exited"] == true {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        status,
        json!({ "exited": true, "exitcode": 3, "out-data": "aGk=", "err-data": "emVybyBvbmUgdgo=" })
    );
    // A finished program can be asked about once.
    assert!(
        rig.agent(206, "guest-exec-status", json!({ "pid": pid }))
            .await
            .is_err()
    );
    let missing = rig.agent(206, "guest-exec", json!({ "path": "/no/such" })).await;
    assert!(matches!(missing, Err(AgentError::Failed { ref desc, .. }) if desc.contains("No such file or directory")));

    let handle = rig
        .agent(206, "guest-file-open", json!({ "path": "/root/f", "mode": "w" }))
        .await
        .unwrap();
    rig.agent(206, "guest-file-write", json!({ "handle": handle, "buf-b64": "YWJj" }))
        .await
        .unwrap();
    rig.agent(206, "guest-file-close", json!({ "handle": handle }))
        .await
        .unwrap();
    let handle = rig
        .agent(206, "guest-file-open", json!({ "path": "/root/f" }))
        .await
        .unwrap();
    let read = rig
        .agent(206, "guest-file-read", json!({ "handle": handle, "count": 2 }))
        .await
        .unwrap();
    assert_eq!(
        (read["count"].clone(), read["buf-b64"].clone(), read["eof"].clone()),
        (json!(2), json!("YWI="), json!(false))
    );
    assert_eq!(
        rig.agent(206, "guest-get-osinfo", json!({})).await.unwrap()["id"],
        "almalinux"
    );
    assert!(
        matches!(rig.agent(206, "guest-nonsense", json!({})).await, Err(AgentError::Failed { class, .. }) if class == "CommandNotFound")
    );
    rig.agent(206, "guest-shutdown", json!({})).await.unwrap();
    rig.until(206, GuestState::Stopped).await;
}

#[tokio::test]
async fn openssh_itself_gets_in() {
    if std::process::Command::new("ssh").arg("-V").output().is_err() {
        // No OpenSSH client on this machine: russh's stands for it above.
        return;
    }
    let rig = Rig::new(SimulatedOptions::default());
    let record = rig.installed(207, "", "qemu-guest-agent").await;
    let mut ssh = rig.ssh(207).await;
    let key = rig.file(
        "id",
        rig.key
            .to_openssh(russh::keys::ssh_key::LineEnding::LF)
            .unwrap()
            .as_bytes(),
    );
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let source = rig.file("up.txt", b"carried\n");
    let port = rig.engine.ssh_port().to_string();
    let address = record.address.unwrap();
    let target = format!("root@{address}:/root/up.txt");
    let common = [
        "-F",
        "/dev/null",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        "-i",
    ];
    let scp = tokio::process::Command::new("scp")
        .arg("-O")
        .args(common)
        .arg(&key)
        .args(["-P", &port])
        .arg(&source)
        .arg(&target)
        .output()
        .await
        .unwrap();
    assert!(scp.status.success(), "{}", String::from_utf8_lossy(&scp.stderr));
    assert_eq!(ssh.exec("cat /root/up.txt").await.stdout, "carried\n");
    let login = format!("root@{address}");
    let run = tokio::process::Command::new("ssh")
        .args(common)
        .arg(&key)
        .args(["-p", &port, &login, "cat /root/up.txt; exit 7"])
        .output()
        .await
        .unwrap();
    assert_eq!((run.status.code(), run.stdout.as_slice()), (Some(7), &b"carried\n"[..]));
}
