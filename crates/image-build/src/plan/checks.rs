//! The single checks of a preflight: pure, from what the cluster answered to findings.

use std::collections::BTreeSet;

use proxmox_client::{Content, NetworkInterface, Resource, StorageId, StorageStatus, Version};

use super::privileges::{CONSOLE, Grant, Held};
use super::report::{CONSOLE_CHECK, PlanReport};
use crate::build::{BUILD_TAG_PREFIX, IMAGE_TAG, is_id};
use crate::diagnostic::nearest;
use crate::spec::{ImageSpec, IsoSource};
use crate::text::human_bytes;

/// Oldest release whose API has all that a build uses (`SDN.Use`, `download-url` with checksum, CPU type v2).
const OLDEST_MAJOR: u32 = 8;

pub(crate) fn version(report: &mut PlanReport, version: &Version) {
    if version.number().major < OLDEST_MAJOR {
        report.error(
            "version",
            format!("this is Proxmox VE {}", version.version),
            format!("k3simage needs {OLDEST_MAJOR}.0 or later"),
        );
    } else {
        report.ok("version", format!("PVE {}", version.version));
    }
}

/// Whether the node can be asked further.
pub(crate) fn node(report: &mut PlanReport, spec: &ImageSpec, resources: &[Resource]) -> bool {
    let nodes: Vec<&Resource> = resources.iter().filter(|r| r.kind == "node").collect();
    let names: Vec<&str> = nodes.iter().filter_map(|r| r.node.as_deref()).collect();
    let wanted = spec.node.as_str();
    match nodes.iter().find(|r| r.node.as_deref() == Some(wanted)) {
        None => {
            report.error(
                "node",
                format!("the cluster has no node `{wanted}`"),
                suggestion(wanted, &names, "proxmox_node"),
            );
            false
        }
        Some(node) if node.status.as_deref() == Some("offline") => {
            report.error(
                "node",
                format!("node `{wanted}` is offline"),
                "start it, or set proxmox_node to another one",
            );
            false
        }
        Some(_) => {
            report.ok("node", format!("node {wanted}"));
            true
        }
    }
}

/// `did you mean ..?`, or the list of what there is.
pub(crate) fn suggestion(wanted: &str, known: &[&str], variable: &str) -> String {
    let near = nearest(wanted, known.iter().copied());
    match (near.as_slice(), known) {
        ([], []) => format!("there is none that this login may see: check {variable} and the login's privileges"),
        ([], _) => {
            let mut known: Vec<&str> = known.to_vec();
            known.sort_unstable();
            known.truncate(12);
            format!("set {variable} to one that exists: {}", known.join(", "))
        }
        (near, _) => format!("did you mean `{}`? Set {variable}", near.join("` or `")),
    }
}

/// Names each privilege that the login lacks, with the line that grants it. The names of what the login may not see for lack
/// of one: that it is not in a list says nothing then.
pub(crate) fn privileges(report: &mut PlanReport, grants: &[Grant], held: &Held, identity: &str) -> BTreeSet<String> {
    let mut hidden = BTreeSet::new();
    for grant in grants {
        let missing = grant.missing(held);
        if missing.is_empty() {
            continue;
        }
        let object = grant
            .path
            .strip_prefix("/storage/")
            .or_else(|| grant.path.strip_prefix("/sdn/zones/localnetwork/"))
            .or_else(|| grant.path.strip_prefix("/pool/"));
        let mut message = format!("`{identity}` lacks {} on {}", missing.join(", "), grant.path);
        let sees = |privilege: &&str| held.has(&grant.path, privilege);
        if let Some(object) = object.filter(|_| !SHOW.iter().any(sees)) {
            let name = object.split('/').next().unwrap_or(object);
            // A VLAN's bridge is shown or not by itself; a pool's name may have slashes.
            let name = if grant.path.starts_with("/pool/") { object } else { name };
            hidden.insert(name.to_owned());
            message = format!("{message} (which it may not see, so check the name too)");
        }
        // Two VMs may lack the same, and one line grants it for both.
        if report.findings.iter().any(|told| told.message == message) {
            continue;
        }
        report.error(
            "privileges",
            message,
            format!("run on a node: {}", grant.pveum(identity)),
        );
    }
    if report.findings.iter().all(|f| f.check != "privileges") {
        let count: usize = grants.iter().map(|grant| grant.privileges.len()).sum();
        report.ok("privileges", format!("{count} privileges"));
    }
    hidden
}

