//! `/access/roles`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Call, Outcome, Routes};
use crate::state::Access;
use crate::wire::{Answer, Failure};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access/roles", roles);
    routes.add("POST /access/roles", create_role);
    routes.add("GET /access/roles/{roleid}", role);
    routes.add("PUT /access/roles/{roleid}", update_role);
    routes.add("DELETE /access/roles/{roleid}", delete_role);
}

async fn roles(call: Call) -> Outcome {
    let access = call.world.access();
    let list: Vec<Value> = access
        .roles
        .iter()
        .map(|(id, privileges)| {
            let privileges: Vec<&str> = privileges.iter().map(String::as_str).collect();
            json!({ "roleid": id, "special": i32::from(Access::is_built_in(id)), "privs": privileges.join(",") })
        })
        .collect();
    Ok(Value::from(list).into())
}

async fn role(call: Call) -> Outcome {
    let id = call.params.required("roleid")?;
    let access = call.world.access();
    let role = access
        .roles
        .get(&id)
        .ok_or_else(|| Failure::die(format!("role '{id}' does not exist")))?;
    let have: Map<String, Value> = role.iter().map(|p| (p.clone(), 1.into())).collect();
    Ok(Value::from(have).into())
}

/// The privileges given for a role.
///
/// # Errors
/// 400 as the format `pve-priv` words it: "privs: invalid format - invalid privilege 'VM.Monitor'" is what PVE 9 says to
/// scripts written for 8.
fn given_privileges(call: &Call) -> Result<BTreeSet<String>, Failure> {
    let known = call.world.access().all_privileges();
    let given: BTreeSet<String> = call.params.list("privs").into_iter().collect();
    match given.iter().find(|p| !known.contains(*p)) {
        Some(unknown) => Err(Failure::param(
            "privs",
            format!("invalid format - invalid privilege '{unknown}'"),
        )),
        None => Ok(given),
    }
}

async fn create_role(call: Call) -> Outcome {
    let id = call.params.required("roleid")?;
    let privileges = given_privileges(&call)?;
    // The prefix is kept for built-in roles (pve-access-control 8.0.0).
    if id.to_ascii_uppercase().starts_with("PVE") {
        return Err(Failure::param(
            "roleid",
            "cannot use role ID starting with the (case-insensitive) 'PVE' namespace",
        ));
    }
    if call.world.access().roles.contains_key(&id) {
        return Err(Failure::die(format!("create role failed: role '{id}' already exists")));
    }
    call.world.change_access(|access| access.roles.insert(id, privileges));
    Ok(Answer::null())
}

async fn update_role(call: Call) -> Outcome {
    let id = call.params.required("roleid")?;
    let privileges = given_privileges(&call)?;
    if Access::is_built_in(&id) {
        return Err(Failure::die(format!("auto-generated role '{id}' cannot be modified")));
    }
    let append = call.params.flag("append") == Some(true);
    let known = call.world.change_access(|access| {
        let role = access.roles.get_mut(&id)?;
        if !append {
            role.clear();
        }
        role.extend(privileges);
        Some(())
    });
    known
        .map(|()| Answer::null())
        .ok_or_else(|| Failure::die(format!("role '{id}' does not exist")))
}

async fn delete_role(call: Call) -> Outcome {
    let id = call.params.required("roleid")?;
    if Access::is_built_in(&id) {
        return Err(Failure::die(format!("auto-generated role '{id}' cannot be deleted")));
    }
    let gone = call.world.change_access(|access| {
        access.acl.retain(|a| a.role != id);
        access.roles.remove(&id)
    });
    gone.map(|_| Answer::null())
        .ok_or_else(|| Failure::die(format!("role '{id}' does not exist")))
}
