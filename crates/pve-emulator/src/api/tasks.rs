//! `/nodes/{node}/tasks`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, Outcome, Routes};
use crate::tasks::{Task, Upid};
use crate::wire::{Answer, Failure};

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /nodes/{node}/tasks", list);
    routes.add("GET /nodes/{node}/tasks/{upid}", async |_| {
        Ok(json!([{ "name": "log" }, { "name": "status" }]).into())
    });
    routes.add("GET /nodes/{node}/tasks/{upid}/status", status);
    routes.add("GET /nodes/{node}/tasks/{upid}/log", log);
    routes.add("DELETE /nodes/{node}/tasks/{upid}", stop);
}

fn entry(task: &Task) -> Value {
    let upid = &task.upid;
    let (user, token) = upid
        .user
        .split_once('!')
        .map_or((upid.user.as_str(), None), |(u, t)| (u, Some(t)));
    let mut entry = json!({
        "upid": upid.to_string(), "node": upid.node, "pid": upid.pid, "pstart": upid.pstart,
        "starttime": upid.starttime, "type": upid.kind, "id": upid.id, "user": user,
    });
    if let Some(token) = token {
        entry["tokenid"] = token.into();
    }
    entry
}

fn list_entry(task: &Task) -> Value {
    let mut entry = entry(task);
    if let Some((end, exit)) = task.end() {
        entry["endtime"] = end.into();
        entry["status"] = exit.into();
    } else {
        // A running task is listed as it stands in the file of active tasks (recorded).
        entry["status"] = "RUNNING".into();
        entry["saved"] = "0".into();
        entry["user"] = task.upid.user.as_str().into();
        if let Some(map) = entry.as_object_mut() {
            map.remove("tokenid");
        }
    }
    entry
}

/// Whether a task is the caller's own: a user's own and its tokens', a token's only its own.
fn is_own(call: &Call, upid: &Upid) -> bool {
    let tokens = format!("{}!", call.who.user);
    upid.user == call.who.full() || call.who.token.is_none() && upid.user.starts_with(&tokens)
}

async fn list(call: Call) -> Outcome {
    let source = call.params.text("source").unwrap_or_else(|| "archive".into());
    let number = |key: &str| call.params.int(key).and_then(|n| u64::try_from(n).ok());
    let (vmid, kind, userfilter) = (
        call.params.text("vmid"),
        call.params.text("typefilter"),
        call.params.text("userfilter"),
    );
    let statuses = call.params.list("statusfilter");
    let errors_only = call.params.flag("errors") == Some(true);
    let (since, until) = (number("since"), number("until"));
    let auditor = call
        .world
        .access()
        .has(&call.who, &format!("/nodes/{}", call.node()), "Sys.Audit");
    let found: Vec<Arc<Task>> = call
        .world
        .tasks
        .of_node(&call.node())
        .into_iter()
        .filter(|task| {
            let end = task.end();
            let upid = &task.upid;
            let owner = is_own(&call, upid);
            let sourced = match source.as_str() {
                "active" => end.is_none(),
                "archive" => end.is_some(),
                _ => true,
            };
            let status = end.as_ref().map(|(_, exit)| status_word(exit));
            (auditor || owner)
                && sourced
                && vmid.as_ref().is_none_or(|v| upid.id == *v)
                && kind.as_ref().is_none_or(|k| k.is_empty() || upid.kind == *k)
                && userfilter.as_ref().is_none_or(|u| upid.user.contains(u.as_str()))
                && since.is_none_or(|s| upid.starttime >= s)
                && until.is_none_or(|u| upid.starttime <= u)
                && (!errors_only || status != Some("ok"))
                && (statuses.is_empty() || status.is_some_and(|s| statuses.iter().any(|w| w == s)))
        })
        .collect();
    let total = found.len();
    let start = number("start").unwrap_or(0);
    let limit = number("limit").unwrap_or(50);
    let page: Vec<Value> = found
        .iter()
        .skip(usize::try_from(start).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|t| list_entry(t))
        .collect();
    let answer = Answer::from(Value::from(page));
    // An empty list comes without a total.
    Ok(if total > 0 { answer.with("total", total) } else { answer })
}

/// PVE's four kinds of an exit status.
fn status_word(exit: &str) -> &'static str {
    match exit {
        "OK" => "ok",
        "unexpected status" => "unknown",
        _ if exit.starts_with("WARNINGS: ") => "warning",
        _ => "error",
    }
}

/// All nodes' tasks for the web interface: running ones and the latest.
pub(super) async fn cluster_tasks(call: Call) -> Outcome {
    let access = call.world.access();
    let mut list: Vec<Value> = Vec::new();
    for node in &call.world.settings.nodes {
        let auditor = access.has(&call.who, &format!("/nodes/{node}"), "Sys.Audit");
        let tasks = call.world.tasks.of_node(node).into_iter();
        let visible = tasks.filter(|t| auditor || is_own(&call, &t.upid));
        list.extend(visible.take(25).map(|t| list_entry(&t)));
    }
    Ok(Value::from(list).into())
}

/// Parses the UPID and finds its task. A stranger's task needs Sys.Audit on the node.
fn find(call: &Call, privilege: &str) -> Result<(Upid, Option<Arc<Task>>), Failure> {
    let text = call.params.required("upid")?;
    let upid: Upid = text
        .parse()
        .map_err(|()| Failure::param("upid", "unable to parse worker upid"))?;
    let node = call.node();
    let own = is_own(call, &upid);
    if !own {
        call.world
            .access()
            .require(&call.who, &format!("/nodes/{node}"), &[privilege])?;
    }
    Ok((upid, call.world.tasks.get(&text)))
}

async fn status(call: Call) -> Outcome {
    let (_, task) = find(&call, "Sys.Audit")?;
    let task = task.ok_or_else(|| Failure::param("upid", "no such task"))?;
    let mut entry = entry(&task);
    match task.end() {
        Some((_, exit)) => {
            entry["status"] = "stopped".into();
            entry["exitstatus"] = exit.into();
        }
        None => entry["status"] = "running".into(),
    }
    Ok(entry.into())
}

async fn log(call: Call) -> Outcome {
    let (_, task) = find(&call, "Sys.Audit")?;
    let mut lines = match &task {
        Some(task) => task.log(),
        None => vec!["unable to open file - No such file or directory".to_owned()],
    };
    if lines.is_empty() {
        lines.push("no content".to_owned());
    }
    if call.params.flag("download") == Some(true) {
        return Ok(Answer::plain(lines.join("\n") + "\n"));
    }
    let start = call
        .params
        .int("start")
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(0);
    let limit = match call
        .params
        .int("limit")
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(50)
    {
        0 => usize::MAX,
        limit => limit,
    };
    let total = lines.len();
    let page: Vec<Value> = lines
        .into_iter()
        .enumerate()
        .skip(start)
        .take(limit)
        .map(|(index, text)| json!({ "n": index + 1, "t": text }))
        .collect();
    Ok(Answer::from(Value::from(page)).with("total", total))
}

async fn stop(call: Call) -> Outcome {
    let (_, task) = find(&call, "Sys.Modify")?;
    task.ok_or_else(|| Failure::param("upid", "no such task"))?.stop();
    Ok(Answer::null())
}
