//! What a build tells while it runs: one stream for bars, lines, `--json` and the Python callback.

use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::Artifact;
use super::steps::{PUBLISH, is_complete};
use crate::communicator::OutputStream;
use crate::verify::VerifyReport;

/// Version of the event format. It grows when a field changes its meaning or goes away, not when one is added.
pub const EVENT_VERSION: u32 = 1;

/// One event. Its JSON form is one flat object: `{"version":1,"time":"...","build":"7f3a","event":"log",...}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`EVENT_VERSION`].
    pub version: u32,
    /// When it happened.
    pub time: Timestamp,
    /// Short id of the build.
    pub build: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    /// Whether the image is complete from here on, so that neither a failure nor a cancel takes it away again.
    pub fn image_is_complete(&self) -> bool {
        match &self.kind {
            EventKind::StepFinished { step, ok: true, .. } => step == PUBLISH,
            // A build that is gone on with may have published before.
            EventKind::StepStarted { step } => is_complete(step),
            _ => false,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The first event of a build.
    BuildStarted {
        /// Name of the image, as far as it is known: its iteration may still be open.
        image: String,
        /// Node it is built on.
        node: String,
        /// Version of Proxmox VE, when it answered.
        pve_version: Option<String>,
        /// Names of the steps to come, in order.
        steps: Vec<String>,
    },
    /// A step begins.
    StepStarted {
        /// Its name.
        step: String,
    },
    /// A step goes on.
    Progress {
        /// Its name.
        step: String,
        /// How much is done.
        done: u64,
        /// How much there is to do, when that is known.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
        /// What is going on, for people.
        note: String,
    },
    /// A line of output of something that runs for the build.
    Log {
        /// Step that it belongs to.
        step: String,
        /// What printed it: a script's name, `http`.
        source: String,
        /// Which output it came from.
        stream: OutputStream,
        /// The line.
        line: String,
    },
    /// A step has ended.
    StepFinished {
        /// Its name.
        step: String,
        /// Whether it succeeded.
        ok: bool,
        /// How long it took, in seconds.
        seconds: f64,
        /// One line for people: what came of it, or the error.
        summary: String,
    },
    /// Something that a person should know and that stops nothing.
    Warning {
        /// Step that it belongs to.
        step: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A step was undone, or could not be.
    Cleanup {
        /// Its name.
        step: String,
        /// Whether nothing of it is left.
        ok: bool,
        /// What was removed, or what is left and why.
        message: String,
    },
    /// The last event of a build.
    BuildFinished {
        /// Whether there is a template.
        ok: bool,
        /// How long the build took, in seconds.
        seconds: f64,
        /// What it left behind, when it succeeded.
        artifact: Option<Box<Artifact>>,
        /// The first cause and its chain, when it failed.
        error: Option<String>,
    },
    /// The first event of a verification.
    VerifyStarted {
        /// Name or vmid of the template, as it was given.
        template: String,
        /// Version of Proxmox VE, when it answered.
        pve_version: Option<String>,
        /// Names of the steps to come, in order.
        steps: Vec<String>,
    },
    /// The last event of a verification.
    VerifyFinished {
        /// Whether the clones share nothing and nothing else failed.
        ok: bool,
        /// How long it took, in seconds.
        seconds: f64,
        /// What was found, when the clones could be compared.
        report: Option<Box<VerifyReport>>,
        /// The first cause and its chain, when they could not, or could not be removed.
        error: Option<String>,
    },
}

/// What a progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: scripts, keys.
    Items,
    /// Seconds of waiting.
    Seconds,
}

/// Where a build's events go. Cheap to share; without a receiver everything is dropped.
#[derive(Debug)]
pub(crate) struct Emitter {
    build: String,
    to: Option<UnboundedSender<Event>>,
    step: Mutex<String>,
}

impl Emitter {
    pub(crate) fn new(build: String, to: Option<UnboundedSender<Event>>) -> Self {
        Self {
            build,
            to,
            step: Mutex::new(String::new()),
        }
    }

    /// Sets the step that the following events belong to.
    pub(crate) fn enter(&self, step: &str) {
        step.clone_into(&mut self.step.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn step(&self) -> String {
        self.step
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn emit(&self, kind: EventKind) {
        if let Some(to) = &self.to {
            // A receiver that went away wants no more events; that is no reason to stop a build.
            let _ = to.send(Event {
                version: EVENT_VERSION,
                time: Timestamp::now(),
                build: self.build.clone(),
                kind,
            });
        }
    }

    pub(crate) fn progress(&self, done: u64, total: Option<u64>, unit: Unit, note: impl Into<String>) {
        self.emit(EventKind::Progress {
            step: self.step(),
            done,
            total,
            unit,
            note: note.into(),
        });
    }

    pub(crate) fn log(&self, source: &str, stream: OutputStream, line: &str) {
        let (source, line) = (source.to_owned(), line.to_owned());
        self.emit(EventKind::Log {
            step: self.step(),
            source,
            stream,
            line,
        });
    }

    pub(crate) fn warning(&self, message: impl Into<String>) {
        self.emit(EventKind::Warning {
            step: self.step(),
            message: message.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn events_are_flat_json_lines_and_read_back() {
        let (to, mut events) = unbounded_channel();
        let emitter = Emitter::new("7f3a".to_owned(), Some(to));
        emitter.enter("provision");
        emitter.log("k3s-install.sh", OutputStream::Stderr, "42 of 63 MiB");
        emitter.progress(1, Some(4), Unit::Items, "k3s-install.sh");
        emitter.warning("w");
        let mut names = Vec::new();
        while let Ok(event) = events.try_recv() {
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!(serde_json::from_value::<Event>(json.clone()).unwrap(), event);
            assert_eq!(
                (&json["version"], &json["build"], &json["step"]),
                (&1.into(), &"7f3a".into(), &"provision".into())
            );
            names.push(json["event"].as_str().unwrap().to_owned());
        }
        assert_eq!(names, ["log", "progress", "warning"]);
    }

    #[test]
    fn a_receiver_that_went_away_is_no_error() {
        let (to, events) = unbounded_channel();
        drop(events);
        Emitter::new("x".to_owned(), Some(to)).warning("nobody listens");
    }
}
