//! The table of variables: name, type, default and meaning. Parsing, checks and the reference page all read it.

use std::fmt::Write as _;

use hcl::Value;

use super::kind::Kind;

/// The type of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VariableKind {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Bool,
    /// A list of texts.
    TextList,
}

impl VariableKind {
    /// The type as a `variable` block has it.
    pub const fn as_hcl(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::TextList => "list(string)",
        }
    }

    pub(super) fn to_kind(self) -> Kind {
        match self {
            Self::Text => Kind::String,
            Self::Number => Kind::Number,
            Self::Bool => Kind::Bool,
            Self::TextList => Kind::List(Box::new(Kind::String)),
        }
    }
}

/// One variable that a template folder can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VariableInfo {
    /// Heading that it stands under.
    pub group: &'static str,
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: VariableKind,
    /// Default as HCL has it; `None` must be set. An empty text means: not set.
    pub default: Option<&'static str>,
    /// Is its value never shown?
    pub sensitive: bool,
    /// What it is for.
    pub doc: &'static str,
}

impl VariableInfo {
    pub(super) fn default_value(&self) -> Option<Value> {
        let text = self.default?;
        let value = hcl::from_str::<Value>(&format!("v = {text}")).expect("a constant that a test checks");
        value.as_object().and_then(|map| map.get("v")).cloned()
    }
}

pub(super) fn find(name: &str) -> Option<&'static VariableInfo> {
    VARIABLES.iter().find(|info| info.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().map(|info| info.name)
}

macro_rules! table {
    ($($group:literal { $($name:ident: $kind:ident = $default:expr, $($sensitive:ident,)? $doc:literal;)+ })+) => {
        &[$($(VariableInfo {
            group: $group,
            name: stringify!($name),
            kind: VariableKind::$kind,
            default: $default,
            sensitive: table!(@ $($sensitive)?),
            doc: $doc,
        },)+)+]
    };
    (@ sensitive) => { true };
    (@) => { false };
}

