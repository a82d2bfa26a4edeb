//! Command lines for whole configurations.
//!
//! Device models, addresses and boot indexes were compared with the command lines that qemu-server records for its own tests
//! (`test/cfg2cmd`: `bootorder`, `q35-ide`, `q35-simple`, `seabios_serial`).

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::engine::Drive;

fn launch(config: &[(&str, &str)], drives: &[(&str, bool, &str, &str)]) -> Launch {
    Launch {
        vmid: 8006,
        node: "pve".into(),
        config: config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        drives: drives
            .iter()
            .map(|(slot, cdrom, path, format)| Drive {
                slot: (*slot).into(),
                cdrom: *cdrom,
                path: (*path).into(),
                format: (*format).into(),
                size_bytes: 1 << 30,
            })
            .collect(),
        on_exit: Arc::new(|_, _| {}),
    }
}

fn host(firmware: &Path) -> Host<'_> {
    Host {
        accel: Accel::Tcg,
        firmware_dir: firmware,
        run_dir: Path::new("/run/emulator"),
        reach: Reach {
            address: Ipv4Addr::new(127, 64, 31, 70),
            ssh_port: 22022,
        },
    }
}

fn argv(config: &[(&str, &str)], drives: &[(&str, bool, &str, &str)]) -> Vec<String> {
    command(&launch(config, drives), &host(Path::new("/usr/share/OVMF")))
        .unwrap()
        .argv
}

/// Options with their values, one a line, as `qm showcmd --pretty` prints them.
fn pretty(argv: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in argv {
        match lines.last_mut() {
            Some(line) if !word.starts_with('-') => *line = format!("{line} {word}"),
            _ => lines.push(word.clone()),
        }
    }
    lines
}

#[test]
fn a_builds_vm_on_i440fx() {
    let lines = pretty(&argv(
        &[
            ("agent", "1"),
            ("boot", "order=scsi0;ide2;net0"),
            ("cores", "2"),
            ("cpu", "x86-64-v2-AES"),
            ("ide2", "local:iso/a.iso,media=cdrom,size=4M"),
            ("memory", "2048"),
            ("name", "alma9"),
            ("net0", "virtio=A2:C0:43:77:08:A0,bridge=vmbr0"),
            ("ostype", "l26"),
            ("reboot", "0"),
            ("rng0", "source=/dev/urandom"),
            (
                "scsi0",
                "local:8006/vm-8006-disk-0.qcow2,discard=on,iothread=1,size=32G,ssd=1",
            ),
            ("scsihw", "virtio-scsi-single"),
            ("serial0", "socket"),
            ("smbios1", "uuid=7b10d7af-b932-4c66-b2c3-3996152ec465"),
            ("vmgenid", "c773c261-d800-4348-9f5d-167fadd53cf8"),
        ],
        &[
            ("ide2", true, "/d/a,b.iso", "raw"),
            ("scsi0", false, "/d/vm-8006-disk-0.qcow2", "qcow2"),
        ],
    ));
    let expected = [
        "-name alma9,debug-threads=on",
        "-nodefaults",
        "-no-user-config",
        "-pidfile 8006.pid",
        "-chardev socket,id=qmp,path=8006.qmp,server=on,wait=off",
        "-mon chardev=qmp,mode=control",
        "-S",
        "-machine type=pc",
        "-accel tcg",
        "-smbios type=1,uuid=7b10d7af-b932-4c66-b2c3-3996152ec465",
        "-smp 2,sockets=1,cores=2,maxcpus=2",
        "-cpu qemu64,+aes,+pni,+popcnt,+sse4.1,+sse4.2,+ssse3",
        "-m 2048",
        "-global PIIX4_PM.disable_s3=1",
        "-global PIIX4_PM.disable_s4=1",
        "-boot menu=on,strict=on,reboot-timeout=1000",
        "-display none",
        "-vnc unix:8006.vnc,password=on",
        "-no-reboot",
        "-device pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e",
        "-device pci-bridge,id=pci.2,chassis_nr=2,bus=pci.0,addr=0x1f",
        "-device pci-bridge,id=pci.3,chassis_nr=3,bus=pci.0,addr=0x5",
        "-device vmgenid,guid=c773c261-d800-4348-9f5d-167fadd53cf8",
        "-device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3,free-page-reporting=on",
        "-object rng-random,filename=/dev/urandom,id=rng0",
        "-device virtio-rng-pci,rng=rng0,bus=pci.1,addr=0x1d,max-bytes=1024,period=1000",
        "-device piix3-usb-uhci,id=uhci,bus=pci.0,addr=0x1.0x2",
        "-device usb-tablet,id=tablet,bus=uhci.0,port=1",
        "-device VGA,id=vga,bus=pci.0,addr=0x2",
        "-chardev socket,id=serial0,path=8006.serial0,server=on,wait=off,logfile=8006.serial0.log,logappend=on",
        "-device isa-serial,chardev=serial0",
        "-chardev socket,path=8006.qga,server=on,wait=off,id=qga0",
        "-device virtio-serial,id=qga0,bus=pci.0,addr=0x8",
        "-device virtserialport,chardev=qga0,name=org.qemu.guest_agent.0",
        "-drive if=none,id=drive-ide2,media=cdrom,aio=threads,format=raw,readonly=on,file=/d/a,,b.iso",
        "-device ide-cd,bus=ide.1,unit=0,drive=drive-ide2,id=ide2,bootindex=101",
        "-object iothread,id=iothread-virtioscsi0",
        "-device virtio-scsi-pci,id=virtioscsi0,bus=pci.3,addr=0x1,iothread=iothread-virtioscsi0",
        "-blockdev {\"driver\":\"qcow2\",\"cache\":{\"direct\":false,\"no-flush\":false},\"detect-zeroes\":\"unmap\",\
         \"discard\":\"unmap\",\"read-only\":false,\"file\":{\"driver\":\"file\",\"filename\":\"/d/vm-8006-disk-0.qcow2\",\
         \"aio\":\"threads\",\"cache\":{\"direct\":false,\"no-flush\":false},\"discard\":\"unmap\"},\
         \"node-name\":\"drive-scsi0\"}",
        "-device scsi-hd,bus=virtioscsi0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,rotation_rate=1,bootindex=100",
        "-netdev user,id=net0,ipv6=off,hostname=alma9,net=10.0.2.0/24,host=10.0.2.2,dns=10.0.2.3,\
         hostfwd=tcp:127.64.31.70:22022-10.0.2.15:22",
        "-device virtio-net-pci,mac=A2:C0:43:77:08:A0,netdev=net0,bus=pci.0,addr=0x12,id=net0,rx_queue_size=1024,\
         tx_queue_size=256,bootindex=102",
    ];
    assert_eq!(lines, expected);
}

