//! Asks the cluster once for all that the checks need, and resolves what the spec leaves open.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proxmox_client::{
    Client, DownloadUrl, ErrorKind, Method, NetworkInterface, PoolId, Resource, ResourceKind, Upload, Vmid, VolId,
};

use super::privileges::{Grant, Held, grants_with};
use super::replace::{Exchange, Paths, exchange, grants_replacing, replaced};
use super::report::PlanReport;
use super::{checks, media};
use crate::Error;
use crate::replace::{Replace, Replacing};
use crate::spec::ImageSpec;

/// What preflight settled for the steps after it.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The template's name.
    pub(crate) name: String,
    /// Version of Proxmox VE, for people.
    pub(crate) pve_version: String,
    /// Where the search for a free vmid begins.
    pub(crate) next_vmid: Vmid,
    /// Ids of all guests that could be seen.
    pub(crate) taken_vmids: BTreeSet<Vmid>,
    /// The installer, or how it gets there.
    pub(crate) iso: InstallerIso,
    /// The template that is replaced.
    pub(crate) replacing: Option<Replacing>,
    /// The address under which a guest reaches this machine; set when the kickstart is served over HTTP.
    pub(crate) http_address: Option<IpAddr>,
}

/// The installer ISO as preflight found it.
#[derive(Clone, Debug)]
pub(crate) enum InstallerIso {
    /// It is there.
    Present(VolId),
    /// The node is to fetch it.
    Download(VolId, DownloadUrl),
    /// It is to be sent.
    Upload(VolId, Upload),
}

/// What a build that is there already has, and what so does not stand against it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    /// The image's name.
    pub(crate) name: &'a str,
    /// Its VM.
    pub(crate) vmid: Vmid,
    /// The template that it replaces.
    pub(crate) replaces: Option<Vmid>,
}

/// The report, and what was resolved if nothing stands against a build.
pub(crate) async fn survey(
    client: &Client,
    spec: &ImageSpec,
    replace: Option<&Replace>,
) -> Result<(PlanReport, Option<Resolved>), Error> {
    survey_of(client, spec, None, replace).await
}

