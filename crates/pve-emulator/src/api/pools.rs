//! `/pools`.

use serde_json::{Map, Value, json};

use super::permission::may_modify;
use super::{Call, Outcome, Routes, cluster};
use crate::state::Pool;
use crate::wire::{Answer, Failure};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /pools", list);
    routes.add("POST /pools", create);
    routes.add("GET /pools/{poolid}", one);
    routes.add("PUT /pools/{poolid}", update_one);
    routes.add("PUT /pools", update);
    routes.add("DELETE /pools/{poolid}", delete_one);
    routes.add("DELETE /pools", delete);
}

fn no_such(pool: &str) -> Failure {
    Failure::die(format!("pool '{pool}' does not exist"))
}

fn entry(id: &str, pool: &Pool) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("poolid".into(), id.into());
    if let Some(comment) = &pool.comment {
        entry.insert("comment".into(), comment.as_str().into());
    }
    entry
}

async fn list(call: Call) -> Outcome {
    let wanted = call.params.text("poolid");
    let access = call.world.access();
    let mut found: Vec<Value> = Vec::new();
    for (id, pool) in &access.pools {
        if wanted.as_ref().is_some_and(|w| w != id) || !access.has(&call.who, &format!("/pool/{id}"), "Pool.Audit") {
            continue;
        }
        let mut entry = entry(id, pool);
        if wanted.is_some() {
            entry.insert("members".into(), members(&call, pool).into());
        }
        found.push(entry.into());
    }
    Ok(Value::from(found).into())
}

async fn one(call: Call) -> Outcome {
    let id = call.params.required("poolid")?;
    let pool = call
        .world
        .access()
        .pools
        .get(&id)
        .cloned()
        .ok_or_else(|| no_such(&id))?;
    let mut entry = entry(&id, &pool);
    entry.insert("members".into(), members(&call, &pool).into());
    Ok(Value::from(entry).into())
}

fn members(call: &Call, pool: &Pool) -> Vec<Value> {
    let vms = cluster::vm_resources(&call.world)
        .into_iter()
        .filter(|(vmid, _)| pool.vms.contains(vmid));
    let mut members: Vec<Value> = vms.map(|(_, entry)| entry).collect();
    members.extend(pool.storages.iter().flat_map(|id| {
        call.world.settings.nodes.iter().map(move |node| {
            json!({ "id": format!("storage/{node}/{id}"), "node": node, "storage": id, "type": "storage", "status": "available" })
        })
    }));
    members
}

async fn create(call: Call) -> Outcome {
    let id = call.params.required("poolid")?;
    if call.world.access().pools.contains_key(&id) {
        return Err(Failure::die(format!("create pool failed: pool '{id}' already exists")));
    }
    let pool = Pool {
        comment: call.params.text("comment"),
        ..Pool::default()
    };
    call.world.change_access(|access| access.pools.insert(id, pool));
    Ok(Answer::null())
}

async fn update_one(call: Call) -> Outcome {
    change(&call)
}

async fn update(call: Call) -> Outcome {
    change(&call)
}

fn change(call: &Call) -> Outcome {
    let id = call.params.required("poolid")?;
    let vms: Vec<u32> = call.params.list("vms").iter().filter_map(|v| v.parse().ok()).collect();
    let storages = call.params.list("storage");
    let delete = call.params.flag("delete") == Some(true);
    let allow_move = call.params.flag("allow-move") == Some(true);
    {
        let access = call.world.access();
        let machines = call.world.machines();
        let pool = access.pools.get(&id).ok_or_else(|| no_such(&id))?;
        for storage in &storages {
            may_modify(&access, &call.who, &format!("/storage/{storage}"))?;
            if delete && !pool.storages.contains(storage) {
                let text = format!("update pools failed: Storage '{storage}' is not a pool member");
                return Err(Failure::die(text));
            }
        }
        for vmid in &vms {
            may_modify(&access, &call.who, &format!("/vms/{vmid}"))?;
            if delete {
                if !pool.vms.contains(vmid) {
                    return Err(Failure::die(format!(
                        "update pools failed: VM {vmid} is not a pool member"
                    )));
                }
                continue;
            }
            if !machines.contains_key(vmid) {
                return Err(Failure::die(format!("update pools failed: VM {vmid} does not exist")));
            }
            let other = access
                .pools
                .iter()
                .find(|(name, p)| **name != id && p.vms.contains(vmid));
            if let Some((other, _)) = other.filter(|_| !allow_move) {
                return Err(Failure::die(format!(
                    "update pools failed: VM {vmid} belongs already to pool '{other}' and 'allow-move' is not set"
                )));
            }
        }
    }
    call.world.change_access(|access| {
        for other in access.pools.values_mut().filter(|_| !delete) {
            other.vms.retain(|v| !vms.contains(v));
        }
        let Some(pool) = access.pools.get_mut(&id) else { return };
        if let Some(comment) = call.params.text("comment") {
            pool.comment = Some(comment);
        }
        if delete {
            pool.vms.retain(|v| !vms.contains(v));
            pool.storages.retain(|s| !storages.contains(s));
        } else {
            pool.vms.extend(vms);
            pool.storages.extend(storages);
        }
    });
    Ok(Answer::null())
}

async fn delete_one(call: Call) -> Outcome {
    remove(&call)
}

async fn delete(call: Call) -> Outcome {
    remove(&call)
}

fn remove(call: &Call) -> Outcome {
    let id = call.params.required("poolid")?;
    let pool = call
        .world
        .access()
        .pools
        .get(&id)
        .cloned()
        .ok_or_else(|| no_such(&id))?;
    if !pool.vms.is_empty() || !pool.storages.is_empty() {
        return Err(Failure::die(format!("delete pool failed: pool '{id}' is not empty")));
    }
    call.world.change_access(|access| access.pools.remove(&id));
    Ok(Answer::null())
}
