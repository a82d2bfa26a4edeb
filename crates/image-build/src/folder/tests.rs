//! Tests of loading a template folder.

use std::fs;

use secrecy::ExposeSecret as _;

mod hostile;

use super::*;
use crate::assets;
use crate::connection::{Credentials, TlsTrust};
use crate::spec::{
    Bios, CommunicatorKind, Delivery, EnvValue, IsoChecksum, IsoSource, K3sRole, KickstartSource, OnError,
    ProvisionerSpec, TemplateName,
};

/// A fresh folder as `init` writes it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        assets::init(temp.path()).unwrap();
        Self(temp)
    }

    fn edit(self, file: &str, from: &str, to: &str) -> Self {
        let path = self.0.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} does not hold {from}");
        fs::write(path, text.replace(from, to)).unwrap();
        self
    }

    fn write(self, file: &str, text: &str) -> Self {
        fs::write(self.0.path().join(file), text).unwrap();
        self
    }

    fn load(&self, inputs: &Inputs) -> Result<Loaded, Error> {
        TemplateFolder::load(self.0.path(), inputs)
    }

    /// What is wrong, with the folder's path taken out.
    fn refused(&self, inputs: &Inputs) -> String {
        match self.load(inputs) {
            Ok(loaded) => panic!("the folder was taken; warnings: {}", loaded.warnings),
            Err(Error::Invalid(found)) => found.to_string().replace(&format!("{}/", self.0.path().display()), ""),
            Err(other) => panic!("{other}"),
        }
    }
}

const VALUES: &str = "variables.auto.pkrvars.hcl";
const KICKSTART: &str = "http/ks.cfg.j2";

fn token() -> Inputs {
    Inputs::new().environment("PKR_VAR_proxmox_token", "00000000-0000-0000-0000-000000000001")
}

#[test]
fn the_example_becomes_the_seeds_image() {
    let loaded = Folder::new().load(&token()).unwrap();
    assert_eq!(loaded.warnings.to_string(), "");
    let spec = &loaded.spec;
    assert_eq!(spec.name, TemplateName::Fixed("alma9-k3-node-amd64-v1.29.0-v1".into()));
    assert_eq!(spec.vmid.unwrap().get(), 9000);
    assert_eq!((spec.node.as_str(), spec.disks[0].size_gib), ("pve", 32));
    assert_eq!(spec.disks[0].storage.as_str(), "local-lvm");
    assert!(
        matches!(&spec.installer.iso, IsoSource::Volid(volid) if volid.file_name() == "AlmaLinux-9.3-x86_64-minimal.iso")
    );
    assert_eq!(spec.tags, ["alma9", "k3s"]);
    let names: Vec<&str> = spec.provisioners.iter().map(ProvisionerSpec::name).collect();
    assert_eq!(
        names,
        ["os-update.sh", "guest-agent.sh", "k3s-install.sh", "hardening-oscap.sh"]
    );
    let ProvisionerSpec::Shell(install) = &spec.provisioners[2] else {
        panic!("not a script")
    };
    let version = install
        .env
        .iter()
        .find(|(name, _)| name == "K3S_VERSION")
        .map(|(_, value)| value);
    assert!(matches!(version, Some(EnvValue::Plain(version)) if version == "v1.29.0+k3s1"));
    assert!(spec.seal.as_ref().unwrap().content.contains("machine-id"));
    let connection = loaded.connection().unwrap();
    assert_eq!(connection.url.as_str(), "https://10.23.45.10:8006/");
    let Credentials::Token { id, secret } = &connection.credentials else {
        panic!("no token")
    };
    assert_eq!(
        (id.as_str(), secret.expose_secret()),
        ("packer@pve!packer-token", "00000000-0000-0000-0000-000000000001")
    );
    assert!(!format!("{loaded:?}").contains("000000000001"));
}

