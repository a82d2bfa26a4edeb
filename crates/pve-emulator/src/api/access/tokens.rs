//! `/access/users/{userid}/token`: API tokens.

use serde_json::{Map, Value, json};

use super::users::find_user;
use super::{Call, Outcome, Routes, uuid};
use crate::state::{Secret, Token};
use crate::wire::{Answer, Failure, Shape};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access/users/{userid}/token", tokens);
    routes.add("GET /access/users/{userid}/token/{tokenid}", token);
    routes.add("POST /access/users/{userid}/token/{tokenid}", create_token);
    routes.add("PUT /access/users/{userid}/token/{tokenid}", update_token);
    routes.add("DELETE /access/users/{userid}/token/{tokenid}", delete_token);
}

pub(super) fn token_entry(name: Option<&str>, token: &Token) -> Value {
    let mut entry = json!({ "expire": token.expire, "privsep": i32::from(token.privsep) });
    if let Some(name) = name {
        entry["tokenid"] = name.into();
    }
    if let Some(comment) = &token.comment {
        entry["comment"] = comment.as_str().into();
    }
    entry
}

async fn tokens(call: Call) -> Outcome {
    let access = call.world.access();
    let user = find_user(&access, &call.params.required("userid")?)?;
    let list: Vec<Value> = user.tokens.iter().map(|(n, t)| token_entry(Some(n), t)).collect();
    Ok(Value::from(list).into())
}

pub(super) fn no_such_token(name: &str, userid: &str) -> Failure {
    Failure::die(format!("no such token '{name}' for user '{userid}'"))
}

async fn token(call: Call) -> Outcome {
    let (userid, name) = (call.params.required("userid")?, call.params.required("tokenid")?);
    let access = call.world.access();
    let token = find_user(&access, &userid)?
        .tokens
        .get(&name)
        .ok_or_else(|| no_such_token(&name, &userid))?;
    Ok(token_entry(None, token).into())
}

async fn create_token(call: Call) -> Outcome {
    let (userid, name) = (call.params.required("userid")?, call.params.required("tokenid")?);
    if find_user(&call.world.access(), &userid)?.tokens.contains_key(&name) {
        return Err(Failure::param("tokenid", "Token already exists."));
    }
    let secret = uuid();
    let token = Token {
        secret: Secret::new(&secret),
        privsep: call.params.flag("privsep").unwrap_or(true),
        expire: call
            .params
            .int("expire")
            .and_then(|e| u64::try_from(e).ok())
            .unwrap_or(0),
        comment: call.params.text("comment"),
    };
    call.world.change_access(|access| {
        access
            .users
            .get_mut(&userid)
            .map(|user| user.tokens.insert(name.clone(), token))
    });
    // What was given comes back as it was given: texts from a form (recorded).
    let mut info = Map::new();
    info.insert(
        "privsep".into(),
        call.params.text("privsep").unwrap_or_else(|| "1".into()).into(),
    );
    for key in ["comment", "expire"] {
        if let Some(text) = call.params.text(key) {
            info.insert(key.into(), text.into());
        }
    }
    Ok(json!({ "full-tokenid": format!("{userid}!{name}"), "value": secret, "info": info }).into())
}

async fn update_token(call: Call) -> Outcome {
    if let Some(name) = ["regenerate", "delete"].iter().find(|n| call.params.contains(n)) {
        let text = format!("parameter '{name}' of PUT /access/users/{{userid}}/token/{{tokenid}} is not emulated");
        return Err(Failure::new(501, text).with_shape(Shape::JsonBare));
    }
    let (userid, name) = (call.params.required("userid")?, call.params.required("tokenid")?);
    let changed = call.world.change_access(|access| {
        let token = access.users.get_mut(&userid)?.tokens.get_mut(&name)?;
        if let Some(expire) = call.params.int("expire").and_then(|e| u64::try_from(e).ok()) {
            token.expire = expire;
        }
        if let Some(privsep) = call.params.flag("privsep") {
            token.privsep = privsep;
        }
        if let Some(comment) = call.params.text("comment") {
            token.comment = Some(comment);
        }
        let mut entry = token_entry(None, token);
        for key in ["expire", "privsep"] {
            if let Some(text) = call.params.text(key) {
                entry[key] = text.into();
            }
        }
        Some(entry)
    });
    Ok(changed.ok_or_else(|| no_such_token(&name, &userid))?.into())
}

async fn delete_token(call: Call) -> Outcome {
    let (userid, name) = (call.params.required("userid")?, call.params.required("tokenid")?);
    let gone = call.world.change_access(|access| {
        let full = format!("{userid}!{name}");
        access.acl.retain(|a| a.who != full);
        access.users.get_mut(&userid)?.tokens.remove(&name)
    });
    gone.map(|_| Answer::null())
        .ok_or_else(|| no_such_token(&name, &userid))
}
