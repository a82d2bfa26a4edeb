//! `FullCopy`: a template copied to another number, until it takes the name of the one that it was made of.

use std::fmt;
use std::time::Duration;

use proxmox_client::{Client, Drive, NodeName, Qemu, TaskFilter, VmConfig, VmConfigUpdate, Vmid, VolId};
use tokio_util::sync::CancellationToken;

use super::place::Place;
use super::{Replacing, change, config};
use crate::Error;
use crate::build::{Pace, TASK_LIMIT, ask, deletion_of, destroy, is_id};

/// What the name of an unfinished copy begins with; the id of its build follows.
///
/// PVE takes tags and description of the template along, the journal too, and the call that makes a clone can set no tags: so the
/// name is what tells a copy from its template. Whose it is stands in the journal on the build's own template, which knows its number.
const COPY_NAME_PREFIX: &str = "k3simage-copy-";

/// How long its last change is tried again.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

/// The name of an unfinished copy that this build makes.
pub(crate) fn copy_name(build: &str) -> String {
    format!("{COPY_NAME_PREFIX}{build}")
}

/// The build whose unfinished copy has this name.
pub(crate) fn copied_build(name: &str) -> Option<&str> {
    name.strip_prefix(COPY_NAME_PREFIX).filter(|id| is_id(id))
}

/// A copy that has not taken its name yet.
#[derive(Debug)]
pub(crate) struct FullCopy {
    vm: Qemu,
    /// As it was when it was looked at.
    config: VmConfig,
    name: String,
}

/// What there is at a number.
#[derive(Debug)]
pub(crate) enum At {
    /// No guest.
    Nothing,
    /// An unfinished copy that the build made.
    Copy(FullCopy),
    /// Something else, a copy that has its name among that.
    Other(VmConfig),
}

impl At {
    /// Looks there. While PVE makes a clone its configuration is a lock, so that is waited for.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the lock stays; any of the calls.
    pub(crate) async fn look(
        client: &Client,
        vmid: Vmid,
        build: &str,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let what = format!("the end of the cloning to vm {vmid}");
        let mut pace = Pace::new(&what, TASK_LIMIT, cancel);
        loop {
            let Some(Place { vm, .. }) = Place::of(client, vmid, cancel).await? else {
                return Ok(Self::Nothing);
            };
            let Some(config) = config(&vm, cancel).await? else {
                return Ok(Self::Nothing);
            };
            if is_being_made(&config) {
                pace.pause("PVE is still making it").await?;
                continue;
            }
            let name = copy_name(build);
            return Ok(if config.name() == Some(name.as_str()) {
                Self::Copy(FullCopy { vm, config, name })
            } else {
                Self::Other(config)
            });
        }
    }
}

impl FullCopy {
    pub(crate) fn vm(&self) -> &Qemu {
        &self.vm
    }

    /// What it lacks of its template, for people: `None` when it is a template with all disks.
    ///
    /// # Source
    /// `pve/scenarios/07-template-and-clone.json`: the conversion renames each disk to `base-...`, where the storage has bases.
    pub(crate) fn lacks(&self, template: &VmConfig) -> Option<String> {
        if !self.config.is_template() {
            return Some("it is no template".to_owned());
        }
        for (slot, wanted) in template.drives().filter(|(slot, drive)| is_disk(slot, drive)) {
            let Some(drive) = self.config.disk(slot).ok().flatten() else {
                return Some(format!("it has no disk {slot}"));
            };
            if drive.size_bytes() != wanted.size_bytes() {
                return Some(format!("its disk {slot} has another size"));
            }
            if is_base(&wanted) && !is_base(&drive) {
                return Some(format!("its disk {slot} is not that of a template"));
            }
        }
        None
    }

    /// Gives it its name, with what else is to change then. One that has another name by now is left as it is.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when it is gone; any of the calls.
    pub(crate) async fn finish(
        &self,
        cancel: &CancellationToken,
        update: impl Fn(&VmConfig) -> VmConfigUpdate + Send + Sync,
    ) -> Result<(), Error> {
        let what = format!("naming template {}", self.vm.vmid());
        let changed = change(&self.vm, &what, cancel, FINISH_LIMIT, |config| {
            Ok((config.name() == Some(self.name.as_str())).then(|| update(config)))
        })
        .await?;
        match changed {
            Some(_) => Ok(()),
            None => Err(Error::Unexpected {
                what: format!("template {}", self.vm.vmid()),
                reason: "it is gone, deleted by somebody else".to_owned(),
            }),
        }
    }

