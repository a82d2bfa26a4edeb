//! Runs steps in order and, when one fails, undoes them in reverse. Knows no step by name.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::console::Sight;
use super::event::{Emitter, EventKind};
use super::step::{CleanupFailure, Step};
use crate::{Error, panics};

/// What becomes of a failed build's leftovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Undo every step.
    CleanUp,
    /// Leave everything as it is, for a person to look at.
    Keep,
}

/// Asked after a failure when `on_error = "ask"`, with the step's name and the error.
pub type AskOnError = Arc<dyn Fn(&str, &Error) -> BoxFuture<'static, AfterFailure> + Send + Sync>;

/// How to decide after a failure.
#[derive(Clone)]
pub(crate) enum OnFailure {
    /// Always the same.
    Always(AfterFailure),
    /// Ask.
    Ask(AskOnError),
}

impl fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(choice) => f.debug_tuple("Always").field(choice).finish(),
            Self::Ask(_) => f.write_str("Ask(..)"),
        }
    }
}

/// What the runner needs of a context.
#[async_trait]
pub(crate) trait Runs: Send {
    /// Writes down that a step begins, where a stranger would look for it.
    async fn begin(&mut self, step: &str) -> Result<(), Error>;
    /// Whether the VM is in other hands: [`Error::TakenOver`] when another process has the build, so that nothing of it is ours to remove;
    /// another error when the VM alone is not the build's any more.
    fn is_taken_over(&self) -> Option<Error>;
    /// The build has failed and stays as it is: whoever comes may go on with it at once.
    async fn let_go(&mut self);
    fn emitter(&self) -> &Emitter;
    /// From now on waits listen to this token: the clean-up must go on after the build was cancelled.
    fn watch(&mut self, token: CancellationToken);
    /// A step has ended after so many seconds.
    fn timed(&mut self, step: &str, seconds: f64);
    /// What the build has created so far and not removed, for people.
    fn leftovers(&self) -> Vec<String>;
    /// Looks at what a failed step leaves, before anything of it is undone.
    fn see<'a>(&'a mut self, _error: &'a Error) -> BoxFuture<'a, Sight> {
        Box::pin(async { Sight::default() })
    }
}

/// How a run is steered from outside.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) cancel: CancellationToken,
    pub(crate) on_failure: OnFailure,
    /// Limit of the undo of one step.
    pub(crate) undo_limit: Duration,
}

/// Runs the steps from the one with index `from` on; after a failure undoes all of them in reverse, the failed one first.
pub(crate) async fn run<C: Runs>(
    steps: &mut [Box<dyn Step<C>>],
    context: &mut C,
    control: &Control,
    from: usize,
) -> Result<(), Error> {
    // A build that is gone on with may have committed before.
    let mut committed = steps.iter().take(from).any(|step| step.commits());
    for index in from..steps.len() {
        let Some(step) = steps.get_mut(index) else { break };
        let name = step.name();
        context.emitter().enter(&name);
        context
            .emitter()
            .emit(EventKind::StepStarted { step: name.to_string() });
        let begun = Instant::now();
        // A cancel takes effect between steps too, also where a step has nothing to wait for.
        let ended = if control.cancel.is_cancelled() && !committed {
            Err(Error::Cancelled)
        } else {
            guarded(noted(step.as_mut(), &name, context)).await
        };
        let ended = match context.is_taken_over() {
            Some(error) => Err(error),
            None => ended,
        };
        let seconds = begun.elapsed().as_secs_f64();
        context.timed(&name, seconds);
        let (ok, summary) = match &ended {
            Ok(summary) => (true, summary.clone()),
            Err(error) => (false, error.chain()),
        };
        context.emitter().emit(EventKind::StepFinished {
            step: name.to_string(),
            ok,
            seconds,
            summary,
        });
        match ended {
            Ok(_) => committed |= step.commits(),
            Err(error) => {
                let (mut cleanup, mut kept) = (Vec::new(), Vec::new());
                let mut sight = Box::default();
                if is_in_other_hands(context) {
                    // Nothing of it is ours any more, neither to look at nor to remove nor to speak of.
                } else {
                    if context.is_taken_over().is_none() {
                        *sight = see(context, &error).await;
                    }
                    let keeps = committed
                        || choose(&control.on_failure, &name, &error, context.emitter()).await == AfterFailure::Keep;
                    if keeps {
                        let_go(context).await;
                        kept = context.leftovers();
                    } else {
                        let done = steps.get_mut(..=index).unwrap_or_default();
                        cleanup = undo(done, context, control.undo_limit).await;
                        if !cleanup.is_empty() && !is_in_other_hands(context) {
                            let_go(context).await;
                        }
                    }
                }
                return Err(Error::Step {
                    step: name,
                    source: Box::new(error),
                    cleanup,
                    kept,
                    sight,
                });
            }
        }
    }
    Ok(())
}

