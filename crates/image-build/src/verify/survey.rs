//! Looks at the cluster before anything is cloned: the template, what it brings, privileges, storages, free vmids.

use std::collections::BTreeSet;

use proxmox_client::{Boot, Client, ConfigView, Content, Method, Net, NodeName, Resource, StorageId, VmConfig, Vmid};

use super::grants::grants_on;
use super::spec::{VerifySpec, address_of};
use crate::Error;
use crate::plan::checks;
use crate::plan::{Held, PlanReport};
use crate::replace::RETIRED_TAG;

/// Places for the volume that tells the second clone what to do, in the order in which a free one is looked for: first on the disks'
/// own bus, as that one's driver is there for sure; on IDE only where firmware leaves it on.
fn volume_slots(config: &VmConfig) -> Vec<String> {
    let disks_on_scsi = config
        .drives()
        .any(|(slot, drive)| slot.starts_with("scsi") && !drive.is_cdrom() && !drive.is_cloud_init());
    let mut slots = Vec::new();
    if disks_on_scsi {
        slots.extend((0..=30).map(|index| format!("scsi{index}")));
    }
    slots.extend((0..=5).map(|index| format!("sata{index}")));
    if !ide_is_off(config, "ide0") {
        slots.extend((0..=3).map(|index| format!("ide{index}")));
    }
    slots
}

/// Whether a clone's Linux will not see this IDE drive. OVMF switches on only those channels of PVE's default machine that the boot
/// order names a drive of, and Linux passes over one that is off. The machine q35 has no such channels.
///
/// # Source
/// `piix_enable_bits` in Linux's `ata_piix.c`; seen with OVMF of Debian 12, on `ide2` with `order=scsi0`, and not with
/// `order=scsi0;ide2`.
fn ide_is_off(config: &VmConfig, slot: &str) -> bool {
    let channel = |slot: &str| slot.strip_prefix("ide")?.parse::<u32>().ok().map(|index| index / 2);
    let ovmf = config.get("bios") == Some("ovmf");
    let q35 = config.get("machine").is_some_and(|machine| machine.contains("q35"));
    let boot = config.boot().ok().flatten();
    let order = boot.as_ref().map(Boot::devices).unwrap_or_default();
    let off = channel(slot).is_some() && !order.iter().any(|named| channel(named) == channel(slot));
    ovmf && !q35 && !order.is_empty() && off
}

/// The template, as far as a verification needs to know it.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) name: String,
    pub(super) vmid: Vmid,
    pub(super) node: NodeName,
    pub(super) pve_version: String,
    /// Its `ipconfig0`, when it has one.
    pub(super) ip_config: Option<String>,
    /// Whether its guest agent is switched on.
    pub(super) agent: bool,
    /// Options that a clone must not inherit: what keeps it from being deleted, and what else cloud-init would be told.
    pub(super) drop: Vec<&'static str>,
    /// A free place for a CD-ROM drive.
    pub(super) volume_slot: String,
    /// Ids of all guests that could be seen, and where the search for free ones begins.
    pub(super) taken_vmids: BTreeSet<Vmid>,
    pub(super) next_vmid: Vmid,
}

