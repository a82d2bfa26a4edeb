//! Verifies the new template by clones, before it takes another one's place.

use std::future::IntoFuture as _;

use async_trait::async_trait;
use tokio::sync::mpsc::unbounded_channel;

use crate::Error;
use crate::build::context::Context;
use crate::build::event::{Emitter, Event, EventKind, Unit};
use crate::build::step::{Step, StepName};
use crate::gc;
use crate::verify::{Outcome, VerifyReport};

/// Name of the step, in the journal too.
const VERIFY: &str = "verify";

/// A verification inside the build: [`verify`](crate::verify()) on the template that bears the build's own name.
#[derive(Debug)]
pub(super) struct Verify;

#[async_trait]
impl Step<Context> for Verify {
    fn name(&self) -> StepName {
        VERIFY.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let Some(verification) = context
            .replacing
            .as_ref()
            .and_then(|replacing| replacing.verification.clone())
        else {
            return Ok("there was no template of that name".to_owned());
        };
        if let Some(dead) = &verification.id {
            // The builder whose build this was has died in this step; its clones would keep the template from being removed.
            let client = context.client.clone();
            gc::remove_verification(&client, dead, &context.cancel, &mut Vec::new()).await?;
        }
        let (to, mut events) = unbounded_channel();
        let spec = verification.spec(&context.spec, context.vmid()?);
        let verify = crate::verify::verify(&context.client, spec)
            .events(to)
            .cancel(context.cancel.clone())
            .lease(context.lease);
        note(context, verify.id()).await?;
        let mut running = verify.into_future();
        let report = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => tell(&context.emitter, event),
                ended = &mut running => break ended,
            }
        };
        while let Ok(event) = events.try_recv() {
            tell(&context.emitter, event);
        }
        let report = report?;
        if report.ok {
            return Ok(report.summary());
        }
        Err(Error::NotVerified {
            findings: findings(&report),
        })
    }

    /// It notes itself, with the id by which its clones are found.
    fn is_noted(&self) -> bool {
        false
    }
}

async fn note(context: &mut Context, id: &str) -> Result<(), Error> {
    if let Some(verification) = context
        .replacing
        .as_mut()
        .and_then(|replacing| replacing.verification.as_mut())
    {
        verification.id = Some(id.to_owned());
    }
    let replacing = context.replacing.clone();
    let keeper = context.keeper()?;
    keeper
        .note(&context.cancel, move |journal| {
            VERIFY.clone_into(&mut journal.step);
            journal.replacing = replacing;
        })
        .await
}

/// The events of the verification as those of one step.
fn tell(emitter: &Emitter, event: Event) {
    match event.kind {
        EventKind::StepStarted { step } => emitter.progress(0, None, Unit::Items, step),
        EventKind::Progress {
            step,
            done,
            total,
            unit,
            note,
        } => emitter.progress(done, total, unit, format!("{step}: {note}")),
        EventKind::Log {
            source, stream, line, ..
        } => emitter.log(&source, stream, &line),
        EventKind::Warning { message, .. } => emitter.warning(message),
        _ => {}
    }
}

/// What is not as it must be, in words.
fn findings(report: &VerifyReport) -> Vec<String> {
    let bad = report
        .checks
        .iter()
        .filter(|check| matches!(check.outcome, Outcome::Shared | Outcome::Failed));
    bad.map(|check| format!("{}: {}", check.name, check.message)).collect()
}
