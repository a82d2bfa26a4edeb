//! The permission checks that the schema attaches to calls (`PVE::RPCEnvironment::exec_api2_perm_check`).

use serde_json::Value;

use super::Call;
use crate::schema::{Endpoint, Permissions};
use crate::wire::Failure;

/// Checks the rights the schema asks for. What it only describes in words, the handlers check.
///
/// # Errors
/// 403 with PVE's detail (`FACTS` 12).
pub(crate) fn check_permission(endpoint: &Endpoint, call: &Call) -> Result<(), Failure> {
    match &endpoint.permissions {
        Permissions::World | Permissions::All => Ok(()),
        Permissions::Root if call.who.user == "root@pam" => Ok(()),
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
        Some("perm-modify") => {
            let path = call.params.text("path").unwrap_or_default();
            call.world
                .access()
                .require_any(&call.who, &path, &["Permissions.Modify"])
        }
        Some("userid-param") => {
            let userid = call.params.text("userid").unwrap_or_default();
            if parts.get(1).and_then(Value::as_str) == Some("self") && userid == call.who.user {
                return Ok(());
            }
            if parts.get(1).and_then(Value::as_str) == Some("Realm.AllocateUser") {
                let realm = userid.rsplit_once('@').map_or("", |(_, realm)| realm).to_owned();
                return call.world.access().require(
                    &call.who,
                    &format!("/access/realm/{realm}"),
                    &["Realm.AllocateUser"],
                );
            }
            Err(Failure::permission(""))
        }
        Some("userid-group" | "group-param") => {
            let wanted = texts(parts.get(1));
            let access = call.world.access();
            access.require_any(&call.who, "/access/groups", &wanted)
        }
        _ => Err(Failure::permission("")),
    }
}

fn privileges(parts: &[Value], call: &Call) -> Result<(), Failure> {
    let template = parts.get(1).and_then(Value::as_str).unwrap_or_default();
    let wanted = texts(parts.get(2));
    let option = |name: &str| {
        let at = parts.iter().position(|p| p.as_str() == Some(name))?;
        parts.get(at + 1)
    };
    if let Some(needed) = option("require_param").and_then(Value::as_str)
        && !call.params.contains(needed)
    {
        return Err(Failure::permission(""));
    }
    let any = option("any").is_some_and(|v| v != &Value::from(0));
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
