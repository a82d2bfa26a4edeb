//! The permission checks that the schema attaches to calls (`PVE::RPCEnvironment::exec_api2_perm_check`).

use serde_json::Value;

use super::Call;
use crate::schema::{Endpoint, Permissions};
use crate::state::{Access, Identity};
use crate::wire::Failure;

/// Checks the rights the schema asks for. What it only describes in words, the handlers check.
///
/// # Errors
/// 403 with PVE's detail (`FACTS` 12).
pub(crate) fn check_permission(endpoint: &Endpoint, call: &Call) -> Result<(), Failure> {
    // A token of root is not root here either (FACTS 14).
    if call.who.is_root() {
        return Ok(());
    }
    match &endpoint.permissions {
        Permissions::World | Permissions::All => Ok(()),
        Permissions::Root => Err(Failure::permission("user != root@pam")),
        Permissions::Check(check) => expression(check, call),
    }
}

fn expression(check: &Value, call: &Call) -> Result<(), Failure> {
    let parts = check.as_array().map(Vec::as_slice).unwrap_or_default();
    match parts.first().and_then(Value::as_str) {
        Some("and") => parts[1..].iter().try_for_each(|part| expression(part, call)),
        Some("or") => {
            if parts[1..].iter().any(|part| expression(part, call).is_ok()) {
                return Ok(());
            }
            Err(Failure::permission(""))
        }
        Some("perm") => privileges(parts, call),
        // A path that cannot be is the handler's to refuse.
        Some("perm-modify") => match call.params.text("path").as_deref().and_then(normal_path) {
            Some(path) => may_modify(&call.world.access(), &call.who, &path),
            None => Ok(()),
        },
        Some("userid-param") => {
            let userid = call.params.text("userid").unwrap_or_default();
            match parts.get(1).and_then(Value::as_str) {
                Some("self") if userid == call.who.full() => Ok(()),
                Some("Realm.AllocateUser") => {
                    let realm = userid.rsplit_once('@').map_or("", |(_, realm)| realm);
                    let path = format!("/access/realm/{realm}");
                    call.world.access().require(&call.who, &path, &["Realm.AllocateUser"])
                }
                _ => Err(Failure::permission("")),
            }
        }
        Some("userid-group") => userid_group(parts, call),
        _ => Err(Failure::permission("")),
    }
}

/// Rights on all users, or on a group that the user is in or is to be put into.
fn userid_group(parts: &[Value], call: &Call) -> Result<(), Failure> {
    let wanted = texts(parts.get(1));
    let access = call.world.access();
    let param = option(parts, "groups_param").and_then(Value::as_str);
    let userid = call.params.text("userid").unwrap_or_default();
    let existing = param != Some("create");
    if existing && !access.users.contains_key(&userid) {
        return Err(Failure::permission(&format!("user '{userid}' does not exist")));
    }
    if access.has_any(&call.who, "/access/groups", &wanted) {
        return Ok(());
    }
    let on = |group: &str| access.has_any(&call.who, &format!("/access/groups/{group}"), &wanted);
    if param.is_some() {
        let groups = call.params.list("groups");
        let detail = wanted.join("|");
        if groups.is_empty() {
            return Err(Failure::permission(&format!("/access/groups, {detail}")));
        }
        if let Some(closed) = groups.iter().find(|g| !on(g)) {
            return Err(Failure::permission(&format!("/access/groups/{closed}, {detail}")));
        }
    }
    let mut mine = access.groups.iter().filter(|(_, group)| group.users.contains(&userid));
    if existing && !mine.any(|(id, _)| on(id)) {
        return Err(Failure::permission(""));
    }
    Ok(())
}

/// Who may change the access control list on a path (`RPCEnvironment::check_perm_modify`).
///
/// # Errors
/// 403 with the privileges that allow it there.
pub(super) fn may_modify(access: &Access, who: &Identity, path: &str) -> Result<(), Failure> {
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    let mut any = vec!["Permissions.Modify"];
    if below("/storage/") {
        any.push("Datastore.Allocate");
    } else if below("/vms/") {
        any.push("VM.Allocate");
    } else if below("/pool/") {
        any.push("Pool.Allocate");
    }
    access.require_any(who, path, &any)
}

/// A path in the form in which entries are kept; `None` for characters that no path has.
pub(super) fn normal_path(path: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if path.is_empty() || !path.chars().all(good) {
        return None;
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    Some(format!("/{}", segments.join("/")))
}

/// The value after a name in a check expression.
fn option<'a>(parts: &'a [Value], name: &str) -> Option<&'a Value> {
    let at = parts.iter().position(|p| p.as_str() == Some(name))?;
    parts.get(at + 1)
}

fn privileges(parts: &[Value], call: &Call) -> Result<(), Failure> {
    let template = parts.get(1).and_then(Value::as_str).unwrap_or_default();
    let wanted = texts(parts.get(2));
    if let Some(needed) = option(parts, "require_param").and_then(Value::as_str)
        && !call.params.contains(needed)
    {
        return Err(Failure::permission(""));
    }
    let any = option(parts, "any").is_some_and(|v| v != &Value::from(0));
    let path = fill(template, call);
    let access = call.world.access();
    // PVE forgets a path that it cannot normalise, and then denies (recorded for `/storage/ä`).
    let Some(path) = path else {
        let text = if any {
            wanted.join("|")
        } else {
            wanted.first().copied().unwrap_or_default().to_owned()
        };
        return Err(Failure::permission(&format!(", {text}")));
    };
    if any {
        access.require_any(&call.who, &path, &wanted)
    } else {
        access.require(&call.who, &path, &wanted)
    }
}

fn texts(value: Option<&Value>) -> Vec<&str> {
    value
        .and_then(Value::as_array)
        .map(|a| a.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Puts parameters into `/vms/{vmid}`; `None` for a path that PVE does not know how to normalise.
fn fill(template: &str, call: &Call) -> Option<String> {
    let mut path = String::new();
    for segment in template.split('/').filter(|s| !s.is_empty()) {
        let value = match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => call.params.text(name).unwrap_or_default(),
            None => segment.to_owned(),
        };
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.@:".contains(c);
        // PVE drops empty segments: `/vms/` with a vmid that was not given is `/vms`.
        if value.is_empty() {
            continue;
        }
        if !value.chars().all(good) {
            return None;
        }
        path = format!("{path}/{value}");
    }
    Some(if path.is_empty() { "/".to_owned() } else { path })
}
