//! `plan`, `build` and `list` against a cluster: what is wrong is found before anything is created, and said with what to do.

mod common;

use common::{Cluster, Folder, IMAGE, ISO, run};
use pve_emulator::{Emulator, EmulatorBuilder, StorageSpec};

fn small() -> EmulatorBuilder {
    Emulator::builder()
}

#[test]
fn plan_lists_what_it_found_and_changes_nothing() {
    let folder = Folder::new();
    let cluster = Cluster::start(small());
    let before = cluster.inventory();
    cluster.run(&["plan", folder.path()], &[]).expect(
        0,
        &[IMAGE, "on pve (PVE 9.2.11)", " ok ", "a build can begin", "vmid 9000"],
    );
    assert_eq!(cluster.inventory(), before);

    let ended = cluster.run(&["plan", folder.path(), "--json"], &[]).expect(0, &[]);
    let objects = ended.objects();
    assert!(
        objects
            .iter()
            .filter(|object| object["event"] == "finding")
            .all(|finding| finding["level"] == "ok"),
        "{}",
        ended.out
    );
    let last = objects.last().unwrap();
    assert_eq!(
        (&last["event"], &last["ok"], &last["vmid"]),
        (&"planned".into(), &true.into(), &9000.into())
    );
}

#[test]
fn what_the_cluster_does_not_have_is_named_with_what_it_has() {
    let folder = Folder::new();
    let mut isos_only = StorageSpec::dir("shelf", "/mnt/shelf");
    isos_only.content = vec!["iso".to_owned()];
    let cluster = Cluster::start(small().storages(vec![
        StorageSpec::dir("local", "/var/lib/vz"),
        StorageSpec::lvmthin("local-lvm"),
        isos_only,
    ]));
    let before = cluster.inventory();
    let table: &[(&str, &[&str])] = &[
        ("proxmox_node=pvee", &["pvee", "pve"]),
        ("vm_storage_pool=local-lmv", &["local-lmv", "local-lvm"]),
        ("vm_storage_pool=shelf", &["shelf", "images"]),
        ("alma_iso_storage_pool=local-lvm", &["local-lvm", "iso"]),
        (
            "alma_iso_url=local:iso/AlmaLinux-9.4-x86_64-minimal.iso",
            &["AlmaLinux-9.4-x86_64-minimal.iso", ISO],
        ),
        ("vm_bridge=vmbr7", &["vmbr7", "vmbr0"]),
    ];
    for (variable, parts) in table {
        for command in ["plan", "build"] {
            cluster
                .run(&[command, folder.path()], &["-var", variable])
                .expect(2, parts)
                .expect(2, &["ERR"]);
        }
        assert_eq!(cluster.inventory(), before, "{variable}");
    }
}

#[test]
fn a_vmid_that_is_not_ours_is_left_alone() {
    let folder = Folder::new();
    let cluster = Cluster::start(small());
    cluster.block_on(async {
        let pve = cluster.client();
        let node = pve.node(&proxmox_client::NodeName::new("pve").unwrap());
        let upid = node
            .qemu("9000".parse().unwrap())
            .create(&proxmox_client::CreateVm::new().name("payroll"))
            .await
            .unwrap();
        let limit = std::time::Duration::from_secs(30);
        let outcome = pve
            .wait_task(&upid, proxmox_client::Wait::at_most(limit))
            .await
            .unwrap();
        assert_eq!(outcome, proxmox_client::TaskOutcome::Ok);
    });
    let before = cluster.inventory();
    cluster
        .run(&["build", folder.path()], &[])
        .expect(2, &["9000", "payroll"]);
    assert_eq!(cluster.inventory(), before);
}

#[test]
fn a_token_without_a_privilege_is_told_which_and_how_to_get_it() {
    let folder = Folder::new();
    let secret = "0b54e0cf-6c5e-4a34-9d1c-canary000000";
    let cluster = Cluster::start(
        small()
            .user("packer@pve", "unused")
            .token("packer@pve", "build", secret, false)
            .role("Looker", ["Sys.Audit", "VM.Audit", "Datastore.Audit"])
            .acl("/", "packer@pve", "Looker"),
    );
    let before = cluster.inventory();
    let ended = cluster
        .run(
            &["build", folder.path()],
            &[
                "-var",
                "proxmox_username=packer@pve!build",
                "-var",
                &format!("proxmox_token={secret}"),
            ],
        )
        .expect(2, &["VM.Allocate", "pveum"]);
    assert!(!ended.all().contains(secret));
    assert_eq!(cluster.inventory(), before);
}

#[test]
fn a_wrong_secret_is_bad_input_and_is_not_repeated() {
    let folder = Folder::new();
    let cluster = Cluster::start(small());
    let secret = "not-the-canary";
    let ended = cluster
        .run(&["plan", folder.path()], &["-var", &format!("proxmox_token={secret}")])
        .expect(2, &["401"]);
    assert!(!ended.all().contains(secret));
}

#[test]
fn a_certificate_that_does_not_match_is_bad_input() {
    let folder = Folder::new();
    let cluster = Cluster::start(small());
    let other = format!("proxmox_fingerprint={}", ["AB"; 32].join(":"));
    for command in ["plan", "build", "list"] {
        cluster.run(&[command, folder.path()], &["-var", &other]).expect(
            2,
            &["certificate", "is not the pinned one", cluster.emulator.fingerprint()],
        );
    }
    assert!(
        cluster.emulator.requests().is_empty(),
        "no request may be sent to a stranger"
    );
}

