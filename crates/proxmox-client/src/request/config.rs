//! `CreateVm` and `VmConfigUpdate`: the options of a VM, checked before they are sent.

use std::collections::{BTreeMap, BTreeSet};

use super::vm_option::{Bound, bounds, check_option_name, checked_options};
use crate::{
    error::Error,
    types::{
        name::{PoolId, StorageId},
        property::{agent::Agent, boot::Boot, cpu::Cpu, drive::Drive, net::Net, smbios::Smbios1},
        unit::MiB,
    },
};

/// Options by name, with the setters that creating and changing share.
macro_rules! option_setters {
    () => {
        /// Sets any option, typed or not, as PVE writes it.
        #[must_use]
        pub fn set(mut self, option: impl Into<String>, value: impl ToString) -> Self {
            self.options.insert(option.into(), value.to_string());
            self
        }

        /// Sets a boolean option; PVE takes 0 and 1 only (`FACTS` 25).
        #[must_use]
        pub fn flag(self, option: &str, on: bool) -> Self {
            self.set(option, u8::from(on))
        }

        /// The VM's name: a DNS name.
        #[must_use]
        pub fn name(self, name: impl Into<String>) -> Self {
            self.set("name", name.into())
        }

        /// The description that people read; at most 8,192 characters.
        #[must_use]
        pub fn description(self, description: impl Into<String>) -> Self {
            self.set("description", description.into())
        }

        /// The tags; brought into PVE's form when the request is checked.
        #[must_use]
        pub fn tags<T: AsRef<str>>(self, tags: impl IntoIterator<Item = T>) -> Self {
            let joined = tags
                .into_iter()
                .map(|tag| tag.as_ref().to_owned())
                .collect::<Vec<_>>()
                .join(";");
            self.set("tags", joined)
        }

        /// The memory.
        #[must_use]
        pub fn memory(self, memory: MiB) -> Self {
            self.set("memory", memory.0)
        }

        /// CPU cores of each socket.
        #[must_use]
        pub fn cores(self, cores: u32) -> Self {
            self.set("cores", cores)
        }

        /// CPU sockets.
        #[must_use]
        pub fn sockets(self, sockets: u32) -> Self {
            self.set("sockets", sockets)
        }

        /// The CPU type.
        #[must_use]
        pub fn cpu(self, cpu: &Cpu) -> Self {
            self.set("cpu", cpu)
        }

        /// A drive at a slot such as `scsi0`, `ide2` or `efidisk0`.
        #[must_use]
        pub fn disk(self, slot: impl Into<String>, drive: &Drive) -> Self {
            self.set(slot, drive)
        }

        /// The network device `net{index}`.
        #[must_use]
        pub fn net(self, index: u32, net: &Net) -> Self {
            self.set(format!("net{index}"), net)
        }

        /// The boot order.
        #[must_use]
        pub fn boot(self, boot: &Boot) -> Self {
            self.set("boot", boot)
        }

        /// The guest agent's channel.
        #[must_use]
        pub fn agent(self, agent: &Agent) -> Self {
            self.set("agent", agent)
        }

        /// The SMBIOS texts.
        #[must_use]
        pub fn smbios1(self, smbios1: &Smbios1) -> Self {
            self.set("smbios1", smbios1)
        }

        /// `seabios` or `ovmf` (UEFI).
        #[must_use]
        pub fn bios(self, bios: &str) -> Self {
            self.set("bios", bios)
        }

        /// The machine type, for example `q35`.
        #[must_use]
        pub fn machine(self, machine: &str) -> Self {
            self.set("machine", machine)
        }

        /// The kind of guest, for example `l26` for a present-day Linux.
        #[must_use]
        pub fn ostype(self, ostype: &str) -> Self {
            self.set("ostype", ostype)
        }

        /// The SCSI controller, for example `virtio-scsi-single`.
        #[must_use]
        pub fn scsihw(self, scsihw: &str) -> Self {
            self.set("scsihw", scsihw)
        }

        /// With `false`, a reboot that the guest makes ends its process: `stopped` (`FACTS` 74).
        #[must_use]
        pub fn reboot(self, on: bool) -> Self {
            self.flag("reboot", on)
        }

        /// Is it started with the node?
        #[must_use]
        pub fn onboot(self, on: bool) -> Self {
            self.flag("onboot", on)
        }

        /// An option as it will be sent.
        pub fn get(&self, option: &str) -> Option<&str> {
            self.options.get(option).map(String::as_str)
        }

        /// What not every server knows of these options.
        pub(crate) fn bounds(&self) -> Vec<Bound> {
            self.options
                .iter()
                .flat_map(|(option, value)| bounds(option, value))
                .collect()
        }
    };
}