/// Every variable, in the order of the reference page.
pub const VARIABLES: &[VariableInfo] = table! {
    "Connection" {
        proxmox_url: Text = None, "Proxmox VE API: `https://10.23.45.10:8006/api2/json`; the path may be left out";
        proxmox_username: Text = None, "API token id `packer@pve!packer-token`, or a user `root@pam` with `proxmox_password`";
        proxmox_token: Text = Some("\"\""), sensitive, "secret of the API token; also `name=secret` or `user@realm!name=secret`";
        proxmox_password: Text = Some("\"\""), sensitive, "password of `proxmox_username`, when that is a user and no token";
        proxmox_node: Text = None, "node to build on";
        proxmox_ca_file: Text = Some("\"\""), "PEM file of the authority that signed the node's certificate";
        proxmox_fingerprint: Text = Some("\"\""), "SHA-256 fingerprint of the node's certificate; if set, it alone decides";
        proxmox_skip_tls_verify: Bool = Some("false"), "take any certificate; `proxmox_fingerprint` is better";
    }
    "Image" {
        image_version: Text = Some("\"\""), "name of the template; empty takes the next free one: `alma9-k3-node-amd64-v1.28.5-v1`";
        k3s_version: Text = Some("\"v1.28.5+k3s1\""), "k3s release to install, with its `+k3sN`";
        k3s_role: Text = Some("\"server\""), "what a clone becomes that is told nothing at its first boot: `server`, `agent` or `none`";
        k3s_mirror_url: Text = Some("\"\""), "mirror of the k3s releases, laid out as `MIRROR/VERSION/FILE`; empty is the project's own place";
        k3s_sha256: Text = Some("\"\""), "SHA-256 of the k3s binary; required when the mirror is `http://`";
        k3s_airgap_images: Bool = Some("false"), "lay down the release's container images, so that nodes need no registry";
        k3s_airgap_sha256: Text = Some("\"\""), "SHA-256 of their archive; required with them when the mirror is `http://`";
        os_update: Bool = Some("true"), "install all updates of AlmaLinux";
        hardening_oscap: Bool = Some("false"), "check the image with OpenSCAP and keep the report in it";
        hardening_profile: Text = Some("\"cis_server_l1\""), "profile of the SCAP Security Guide for `hardening_oscap`";
        description: Text = Some("\"\""), "text put in front of the template's description";
        tags: TextList = Some("[]"), "tags of the template beside the build's own; lower-case letters, digits, `-`, `_`, `.` and `+`";
        scripts: TextList = Some("[\"os-update.sh\", \"guest-agent.sh\", \"k3s-install.sh\", \"hardening-oscap.sh\"]"),
            "scripts of `scripts/` to run in the guest, in this order; `seal.sh` runs after them";
        files: TextList = Some("[]"), "files of the folder to put into the guest before the scripts run: `PATH=DESTINATION`, or `PATH=DESTINATION,MODE`";
        script_timeout: Text = Some("\"30m\""), "limit of one script; a script that passes it ends the build";
        expect_disconnect: TextList = Some("[]"), "those of `scripts` that may end the connection, as by a reboot: the build goes on when the guest answers again";
    }
    "Installation medium" {
        alma_iso_url: Text = None, "AlmaLinux ISO: a volume `local:iso/NAME.iso`, an `https://` address, or a local file";
        alma_iso_checksum: Text = Some("\"\""), "`sha256:` and 64 digits, or `file:` and the address (`https://`) or path of a list; empty or `auto` reads `CHECKSUM` beside an `https://` ISO; `none` leaves it unchecked";
        alma_iso_storage_pool: Text = Some("\"local\""), "storage for ISOs: the one that is fetched or uploaded, and the build's own small one";
        kickstart_delivery: Text = Some("\"oemdrv\""), "how the kickstart travels: `oemdrv` on a small ISO, `http` from this machine";
        boot_command: TextList = Some("[]"), "keys to type in the ISO's menu, in Packer's language; empty is right for the preset";
        boot_wait: Text = Some("\"\""), "fixed time before typing, as in `10s`; empty types when the menu is there";
        boot_key_interval: Text = Some("\"100ms\""), "pause after each key; longer where firmware loses keys";
        http_bind_address: Text = Some("\"0.0.0.0\""), "address to serve the kickstart from, with `kickstart_delivery = \"http\"`";
        http_address: Text = Some("\"\""), "address at which the guest finds this machine, where a NAT lies between; empty is `http_bind_address`, or the one towards Proxmox VE";
        http_port_min: Number = Some("8000"), "first port to try for it";
        http_port_max: Number = Some("9000"), "last port to try for it";
        install_timeout: Text = Some("\"45m\""), "limit from the VM's start until the installer has ended";
    }
    "Virtual machine" {
        vm_id: Number = Some("0"), "VM id of the template, 100 to 999999999; 0 takes the next free one";
        vm_pool: Text = Some("\"\""), "pool to put the VM into";
        vm_cores: Number = Some("2"), "CPU cores of each socket";
        vm_sockets: Number = Some("1"), "CPU sockets";
        vm_memory: Number = Some("4096"), "memory in MiB";
        vm_cpu_type: Text = Some("\"x86-64-v2-AES\""), "CPU type; AlmaLinux 9 needs x86-64-v2, so `kvm64` cannot boot it";
        vm_bios: Text = Some("\"seabios\""), "firmware: `seabios` or `ovmf` (UEFI)";
        vm_machine: Text = Some("\"\""), "machine type such as `q35`; empty is PVE's default";
        vm_scsi_controller: Text = Some("\"virtio-scsi-single\""), "SCSI controller";
        vm_disk_size: Text = Some("\"32G\""), "size of the disk: `32G`, `1T`";
        vm_storage_pool: Text = Some("\"local-lvm\""), "storage for the disk";
        vm_disk_format: Text = Some("\"\""), "format of the disk: `raw`, `qcow2` or `vmdk`; empty is the storage's default";
        vm_bridge: Text = Some("\"vmbr0\""), "bridge of the network device";
        vm_vlan_tag: Number = Some("0"), "VLAN of the network device, 1 to 4094; 0 is none";
        vm_cloud_init_storage_pool: Text = Some("\"\""), "storage for the template's cloud-init drive; empty is the disk's, `none` adds none";
    }
    "Way into the guest" {
        communicator: Text = Some("\"auto\""), "`ssh`, `agent` or `auto`";
        ssh_username: Text = Some("\"root\""), "user to log in as";
        ssh_password: Text = Some("\"\""), sensitive, "password, if the kickstart sets one; empty logs in with a key made for the build";
        ssh_host: Text = Some("\"\""), "address of the guest; empty asks its guest agent";
        ssh_port: Number = Some("22"), "port of the guest's SSH server";
        ssh_timeout: Text = Some("\"30m\""), "limit from the first boot of the installed system until SSH answers";
    }
    "Build" {
        on_error: Text = Some("\"cleanup\""), "what becomes of the VM when the build fails: `cleanup`, `keep` or `ask`";
        task_timeout: Text = Some("\"30m\""), "limit of one task of Proxmox VE";
        shutdown_timeout: Text = Some("\"5m\""), "limit of the guest's shutdown";
    }
};

/// The reference page of all variables, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Variables\n\n<!-- Made from the table in crates/image-build/src/variables/table.rs; a test keeps it current. -->\n\n\
         Set in `*.auto.pkrvars.hcl`, by `PKR_VAR_name`, by `-var name=value` or by `-var-file FILE`; the last wins, in the order\n\
         defaults, environment, automatic files, command line. A default in the folder's own `variable` block stands in\n\
         place of the one given here. Sensitive values are never shown.\n",
    );
    let mut group = "";
    for info in VARIABLES {
        if info.group != group {
            group = info.group;
            write!(
                page,
                "\n## {group}\n\n| variable | type | default | meaning |\n| --- | --- | --- | --- |\n"
            )
            .expect("writing to a String does not fail");
        }
        let default = match info.default {
            None => "required".to_owned(),
            Some("\"\"") => String::new(),
            Some(text) => format!("`{text}`"),
        };
        let sensitive = if info.sensitive { "; sensitive" } else { "" };
        writeln!(
            page,
            "| `{}` | {} | {default} | {}{sensitive} |",
            info.name,
            info.kind.as_hcl(),
            info.doc
        )
        .expect("writing to a String does not fail");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_of_its_type() {
        let mut seen = std::collections::BTreeSet::new();
        for info in VARIABLES {
            assert!(seen.insert(info.name), "{} stands twice", info.name);
            if let Some(value) = info.default_value() {
                assert_eq!(info.kind.to_kind().convert(value.clone()), Some(value), "{}", info.name);
            }
        }
    }

    #[test]
    fn the_reference_page_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/variables.md");
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            page == reference(),
            "docs/reference/variables.md is not current; write it anew: \
             cargo run -p k3simage-image-build --example variables_reference > docs/reference/variables.md"
        );
    }
}