#[test]
fn a_cluster_that_does_not_answer_is_unreachable() {
    let folder = Folder::new();
    // A port that was free a moment ago, on an address that refuses at once.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("proxmox_url=https://127.0.0.1:{port}");
    let token = "proxmox_token=0b54e0cf-6c5e-4a34-9d1c-000000000000";
    for command in ["plan", "build", "list"] {
        run(&[command, folder.path(), "-var", &url, "-var", token])
            .expect(3, &["cannot connect to", &port.to_string()]);
    }
}

#[test]
fn a_missing_token_is_named_with_where_to_set_it() {
    let folder = Folder::new();
    for command in ["plan", "build"] {
        run(&[command, folder.path()]).expect(2, &["proxmox_token", "PKR_VAR_proxmox_token"]);
    }
}

#[test]
fn list_shows_what_build_made_and_nothing_else() {
    let folder = Folder::new();
    let cluster = Cluster::start(small());
    cluster
        .run(&["list", folder.path()], &[])
        .expect(0, &["no templates of k3simage"]);
    cluster.run(&["build", folder.path(), "-q"], &[]).expect(0, &[]);

    let ended = cluster
        .run(&["list", folder.path()], &[])
        .expect(0, &["NAME", IMAGE, "9000", "pve", "v1.29.0+k3s1"]);
    assert_eq!(ended.out.lines().count(), 2, "{}", ended.out);
    // Without a folder: the variables alone lead there.
    let ended = cluster.run(&["list", "--json"], &[]).expect(0, &[]);
    let objects = ended.objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(
        (&objects[0]["event"], &objects[0]["vmid"]),
        (&"template".into(), &9000.into())
    );
    assert_eq!(objects[0]["k3s_version"], "v1.29.0+k3s1");
    assert!(
        objects[0]["built"]
            .as_str()
            .is_some_and(|built| built.starts_with("20")),
        "{}",
        objects[0]
    );
}

#[test]
fn verify_shows_a_table_writes_a_report_and_removes_its_clones() {
    let folder = Folder::new();
    let cluster = Cluster::start(small());
    cluster.run(&["build", folder.path(), "-q"], &[]).expect(0, &[]);
    let before = cluster.inventory();
    let report = folder.temp.path().join("verify.json");
    let (report, port) = (report.to_str().unwrap(), cluster.emulator.guest_ssh_port().to_string());
    let options = ["verify", IMAGE, folder.path(), "--report", report, "--ssh-port", &port];
    let ended = cluster.run(&options, &[]).expect(
        0,
        &[
            "CHECK",
            "machine id",
            "k3s token",
            "k3s joined",
            "17 checks passed",
            "ssh after",
        ],
    );
    assert!(!ended.out.contains("ERR"), "{}", ended.out);
    assert_eq!(cluster.inventory(), before);
    let written: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!((&written["ok"], &written["template"]), (&true.into(), &IMAGE.into()));

    let mut json = options.to_vec();
    json.push("--json");
    let ended = cluster.run(&json, &[]).expect(0, &[]);
    let last = ended.objects().pop().unwrap();
    assert_eq!((&last["event"], &last["ok"]), (&"verify_finished".into(), &true.into()));
    assert_eq!(last["report"]["checks"].as_array().unwrap().len(), 17);
}

#[test]
fn verify_ends_with_1_and_names_what_is_shared() {
    let folder = Folder::new();
    folder.edit("scripts/seal.sh", ": >\"${root}/etc/machine-id\"", "true");
    let cluster = Cluster::start(small());
    cluster.run(&["build", folder.path(), "-q"], &[]).expect(0, &[]);
    let before = cluster.inventory();
    let report = folder.temp.path().join("verify.json");
    let report = report.to_str().unwrap();
    // The port of the guests' SSH comes by the variable.
    let options = ["verify", "9000", folder.path(), "--report", report];
    cluster.run(&options, &[]).expect(
        1,
        &[
            "ERR machine id",
            "shared: it stayed in the image",
            "the clones share: machine id",
        ],
    );
    assert_eq!(cluster.inventory(), before);
    assert!(std::fs::read_to_string(report).unwrap().contains("\"shared\""));

    for (options, words) in [
        (
            &["verify", "nosuch", folder.path()][..],
            "there is no template `nosuch`",
        ),
        (
            &["verify", IMAGE, folder.path(), "--ipconfig", "ip=dhcp"],
            "given 1 times",
        ),
        (&["verify", IMAGE, folder.path(), "--storage", "local-lvm"], "--full"),
        (
            &["verify", IMAGE, folder.path(), "--report", "/nowhere/x.json"],
            "/nowhere/x.json",
        ),
    ] {
        let mut options = options.to_vec();
        if !options.contains(&"--report") {
            options.extend(["--report", report]);
        }
        cluster.run(&options, &[]).expect(2, &[words]);
        assert_eq!(cluster.inventory(), before);
    }
}

#[test]
fn verify_finds_a_template_that_an_embedded_emulator_has_left() {
    let folder = Folder::new();
    let data = folder.temp.path().join("pve");
    let report = folder.temp.path().join("verify.json");
    let (data, report) = (data.to_str().unwrap(), report.to_str().unwrap());
    run(&["build", folder.path(), "-q", "--emulator", "--data", data]).expect(0, &[]);
    run(&["verify", IMAGE, "--emulator", "--data", data, "--report", report]).expect(0, &["17 checks passed"]);
    run(&["verify", IMAGE, "--emulator", "--report", report]).expect(2, &["--data"]);
}
