//! What both clones go through: start, address, login, the end of the first boot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::keys::PublicKey;

use crate::Error;
use crate::build::Pace;
use crate::communicator::{
    AddressLook, Command, Communicator as _, CommunicatorError, OutputStream, SshAuth, SshCommunicator, SshTarget,
    host_key, look_for_address,
};
use crate::text::human_duration;
use crate::verify::context::Context;
use crate::verify::facts::{Facts, STATE};
use crate::verify::spec::address_of;

/// Limit of one SSH attempt; a guest that is emulated and still boots takes its time over a handshake.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// How long a refused login is tried again: sshd may answer before cloud-init has put the key in place.
const REFUSED_LOGIN_LIMIT: Duration = Duration::from_secs(180);
/// Limit of one command in a clone. An emulated one whose first boot keeps it busy was seen to take more than two minutes.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// How often a connection to a clone may break within one question, and how long a new one is tried.
const LOST_AT_MOST: u32 = 3;
const RECONNECT_LIMIT: Duration = Duration::from_secs(180);
/// After so long without a login, each further look asks PVE too whether the clone still runs.
const STOPPED_AFTER: Duration = Duration::from_secs(5);

/// Starts a clone and logs in; one line for people.
pub(super) async fn boot(context: &mut Context, index: usize) -> Result<String, Error> {
    let begun = Instant::now();
    let clone = context.clone_at(index)?;
    clone.started = Some(begun);
    clone.machine.start().await?;
    let host = address(context, index).await?;
    let limit = context.spec.timeouts.boot.saturating_sub(begun.elapsed());
    let (session, shown) = log_in(context, index, &host, limit).await?;
    let clone = context.clone_at(index)?;
    clone.ssh_seconds = begun.elapsed().as_secs_f64();
    clone.session = Some(Arc::new(session));
    clone.seen.shown_keys = shown;
    clone.seen.address.clone_from(&host);
    Ok(format!("ssh root@{host} after {}", human_duration(begun.elapsed())))
}

fn stopped(machine: &str, what: &str) -> Error {
    Error::Impossible {
        what: what.to_owned(),
        reason: format!("{machine} stopped by itself: its system powered off, or there is none on its disk"),
    }
}

/// The clone's address: what its guest agent tells, which a sealed image still lets it tell; else the one it was given.
async fn address(context: &mut Context, index: usize) -> Result<String, Error> {
    const WHAT: &str = "the guest agent's report of an address";
    const SILENT: &str =
        "the agent does not answer: did the clone boot, and is qemu-guest-agent in the image? Its console shows it";
    let given = context
        .spec
        .ip_configs
        .as_ref()
        .and_then(|configs| configs.get(index).cloned());
    if !context.template()?.agent {
        let fixed = given.as_deref().and_then(address_of).map(str::to_owned);
        return fixed.ok_or(Error::Missing { what: "an address" });
    }
    let limit = context.spec.timeouts.boot;
    let (cancel, emitter) = (context.cancel.clone(), Arc::clone(&context.emitter));
    let clone = context.clone_at(index)?;
    let (vm, mac, name) = (clone.machine.vm(), clone.seen.mac.clone(), clone.machine.to_string());
    let mut pace = Pace::new(WHAT, limit, &cancel).telling(&emitter);
    loop {
        let look = look_for_address(&vm, mac.as_deref()).await;
        let seen = match look.map_err(Error::api(format!("asking the agent of {name} for its address")))? {
            AddressLook::Found(address) => return Ok(address.to_string()),
            AddressLook::NoneYet(_) => format!(
                "the agent of {name} answers, but net0 ({}) has no usable address: does its network hand out addresses \
                 (DHCP)? Else give each clone one with --ipconfig",
                mac.as_deref().unwrap_or("no MAC")
            ),
            AddressLook::Silent => SILENT.to_owned(),
            AddressLook::Stopped => return Err(stopped(&name, WHAT)),
        };
        pace.pause(&seen).await?;
    }
}

fn line(key: &PublicKey) -> Result<String, Error> {
    let mut key = key.clone();
    key.set_comment("");
    Ok(key.to_openssh().map_err(Error::keys)?.trim().to_owned())
}

/// Takes the first host key shown and logs in against it; the keys that were shown, more than one if it changed meanwhile.
async fn log_in(
    context: &mut Context,
    index: usize,
    host: &str,
    limit: Duration,
) -> Result<(SshCommunicator, Vec<String>), Error> {
    let attempt = format!("logging in as root at {host}");
    let port = context.spec.ssh_port;
    let login = context.keys()?.login();
    let (cancel, emitter) = (context.cancel.clone(), Arc::clone(&context.emitter));
    let clone = context.clone_at(index)?;
    let mut pace = Pace::new("an ssh login", limit, &cancel).telling(&emitter);
    let mut refused_since: Option<Instant> = None;
    let mut trusted: Option<PublicKey> = None;
    let mut shown = Vec::new();
    loop {
        let tried = async {
            let key = if let Some(key) = &trusted {
                key.clone()
            } else {
                let key = host_key(host, port, ATTEMPT_LIMIT).await?;
                trusted.insert(key).clone()
            };
            SshCommunicator::connect(SshTarget {
                host: host.to_owned(),
                port,
                user: "root".to_owned(),
                auth: SshAuth::Key(Arc::clone(&login)),
                host_key: key,
                attempt_timeout: ATTEMPT_LIMIT,
            })
            .await
        };
        let error = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Cancelled),
            tried = tried => match tried {
                Ok(session) => {
                    if let Some(key) = &trusted {
                        shown.push(line(key)?);
                    }
                    return Ok((session, shown));
                }
                Err(error) => error,
            },
        };
        match &error {
            CommunicatorError::Auth { .. } => {
                let since = *refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= REFUSED_LOGIN_LIMIT {
                    return Err(Error::guest(format!(
                        "{attempt} with the key that cloud-init was told (is cloud-init in the image, enabled, and its drive where the system \
                         sees it?)"
                    ))(error));
                }
            }
            // Made anew between two looks: the one before is remembered, and told as a failed check.
            CommunicatorError::HostKey { .. } => {
                if let Some(key) = trusted.take() {
                    shown.push(line(&key)?);
                }
            }
            _ => {}
        }
        if pace.waited() >= STOPPED_AFTER && clone.machine.is_stopped().await {
            return Err(stopped(&clone.machine.to_string(), &attempt));
        }
        pace.pause(&error.to_string()).await?;
    }
}