/// The options of a VM to create.
///
/// ```
/// use proxmox_client::{Agent, CreateVm, Drive, MiB, Net, StorageId};
/// let storage = StorageId::new("local-lvm")?;
/// let vm = CreateVm::new()
///     .name("alma9-k3-build")
///     .memory(MiB(4096))
///     .cores(2)
///     .disk("scsi0", &Drive::allocate(&storage, 32).discard(true))
///     .net(0, &Net::virtio("vmbr0")?)
///     .agent(&Agent::enabled(true))
///     .tags(["k3simage", "build"]);
/// vm.validate()?;
/// # Ok::<(), proxmox_client::Error>(())
/// ```
///
/// An ISO or volume that is missing fails in the task, not in the call (`FACTS` 32).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateVm {
    options: BTreeMap<String, String>,
}

impl CreateVm {
    /// Nothing but PVE's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    option_setters!();

    /// The pool that the VM joins.
    #[must_use]
    pub fn pool(self, pool: &PoolId) -> Self {
        self.set("pool", pool)
    }

    /// The storage for what names none.
    #[must_use]
    pub fn storage(self, storage: &StorageId) -> Self {
        self.set("storage", storage)
    }

    /// Starts it too. The task of creating ends before the VM runs: the start is a task of its own (`FACTS` 78).
    #[must_use]
    pub fn start(self, on: bool) -> Self {
        self.flag("start", on)
    }

    /// Checks what can be known without the server.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the option.
    pub fn validate(&self) -> Result<(), Error> {
        self.params().map(|_| ())
    }

    pub(crate) fn params(&self) -> Result<Vec<(String, String)>, Error> {
        checked_options(&self.options, &["delete", "revert", "digest", "vmid", "node"])
    }
}

/// Changes to a VM's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmConfigUpdate {
    options: BTreeMap<String, String>,
    delete: BTreeSet<String>,
    revert: BTreeSet<String>,
    digest: Option<String>,
    force: bool,
}

impl VmConfigUpdate {
    /// Nothing yet; sent like that, PVE refuses it (`no options specified`).
    pub fn new() -> Self {
        Self::default()
    }

    option_setters!();

    /// Removes an option. A detached disk stays as `unusedN`; deleting that destroys it (`FACTS` 38).
    #[must_use]
    pub fn delete(mut self, option: impl Into<String>) -> Self {
        self.delete.insert(option.into());
        self
    }

    /// Drops an option's pending change.
    #[must_use]
    pub fn revert(mut self, option: impl Into<String>) -> Self {
        self.revert.insert(option.into());
        self
    }

    /// Only if the configuration still has this digest; else [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    #[must_use]
    pub fn digest(mut self, digest: impl Into<String>) -> Self {
        self.digest = Some(digest.into());
        self
    }

    /// Destroys the volumes of deleted disks instead of keeping them as unused.
    #[must_use]
    pub fn force(mut self, on: bool) -> Self {
        self.force = on;
        self
    }

    /// Is there nothing to change?
    pub fn is_empty(&self) -> bool {
        self.options.is_empty() && self.delete.is_empty() && self.revert.is_empty()
    }

    /// Checks what can be known without the server.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the option.
    pub fn validate(&self) -> Result<(), Error> {
        self.params().map(|_| ())
    }

