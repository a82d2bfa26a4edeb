//! Which privileges a verification needs, on which paths.

use std::collections::BTreeSet;

use proxmox_client::{Net, PoolId, StorageId};

use super::spec::VerifySpec;
use crate::plan::Grant;

/// The privileges that a verification needs on Proxmox VE `pve_major` (8 or 9), path by path, and no other.
///
/// `disk_storages` are those of the template's disks, `networks` its network devices; a virtual network of an SDN zone has a path
/// of its own and is left out.
///
/// # Source
/// `permissions` of the calls in the API schema, `check_storage_access_clone` and `check_vm_modify_config_perm` of
/// `PVE/API2/Qemu.pm`; `FACTS` 13 and 82.
pub fn verify_grants(
    spec: &VerifySpec,
    pve_major: u32,
    disk_storages: &BTreeSet<StorageId>,
    networks: &[Net],
) -> Vec<Grant> {
    grants_on(spec, pve_major, disk_storages, networks, ["/vms", "/vms"])
}

/// The same where the template's own path and that of a clone are known.
pub(super) fn grants_on(
    spec: &VerifySpec,
    pve_major: u32,
    disk_storages: &BTreeSet<StorageId>,
    networks: &[Net],
    paths: [&str; 2],
) -> Vec<Grant> {
    let mut grants = grants_on_vms(spec.pool.as_ref(), pve_major, paths);
    let mut on_iso = vec!["Datastore.Audit", "Datastore.AllocateTemplate", "Datastore.Allocate"];
    let disks: BTreeSet<&StorageId> = match &spec.storage {
        Some(storage) => BTreeSet::from([storage]),
        None => disk_storages.iter().collect(),
    };
    if disks.contains(&spec.iso_storage) {
        // Space to allocate lets one list as well: to ask for both would be one too many.
        on_iso[0] = "Datastore.AllocateSpace";
    }
    grants.push(Grant::new(
        format!("/storage/{}", spec.iso_storage),
        "K3simageVerifyISO",
        on_iso,
    ));
    for storage in disks.into_iter().filter(|storage| **storage != spec.iso_storage) {
        let path = format!("/storage/{storage}");
        grants.push(Grant::new(path, "K3simageDisk", vec!["Datastore.AllocateSpace"]));
    }
    let bridges: BTreeSet<String> = networks
        .iter()
        .filter_map(|net| {
            let bridge = net.bridge()?;
            Some(match net.get("tag") {
                None => format!("/sdn/zones/localnetwork/{bridge}"),
                Some(tag) => format!("/sdn/zones/localnetwork/{bridge}/{tag}"),
            })
        })
        .collect();
    for path in bridges {
        grants.push(Grant::new(path, "K3simageNetwork", vec!["SDN.Use"]));
    }
    grants
}

/// What is needed on the template and on its clones.
pub(crate) fn grants_on_vms(
    pool: Option<&PoolId>,
    pve_major: u32,
    [template_path, clone_path]: [&str; 2],
) -> Vec<Grant> {
    let agent = if pve_major <= 8 {
        "VM.Monitor"
    } else {
        "VM.GuestAgent.Audit"
    };
    let on_clones = vec![
        "VM.Allocate",
        "VM.PowerMgmt",
        "VM.Config.CDROM",
        "VM.Config.Cloudinit",
        "VM.Config.Options",
        agent,
    ];
    let mut on_template = Grant::new("/vms".to_owned(), "K3simageVerify", vec!["VM.Audit", "VM.Clone"]);
    on_template.also_on = vec![template_path.to_owned()];
    let mut grants = vec![on_template];
    match pool {
        None => {
            let mut grant = Grant::new("/vms".to_owned(), "K3simageVerify", on_clones);
            grant.also_on = vec![clone_path.to_owned()];
            grants.push(grant);
        }
        // A clone's rights come from the pool that it joins, while it is made and afterwards; to see it, from `/vms` like the template.
        Some(pool) => {
            let path = format!("/pool/{pool}");
            let mut grant = Grant::new(path.clone(), "K3simageVerifyPool", on_clones);
            grant.also_on = vec![path, clone_path.to_owned()];
            grants.push(grant);
        }
    }
    grants
}
