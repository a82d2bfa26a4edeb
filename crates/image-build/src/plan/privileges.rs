//! Which privileges a build needs, on which paths, and the `pveum` lines that grant what is missing.

use proxmox_client::Permissions;

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
        wanted.push("VM.Console");
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

/// Privileges of `wanted` that are not in effect on `path`.
pub(crate) fn missing<'a>(permissions: &Permissions, path: &str, wanted: &[&'a str]) -> Vec<&'a str> {
    let has = |privilege: &str| permissions.allows(path, privilege);
    wanted
        .iter()
        .copied()
        .filter(|w| !has(w) && !also_enough(w).iter().any(|other| has(other)))
        .collect()
}

/// The `pveum` lines that give a user or API token all of `wanted` on `path`.
///
/// A role on a deeper path replaces what is inherited there, so the line names everything that is needed on that path and
/// not only what is missing. A token with privilege separation has at most the rights of its user, so both get the role.
pub(crate) fn pveum(authid: &str, path: &str, role: &str, wanted: &[&str]) -> String {
    // `!` starts a history expansion in an interactive bash, where these lines are pasted.
    let quoted = |text: &str| match text {
        text if text.contains('!') && !text.contains('\'') => format!("'{text}'"),
        text => shell_words::quote(text).into_owned(),
    };
    let whom = match authid.split_once('!') {
        Some((user, _)) => format!("--users {} --tokens {}", quoted(user), quoted(authid)),
        None => format!("--users {}", quoted(authid)),
    };
    format!(
        "pveum role add {role} --privs {} && pveum acl modify {} {whom} --roles {role}",
        quoted(&wanted.join(",")),
        quoted(path)
    )
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

    fn permissions(path: &str, privileges: &[&str]) -> Permissions {
        let held: serde_json::Map<String, serde_json::Value> =
            privileges.iter().map(|p| ((*p).to_owned(), 1.into())).collect();
        serde_json::from_value(serde_json::json!({ path: held })).unwrap()
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
                assert_eq!(
                    missing(&permissions("/vms", &rest), "/vms/9000", &wanted),
                    [*removed],
                    "PVE {major}"
                );
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
        let unrestricted = permissions("/", &["VM.GuestAgent.Unrestricted"]);
        assert!(missing(&unrestricted, "/vms/1", &["VM.GuestAgent.Audit"]).is_empty());
    }

    #[test]
    fn pveum_lines_quote_what_a_shell_would_change() {
        assert_eq!(
            pveum(
                "packer@pve!build",
                "/storage/local",
                "K3simageStorage",
                &["Datastore.Audit", "Datastore.Allocate"]
            ),
            "pveum role add K3simageStorage --privs Datastore.Audit,Datastore.Allocate && \
             pveum acl modify /storage/local --users packer@pve --tokens 'packer@pve!build' --roles K3simageStorage"
        );
        assert!(
            pveum("root@pam", "/vms", "X", &["VM.Audit"]).ends_with("pveum acl modify /vms --users root@pam --roles X")
        );
    }
}
