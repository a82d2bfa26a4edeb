//! The single checks of a preflight: pure, from what the cluster answered to findings.

use proxmox_client::{Content, NetworkInterface, Permissions, Resource, StorageId, StorageStatus, Version};

use super::privileges::{self, Needs};
use super::report::PlanReport;
use crate::communicator::goes_by_agent;
use crate::diagnostic::nearest;
use crate::spec::{Delivery, ImageSpec, IsoSource};
use crate::text::human_bytes;

/// Oldest release whose API has all that a build uses (`SDN.Use`, `download-url` with checksum, CPU type v2).
const OLDEST_MAJOR: u32 = 8;

pub(super) fn version(report: &mut PlanReport, version: &Version) {
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
pub(super) fn node(report: &mut PlanReport, spec: &ImageSpec, resources: &[Resource]) -> bool {
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
pub(super) fn suggestion(wanted: &str, known: &[&str], variable: &str) -> String {
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

/// What a build of this spec does that needs a privilege.
pub(super) fn needs(spec: &ImageSpec, pve_major: u32) -> Needs {
    let by_agent = goes_by_agent(spec);
    let oemdrv = spec.installer.delivery == Delivery::Oemdrv;
    Needs {
        pve_major,
        types_keys: spec
            .installer
            .boot_command
            .as_ref()
            .is_none_or(|command| !command.is_empty()),
        asks_agent: by_agent || spec.communicator.ssh.host.is_none(),
        agent_exec: by_agent,
        cloud_init: spec.cloud_init.is_some(),
        downloads: matches!(spec.installer.iso, IsoSource::Url { .. }),
        uploads: oemdrv || matches!(spec.installer.iso, IsoSource::File { .. }),
        deletes_iso: oemdrv,
    }
}

pub(super) fn privileges(
    report: &mut PlanReport,
    spec: &ImageSpec,
    permissions: &Permissions,
    networks: &[NetworkInterface],
    identity: &str,
    pve_major: u32,
) {
    if permissions.is_empty() {
        let fix = match identity.split_once('!') {
            Some((user, token)) => format!(
                "an API token made with privilege separation holds no rights of its own: run \
                 `pveum acl modify / --tokens '{identity}' --roles ROLE`, or make it anew with \
                 `pveum user token add {user} {token} --privsep 0`"
            ),
            None => format!("give it a role: `pveum acl modify / --users {identity} --roles ROLE`"),
        };
        report.error("privileges", format!("`{identity}` has no privilege at all"), fix);
        return;
    }
    let needs = needs(spec, pve_major);
    // A vmid that is still open lies below /vms whatever it will be.
    let vm_path = spec
        .vmid
        .map_or_else(|| "/vms".to_owned(), |vmid| format!("/vms/{vmid}"));
    let mut wanted: Vec<(String, &str, &str, Vec<&'static str>)> =
        vec![(vm_path, "/vms", "K3simageVM", privileges::on_vm(needs))];
    let iso_storage = match &spec.installer.iso {
        IsoSource::Volid(volid) if !needs.uploads => volid.storage(),
        _ => spec.installer.iso_storage.clone(),
    };
    wanted.push((
        format!("/storage/{iso_storage}"),
        "",
        "K3simageISO",
        privileges::on_iso_storage(needs),
    ));
    for storage in disk_storages(spec) {
        wanted.push((
            format!("/storage/{storage}"),
            "",
            "K3simageDisk",
            privileges::ON_DISK_STORAGE.to_vec(),
        ));
    }
    for nic in &spec.nics {
        // The path of a virtual network goes over its zone, which the list of networks does not tell: PVE's own refusal
        // names it then.
        if networks
            .iter()
            .any(|network| network.iface == nic.bridge && network.kind == "vnet")
        {
            continue;
        }
        let path = match nic.vlan {
            None => format!("/sdn/zones/localnetwork/{}", nic.bridge),
            Some(tag) => format!("/sdn/zones/localnetwork/{}/{tag}", nic.bridge),
        };
        wanted.push((path, "", "K3simageNetwork", privileges::ON_BRIDGE.to_vec()));
    }
    if needs.downloads {
        wanted.push((
            format!("/nodes/{}", spec.node),
            "",
            "K3simageDownload",
            vec!["Sys.AccessNetwork"],
        ));
    }
    merge_paths(&mut wanted);
    let mut count = 0;
    let mut complete = true;
    for (path, grant_on, role, privileges) in &wanted {
        count += privileges.len();
        let missing: Vec<&str> = privileges::missing(permissions, path, privileges)
            .into_iter()
            // download-url takes either this privilege on the node or two others on `/` (`permissions` of that call in the API schema).
            .filter(|privilege| {
                *privilege != "Sys.AccessNetwork"
                    || !(permissions.allows("/", "Sys.Audit") && permissions.allows("/", "Sys.Modify"))
            })
            .collect();
        if !missing.is_empty() {
            complete = false;
            let grant_on = if grant_on.is_empty() { path.as_str() } else { grant_on };
            report.error(
                "privileges",
                format!("`{identity}` lacks {} on {path}", missing.join(", ")),
                format!(
                    "run on a node: {}",
                    privileges::pveum(identity, grant_on, role, privileges)
                ),
            );
        }
    }
    if complete {
        report.ok("privileges", format!("{count} privileges"));
    }
}

/// One entry a path: roles on the same path add up, but one line is easier to run.
fn merge_paths(wanted: &mut Vec<(String, &str, &str, Vec<&'static str>)>) {
    let mut merged: Vec<(String, &str, &str, Vec<&'static str>)> = Vec::new();
    for (path, grant_on, role, privileges) in wanted.drain(..) {
        if let Some(known) = merged.iter_mut().find(|(known, ..)| *known == path) {
            for privilege in privileges {
                if !known.3.contains(&privilege) {
                    known.3.push(privilege);
                }
            }
            if known.2 != role {
                known.2 = "K3simageStorage";
            }
        } else {
            merged.push((path, grant_on, role, privileges));
        }
    }
    *wanted = merged;
}

/// Storages that disks are made on, each once.
fn disk_storages(spec: &ImageSpec) -> Vec<String> {
    let mut storages: Vec<String> = spec.disks.iter().map(|disk| disk.storage.to_string()).collect();
    storages.extend(spec.hardware.efi_storage.iter().map(ToString::to_string));
    storages.extend(spec.cloud_init.iter().map(ToString::to_string));
    storages.sort();
    storages.dedup();
    storages
}

pub(super) fn storages(report: &mut PlanReport, spec: &ImageSpec, storages: &[StorageStatus]) {
    let before = report.findings.len();
    let mut wanted: Vec<(String, Content, &str, u64)> = disk_storages(spec)
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
    if crate::plan::media::writes_isos(spec) {
        wanted.push((
            spec.installer.iso_storage.to_string(),
            Content::Iso,
            "alma_iso_storage_pool",
            0,
        ));
    }
    wanted.extend(volid_storage.map(|name| (name, Content::Iso, "alma_iso_url", 0)));
    wanted.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
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

fn storage(
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

pub(super) fn bridges(report: &mut PlanReport, spec: &ImageSpec, networks: &[NetworkInterface]) {
    let names: Vec<&str> = networks
        .iter()
        .filter(|n| n.is_bridge())
        .map(|n| n.iface.as_str())
        .collect();
    for nic in &spec.nics {
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
    match guests.iter().find(|guest| guest.name.as_deref() == Some(&name)) {
        Some(guest) => {
            let what = if guest.template { "template" } else { "vm" };
            let next = spec.name.image_name().map(|image| {
                image
                    .next_free(guests.iter().filter_map(|guest| guest.name.as_deref()))
                    .to_string()
            });
            report.error(
                "name",
                format!("the name {name} is taken by {what} {}", describe(guest)),
                match next {
                    Some(next) => {
                        format!("set image_version to the next iteration, {next}, or remove that {what} first")
                    }
                    None => format!("set another name, or remove that {what} first"),
                },
            );
        }
        None => report.ok("name", format!("name {name} free")),
    }
    name
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
        "set vm_id to a free one, or leave it out to take the next free one",
    );
}

fn describe(guest: &Resource) -> String {
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
