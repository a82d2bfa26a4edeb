//! `ImageSpecBuilder`: typed setters over the preset, checked as a whole at the end.

use std::time::Duration;

use proxmox_client::{MiB, NodeName, PoolId, StorageId, Vmid};
use secrecy::SecretString;

use super::{
    Bios, CommunicatorKind, Delivery, Disk, ImageSpec, IsoSource, K3s, K3sRole, KickstartSource, Nic, OnError,
    ProvisionerSpec, ShellSpec, TemplateName, Timeouts,
};
use crate::boot_command::BootCommand;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::error::Error;
use crate::k3s_version::K3sVersion;
use crate::preset::{self, ScriptOptions};

/// Describes an image step by step; everything not said is the preset's: a k3s image on AlmaLinux 9.
///
/// Setters that take text keep what is wrong with it until [`build`](Self::build), which reports all of it at once.
#[derive(Clone, Debug)]
#[must_use = "nothing is described until `build` is called"]
pub struct ImageSpecBuilder {
    spec: ImageSpec,
    name: Option<String>,
    k3s: K3s,
    scripts: ScriptOptions,
    own_provisioners: Option<Vec<ProvisionerSpec>>,
    seal: Option<ShellSpec>,
    disk_storage: Option<StorageId>,
    problems: Diagnostics,
}

macro_rules! parsed {
    ($self:ident, $field:literal, $value:expr, $into:expr) => {{
        match $value.try_into() {
            Ok(value) => $into(&mut $self, value),
            Err(error) => $self.problems.push(Diagnostic::error($field, error.to_string())),
        }
        $self
    }};
}

impl ImageSpecBuilder {
    pub(super) fn new() -> Self {
        Self {
            spec: preset::spec(),
            name: None,
            k3s: preset::k3s(),
            scripts: ScriptOptions::default(),
            own_provisioners: None,
            seal: Some(preset::seal()),
            disk_storage: None,
            problems: Diagnostics::new(),
        }
    }

    /// The k3s release inside; the name follows it unless one is set.
    pub fn k3s_version(mut self, version: K3sVersion) -> Self {
        self.k3s.version = version;
        self
    }

    /// What a clone becomes that is told nothing.
    pub fn k3s_role(mut self, role: K3sRole) -> Self {
        self.k3s.role = role;
        self
    }

    /// Where the release files of k3s come from.
    pub fn k3s_mirror_url(mut self, url: impl Into<String>) -> Self {
        self.k3s.mirror_url = Some(url.into());
        self
    }

    /// What the embedded scripts are told.
    pub fn scripts(mut self, options: ScriptOptions) -> Self {
        self.scripts = options;
        self
    }

    /// Run OpenSCAP in the guest and keep its report.
    pub fn hardening_oscap(mut self, on: bool) -> Self {
        self.scripts.hardening_oscap = on;
        self
    }

