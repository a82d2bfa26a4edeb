//! Each call once, as a future that owns what it needs: the class only chooses how it is waited for.

use std::time::Duration;

use proxmox_client::{
    Client as Pve, ConfigView, Content, DeleteVm, NodeName, ResourceKind, StorageId, TaskOutcome, Upid, VmConfig, Vmid,
    VolId, Wait,
};

use crate::errors::Failure;
use crate::inventory::{Node, Version, Vm, Volume};

/// What a call ends with.
pub(super) type Answer<T> = Result<T, Failure>;

pub(super) async fn version(pve: Pve) -> Answer<Version> {
    Ok(pve.version().await?.clone().into())
}

pub(super) async fn nodes(pve: Pve) -> Answer<Vec<Node>> {
    Ok(pve.nodes().await?.into_iter().map(Node::from).collect())
}

pub(super) async fn vms(pve: Pve, templates_only: bool) -> Answer<Vec<Vm>> {
    let resources = pve.cluster_resources(Some(ResourceKind::Vm)).await?;
    Ok(resources
        .into_iter()
        .filter_map(Vm::of)
        .filter(|vm| vm.is_template() || !templates_only)
        .collect())
}

pub(super) async fn vm_config(pve: Pve, node: NodeName, vmid: Vmid, view: ConfigView) -> Answer<VmConfig> {
    Ok(pve.node(&node).qemu(vmid).config(view).await?)
}

pub(super) async fn delete_vm(
    pve: Pve,
    node: NodeName,
    vmid: Vmid,
    template: bool,
    limit: Duration,
) -> Answer<Vec<String>> {
    let vm = pve.node(&node).qemu(vmid);
    if template && !vm.config(ConfigView::Current).await?.is_template() {
        let reason = format!("{vmid} is no template: delete_vm() deletes it all the same");
        return Err(proxmox_client::Error::Invalid {
            field: "vmid".into(),
            reason,
        }
        .into());
    }
    let upid = vm.delete(&DeleteVm::new().unreferenced_disks(true)).await?;
    wait_task(pve, upid, limit).await
}

pub(super) async fn storage_content(
    pve: Pve,
    node: NodeName,
    storage: StorageId,
    content: Option<Content>,
) -> Answer<Vec<Volume>> {
    let volumes = pve.node(&node).storage(&storage).content(content).await?;
    Ok(volumes.into_iter().map(Volume::from).collect())
}

pub(super) async fn delete_volume(pve: Pve, node: NodeName, volume: VolId, limit: Duration) -> Answer<Vec<String>> {
    let storage = StorageId::new(volume.storage().to_string())?;
    match pve.node(&node).storage(&storage).delete(&volume).await? {
        Some(upid) => wait_task(pve, upid, limit).await,
        None => Ok(Vec::new()),
    }
}

pub(super) async fn wait_task(pve: Pve, upid: Upid, limit: Duration) -> Answer<Vec<String>> {
    match pve.wait_task(&upid, Wait::at_most(limit)).await? {
        TaskOutcome::Ok => Ok(Vec::new()),
        TaskOutcome::Warnings(lines) => Ok(lines),
    }
}
