//! Who may do what where: roles along a path, pools, groups, and a token within the rights of its user.

use std::collections::{BTreeMap, BTreeSet};

use super::{Access, Identity, Pool};
use crate::wire::Failure;

impl Access {
    /// The privileges of `who` on `path`, with whether each holds below the path too.
    pub(crate) fn privileges(&self, who: &Identity, path: &str) -> BTreeMap<String, bool> {
        let Some(name) = &who.token else {
            return self.user_privileges(&who.user, path);
        };
        let of_user = self.user_privileges(&who.user, path);
        let privsep = self
            .users
            .get(&who.user)
            .and_then(|u| u.tokens.get(name))
            .is_none_or(|t| t.privsep);
        if !privsep {
            return of_user;
        }
        let of_token = self.acl_privileges(&who.full(), path).into_iter();
        of_token
            .filter_map(|(privilege, propagate)| {
                let of_user = of_user.get(&privilege)?;
                Some((privilege, propagate && *of_user))
            })
            .collect()
    }

    fn user_privileges(&self, user: &str, path: &str) -> BTreeMap<String, bool> {
        if user == "root@pam" {
            return self.all_privileges().into_iter().map(|p| (p, true)).collect();
        }
        self.acl_privileges(user, path)
    }

    /// What the access control list gives on a path: the roles there, and those of the pools that the VM or storage is in.
    fn acl_privileges(&self, who: &str, path: &str) -> BTreeMap<String, bool> {
        let mut found = self.roles_on(who, path);
        if !found.contains_key("NoAccess") {
            let of_pools: Vec<String> = self
                .pools_with(path)
                .flat_map(|pool| self.roles_on(who, &format!("/pool/{pool}")).into_keys())
                .collect();
            for role in of_pools {
                // What a pool lends is never handed down, and its NoAccess beats what an entry gives.
                found.entry(role).or_insert(false);
            }
        }
        let mut privileges = BTreeMap::new();
        if found.contains_key("NoAccess") {
            return privileges;
        }
        for (role, propagate) in found {
            for privilege in self.roles.get(&role).into_iter().flatten() {
                *privileges.entry(privilege.clone()).or_insert(false) |= propagate;
            }
        }
        privileges
    }

    /// The pools whose member a path names.
    fn pools_with<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a String> {
        let vmid = path.strip_prefix("/vms/").and_then(|v| v.parse::<u32>().ok());
        let storage = path.strip_prefix("/storage/");
        let has = move |pool: &Pool| {
            vmid.is_some_and(|v| pool.vms.contains(&v)) || storage.is_some_and(|s| pool.storages.contains(s))
        };
        self.pools.iter().filter(move |(_, pool)| has(pool)).map(|(id, _)| id)
    }

    /// The roles in effect on a path, each with whether it is handed down.
    ///
    /// Entries on a longer path replace those above it; a user's own entries on a path replace those of its groups there.
    /// A token has only its own.
    ///
    /// # Source
    /// `PVE::AccessControl::roles`.
    fn roles_on(&self, who: &str, path: &str) -> BTreeMap<String, bool> {
        let mut prefixes = vec!["/".to_owned()];
        let mut prefix = String::new();
        for segment in path.split('/').filter(|s| !s.is_empty()) {
            prefix = format!("{prefix}/{segment}");
            prefixes.push(prefix.clone());
        }
        let last = prefixes.len() - 1;
        let mut roles = BTreeMap::new();
        for (index, prefix) in prefixes.iter().enumerate() {
            let here = |holds: &dyn Fn(&str) -> bool| -> BTreeMap<String, bool> {
                self.acl
                    .iter()
                    .filter(|a| a.path == *prefix && (a.propagate || index == last) && holds(&a.who))
                    .map(|a| (a.role.clone(), a.propagate))
                    .collect()
            };
            let mut found = here(&|one| one == who);
            if found.is_empty() {
                found = here(&|one| self.is_member(one, who));
            }
            if !found.is_empty() {
                roles = found;
            }
        }
        roles
    }

    /// Whether `who` is a user of the group that an entry names as `@group`.
    fn is_member(&self, entry: &str, who: &str) -> bool {
        let group = entry.strip_prefix('@').and_then(|g| self.groups.get(g));
        group.is_some_and(|g| g.users.contains(who))
    }

    /// The paths that `/access/permissions` tells of (`RPCEnvironment::get_effective_permissions`).
    pub(crate) fn told_paths(&self) -> BTreeSet<String> {
        let fixed = [
            "/",
            "/access",
            "/access/groups",
            "/nodes",
            "/pool",
            "/sdn",
            "/storage",
            "/vms",
        ];
        let mut paths: BTreeSet<String> = fixed.map(str::to_owned).into();
        paths.extend(self.acl.iter().map(|a| a.path.clone()));
        for pool in self.pools.values() {
            paths.extend(pool.vms.iter().map(|vmid| format!("/vms/{vmid}")));
            paths.extend(pool.storages.iter().map(|id| format!("/storage/{id}")));
        }
        paths
    }

    pub(crate) fn has(&self, who: &Identity, path: &str, privilege: &str) -> bool {
        self.privileges(who, path).contains_key(privilege)
    }

    /// Whether `who` has a privilege on one VM or another, for lists of many: all that have no entry of their own and are in no
    /// pool share the answer.
    pub(crate) fn on_vms(&self, who: &Identity, privilege: &str) -> impl Fn(u32) -> bool {
        let of_acl = self
            .acl
            .iter()
            .filter_map(|entry| entry.path.strip_prefix("/vms/")?.parse().ok());
        let of_pools = self.pools.values().flat_map(|pool| pool.vms.iter().copied());
        let own: BTreeMap<u32, bool> = of_acl
            .chain(of_pools)
            .map(|vmid| (vmid, self.has(who, &format!("/vms/{vmid}"), privilege)))
            .collect();
        // No VM has this number.
        let others = self.has(who, "/vms/0", privilege);
        move |vmid| own.get(&vmid).copied().unwrap_or(others)
    }

