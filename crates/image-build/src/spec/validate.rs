//! Checks of an `ImageSpec` as a whole, without a network: whatever made it, the same rules hold.

use std::path::Path;
use std::time::Duration;

use proxmox_client::{Cpu, Net};

use super::address::{check_checksum, check_mirror, check_open};
use super::{
    Bios, CommunicatorKind, Delivery, DiskFormat, ImageSpec, IsoChecksum, IsoSource, KickstartSource, TemplateName,
    is_dns_name,
};
use crate::boot_command::BootVariable;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::kickstart::{self, KickstartNeeds};

/// CPU types that lack instructions AlmaLinux 9 needs (x86-64-v2).
///
/// # Source
/// The kernel panics with `Fatal glibc error: CPU does not support x86-64-v2`. `kvm64` is the API's own default.
const OLD_CPUS: &[&str] = &[
    "kvm64",
    "kvm32",
    "qemu64",
    "qemu32",
    "486",
    "pentium",
    "pentium2",
    "pentium3",
    "coreduo",
    "core2duo",
    "phenom",
    "athlon",
    "Conroe",
    "Opteron_G1",
    "Opteron_G2",
    "Opteron_G3",
    "x86-64-v1",
];

/// Most disks on the SCSI bus of a PVE guest, `scsi0` to `scsi30`, with one place for the CD-ROM drive behind them; and most network
/// devices: `net0` to `net31`.
const MAX_DISKS: usize = 30;
const MAX_NICS: usize = 32;
/// A minimal AlmaLinux 9 with k3s takes some 6 GiB while it is installed and updated.
const MIN_DISK_GIB: u64 = 10;
/// Below this Anaconda of EL9 does not start; it needs more to be comfortable.
const MIN_MEMORY_MIB: u64 = 2048;

impl ImageSpec {
    /// All that is wrong or odd with the description. Only errors keep it from being built.
    pub fn check(&self) -> Diagnostics {
        let mut found = Diagnostics::new();
        self.check_name(&mut found);
        self.check_hardware(&mut found);
        self.check_devices(&mut found);
        self.check_installer(&mut found);
        self.check_kickstart(&mut found);
        self.check_communicator(&mut found);
        self.check_scripts(&mut found);
        if let Some(mirror) = self.k3s.as_ref().and_then(|k3s| k3s.mirror_url.as_deref()) {
            check_mirror(mirror, &mut found);
        }
        for (field, limit) in [
            ("install_timeout", self.timeouts.install),
            ("ssh_timeout", self.communicator.ssh.timeout),
            ("task_timeout", self.timeouts.task),
            ("shutdown_timeout", self.timeouts.shutdown),
            ("undo_timeout", self.timeouts.undo),
        ] {
            if limit < Duration::from_secs(1) {
                found.push(
                    Diagnostic::error(field, "a limit below one second ends every build")
                        .help("write 20m, for example"),
                );
            }
        }
        found
    }

    fn check_name(&self, found: &mut Diagnostics) {
        let text = self.name.to_string();
        if !is_dns_name(&text) {
            found.push(
                Diagnostic::error("image_version", format!("`{text}` is no name for a VM"))
                    .help("letters, digits, dashes and dots: alma9-k3-node-amd64-v1.29.0-v1"),
            );
            return;
        }
        let Some(name) = self.name.image_name() else {
            if self.k3s.is_some()
                && text.starts_with("alma")
                && text.contains("k3")
                && let Err(error) = text.parse::<crate::ImageName>()
            {
                found.push(Diagnostic::error("image_version", error.to_string()));
            }
            return;
        };
        if let Some(k3s) = &self.k3s
            && !name.agrees_with(&k3s.version)
        {
            found.push(
                Diagnostic::error(
                    "image_version",
                    format!(
                        "`{text}` says k3s {}, but k3s_version is {}",
                        name.kubernetes(),
                        k3s.version
                    ),
                )
                .help(format!(
                    "write {}, or leave image_version out: the next free name is then taken",
                    name.with_version(&k3s.version)
                )),
            );
        }
        if let Some((major, _)) = self.installer.iso.alma_release()
            && major != name.alma()
        {
            found.push(
                Diagnostic::error(
                    "image_version",
                    format!(
                        "`{text}` says AlmaLinux {}, but the ISO is {}",
                        name.alma(),
                        self.installer.iso.file_name()
                    ),
                )
                .help("name and ISO must be of one release"),
            );
        }
        if matches!(self.name, TemplateName::Fixed(_)) && name.arch() != "amd64" {
            found.push(
                Diagnostic::error("image_version", format!("`{text}` is for {}", name.arch()))
                    .help("Proxmox VE builds amd64 images"),
            );
        }
    }