/// The report, and the template if nothing stands against its verification.
pub(super) async fn survey(client: &Client, spec: &VerifySpec) -> Result<(PlanReport, Option<Template>), Error> {
    let mut report = PlanReport {
        image: spec.template.clone(),
        ..PlanReport::default()
    };
    // The first answer tells whether address, certificate and login are right, which is no finding but an error.
    let version = client
        .version()
        .await
        .map_err(Error::api(format!("asking {} for its version", client.endpoint())))?;
    report.pve_version.clone_from(&version.version);
    let pve_major = version.number().major;
    checks::version(&mut report, version);
    let resources = client
        .cluster_resources(None)
        .await
        .map_err(Error::api("listing the cluster's resources"))?;

    let Some((vmid, node)) = find(&mut report, client, spec, &resources, pve_major).await? else {
        return Ok((report, None));
    };
    report.node = node.to_string();
    let config = client
        .node(&node)
        .qemu(vmid)
        .config(ConfigView::Current)
        .await
        .map_err(Error::api(format!("reading template {vmid} on {node}")))?;
    let name = config.name().map_or_else(|| vmid.to_string(), str::to_owned);
    report.image.clone_from(&name);
    let volume_slot = fit_for_clones(&mut report, spec, &config);

    let next_vmid = client
        .next_id(None)
        .await
        .map_err(Error::api("asking for a free vmid"))?;
    let storages: BTreeSet<StorageId> = config
        .drives()
        .filter(|(slot, drive)| !drive.is_cdrom() && !drive.is_cloud_init() && !slot.starts_with("unused"))
        .filter_map(|(_, drive)| drive.volid())
        .map(|volid| volid.storage())
        .collect();
    let nets = bridges(client, &node, &config).await?;
    let paths = [format!("/vms/{vmid}"), format!("/vms/{next_vmid}")];
    let grants = grants_on(spec, pve_major, &storages, &nets, [&paths[0], &paths[1]]);
    let hidden = held(&mut report, client, &grants).await?;
    iso_storage(&mut report, client, spec, &node, &hidden).await?;

    let template = match (report.is_ok(), volume_slot) {
        (true, Some(volume_slot)) => Some(Template {
            name,
            vmid,
            node,
            pve_version: version.version.clone(),
            ip_config: config.get("ipconfig0").map(str::to_owned),
            agent: config.agent().ok().flatten().is_some_and(|agent| agent.is_enabled()),
            drop: ["protection", "cicustom", "cipassword"]
                .into_iter()
                .filter(|option| config.get(option).is_some())
                .collect(),
            volume_slot,
            taken_vmids: resources.iter().filter_map(|guest| guest.vmid).collect(),
            next_vmid,
        }),
        _ => None,
    };
    Ok((report, template))
}

/// The template of that name or vmid; a finding when there is none, or no single one.
async fn find(
    report: &mut PlanReport,
    client: &Client,
    spec: &VerifySpec,
    resources: &[Resource],
    pve_major: u32,
) -> Result<Option<(Vmid, NodeName)>, Error> {
    let wanted = spec.template.trim();
    let number: Option<Vmid> = wanted.parse().ok();
    let guests = || resources.iter().filter(|guest| guest.is_qemu());
    let named: Vec<&Resource> = guests()
        .filter(|guest| guest.name.as_deref() == Some(wanted) || (number.is_some() && guest.vmid == number))
        .collect();
    let found = match named.as_slice() {
        [one] => one,
        [] => {
            let known: Vec<&str> = guests()
                .filter(|guest| guest.template && !guest.tags().iter().any(|tag| tag == RETIRED_TAG))
                .filter_map(|guest| guest.name.as_deref())
                .collect();
            // What the login may not see is not in the list: then that is all there is to say.
            let before = report.findings.len();
            let grants = grants_on(spec, pve_major, &BTreeSet::new(), &[], ["/vms", "/vms"]);
            held(report, client, &grants[..1]).await?;
            if report.is_ok() {
                report.findings.truncate(before);
                let fix = checks::suggestion(wanted, &known, "the template's name");
                report.error("template", format!("there is no template `{wanted}`"), fix);
            }
            return Ok(None);
        }
        many => {
            let ids: Vec<String> = many
                .iter()
                .filter_map(|guest| guest.vmid)
                .map(|id| id.to_string())
                .collect();
            report.error(
                "template",
                format!("{} guests are named `{wanted}`: {}", many.len(), ids.join(", ")),
                "give the vmid instead of the name",
            );
            return Ok(None);
        }
    };
    let (Some(vmid), Some(node)) = (found.vmid, found.node.as_deref()) else {
        return Ok(None);
    };
    let node_name = NodeName::new(node).map_err(Error::api("reading the cluster's list"))?;
    // The cluster's list shows it some seconds later (FACTS 80).
    let vm = client.node(&node_name).qemu(vmid);
    let is_template = || async {
        vm.config(ConfigView::Current)
            .await
            .is_ok_and(|config| config.is_template())
    };
    if !found.template && !is_template().await {
        report.error(
            "template",
            format!("vm {vmid} (`{wanted}`) is no template"),
            "give the name of a template; `k3simage list` shows those that k3simage made",
        );
        return Ok(None);
    }
    let offline = |r: &&Resource| r.kind == "node" && r.node.as_deref() == Some(node);
    if resources.iter().find(offline).and_then(|r| r.status.as_deref()) == Some("offline") {
        report.error(
            "node",
            format!("node `{node}`, which holds the template, is offline"),
            "start it",
        );
        return Ok(None);
    }
    report.ok("template", format!("template {vmid} on {node}"));
    Ok(Some((vmid, node_name)))
}