/// Says that the guest cannot be seen, where a build needs `VM.Console` for nothing else: it builds, but cannot show why it fails.
pub(super) fn console(report: &mut PlanReport, grants: &[Grant], held: &Held, identity: &str) {
    let Some(on_vm) = grants.first().filter(|grant| !grant.privileges.contains(&CONSOLE)) else {
        return;
    };
    let mut with_console = on_vm.clone();
    with_console.privileges.push(CONSOLE);
    if with_console.missing(held).contains(&CONSOLE) {
        report.warning(
            CONSOLE_CHECK,
            format!(
                "`{identity}` lacks {CONSOLE} on {}: the build goes on without the guest's serial console, and without a picture \
                 of its screen if it fails",
                on_vm.path
            ),
            format!("run on a node: {}", with_console.pveum(identity)),
        );
    }
}

/// Privileges each of which makes PVE list a storage, bridge or pool.
///
/// # Source
/// `permissions` of `GET /nodes/{node}/storage`, `/nodes/{node}/network` and `/pools` in the API schema.
const SHOW: [&str; 5] = [
    "Datastore.Audit",
    "Datastore.AllocateSpace",
    "SDN.Audit",
    "SDN.Use",
    "Pool.Audit",
];

/// Nothing is held anywhere: whether the login is a token that was never given anything.
pub(crate) fn no_privilege(report: &mut PlanReport, identity: &str) {
    let fix = match identity.split_once('!') {
        Some((user, token)) => format!(
            "an API token made with privilege separation holds no rights of its own: run \
             `pveum acl modify / --tokens '{identity}' --roles ROLE`, or make it anew with \
             `pveum user token add {user} {token} --privsep 0`"
        ),
        None => format!("give it a role: `pveum acl modify / --users {identity} --roles ROLE`"),
    };
    report.error("privileges", format!("`{identity}` has no privilege at all"), fix);
}

pub(super) fn storages(
    report: &mut PlanReport,
    spec: &ImageSpec,
    storages: &[StorageStatus],
    hidden: &BTreeSet<String>,
    verifies: bool,
) {
    let before = report.findings.len();
    let mut wanted: Vec<(String, Content, &str, u64)> = spec
        .disk_storages()
        .into_iter()
        .map(|name| {
            let gib: u64 = spec
                .disks
                .iter()
                .filter(|disk| disk.storage.as_str() == name)
                .map(|disk| disk.size_gib)
                .sum();
            (name, Content::Images, "vm_storage_pool", gib)
        })
        .collect();
    let volid_storage = match &spec.installer.iso {
        IsoSource::Volid(volid) => Some(volid.storage().to_string()),
        _ => None,
    };
    if verifies || crate::plan::media::writes_isos(spec) {
        wanted.push((
            spec.installer.iso_storage.to_string(),
            Content::Iso,
            "alma_iso_storage_pool",
            0,
        ));
    }
    wanted.extend(volid_storage.map(|name| (name, Content::Iso, "alma_iso_url", 0)));
    wanted.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
    wanted.retain(|(name, ..)| !hidden.contains(name));
    let names: Vec<&str> = storages.iter().filter_map(name_of).collect();
    for (name, content, variable, gib) in &wanted {
        storage(
            report,
            spec.node.as_str(),
            storages,
            &names,
            (name, content, variable, *gib),
        );
    }
    if report.findings[before..].iter().all(|f| f.level < super::Level::Error) {
        let mut names: Vec<&str> = wanted.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        report.ok(
            "storage",
            format!(
                "{} {}",
                names.len(),
                if names.len() == 1 { "storage" } else { "storages" }
            ),
        );
    }
}

