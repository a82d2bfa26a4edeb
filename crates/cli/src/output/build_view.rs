//! `BuildView`: a build's events as a person reads them, one line a step.

use std::time::{Duration, Instant};

use image_build::build::Unit;
use image_build::{Artifact, Error, Event, EventKind};
use indicatif::{ProgressBar, ProgressStyle};

use super::problem::printable;
use super::{Console, Problem, bytes, duration};

/// How often a pipe is told that a step goes on.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How often the view wants [`BuildView::tick`]: the running step's seconds are counted in tenths.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Shows the events of one build.
#[derive(Debug)]
pub(crate) struct BuildView {
    console: Console,
    running: Option<Running>,
    /// The step that failed and how long it took, until its cause is shown.
    failed: Option<(String, Duration)>,
    /// What the clean-up removed.
    removed: Vec<String>,
    /// Whether --on-error could have kept it.
    keeps: bool,
}

/// The step that runs.
#[derive(Debug)]
struct Running {
    name: String,
    since: Instant,
    told: Instant,
    note: String,
    bar: ProgressBar,
}

impl BuildView {
    pub(crate) fn new(console: Console) -> Self {
        Self {
            console,
            running: None,
            failed: None,
            removed: Vec::new(),
            keeps: true,
        }
    }

    /// The view of a verification, whose clones are never kept.
    pub(crate) fn of_verification(console: Console) -> Self {
        Self {
            keeps: false,
            ..Self::new(console)
        }
    }

    /// Shows one event.
    pub(crate) fn event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::BuildStarted {
                image,
                node,
                pve_version,
                ..
            } => {
                let version = pve_version
                    .as_ref()
                    .map(|version| format!(" (PVE {version})"))
                    .unwrap_or_default();
                let palette = self.console.out();
                self.console.note(format_args!(
                    "{} on {node}{version}, build {}",
                    palette.strong(image),
                    event.build
                ));
            }
            EventKind::VerifyStarted {
                template, pve_version, ..
            } => {
                let version = pve_version
                    .as_ref()
                    .map(|version| format!(" (PVE {version})"))
                    .unwrap_or_default();
                let palette = self.console.out();
                self.console.note(format_args!(
                    "{}{version}, verification {}",
                    palette.strong(template),
                    event.build
                ));
            }
            EventKind::StepStarted { step } => self.begin(step),
            EventKind::Progress {
                done,
                total,
                unit,
                note,
                ..
            } => self.progress(progress(*done, *total, *unit, note)),
            EventKind::Log { source, line, .. } => {
                let line = printable(line);
                if self.console.verbose() > 0 {
                    let palette = self.console.out();
                    self.console.line(format_args!(
                        "     {} {line}",
                        palette.faint(format_args!("{source} |"))
                    ));
                }
                self.progress(format!("{source}: {line}"));
            }
            EventKind::StepFinished {
                step,
                ok,
                seconds,
                summary,
            } => {
                self.end();
                let took = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
                if *ok {
                    let tag = self.console.out().good("ok ");
                    self.console.note(step_line(&tag, step, took, summary));
                } else {
                    // The cause is shown with its layers when the error itself arrives, which is after the clean-up.
                    self.failed = Some((step.clone(), took));
                    self.begin("clean-up");
                    self.progress(format!("{step} failed: {summary}"));
                }
            }
            EventKind::Warning { message, .. } => self.warning(message),
            EventKind::Cleanup { ok: true, message, .. } => self.removed.push(message.clone()),
            EventKind::BuildFinished { .. } | EventKind::VerifyFinished { .. } => self.end(),
            // Events of a later version.
            _ => {}
        }
    }

    /// A warning, between the steps' lines.
    pub(crate) fn warning(&self, message: &str) {
        let tag = self.console.out().warning("!! ");
        self.console.note(format_args!(" {tag} {message}"));
    }

    /// Lets the running step's clock go on.
    pub(crate) fn tick(&mut self) {
        let Some(running) = &mut self.running else { return };
        if self.console.is_live() {
            running.bar.set_message(live_line(&self.console, running));
            running.bar.tick();
        } else if running.told.elapsed() >= HEARTBEAT {
            running.told = Instant::now();
            let tag = self.console.out().running(".. ");
            self.console
                .note(step_line(&tag, &running.name, running.since.elapsed(), &running.note));
        }
    }

    /// Shows why a build failed, what is gone and what is left.
    pub(crate) fn failure(&mut self, error: &Error) -> Box<Problem> {
        self.end();
        let Error::Step {
            step,
            source,
            cleanup,
            kept,
            sight,
        } = error
        else {
            return Problem::before(error);
        };
        let created = !(self.removed.is_empty() && cleanup.is_empty() && kept.is_empty());
        let mut problem = Problem::of_step(source, sight, created);
        let took = self.failed.take().map(|(_, took)| took).unwrap_or_default();
        let palette = self.console.err();
        self.console
            .error_line(step_line(&palette.bad("ERR"), step, took, &problem.message));
        for line in problem.details(&self.console) {
            self.console.error_line(format_args!("     {line}"));
        }
        if !self.removed.is_empty() {
            let removed = std::mem::take(&mut self.removed).join(", ");
            // Who cancelled did not ask for a way to keep it.
            let hint = if error.is_cancelled() || !self.keeps {
                ""
            } else {
                "  (--on-error keep leaves it)"
            };
            self.console.error_line(format_args!("     {removed}{hint}"));
        }
        for left in kept {
            self.console.error_line(format_args!("     kept: {left}"));
        }
        for left in cleanup {
            self.console
                .error_line(format_args!("     {} {left}", palette.bad("not cleaned up:")));
        }
        problem.message = format!("{step} failed: {}", problem.message);
        problem.kept.clone_from(kept);
        problem.left = cleanup.iter().map(ToString::to_string).collect();
        problem
    }

    /// Shows what a build left, and where.
    pub(crate) fn success(&mut self, artifact: &Artifact) {
        self.end();
        let total: f64 = artifact.timings.iter().map(|timing| timing.seconds).sum();
        let total = duration(Duration::try_from_secs_f64(total).unwrap_or_default());
        let palette = self.console.out();
        self.console.line(format_args!(
            "{}: vmid {} on {}, template, in {total}",
            palette.strong(&artifact.name),
            artifact.vmid,
            artifact.node
        ));
        if !artifact.tags.is_empty() {
            self.console
                .note(format_args!("     tags {}", artifact.tags.join(", ")));
        }
    }

    /// Takes the running step's line away.
    pub(crate) fn close(&mut self) {
        self.end();
    }

    fn begin(&mut self, step: &str) {
        self.end();
        let bar = self.console.bar();
        bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let now = Instant::now();
        let running = Running {
            name: step.to_owned(),
            since: now,
            told: now,
            note: String::new(),
            bar,
        };
        running.bar.set_message(live_line(&self.console, &running));
        self.running = Some(running);
    }

    fn progress(&mut self, note: String) {
        if let Some(running) = &mut self.running {
            running.note = note;
        }
    }

    fn end(&mut self) {
        if let Some(running) = self.running.take() {
            running.bar.finish_and_clear();
        }
    }
}

