//! `init` and `validate`: the fresh folder is sound, and what is wrong is said with its place; no network is needed.

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, IMAGE, k3simage, names, run, signal};
use rustix::fs::{Mode, OFlags, open};

#[test]
fn init_writes_a_folder_that_validates() {
    let folder = Folder::new();
    assert_eq!(
        names(&folder.dir),
        ["http", "scripts", "variables.auto.pkrvars.hcl", "variables.pkr.hcl"]
    );
    run(&["validate", folder.path()]).expect(0, &["is sound", IMAGE, "before plan and build: ", "proxmox_token"]);
}

#[test]
fn init_says_what_to_do_next() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("x");
    let dir = dir.to_str().unwrap();
    run(&["init", dir]).expect(
        0,
        &[
            "http/ks.cfg.j2",
            &format!("k3simage validate {dir}"),
            &format!("k3simage plan {dir}"),
            &format!("k3simage build {dir} --emulator"),
            "PKR_VAR_proxmox_token",
        ],
    );
}

#[test]
fn init_overwrites_nothing() {
    let folder = Folder::new();
    let file = folder.dir.join("http/ks.cfg.j2");
    std::fs::write(&file, "mine").unwrap();
    run(&["init", folder.path()]).expect(2, &["http/ks.cfg.j2", "nothing was written"]);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn json_is_one_object_a_line() {
    let folder = Folder::new();
    let ended = run(&["validate", folder.path(), "--json"]).expect(0, &[]);
    assert_eq!(ended.err, "");
    let objects = ended.objects();
    let last = objects.last().unwrap();
    assert_eq!(
        (&last["event"], &last["image"], &last["node"]),
        (&"validated".into(), &IMAGE.into(), &"pve".into())
    );

    let ended = run(&["validate", folder.path(), "--json", "-var", "k3s_version=v1.29.0"]).expect(2, &[]);
    assert_eq!(ended.err, "");
    let objects = ended.objects();
    let error = objects.last().unwrap();
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &2.into()));
    assert_eq!(error["diagnostics"][0]["subject"], "k3s_version");
}

#[test]
fn bad_values_are_named_with_what_to_write_instead() {
    let folder = Folder::new();
    let table: &[(&str, &[&str])] = &[
        (
            "alma_iso_checksum=sha256:abc123...",
            &["alma_iso_checksum", "sha256:abc123..."],
        ),
        ("k3s_version=v1.29.0", &["k3s_version", "v1.29.0+k3s1"]),
        ("k3s_version=v1.30.0+k3s1", &["image_version", IMAGE, "v1.30.0"]),
        ("vm_cpu_type=kvm64", &["vm_cpu_type", "kvm64", "x86-64-v2-AES"]),
        ("vm_id=99", &["vm_id", "99"]),
        ("vm_cores=many", &["vm_cores", "many"]),
        ("vm_corse=4", &["vm_corse", "vm_cores"]),
        ("communicator=telnet", &["communicator", "telnet", "ssh"]),
        ("proxmox_url=pve.example", &["proxmox_url", "pve.example"]),
    ];
    for (variable, parts) in table {
        let ended = run(&["validate", folder.path(), "-var", variable]).expect(2, parts);
        assert!(ended.err.contains("error: "), "{variable}: {}", ended.err);
        assert_eq!(ended.out, "", "{variable}");
    }
}

#[test]
fn a_variable_files_mistake_has_line_and_caret() {
    let folder = Folder::new();
    let file = folder.temp.path().join("mine.pkrvars.hcl");
    std::fs::write(&file, "# mine\nk3s_version = \"v1.29.0\"\n").unwrap();
    let place = format!("{}:2:", file.display());
    run(&["validate", folder.path(), &format!("-var-file={}", file.display())]).expect(
        2,
        &["k3s_version", &place, "2 | k3s_version = \"v1.29.0\"", "^^^", "help: "],
    );
}

