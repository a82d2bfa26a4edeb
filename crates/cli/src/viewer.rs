//! What a person sees of work that runs long, a build or a verification: its events on the screen, in the log file and as `--json`,
//! what a signal does to it, and how it ended.

use image_build::{Error, Event, EventKind, VerifyReport};
use proxmox_client::Client;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::MissedTickBehavior;

use crate::exit::Exit;
use crate::logging;
use crate::output::{BuildView, Console, Problem, TICK};
use crate::signals::Signals;

/// The work that is looked at, as it is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A build, or one that is gone on with.
    Build,
    /// A verification.
    Verification,
}

impl Work {
    fn cancelling(self, complete: bool) -> &'static str {
        match self {
            Self::Build if complete => {
                "cancelling: the image is complete and stays, what was still to come is left out; once more stops waiting for that"
            }
            Self::Build => "cancelling: what the build made is being removed; once more stops waiting for that",
            Self::Verification => "cancelling: the clones are being removed; once more stops waiting for that",
        }
    }

    fn abandoned(self, complete: bool) -> &'static str {
        match self {
            Self::Build if complete => "stopped before the build had ended, whose image is complete and stays",
            Self::Build => "stopped before the clean-up was done",
            Self::Verification => "stopped before the clones were removed",
        }
    }

    /// How to find what is left of it.
    fn leftovers(self, id: &str, endpoint: &str) -> String {
        match self {
            Self::Build => format!(
                "what is left of build {id} on {endpoint} is shown by `k3simage gc`, removed by `k3simage gc --yes`, or gone on with by \
                 `k3simage resume {id} DIR`, as soon as its lease has ended"
            ),
            Self::Verification => format!(
                "what is left of verification {id} on {endpoint} is shown by `k3simage gc`, and removed by `k3simage gc --yes` as soon \
                 as its lease has ended"
            ),
        }
    }
}

/// Takes the events of one piece of work to where they are seen.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) console: Console,
    pub(crate) view: BuildView,
    work: Work,
    /// What each event is marked with in `--json`.
    mark: Option<&'static str>,
    id: Option<String>,
    /// Whether the image is complete, so that nothing takes it away any more.
    complete: bool,
    /// What a verification found, also where it could not be written down or the clones not be removed.
    pub(crate) found: Option<Box<VerifyReport>>,
}

impl Viewer {
    pub(crate) fn new(console: &Console, work: Work) -> Self {
        let view = match work {
            Work::Build => BuildView::new(console.clone()),
            Work::Verification => BuildView::of_verification(console.clone()),
        };
        Self {
            console: console.clone(),
            view,
            work,
            mark: None,
            id: None,
            complete: false,
            found: None,
        }
    }

    /// A field that is `true` in each event.
    pub(crate) fn mark(&mut self, name: &'static str) {
        self.mark = Some(name);
    }

    /// Shows events until the work ends; `None` when a second signal asks not to wait for that.
    pub(crate) async fn watch<T>(
        &mut self,
        work: &mut (impl Future<Output = T> + Unpin),
        mut events: UnboundedReceiver<Event>,
        signals: &Signals,
    ) -> Option<T> {
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut cancelling = false;
        loop {
            tokio::select! {
                biased;
                () = signals.second() => return None,
                () = signals.first(), if !cancelling => {
                    cancelling = true;
                    self.console.error_line(self.work.cancelling(self.complete));
                }
                Some(event) = events.recv() => self.event(&event),
                ended = &mut *work => {
                    while let Ok(event) = events.try_recv() {
                        self.event(&event);
                    }
                    return Some(ended);
                }
                _ = ticker.tick() => self.view.tick(),
            }
        }
    }

    fn event(&mut self, event: &Event) {
        if let EventKind::BuildStarted { .. } | EventKind::VerifyStarted { .. } = &event.kind {
            self.id = Some(event.build.clone());
        }
        self.complete |= event.image_is_complete();
        if let EventKind::VerifyFinished { report, .. } = &event.kind {
            self.found.clone_from(report);
        }
        // Plain data with text keys is always JSON; an event that is not must not end the work.
        let Ok(mut object) = serde_json::to_value(event) else {
            return;
        };
        if let (Some(object), Some(mark)) = (object.as_object_mut(), self.mark) {
            object.insert(mark.to_owned(), Value::Bool(true));
        }
        tracing::debug!(target: logging::EVENTS, "{object}");
        self.console.object(&object);
        self.view.event(event);
    }

    /// Says why it failed; gives the exit code.
    pub(crate) fn failure(&mut self, error: &Error, signals: &Signals) -> Exit {
        let mut problem = self.view.failure(error);
        if self.found.is_some() {
            // The input was good enough to come this far.
            problem.exit = Exit::Failed;
        }
        if let (true, Some(exit)) = (error.is_cancelled(), signals.exit()) {
            problem.exit = exit;
        }
        // A failure outside the steps has not been shown by the view, such as a build that cannot be resumed.
        if matches!(error, Error::Step { .. }) {
            self.console.object(&problem.object());
        } else {
            problem.show(&self.console);
        }
        problem.exit
    }

    /// Says what may be left after a second signal; gives the exit code.
    pub(crate) fn abandoned(&mut self, client: &Client, signals: &Signals) -> Exit {
        let exit = signals.exit().unwrap_or(Exit::Failed);
        let mut problem = Problem::failed(self.work.abandoned(self.complete));
        problem.exit = exit;
        if let Some(id) = &self.id {
            problem = problem.help(self.work.leftovers(id, client.endpoint()));
        }
        self.view.close();
        problem.show(&self.console);
        exit
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::{ColorChoice, Settings};

    fn event(fields: &Value) -> Event {
        let mut object = json!({"version": 1, "time": "2026-11-26T12:00:00Z", "build": "7f3a12bc"});
        let Some(all) = object.as_object_mut() else {
            panic!("an object")
        };
        all.extend(fields.as_object().cloned().unwrap_or_default());
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_a_cancel_takes_away_depends_on_whether_the_image_is_complete() {
        let finished =
            |step, ok| json!({"event": "step_finished", "step": step, "ok": ok, "seconds": 1.0, "summary": ""});
        let started = |step| json!({"event": "step_started", "step": step});
        for (seen, complete) in [
            (started("create"), false),
            (finished("template", true), false),
            (started("publish"), false),
            (finished("publish", false), false),
            (finished("publish", true), true),
            // The first that a resumed build does.
            (started("move_old"), true),
            (started("delete_old"), true),
            (started("renumber"), true),
        ] {
            let console = Console::new(Settings {
                json: false,
                quiet: true,
                verbose: 0,
                color: ColorChoice::Never,
                no_color: false,
            });
            let mut viewer = Viewer::new(&console, Work::Build);
            viewer.event(&event(&seen));
            assert_eq!(viewer.complete, complete, "{seen}");
            let told = viewer.work.cancelling(viewer.complete);
            assert_eq!(told.contains("is being removed"), !complete, "{told}");
            let told = viewer.work.abandoned(viewer.complete);
            assert_eq!(told.contains("complete and stays"), complete, "{told}");
        }
    }
}
