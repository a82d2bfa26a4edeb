//! Which privileges a build needs, on which paths, and the `pveum` lines that grant what is missing.

use std::collections::{BTreeMap, BTreeSet};

use proxmox_client::{Client, Permissions};
use serde::Serialize;

use crate::build::needs_medium;
use crate::communicator::goes_by_agent;
use crate::spec::{Delivery, ImageSpec, IsoSource};

/// Lets keys be typed, and a guest's serial ports and screen be seen (`FACTS` 59).
pub(crate) const CONSOLE: &str = "VM.Console";

/// Lets the node fetch a file from a URL.
const ACCESS_NETWORK: &str = "Sys.AccessNetwork";

/// What the plan needs to know to ask for no privilege too many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Major version of Proxmox VE: 9 renamed the agent's privileges.
    pub(crate) pve_major: u32,
    /// Keys are typed at the boot menu.
    pub(crate) types_keys: bool,
    /// The guest agent is asked for the address.
    pub(crate) asks_agent: bool,
    /// Commands run through the guest agent.
    pub(crate) agent_exec: bool,
    /// The template gets a cloud-init drive.
    pub(crate) cloud_init: bool,
    /// The installer ISO is fetched by the node from a URL.
    pub(crate) downloads: bool,
    /// A file is uploaded to an ISO storage.
    pub(crate) uploads: bool,
    /// A file is removed from an ISO storage.
    pub(crate) deletes_iso: bool,
}

impl Needs {
    /// What a build of this spec does that needs a privilege.
    pub(crate) fn of(spec: &ImageSpec, pve_major: u32) -> Self {
        let by_agent = goes_by_agent(spec);
        let own_volume = spec.installer.delivery == Delivery::Oemdrv || needs_medium(spec);
        Self {
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
            uploads: own_volume || matches!(spec.installer.iso, IsoSource::File { .. }),
            deletes_iso: own_volume,
        }
    }
}

/// Privileges on the VM.
///
/// # Source
/// `FACTS` 13 and 82; each row was refused with just this privilege removed in `pve/scenarios/13-privileges-minus-one.json`.
/// PVE 8 has `VM.Monitor` where 9 has `VM.GuestAgent.*` (FACTS 46-49 are of 9; `PVE/API2/Qemu/Agent.pm` of 8.4).
pub(crate) fn on_vm(needs: Needs) -> Vec<&'static str> {
    let mut wanted = vec![
        "VM.Allocate",
        "VM.Audit",
        "VM.PowerMgmt",
        "VM.Config.CDROM",
        "VM.Config.CPU",
        "VM.Config.Disk",
        "VM.Config.HWType",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
    ];
    if needs.cloud_init {
        wanted.push("VM.Config.Cloudinit");
    }
    if needs.types_keys {
        wanted.push(CONSOLE);
    }
    match (needs.asks_agent, needs.agent_exec, needs.pve_major) {
        (false, false, _) => {}
        (_, _, ..=8) => wanted.push("VM.Monitor"),
        (_, true, _) => wanted.push("VM.GuestAgent.Unrestricted"),
        (_, false, _) => wanted.push("VM.GuestAgent.Audit"),
    }
    wanted
}

/// Privileges on the storage that holds ISOs.
///
/// # Source
/// `FACTS` 13: `Datastore.Allocate` to delete an ISO, `Datastore.AllocateTemplate` to upload one; either
/// `Datastore.Audit` or `Datastore.AllocateSpace` to list it (scenario 13).
pub(crate) fn on_iso_storage(needs: Needs) -> Vec<&'static str> {
    let mut wanted = vec!["Datastore.Audit"];
    if needs.uploads || needs.downloads {
        wanted.push("Datastore.AllocateTemplate");
    }
    if needs.deletes_iso {
        wanted.push("Datastore.Allocate");
    }
    wanted
}

/// Privileges on a storage that holds disks.
pub(crate) const ON_DISK_STORAGE: [&str; 1] = ["Datastore.AllocateSpace"];

/// Privileges on a storage that only holds the installer.
pub(crate) const ON_INSTALLER_STORAGE: [&str; 1] = ["Datastore.Audit"];

/// Privileges on the pool that the VM joins, besides those on the VM: to see that the pool exists.
///
/// # Source
/// `permissions` of `GET /pools` in the API schema; joining at creation needs no more than `VM.Allocate` there.
pub(crate) const ON_POOL: [&str; 1] = ["Pool.Audit"];

/// Privileges on the bridge's path `/sdn/zones/localnetwork/BRIDGE`.
pub(crate) const ON_BRIDGE: [&str; 1] = ["SDN.Use"];

