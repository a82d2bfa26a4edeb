//! Asks both clones what they are, and compares.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use proxmox_client::{ErrorKind, Method};

use super::boot::{run, settle};
use super::join::K3S_PORT;
use crate::Error;
use crate::build::{Pace, Step, StepName};
use crate::communicator::host_key;
use crate::verify::compare::{Joined, checks, unit_of};
use crate::verify::context::Context;
use crate::verify::facts::{FACTS, Facts};
use crate::verify::report::{CloneReport, VERIFY_REPORT_VERSION, VerifyReport};

/// Commands of the agent that a sealed image has locked: programs and files.
const LOCKED: [&str; 4] = ["guest-exec", "guest-file-open", "guest-file-read", "guest-file-write"];
/// How many lines of a unit's journal are told when it is not well.
const JOURNAL: &str = "journalctl -u \"$1\" -n 5 -o cat --no-pager 2>/dev/null";
/// Limit of one look at the host key.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Whether a port answers at all, told by the shell's own network redirection; three tries.
const REACHES: &str = "for try in 1 2 3; do \
    if timeout 5 bash -c \"exec 3<>/dev/tcp/$1/$2\" 2>/dev/null; then echo yes; exit; fi; sleep 2; done";

/// Gathers, compares, and keeps the report.
#[derive(Debug)]
pub(super) struct Compare;

#[async_trait]
impl Step<Context> for Compare {
    fn name(&self) -> StepName {
        "compare".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        for index in 0..2 {
            gather(context, index).await?;
        }
        let joined = joined(context).await?;
        for index in 0..2 {
            look_again(context, index).await?;
        }
        let login_key = context.keys()?.login_public_line().map_err(Error::keys)?;
        let template = context.template()?.clone();
        let checks = match context.clones.as_slice() {
            [first, second] => checks(&first.seen, &second.seen, &context.told, &joined, &login_key),
            _ => return Err(Error::Missing { what: "the clones" }),
        };
        let clones = context.clones.iter().map(|clone| CloneReport {
            name: clone.seen.name.clone(),
            vmid: clone.machine.vmid().get(),
            address: clone.seen.address.clone(),
            os: clone.seen.facts.get("os").map(str::to_owned),
            ssh_seconds: clone.ssh_seconds,
            k3s_seconds: clone.k3s_seconds,
        });
        let mut report = VerifyReport {
            version: VERIFY_REPORT_VERSION,
            ok: false,
            template: template.name,
            vmid: template.vmid.get(),
            node: template.node.to_string(),
            pve_version: template.pve_version,
            verify_id: context.id.clone(),
            finished: Timestamp::now(),
            clones: clones.collect(),
            checks,
            timings: Vec::new(),
            api_requests: 0,
        };
        report.ok = report.shared().is_empty() && report.failed().is_empty();
        let summary = report.summary();
        context.set_report(report);
        Ok(summary)
    }
}

/// What one clone tells of itself, and what its agent lets through.
async fn gather(context: &mut Context, index: usize) -> Result<(), Error> {
    let salt = context.salt.clone();
    let facts = Facts::parse(&run(context, index, FACTS, &[&salt]).await?);
    let role = facts.get("decided").and_then(|decided| decided.split(' ').next());
    let mut ill = Vec::new();
    if facts.has_k3s() && facts.unit("k3simage-firstboot") != "active" {
        ill.push("k3simage-firstboot");
    }
    if let Some(unit) = role.and_then(unit_of).filter(|unit| facts.unit(unit) != "active") {
        ill.push(unit);
    }
    let mut journal = Vec::new();
    for unit in ill {
        let said = run(context, index, JOURNAL, &[unit]).await?;
        journal.extend(said.lines().map(str::to_owned));
    }
    let has_agent = context.template()?.agent;
    let open = if has_agent {
        open_commands(context, index).await?
    } else {
        None
    };
    let clone = context.clone_at(index)?;
    clone.seen.facts = facts;
    clone.seen.journal = journal;
    clone.seen.open_commands = open;
    Ok(())
}

