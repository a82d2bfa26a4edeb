//! The engine `qemu` with real QEMU processes: one boot sector of our own, booted from real firmware, tells what happens.
//!
//! The guest (`qemu_guests/boot.s`) prints `BOOT<what its second sector holds>` on the first serial port and echoes what it is
//! sent by key or by line; `W` changes the sector, `R` resets, `O` powers off, and so does the power button.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop anywhere")]

#[path = "qemu_guests/mod.rs"]
mod guests;

use std::time::Duration;

use guests::{Cluster, skipped};
use serde_json::{Value, json};

#[tokio::test]
async fn a_guest_lives_through_keys_resets_and_its_own_end() {
    if skipped("a guest's life") {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.create(100, &[("reboot", "1")]).await;
    cluster.write_disk(100, "local:100/vm-100-disk-0.raw", "base");
    cluster.start_vm(100).await;
    cluster.console(100, "BOOT<base>", 1).await;

    // Counters, process and figures are real.
    let before = cluster.status(100).await;
    assert_eq!(
        (before["status"].as_str(), before["qmpstatus"].as_str()),
        (Some("running"), Some("running"))
    );
    let pid = before["pid"].as_u64().unwrap();
    assert!(
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .unwrap()
            .contains("100.pid")
    );
    assert!(before["mem"].as_u64().unwrap() > 1 << 20, "{before}");
    // It is this machine's QEMU, whatever the emulated Proxmox VE brings along.
    let said = std::process::Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .unwrap();
    let version = before["running-qemu"].as_str().unwrap();
    assert!(
        String::from_utf8_lossy(&said.stdout).contains(&format!("version {version} ")),
        "{version}"
    );
    let release = version.rsplit_once('.').unwrap().0;
    assert_eq!(before["running-machine"], format!("pc-i440fx-{release}"));
    cluster
        .until(100, "the boot sector's bytes", |s| s["diskread"].as_u64() >= Some(1024))
        .await;

    // Keys in PVE's names reach the keyboard; a wrong one is refused as PVE refuses it (FACTS 2).
    for key in ["a", "shift-b", "spc", "up", "minus"] {
        assert_eq!(
            cluster.call("PUT", "/qemu/100/sendkey", &[("key", key)]).await.status,
            200
        );
    }
    cluster.console(100, "aB #-", 1).await;
    assert_eq!(
        cluster.call("PUT", "/qemu/100/sendkey", &[("key", "A")]).await.status,
        400
    );

    // Pausing holds the processors.
    cluster.task("POST", "/qemu/100/status/suspend", &[]).await.unwrap();
    cluster.until(100, "the pause", |s| s["qmpstatus"] == "paused").await;
    cluster.task("POST", "/qemu/100/status/resume", &[]).await.unwrap();
    cluster.until(100, "the way on", |s| s["qmpstatus"] == "running").await;

    // The guest's own reset and the reset button keep the process (FACTS 73).
    cluster.call("PUT", "/qemu/100/sendkey", &[("key", "shift-r")]).await;
    cluster.console(100, "BOOT<", 2).await;
    cluster.task("POST", "/qemu/100/status/reset", &[]).await.unwrap();
    cluster.console(100, "BOOT<", 3).await;
    assert_eq!(cluster.status(100).await["pid"].as_u64(), Some(pid));

    // The monitor is QEMU's own.
    let blocks = cluster
        .data("POST", "/qemu/100/monitor", &[("command", "info block")])
        .await;
    assert!(blocks.as_str().unwrap().contains("drive-scsi0"), "{blocks}");

    // Its own power-off is an end without a task.
    cluster.call("PUT", "/qemu/100/sendkey", &[("key", "shift-o")]).await;
    cluster.until(100, "the power-off", |s| s["status"] == "stopped").await;
    assert_eq!(cluster.left_in_run_dir(100), Vec::<String>::new());
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "the process is gone"
    );
    cluster.end().await;
}

