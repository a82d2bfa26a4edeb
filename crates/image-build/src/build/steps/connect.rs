//! Learns the guest's address and logs in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use proxmox_client::{ConfigView, ErrorKind, Vmid};

use super::provision::folder;
use crate::Error;
use crate::build::context::Context;
use crate::build::pace::Pace;
use crate::build::resume::Point;
use crate::build::step::{Step, StepName};
use crate::communicator::{
    AddressLook, AgentCommunicator, Communicator, CommunicatorError, SshAuth, SshCommunicator, SshTarget,
    goes_by_agent, look_for_address,
};
use crate::spec::CommunicatorKind;
use crate::text::human_duration;

/// Limit of one SSH attempt: a login over a slow line takes some seconds, a dropped packet answers never.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);
/// How long a refused login is tried again. sshd can answer before cloud-init and `authselect` have put users and keys in
/// place; half a minute later they have.
const REFUSED_LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// Opens the way into the installed system.
#[derive(Debug)]
pub(super) struct Connect;

#[async_trait]
impl Step<Context> for Connect {
    fn name(&self) -> StepName {
        "connect".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        if context.resumed.is_some_and(|resumed| resumed.point == Point::Connect) {
            context.restart_guest().await?;
        }
        let limit = context.spec.communicator.ssh.timeout;
        let (communicator, summary) = open(context, limit).await?;
        context.communicator = Some(communicator);
        Ok(summary)
    }

    /// Nothing is changed but a connection made.
    fn is_noted(&self) -> bool {
        false
    }

    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        if let Some(communicator) = context.communicator.take() {
            communicator.close().await;
        }
        Ok(None)
    }
}

/// Opens the way that the spec asks for, waiting for it until the limit; says which and how.
pub(super) async fn open(context: &Context, limit: Duration) -> Result<(Arc<dyn Communicator>, String), Error> {
    if goes_by_agent(&context.spec) {
        let communicator = open_agent(context, limit).await?;
        let why = if context.spec.communicator.kind == CommunicatorKind::Auto {
            ", as the vm has no network"
        } else {
            ""
        };
        let summary = format!("{}{why}", communicator.describe());
        return Ok((Arc::new(communicator), summary));
    }
    let begun = Instant::now();
    let (host, source) = match context.spec.communicator.ssh.host.clone() {
        Some(host) => (host, "as set in ssh_host"),
        None => (
            address_from_agent(context, limit).await?,
            "address from the guest agent",
        ),
    };
    let ssh = &context.spec.communicator.ssh;
    let keys = context.keys()?;
    let auth = match &ssh.password {
        Some(password) => SshAuth::Password(password.clone()),
        None => SshAuth::Key(keys.login()),
    };
    let target = SshTarget {
        host,
        port: ssh.port,
        user: ssh.username.clone(),
        auth,
        host_key: keys.host_public().clone(),
        attempt_timeout: ATTEMPT_LIMIT,
    };
    let communicator = log_in(context, &target, limit.saturating_sub(begun.elapsed())).await?;
    let summary = format!("{}, {source}, host key as planned", communicator.describe());
    Ok((Arc::new(communicator), summary))
}

/// Waits until the guest agent answers and runs commands.
async fn open_agent(context: &Context, limit: Duration) -> Result<AgentCommunicator, Error> {
    let vmid = context.vmid()?;
    let what = format!("an answer of the guest agent of vm {vmid}");
    let mut pace = Pace::new(&what, limit, &context.cancel)
        .telling(&context.emitter)
        .watching(&context.console);
    loop {
        let attempt = AgentCommunicator::connect(context.vm()?, folder(context));
        let error = match context.or_cancel(attempt).await? {
            Ok(communicator) => return Ok(communicator),
            Err(error) => error,
        };
        if matches!(error, CommunicatorError::Lost { .. }) {
            // Restarted in the middle of its first command.
            pace.pause(AGENT_SILENT).await?;
            continue;
        }
        let CommunicatorError::Agent { source, .. } = &error else {
            return Err(Error::guest(format!("opening the agent of vm {vmid}"))(error));
        };
        // EL9's agent answers so until /etc/sysconfig/qemu-ga lets it run commands.
        if source.kind() == ErrorKind::AgentError {
            return Err(Error::Impossible {
                what: what.clone(),
                reason: "the agent answers, but refuses to run commands: what the build adds to the kickstart to open it in \
                         /etc/sysconfig/qemu-ga had no effect; is qemu-guest-agent in %packages?"
                    .to_owned(),
            });
        }
        if source.kind() == ErrorKind::State {
            return Err(stopped(vmid, &what));
        }
        if matches!(
            source.kind(),
            ErrorKind::NotFound | ErrorKind::Permission | ErrorKind::Auth
        ) {
            return Err(Error::guest(format!("opening the agent of vm {vmid}"))(error));
        }
        pace.pause(AGENT_SILENT).await?;
    }
}

