//! Runs the provisioners in their order.

use std::sync::Arc;

use async_trait::async_trait;

use super::come_back::{Boot, come_back, powered_off};
use super::medium::{bring, goes_by_medium};
use crate::Error;
use crate::build::context::Context;
use crate::build::event::Unit;
use crate::build::resume::Point;
use crate::build::step::{Step, StepName};
use crate::communicator::{Command, Communicator, OutputStream, goes_by_agent};
use crate::provision::{Provisioner, Workplace, from_spec};
use crate::spec::{FileContent, ProvisionerSpec};

/// Runs what the image asks for inside the guest.
#[derive(Debug)]
pub(super) struct Provision;

#[async_trait]
impl Step<Context> for Provision {
    fn name(&self) -> StepName {
        "provision".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let variables = build_variables(context)?;
        let provisioners: Vec<_> = context
            .spec
            .provisioners
            .iter()
            .map(|spec| from_spec(spec, &variables))
            .collect();
        let total = provisioners.len() as u64;
        prepare_folder(context).await?;
        let mut summaries = Vec::new();
        let before = match context.resumed {
            Some(resumed) if resumed.point == Point::Connect => resumed.provisioned.min(provisioners.len()),
            _ => 0,
        };
        if before > 0 {
            summaries.push(format!("{before} done before"));
        }
        for (done, provisioner) in provisioners.iter().enumerate().skip(before) {
            context
                .emitter
                .progress(done as u64, Some(total), Unit::Items, provisioner.name());
            let boot = if provisioner.expects_disconnect() {
                Some(Boot::of(context).await?)
            } else {
                None
            };
            let mut summary = run_or_bring(context, done, provisioner.as_ref()).await?;
            if let Some(boot) = boot
                && let Some(after) = come_back(context, provisioner.name(), &boot).await?
            {
                summary = format!("{summary}, {after}");
            }
            summaries.push(summary);
            // The last one is noted by the step that follows.
            if done + 1 < provisioners.len() {
                let keeper = Arc::clone(context.keeper()?);
                keeper
                    .note(&context.cancel, |journal| journal.provisioned = done + 1)
                    .await?;
            }
        }
        Ok(if summaries.is_empty() {
            "nothing to do".to_owned()
        } else {
            summaries.join("; ")
        })
    }
}

/// Runs one of the spec's provisioners; a file that is too large for the agent is brought on a medium.
async fn run_or_bring(context: &mut Context, index: usize, provisioner: &dyn Provisioner) -> Result<String, Error> {
    let spec = context.spec.provisioners.get(index).cloned();
    if let Some(ProvisionerSpec::File(file)) = &spec
        && let FileContent::Local(local) = &file.content
    {
        context.or_cancel(local.check()).await??;
    }
    if let Some(ProvisionerSpec::File(file)) = spec.filter(|spec| goes_by_medium(&context.spec, spec))
        && let Some(summary) = bring(context, &file).await?
    {
        return Ok(summary);
    }
    run_one(context, provisioner, false).await
}

/// Variables that every script of the build gets.
pub(super) fn build_variables(context: &Context) -> Result<Vec<(&'static str, String)>, Error> {
    Ok(vec![
        ("K3SIMAGE_NAME", context.resolved()?.name.clone()),
        ("K3SIMAGE_BUILD_ID", context.build_id.clone()),
    ])
}

/// The build's folder in the guest. Under `/var/tmp`, which survives a reboot of the guest and is no one's to empty.
pub(super) fn folder(context: &Context) -> String {
    format!("/var/tmp/{}", context.build_tag())
}

/// Makes the folder, for the login user alone.
pub(super) async fn prepare_folder(context: &Context) -> Result<(), Error> {
    let make = Command::sh(
        "umask 077 && mkdir -p \"$1\" && chmod 700 \"$1\"",
        [folder(context).as_str()],
    );
    quietly(context, &make, "making the build's folder in the guest").await
}

/// Removes the folder and all in it.
pub(super) async fn remove_folder(context: &Context) -> Result<(), Error> {
    let remove = Command::new(["rm", "-rf", &folder(context)]);
    quietly(context, &remove, "removing the build's folder from the guest").await
}

async fn quietly(context: &Context, command: &Command, what: &str) -> Result<(), Error> {
    let communicator = context.communicator()?;
    let said = std::sync::Mutex::new(Vec::new());
    let on_line = |_: OutputStream, line: &str| {
        if let Ok(mut said) = said.lock() {
            said.push(line.to_owned());
        }
    };
    let status = context
        .in_guest(what, communicator.exec(command, &on_line))
        .await?
        .map_err(Error::guest(what))?;
    if status.success() {
        return Ok(());
    }
    let tail = said.lock().map(|said| said.clone()).unwrap_or_default();
    Err(Error::Script {
        script: what.to_owned(),
        status,
        tail,
    })
}

/// Runs one provisioner; each line that it prints becomes an event. With the last one the build's folder goes.
pub(super) async fn run_one(context: &Context, provisioner: &dyn Provisioner, is_last: bool) -> Result<String, Error> {
    let communicator = context.communicator()?;
    let name = provisioner.name().to_owned();
    let on_line = |stream: OutputStream, line: &str| context.emitter.log(&name, stream, line);
    let workplace = Workplace {
        communicator: communicator.as_ref() as &dyn Communicator,
        // The agent runs as root.
        is_root: goes_by_agent(&context.spec) || context.spec.communicator.ssh.username == "root",
        folder: folder(context),
        is_last,
        cancel: &context.cancel,
        on_line: &on_line,
    };
    // The provisioner ends by itself when the build is cancelled.
    let ended = tokio::select! {
        biased;
        done = provisioner.provision(&workplace) => done,
        reason = context.console.lost() => Err(Error::Impossible { what: name.clone(), reason }),
    };
    // A connection that broke is a symptom; a guest that is not there any more is the cause.
    if let Err(Error::Guest { attempt, .. }) = &ended
        && context.vm_status().await?.is_stopped()
    {
        return Err(powered_off(context, attempt)?);
    }
    ended
}
