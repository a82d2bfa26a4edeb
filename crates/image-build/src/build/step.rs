//! One unit of a build, and what is left of it.

use std::borrow::Cow;
use std::fmt;

use async_trait::async_trait;

use crate::Error;

/// Name of a step, as events, errors and the manifest show it.
pub type StepName = Cow<'static, str>;

/// One unit of a build with its undo.
///
/// `run` observes before it acts, so that running it twice is safe, and records what it is about to create before the
/// call that creates it. It is never dropped in the middle: to end it early its waits watch the cancel token.
/// `undo` removes what `run` created, also after `run` failed half-way, and only that.
#[async_trait]
pub(crate) trait Step<C: Send>: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> StepName;

    /// Does the work; the summary is one line for people.
    async fn run(&mut self, context: &mut C) -> Result<String, Error>;

    /// Removes what `run` created. `None` when there was nothing to remove, else what was removed.
    async fn undo(&mut self, context: &mut C) -> Result<Option<String>, Error> {
        let _ = context;
        Ok(None)
    }

    /// Whether the step is written into the build's journal before it runs, because it changes something on the cluster
    /// or in the guest. One that writes it itself, together with what it changes, says no, and so does one that the step before it wrote
    /// in that way.
    fn is_noted(&self) -> bool {
        true
    }

    /// Whether the image is complete once this step is done: no later failure undoes it then.
    fn commits(&self) -> bool {
        false
    }
}

/// Something that a failed build left behind against its will.
#[derive(Debug)]
pub struct CleanupFailure {
    /// Step that could not be undone.
    pub step: StepName,
    /// Why.
    pub error: Error,
}

impl fmt::Display for CleanupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.error.chain())
    }
}