/// What a person can look at while the agent is silent.
const AGENT_SILENT: &str = "the agent does not answer: is qemu-guest-agent in the kickstart's %packages, and did the system \
                            boot? The console shows it; over ssh with ssh_host set, no agent is needed";

fn stopped(vmid: Vmid, what: &str) -> Error {
    Error::Impossible {
        what: what.to_owned(),
        reason: format!(
            "vm {vmid} stopped by itself after the installation: the installed system powered off, or there is none; its \
             console shows why"
        ),
    }
}

/// Asks the guest agent until it names an address of `net0`.
async fn address_from_agent(context: &Context, limit: Duration) -> Result<String, Error> {
    let vm = context.vm()?;
    let vmid = context.vmid()?;
    let config = vm
        .config(ConfigView::Current)
        .await
        .map_err(Error::api(format!("reading the configuration of vm {vmid}")))?;
    let net0 = config
        .net(0)
        .map_err(Error::api(format!("reading net0 of vm {vmid}")))?;
    let mac = net0.as_ref().and_then(|net| net.mac()).map(str::to_owned);
    if net0.is_none() {
        return Err(Error::Impossible {
            what: "learning the guest's address".to_owned(),
            reason: "the vm has no network device: give it one, or set ssh_host".to_owned(),
        });
    }

    let mut pace = Pace::new("the guest agent's report of an address", limit, &context.cancel)
        .telling(&context.emitter)
        .watching(&context.console);
    loop {
        let look = look_for_address(&vm, mac.as_deref()).await;
        let seen = match look.map_err(Error::api(format!("asking the agent of vm {vmid} for its address")))? {
            AddressLook::Found(address) => return Ok(address.to_string()),
            AddressLook::NoneYet(interfaces) => format!(
                "the agent answers, but net0 ({}) has no usable address among [{}]: does the bridge's network hand out \
                 addresses (DHCP), or does the kickstart's `network` line set one?",
                mac.as_deref().unwrap_or("no MAC"),
                interfaces.join(", ")
            ),
            AddressLook::Silent => AGENT_SILENT.to_owned(),
            AddressLook::Stopped => return Err(stopped(vmid, "learning the guest's address")),
        };
        pace.pause(&seen).await?;
    }
}

async fn log_in(context: &Context, target: &SshTarget, limit: Duration) -> Result<SshCommunicator, Error> {
    let attempt = format!("logging in as {} at {}", target.user, target.host);
    let mut pace = Pace::new("an ssh login", limit, &context.cancel)
        .telling(&context.emitter)
        .watching(&context.console);
    let mut refused_since: Option<Instant> = None;
    loop {
        let error = match context.or_cancel(SshCommunicator::connect(target.clone())).await? {
            Ok(communicator) => return Ok(communicator),
            Err(error) => error,
        };
        if matches!(error, CommunicatorError::Auth { .. }) {
            let since = *refused_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= REFUSED_LOGIN_LIMIT {
                return Err(Error::guest(attempt)(error));
            }
        } else if error.is_settled() {
            return Err(Error::guest(attempt)(error));
        }
        if pace.waited() >= STOPPED_AFTER && context.vm_status().await?.is_stopped() {
            return Err(Error::Impossible {
                what: attempt,
                reason: format!("vm {} stopped meanwhile ({error})", context.vmid()?),
            });
        }
        pace.pause(&format!("{error}, after {}", human_duration(pace.waited())))
            .await?;
    }
}

/// After so long without a login, each further look asks PVE too whether the VM still runs.
const STOPPED_AFTER: Duration = Duration::from_secs(5);