/// Which of the locked commands the agent says it would carry out.
///
/// # Source
/// `guest-info` of QEMU's `qga/qapi-schema.json`: every command it knows, with `enabled`, which its lists decide.
async fn open_commands(context: &mut Context, index: usize) -> Result<Option<Vec<String>>, Error> {
    let node = context.node()?;
    let vmid = context.clone_at(index)?.machine.vmid();
    let path = format!("/nodes/{node}/qemu/{vmid}/agent/info");
    let info = match context.client.request(Method::GET, &path, &[]).await {
        Ok(info) => info,
        Err(error) if matches!(error.kind(), ErrorKind::Permission | ErrorKind::Auth) => {
            return Err(Error::api(format!("asking the agent of vm {vmid} what it allows"))(
                error,
            ));
        }
        // An agent that does not answer is told as such.
        Err(_) => return Ok(None),
    };
    let commands = info
        .pointer("/result/supported_commands")
        .and_then(serde_json::Value::as_array);
    Ok(commands.map(|commands| {
        let enabled = commands.iter().filter(|command| {
            let flag = command.get("enabled");
            flag.is_some_and(|flag| flag.as_bool() == Some(true) || flag.as_u64() == Some(1))
        });
        let names = enabled.filter_map(|command| command.get("name").and_then(serde_json::Value::as_str));
        names.filter(|name| LOCKED.contains(name)).map(str::to_owned).collect()
    }))
}

/// Whether the first server lists the second clone's node. Between clones that do not reach each other that says nothing.
async fn joined(context: &mut Context) -> Result<Joined, Error> {
    let role = |context: &mut Context, index: usize| -> Result<(String, String), Error> {
        let facts = &context.clone_at(index)?.seen.facts;
        let decided = facts.get("decided").unwrap_or_default();
        let (role, name) = decided.split_once(' ').unwrap_or((decided, ""));
        Ok((role.to_owned(), name.to_owned()))
    };
    let ((server, _), (agent, node)) = (role(context, 0)?, role(context, 1)?);
    let server_up = context.clone_at(0)?.seen.facts.unit("k3s") == "active";
    if server != "server" || !server_up {
        return Ok(Joined::NotChecked("the first clone is no running server".to_owned()));
    }
    if agent != "agent" {
        return Ok(Joined::NotChecked(
            "the second clone did not become an agent".to_owned(),
        ));
    }
    let (cancel, emitter) = (context.cancel.clone(), std::sync::Arc::clone(&context.emitter));
    let mut pace = Pace::new("the second clone's join", context.spec.timeouts.k3s, &cancel).telling(&emitter);
    let mut reachable = false;
    loop {
        let nodes = run(context, 0, "k3s kubectl get nodes 2>/dev/null", &[]).await?;
        let listed = nodes.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(node.as_str()) && words.next().is_some_and(|state| state.starts_with("Ready"))
        });
        if listed {
            settle(context, 1, true).await?;
            return gather(context, 1).await.map(|()| Joined::Yes);
        }
        if !reachable {
            let host = context.clone_at(0)?.seen.address.clone();
            let port = K3S_PORT.to_string();
            reachable = run(context, 1, REACHES, &[&host, &port]).await?.contains("yes");
            if !reachable {
                return Ok(Joined::NotChecked(format!(
                    "the clones do not reach each other ({host}:{port}): that the node is told to join is all that can be seen"
                )));
            }
        }
        match pace.pause(&format!("the server does not list {node} as ready")).await {
            Err(Error::Timeout { seen, .. }) => {
                gather(context, 1).await?;
                return Ok(Joined::No(seen));
            }
            paused => paused?,
        }
    }
}

/// The host key once more: it must be the one of the first contact.
async fn look_again(context: &mut Context, index: usize) -> Result<(), Error> {
    let (port, cancel) = (context.spec.ssh_port, context.cancel.clone());
    let clone = context.clone_at(index)?;
    let attempt = format!("asking {} for its host key again", clone.seen.name);
    let key = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        key = host_key(&clone.seen.address, port, LOOK_LIMIT) => key.map_err(Error::guest(attempt))?,
    };
    let mut key = key;
    key.set_comment("");
    let line = key.to_openssh().map_err(Error::keys)?.trim().to_owned();
    clone.seen.shown_keys.push(line);
    Ok(())
}