    /// Whether `who` has any of `privileges` on `path`.
    pub(crate) fn has_any(&self, who: &Identity, path: &str, privileges: &[&str]) -> bool {
        let have = self.privileges(who, path);
        privileges.iter().any(|p| have.contains_key(*p))
    }

    /// # Errors
    /// 403 that names the first privilege missing.
    pub(crate) fn require(&self, who: &Identity, path: &str, privileges: &[&str]) -> Result<(), Failure> {
        let have = self.privileges(who, path);
        match privileges.iter().find(|p| !have.contains_key(**p)) {
            Some(missing) => Err(Failure::permission(&format!("{path}, {missing}"))),
            None => Ok(()),
        }
    }

    /// # Errors
    /// 403 that names all of `privileges`.
    pub(crate) fn require_any(&self, who: &Identity, path: &str, privileges: &[&str]) -> Result<(), Failure> {
        if self.has_any(who, path, privileges) {
            return Ok(());
        }
        Err(Failure::permission(&format!("{path}, {}", privileges.join("|"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Group;
    use crate::state::access::tests::{access, acl};

    #[test]
    fn longer_paths_replace_shorter_ones() {
        let access = access();
        let user = Identity {
            user: "a@pve".into(),
            token: None,
        };
        let full = Identity {
            token: Some("full".into()),
            ..user.clone()
        };
        let sep = Identity {
            token: Some("sep".into()),
            ..user.clone()
        };
        let cases = [
            (&user, "/vms/101", "VM.Audit", true),
            (&user, "/vms/101", "VM.PowerMgmt", false),
            (&user, "/vms/100", "VM.PowerMgmt", true),
            (&user, "/vms/100", "VM.Audit", true),
            (&user, "/vms/100", "Datastore.Audit", false),
            (&user, "/nodes", "Sys.Console", true),
            (&user, "/nodes/pve", "Sys.Console", false),
            (&user, "/nodes/pve", "Sys.Audit", true),
            (&user, "/storage/x", "Datastore.Audit", false),
            (&full, "/vms/100", "VM.PowerMgmt", true),
            (&sep, "/vms/100", "VM.PowerMgmt", true),
            (&sep, "/vms/101", "VM.PowerMgmt", false),
            (&sep, "/vms/101", "VM.Audit", true),
            (&sep, "/nodes/pve", "Sys.Audit", false),
        ];
        for (who, path, privilege, expected) in cases {
            assert_eq!(
                access.has(who, path, privilege),
                expected,
                "{} {path} {privilege}",
                who.full()
            );
        }
    }

    #[test]
    fn pools_lend_rights_to_their_members() {
        let mut access = access();
        access.pools.insert(
            "p".into(),
            Pool {
                vms: BTreeSet::from([7]),
                ..Pool::default()
            },
        );
        access.acl.push(acl("/pool/p", "a@pve", "PVEVMAdmin", true));
        let user = Identity {
            user: "a@pve".into(),
            token: None,
        };
        assert!(access.has(&user, "/vms/7", "VM.Allocate"));
        assert!(!access.has(&user, "/vms/8", "VM.Allocate"));
        for privilege in ["VM.Allocate", "VM.Audit", "VM.PowerMgmt"] {
            let at_once = access.on_vms(&user, privilege);
            for vmid in [7, 8, 100, 101] {
                let alone = access.has(&user, &format!("/vms/{vmid}"), privilege);
                assert_eq!(at_once(vmid), alone, "{privilege} on {vmid}");
            }
        }
        let lent = access.privileges(&user, "/vms/7");
        assert_eq!(
            (lent["VM.Allocate"], lent["VM.Audit"]),
            (false, true),
            "lent, and from /"
        );
        access.acl.push(acl("/pool/p", "a@pve", "NoAccess", true));
        assert!(
            access.privileges(&user, "/vms/7").is_empty(),
            "a pool's NoAccess closes its members"
        );
        access.acl.pop();
        access.acl.push(acl("/vms/7", "a@pve", "NoAccess", true));
        assert!(
            access.privileges(&user, "/vms/7").is_empty(),
            "a pool opens nothing that is closed"
        );
    }

    #[test]
    fn groups_hand_their_roles_to_users_and_not_to_tokens() {
        let mut access = access();
        let users = BTreeSet::from(["a@pve".to_owned()]);
        access.groups.insert("ops".into(), Group { comment: None, users });
        access.acl.push(acl("/sdn", "@ops", "PVESDNAdmin", true));
        access.acl.push(acl("/vms/100", "@ops", "PVEVMAdmin", true));
        access.acl.push(acl("/sdn", "a@pve!sep", "PVESDNUser", true));
        let user = Identity {
            user: "a@pve".into(),
            token: None,
        };
        let sep = Identity {
            token: Some("sep".into()),
            ..user.clone()
        };
        for (who, path, privilege, expected) in [
            (&user, "/sdn/zones", "SDN.Allocate", true),
            (&user, "/sdn/zones", "Sys.Audit", false),
            (&user, "/vms/100", "VM.Allocate", false),
            (&user, "/vms/100", "VM.PowerMgmt", true),
            (&sep, "/sdn/zones", "SDN.Use", true),
            (&sep, "/sdn/zones", "SDN.Allocate", false),
        ] {
            assert_eq!(
                access.has(who, path, privilege),
                expected,
                "{} {path} {privilege}",
                who.full()
            );
        }
    }
}