/// Privileges that satisfy a wanted one besides itself.
///
/// # Source
/// `FACTS` 82 (Unrestricted covers Audit); `PVE/Storage.pm` `check_volume_access` and scenario 13 (`Audit|AllocateSpace`).
fn also_enough(wanted: &str) -> &'static [&'static str] {
    match wanted {
        "VM.GuestAgent.Audit" => &["VM.GuestAgent.Unrestricted"],
        "Datastore.Audit" => &["Datastore.AllocateSpace"],
        _ => &[],
    }
}

/// What the login holds on the paths that were asked about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(BTreeMap<String, Permissions>);

impl Held {
    /// Asks for what `grants` look at; `None` when nothing is held anywhere.
    ///
    /// The answer without a path is exact for the paths that it names. It leaves out where nothing is held, which makes a path that
    /// `NoAccess` closes look inherited, so what it does not name is asked for by itself.
    ///
    /// # Errors
    /// Whatever the cluster answers to the first question that fails.
    pub(crate) async fn ask(client: &Client, grants: &[Grant]) -> Result<Option<Self>, proxmox_client::Error> {
        let all = client.permissions(None).await?;
        if all.is_empty() {
            return Ok(None);
        }
        let mut held = BTreeMap::new();
        let paths: BTreeSet<&str> = grants.iter().flat_map(Grant::paths).collect();
        for path in paths {
            let permissions = match all.at(path) {
                Some(_) => all.clone(),
                None => client.permissions(Some(path)).await?,
            };
            held.insert(path.to_owned(), permissions);
        }
        Ok(Some(Self(held)))
    }

    /// One answer for all that `grants` look at.
    #[cfg(test)]
    pub(crate) fn of(grants: &[Grant], permissions: &Permissions) -> Self {
        let paths = grants.iter().flat_map(Grant::paths);
        Self(paths.map(|path| (path.to_owned(), permissions.clone())).collect())
    }

    pub(crate) fn has(&self, path: &str, privilege: &str) -> bool {
        self.0
            .get(path)
            .is_some_and(|permissions| permissions.allows(path, privilege))
    }
}

/// Privileges that a build needs on one path, and the role that is to give them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Grant {
    /// The path that the role is given on: `/vms`, `/pool/POOL`, `/storage/STORAGE`, `/sdn/zones/localnetwork/BRIDGE`.
    pub path: String,
    /// Name of the role.
    pub role: String,
    /// The privileges, each once.
    pub privileges: Vec<&'static str>,
    /// Paths below which they may be held instead, the VM's own for instance.
    #[serde(skip)]
    pub(crate) also_on: Vec<String>,
}

impl Grant {
    pub(crate) fn new(path: String, role: &str, privileges: Vec<&'static str>) -> Self {
        Self {
            path,
            role: role.to_owned(),
            privileges,
            also_on: Vec::new(),
        }
    }

    /// The paths that decide. Where more exact ones are known, those do: entries below replace those on the path of the grant.
    fn exact(&self) -> &[String] {
        match self.also_on.as_slice() {
            [] => std::slice::from_ref(&self.path),
            more => more,
        }
    }

    /// The paths that [`missing`](Self::missing) looks at.
    fn paths(&self) -> impl Iterator<Item = &str> {
        let root = self.privileges.contains(&ACCESS_NETWORK).then_some("/");
        self.exact().iter().map(String::as_str).chain(root)
    }

    /// Privileges that are not in effect.
    pub(crate) fn missing(&self, held: &Held) -> Vec<&'static str> {
        let has = |privilege: &str| {
            self.exact().iter().any(|path| held.has(path, privilege))
                // download-url takes this one, or two others on `/` (`permissions` of that call in the API schema).
                || privilege == ACCESS_NETWORK && held.has("/", "Sys.Audit") && held.has("/", "Sys.Modify")
        };
        self.privileges
            .iter()
            .copied()
            .filter(|w| !has(w) && !also_enough(w).iter().any(|other| has(other)))
            .collect()
    }

    /// The `pveum` commands that give it to a user or API token, safe to run twice.
    ///
    /// A role on a deeper path replaces what is inherited there, so it names everything that is needed on that path and not
    /// only what is missing. A role that an earlier run made gets the new privileges added. A token with privilege
    /// separation has at most the rights of its user, so both get the role.
    pub fn pveum(&self, authid: &str) -> String {
        // `!` starts a history expansion in an interactive bash, where these lines are pasted.
        let quoted = |text: &str| match text {
            text if text.contains('!') && !text.contains('\'') => format!("'{text}'"),
            text => shell_words::quote(text).into_owned(),
        };
        let whom = match authid.split_once('!') {
            Some((user, _)) => format!("--users {} --tokens {}", quoted(user), quoted(authid)),
            None => format!("--users {}", quoted(authid)),
        };
        let (role, privileges) = (&self.role, quoted(&self.privileges.join(",")));
        format!(
            "pveum role add {role} --privs {privileges} || pveum role modify {role} --append 1 --privs {privileges}; \
             pveum acl modify {} {whom} --roles {role}",
            quoted(&self.path)
        )
    }
}