/// The devices of a command line that name `part`, without the option's name.
fn devices(argv: &[String], part: &str) -> Vec<String> {
    let pairs = argv
        .windows(2)
        .filter(|pair| pair[0] == "-device" && pair[1].contains(part));
    pairs.map(|pair| pair[1].clone()).collect()
}

#[test]
fn the_boot_order_of_pve_s_own_test() {
    let disk = "local:8006/vm-8006-disk-0.qcow2,discard=on,size=104858K";
    let thread = "local:8006/vm-8006-disk-0.qcow2,discard=on,iothread=1,size=104858K";
    let file = "/d/x.qcow2";
    let argv = argv(
        &[
            ("boot", "order=virtio1;net0;scsi4;ide2"),
            ("ide2", "none,media=cdrom"),
            ("net0", "virtio=A2:C0:43:77:08:A0,bridge=vmbr0"),
            ("scsi4", disk),
            ("virtio0", thread),
            ("virtio1", thread),
        ],
        &[
            ("scsi4", false, file, "qcow2"),
            ("virtio0", false, file, "qcow2"),
            ("virtio1", false, file, "qcow2"),
        ],
    );
    let drives: Vec<String> = ["ide-", "lsi", "scsi-hd", "virtio-blk"]
        .iter()
        .flat_map(|part| devices(&argv, part))
        .collect();
    assert_eq!(
        drives,
        [
            "ide-cd,bus=ide.1,unit=0,drive=drive-ide2,id=ide2,bootindex=103",
            "lsi,id=scsihw0,bus=pci.0,addr=0x5",
            "scsi-hd,bus=scsihw0.0,scsi-id=4,drive=drive-scsi4,id=scsi4,bootindex=102",
            "virtio-blk-pci,drive=drive-virtio0,id=virtio0,bus=pci.0,addr=0xa,iothread=iothread-virtio0",
            "virtio-blk-pci,drive=drive-virtio1,id=virtio1,bus=pci.0,addr=0xb,iothread=iothread-virtio1,bootindex=100",
        ]
    );
    assert!(argv.contains(&"if=none,id=drive-ide2,media=cdrom,aio=threads".to_owned()));
}