/// The same for a build that is there already.
pub(crate) async fn survey_of(
    client: &Client,
    spec: &ImageSpec,
    own: Option<Own<'_>>,
    replace: Option<&Replace>,
) -> Result<(PlanReport, Option<Resolved>), Error> {
    if let Some(replace) = replace {
        replace.check()?;
    }
    let mut report = PlanReport {
        image: spec.name.to_string(),
        node: spec.node.to_string(),
        ..PlanReport::default()
    };

    // The first answer tells whether address, certificate and login are right, which is no finding but an error.
    let version = client
        .version()
        .await
        .map_err(Error::api(format!("asking {} for its version", client.endpoint())))?;
    report.pve_version.clone_from(&version.version);
    checks::version(&mut report, version);

    let resources = client
        .cluster_resources(None)
        .await
        .map_err(Error::api("listing the cluster's resources"))?;
    if !checks::node(&mut report, spec, &resources) {
        // Every further question goes to that node; the answers would only repeat that it is not there.
        return Ok((report, None));
    }
    let networks = networks(client, spec).await?;
    let virtual_networks = virtual_networks(&networks);
    let exchange = match replace {
        Some(_) => exchange(client, spec, &resources, &virtual_networks).await?,
        None => None,
    };
    let wanted = spec.vmid.filter(|_| exchange.is_none());
    let next_id = client.next_id(wanted).await;
    let vmid = settled_vmid(wanted, &next_id);
    let pve_major = version.number().major;
    let grants = match replace {
        None => grants_with(spec, pve_major, &format!("/vms/{vmid}"), &virtual_networks),
        Some(replace) => {
            let vmids = (vmid, resources.as_slice());
            swap_grants(spec, pve_major, replace, vmids, &virtual_networks, exchange.as_ref())
        }
    };
    let hidden = privileges(&mut report, client, spec, &grants).await?;

    let node = client.node(&spec.node);
    let storages = node
        .storages()
        .await
        .map_err(Error::api(format!("listing the storages of node {}", spec.node)))?;
    let verifies = replace.is_some_and(|replace| replace.verify);
    checks::storages(&mut report, spec, &storages, &hidden, verifies);
    checks::bridges(&mut report, spec, &networks, &hidden);
    pool(&mut report, client, spec, &hidden).await?;
    let iso = media::installer(&mut report, client, spec, &storages).await?;
    let http_address = media::http(&mut report, client, spec, &networks).await;
    cpu_type(&mut report, client, spec).await?;

    let guests: Vec<&Resource> = resources
        .iter()
        .filter(|r| r.vmid.is_some() && own.is_none_or(|own| r.vmid != Some(own.vmid) && r.vmid != own.replaces))
        .collect();
    let (name, next_vmid, replacing) = match (own, replace) {
        (Some(own), _) => {
            checks::fixed_name(&mut report, spec, own.name, &guests);
            (own.name.to_owned(), Some(own.vmid), None)
        }
        (None, None) => (
            checks::name(&mut report, spec, &guests),
            free_vmid(&mut report, next_id, spec, &guests)?,
            None,
        ),
        (None, Some(replace)) => {
            let (name, replacing) = replaced(&mut report, client, spec, replace, &guests, &storages).await?;
            let next_vmid = free_vmid(&mut report, next_id, spec, &guests)?;
            (name, next_vmid, replacing)
        }
    };
    report.image.clone_from(&name);
    report.vmid = match &replacing {
        Some(old) if old.renumber => Some(old.vmid.get()),
        _ => next_vmid.map(Vmid::get),
    };
    report.replaces = replacing.as_ref().map(|old| old.vmid.get());

    let resolved = match (report.is_ok(), next_vmid, iso) {
        (true, Some(next_vmid), Some(iso)) => Some(Resolved {
            name,
            pve_version: version.version.clone(),
            next_vmid,
            taken_vmids: guests.iter().filter_map(|guest| guest.vmid).collect(),
            iso,
            replacing,
            http_address,
        }),
        _ => None,
    };
    Ok((report, resolved))
}

/// The vmid whose rights are asked for. Any number will do where none is wanted: all that do not exist have the same rights.
fn settled_vmid(wanted: Option<Vmid>, next_id: &Result<Vmid, proxmox_client::Error>) -> Vmid {
    wanted.or_else(|| next_id.as_ref().ok().copied()).unwrap_or(Vmid::MIN)
}

/// The networks that are no bridges of the node.
fn virtual_networks(networks: &[NetworkInterface]) -> Vec<&str> {
    networks
        .iter()
        .filter(|network| network.kind == "vnet")
        .map(|network| network.iface.as_str())
        .collect()
}

/// What a build needs that takes another template's place, path by path.
fn swap_grants(
    spec: &ImageSpec,
    pve_major: u32,
    replace: &Replace,
    (vmid, resources): (Vmid, &[Resource]),
    virtual_networks: &[&str],
    exchange: Option<&Exchange>,
) -> Vec<Grant> {
    let name = spec.name.to_string();
    let named = resources
        .iter()
        .find(|guest| guest.is_qemu() && guest.name.as_deref() == Some(&name));
    let old = named
        .and_then(|guest| guest.vmid)
        .map_or_else(|| "/vms".to_owned(), |vmid| format!("/vms/{vmid}"));
    // The clones of the verification and full copies get ids that are free too.
    let taken = |vmid: &Vmid| resources.iter().any(|guest| guest.vmid == Some(*vmid));
    let clone = (vmid.get() + 1..=Vmid::MAX.get())
        .filter_map(|number| Vmid::new(number).ok())
        .find(|vmid| !taken(vmid))
        .unwrap_or(vmid);
    let paths = Paths {
        new: &format!("/vms/{vmid}"),
        old: &old,
        clone: &format!("/vms/{clone}"),
        virtual_networks,
    };
    grants_replacing(spec, pve_major, replace, paths, exchange)
}

