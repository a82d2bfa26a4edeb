//! `/nodes/{node}/qemu`.

use std::time::Duration;

use super::{
    Request,
    clone::CloneVm,
    config::{CreateVm, VmConfigUpdate},
    path,
    power::{DeleteVm, Shutdown},
    vm_option::{check_description, check_dns_name},
};
use crate::{
    error::Error,
    types::{name::NodeName, vm_config::is_drive_slot, vmid::Vmid},
};

/// Which of a VM's two configurations to read (`FACTS` 39).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigView {
    /// With the changes that wait for the next stop: what the VM will be.
    #[default]
    Pending,
    /// Without them: what the VM is now.
    Current,
}

pub(crate) fn create(node: &NodeName, vmid: Vmid, vm: &CreateVm) -> Result<Request, Error> {
    let mut request = Request::post(path::node(node, &["qemu"])).param("vmid", vmid);
    request.params.extend(vm.params()?);
    Ok(request)
}

pub(crate) fn config(node: &NodeName, vmid: Vmid, view: ConfigView) -> Request {
    let request = Request::get(path::qemu(node, vmid, &["config"]));
    if view == ConfigView::Current {
        request.flag("current", true)
    } else {
        request
    }
}

/// Synchronous: done when answered (`FACTS` 36).
pub(crate) fn update_config(node: &NodeName, vmid: Vmid, update: &VmConfigUpdate) -> Result<Request, Error> {
    let mut request = Request::put(path::qemu(node, vmid, &["config"]));
    request.params = update.params()?;
    Ok(request)
}

/// As a task, unless it ends within `delay` (`FACTS` 36); PVE takes 1 to 30 seconds.
pub(crate) fn set_config_task(
    node: &NodeName,
    vmid: Vmid,
    update: &VmConfigUpdate,
    delay: Option<Duration>,
) -> Result<Request, Error> {
    let mut request = Request::post(path::qemu(node, vmid, &["config"]));
    request.params = update.params()?;
    Ok(request.optional("background_delay", delay.map(|delay| delay.as_secs().clamp(1, 30))))
}

pub(crate) fn pending(node: &NodeName, vmid: Vmid) -> Request {
    Request::get(path::qemu(node, vmid, &["pending"]))
}

pub(crate) fn status(node: &NodeName, vmid: Vmid) -> Request {
    Request::get(path::qemu(node, vmid, &["status", "current"]))
}

pub(crate) fn start(node: &NodeName, vmid: Vmid) -> Request {
    Request::post(path::qemu(node, vmid, &["status", "start"]))
}

pub(crate) fn stop(node: &NodeName, vmid: Vmid) -> Request {
    Request::post(path::qemu(node, vmid, &["status", "stop"]))
}

pub(crate) fn shutdown(node: &NodeName, vmid: Vmid, how: &Shutdown) -> Request {
    let request = Request::post(path::qemu(node, vmid, &["status", "shutdown"]))
        .optional("timeout", how.timeout.map(|timeout| timeout.as_secs().max(1)));
    if how.force_stop {
        request.flag("forceStop", true)
    } else {
        request
    }
}

pub(crate) fn delete(node: &NodeName, vmid: Vmid, what: &DeleteVm) -> Request {
    let mut request = Request::delete(path::qemu(node, vmid, &[]));
    if what.purge {
        request = request.flag("purge", true);
    }
    // Said in both cases: PVE 7 and older destroyed them by default.
    request.flag("destroy-unreferenced-disks", what.unreferenced_disks)
}

pub(crate) fn clone_vm(node: &NodeName, vmid: Vmid, clone: &CloneVm) -> Result<Request, Error> {
    let CloneVm {
        new_vmid,
        name,
        description,
        full,
        storage,
        pool,
        target,
    } = clone;
    if storage.is_some() && *full != Some(true) {
        return Err(Error::invalid(
            "storage",
            "only a full clone can choose its storage: add full(true), or leave it out",
        ));
    }
    name.as_deref().map_or(Ok(()), check_dns_name)?;
    description.as_deref().map_or(Ok(()), check_description)?;
    Ok(Request::post(path::qemu(node, vmid, &["clone"]))
        .param("newid", new_vmid)
        .optional("name", name.as_deref())
        .optional("description", description.as_deref())
        .optional("full", full.map(u8::from))
        .optional("storage", storage.as_ref())
        .optional("pool", pool.as_ref())
        .optional("target", target.as_ref()))
}

pub(crate) fn template(node: &NodeName, vmid: Vmid) -> Request {
    Request::post(path::qemu(node, vmid, &["template"]))
}

/// `size` as PVE writes it: `40G` for a total, `+8G` to grow by. Disks cannot shrink.
pub(crate) fn resize(node: &NodeName, vmid: Vmid, slot: &str, size: &str) -> Result<Request, Error> {
    if !is_drive_slot(slot) || slot.starts_with("unused") {
        return Err(Error::invalid(
            "disk",
            format!("{slot:?} is not the slot of a disk such as scsi0"),
        ));
    }
    let number = size.strip_prefix('+').unwrap_or(size);
    let number = number.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(number);
    let whole_or_decimal = number
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if !whole_or_decimal || number.split('.').count() > 2 {
        return Err(Error::invalid(
            "size",
            format!("{size:?} is not a size such as 40G or +8G"),
        ));
    }
    Ok(Request::put(path::qemu(node, vmid, &["resize"]))
        .param("disk", slot)
        .param("size", size))
}

/// One key or combination in QEMU's names, for example `ret`, `shift-a`, `ctrl-alt-delete`.
pub(crate) fn send_key(node: &NodeName, vmid: Vmid, key: &str) -> Result<Request, Error> {
    // PVE answers each invalid key with a bare 400 that does not say which (FACTS 2).
    let name_ok = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if !key.split('-').all(name_ok) {
        return Err(Error::invalid(
            "key",
            format!("{key:?} is not a key in QEMU's names such as ret, shift-a or ctrl-alt-delete"),
        ));
    }
    Ok(Request::put(path::qemu(node, vmid, &["sendkey"])).param("key", key))
}
