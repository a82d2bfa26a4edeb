//! What kickstarts come to, without a guest around it.

use std::sync::Arc;

use super::*;

fn medium() -> Medium {
    Medium::from_label("ide2", "AlmaLinux-9-4-x86_64-dvd").unwrap()
}

fn launch(disks: &[&str]) -> Launch {
    let drive = |slot: &&str| Drive {
        slot: (*slot).to_owned(),
        cdrom: false,
        path: format!("/disks/{slot}").into(),
        format: "raw".into(),
        size_bytes: 0,
    };
    Launch {
        vmid: 100,
        node: "pve".into(),
        config: [("net0".to_owned(), "virtio=BC:24:11:00:00:01".to_owned())].into(),
        drives: disks.iter().map(drive).collect(),
        on_exit: Arc::new(|_, _| {}),
    }
}

fn planned(lines: &str, packages: &str, disks: &[&str]) -> Result<Plan, Stuck> {
    let text = format!("lang en_US\ntimezone UTC\nautopart\nrootpw --lock\n{lines}\n%packages\n{packages}\n%end\n");
    plan(
        &launch(disks),
        &medium(),
        "quiet",
        Some(&Found {
            source: "test".into(),
            text,
        }),
    )
}

#[test]
fn the_disk_is_the_one_named() {
    for (lines, slot) in [
        ("", "scsi0"),
        ("ignoredisk --only-use=sdb", "scsi1"),
        ("ignoredisk --only-use vda", "virtio0"),
        ("clearpart --all --drives=/dev/sda", "scsi0"),
    ] {
        let plan = planned(lines, "", &["efidisk0", "scsi0", "scsi1", "virtio0"]).unwrap();
        assert_eq!(plan.disk.0, slot, "{lines}");
    }
    assert!(
        matches!(planned("ignoredisk --only-use=sda", "", &["virtio0"]), Err(Stuck::Failed(lines)) if lines.join(" ").contains("\"sda\""))
    );
    assert!(matches!(planned("", "", &["efidisk0"]), Err(Stuck::Waits(_))));
}

#[test]
fn the_end_is_the_one_asked_for() {
    for (lines, end) in [
        ("", AtEnd::Wait),
        ("reboot", AtEnd::Reboot { eject: false }),
        ("reboot --eject", AtEnd::Reboot { eject: true }),
        ("poweroff", AtEnd::PowerOff),
        ("shutdown", AtEnd::PowerOff),
        ("reboot\nhalt", AtEnd::Halt),
    ] {
        assert_eq!(planned(lines, "", &["scsi0"]).unwrap().at_end, end, "{lines}");
    }
}

#[test]
fn the_system_is_the_one_described() {
    let lines = "network --hostname=n1.example --bootproto=dhcp\nselinux --permissive\nfirewall --disabled\n\
        services --enabled=chronyd,nope --disabled=sshd\nuser --name=u --groups=wheel,adm --password=p\nsshkey --username=u \"ssh-ed25519 AAAA\"\nrootpw --allow-ssh pw";
    let system = planned(lines, "@^minimal-environment\nchrony\n-firewalld", &["scsi0"])
        .unwrap()
        .system;
    assert_eq!(system.hostname(), "n1.example");
    assert!(!system.selinux_enforcing());
    assert!(!system.units.contains_key("firewalld.service"));
    assert!(!system.units.contains_key("nope.service"));
    assert!(system.units["chronyd.service"].enabled);
    assert!(!system.units["sshd.service"].enabled);
    assert!(system.groups_of("u").iter().any(|(_, group)| group == "wheel"));
    assert!(crypt::verify("p", &system.password_hash("u").unwrap()));
    assert!(crypt::verify("pw", &system.password_hash("root").unwrap()));
    assert_eq!(system.files.text("/home/u/.ssh/authorized_keys"), "ssh-ed25519 AAAA\n");
    assert!(
        system
            .files
            .text("/etc/ssh/sshd_config.d/01-permitrootlogin.conf")
            .contains("yes")
    );
    assert!(
        planned("", "--nocore", &["scsi0"])
            .unwrap()
            .system
            .packages
            .contains("openssh-server"),
        "an option belongs on the section's line"
    );
}

#[test]
fn kernel_arguments() {
    for (line, name, value) in [
        ("a=1 inst.ks=x inst.ks=y", "inst.ks", Some("y")),
        ("rd.live.check quiet", "rd.live.check", Some("")),
        ("inst.ksx=1", "inst.ks", None),
        ("inst.stage2=hd:LABEL=a=b", "inst.stage2", Some("hd:LABEL=a=b")),
    ] {
        assert_eq!(argument(line, name), value, "{line}");
    }
}