    /// Deletes it.
    ///
    /// # Errors
    /// [`Error::Api`] when PVE refuses, because of a linked clone that somebody made of it for instance.
    pub(crate) async fn remove(&self, client: &Client, cancel: &CancellationToken) -> Result<(), Error> {
        destroy(client, &self.vm, TASK_LIMIT, cancel).await
    }
}

/// What PVE still does for a build whose builder may be dead, or has left undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// It makes a copy at this number.
    Copying(Vmid),
    /// It made one, and no task does any more: its node went down in the middle, and the lock stays in the configuration.
    Broken(Vmid, NodeName),
    /// It deletes the template of this number, whose disks are there in part.
    Deleting(Vmid),
}

impl Work {
    /// Whether it ends by itself.
    pub(crate) fn ends(&self) -> bool {
        !matches!(self, Self::Broken(..))
    }
}

/// Until when the build counts as living, or what a person has to do: PVE lets no API call take a clone's lock away but root's.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copying(vmid) => write!(f, "it counts as living until Proxmox VE has made its copy, vm {vmid}"),
            Self::Deleting(vmid) => write!(f, "it counts as living until Proxmox VE has deleted template {vmid}"),
            Self::Broken(vmid, node) => write!(
                f,
                "vm {vmid} on {node} has the lock of a copy that is made for it, and no task is listed that makes it: when there is none, its \
                 node went down in the middle and it is half a copy, which root removes there with `qm unlock {vmid} && qm destroy {vmid}`"
            ),
        }
    }
}

/// What PVE still does, with a task of its own, for a build that exchanges vmids. The build counts as living meanwhile: cloning holds the
/// template's lock, so that its builder can write no sign of life there, and while the old template is deleted nothing tells whether its
/// copy is needed.
///
/// A lock alone does not say that: it outlives a node that went down. The task is listed with the number of what is copied, `built` or
/// the old one; those of other logins are listed with `Sys.Audit` only.
///
/// # Errors
/// Any of the calls.
pub(crate) async fn work_on(
    client: &Client,
    built: Vmid,
    replacing: Option<&Replacing>,
    cancel: &CancellationToken,
) -> Result<Option<Work>, Error> {
    let Some(replacing) = replacing.filter(|replacing| replacing.renumber) else {
        return Ok(None);
    };
    for vmid in replacing.copy.into_iter().chain([replacing.vmid]) {
        let Some(place) = Place::of(client, vmid, cancel).await? else {
            continue;
        };
        if let Some(lock) = lock(&place.vm, cancel).await? {
            if lock != "clone" || is_cloning(client, place.vm.node(), &[built, replacing.vmid], cancel).await? {
                return Ok(Some(Work::Copying(vmid)));
            }
            // The task may have ended between the two looks.
            if self::lock(&place.vm, cancel).await?.is_some() {
                return Ok(Some(Work::Broken(vmid, place.vm.node().clone())));
            }
        }
        let attempt = format!("looking whether template {vmid} is being deleted");
        if vmid == replacing.vmid
            && ask(&attempt, cancel, || deletion_of(client, &place.vm))
                .await?
                .is_some()
        {
            return Ok(Some(Work::Deleting(vmid)));
        }
    }
    Ok(None)
}

/// The disks that a template's configuration names as its own, with their slots.
pub(crate) fn own_disks(config: &VmConfig) -> impl Iterator<Item = (String, VolId)> {
    let disks = config.drives().filter(|(slot, drive)| is_disk(slot, drive));
    disks.filter_map(|(slot, drive)| Some((slot.to_owned(), drive.volid()?)))
}

/// The lock of a VM that PVE is making.
async fn lock(vm: &Qemu, cancel: &CancellationToken) -> Result<Option<String>, Error> {
    let config = config(vm, cancel).await?.filter(is_being_made);
    Ok(config.and_then(|config| config.lock().map(str::to_owned)))
}