    /// The template's name; without it, the next free iteration of the k3s image's name is taken.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Text put in front of the description that the build writes.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.spec.description = Some(description.into());
        self
    }

    /// Tags beside the build's own.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.spec.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// The node to build on.
    pub fn node<T: TryInto<NodeName, Error: ToString>>(mut self, node: T) -> Self {
        parsed!(self, "node", node, |this: &mut Self, node| this.spec.node = node)
    }

    /// The VM id; without it, the next free one is taken.
    pub fn vmid<T: TryInto<Vmid, Error: ToString>>(mut self, vmid: T) -> Self {
        parsed!(self, "vmid", vmid, |this: &mut Self, vmid| this.spec.vmid = Some(vmid))
    }

    /// The pool to put the VM into.
    pub fn pool<T: TryInto<PoolId, Error: ToString>>(mut self, pool: T) -> Self {
        parsed!(self, "pool", pool, |this: &mut Self, pool| this.spec.pool = Some(pool))
    }

    /// Cores of each socket.
    pub fn cores(mut self, cores: u32) -> Self {
        self.spec.hardware.cores = cores;
        self
    }

    /// Memory in MiB.
    pub fn memory(mut self, memory: MiB) -> Self {
        self.spec.hardware.memory = memory;
        self
    }

    /// CPU type.
    pub fn cpu_type(mut self, cpu_type: impl Into<String>) -> Self {
        self.spec.hardware.cpu_type = cpu_type.into();
        self
    }

    /// Firmware.
    pub fn bios(mut self, bios: Bios) -> Self {
        self.spec.hardware.bios = bios;
        self
    }

    /// All of the hardware at once.
    pub fn hardware(mut self, hardware: super::Hardware) -> Self {
        self.spec.hardware = hardware;
        self
    }

    /// Storage of the system disk and of the template's cloud-init drive.
    pub fn storage<T: TryInto<StorageId, Error: ToString>>(mut self, storage: T) -> Self {
        parsed!(self, "storage", storage, |this: &mut Self, storage| this.disk_storage =
            Some(storage))
    }

    /// Size of the system disk in GiB.
    pub fn disk_gib(mut self, size_gib: u64) -> Self {
        if let Some(disk) = self.spec.disks.first_mut() {
            disk.size_gib = size_gib;
        }
        self
    }

    /// All disks, in the order of their slots.
    pub fn disks(mut self, disks: Vec<Disk>) -> Self {
        self.spec.disks = disks;
        self
    }

    /// All network devices, in the order of their slots.
    pub fn nics(mut self, nics: Vec<Nic>) -> Self {
        self.spec.nics = nics;
        self
    }

    /// The bridge of the first network device.
    pub fn bridge(mut self, bridge: impl Into<String>) -> Self {
        if let Some(nic) = self.spec.nics.first_mut() {
            nic.bridge = bridge.into();
        }
        self
    }

    /// Storage of the template's cloud-init drive; `None` adds none.
    pub fn cloud_init(mut self, storage: Option<StorageId>) -> Self {
        self.spec.cloud_init = storage;
        self
    }

    /// The installer's ISO.
    pub fn iso(mut self, iso: IsoSource) -> Self {
        self.spec.installer.iso = iso;
        self
    }

    /// Storage for uploaded and downloaded ISOs.
    pub fn iso_storage<T: TryInto<StorageId, Error: ToString>>(mut self, storage: T) -> Self {
        parsed!(self, "iso_storage", storage, |this: &mut Self, storage| this
            .spec
            .installer
            .iso_storage =
            storage)
    }

    /// The kickstart.
    pub fn kickstart(mut self, kickstart: KickstartSource) -> Self {
        self.spec.installer.kickstart = kickstart;
        self
    }

    /// How the kickstart reaches the installer.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.spec.installer.delivery = delivery;
        self
    }

    /// Keys to type in the ISO's menu.
    pub fn boot_command(mut self, command: BootCommand) -> Self {
        self.spec.installer.boot_command = Some(command);
        self
    }

    /// A fixed time before typing, instead of waiting until the menu is there.
    pub fn boot_wait(mut self, wait: Duration) -> Self {
        self.spec.installer.boot_wait = Some(wait);
        self
    }

    /// The pause after each key of the boot command.
    pub fn boot_key_interval(mut self, interval: Duration) -> Self {
        self.spec.installer.boot_key_interval = interval;
        self
    }

    /// The way to the guest.
    pub fn communicator(mut self, kind: CommunicatorKind) -> Self {
        self.spec.communicator.kind = kind;
        self
    }

    /// The user for SSH.
    pub fn ssh_username(mut self, username: impl Into<String>) -> Self {
        self.spec.communicator.ssh.username = username.into();
        self
    }

    /// A password for SSH, for a kickstart that sets one.
    pub fn ssh_password(mut self, password: SecretString) -> Self {
        self.spec.communicator.ssh.password = Some(password);
        self
    }

    /// Address or name of the guest, instead of asking its agent.
    pub fn ssh_host(mut self, host: impl Into<String>) -> Self {
        self.spec.communicator.ssh.host = Some(host.into());
        self
    }

    /// The guest's SSH port.
    pub fn ssh_port(mut self, port: u16) -> Self {
        self.spec.communicator.ssh.port = port;
        self
    }

    /// How long SSH may take to answer after the first boot.
    pub fn ssh_timeout(mut self, timeout: Duration) -> Self {
        self.spec.communicator.ssh.timeout = timeout;
        self
    }

    /// What runs in the guest, instead of the embedded scripts.
    pub fn provisioners(mut self, provisioners: Vec<ProvisionerSpec>) -> Self {
        self.own_provisioners = Some(provisioners);
        self
    }

    /// The script that runs last, instead of the embedded one; `None` seals nothing.
    pub fn seal(mut self, seal: Option<ShellSpec>) -> Self {
        self.seal = seal;
        self
    }

    /// Limits of the waits.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.spec.timeouts = timeouts;
        self
    }

    /// What becomes of the VM when the build fails.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.spec.on_error = on_error;
        self
    }

    /// The description as a whole.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all that is wrong, not only the first.
    pub fn build(self) -> Result<ImageSpec, Error> {
        let Self {
            mut spec,
            name,
            k3s,
            scripts,
            own_provisioners,
            seal,
            disk_storage,
            mut problems,
        } = self;
        spec.name = match name {
            Some(name) => TemplateName::Fixed(name),
            None => TemplateName::NextFree(preset::image_name(&spec.installer.iso, &k3s.version)),
        };
        if let Some(storage) = disk_storage {
            spec.cloud_init = spec.cloud_init.map(|_| storage.clone());
            for disk in &mut spec.disks {
                disk.storage = storage.clone();
            }
        }
        spec.provisioners = own_provisioners.unwrap_or_else(|| preset::provisioners(&k3s, &scripts));
        spec.seal = seal;
        spec.k3s = Some(k3s);
        spec.tags.sort();
        spec.tags.dedup();
        problems.append(spec.check());
        let (errors, _) = problems.split();
        if errors.is_empty() {
            Ok(spec)
        } else {
            Err(Error::Invalid(errors))
        }
    }
}