    pub(crate) fn params(&self) -> Result<Vec<(String, String)>, Error> {
        if self.is_empty() {
            return Err(Error::invalid(
                "configuration",
                "the change holds no option; PVE refuses it",
            ));
        }
        let mut params = checked_options(&self.options, &["delete", "revert", "digest", "vmid", "node", "force"])?;
        for (name, list) in [("delete", &self.delete), ("revert", &self.revert)] {
            for option in list {
                check_option_name(option)?;
                if self.options.contains_key(option) {
                    return Err(Error::invalid(option, format!("it is both set and named in {name}")));
                }
            }
            if !list.is_empty() {
                params.push((name.to_owned(), list.iter().cloned().collect::<Vec<_>>().join(",")));
            }
        }
        if let Some(digest) = &self.digest {
            if digest.len() > 40 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Error::invalid(
                    "digest",
                    "it is not one that PVE gave: at most 40 hexadecimal digits",
                ));
            }
            params.push(("digest".to_owned(), digest.clone()));
        }
        if self.force {
            params.push(("force".to_owned(), "1".to_owned()));
        }
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::vm_option::DESCRIPTION_MAX;

    #[test]
    fn options_are_checked_and_brought_into_form() {
        let vm = CreateVm::new()
            .tags(["K3s", "alma9", "k3s"])
            .flag("onboot", false)
            .description("a\nb")
            .memory(MiB(2048));
        let params = vm.params().expect("all good");
        let want = [
            ("description", "a\nb"),
            ("memory", "2048"),
            ("onboot", "0"),
            ("tags", "alma9;k3s"),
        ];
        assert_eq!(
            params,
            want.map(|(option, value)| (option.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn bad_values_name_their_option() {
        for (vm, field) in [
            (CreateVm::new().name("a_b"), "name"),
            (CreateVm::new().name(""), "name"),
            (CreateVm::new().name("alma9.-x"), "name"),
            (
                CreateVm::new().description("ä".repeat(DESCRIPTION_MAX + 1)),
                "description",
            ),
            (CreateVm::new().set("scsi0", "a,b"), "scsi0"),
            (CreateVm::new().set("Scsi0", "x"), "option"),
            (CreateVm::new().set("a=b", "x"), "option"),
            (CreateVm::new().set("cpu", "host\nargs: -x"), "cpu"),
            (CreateVm::new().set("vmid", "100"), "vmid"),
            (CreateVm::new().tags(["a b"]), "tags"),
        ] {
            match vm.validate() {
                Err(Error::Invalid { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(
            CreateVm::new()
                .name("alma9-k3-node-amd64-v1.29.0-v1")
                .description("ä".repeat(DESCRIPTION_MAX))
                .validate()
                .is_ok()
        );
    }

    #[test]
    fn changes_delete_and_compare() {
        let update = VmConfigUpdate::new()
            .cores(4)
            .delete("ide2")
            .delete("ide0")
            .digest("b8c71ea3")
            .force(true);
        let params = update.params().expect("all good");
        let text = params
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(text, "cores=4 delete=ide0,ide2 digest=b8c71ea3 force=1");
        assert!(VmConfigUpdate::new().validate().is_err(), "nothing to change");
        assert!(VmConfigUpdate::new().digest("x").cores(1).validate().is_err());
        assert!(VmConfigUpdate::new().cores(1).delete("cores").validate().is_err());
        assert!(VmConfigUpdate::new().delete("a,b").validate().is_err());
    }

    #[test]
    fn what_not_every_server_knows_is_known() {
        let vm = CreateVm::new()
            .set("virtiofs0", "share")
            .set("allow-ksm", 0)
            .set("agent", "enabled=1,freeze-fs=0")
            .set("scsi0", "local-lvm:8,cyls=9,ssd=1")
            .set("efidisk0", "local-lvm:1,ms-cert=2023")
            .set("net0", "virtio,bridge=vmbr0")
            .cores(1);
        let since = |what: &str, release| Bound::Since(what.to_owned(), release);
        assert_eq!(
            vm.bounds(),
            [
                since("agent: freeze-fs", (9, 0)),
                since("allow-ksm", (9, 0)),
                since("efidisk0: ms-cert", (9, 0)),
                Bound::Gone("scsi0: cyls".to_owned(), (9, 2)),
                since("virtiofs0", (8, 4)),
            ]
        );
    }
}