/// What a build of `spec` needs on a cluster of this major version, path by path.
///
/// `virtual_networks` are those of the spec's networks that are no bridges of the node: their path goes over a zone that the
/// list of networks does not tell, and PVE's own refusal names it then.
pub(crate) fn grants_with(spec: &ImageSpec, pve_major: u32, vm_path: &str, virtual_networks: &[&str]) -> Vec<Grant> {
    grants_of(spec, Needs::of(spec, pve_major), vm_path, virtual_networks)
}

pub(super) fn grants_of(spec: &ImageSpec, needs: Needs, vm_path: &str, virtual_networks: &[&str]) -> Vec<Grant> {
    let mut grants = Vec::new();
    match &spec.pool {
        None => {
            let mut on_vm = Grant::new("/vms".to_owned(), "K3simageVM", on_vm(needs));
            on_vm.also_on = vec![vm_path.to_owned()];
            grants.push(on_vm);
        }
        // A new VM's rights may come from the pool that it joins, while it is made and afterwards.
        Some(pool) => {
            let path = format!("/pool/{pool}");
            let mut on_vm = Grant::new(path.clone(), "K3simageVM", on_vm(needs));
            on_vm.also_on = vec![path.clone(), vm_path.to_owned()];
            grants.push(on_vm);
            grants.push(Grant::new(path, "K3simagePool", ON_POOL.to_vec()));
        }
    }
    let iso_storage = match &spec.installer.iso {
        IsoSource::Volid(volid) if !needs.uploads => volid.storage(),
        _ => spec.installer.iso_storage.clone(),
    };
    grants.push(Grant::new(
        format!("/storage/{iso_storage}"),
        "K3simageISO",
        on_iso_storage(needs),
    ));
    if let IsoSource::Volid(volid) = &spec.installer.iso
        && volid.storage() != iso_storage
    {
        // The installer lies elsewhere: it is looked for there, and put into the VM's drive.
        grants.push(Grant::new(
            format!("/storage/{}", volid.storage()),
            "K3simageInstaller",
            ON_INSTALLER_STORAGE.to_vec(),
        ));
    }
    for storage in spec.disk_storages() {
        grants.push(Grant::new(
            format!("/storage/{storage}"),
            "K3simageDisk",
            ON_DISK_STORAGE.to_vec(),
        ));
    }
    for nic in &spec.nics {
        if virtual_networks.contains(&nic.bridge.as_str()) {
            continue;
        }
        let path = match nic.vlan {
            None => format!("/sdn/zones/localnetwork/{}", nic.bridge),
            Some(tag) => format!("/sdn/zones/localnetwork/{}/{tag}", nic.bridge),
        };
        grants.push(Grant::new(path, "K3simageNetwork", ON_BRIDGE.to_vec()));
    }
    if needs.downloads {
        grants.push(Grant::new(
            format!("/nodes/{}", spec.node),
            "K3simageDownload",
            vec![ACCESS_NETWORK],
        ));
    }
    merged(grants)
}