#[tokio::test]
async fn reboot_0_turns_a_reboot_into_a_stop_and_the_power_button_works() {
    if skipped("reboot=0 and the power button") {
        return;
    }
    let cluster = Cluster::start().await;
    cluster
        .create(
            100,
            &[
                ("cores", "1"),
                ("reboot", "0"),
                ("scsihw", "virtio-scsi-pci"),
                ("machine", "q35"),
            ],
        )
        .await;
    cluster.write_disk(100, "local:100/vm-100-disk-0.raw", "base");
    cluster.start_vm(100).await;
    cluster.console(100, "BOOT<base>", 1).await;
    // A change of the running guest's hardware waits for its stop.
    cluster.data("PUT", "/qemu/100/config", &[("cores", "2")]).await;
    let pending = cluster.data("GET", "/qemu/100/pending", &[]).await;
    let cores = pending
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["key"] == "cores")
        .unwrap();
    assert_eq!((cores["value"].as_i64(), cores["pending"].as_i64()), (Some(1), Some(2)));
    cluster.call("PUT", "/qemu/100/sendkey", &[("key", "shift-r")]).await;
    cluster
        .until(100, "the stop at the reboot", |s| s["status"] == "stopped")
        .await;

    cluster.start_vm(100).await;
    cluster.console(100, "BOOT<base>", 1).await;
    assert_eq!(cluster.status(100).await["cpus"], 2);
    cluster
        .task("POST", "/qemu/100/status/shutdown", &[("timeout", "60")])
        .await
        .unwrap();
    assert_eq!(cluster.status(100).await["status"], "stopped");

    cluster.start_vm(100).await;
    cluster.task("POST", "/qemu/100/status/stop", &[]).await.unwrap();
    assert_eq!(cluster.status(100).await["status"], "stopped");
    assert_eq!(cluster.left_in_run_dir(100), Vec::<String>::new());
    cluster.end().await;
}

