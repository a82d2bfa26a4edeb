//! `/access/groups`.
//!
//! No recording has a group: rights, texts and shapes are those of `PVE/API2/Group.pm`.

use serde_json::{Map, Value};

use super::{Call, Outcome, Routes};
use crate::state::Group;
use crate::wire::{Answer, Failure};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access/groups", groups);
    routes.add("POST /access/groups", create_group);
    routes.add("GET /access/groups/{groupid}", group);
    routes.add("PUT /access/groups/{groupid}", update_group);
    routes.add("DELETE /access/groups/{groupid}", delete_group);
}

fn no_such(attempt: &str, id: &str) -> Failure {
    Failure::die(format!("{attempt}group '{id}' does not exist"))
}

async fn groups(call: Call) -> Outcome {
    let access = call.world.access();
    let rights = &["User.Modify", "Sys.Audit", "Group.Allocate"];
    let list: Vec<Value> = access
        .groups
        .iter()
        .filter(|(id, _)| access.has_any(&call.who, &format!("/access/groups/{id}"), rights))
        .map(|(id, group)| {
            let mut entry = Map::new();
            entry.insert("groupid".into(), id.as_str().into());
            if let Some(comment) = &group.comment {
                entry.insert("comment".into(), comment.as_str().into());
            }
            let users: Vec<&str> = group.users.iter().map(String::as_str).collect();
            entry.insert("users".into(), users.join(",").into());
            entry.into()
        })
        .collect();
    Ok(Value::from(list).into())
}

async fn group(call: Call) -> Outcome {
    let id = call.params.required("groupid")?;
    let access = call.world.access();
    let group = access.groups.get(&id).ok_or_else(|| no_such("", &id))?;
    let mut entry = Map::new();
    let members: Vec<&str> = group.users.iter().map(String::as_str).collect();
    entry.insert("members".into(), members.into());
    if let Some(comment) = &group.comment {
        entry.insert("comment".into(), comment.as_str().into());
    }
    Ok(Value::from(entry).into())
}

async fn create_group(call: Call) -> Outcome {
    let id = call.params.required("groupid")?;
    if call.world.access().groups.contains_key(&id) {
        return Err(Failure::die(format!(
            "create group failed: group '{id}' already exists"
        )));
    }
    let group = Group {
        comment: call.params.text("comment").filter(|c| !c.is_empty()),
        ..Group::default()
    };
    call.world.change_access(|access| access.groups.insert(id, group));
    Ok(Answer::null())
}

async fn update_group(call: Call) -> Outcome {
    let id = call.params.required("groupid")?;
    let known = call.world.change_access(|access| {
        let group = access.groups.get_mut(&id)?;
        if let Some(comment) = call.params.text("comment") {
            group.comment = Some(comment);
        }
        Some(())
    });
    known
        .map(|()| Answer::null())
        .ok_or_else(|| no_such("update group failed: ", &id))
}

async fn delete_group(call: Call) -> Outcome {
    let id = call.params.required("groupid")?;
    let gone = call.world.change_access(|access| {
        let group = access.groups.remove(&id);
        let entry = format!("@{id}");
        access.acl.retain(|a| group.is_none() || a.who != entry);
        group
    });
    gone.map(|_| Answer::null())
        .ok_or_else(|| no_such("delete group failed: ", &id))
}