fn name_of(storage: &StorageStatus) -> Option<&str> {
    storage.storage.as_ref().map(StorageId::as_str)
}

pub(crate) fn storage(
    report: &mut PlanReport,
    node: &str,
    storages: &[StorageStatus],
    names: &[&str],
    (name, content, variable, gib): (&str, &Content, &str, u64),
) {
    let Some(storage) = storages.iter().find(|s| name_of(s) == Some(name)) else {
        let fitting: Vec<&str> = storages
            .iter()
            .filter(|s| s.holds(content))
            .filter_map(name_of)
            .collect();
        let known = if nearest(name, names.iter().copied()).is_empty() {
            fitting
        } else {
            names.to_vec()
        };
        report.error(
            "storage",
            format!("node `{node}` has no storage `{name}`"),
            suggestion(name, &known, variable),
        );
        return;
    };
    if storage.enabled == Some(false) || !storage.active {
        report.error(
            "storage",
            format!("storage `{name}` is not active on node `{node}`"),
            "enable or mount it, or choose another one",
        );
        return;
    }
    if !storage.holds(content) {
        let mut fitting: Vec<&str> = storages
            .iter()
            .filter(|s| s.holds(content))
            .filter_map(name_of)
            .collect();
        fitting.sort_unstable();
        let fitting = if fitting.is_empty() {
            "none does".to_owned()
        } else {
            fitting.join(", ")
        };
        let has: Vec<String> = storage.content().iter().map(ToString::to_string).collect();
        report.error(
            "storage",
            format!(
                "storage `{name}` does not hold content `{content}` (it holds {})",
                has.join(", ")
            ),
            format!(
                "set {variable} to one that does ({fitting}), or add it: `pvesm set {name} --content {}`",
                has.iter()
                    .cloned()
                    .chain([content.to_string()])
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        );
        return;
    }
    let needed = gib << 30;
    if let Some(avail) = storage.avail.filter(|avail| *avail < needed) {
        report.warning(
            "storage",
            format!(
                "storage `{name}` has {} free, the disks are {} in all",
                human_bytes(avail),
                human_bytes(needed)
            ),
            "that is enough only where space is taken as it is written (thin): make room, or lower vm_disk_size",
        );
    }
}

pub(super) fn bridges(
    report: &mut PlanReport,
    spec: &ImageSpec,
    networks: &[NetworkInterface],
    hidden: &BTreeSet<String>,
) {
    let names: Vec<&str> = networks
        .iter()
        .filter(|n| n.is_bridge())
        .map(|n| n.iface.as_str())
        .collect();
    for nic in spec.nics.iter().filter(|nic| !hidden.contains(&nic.bridge)) {
        match networks.iter().find(|n| n.iface == nic.bridge) {
            Some(network) if network.is_bridge() && !network.active => report.warning(
                "bridge",
                format!("bridge `{}` is not up", nic.bridge),
                "a VM on it reaches nothing: bring it up with ifup, or choose another vm_bridge",
            ),
            Some(network) if network.is_bridge() => report.ok("bridge", format!("bridge {}", nic.bridge)),
            Some(network) => report.error(
                "bridge",
                format!(
                    "`{}` on node `{}` is of type `{}`, not a bridge",
                    nic.bridge, spec.node, network.kind
                ),
                suggestion(&nic.bridge, &names, "vm_bridge"),
            ),
            None => report.error(
                "bridge",
                format!("node `{}` has no bridge `{}`", spec.node, nic.bridge),
                suggestion(&nic.bridge, &names, "vm_bridge"),
            ),
        }
    }
}

pub(super) fn pool(report: &mut PlanReport, wanted: &str, names: &[&str]) {
    if names.contains(&wanted) {
        report.ok("pool", format!("pool {wanted}"));
    } else {
        report.error(
            "pool",
            format!("there is no pool `{wanted}`"),
            suggestion(wanted, names, "the pool"),
        );
    }
}

pub(super) fn cpu_type(report: &mut PlanReport, spec: &ImageSpec, names: &[&str]) {
    let wanted = spec.hardware.cpu_type.as_str();
    if names.is_empty() || names.contains(&wanted) {
        return;
    }
    report.error(
        "cpu",
        format!("node `{}` does not offer the CPU type `{wanted}`", spec.node),
        suggestion(wanted, names, "vm_cpu_type"),
    );
}

/// The name to use; an error when it is taken.
pub(super) fn name(report: &mut PlanReport, spec: &ImageSpec, guests: &[&Resource]) -> String {
    let name = spec
        .name
        .choose(guests.iter().filter_map(|guest| guest.name.as_deref()));
    fixed_name(report, spec, &name, guests);
    name
}

/// An error when this name is taken.
pub(super) fn fixed_name(report: &mut PlanReport, spec: &ImageSpec, name: &str, guests: &[&Resource]) {
    match guests.iter().find(|guest| guest.name.as_deref() == Some(name)) {
        Some(guest) => {
            let what = if guest.template { "template" } else { "vm" };
            let next = spec.name.image_name().map(|image| {
                image
                    .next_free(guests.iter().filter_map(|guest| guest.name.as_deref()))
                    .to_string()
            });
            let other = match next {
                Some(next) => format!("set image_version to the next iteration, {next}"),
                None => "set another name".to_owned(),
            };
            if let Some(build) = build_of(guest) {
                report.error(
                    "name",
                    format!(
                        "the name {name} is taken by {what} {}, which is being made by build {build}",
                        describe(guest)
                    ),
                    format!(
                        "wait for it, or {other}; `k3simage gc` tells whether it lives, `k3simage gc --yes` removes a dead one, \
                         `k3simage resume {build} DIR` goes on with it"
                    ),
                );
                return;
            }
            let ours = guest.template && guest.tags().iter().any(|tag| tag == IMAGE_TAG);
            let instead = if ours {
                "or build beside it and take its place at the end: --replace".to_owned()
            } else {
                format!("or remove that {what} first")
            };
            report.error(
                "name",
                format!("the name {name} is taken by {what} {}", describe(guest)),
                format!("{other}, {instead}"),
            );
        }
        None => report.ok("name", format!("name {name} free")),
    }
}

/// The build whose VM this is, by its tag.
fn build_of(guest: &Resource) -> Option<String> {
    let tags = guest.tags();
    let mut ids = tags.iter().filter_map(|tag| tag.strip_prefix(BUILD_TAG_PREFIX));
    ids.find(|id| is_id(id)).map(str::to_owned)
}

pub(super) fn vmid_taken(report: &mut PlanReport, spec: &ImageSpec, guests: &[&Resource]) {
    let Some(vmid) = spec.vmid else {
        report.error(
            "vmid",
            "there is no free vmid",
            "widen the range under Datacenter, Options, Next Free VMID Range",
        );
        return;
    };
    let by = guests.iter().find(|guest| guest.vmid == Some(vmid)).map_or_else(
        || "a guest that this login may not see".to_owned(),
        |guest| describe(guest),
    );
    report.error(
        "vmid",
        format!("vmid {vmid} is taken by {by}, which this build did not make"),
        "set vm_id to a free one, or leave it out to take the next free one; what a dead build left `k3simage gc` lists",
    );
}

pub(super) fn describe(guest: &Resource) -> String {
    let vmid = guest.vmid.map(|vmid| vmid.to_string()).unwrap_or_default();
    let name = guest.name.as_deref().unwrap_or("without a name");
    let node = guest
        .node
        .as_ref()
        .map(|node| format!(" on {node}"))
        .unwrap_or_default();
    format!("{vmid} ({name}){node}")
}

#[cfg(test)]
mod tests;