/// One grant a path and role: what stands on the same storage or bridge twice is asked for once.
fn merged(grants: Vec<Grant>) -> Vec<Grant> {
    let mut merged: Vec<Grant> = Vec::new();
    for grant in grants {
        let storage = grant.path.starts_with("/storage/") || grant.path.starts_with("/sdn/");
        match merged.iter_mut().find(|known| known.path == grant.path && storage) {
            Some(known) => {
                for privilege in grant.privileges {
                    if !known.privileges.contains(&privilege) {
                        known.privileges.push(privilege);
                    }
                }
                if known.role != grant.role {
                    "K3simageStorage".clone_into(&mut known.role);
                    // Space to allocate lets one list as well: to ask for both would be one too many.
                    let space = known.privileges.contains(&"Datastore.AllocateSpace");
                    known.privileges.retain(|p| !(space && *p == "Datastore.Audit"));
                }
            }
            None => merged.push(grant),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Needs = Needs {
        pve_major: 9,
        types_keys: true,
        asks_agent: true,
        agent_exec: false,
        cloud_init: true,
        downloads: false,
        uploads: true,
        deletes_iso: true,
    };

    fn lacks(path: &str, privileges: &[&str], wanted: Vec<&'static str>) -> Vec<&'static str> {
        let held: serde_json::Map<String, serde_json::Value> =
            privileges.iter().map(|p| ((*p).to_owned(), 1.into())).collect();
        let permissions: Permissions = serde_json::from_value(serde_json::json!({ path: held })).unwrap();
        let grant = Grant::new("/vms/9000".to_owned(), "X", wanted);
        grant.missing(&Held::of(std::slice::from_ref(&grant), &permissions))
    }

    #[test]
    fn each_privilege_that_is_taken_away_is_named_alone() {
        for major in [8, 9] {
            let wanted = on_vm(Needs {
                pve_major: major,
                ..ALL
            });
            for removed in &wanted {
                let rest: Vec<&str> = wanted.iter().filter(|w| *w != removed).copied().collect();
                assert_eq!(lacks("/vms", &rest, wanted.clone()), [*removed], "PVE {major}");
            }
        }
    }

    #[test]
    fn the_agent_privilege_follows_the_version_and_the_use() {
        let agent = |pve_major, asks_agent, agent_exec| {
            let wanted = on_vm(Needs {
                pve_major,
                asks_agent,
                agent_exec,
                ..ALL
            });
            wanted
                .into_iter()
                .filter(|w| w.contains("Agent") || w.contains("Monitor"))
                .collect::<Vec<_>>()
        };
        assert_eq!(agent(8, true, false), ["VM.Monitor"]);
        assert_eq!(agent(8, true, true), ["VM.Monitor"]);
        assert_eq!(agent(9, true, false), ["VM.GuestAgent.Audit"]);
        assert_eq!(agent(9, true, true), ["VM.GuestAgent.Unrestricted"]);
        assert!(agent(9, false, false).is_empty());
        assert!(lacks("/", &["VM.GuestAgent.Unrestricted"], vec!["VM.GuestAgent.Audit"]).is_empty());
    }

    #[test]
    fn pveum_lines_quote_what_a_shell_would_change() {
        let grant = |path: &str, privileges| Grant::new(path.to_owned(), "K3simageISO", privileges);
        assert_eq!(
            grant("/storage/local", vec!["Datastore.Audit", "Datastore.Allocate"]).pveum("packer@pve!build"),
            "pveum role add K3simageISO --privs Datastore.Audit,Datastore.Allocate || \
             pveum role modify K3simageISO --append 1 --privs Datastore.Audit,Datastore.Allocate; \
             pveum acl modify /storage/local --users packer@pve --tokens 'packer@pve!build' --roles K3simageISO"
        );
        assert!(
            grant("/vms", vec!["VM.Audit"])
                .pveum("root@pam")
                .ends_with("pveum acl modify /vms --users root@pam --roles K3simageISO")
        );
    }

    #[test]
    fn a_pool_may_lend_the_rights_on_its_new_vm() {
        let mut spec = crate::preset::spec();
        spec.pool = Some("images".parse().unwrap());
        let grants = grants_with(&spec, 9, "/vms/100", &[]);
        assert_eq!(
            (grants[0].path.as_str(), grants[1].path.as_str()),
            ("/pool/images", "/pool/images")
        );
        assert_eq!(grants[1].privileges, ["Pool.Audit"]);
        for path in ["/pool/images", "/vms"] {
            let privileges: serde_json::Map<String, serde_json::Value> = grants[0]
                .privileges
                .iter()
                .map(|p| ((*p).to_owned(), 1.into()))
                .collect();
            let permissions: Permissions = serde_json::from_value(serde_json::json!({ path: privileges })).unwrap();
            let held = Held::of(&grants[..1], &permissions);
            assert!(grants[0].missing(&held).is_empty(), "{path}");
            assert_eq!(grants[1].missing(&held), ["Pool.Audit"], "{path}");
        }
    }

    #[test]
    fn a_storage_for_both_is_asked_for_once_and_for_no_privilege_too_many() {
        let mut spec = crate::preset::spec();
        spec.installer.iso_storage = "local-lvm".parse().unwrap();
        let grants = grants_with(&spec, 9, "/vms/100", &[]);
        let on: Vec<&Grant> = grants.iter().filter(|g| g.path == "/storage/local-lvm").collect();
        assert_eq!(on.len(), 1, "{grants:?}");
        assert_eq!(on[0].role, "K3simageStorage");
        assert_eq!(
            on[0].privileges,
            [
                "Datastore.AllocateTemplate",
                "Datastore.Allocate",
                "Datastore.AllocateSpace"
            ]
        );
    }
}
