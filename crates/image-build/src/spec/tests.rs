//! Tests of `ImageSpec` as a whole.

use std::path::Path;

use proxmox_client::{MiB, StorageId};
use secrecy::SecretString;
use url::Url;

use super::*;
use crate::boot_command::BootCommand;
use crate::error::Error;

const KICKSTART: &str = include_str!("../../../../kickstart/alma9.ks.cfg");

fn refused(builder: ImageSpecBuilder) -> String {
    match builder.build() {
        Ok(_) => panic!("the description was taken"),
        Err(Error::Invalid(found)) => found.to_string(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_preset_is_sound() {
    let spec = ImageSpec::builder().build().unwrap();
    assert_eq!(spec.name.to_string(), "alma9-k3-node-amd64-v1.28.5-v1");
    assert_eq!(spec.provisioners.len(), 4);
    assert!(spec.check().is_empty(), "{}", spec.check());
    let other = ImageSpec::builder()
        .k3s_version("v1.31.3+k3s1".parse().unwrap())
        .node("pve2")
        .build()
        .unwrap();
    assert_eq!(
        (other.name.to_string().as_str(), other.node.as_str()),
        ("alma9-k3-node-amd64-v1.31.3-v1", "pve2")
    );
}

#[test]
fn everything_wrong_is_said_at_once() {
    let builder = ImageSpec::builder()
        .node("pve.lan")
        .vmid(99)
        .name("alma9-k3-node-amd64-v1.29.0-v1")
        .cpu_type("kvm64")
        .memory(MiB(512))
        .cores(0)
        .disk_gib(1)
        .bridge("vm br0")
        .tags(["Bad", ""])
        .ssh_port(0)
        .ssh_host("https://x")
        .boot_command("{{ .HTTPIP }}".parse().unwrap())
        .timeouts(Timeouts {
            install: Duration::ZERO,
            ..Timeouts::default()
        });
    let Err(Error::Invalid(found)) = builder.build() else {
        panic!("the description was taken")
    };
    let subjects: Vec<&str> = found.iter().map(|diagnostic| diagnostic.subject.as_str()).collect();
    assert_eq!(
        subjects,
        [
            "node",
            "vmid",
            "image_version",
            "vm_cpu_type",
            "vm_cores",
            "vm_memory",
            "vm_disk_size",
            "vm_bridge",
            "tags",
            "tags",
            "boot_command",
            "ssh_port",
            "ssh_host",
            "install_timeout",
        ]
    );
}

#[test]
fn single_faults() {
    let url = |text: &str| Url::parse(text).unwrap();
    let shell = |content: &str| ProvisionerSpec::Shell(ShellSpec::new("x.sh", content));
    let base = ImageSpec::builder;
    let cases: Vec<(ImageSpecBuilder, &str)> = vec![
        (base().name("bad_name"), "no name for a VM"),
        (base().name("alma9-k3-node-amd64-v1.28.5"), "lacks the iteration"),
        (base().name("alma9-k3-node-arm64-v1.28.5-v1"), "builds amd64 images"),
        (base().name("alma8-k3-node-amd64-v1.28.5-v1"), "says AlmaLinux 8"),
        (base().disks(Vec::new()), "0 disks are not possible"),
        (base().disk_gib(1 << 20), "not possible for a disk"),
        (
            base().iso(IsoSource::Volid("local:vztmpl/x.iso".parse().unwrap())),
            "write local:iso/x.iso",
        ),
        (
            base().iso(IsoSource::Url {
                url: url("ftp://x/a.iso"),
                checksum: IsoChecksum::Unchecked,
            }),
            "http and https only",
        ),
        (
            base().iso(IsoSource::File {
                path: "/tmp/a.img".into(),
                checksum: IsoChecksum::Unchecked,
            }),
            "does not end with .iso",
        ),
        (base().provisioners(vec![shell(" ")]), "the script is empty"),
        (base().provisioners(vec![shell("a\r\n")]), "CR LF"),
        (
            base().provisioners(vec![ProvisionerSpec::Shell(
                ShellSpec::new("x.sh", "true").env("1A", "x"),
            )]),
            "\"1A\" cannot be",
        ),
        (
            base().provisioners(vec![ProvisionerSpec::File(FileSpec {
                name: "f".into(),
                content: FileContent::Bytes(Vec::new()),
                destination: "etc/x".into(),
                mode: 0o644,
            })]),
            "no absolute path",
        ),
        (
            base().delivery(Delivery::Http {
                announce: None,
                bind: None,
                ports: std::ops::RangeInclusive::new(9, 8),
            }),
            "no port lies between",
        ),
        (base().ssh_username("Root"), "no user name"),
        (
            base().nics(Vec::new()).communicator(CommunicatorKind::Ssh),
            "ssh needs a network device",
        ),
        (base().description("x".repeat(5000)), "longer than 4096"),
        (base().storage("1x"), "storage"),
        (
            base().ssh_password(SecretString::from("x")),
            "root's password is locked",
        ),
        (base().ssh_username("packer"), "makes no such user"),
    ];
    for (builder, want) in cases {
        let found = refused(builder);
        assert!(found.contains(want), "{want}: {found}");
    }
}

#[test]
fn old_cpus_are_known_by_every_spelling() {
    for cpu in ["kvm64", "qemu64", "KVM64", "kvm64,flags=+aes", "Conroe", "core2duo"] {
        assert!(
            refused(ImageSpec::builder().cpu_type(cpu)).contains("x86-64-v2"),
            "{cpu}"
        );
    }
    for cpu in ["host", "x86-64-v2-AES", "x86-64-v3", "Nehalem"] {
        assert!(ImageSpec::builder().cpu_type(cpu).build().is_ok(), "{cpu}");
    }
    // The VM's option is a type and nothing else: a build would end where it makes the VM.
    for cpu in ["host,flags=+aes", "host x", "", "host\n"] {
        assert!(
            refused(ImageSpec::builder().cpu_type(cpu)).contains("vm_cpu_type"),
            "{cpu}"
        );
    }
}

#[test]
fn the_hash_is_of_what_is_built() {
    let base = || ImageSpec::builder().build().unwrap().content_hash();
    assert_eq!(base(), base());
    assert_eq!(base().len(), 64);
    let changed = [
        ImageSpec::builder().cores(4),
        ImageSpec::builder().disk_gib(40),
        ImageSpec::builder().tags(["x"]),
        ImageSpec::builder().k3s_role(K3sRole::Agent),
        ImageSpec::builder().provisioners(vec![ProvisionerSpec::Shell(ShellSpec::new("x.sh", "true"))]),
        ImageSpec::builder().kickstart(KickstartSource::Text {
            text: crate::kickstart::KickstartText::new(KICKSTART),
            origin: "ks.cfg".into(),
        }),
    ];
    for builder in changed {
        assert_ne!(builder.build().unwrap().content_hash(), base());
    }
    let same = [
        ImageSpec::builder().vmid(9000),
        ImageSpec::builder().on_error(OnError::Keep),
        ImageSpec::builder().ssh_port(2222),
        ImageSpec::builder().ssh_timeout(Duration::from_secs(7)),
    ];
    for builder in same {
        assert_eq!(builder.build().unwrap().content_hash(), base());
    }
}

/// A spec that brings this file of the folder in, from an ISO that lies in it too.
fn with_file(folder: &Path, content: &str) -> ImageSpec {
    std::fs::write(folder.join("hosts"), content).unwrap();
    let file = FileSpec {
        name: "hosts".to_owned(),
        content: FileContent::Local(LocalFile::read(folder.join("hosts")).unwrap()),
        destination: "/etc/hosts".to_owned(),
        mode: 0o644,
    };
    ImageSpec::builder()
        .provisioners(vec![ProvisionerSpec::File(file)])
        .iso(IsoSource::File {
            path: folder.join("AlmaLinux-9.3-x86_64-minimal.iso"),
            checksum: IsoChecksum::Unchecked,
        })
        .build()
        .unwrap()
}

#[test]
fn of_a_local_file_counts_what_it_holds_and_not_where_it_is() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spec = with_file(here.path(), "a");
    let moved = with_file(there.path(), "a");
    assert_eq!(spec.content_hash(), moved.content_hash());
    let text = serde_json::to_string(&spec).unwrap();
    assert!(!text.contains(here.path().to_str().unwrap()), "{text}");
    assert!(
        text.contains("ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        "{text}"
    );
    assert_ne!(spec.content_hash(), with_file(here.path(), "b").content_hash());
    let mut bytes = spec.clone();
    if let Some(ProvisionerSpec::File(file)) = bytes.provisioners.first_mut() {
        file.content = FileContent::Bytes(b"a".to_vec());
    }
    assert_eq!(spec.content_hash(), bytes.content_hash());
}

#[test]
fn secrets_are_in_no_debug_and_no_serialisation() {
    let script = ShellSpec::new("x.sh", "true").env("TOKEN", SecretString::from("geheim"));
    let text = KICKSTART.replace("rootpw --lock", "rootpw --allow-ssh --iscrypted $6$geheim$x");
    let spec = ImageSpec::builder()
        .kickstart(KickstartSource::Text {
            text: crate::kickstart::KickstartText::new(text),
            origin: "ks.cfg".into(),
        })
        .ssh_password(SecretString::from("geheim"))
        .provisioners(vec![ProvisionerSpec::Shell(script)])
        .build()
        .unwrap();
    assert!(!format!("{spec:?}").contains("geheim"));
    assert!(!serde_json::to_string(&spec).unwrap().contains("geheim"));
}

#[test]
fn releases_of_isos() {
    for (name, want) in [
        ("AlmaLinux-9.3-x86_64-minimal.iso", Some((9, Some(3)))),
        ("AlmaLinux-9-latest-x86_64-boot.iso", Some((9, None))),
        ("AlmaLinux-10.0-x86_64-dvd.iso", Some((10, Some(0)))),
        ("Rocky-9.3-x86_64-minimal.iso", None),
        ("alma.iso", None),
    ] {
        let iso = IsoSource::Volid(format!("local:iso/{name}").parse().unwrap());
        assert_eq!((iso.file_name(), iso.alma_release()), (name, want));
    }
}

#[test]
fn names_are_chosen_beside_others() {
    let existing = ["alma9-k3-node-amd64-v1.28.5-v3"];
    let spec = ImageSpec::builder().build().unwrap();
    assert_eq!(spec.name.choose(existing), "alma9-k3-node-amd64-v1.28.5-v4");
    let fixed = ImageSpec::builder().name("my-image").build().unwrap();
    assert_eq!(fixed.name.choose(existing), "my-image");
    assert_eq!(fixed.name.image_name(), None);
}

#[test]
fn setters_reach_their_fields() {
    let storage: StorageId = "nas".parse().unwrap();
    let spec = ImageSpec::builder()
        .storage("nas")
        .iso_storage("isos")
        .pool("images")
        .bios(Bios::Ovmf)
        .bridge("vmbr3")
        .hardening_oscap(true)
        .boot_command(BootCommand::from_lines(&["<up>"]).unwrap())
        .boot_wait(Duration::from_secs(3))
        .seal(None)
        .build()
        .unwrap();
    assert_eq!(
        (&spec.disks[0].storage, spec.cloud_init.as_ref()),
        (&storage, Some(&storage))
    );
    assert_eq!(
        (
            spec.installer.iso_storage.as_str(),
            spec.pool.unwrap().as_str().to_owned()
        ),
        ("isos", "images".into())
    );
    assert_eq!(
        (spec.hardware.bios, spec.nics[0].bridge.as_str()),
        (Bios::Ovmf, "vmbr3")
    );
    assert!(spec.seal.is_none() && spec.installer.boot_wait.is_some() && spec.installer.boot_command.is_some());
    let ProvisionerSpec::Shell(script) = &spec.provisioners[3] else {
        panic!("not a script")
    };
    assert!(
        script
            .env
            .iter()
            .any(|(name, value)| name == "HARDENING_OSCAP" && matches!(value, EnvValue::Plain(on) if on == "1"))
    );
}