/// The line of the running step; indicatif cuts it to the terminal's width.
fn live_line(console: &Console, running: &Running) -> String {
    step_line(
        &console.out().running(".. "),
        &running.name,
        running.since.elapsed(),
        &running.note,
    )
}

/// ` ok  install    6 m 12 s  412 packages`; the tag comes painted and is three letters wide.
fn step_line(tag: &str, step: &str, took: Duration, text: &str) -> String {
    format!(" {tag} {step:<9} {:>9}  {text}", duration(took))
        .trim_end()
        .to_owned()
}

fn progress(done: u64, total: Option<u64>, unit: Unit, note: &str) -> String {
    let amount = match (unit, total) {
        (Unit::Bytes, Some(total)) => format!("{} of {}", bytes(done), bytes(total)),
        (Unit::Items, Some(total)) => format!("{done} of {total}"),
        (Unit::Seconds, Some(total)) => {
            format!(
                "{} of at most {}",
                duration(Duration::from_secs(done)),
                duration(Duration::from_secs(total))
            )
        }
        // Without a total the note says it all, and the line itself counts the seconds.
        (_, None) => String::new(),
    };
    match (note.is_empty(), amount.is_empty()) {
        (true, _) => amount,
        (false, true) => note.to_owned(),
        (false, false) => format!("{note}: {amount}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_lines_are_columns() {
        let line = |tag, step, millis, text| step_line(tag, step, Duration::from_millis(millis), text);
        assert_eq!(
            line("ok ", "preflight", 400, "token, node"),
            " ok  preflight     0.4 s  token, node"
        );
        assert_eq!(
            line("ok ", "install", 372_000, "412 packages"),
            " ok  install    6 m 12 s  412 packages"
        );
        assert_eq!(line(".. ", "provision", 63_000, ""), " ..  provision  1 m 03 s");
        assert_eq!(line("ERR", "connect", 41_000, "no"), " ERR connect      41.0 s  no");
    }

    #[test]
    fn progress_is_told_in_its_unit() {
        let table = [
            (42 << 20, Some(63 << 20), Unit::Bytes, "k3s", "k3s: 42 MiB of 63 MiB"),
            (1 << 20, None, Unit::Bytes, "1.0 MiB written", "1.0 MiB written"),
            (2, Some(5), Unit::Items, "seal.sh", "seal.sh: 2 of 5"),
            (
                30,
                Some(2700),
                Unit::Seconds,
                "installer",
                "installer: 30.0 s of at most 45 m 00 s",
            ),
            (30, None, Unit::Seconds, "waiting", "waiting"),
        ];
        for (done, total, unit, note, wanted) in table {
            assert_eq!(progress(done, total, unit, note), wanted);
        }
    }
}