#[test]
fn a_folder_is_complete_without_its_secrets() {
    let loaded = Folder::new().load(&Inputs::new()).unwrap();
    let error = loaded.connection().unwrap_err();
    insta::assert_snapshot!(error.diagnostics().unwrap(), @r"
    error: proxmox_token: it is not set, and `packer@pve!packer-token` needs it
     = help: export PKR_VAR_proxmox_token with the secret of that token
    ");
}

#[test]
fn every_variable_is_read() {
    let inputs = Inputs::new()
        .environment("PKR_VAR_proxmox_password", "geheim")
        .environment("PKR_VAR_tags", "[\"b\", \"a\", \"b\"]")
        .environment("PKR_VAR_vm_memory", "8192")
        .var("proxmox_url", "https://pve2:8006")
        .var("proxmox_username", "root@pam")
        .var("proxmox_node", "pve2")
        .var("proxmox_skip_tls_verify", "true")
        .var("image_version", "")
        .var("k3s_version", "v1.31.3+k3s1")
        .var("k3s_role", "agent")
        .var("k3s_mirror_url", "http://mirror.example.com/k3s")
        .var("k3s_sha256", "AB".repeat(32))
        .var("k3s_airgap_images", "true")
        .var("k3s_airgap_sha256", "CD".repeat(32))
        .var("os_update", "false")
        .var("hardening_oscap", "true")
        .var("hardening_profile", "stig")
        .var("description", "for the lab")
        .var("scripts", "[\"k3s-install.sh\"]")
        .var("alma_iso_url", "https://example.com/AlmaLinux-9.4-x86_64-dvd.iso")
        .var("alma_iso_checksum", format!("sha256:{}", "0".repeat(64)))
        .var("alma_iso_storage_pool", "isos")
        .var("kickstart_delivery", "http")
        .var(
            "boot_command",
            "[\"<up>\", \"<tab> inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg<enter>\"]",
        )
        .var("boot_wait", "10s")
        .var("boot_key_interval", "250ms")
        .var("http_bind_address", "192.0.2.7")
        .var("http_address", "198.51.100.7")
        .var("http_port_min", "8100")
        .var("http_port_max", "8200")
        .var("install_timeout", "1h")
        .var("task_timeout", "10m")
        .var("shutdown_timeout", "1m")
        .var("vm_id", "0")
        .var("vm_pool", "images")
        .var("vm_cores", "4")
        .var("vm_sockets", "2")
        .var("vm_cpu_type", "host")
        .var("vm_bios", "ovmf")
        .var("vm_machine", "q35")
        .var("vm_scsi_controller", "virtio-scsi-pci")
        .var("vm_disk_size", "1T")
        .var("vm_storage_pool", "nas")
        .var("vm_disk_format", "qcow2")
        .var("vm_bridge", "vmbr7")
        .var("vm_vlan_tag", "12")
        .var("vm_cloud_init_storage_pool", "none")
        .var("communicator", "ssh")
        .var("ssh_username", "root")
        .var("ssh_host", "192.0.2.9")
        .var("ssh_port", "2222")
        .var("ssh_timeout", "5m")
        .var("on_error", "keep");
    let loaded = Folder::new().load(&inputs).unwrap();
    let Loaded { spec, connection, .. } = loaded;
    let connection = connection.unwrap();
    assert_eq!(
        (connection.url.as_str(), connection.credentials.id()),
        ("https://pve2:8006/", "root@pam")
    );
    assert_eq!(connection.tls, TlsTrust::Insecure);
    assert!(matches!(&spec.name, TemplateName::NextFree(name) if name.to_string() == "alma9-k3-node-amd64-v1.31.3-v1"));
    let k3s = spec.k3s.as_ref().unwrap();
    assert_eq!(
        (k3s.role, k3s.mirror_url.as_deref()),
        (K3sRole::Agent, Some("http://mirror.example.com/k3s"))
    );
    assert_eq!(spec.provisioners.len(), 1);
    let ProvisionerSpec::Shell(install) = &spec.provisioners[0] else {
        panic!("not a script")
    };
    let env: Vec<String> = install
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    insta::assert_snapshot!(env.join("\n").replace(&"AB".repeat(32), "SUM").replace(&"CD".repeat(32), "IMAGES"), @r#"
    OS_UPDATE=Plain("0")
    K3S_VERSION=Plain("v1.31.3+k3s1")
    K3S_ROLE=Plain("agent")
    K3S_AIRGAP_IMAGES=Plain("1")
    HARDENING_OSCAP=Plain("1")
    HARDENING_PROFILE=Plain("stig")
    K3S_MIRROR_URL=Plain("http://mirror.example.com/k3s")
    K3S_SHA256=Plain("SUM")
    K3S_AIRGAP_SHA256=Plain("IMAGES")
    "#);
    assert_eq!(spec.tags, ["a", "b"]);
    assert_eq!(spec.description.as_deref(), Some("for the lab"));
    assert!(matches!(
        &spec.installer.iso,
        IsoSource::Url {
            checksum: IsoChecksum::Given(_),
            ..
        }
    ));
    assert_eq!(spec.installer.iso_storage.as_str(), "isos");
    assert_eq!(
        spec.installer.delivery,
        Delivery::Http {
            bind: Some([192, 0, 2, 7].into()),
            ports: 8100..=8200,
            announce: Some([198, 51, 100, 7].into()),
        }
    );
    assert!(spec.installer.boot_command.is_some() && spec.installer.boot_wait.unwrap().as_secs() == 10);
    assert_eq!(spec.installer.boot_key_interval.as_millis(), 250);
    let limits = [
        spec.timeouts.install,
        spec.timeouts.task,
        spec.timeouts.shutdown,
        spec.communicator.ssh.timeout,
    ];
    assert_eq!(limits.map(|limit| limit.as_secs()), [3600, 600, 60, 300]);
    assert_eq!((spec.vmid, spec.pool.as_ref().unwrap().as_str()), (None, "images"));
    let hardware = &spec.hardware;
    assert_eq!((hardware.cores, hardware.sockets, hardware.memory.0), (4, 2, 8192));
    assert_eq!(
        (hardware.cpu_type.as_str(), hardware.bios, hardware.machine.as_deref()),
        ("host", Bios::Ovmf, Some("q35"))
    );
    assert_eq!(hardware.scsi_controller, "virtio-scsi-pci");
    let disk = &spec.disks[0];
    assert_eq!(
        (disk.size_gib, disk.storage.as_str(), disk.format.unwrap().as_str()),
        (1024, "nas", "qcow2")
    );
    assert_eq!((spec.nics[0].bridge.as_str(), spec.nics[0].vlan), ("vmbr7", Some(12)));
    assert_eq!(spec.cloud_init, None);
    assert_eq!(spec.communicator.kind, CommunicatorKind::Ssh);
    assert_eq!(
        (spec.communicator.ssh.host.as_deref(), spec.communicator.ssh.port),
        (Some("192.0.2.9"), 2222)
    );
    assert_eq!(spec.on_error, OnError::Keep);
}

#[test]
fn the_last_value_wins() {
    let folder = Folder::new()
        .write("z.auto.pkrvars.hcl", "vm_cores = 3\n")
        .write("a.auto.pkrvars.json", "{ \"vm_cores\": 5 }")
        .write("more.pkrvars.hcl", "vm_cores = 7\n");
    let more = folder.0.path().join("more.pkrvars.hcl");
    let env = Inputs::new().environment("PKR_VAR_vm_cores", "9");
    let cores = |inputs: &Inputs| folder.load(inputs).unwrap().spec.hardware.cores;
    assert_eq!(
        cores(&env),
        5,
        "JSON files come behind the HCL ones, both behind the environment"
    );
    assert_eq!(cores(&env.clone().var_file(&more)), 7);
    assert_eq!(cores(&env.clone().var("vm_cores", "8").var_file(&more)), 7);
    assert_eq!(cores(&env.var_file(&more).var("vm_cores", "8")), 8);
}

#[test]
fn a_default_name_follows_the_version() {
    let folder = Folder::new().edit(VALUES, "image_version = \"alma9-k3-node-amd64-v1.29.0-v1\"\n", "");
    let name = |inputs: &Inputs| folder.load(inputs).unwrap().spec.name.to_string();
    assert_eq!(name(&Inputs::new()), "alma9-k3-node-amd64-v1.29.0-v1");
    assert_eq!(
        name(&Inputs::new().var("k3s_version", "v1.31.3+k3s1")),
        "alma9-k3-node-amd64-v1.31.3-v1"
    );
}

#[test]
fn a_kickstart_template_is_filled_in() {
    let folder = Folder::new();
    let text = fs::read_to_string(folder.0.path().join(KICKSTART)).unwrap();
    let template = text.replace(
        "lang en_US.UTF-8",
        "# {{ k3s_version }} {{ var.vm_cores }} {{ local.major }}\nlang en_US.UTF-8",
    );
    let folder = folder.write("http/ks.cfg.j2", &template).write(
        "locals.pkr.hcl",
        "locals {\n  major = split(\".\", var.k3s_version)[0]\n}\n",
    );
    let spec = folder.load(&Inputs::new()).unwrap().spec;
    let KickstartSource::Text { text, origin } = spec.installer.kickstart else {
        panic!("no text")
    };
    assert!(text.expose().contains("# v1.29.0+k3s1 2 v1\n") && text.expose().ends_with("%end\n"));
    // Line by line it is the template, so its numbers are the template's.
    assert_eq!(origin, Path::new(KICKSTART));
    let more = template.replace("lang en", "{% for n in [1, 2] %}# {{ n }}\n{% endfor %}lang en");
    let folder = folder.write(KICKSTART, &more);
    let KickstartSource::Text { origin, .. } = folder.load(&Inputs::new()).unwrap().spec.installer.kickstart else {
        panic!("no text")
    };
    assert_eq!(origin, Path::new("http/ks.cfg.j2 (filled in)"));
    let folder = folder.write("http/ks.cfg.j2", "text {# alma_mirror_url #}\n{{ k3s_verison }}\n");
    insta::assert_snapshot!(folder.refused(&Inputs::new()), @"
    error: kickstart: a variable that is not known stands on this line
     --> http/ks.cfg.j2:2:1
      |
    2 | {{ k3s_verison }}
      | ^^^^^^^^^^^^^^^^^
      = help: the variables of the folder can be used by their names: {{ k3s_version }}, {{ local.name }}
    ");
}

#[test]
fn a_mirror_is_filled_in_and_a_plain_kickstart_is_taken_as_it_is() {
    let plain = include_str!("../../../../kickstart/alma9.ks.cfg");
    let text = |folder: &Folder, inputs: &Inputs| match folder.load(inputs).unwrap().spec.installer.kickstart {
        KickstartSource::Text { text, .. } => text.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    let folder = Folder::new();
    assert_eq!(text(&folder, &Inputs::new()), plain);
    let mirror = Inputs::new().var("alma_mirror_url", "https://mirror.lan/alma/9");
    let filled = text(&folder, &mirror);
    assert!(
        filled.contains("\nrepo --name=BaseOS --baseurl=https://mirror.lan/alma/9/BaseOS/x86_64/os/\n"),
        "{filled}"
    );
    assert!(!filled.contains("mirrors.almalinux.org"), "{filled}");

    let both = folder.write("http/ks.cfg", plain);
    assert!(both.refused(&Inputs::new()).contains("both there"));
    fs::remove_file(both.0.path().join(KICKSTART)).unwrap();
    assert_eq!(text(&both, &Inputs::new()), plain);
}

/// One thing wrong at a time: what is said about it.
#[test]
fn bad_input_says_where_and_what_instead() {
    let mut shown = String::new();
    let mut number = 0;
    let mut case = |folder: Folder, inputs: &Inputs| {
        number += 1;
        assert!(folder.load(inputs).is_err(), "case {number} was taken");
        shown.push_str(&folder.refused(inputs));
        shown.push_str("\n----\n");
    };
    let none = Inputs::new();
    case(Folder::new().edit(VALUES, "\"none\"", "\"sha256:abc123...\""), &none);
    case(Folder::new().edit(VALUES, "v1.29.0+k3s1", "v1.29.0"), &none);
    case(Folder::new(), &none.clone().var("k3s_version", "v1.31.3+k3s1"));
    case(Folder::new().edit(VALUES, "AlmaLinux-9.3", "AlmaLinux-8.9"), &none);
    case(Folder::new(), &none.clone().environment("PKR_VAR_vm_cpu_type", "kvm64"));
    case(Folder::new().edit(KICKSTART, "\nqemu-guest-agent\n", "\n"), &none);
    case(
        Folder::new().edit(VALUES, "https://10.23.45.10:8006/api2/json", "10.23.45.10:8006"),
        &none,
    );
    case(
        Folder::new()
            .edit(
                VALUES,
                "local:iso/AlmaLinux-9.3-x86_64-minimal.iso",
                "http://example.com/AlmaLinux-9.3-x86_64-dvd.iso",
            )
            .edit(VALUES, "\"none\"", "\"\""),
        &none,
    );
    case(Folder::new().edit(VALUES, "9000", "99"), &none);
    case(Folder::new().edit(VALUES, "9000", "\"many\""), &none);
    case(
        Folder::new().write(
            "x.auto.pkrvars.hcl",
            "tags = [\"K3s\", \"a b\"]\nvm_disk_size = \"32 apples\"\n",
        ),
        &none,
    );
    case(
        Folder::new().write("x.auto.pkrvars.hcl", "vm_cores = 2\nvm_cores = 4\n"),
        &none,
    );
    case(Folder::new().write("x.auto.pkrvars.hcl", "vm_cores = \n"), &none);
    case(Folder::new(), &none.clone().var("k3s_verison", "v1.29.0+k3s1"));
    case(
        Folder::new().write(
            "x.pkr.hcl",
            "variable \"a\" {\n  type = strng\n}\nvariable \"vm_id\" {}\n",
        ),
        &none,
    );
    case(Folder::new().edit(KICKSTART, "reboot --eject\n", "\n"), &none);
    case(
        Folder::new().write("scripts/os-update.sh", "#!/bin/sh\r\ntrue\r\n"),
        &none,
    );
    case(
        Folder::new(),
        &none.clone().var("scripts", "[\"k3s-instal.sh\", \"../x.sh\"]"),
    );
    case(
        Folder::new().write("x.auto.pkrvars.hcl", "boot_command = [\"<up><wiat5><enter>\"]\n"),
        &none,
    );
    insta::assert_snapshot!(shown, @r#"
    error: alma_iso_checksum: `sha256:abc123...` is no checksum: it is a placeholder
      --> variables.auto.pkrvars.hcl:12:21
       |
    12 | alma_iso_checksum = "sha256:abc123..."
       |                     ^^^^^^^^^^^^^^^^^^
       = help: write sha256: and the 64 digits from the CHECKSUM file beside the ISO, file:https://... with the address of such a file, or "none", which leaves the ISO unchecked
    ----
    error: k3s_version: `v1.29.0` names no k3s release: it lacks k3s's own counter `+k3sN`, so it could mean several releases
      --> variables.auto.pkrvars.hcl:15:17
       |
    15 | k3s_version   = "v1.29.0"
       |                 ^^^^^^^^^
       = help: did you mean v1.29.0+k3s1?
    ----
    error: image_version: `alma9-k3-node-amd64-v1.29.0-v1` says k3s v1.29.0, but k3s_version is v1.31.3+k3s1
      --> variables.auto.pkrvars.hcl:16:17
       |
    16 | image_version = "alma9-k3-node-amd64-v1.29.0-v1"
       |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: write alma9-k3-node-amd64-v1.31.3-v1, or leave image_version out: the next free name is then taken
    ----
    error: image_version: `alma9-k3-node-amd64-v1.29.0-v1` says AlmaLinux 9, but the ISO is AlmaLinux-8.9-x86_64-minimal.iso
      --> variables.auto.pkrvars.hcl:16:17
       |
    16 | image_version = "alma9-k3-node-amd64-v1.29.0-v1"
       |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: name and ISO must be of one release
    ----
    error: vm_cpu_type: `kvm64` cannot run AlmaLinux 9, which needs x86-64-v2: its kernel would panic (set by PKR_VAR_vm_cpu_type)
     = help: write x86-64-v2-AES or host
    ----
    error: kickstart: the guest's address is to come from the guest agent, but the kickstart installs none
      --> http/ks.cfg.j2:37:1
       |
    37 | %packages --exclude-weakdeps
       | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: add qemu-guest-agent there, or set ssh_host
    ----
    error: proxmox_url: `10.23.45.10:8006` has no scheme
     --> variables.auto.pkrvars.hcl:4:20
      |
    4 | proxmox_url      = "10.23.45.10:8006"
      |                    ^^^^^^^^^^^^^^^^^^
      = help: write https://10.23.45.10:8006
    ----
    error: alma_iso_checksum: the ISO comes over http://, where the mirror's own list of checksums proves nothing
      --> variables.auto.pkrvars.hcl:12:21
       |
    12 | alma_iso_checksum = ""
       |                     ^^
       = help: write sha256: and the 64 digits from the CHECKSUM file beside the ISO, file:https://... with the address of such a file, or "none", which leaves the ISO unchecked
    ----
    error: vm_id: 99 is no VM id
      --> variables.auto.pkrvars.hcl:19:19
       |
    19 | vm_id           = 99
       |                   ^^
       = help: write 100 to 999999999, or 0 for the next free one
    ----
    error: vm_id: this is not of its type
      --> variables.auto.pkrvars.hcl:19:19
       |
    19 | vm_id           = "many"
       |                   ^^^^^^
       = help: write a number, as in 9000
    ----
    error: vm_disk_size: `32 apples` is no disk size
     --> x.auto.pkrvars.hcl:2:16
      |
    2 | vm_disk_size = "32 apples"
      |                ^^^^^^^^^^^
      = help: write whole GiB or TiB, as in 32G or 1T: Proxmox VE allocates in GiB

    error: tags: `K3s` has upper-case letters, which PVE would change
     --> x.auto.pkrvars.hcl:1:8
      |
    1 | tags = ["K3s", "a b"]
      |        ^^^^^^^^^^^^^^
      = help: lower-case letters, digits, `-`, `_`, `.` and `+`, beginning with a letter, a digit or `_`

    error: tags: `a b` holds a character that tags cannot have
     --> x.auto.pkrvars.hcl:1:8
      |
    1 | tags = ["K3s", "a b"]
      |        ^^^^^^^^^^^^^^
      = help: lower-case letters, digits, `-`, `_`, `.` and `+`, beginning with a letter, a digit or `_`
    ----
    error: this is set twice in one file
     --> x.auto.pkrvars.hcl:2:1
      |
    2 | vm_cores = 4
      | ^
    ----
    error: this is no HCL: invalid expression; expected `"`, `[`, `{`, `-`, `!`, `(`, `_`, `<`, letter or digit
     --> x.auto.pkrvars.hcl:1:12
      |
    1 | vm_cores = 
      |            ^
    ----
    error: k3s_verison: -var sets a variable that is not known
     = help: did you mean k3s_version, or k3s_role?
    ----
    error: a: this is no type
     --> x.pkr.hcl:2:10
      |
    2 |   type = strng
      |          ^^^^^
      = help: write string, number, bool, list(string), map(string) or any

    error: vm_id: it is declared twice
     --> x.pkr.hcl:4:10
      |
    4 | variable "vm_id" {}
      |          ^^^^^^^
      = help: the first is at variables.pkr.hcl:118

    error: a: it is not set and has no default
     --> x.pkr.hcl:1:10
      |
    1 | variable "a" {
      |          ^^^
      = help: write it into a *.auto.pkrvars.hcl file, or export PKR_VAR_a
    ----
    error: kickstart: the installation would never end: neither reboot nor poweroff stands in it
     --> http/ks.cfg.j2:1:1
      = help: write reboot --eject
    ----
    error: os-update.sh: its lines end with CR LF, which no shell understands
     = help: convert it: sed -i 's/\r$//' os-update.sh
    ----
    error: scripts: scripts/k3s-instal.sh does not exist (set by -var)
     = help: did you mean k3s-install.sh?

    error: scripts: scripts/../x.sh: it leads out of the template folder (set by -var)
     = help: keep the scripts in the folder itself

    warning: scripts/guest-agent.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away

    warning: scripts/hardening-oscap.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away

    warning: scripts/k3s-install.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away

    warning: scripts/os-update.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away
    ----
    error: boot_command: `<wiat5>` is no key
     --> x.auto.pkrvars.hcl:1:16
      |
    1 | boot_command = ["<up><wiat5><enter>"]
      |                ^^^^^^^^^^^^^^^^^^^^^^
      = help: did you mean <wait>?
    ----
    "#);
}

#[test]
fn oddities_are_warnings() {
    let folder = Folder::new()
        .write(
            "packer.pkr.hcl",
            "packer {\n}\nsource \"proxmox-iso\" \"alma\" {\n}\nbuild {\n}\n",
        )
        .write(
            "x.auto.pkrvars.hcl",
            "vm_memroy = 1\nproxmox_token = \"00000000-0000-0000-0000-000000000002\"\n",
        )
        .write("scripts/extra.sh", "#!/bin/sh\n");
    let loaded = folder
        .load(&Inputs::new().environment("PKR_VAR_vm_brigde", "x"))
        .unwrap();
    let shown = loaded
        .warnings
        .to_string()
        .replace(&format!("{}/", folder.0.path().display()), "");
    insta::assert_snapshot!(shown, @r#"
    warning: this `packer` block is not read
     --> packer.pkr.hcl:1:1
      |
    1 | packer {
      | ^^^^^^
      = help: k3simage builds its own steps from the variables, http/ and scripts/

    warning: this `source` block is not read
     --> packer.pkr.hcl:3:1
      |
    3 | source "proxmox-iso" "alma" {
      | ^^^^^^
      = help: k3simage builds its own steps from the variables, http/ and scripts/

    warning: this `build` block is not read
     --> packer.pkr.hcl:5:1
      |
    5 | build {
      | ^^^^^
      = help: k3simage builds its own steps from the variables, http/ and scripts/

    warning: vm_brigde: PKR_VAR_vm_brigde in the environment sets no variable of this folder
     = help: did you mean PKR_VAR_vm_bridge?

    warning: vm_memroy: nothing reads this variable
     --> x.auto.pkrvars.hcl:1:1
      |
    1 | vm_memroy
      | ^^^^^^^^^
      = help: did you mean vm_memory?

    warning: proxmox_token: a secret stands in a file, which is easily committed or copied
     --> x.auto.pkrvars.hcl:2:17
      = help: export PKR_VAR_proxmox_token instead

    warning: scripts/extra.sh lies there, but nothing runs it
     = help: add it to the variable `scripts`, or take it away
    "#);
    assert!(!shown.contains("000000000002"));
}

#[test]
fn no_secret_is_shown() {
    let secret = "s3cr3t-value";
    for (file, text) in [
        (VALUES, format!("proxmox_token = \"{secret}\nvm_cores = 2\n")),
        (VALUES, format!("proxmox_token = [\"{secret}\"]\n")),
        (VALUES, format!("ssh_password = {{ a = \"{secret}\" }}\n")),
        (VALUES, format!("proxmox_tokn = \"{secret}\"\n")),
        (
            "x.auto.pkrvars.json",
            format!("{{ \"proxmox_token\": \"{secret}\" \"x\" }}"),
        ),
        (
            "x.pkr.hcl",
            format!("variable \"mine\" {{\n  type = number\n  default = \"{secret}\"\n  sensitive = true\n}}\n"),
        ),
        (
            "x.pkr.hcl",
            format!("variable \"proxmox_token\" {{\n  default = \"{secret}\"\n}}\n"),
        ),
    ] {
        let folder = Folder::new().write(file, &text);
        let shown = match folder.load(&Inputs::new()) {
            Ok(loaded) => format!("{loaded:?} {}", loaded.warnings),
            Err(error) => format!("{error} {error:?} {}", error.diagnostics().unwrap()),
        };
        assert!(!shown.contains(secret), "{text}: {shown}");
    }
    let inputs = Inputs::new()
        .var("ssh_password", secret)
        .environment("PKR_VAR_proxmox_token", secret);
    assert!(!format!("{inputs:?}").contains(secret));
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("hosts"), "secret text\n").unwrap();
    for file in ["scripts/os-update.sh", KICKSTART, "scripts/seal.sh"] {
        let folder = Folder::new();
        let path = folder.0.path().join(file);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("hosts"), &path).unwrap();
        let shown = folder.refused(&Inputs::new());
        assert!(
            shown.contains("link that leads out") && !shown.contains("secret text"),
            "{file}: {shown}"
        );
    }
}

#[test]
fn a_connection_alone() {
    let inputs = token()
        .environment("PKR_VAR_proxmox_url", "https://10.0.0.1:8006")
        .environment("PKR_VAR_proxmox_username", "a@pve!bb");
    let connection = TemplateFolder::connection_without_folder(&inputs).unwrap();
    assert_eq!(connection.credentials.id(), "a@pve!bb");
    let broken = Folder::new().edit(VALUES, "v1.29.0+k3s1", "v1.29.0");
    assert!(TemplateFolder::new(broken.0.path()).connection(&token()).is_ok());
    assert!(TemplateFolder::connection_without_folder(&Inputs::new()).is_err());
}

#[test]
fn a_missing_folder_is_named() {
    let error = TemplateFolder::load("/no/such/folder", &Inputs::new()).unwrap_err();
    assert_eq!(error.to_string(), "reading the template folder /no/such/folder");
}

#[test]
fn the_library_s_kickstart_template_can_be_used_in_a_folder() {
    let folder = Folder::new().write(KICKSTART, assets::KICKSTART_TEMPLATE.text);
    let text = |folder: &Folder| {
        let spec = folder.load(&Inputs::new()).unwrap().spec;
        let crate::spec::KickstartSource::Text { text, .. } = spec.installer.kickstart else {
            panic!("no text")
        };
        text.expose().to_owned()
    };
    assert!(text(&folder).contains("\nlang en_US.UTF-8\n"));
    let folder = folder.write(
        "ks.pkr.hcl",
        "variable \"ks_lang\" {\n  type = string\n  default = \"de_DE.UTF-8\"\n}\n",
    );
    assert!(text(&folder).contains("\nlang de_DE.UTF-8\n"));
}