#[test]
fn without_a_boot_order_kinds_count_and_q35_spreads_its_ide() {
    let iso = "local:iso/x.iso,media=cdrom";
    let argv = argv(
        &[
            ("machine", "q35"),
            ("ide0", iso),
            ("ide1", iso),
            ("ide2", iso),
            ("ide3", iso),
            ("scsihw", "virtio-scsi-pci"),
            ("scsi0", "local:100/vm-100-disk-2.qcow2"),
            ("net0", "virtio=2E:01:68:F9:9C:87,bridge=vmbr0"),
            ("ostype", "l26"),
        ],
        &[("scsi0", false, "/d/x.qcow2", "qcow2")],
    );
    let found: Vec<String> = ["ide-cd", "scsi-", "virtio-net", "VGA", "usb-tablet"]
        .iter()
        .flat_map(|part| devices(&argv, part))
        .collect();
    assert_eq!(
        found,
        [
            "ide-cd,bus=ide.0,unit=0,drive=drive-ide0,id=ide0,bootindex=200",
            "ide-cd,bus=ide.2,unit=0,drive=drive-ide1,id=ide1,bootindex=201",
            "ide-cd,bus=ide.1,unit=0,drive=drive-ide2,id=ide2,bootindex=202",
            "ide-cd,bus=ide.3,unit=0,drive=drive-ide3,id=ide3,bootindex=203",
            "virtio-scsi-pci,id=scsihw0,bus=pci.0,addr=0x5",
            "scsi-hd,bus=scsihw0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,bootindex=100",
            "virtio-net-pci,mac=2E:01:68:F9:9C:87,netdev=net0,bus=pci.0,addr=0x12,id=net0,rx_queue_size=1024,\
             tx_queue_size=256,bootindex=300",
            "VGA,id=vga,bus=pcie.0,addr=0x1",
            "usb-tablet,id=tablet,bus=ehci.0,port=1",
        ]
    );
    assert!(argv.contains(&"ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off".to_owned()));
}

#[test]
fn a_serial_console_takes_the_screen_s_place() {
    let argv = argv(
        &[
            ("vga", "serial0"),
            ("serial0", "socket"),
            ("acpi", "0"),
            ("tablet", "0"),
        ],
        &[],
    );
    assert!(argv.contains(&"type=pc,graphics=off,acpi=off".to_owned()));
    assert!(!argv.contains(&"-vnc".to_owned()));
    assert!(devices(&argv, "VGA").is_empty() && devices(&argv, "usb-tablet").is_empty());
}

#[test]
fn limits_identity_and_cache_of_a_disk() {
    let argv = argv(
        &[(
            "sata1",
            "local:1/vm-1-disk-0.raw,mbps_rd=1.5,iops=100,serial=a%20b,ssd=1,cache=writethrough,wwn=0x5000c500a0b1c2d3",
        )],
        &[("sata1", false, "/d/x.raw", "raw")],
    );
    assert!(
        argv.contains(&"throttle-group,id=throttle-drive-sata1,x-iops-total=100,x-bps-read=1572864".to_owned()),
        "{argv:?}"
    );
    assert!(
        argv.iter()
            .any(|a| a.starts_with("{\"driver\":\"throttle\",\"node-name\":\"drive-sata1\""))
    );
    assert_eq!(
        devices(&argv, "ide-hd"),
        [
            "ide-hd,bus=ahci0.1,drive=drive-sata1,id=sata1,rotation_rate=1,serial=a b,wwn=0x5000c500a0b1c2d3,\
             write-cache=off,bootindex=100"
        ]
    );
}

#[test]
fn uefi_has_its_flash() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["OVMF_CODE_4M.fd", "OVMF_VARS_4M.ms.fd", "OVMF_VARS_4M.fd"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let config = [
        ("bios", "ovmf"),
        ("machine", "q35"),
        ("efidisk0", "local:1/vm-1-disk-0.qcow2,efitype=4m,pre-enrolled-keys=1"),
    ];
    let with = launch(&config, &[("efidisk0", false, "/d/vars.qcow2", "qcow2")]);
    let argv = command(&with, &host(dir.path())).unwrap().argv;
    let text = argv.join("\n");
    let code = dir.path().join("OVMF_CODE_4M.fd");
    assert!(text.contains(&format!(
        "{{\"node-name\":\"pflash0\",\"driver\":\"raw\",\"read-only\":true,\"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}",
        code.display()
    )));
    assert!(text.contains(
        "{\"node-name\":\"drive-efidisk0\",\"driver\":\"raw\",\"offset\":0,\"size\":540672,\"file\":{\"driver\":\"qcow2\",\
         \"file\":{\"driver\":\"file\",\"filename\":\"/d/vars.qcow2\"}}}"
    ));
    assert!(text.contains("type=q35,pflash0=pflash0,pflash1=drive-efidisk0"));
    // Without firmware nothing starts.
    let error = command(&with, &host(Path::new("/nonexistent"))).unwrap_err();
    assert!(error.contains("apt-get install ovmf"), "{error}");
}

#[test]
fn arguments_of_root_s_own_come_last() {
    let argv = argv(&[("args", "-device 'virtio-gpu,id=g 1'")], &[]);
    assert_eq!(argv[argv.len() - 2..], ["-device", "virtio-gpu,id=g 1"]);
}

#[test]
fn cables_may_be_out() {
    let config = [
        ("net0", "e1000=BC:24:11:00:00:01,bridge=vmbr0"),
        ("net1", "virtio=BC:24:11:00:00:02,bridge=vmbr0,link_down=1"),
    ];
    let command = command(&launch(&config, &[]), &host(Path::new("/"))).unwrap();
    assert_eq!(command.links_down, ["net1"]);
    assert_eq!(
        devices(&command.argv, "e1000"),
        ["e1000,mac=BC:24:11:00:00:01,netdev=net0,bus=pci.0,addr=0x12,id=net0,bootindex=300"]
    );
}