/// Whether another process goes on with it, and needs what there is.
fn is_in_other_hands<C: Runs>(context: &C) -> bool {
    matches!(context.is_taken_over(), Some(Error::TakenOver { .. }))
}

/// A step, behind the note that it begins.
async fn noted<C: Runs>(step: &mut dyn Step<C>, name: &str, context: &mut C) -> Result<String, Error> {
    if step.is_noted() {
        context.begin(name).await?;
    }
    step.run(context).await
}

/// What was seen; nothing, when the look itself breaks.
async fn see<C: Runs>(context: &mut C, error: &Error) -> Sight {
    match caught(async { context.see(error).await }).await {
        Ok(sight) => sight,
        Err(panic) => {
            let emitter = context.emitter();
            emitter.warning(format!("the failed build could not be looked at: {panic}"));
            Sight::default()
        }
    }
}

async fn let_go<C: Runs>(context: &mut C) {
    if let Err(panic) = caught(context.let_go()).await {
        let emitter = context.emitter();
        emitter.warning(format!("the build's lease was not ended: {panic}"));
    }
}

async fn choose(on_failure: &OnFailure, step: &str, error: &Error, emitter: &Emitter) -> AfterFailure {
    match on_failure {
        // Who cancels wants the build gone, not to look at what failed.
        _ if error.is_cancelled() => AfterFailure::CleanUp,
        OnFailure::Always(choice) => *choice,
        // The callback is the caller's, and may panic before it has a future to give.
        OnFailure::Ask(ask) => match caught(async { ask(step, error).await }).await {
            Ok(choice) => choice,
            Err(panic) => {
                emitter.warning(format!(
                    "who was asked what to do after the failure did not answer, so it is cleaned up: {panic}"
                ));
                AfterFailure::CleanUp
            }
        },
    }
}

async fn undo<C: Runs>(steps: &mut [Box<dyn Step<C>>], context: &mut C, limit: Duration) -> Vec<CleanupFailure> {
    context.watch(CancellationToken::new());
    let mut failures = Vec::new();
    for step in steps.iter_mut().rev() {
        // Whoever has the build by now needs what is left of it.
        if is_in_other_hands(context) {
            break;
        }
        let name = step.name();
        context.emitter().enter(&name);
        let ended = tokio::time::timeout(limit, guarded(step.undo(context)))
            .await
            .unwrap_or_else(|_| {
                Err(Error::Timeout {
                    what: format!("undoing {name}"),
                    after: limit,
                    seen: "its time is up".to_owned(),
                })
            });
        let (ok, message) = match &ended {
            Ok(None) => continue,
            Ok(Some(removed)) => (true, removed.clone()),
            Err(error) => (false, error.chain()),
        };
        context.emitter().emit(EventKind::Cleanup {
            step: name.to_string(),
            ok,
            message,
        });
        if let Err(error) = ended {
            failures.push(CleanupFailure { step: name, error });
        }
    }
    failures
}

/// Turns a panic of a step into an error, so that it undoes like one.
async fn guarded<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    caught(work).await.unwrap_or_else(Err)
}

async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.map_err(|panic| Error::Panic {
        message: panics::told(&*panic),
    })
}

#[cfg(test)]
mod tests;