/// Whether a task clones one of these VMs there.
///
/// # Source
/// `GET /nodes/{node}/tasks`: the id of a `qmclone` is the VM that is cloned (`pve/scenarios/07-template-and-clone.json`).
async fn is_cloning(client: &Client, node: &NodeName, of: &[Vmid], cancel: &CancellationToken) -> Result<bool, Error> {
    let filter = TaskFilter {
        kind: Some("qmclone".to_owned()),
        with_active: true,
        ..TaskFilter::default()
    };
    let attempt = format!("listing the tasks of {node}");
    let node = client.node(node);
    let tasks = ask(&attempt, cancel, || node.tasks(&filter)).await?;
    let of: Vec<String> = of.iter().map(ToString::to_string).collect();
    Ok(tasks
        .iter()
        .any(|task| task.endtime.is_none() && of.iter().any(|vmid| vmid == task.upid.id())))
}

fn is_being_made(config: &VmConfig) -> bool {
    matches!(config.lock(), Some("create" | "clone"))
}

fn is_disk(slot: &str, drive: &Drive) -> bool {
    !slot.starts_with("unused") && !drive.is_cdrom() && !drive.is_cloud_init() && drive.volid().is_some()
}

fn is_base(drive: &Drive) -> bool {
    let own = drive.file().and_then(|file| file.rsplit(['/', ':']).next());
    own.is_some_and(|own| own.starts_with("base-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(config: serde_json::Value) -> FullCopy {
        let client = Client::builder("https://127.0.0.1:8006")
            .auth(proxmox_client::Auth::token("a@pve!b", "c"))
            .build()
            .unwrap();
        FullCopy {
            vm: client.node(&"pve".parse().unwrap()).qemu("102".parse().unwrap()),
            config: VmConfig::from_json(serde_json::from_value(config).unwrap()),
            name: copy_name("7f3a12bc"),
        }
    }

    #[test]
    fn a_copy_that_is_not_whole_is_known() {
        let template = VmConfig::from_json(serde_json::from_value(serde_json::json!({
            "template": 1, "efidisk0": "local:100/base-100-disk-0.raw,size=528K", "scsi0": "local:100/base-100-disk-1.qcow2,size=5G",
            "scsi1": "thick:vm-100-disk-0,size=1G", "ide2": "none,media=cdrom", "unused0": "local:100/vm-100-disk-7.raw",
            "scsi2": "local:100/vm-100-cloudinit.qcow2,media=cdrom,size=4M",
        }))
        .unwrap());
        let whole = serde_json::json!({
            "template": 1, "efidisk0": "local:102/base-102-disk-0.raw,size=528K", "scsi0": "local:102/base-102-disk-1.qcow2,size=5G",
            "scsi1": "thick:vm-102-disk-0,size=1G",
        });
        assert_eq!(copy(whole.clone()).lacks(&template), None);
        for (option, value, lacks) in [
            ("template", serde_json::json!(0), "it is no template"),
            ("efidisk0", serde_json::Value::Null, "it has no disk efidisk0"),
            (
                "scsi0",
                serde_json::json!("local:102/base-102-disk-1.qcow2,size=4G"),
                "another size",
            ),
            (
                "scsi0",
                serde_json::json!("local:102/vm-102-disk-1.qcow2,size=5G"),
                "not that of a template",
            ),
        ] {
            let mut config = whole.clone();
            match value {
                serde_json::Value::Null => drop(config.as_object_mut().unwrap().remove(option)),
                value => config[option] = value,
            }
            let found = copy(config).lacks(&template).unwrap();
            assert!(found.contains(lacks), "{found}");
        }
    }

    #[test]
    fn only_what_a_build_names_is_its_copy() {
        assert_eq!(copied_build(&copy_name("7f3a12bc")), Some("7f3a12bc"));
        for name in [
            "k3simage-copy-mine",
            "my-k3simage-copy-7f3a12bc",
            "Copy-of-VM-k3simage-copy-7f3a12bc",
        ] {
            assert_eq!(copied_build(name), None, "{name}");
        }
    }
}