/// Which privileges are missing; the names of what the login may not see because of that.
async fn privileges(
    report: &mut PlanReport,
    client: &Client,
    spec: &ImageSpec,
    grants: &[Grant],
) -> Result<BTreeSet<String>, Error> {
    let attempt = Error::api("reading the login's own privileges");
    let Some(held) = Held::ask(client, grants).await.map_err(attempt)? else {
        checks::no_privilege(report, client.identity());
        // Nothing is listed for this login: that no storage and no bridge is there would only say so again.
        let mut hidden: BTreeSet<String> = spec.disk_storages().into_iter().collect();
        hidden.insert(spec.installer.iso_storage.to_string());
        hidden.extend(spec.nics.iter().map(|nic| nic.bridge.clone()));
        hidden.extend(spec.pool.iter().map(ToString::to_string));
        return Ok(hidden);
    };
    let hidden = checks::privileges(report, grants, &held, client.identity());
    checks::console(report, grants, &held, client.identity());
    Ok(hidden)
}

/// The node's bridges, and the cluster's virtual networks when a device is to be plugged into something else: they are
/// listed only when asked for.
async fn networks(client: &Client, spec: &ImageSpec) -> Result<Vec<NetworkInterface>, Error> {
    let attempt = || Error::api(format!("listing the networks of node {}", spec.node));
    let mut networks = client.node(&spec.node).networks().await.map_err(attempt())?;
    if spec
        .nics
        .iter()
        .any(|nic| networks.iter().all(|network| network.iface != nic.bridge))
    {
        let path = format!("/nodes/{}/network", spec.node);
        let vnets = client
            .request(Method::GET, &path, &[("type", "vnet".to_owned())])
            .await
            .map_err(attempt())?;
        for vnet in vnets.as_array().into_iter().flatten() {
            // What does not read as a network is no name that a device could be plugged into.
            networks.extend(serde_json::from_value::<NetworkInterface>(vnet.clone()));
        }
    }
    Ok(networks)
}

/// Whether the pool exists, when the VM is to join one.
async fn pool(
    report: &mut PlanReport,
    client: &Client,
    spec: &ImageSpec,
    hidden: &BTreeSet<String>,
) -> Result<(), Error> {
    let Some(wanted) = spec.pool.as_ref().filter(|pool| !hidden.contains(pool.as_str())) else {
        return Ok(());
    };
    let pools = client.pools().await.map_err(Error::api("listing the pools"))?;
    let names: Vec<&str> = pools
        .iter()
        .filter_map(|pool| pool.poolid.as_ref())
        .map(PoolId::as_str)
        .collect();
    checks::pool(report, wanted.as_str(), &names);
    Ok(())
}

/// The vmid that would be used, if one is free.
fn free_vmid(
    report: &mut PlanReport,
    next_id: Result<Vmid, proxmox_client::Error>,
    spec: &ImageSpec,
    guests: &[&Resource],
) -> Result<Option<Vmid>, Error> {
    match next_id {
        Ok(vmid) => {
            report.ok("vmid", format!("vmid {vmid} free"));
            Ok(Some(vmid))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            checks::vmid_taken(report, spec, guests);
            Ok(None)
        }
        Err(error) => Err(Error::api("asking for a free vmid")(error)),
    }
}

/// Whether the node offers the CPU type. A node that cannot tell (before PVE 8) is not held against the spec.
async fn cpu_type(report: &mut PlanReport, client: &Client, spec: &ImageSpec) -> Result<(), Error> {
    let path = format!("/nodes/{}/capabilities/qemu/cpu", spec.node);
    match client.request(Method::GET, &path, &[]).await {
        Ok(models) => {
            let names: Vec<&str> = models
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|model| model.get("name").and_then(serde_json::Value::as_str))
                .collect();
            checks::cpu_type(report, spec, &names);
            Ok(())
        }
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Permission) => Ok(()),
        Err(error) => Err(Error::api(format!("listing the cpu types of node {}", spec.node))(
            error,
        )),
    }
}

/// The kind of resource that guests are, for the look at names just before the end of a build.
pub(crate) const GUESTS: ResourceKind = ResourceKind::Vm;