/// Runs a small script in a clone; its standard output. Scripts of a verification only ask, so one whose connection breaks, as it may
/// while a first boot sets up the network and sshd, is run again over a new one.
pub(super) async fn run(context: &mut Context, index: usize, script: &str, args: &[&str]) -> Result<String, Error> {
    let mut lost = 0;
    loop {
        let error = match ask(context, index, script, args).await {
            Err(Error::Guest { attempt, source }) if lost < LOST_AT_MOST && source.is_lost() => {
                Error::Guest { attempt, source }
            }
            ended => return ended,
        };
        lost += 1;
        context.emitter.warning(format!("{}; connecting again", error.chain()));
        let host = context.clone_at(index)?.seen.address.clone();
        let (session, shown) = log_in(context, index, &host, RECONNECT_LIMIT).await?;
        let clone = context.clone_at(index)?;
        clone.session = Some(Arc::new(session));
        for key in shown {
            if !clone.seen.shown_keys.contains(&key) {
                clone.seen.shown_keys.push(key);
            }
        }
    }
}

async fn ask(context: &mut Context, index: usize, script: &str, args: &[&str]) -> Result<String, Error> {
    let cancel = context.cancel.clone();
    let clone = context.clone_at(index)?;
    let attempt = format!("asking {}", clone.seen.name);
    let session = clone.session.clone().ok_or(Error::Missing { what: "the session" })?;
    let command = Command::sh(script, args.iter().copied()).timeout(COMMAND_LIMIT);
    let said = std::sync::Mutex::new(String::new());
    let collect = |stream: OutputStream, line: &str| {
        if stream == OutputStream::Stdout {
            let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            said.push_str(line);
            said.push('\n');
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        ended = session.exec(&command, &collect) => ended.map_err(Error::guest(attempt))?,
    };
    Ok(said.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// How the first boot of a clone ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// The unit of a role is active.
    K3s,
    /// The first boot is over and starts nothing, or nothing that could be waited for.
    Over,
    /// Time is up.
    Late,
}

/// Waits until cloud-init and the first boot are done and, if `for_k3s`, until the unit of the clone's role is active.
pub(super) async fn settle(context: &mut Context, index: usize, for_k3s: bool) -> Result<Boot, Error> {
    let limit = context.spec.timeouts.k3s;
    let (cancel, emitter) = (context.cancel.clone(), Arc::clone(&context.emitter));
    let mut pace = Pace::new("the end of the first boot", limit, &cancel).telling(&emitter);
    loop {
        let state = Facts::parse(&run(context, index, STATE, &[]).await?);
        let get = |name: &str| state.get(name).unwrap_or_default().to_owned();
        let cloud_init = !matches!(get("cloud-init").as_str(), "running" | "not run" | "not started");
        let firstboot = get("k3simage-firstboot");
        let active = ["k3s", "k3s-agent"].iter().any(|unit| get(unit) == "active");
        if active {
            let clone = context.clone_at(index)?;
            let since = clone.started.map(|started| started.elapsed().as_secs_f64());
            clone.k3s_seconds = clone.k3s_seconds.or(since);
        }
        let starts = ["k3s", "k3s-agent"]
            .iter()
            .any(|unit| !matches!(get(unit).as_str(), "" | "inactive" | "unknown" | "failed"));
        // One that is not sealed has a first boot that never begins: then the end of the boot itself is all there is.
        let booted = matches!(get("system").as_str(), "running" | "degraded");
        let decided = match firstboot.as_str() {
            "active" | "failed" => true,
            "activating" => false,
            _ => booted || state.get("image").is_none(),
        };
        if cloud_init && decided {
            match (active, starts && for_k3s) {
                (true, _) => return Ok(Boot::K3s),
                (false, false) => return Ok(Boot::Over),
                (false, true) => {}
            }
        }
        let seen = format!(
            "cloud-init is `{}`, k3simage-firstboot `{firstboot}`, k3s `{}`, k3s-agent `{}`",
            get("cloud-init"),
            get("k3s"),
            get("k3s-agent")
        );
        match pace.pause(&seen).await {
            Err(Error::Timeout { .. }) => {
                emitter.warning(format!("{}: {seen}", context.clone_at(index)?.seen.name));
                return Ok(Boot::Late);
            }
            paused => paused?,
        }
    }
}
