//! `/access/acl`: who has which role where.

use serde_json::{Value, json};

use super::tokens::no_such_token;
use super::{Call, Outcome, Routes};
use crate::api::permission::{may_modify, normal_path};
use crate::state::{Access, Acl, Identity};
use crate::wire::{Answer, Failure};

/// The paths that an entry can stand on, besides single VMs and VLANs; `*` is any one segment.
///
/// # Source
/// `PVE::AccessControl::check_path`.
const PATHS: [&str; 30] = [
    "/",
    "/access",
    "/access/groups",
    "/access/groups/*",
    "/access/realm",
    "/access/realm/*",
    "/mapping",
    "/mapping/*",
    "/mapping/*/*",
    "/nodes",
    "/nodes/*",
    "/pool",
    "/pool/*",
    "/pool/*/*",
    "/pool/*/*/*",
    "/sdn",
    "/sdn/controllers",
    "/sdn/controllers/*",
    "/sdn/dns",
    "/sdn/dns/*",
    "/sdn/fabrics",
    "/sdn/fabrics/*",
    "/sdn/ipams",
    "/sdn/ipams/*",
    "/sdn/zones",
    "/sdn/zones/*",
    "/sdn/zones/*/*",
    "/storage",
    "/storage/*",
    "/vms",
];

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access/acl", acl);
    routes.add("PUT /access/acl", update_acl);
}

/// Whether an entry may stand on a path.
fn is_path(path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    // Numbers have rules of their own.
    match segments.as_slice() {
        ["vms", vmid] => {
            return vmid.len() >= 3 && !vmid.starts_with('0') && vmid.bytes().all(|b| b.is_ascii_digit());
        }
        ["sdn", "zones", _, _, tag] => {
            return matches!(tag.len(), 1..=4) && !tag.starts_with('0') && tag.bytes().all(|b| b.is_ascii_digit());
        }
        _ => {}
    }
    PATHS.iter().any(|known| {
        let known: Vec<&str> = known.split('/').skip(1).collect();
        known.len() == segments.len() && known.iter().zip(&segments).all(|(k, s)| *k == "*" || k == s)
    })
}

fn kind(who: &str) -> &'static str {
    if who.starts_with('@') {
        "group"
    } else if who.contains('!') {
        "token"
    } else {
        "user"
    }
}

async fn acl(call: Call) -> Outcome {
    let access = call.world.access();
    let all = access.has(&call.who, "/access", "Sys.Audit");
    let list: Vec<Value> = access
        .acl
        .iter()
        .filter(|a| all || may_modify(&access, &call.who, &a.path).is_ok())
        .map(|a| {
            json!({
                "path": a.path, "ugid": a.who.trim_start_matches('@'), "roleid": a.role,
                "propagate": i32::from(a.propagate), "type": kind(&a.who),
            })
        })
        .collect();
    Ok(Value::from(list).into())
}

/// Those whom the call names, as entries name them.
fn named(call: &Call) -> Vec<String> {
    let groups = call.params.list("groups").into_iter().map(|g| format!("@{g}"));
    let users = call.params.list("users").into_iter();
    groups.chain(users).chain(call.params.list("tokens")).collect()
}

async fn update_acl(call: Call) -> Outcome {
    let who = named(&call);
    if who.is_empty() {
        let text = "either 'users', 'groups' or 'tokens' is required.";
        let errors = ["users", "groups", "tokens"].map(|key| (key.to_owned(), text.to_owned()));
        return Err(Failure::params(errors.into()));
    }
    let given = call.params.required("path")?;
    let delete = call.params.flag("delete") == Some(true);
    let path = normal_path(&given)
        .filter(|path| delete || is_path(path))
        .ok_or_else(|| Failure::param("path", format!("invalid ACL path '{given}'")))?;
    let roles = call.params.list("roles");
    let propagate = call.params.flag("propagate").unwrap_or(true);
    {
        let access = call.world.access();
        for role in &roles {
            may_hand_out(&access, &call.who, &path, role, propagate)?;
            who.iter().try_for_each(|one| exists(&access, one))?;
        }
    }
    call.world.change_access(|access| {
        for one in who {
            for role in &roles {
                access
                    .acl
                    .retain(|a| !(a.path == path && a.who == one && a.role == *role));
                if !delete {
                    let entry = Acl {
                        path: path.clone(),
                        who: one.clone(),
                        role: role.clone(),
                        propagate,
                    };
                    access.acl.push(entry);
                }
            }
        }
    });
    Ok(Answer::null())
}

/// Who may change entries only because of `VM.Allocate` and the like hands out no more than they hold there.
///
/// # Source
/// pve-access-control 8.0.0~2 and 8.2.0 (changelog); the text of the refusal is not recorded.
fn may_hand_out(access: &Access, who: &Identity, path: &str, role: &str, propagate: bool) -> Result<(), Failure> {
    let Some(privileges) = access.roles.get(role) else {
        return Err(Failure::die(format!("ACL update failed: role '{role}' does not exist")));
    };
    let held = access.privileges(who, path);
    if held.contains_key("Permissions.Modify") {
        return Ok(());
    }
    let enough = |p: &String| held.get(p).is_some_and(|handed_down| *handed_down || !propagate);
    match privileges.iter().find(|p| !enough(p)) {
        Some(_) => Err(Failure::permission(&format!("{path}, Permissions.Modify"))),
        None => Ok(()),
    }
}

fn exists(access: &Access, one: &str) -> Result<(), Failure> {
    if let Some(group) = one.strip_prefix('@') {
        return match access.groups.get(group) {
            Some(_) => Ok(()),
            None => Err(Failure::die(format!(
                "ACL update failed: group '{group}' does not exist"
            ))),
        };
    }
    let (userid, token) = one.split_once('!').map_or((one, None), |(u, t)| (u, Some(t)));
    let user = access
        .users
        .get(userid)
        .ok_or_else(|| Failure::die(format!("ACL update failed: user '{userid}' does not exist")))?;
    match token.filter(|name| !user.tokens.contains_key(*name)) {
        Some(name) => {
            let failure = no_such_token(name, userid);
            Err(Failure::die(format!("ACL update failed: {}", failure.message)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_on_known_paths() {
        for (path, good) in [
            ("/", true),
            ("/vms", true),
            ("/vms/100", true),
            ("/vms/99", false),
            ("/vms/0100", false),
            ("/storage/local", true),
            ("/storage/local/iso", false),
            ("/pool/a/b/c", true),
            ("/pool/a/b/c/d", false),
            ("/sdn/zones/localnetwork/vmbr0", true),
            ("/sdn/zones/localnetwork/vmbr0/12", true),
            ("/sdn/zones/localnetwork/vmbr0/x", false),
            ("/nosuch", false),
        ] {
            assert_eq!(is_path(path), good, "{path}");
        }
    }
}
