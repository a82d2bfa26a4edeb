//! `/access`: tickets, users, tokens, roles, the access control list.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Call, Outcome, Routes};
use crate::state::{Access, Acl, Identity, Secret, Token, User};
use crate::wire::{Answer, Failure};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /access", async |_| {
        Ok(json!(
            [
                "acl",
                "domains",
                "groups",
                "openid",
                "password",
                "permissions",
                "roles",
                "tfa",
                "ticket",
                "users"
            ]
            .map(|s| json!({ "subdir": s }))
        )
        .into())
    });
    routes.add("GET /access/ticket", async |_| Ok(Answer::null()));
    routes.add("POST /access/ticket", ticket);
    routes.add("GET /access/domains", async |_| {
        Ok(json!([
            { "realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication" },
            { "realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server" },
        ])
        .into())
    });
    routes.add("GET /access/permissions", permissions);
    routes.add("GET /access/users", users);
    routes.add("POST /access/users", create_user);
    routes.add("GET /access/users/{userid}", user);
    routes.add("PUT /access/users/{userid}", update_user);
    routes.add("DELETE /access/users/{userid}", delete_user);
    routes.add("GET /access/users/{userid}/token", tokens);
    routes.add("GET /access/users/{userid}/token/{tokenid}", token);
    routes.add("POST /access/users/{userid}/token/{tokenid}", create_token);
    routes.add("PUT /access/users/{userid}/token/{tokenid}", update_token);
    routes.add("DELETE /access/users/{userid}/token/{tokenid}", delete_token);
    routes.add("GET /access/roles", roles);
    routes.add("POST /access/roles", create_role);
    routes.add("GET /access/roles/{roleid}", role);
    routes.add("PUT /access/roles/{roleid}", update_role);
    routes.add("DELETE /access/roles/{roleid}", delete_role);
    routes.add("GET /access/acl", acl);
    routes.add("PUT /access/acl", update_acl);
    routes.add("GET /access/groups", async |_| Ok(json!([]).into()));
}

async fn ticket(call: Call) -> Outcome {
    let mut userid = call.params.required("username")?;
    if let Some(realm) = call.params.text("realm")
        && !userid.contains('@')
    {
        userid = format!("{userid}@{realm}");
    }
    let password = call.params.required("password")?;
    let body = {
        let access = call.world.access();
        access.check_password(&userid, &password).then(|| {
            json!({
                "username": userid,
                "ticket": access.make_ticket(&userid),
                "CSRFPreventionToken": access.make_csrf(&userid),
                "cap": capabilities(&access, &userid),
            })
        })
    };
    if let Some(body) = body {
        return Ok(body.into());
    }
    call.world.delay(Duration::from_secs(3)).await;
    Err(Failure::new(401, "authentication failure"))
}

/// What the web interface may show: the user's privileges by area.
fn capabilities(access: &Access, userid: &str) -> Value {
    let who = Identity {
        user: userid.to_owned(),
        token: None,
    };
    let mut cap = Map::new();
    for (area, path, prefixes) in [
        ("vms", "/vms", &["VM.", "Permissions.Modify"][..]),
        ("storage", "/storage", &["Datastore.", "Permissions.Modify"]),
        ("access", "/access", &["User.", "Group.", "Permissions.Modify"]),
        ("nodes", "/nodes", &["Sys.", "Permissions.Modify"]),
        ("sdn", "/sdn", &["SDN.", "Permissions.Modify"]),
        ("mapping", "/mapping", &["Mapping.", "Permissions.Modify"]),
        ("dc", "/", &["Sys.Audit", "Sys.Modify", "SDN."]),
    ] {
        let have: Map<String, Value> = access
            .privileges(&who, path)
            .into_keys()
            .filter(|p| prefixes.iter().any(|prefix| p.starts_with(prefix)))
            .map(|p| (p, 1.into()))
            .collect();
        cap.insert(area.to_owned(), have.into());
    }
    cap.into()
}

