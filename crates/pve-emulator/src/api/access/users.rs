//! `/access/users`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Call, Outcome, Routes};
use crate::state::{Access, Group, Secret, User};
use crate::wire::{Answer, Failure};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access/users", users);
    routes.add("POST /access/users", create_user);
    routes.add("GET /access/users/{userid}", user);
    routes.add("PUT /access/users/{userid}", update_user);
    routes.add("DELETE /access/users/{userid}", delete_user);
}

fn user_entry(userid: &str, user: &User) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("userid".into(), userid.into());
    entry.insert("enable".into(), i32::from(user.enable).into());
    entry.insert("expire".into(), user.expire.into());
    entry.insert(
        "realm-type".into(),
        userid.rsplit_once('@').map_or("", |(_, realm)| realm).into(),
    );
    for (key, text) in &user.texts {
        entry.insert(key.clone(), text.as_str().into());
    }
    entry
}

async fn users(call: Call) -> Outcome {
    let access = call.world.access();
    let full = call.params.flag("full") == Some(true);
    let rights = &["User.Modify", "Sys.Audit"];
    let may_see_all = access.has_any(&call.who, "/access/groups", rights);
    let by_group: BTreeSet<&String> = access
        .groups
        .iter()
        .filter(|(id, _)| access.has_any(&call.who, &format!("/access/groups/{id}"), rights))
        .flat_map(|(_, group)| &group.users)
        .collect();
    let list: Vec<Value> = access
        .users
        .iter()
        .filter(|(userid, _)| may_see_all || **userid == call.who.user || by_group.contains(userid))
        .filter(|(_, user)| call.params.flag("enabled").is_none_or(|wanted| wanted == user.enable))
        .map(|(userid, user)| {
            let mut entry = user_entry(userid, user);
            if full {
                entry.insert("groups".into(), groups_of(&access, userid).join(",").into());
                let tokens: Vec<Value> = user
                    .tokens
                    .iter()
                    .map(|(n, t)| super::tokens::token_entry(Some(n), t))
                    .collect();
                entry.insert("tokens".into(), tokens.into());
            }
            entry.into()
        })
        .collect();
    Ok(Value::from(list).into())
}

async fn user(call: Call) -> Outcome {
    let access = call.world.access();
    let userid = call.params.required("userid")?;
    let user = find_user(&access, &userid)?;
    let mut entry = user_entry(&userid, user);
    entry.remove("userid");
    entry.remove("realm-type");
    entry.insert("groups".into(), json!(groups_of(&access, &userid)));
    if !user.tokens.is_empty() {
        let tokens: Map<String, Value> = user
            .tokens
            .iter()
            .map(|(n, t)| (n.clone(), super::tokens::token_entry(None, t)))
            .collect();
        entry.insert("tokens".into(), tokens.into());
    }
    Ok(Value::from(entry).into())
}

/// The groups of a user, in order.
fn groups_of(access: &Access, userid: &str) -> Vec<String> {
    let has = |group: &Group| group.users.contains(userid);
    let mine = access.groups.iter().filter(|(_, group)| has(group));
    mine.map(|(id, _)| id.clone()).collect()
}

/// Puts a user into the groups that the call names, and out of the others unless it appends.
///
/// PVE passes over a group that does not exist.
fn set_groups(call: &Call, access: &mut Access, userid: &str) {
    if !call.params.contains("groups") {
        return;
    }
    if call.params.flag("append") != Some(true) {
        for group in access.groups.values_mut() {
            group.users.remove(userid);
        }
    }
    for id in call.params.list("groups") {
        if let Some(group) = access.groups.get_mut(&id) {
            group.users.insert(userid.to_owned());
        }
    }
}

pub(super) fn find_user<'a>(access: &'a Access, userid: &str) -> Result<&'a User, Failure> {
    access
        .users
        .get(userid)
        .ok_or_else(|| Failure::die(format!("no such user ('{userid}')")))
}

/// Texts and limits that creating and changing a user share.
fn set_user(call: &Call, user: &mut User) {
    for key in ["comment", "email", "firstname", "lastname", "keys"] {
        if let Some(text) = call.params.text(key) {
            user.texts.insert(key.to_owned(), text);
        }
    }
    if let Some(enable) = call.params.flag("enable") {
        user.enable = enable;
    }
    if let Some(expire) = call.params.int("expire").and_then(|e| u64::try_from(e).ok()) {
        user.expire = expire;
    }
    if let Some(password) = call.params.text("password") {
        user.password = Some(Secret::new(&password));
    }
}

async fn create_user(call: Call) -> Outcome {
    let userid = call.params.required("userid")?;
    if call.world.access().users.contains_key(&userid) {
        return Err(Failure::die(format!(
            "create user failed: user '{userid}' already exists"
        )));
    }
    let mut user = User {
        enable: true,
        ..User::default()
    };
    set_user(&call, &mut user);
    call.world.change_access(|access| {
        access.users.insert(userid.clone(), user);
        set_groups(&call, access, &userid);
    });
    Ok(Answer::null())
}

async fn update_user(call: Call) -> Outcome {
    let userid = call.params.required("userid")?;
    find_user(&call.world.access(), &userid)?;
    call.world.change_access(|access| {
        if let Some(user) = access.users.get_mut(&userid) {
            set_user(&call, user);
        }
        set_groups(&call, access, &userid);
    });
    Ok(Answer::null())
}

async fn delete_user(call: Call) -> Outcome {
    let userid = call.params.required("userid")?;
    find_user(&call.world.access(), &userid).map_err(|f| Failure::die(format!("delete user failed: {}", f.message)))?;
    call.world.change_access(|access| {
        access.users.remove(&userid);
        for group in access.groups.values_mut() {
            group.users.remove(&userid);
        }
        let tokens = format!("{userid}!");
        access.acl.retain(|a| a.who != userid && !a.who.starts_with(&tokens));
    });
    Ok(Answer::null())
}