/// Whether clones of it can be given a name, a key and an address; the place for the second one's volume.
fn fit_for_clones(report: &mut PlanReport, spec: &VerifySpec, config: &VmConfig) -> Option<String> {
    match config.drives().find(|(_, drive)| drive.is_cloud_init()) {
        Some((slot, _)) if ide_is_off(config, slot) => report.warning(
            "cloud-init",
            format!(
                "the cloud-init drive is at {slot}, which the firmware OVMF leaves switched off: a clone's Linux will hardly find it, \
                 and then takes neither name nor keys"
            ),
            format!("move it: `qm set VMID --delete {slot}`, then `qm set VMID --scsi1 STORAGE:cloudinit`"),
        ),
        Some(_) => report.ok("cloud-init", "cloud-init drive"),
        None => report.error(
            "cloud-init",
            "the template has no cloud-init drive, so that a clone cannot be given a key to log in with",
            "build it with vm_cloud_init_storage_pool set, or add one: `qm set VMID --scsi1 STORAGE:cloudinit`",
        ),
    }
    if config.net(0).ok().flatten().is_none() {
        report.error(
            "network",
            "the template has no network device net0, so that no clone can be reached",
            "add one: `qm set VMID --net0 virtio,bridge=vmbr0`",
        );
    }
    let agent = config.agent().ok().flatten().is_some_and(|agent| agent.is_enabled());
    let fixed = match &spec.ip_configs {
        Some(configs) => configs
            .iter()
            .all(|config| address_of(config).is_some_and(|ip| ip != "dhcp")),
        None => false,
    };
    if !agent && !fixed {
        report.error(
            "agent",
            "the template's guest agent is switched off, so that the addresses of clones cannot be learnt",
            "switch it on (`qm set VMID --agent 1`), or give each clone an address with --ipconfig",
        );
    }
    let slot = volume_slots(config).into_iter().find(|slot| config.get(slot).is_none());
    if slot.is_none() {
        report.error(
            "drives",
            "the template leaves no place free for a CD-ROM drive that a clone would see",
            "remove a drive that clones do not need",
        );
    }
    slot
}

/// The template's network devices that are plugged into bridges of the node.
async fn bridges(client: &Client, node: &NodeName, config: &VmConfig) -> Result<Vec<Net>, Error> {
    let attempt = || Error::api(format!("listing the networks of node {node}"));
    let nets: Vec<Net> = (0..32).filter_map(|index| config.net(index).ok().flatten()).collect();
    let known = client.node(node).networks().await.map_err(attempt())?;
    let is_bridge = |net: &Net| known.iter().any(|network| Some(network.iface.as_str()) == net.bridge());
    if nets.iter().all(is_bridge) {
        return Ok(nets);
    }
    // A virtual network of an SDN zone has a path of its own, which this list does not tell.
    let path = format!("/nodes/{node}/network");
    let vnets = client
        .request(Method::GET, &path, &[("type", "vnet".to_owned())])
        .await
        .map_err(attempt())?;
    let is_vnet = |net: &Net| {
        let mut all = vnets.as_array().into_iter().flatten();
        all.any(|vnet| vnet.get("iface").and_then(serde_json::Value::as_str) == net.bridge())
    };
    Ok(nets.into_iter().filter(|net| !is_vnet(net)).collect())
}

/// Names each privilege that is missing; the storages and bridges that cannot be seen for lack of one.
async fn held(
    report: &mut PlanReport,
    client: &Client,
    grants: &[crate::plan::Grant],
) -> Result<BTreeSet<String>, Error> {
    let attempt = Error::api("reading the login's own privileges");
    let Some(held) = Held::ask(client, grants).await.map_err(attempt)? else {
        checks::no_privilege(report, client.identity());
        return Ok(BTreeSet::new());
    };
    Ok(checks::privileges(report, grants, &held, client.identity()))
}

async fn iso_storage(
    report: &mut PlanReport,
    client: &Client,
    spec: &VerifySpec,
    node: &NodeName,
    hidden: &BTreeSet<String>,
) -> Result<(), Error> {
    if hidden.contains(spec.iso_storage.as_str()) {
        return Ok(());
    }
    let storages = client
        .node(node)
        .storages()
        .await
        .map_err(Error::api(format!("listing the storages of node {node}")))?;
    let names: Vec<&str> = storages
        .iter()
        .filter_map(|storage| storage.storage.as_ref())
        .map(StorageId::as_str)
        .collect();
    let wanted = (spec.iso_storage.as_str(), &Content::Iso, "--iso-storage", 0);
    checks::storage(report, node.as_str(), &storages, &names, wanted);
    Ok(())
}
