//! Tests of loading a template folder.

use std::fs;

use secrecy::ExposeSecret as _;

mod bad_input;
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

    let port = |inputs: Inputs| {
        TemplateFolder::new(broken.0.path())
            .reach(&inputs)
            .map(|reach| reach.ssh_port)
    };
    assert_eq!(port(token()).unwrap(), 22);
    assert_eq!(port(token().var("ssh_port", "2222")).unwrap(), 2222);
    let error = port(token().var("ssh_port", "70000")).unwrap_err().to_string();
    assert!(error.contains("ssh_port"), "{error}");
    let reach = TemplateFolder::reach_without_folder(&inputs.var("ssh_port", "2222")).unwrap();
    assert_eq!((reach.connection.credentials.id(), reach.ssh_port), ("a@pve!bb", 2222));
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
