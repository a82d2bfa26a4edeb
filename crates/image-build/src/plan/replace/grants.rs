//! Which privileges a build needs that takes the place of a template of its name.

use std::collections::BTreeSet;

use proxmox_client::{Net, VmConfig};

use crate::plan::privileges::{Grant, Needs, ON_BRIDGE, ON_DISK_STORAGE, grants_of};
use crate::replace::{OldTemplate, Replace};
use crate::spec::ImageSpec;

/// What is known of the cluster when they are asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::plan) struct Paths<'a> {
    /// The path of the new template while it is built.
    pub(in crate::plan) new: &'a str,
    /// That of the old one.
    pub(in crate::plan) old: &'a str,
    /// That of a VM that does not exist: a clone of the verification, or a full copy.
    pub(in crate::plan) clone: &'a str,
    /// Networks of the spec that are no bridges of the node.
    pub(in crate::plan) virtual_networks: &'a [&'a str],
}

/// The exchange of vmids, when there is one.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct Exchange {
    /// Storages of the old one's disks.
    pub(in crate::plan) storages: BTreeSet<String>,
    /// Paths of the old one's networks, as far as they are bridges.
    pub(in crate::plan) bridges: BTreeSet<String>,
    /// The pool that it is in.
    pub(in crate::plan) pool: Option<String>,
}

impl Exchange {
    /// Of the old template with this configuration.
    pub(in crate::plan) fn of(config: &VmConfig, pool: Option<&str>, virtual_networks: &[&str]) -> Self {
        let disks = config.drives().filter(|(_, drive)| !drive.is_cdrom());
        let nets = (0..32).filter_map(|index| config.net(index).ok().flatten());
        Self {
            storages: disks
                .filter_map(|(_, drive)| drive.volid())
                .map(|volid| volid.storage().to_string())
                .collect(),
            bridges: nets.filter_map(|net| bridge(&net, virtual_networks)).collect(),
            pool: pool.map(str::to_owned),
        }
    }
}

fn bridge(net: &Net, virtual_networks: &[&str]) -> Option<String> {
    let bridge = net.bridge().filter(|bridge| !virtual_networks.contains(bridge))?;
    Some(match net.get("tag") {
        None => format!("/sdn/zones/localnetwork/{bridge}"),
        Some(tag) => format!("/sdn/zones/localnetwork/{bridge}/{tag}"),
    })
}

/// What a build needs that takes the place of a template of its name.
///
/// # Source
/// `permissions` of `PUT .../config`, `DELETE /nodes/{node}/qemu/{vmid}` and `POST .../clone` in the API schema;
/// `check_vm_modify_config_perm` of `PVE/API2/Qemu.pm` asks for `VM.Config.Options` for name, tags and description. Rights on a VM's own
/// path end with the VM, so the copies have those of a VM that does not exist.
pub(in crate::plan) fn grants_replacing(
    spec: &ImageSpec,
    pve_major: u32,
    replace: &Replace,
    paths: Paths<'_>,
    exchange: Option<&Exchange>,
) -> Vec<Grant> {
    let of_build = Needs::of(spec, pve_major);
    let needs = Needs {
        uploads: replace.verify || of_build.uploads,
        deletes_iso: replace.verify || of_build.deletes_iso,
        ..of_build
    };
    let mut grants = grants_of(spec, needs, paths.new, paths.virtual_networks);
    let mut on_old = vec!["VM.Audit", "VM.Config.Options"];
    if replace.old == OldTemplate::Delete || exchange.is_some() {
        on_old.push("VM.Allocate");
    }
    if replace.old == OldTemplate::Retire && exchange.is_some() {
        on_old.push("VM.Clone");
    }
    grants.push(on("/vms", "K3simageReplace", on_old, [paths.old]));
    if replace.verify {
        grants.extend(crate::verify::grants_on_vms(
            spec.pool.as_ref(),
            pve_major,
            [paths.new, paths.clone],
        ));
    }
    if let Some(exchange) = exchange {
        grants.extend(for_copies(spec, replace, paths, exchange, &grants));
    }
    grants
}

/// What the full copies need besides all that.
fn for_copies(
    spec: &ImageSpec,
    replace: &Replace,
    paths: Paths<'_>,
    exchange: &Exchange,
    known: &[Grant],
) -> Vec<Grant> {
    let mut grants = Vec::new();
    if !replace.verify {
        grants.push(on("/vms", "K3simageReplace", vec!["VM.Clone"], [paths.new]));
    }
    if replace.old == OldTemplate::Delete {
        return grants;
    }
    // A kept old one stays in its pool; where that is the image's, a build has these there.
    let pool = spec.pool.as_ref().map(ToString::to_string);
    if exchange.pool != pool {
        let privileges = vec!["VM.Audit", "VM.Allocate", "VM.Config.Options"];
        grants.push(match &exchange.pool {
            None => on("/vms", "K3simageReplace", privileges, [paths.clone]),
            Some(pool) => {
                let path = format!("/pool/{pool}");
                on(&path, "K3simageReplace", privileges, [path.as_str(), paths.clone])
            }
        });
    }
    let storages = exchange.storages.iter().map(|storage| format!("/storage/{storage}"));
    for path in storages {
        if !has(known, &path, ON_DISK_STORAGE[0]) {
            grants.push(Grant::new(path, "K3simageDisk", ON_DISK_STORAGE.to_vec()));
        }
    }
    for path in &exchange.bridges {
        if !has(known, path, ON_BRIDGE[0]) {
            grants.push(Grant::new(path.clone(), "K3simageNetwork", ON_BRIDGE.to_vec()));
        }
    }
    grants
}

fn on<'a>(path: &str, role: &str, privileges: Vec<&'static str>, also_on: impl IntoIterator<Item = &'a str>) -> Grant {
    let mut grant = Grant::new(path.to_owned(), role, privileges);
    grant.also_on = also_on.into_iter().map(str::to_owned).collect();
    grant
}

fn has(grants: &[Grant], path: &str, privilege: &str) -> bool {
    grants
        .iter()
        .any(|grant| grant.path == path && grant.privileges.contains(&privilege))
}