async fn permissions(call: Call) -> Outcome {
    let access = call.world.access();
    let who = match call.params.text("userid") {
        Some(userid) if userid != call.who.full() => {
            access.require(&call.who, "/access", &["Sys.Audit"])?;
            match userid.split_once('!') {
                Some((user, token)) => Identity {
                    user: user.to_owned(),
                    token: Some(token.to_owned()),
                },
                None => Identity {
                    user: userid,
                    token: None,
                },
            }
        }
        _ => call.who.clone(),
    };
    let paths: Vec<String> = if let Some(path) = call.params.text("path") {
        vec![path]
    } else {
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
        paths.extend(access.acl.iter().map(|a| a.path.clone()));
        paths.into_iter().collect()
    };
    let mut found = Map::new();
    for path in paths {
        let have = access.privileges(&who, &path);
        if !have.is_empty() || call.params.contains("path") {
            let have: Map<String, Value> = have.into_iter().map(|(p, all)| (p, i32::from(all).into())).collect();
            found.insert(path, have.into());
        }
    }
    Ok(Value::from(found).into())
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

fn token_entry(name: Option<&str>, token: &Token) -> Value {
    let mut entry = json!({ "expire": token.expire, "privsep": i32::from(token.privsep) });
    if let Some(name) = name {
        entry["tokenid"] = name.into();
    }
    if let Some(comment) = &token.comment {
        entry["comment"] = comment.as_str().into();
    }
    entry
}

async fn users(call: Call) -> Outcome {
    let access = call.world.access();
    let full = call.params.flag("full") == Some(true);
    let may_see_all = access.has_any(&call.who, "/access/groups", &["User.Modify", "Sys.Audit"]);
    let list: Vec<Value> = access
        .users
        .iter()
        .filter(|(userid, _)| may_see_all || **userid == call.who.user)
        .filter(|(_, user)| call.params.flag("enabled").is_none_or(|wanted| wanted == user.enable))
        .map(|(userid, user)| {
            let mut entry = user_entry(userid, user);
            if full {
                entry.insert("groups".into(), "".into());
                let tokens: Vec<Value> = user.tokens.iter().map(|(n, t)| token_entry(Some(n), t)).collect();
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
    entry.insert("groups".into(), json!([]));
    if !user.tokens.is_empty() {
        let tokens: Map<String, Value> = user
            .tokens
            .iter()
            .map(|(n, t)| (n.clone(), token_entry(None, t)))
            .collect();
        entry.insert("tokens".into(), tokens.into());
    }
    Ok(Value::from(entry).into())
}

fn find_user<'a>(access: &'a Access, userid: &str) -> Result<&'a User, Failure> {
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
    call.world.change_access(|access| access.users.insert(userid, user));
    Ok(Answer::null())
}

async fn update_user(call: Call) -> Outcome {
    let userid = call.params.required("userid")?;
    find_user(&call.world.access(), &userid)?;
    call.world
        .change_access(|access| access.users.get_mut(&userid).map(|user| set_user(&call, user)));
    Ok(Answer::null())
}

async fn delete_user(call: Call) -> Outcome {
    let userid = call.params.required("userid")?;
    find_user(&call.world.access(), &userid).map_err(|f| Failure::die(format!("delete user failed: {}", f.message)))?;
    call.world.change_access(|access| {
        access.users.remove(&userid);
        let tokens = format!("{userid}!");
        access.acl.retain(|a| a.who != userid && !a.who.starts_with(&tokens));
    });
    Ok(Answer::null())
}

async fn tokens(call: Call) -> Outcome {
    let access = call.world.access();
    let user = find_user(&access, &call.params.required("userid")?)?;
    let list: Vec<Value> = user.tokens.iter().map(|(n, t)| token_entry(Some(n), t)).collect();
    Ok(Value::from(list).into())
}

fn no_such_token(name: &str, userid: &str) -> Failure {
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
fn given_privileges(call: &Call) -> Result<BTreeSet<String>, Failure> {
    let known = call.world.access().all_privileges();
    let given: BTreeSet<String> = call.params.list("privs").into_iter().collect();
    match given.iter().find(|p| !known.contains(*p)) {
        Some(unknown) => Err(Failure::die(format!("invalid privilege '{unknown}'"))),
        None => Ok(given),
    }
}

async fn create_role(call: Call) -> Outcome {
    let id = call.params.required("roleid")?;
    let privileges = given_privileges(&call)?;
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

async fn acl(call: Call) -> Outcome {
    let access = call.world.access();
    if !access.has_any(&call.who, "/access", &["Sys.Audit", "Permissions.Modify"]) {
        return Ok(json!([]).into());
    }
    let list: Vec<Value> = access
        .acl
        .iter()
        .map(|a| {
            json!({
                "path": a.path, "ugid": a.who, "roleid": a.role, "propagate": i32::from(a.propagate),
                "type": if a.who.contains('!') { "token" } else { "user" },
            })
        })
        .collect();
    Ok(Value::from(list).into())
}

async fn update_acl(call: Call) -> Outcome {
    let path = call.params.required("path")?;
    let roles = call.params.list("roles");
    let propagate = call.params.flag("propagate").unwrap_or(true);
    let delete = call.params.flag("delete") == Some(true);
    let who: Vec<String> = call
        .params
        .list("users")
        .into_iter()
        .chain(call.params.list("tokens"))
        .collect();
    {
        let access = call.world.access();
        // Without Permissions.Modify the schema's check has passed for someone who may hand on what they hold.
        if !access.has(&call.who, &path, "Permissions.Modify") {
            return Err(Failure::permission(&format!("{path}, Permissions.Modify")));
        }
        if let Some(unknown) = roles.iter().find(|r| !access.roles.contains_key(*r)) {
            return Err(Failure::die(format!("role '{unknown}' does not exist")));
        }
        for one in &who {
            let (userid, token) = one.split_once('!').map_or((one.as_str(), None), |(u, t)| (u, Some(t)));
            let user = access
                .users
                .get(userid)
                .ok_or_else(|| Failure::die(format!("user '{userid}' does not exist")))?;
            if let Some(name) = token.filter(|name| !user.tokens.contains_key(*name)) {
                return Err(no_such_token(name, userid));
            }
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

/// A random UUID as token secrets and VMs have.
pub(super) fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}