#[tokio::test]
async fn templates_are_bases_and_clones_keep_their_own_writes() {
    if skipped("templates and clones") {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.create(100, &[]).await;
    cluster.write_disk(100, "local:100/vm-100-disk-0.raw", "base");
    cluster
        .task("PUT", "/qemu/100/resize", &[("disk", "scsi0"), ("size", "+1M")])
        .await
        .unwrap();
    cluster.task("POST", "/qemu/100/template", &[]).await.unwrap();
    let base = cluster.image("local", "images/100/base-100-disk-0.raw");
    let mode = std::os::unix::fs::PermissionsExt::mode(&base.metadata().unwrap().permissions());
    assert_eq!(mode & 0o222, 0, "a base is read-only");
    assert_eq!(base.metadata().unwrap().len(), 3 << 20, "the file grew with the disk");

    // A linked clone names its base from where it lies; a full clone stands alone, on the thin pool as qcow2.
    cluster
        .task("POST", "/qemu/100/clone", &[("newid", "101")])
        .await
        .unwrap();
    cluster
        .task(
            "POST",
            "/qemu/100/clone",
            &[("newid", "102"), ("full", "1"), ("storage", "local-lvm")],
        )
        .await
        .unwrap();
    let linked = Cluster::info(&cluster.image("local", "images/101/vm-101-disk-0.qcow2"));
    assert_eq!(
        (
            linked["format"].as_str(),
            linked["backing-filename"].as_str(),
            linked["virtual-size"].as_u64()
        ),
        (Some("qcow2"), Some("../100/base-100-disk-0.raw"), Some(3 << 20))
    );
    let full = Cluster::info(&cluster.image("local-lvm", "images/vm-102-disk-0"));
    assert_eq!(
        (full["format"].as_str(), full.get("backing-filename")),
        (Some("qcow2"), None)
    );

    for vmid in [101, 102] {
        cluster.start_vm(vmid).await;
        cluster.console(vmid, "BOOT<base>", 1).await;
        cluster
            .call("PUT", &format!("/qemu/{vmid}/sendkey"), &[("key", "shift-w")])
            .await;
        cluster.console(vmid, "w", 1).await;
        cluster
            .task("POST", &format!("/qemu/{vmid}/status/stop"), &[])
            .await
            .unwrap();
    }
    let bytes = std::fs::read(&base).unwrap();
    assert_eq!(&bytes[512..517], b"base\0", "no clone wrote to the base");

    // What is used as a base stays; clones and base go in their order.
    let busy = cluster.task("DELETE", "/qemu/100", &[]).await.unwrap_err();
    assert!(busy.contains("still in use"), "{busy}");
    for vmid in [101, 102, 100] {
        cluster.task("DELETE", &format!("/qemu/{vmid}"), &[]).await.unwrap();
    }
    assert!(!base.exists() && !cluster.image("local-lvm", "images/vm-102-disk-0").exists());
    cluster.end().await;
}

#[tokio::test]
async fn thin_clones_outlive_their_template_and_snapshots_go_back() {
    if skipped("thin volumes and snapshots") {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.create_on("local-lvm:0.004", 100, &[]).await;
    cluster.write_disk(100, "local-lvm:vm-100-disk-0", "base");
    cluster.task("POST", "/qemu/100/template", &[]).await.unwrap();
    cluster
        .task("POST", "/qemu/100/clone", &[("newid", "101")])
        .await
        .unwrap();
    let clone = cluster.image("local-lvm", "images/vm-101-disk-0");
    assert_eq!(Cluster::info(&clone)["backing-filename"], ".vm-101-disk-0.origin");
    cluster
        .task("POST", "/qemu/101/snapshot", &[("snapname", "before")])
        .await
        .unwrap();
    // LVM lets a template go from under its clones, and they do not notice.
    cluster.task("DELETE", "/qemu/100", &[]).await.unwrap();
    assert!(!cluster.image("local-lvm", "images/base-100-disk-0").exists());

    cluster.start_vm(101).await;
    cluster.console(101, "BOOT<base>", 1).await;
    // A snapshot of a running guest, then a write, then back.
    cluster
        .task("POST", "/qemu/101/snapshot", &[("snapname", "running")])
        .await
        .unwrap();
    cluster.call("PUT", "/qemu/101/sendkey", &[("key", "shift-w")]).await;
    cluster.console(101, "w", 1).await;
    cluster.task("POST", "/qemu/101/status/reset", &[]).await.unwrap();
    cluster.console(101, "BOOT<changed>", 1).await;
    cluster
        .task("POST", "/qemu/101/snapshot/running/rollback", &[])
        .await
        .unwrap();
    cluster.start_vm(101).await;
    cluster.console(101, "BOOT<base>", 1).await;
    cluster.task("POST", "/qemu/101/status/stop", &[]).await.unwrap();
    cluster.task("DELETE", "/qemu/101/snapshot/running", &[]).await.unwrap();
    let names = Cluster::info(&clone)["snapshots"].clone();
    assert_eq!(names.as_array().unwrap().len(), 1, "{names}");
    cluster.task("DELETE", "/qemu/101", &[]).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(cluster.image("local-lvm", "images"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    cluster.end().await;
}

#[tokio::test]
async fn media_change_while_the_guest_runs() {
    if skipped("CD-ROM drives") {
        return;
    }
    let cluster = Cluster::start().await;
    for name in ["one.iso", "two.iso"] {
        cluster.pve.add_file("local", "iso", name, &vec![0; 1 << 20]).unwrap();
    }
    cluster
        .create(
            100,
            &[("ide2", "none,media=cdrom"), ("sata0", "local:iso/one.iso,media=cdrom")],
        )
        .await;
    cluster.start_vm(100).await;
    let shown = async || {
        let text = cluster
            .data("POST", "/qemu/100/monitor", &[("command", "info block")])
            .await;
        text.as_str().unwrap().to_owned()
    };
    let before = shown().await;
    assert!(before.contains("one.iso") && !before.contains("two.iso"), "{before}");
    cluster
        .data("PUT", "/qemu/100/config", &[("ide2", "local:iso/two.iso,media=cdrom")])
        .await;
    cluster
        .data("PUT", "/qemu/100/config", &[("sata0", "none,media=cdrom")])
        .await;
    let after = shown().await;
    assert!(after.contains("two.iso") && !after.contains("one.iso"), "{after}");
    cluster.end().await;
}

#[tokio::test]
async fn uefi_starts_and_its_variables_stay() {
    if skipped("UEFI firmware") {
        return;
    }
    let cluster = Cluster::start().await;
    cluster
        .create(
            100,
            &[
                ("bios", "ovmf"),
                ("machine", "q35"),
                ("efidisk0", "local:1,efitype=4m,pre-enrolled-keys=1"),
            ],
        )
        .await;
    let vars = cluster.image("local", "images/100/vm-100-disk-0.raw");
    let bytes = std::fs::read(&vars).unwrap();
    assert_eq!(bytes.len(), 540_672);
    assert!(
        bytes.iter().any(|b| *b != 0xff && *b != 0),
        "the template's variables are in it"
    );
    cluster.start_vm(100).await;
    // The firmware writes its variables at its first start.
    let deadline = tokio::time::Instant::now() + guests::PATIENCE;
    while std::fs::read(&vars).unwrap() == bytes {
        assert!(tokio::time::Instant::now() < deadline, "the firmware wrote nothing");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    cluster.task("POST", "/qemu/100/status/stop", &[]).await.unwrap();
    cluster.end().await;
}

#[tokio::test]
async fn streams_reach_the_serial_port_and_the_screen() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    if skipped("serial and screen streams") {
        return;
    }
    let (cluster, engine) = Cluster::with_engine().await;
    cluster.create(100, &[("serial1", "socket")]).await;
    cluster.write_disk(100, "local:100/vm-100-disk-0.raw", "base");
    cluster.start_vm(100).await;
    cluster.console(100, "BOOT<base>", 1).await;
    let mut serial = engine.serial(100, 0).await.unwrap();
    serial.write_all(b"xyz").await.unwrap();
    let mut echoed = [0; 3];
    tokio::time::timeout(guests::PATIENCE, serial.read_exact(&mut echoed))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&echoed, b"xyz");
    drop(serial);
    cluster.console(100, "xyz", 1).await;

    let mut screen = engine.vnc(100, "12345678").await.unwrap();
    let mut greeting = [0; 12];
    tokio::time::timeout(guests::PATIENCE, screen.read_exact(&mut greeting))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");
    screen.write_all(b"RFB 003.008\n").await.unwrap();
    let mut types = [0; 2];
    screen.read_exact(&mut types).await.unwrap();
    assert_eq!(types, [1, 2], "one security type: VNC authentication");
    cluster.task("POST", "/qemu/100/status/stop", &[]).await.unwrap();
    let mut rest = Vec::new();
    // The stream ends with the process.
    let _ = tokio::time::timeout(guests::PATIENCE, screen.read_to_end(&mut rest))
        .await
        .unwrap();
    cluster.end().await;
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    if skipped("failing starts") {
        return;
    }
    let cluster = Cluster::start().await;
    for (vmid, options, log, error) in [
        (
            100,
            vec![("machine", "pc-i440fx-99.9")],
            "unsupported machine type",
            "start failed: QEMU exited with code 1",
        ),
        (101, vec![("cpu", "Cooperlake-v2,flags=+nonsense")], "", "start failed"),
        (
            102,
            vec![("tablet", "1"), ("memory", "99999999")],
            "memory",
            "start failed: QEMU exited with code 1",
        ),
    ] {
        let created = cluster.try_create(vmid, &options).await;
        if created.is_err() {
            // The API refuses some of it before, as PVE does.
            continue;
        }
        let (exit, lines) = cluster
            .failing_task("POST", &format!("/qemu/{vmid}/status/start"))
            .await;
        assert!(exit.contains(error), "{vmid}: {exit}");
        assert!(
            lines.contains(log) && (log.is_empty() || lines.contains("kvm: ")),
            "{vmid}: {lines}"
        );
        assert_eq!(cluster.status(vmid).await["status"], "stopped");
        assert_eq!(cluster.left_in_run_dir(vmid), Vec::<String>::new());
    }
    cluster.end().await;
}

#[tokio::test]
async fn guests_of_a_killed_emulator_are_taken_over() {
    if skipped("guests that outlive an emulator") {
        return;
    }
    // A path far longer than a socket's may be.
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d".repeat(100)).join("e".repeat(100));
    {
        let cluster = Cluster::at(&data).await;
        cluster.create(100, &[]).await;
        cluster.write_disk(100, "local:100/vm-100-disk-0.raw", "base");
        cluster.create(101, &[]).await;
        cluster.end().await;
    }
    let mut child = guests::other_emulator(&data);
    let pids = guests::started_by(&mut child, &[100, 101]).await;
    // SIGKILL: no handler, no destructor.
    child.kill().await.unwrap();
    for pid in &pids {
        assert!(
            std::path::Path::new(&format!("/proc/{pid}/stat")).exists(),
            "QEMU lives on"
        );
    }
    // One of the VMs is gone when the next emulator starts.
    std::fs::remove_file(data.join("nodes/pve/qemu-server/101.json")).unwrap();

    let cluster = Cluster::at(&data).await;
    let status = cluster.status(100).await;
    assert_eq!(
        (status["status"].as_str(), status["pid"].as_u64()),
        (Some("running"), Some(pids[0]))
    );
    assert!(!guests::alive(pids[1]), "a guest without a VM is ended");
    assert_eq!(cluster.left_in_run_dir(101), Vec::<String>::new());
    cluster.console(100, "BOOT<base>", 1).await;
    cluster.call("PUT", "/qemu/100/sendkey", &[("key", "k")]).await;
    cluster.console(100, "k", 1).await;
    // A second emulator must not touch them.
    let error = Cluster::refused_at(&data).await;
    assert!(error.contains("emulator"), "{error}");
    cluster.task("POST", "/qemu/100/status/stop", &[]).await.unwrap();
    assert!(!guests::alive(pids[0]));
    cluster.end().await;
}

/// Not a test of its own: the process that the one above kills.
#[tokio::test]
async fn emulator_in_another_process() {
    let Some(data) = std::env::var_os("PVE_EMULATOR_TEST_DATA") else {
        return;
    };
    let cluster = Cluster::at(std::path::Path::new(&data)).await;
    for vmid in [100, 101] {
        cluster.start_vm(vmid).await;
        let pid = cluster.status(vmid).await["pid"].clone();
        println!("{}", json!({ "vmid": vmid, "pid": pid }));
    }
    std::future::pending::<Value>().await;
}