    fn check_hardware(&self, found: &mut Diagnostics) {
        let hardware = &self.hardware;
        let cpu = hardware.cpu_type.split(',').next().unwrap_or_default();
        if OLD_CPUS.iter().any(|old| old.eq_ignore_ascii_case(cpu)) {
            found.push(
                Diagnostic::error(
                    "vm_cpu_type",
                    format!("`{cpu}` cannot run AlmaLinux 9, which needs x86-64-v2: its kernel would panic"),
                )
                .help("write x86-64-v2-AES or host"),
            );
        } else if let Err(error) = Cpu::of_type(&hardware.cpu_type) {
            found.push(Diagnostic::error("vm_cpu_type", error.to_string()).help("write x86-64-v2-AES or host"));
        }
        for (field, text) in [
            ("vm_scsi_controller", Some(&hardware.scsi_controller)),
            ("vm_machine", hardware.machine.as_ref()),
            ("vm_vga", hardware.vga.as_ref()),
        ] {
            if let Some(text) = text
                && (text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()))
            {
                found.push(
                    Diagnostic::error(field, format!("{text:?} is no value for it"))
                        .help("see the API viewer of Proxmox VE"),
                );
            }
        }
        if !(1..=512).contains(&hardware.cores) {
            found.push(
                Diagnostic::error("vm_cores", format!("{} cores are not possible", hardware.cores))
                    .help("write 1 to 512"),
            );
        }
        if !(1..=4).contains(&hardware.sockets) {
            found.push(
                Diagnostic::error("vm_sockets", format!("{} sockets are not possible", hardware.sockets))
                    .help("write 1 to 4"),
            );
        }
        if hardware.memory.0 < MIN_MEMORY_MIB {
            found.push(
                Diagnostic::error(
                    "vm_memory",
                    format!("{} is too little for the installer of AlmaLinux 9", hardware.memory),
                )
                .help("write at least 2048 (MiB); 4096 is comfortable"),
            );
        } else if hardware.memory.0 > 4 << 20 {
            found.push(
                Diagnostic::error("vm_memory", format!("{} is more than 4 TiB", hardware.memory))
                    .help("the unit is MiB"),
            );
        }
        if hardware.bios == Bios::Ovmf && hardware.efi_storage.is_none() && self.disks.is_empty() {
            found.push(Diagnostic::error(
                "vm_bios",
                "UEFI needs a storage for its variables, and there is no disk to take it from",
            ));
        }
    }

    fn check_devices(&self, found: &mut Diagnostics) {
        if self.disks.is_empty() || self.disks.len() > MAX_DISKS {
            found.push(
                Diagnostic::error("disks", format!("{} disks are not possible", self.disks.len()))
                    .help("write 1 to 30"),
            );
        }
        for (index, disk) in self.disks.iter().enumerate() {
            if index == 0 && disk.size_gib < MIN_DISK_GIB {
                found.push(
                    Diagnostic::error(
                        "vm_disk_size",
                        format!("{} GiB are too little for AlmaLinux 9 with k3s", disk.size_gib),
                    )
                    .help(format!("write at least {MIN_DISK_GIB}G; the seed's default is 32G")),
                );
            }
            if disk.size_gib == 0 || disk.size_gib > 128 * 1024 {
                found.push(Diagnostic::error(
                    "vm_disk_size",
                    format!("{} GiB are not possible for a disk", disk.size_gib),
                ));
            }
            if disk.format.is_some_and(|format| format != DiskFormat::Raw) && disk.storage.as_str().contains("lvm") {
                found.push(
                    Diagnostic::warning(
                        "vm_disk_format",
                        format!("`{}` looks like an LVM storage, which takes raw only", disk.storage),
                    )
                    .help("leave the format out"),
                );
            }
        }
        if self.nics.len() > MAX_NICS {
            found.push(Diagnostic::error(
                "nics",
                format!("{} network devices are not possible", self.nics.len()),
            ));
        }
        for nic in &self.nics {
            if let Err(error) = Net::virtio(&nic.bridge).and_then(|net| net.with("model", &nic.model)) {
                found.push(Diagnostic::error("vm_bridge", error.to_string()).help("write vmbr0, for example"));
            }
            if nic.vlan.is_some_and(|tag| !(1..=4094).contains(&tag)) {
                found.push(
                    Diagnostic::error("vm_vlan_tag", format!("{} is no VLAN", nic.vlan.unwrap_or_default()))
                        .help("write 1 to 4094"),
                );
            }
        }
        for tag in &self.tags {
            if let Some(reason) = tag_fault(tag) {
                found.push(Diagnostic::error("tags", format!("`{tag}` {reason}")).help(
                    "lower-case letters, digits, `-`, `_`, `.` and `+`, beginning with a letter, a digit or `_`",
                ));
            }
        }
        // The build's own notes share the 8,192 characters of a description (FACTS 31).
        if self
            .description
            .as_ref()
            .is_some_and(|text| text.chars().count() > 4096)
        {
            found.push(Diagnostic::error("description", "it is longer than 4096 characters"));
        }
    }

    fn check_installer(&self, found: &mut Diagnostics) {
        let installer = &self.installer;
        match &installer.iso {
            IsoSource::Url { url, checksum } => {
                if !matches!(url.scheme(), "http" | "https") {
                    found.push(Diagnostic::error(
                        "alma_iso_url",
                        format!("`{url}`: a node downloads from http and https only"),
                    ));
                }
                check_open(url, "alma_iso_url", found);
                if *checksum == IsoChecksum::Unchecked {
                    found.push(
                        Diagnostic::warning("alma_iso_checksum", "the downloaded ISO is not verified")
                            .help("write sha256: and the digits from the CHECKSUM file beside the ISO, or leave it empty: the file is then read"),
                    );
                }
            }
            IsoSource::Volid(volid) if !volid.name().starts_with("iso/") => found.push(
                Diagnostic::error("alma_iso_url", format!("`{volid}` is no ISO")).help(format!(
                    "write {}:iso/{}",
                    volid.storage(),
                    volid.file_name()
                )),
            ),
            IsoSource::Volid(_) | IsoSource::File { .. } => {}
        }
        if let Some(checksum) = installer.iso.checksum() {
            check_checksum(checksum, found);
        }
        let file = installer.iso.file_name();
        if !file.to_ascii_lowercase().ends_with(".iso") {
            found.push(Diagnostic::error(
                "alma_iso_url",
                format!("`{file}` does not end with .iso, so PVE will not take it as one"),
            ));
        }
        if installer.iso.alma_release().is_some_and(|(major, _)| major >= 10)
            && !self.hardware.cpu_type.contains("v3")
            && self.hardware.cpu_type != "host"
        {
            found.push(
                Diagnostic::warning("vm_cpu_type", "AlmaLinux 10 needs x86-64-v3").help("write x86-64-v3 or host"),
            );
        }
        let needs_http = installer
            .boot_command
            .as_ref()
            .is_some_and(|command| command.uses(BootVariable::HttpIp) || command.uses(BootVariable::HttpPort));
        match &installer.delivery {
            Delivery::Oemdrv if needs_http => found.push(
                Diagnostic::error(
                    "boot_command",
                    "it asks for the kickstart over HTTP, but the kickstart travels on a volume",
                )
                .help("set kickstart_delivery = \"http\", or leave boot_command out"),
            ),
            Delivery::Http { .. } if installer.boot_command.is_some() && !needs_http => {
                found.push(Diagnostic::warning(
                    "boot_command",
                    "it names no {{ .HTTPIP }}, so the installer will not ask for the kickstart here",
                ));
            }
            Delivery::Http { ports, .. } if ports.is_empty() || *ports.start() == 0 => found.push(
                Diagnostic::error(
                    "http_port_min",
                    format!("no port lies between {} and {}", ports.start(), ports.end()),
                )
                .help("http_port_min must be from 1 and not above http_port_max"),
            ),
            Delivery::Oemdrv | Delivery::Http { .. } => {}
        }
        if installer
            .boot_wait
            .is_some_and(|wait| wait > Duration::from_secs(30 * 60))
        {
            found.push(
                Diagnostic::error("boot_wait", "it is longer than half an hour")
                    .help("leave it out: the menu is noticed when it is there"),
            );
        }
        if installer.boot_key_interval > Duration::from_secs(5) {
            found.push(
                Diagnostic::error("boot_key_interval", "it is longer than five seconds")
                    .help("leave it out: 100ms is right for nearly all firmware"),
            );
        }
    }

    /// The kickstart must lead to a guest that the build can reach.
    fn check_kickstart(&self, found: &mut Diagnostics) {
        let ssh = &self.communicator.ssh;
        let needs = KickstartNeeds {
            agent: ssh.host.is_none() || self.communicator.kind == CommunicatorKind::Agent,
            ssh: self.communicator.kind != CommunicatorKind::Agent,
            username: &ssh.username,
            password: ssh.password.is_some(),
            iso: self.installer.iso.file_name(),
        };
        match &self.installer.kickstart {
            KickstartSource::Text { text, origin } => found.append(kickstart::check(text.expose(), origin, &needs)),
            KickstartSource::Model(model) => match model.render() {
                Ok(text) => found.append(kickstart::check(text.expose(), Path::new("ks.cfg"), &needs)),
                Err(error) => found.push(Diagnostic::error("kickstart", error.to_string())),
            },
        }
    }

    fn check_communicator(&self, found: &mut Diagnostics) {
        let ssh = &self.communicator.ssh;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if ssh.username.is_empty() || ssh.username.starts_with('-') || !ssh.username.chars().all(fits) {
            found.push(
                Diagnostic::error("ssh_username", format!("{:?} is no user name", ssh.username))
                    .help("write root, for example"),
            );
        }
        if ssh.port == 0 {
            found.push(Diagnostic::error("ssh_port", "0 is no port").help("write 22"));
        }
        if let Some(host) = &ssh.host
            && host.parse::<std::net::IpAddr>().is_err()
            && !is_dns_name(host)
        {
            found.push(
                Diagnostic::error("ssh_host", format!("{host:?} is neither an address nor a name"))
                    .help("no scheme, no port: ssh_port has that"),
            );
        }
        if self.nics.is_empty() && self.communicator.kind == CommunicatorKind::Ssh {
            found.push(
                Diagnostic::error("communicator", "ssh needs a network device, and the VM has none")
                    .help("write communicator = \"agent\""),
            );
        }
    }

    fn check_scripts(&self, found: &mut Diagnostics) {
        let scripts = self.provisioners.iter().filter_map(|provisioner| match provisioner {
            super::ProvisionerSpec::Shell(shell) => Some(shell),
            super::ProvisionerSpec::File(_) => None,
        });
        for script in scripts.chain(&self.seal) {
            let name = &script.name;
            if script.content.trim().is_empty() {
                found.push(Diagnostic::error(name.as_str(), "the script is empty"));
            } else if script.content.contains('\r') {
                found.push(
                    Diagnostic::error(name.as_str(), "its lines end with CR LF, which no shell understands")
                        .help(format!("convert it: sed -i 's/\\r$//' {name}")),
                );
            }
            for (variable, _) in &script.env {
                let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if variable.is_empty()
                    || variable.starts_with(|c: char| c.is_ascii_digit())
                    || !variable.chars().all(fits)
                {
                    found.push(Diagnostic::error(
                        name.as_str(),
                        format!("{variable:?} cannot be the name of an environment variable"),
                    ));
                }
            }
        }
        for provisioner in &self.provisioners {
            if let super::ProvisionerSpec::File(file) = provisioner
                && (!file.destination.starts_with('/') || file.destination.ends_with('/'))
            {
                found.push(Diagnostic::error(
                    file.name.as_str(),
                    format!("`{}` is no absolute path of a file", file.destination),
                ));
            }
        }
    }
}

/// # Source
/// `PVE::JSONSchema`, format `pve-tag`: `(?^i:[a-z0-9_][a-z0-9_\-+.]*)`; PVE lowers the case by itself (`FACTS` 31).
fn tag_fault(tag: &str) -> Option<&'static str> {
    let mut chars = tag.chars();
    match chars.next() {
        None => return Some("is empty"),
        Some(first) if !(first.is_ascii_alphanumeric() || first == '_') => {
            return Some("begins with a character that tags cannot begin with");
        }
        Some(_) => {}
    }
    if tag.chars().any(|c| c.is_ascii_uppercase()) {
        return Some("has upper-case letters, which PVE would change");
    }
    chars
        .any(|c| !(c.is_ascii_alphanumeric() || "_-+.".contains(c)))
        .then_some("holds a character that tags cannot have")
}