#[test]
fn the_last_of_var_and_var_file_wins() {
    let folder = Folder::new();
    let file = folder.temp.path().join("mine.pkrvars.hcl");
    std::fs::write(&file, "proxmox_node = \"from-file\"\n").unwrap();
    let file = file.to_str().unwrap();
    let node = |args: &[&str]| {
        let mut all = vec!["validate", folder.path(), "--json"];
        all.extend(args);
        let ended = run(&all).expect(0, &[]);
        ended.objects().last().unwrap()["node"].as_str().unwrap().to_owned()
    };
    assert_eq!(node(&["-var", "proxmox_node=a", "-var-file", file]), "from-file");
    assert_eq!(node(&["-var-file", file, "--var", "proxmox_node=b"]), "b");
    assert_eq!(
        node(&["--var-file", file, "-var=proxmox_node=a", "-var=proxmox_node=b"]),
        "b"
    );
}

#[test]
fn a_kickstart_without_the_agent_is_refused_while_the_address_must_come_from_it() {
    let folder = Folder::new();
    folder.edit("http/ks.cfg.j2", "qemu-guest-agent", "nano");
    run(&["validate", folder.path()]).expect(2, &["http/ks.cfg.j2", "%packages", "qemu-guest-agent", "ssh_host"]);
    run(&["validate", folder.path(), "-var", "ssh_host=10.23.45.99"]).expect(0, &["is sound"]);
}

#[test]
fn a_folder_that_is_not_there() {
    run(&["validate", "no-such-folder"]).expect(2, &["no-such-folder"]);
}

#[test]
fn a_token_on_the_command_line_is_warned_about_and_never_repeated() {
    let folder = Folder::new();
    let secret = "5a1f0c3e-canary";
    for args in [&["--json"][..], &["-vvv"], &[]] {
        let mut all = vec!["validate", folder.path(), "-var"];
        let token = format!("proxmox_token={secret}");
        all.push(&token);
        all.extend(args);
        let ended = run(&all).expect(0, &["process lists", "PKR_VAR_proxmox_token"]);
        assert!(!ended.all().contains(secret), "{}", ended.all());
    }
    // Nor when it is wrong where it stands.
    let ended = run(&["validate", folder.path(), "-var", secret]).expect(2, &["-var NAME=VALUE"]);
    assert!(!ended.all().contains(secret));
}

#[test]
fn colours_only_where_asked_for() {
    let escape = '\u{1b}';
    let folder = Folder::new();
    let plain = run(&["validate", folder.path()]);
    assert!(!plain.all().contains(escape));
    let always = run(&["validate", folder.path(), "--color", "always"]);
    assert!(always.out.contains(escape));
    let ended = k3simage(&["validate", folder.path(), "--color=auto"])
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert!(!ended.stdout.contains(&0x1b));
}

/// A variable file may be a pipe that nobody writes to, or lie on a mount that is gone.
#[test]
fn a_signal_ends_what_waits_for_a_file() {
    let folder = Folder::new();
    let pipe = folder.temp.path().join("pipe.pkrvars.hcl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let given = format!("-var-file={}", pipe.display());
    let commands: [&[&str]; 8] = [
        &["validate", folder.path()],
        &["plan", folder.path()],
        &["build", folder.path()],
        &["build", folder.path(), "--emulator"],
        &["resume", "0123abcd", folder.path()],
        &["list", folder.path()],
        &["gc", folder.path()],
        &["verify", "some", folder.path()],
    ];
    for command in commands {
        let mut child = k3simage(command)
            .arg(&given)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        // A pipe can be opened like this once somebody waits for what comes out. What other tests start meanwhile must not inherit it: the
        // next command would find a writer, and the end of the file when that ends.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let writer = loop {
            if let Ok(writer) = open(&pipe, flags, Mode::empty()) {
                break writer;
            }
            let ended = child.try_wait().unwrap();
            assert_eq!(ended, None, "{command:?} did not wait for it");
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{command:?} does not read it"
            );
            std::thread::park_timeout(Duration::from_millis(2));
        };
        signal(&child, "TERM");
        assert_eq!(child.wait().unwrap().code(), Some(143), "{command:?}");
        drop(writer);
    }
}
