//! The crate's error: each variant says what was attempted, on what, why it failed and what to do.

use std::path::PathBuf;
use std::time::Duration;

use proxmox_client::Vmid;
use thiserror::Error;

use crate::build::{CleanupFailure, Sight, StepName};
use crate::communicator::{CommunicatorError, ExitStatus};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::media::{ConfigVolumeError, OemdrvError};
use crate::plan::PlanReport;

/// Why an image could not be described, planned or built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The input is wrong; all that is wrong with it is listed, not only the first. Nothing was created.
    ///
    /// This line names the first; `Display` of [`Diagnostics`] renders them all with their places.
    #[error("invalid input: {}", .0.summary())]
    Invalid(Diagnostics),
    /// A step of a build failed. The cause is in `source`; what could not be cleaned up is listed beside it.
    #[error("{step} failed{}{}", sight_text(sight), cleanup_text(cleanup, kept))]
    Step {
        /// Name of the step.
        step: StepName,
        /// Why.
        source: Box<Error>,
        /// What the clean-up could not remove, in the order in which it was tried.
        cleanup: Vec<CleanupFailure>,
        /// What was left on purpose (`on_error = keep`).
        kept: Vec<String>,
        /// What was seen of the guest at that moment.
        sight: Box<Sight>,
    },
    /// The cluster does not have what the image needs. Nothing was created.
    #[error("{}", report.failure_text())]
    Preflight {
        /// All findings, good and bad.
        report: Box<PlanReport>,
    },
    /// A call of the Proxmox VE API failed.
    #[error("{attempt}")]
    Api {
        /// What was attempted, on what: `starting vm 9000`.
        attempt: String,
        /// The client's error.
        source: Box<proxmox_client::Error>,
    },
    /// Talking to the guest failed.
    #[error("{attempt}")]
    Guest {
        /// What was attempted: `uploading os-update.sh`.
        attempt: String,
        /// The communicator's error.
        source: Box<CommunicatorError>,
    },
    /// A provisioner's script ended with an error.
    #[error("{script} ended with {status}{}", tail_text(tail))]
    Script {
        /// Name of the script.
        script: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        tail: Vec<String>,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {}: {seen}", crate::text::human_duration(*after))]
    Timeout {
        /// What was waited for.
        what: String,
        /// The limit.
        after: Duration,
        /// What was seen last, and what to do about it.
        seen: String,
    },
    /// Another process goes on with the build; this one has stopped and left everything to it.
    #[error("build {build} is in other hands: {found}")]
    TakenOver {
        /// Short id of the build.
        build: String,
        /// What was found, for people.
        found: String,
    },
    /// A build cannot be gone on with.
    #[error("build {build} cannot be resumed: {reason}")]
    NotResumable {
        /// Short id of the build.
        build: String,
        /// Why, and what to do.
        reason: String,
    },
    /// What was waited for cannot happen any more.
    #[error("{what} cannot happen any more: {reason}")]
    Impossible {
        /// What was waited for.
        what: String,
        /// What makes it impossible, and what to do about it.
        reason: String,
    },
    /// Something that PVE reported as done is not as it must be.
    #[error("{what}: {reason}")]
    Unexpected {
        /// What was looked at.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A new template whose clones are not as they must be; it does not take the old one's place.
    #[error("the clones of the new template are not as they must be: {}; the template that it was to replace is untouched", findings.join("; "))]
    NotVerified {
        /// What was found, each with its check's name.
        findings: Vec<String>,
    },
    /// The image is complete and bears its name; what was to be done after that was not.
    #[error(
        "{image} is complete as template {vmid}, but {what}; `k3simage resume {build}` goes on, `k3simage gc --yes` leaves it so"
    )]
    Unfinished {
        /// Name of the image.
        image: String,
        /// The number at which it is.
        vmid: Vmid,
        /// What is not as it was asked for: `does not have vmid 9000 yet`.
        what: String,
        /// Short id of the build.
        build: String,
        /// Why.
        source: Box<Error>,
    },
    /// A name or id that is in use.
    #[error("{what} is taken by {by}")]
    Taken {
        /// What was wanted.
        what: String,
        /// Who has it.
        by: String,
    },
    /// The volume with the kickstart could not be laid out.
    #[error("cannot make the OEMDRV volume with the kickstart")]
    Oemdrv {
        /// Why.
        source: OemdrvError,
    },
    /// The volume with a clone's settings could not be laid out.
    #[error("cannot make the volume with the clone's settings")]
    ConfigVolume {
        /// Why.
        source: ConfigVolumeError,
    },
    /// Something of ours could not be removed.
    #[error("could not remove {left}")]
    Left {
        /// What is left, and where.
        left: String,
        /// Why.
        source: Box<Error>,
    },
    /// No keys could be made for the build.
    #[error("cannot make the build's ssh keys")]
    Keys {
        /// What the key library said.
        source: russh::keys::ssh_key::Error,
    },
    /// A step asked for what an earlier one was to leave: a mistake of this library.
    #[error("internal error: {what} is not known yet")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// No port for the kickstart's HTTP server.
    #[error(
        "cannot serve the kickstart on {what}: set http_bind_address, http_port_min and http_port_max to what is free here"
    )]
    HttpBind {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A local file or folder could not be used.
    #[error("{attempt} {}", path.display())]
    Io {
        /// What was attempted: `writing`.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A step panicked, which is a mistake of this library; the build was undone all the same.
    #[error("internal error: {message}")]
    Panic {
        /// Where it was, as far as that is known, and its text where that holds nothing of the build: see [`panics`](crate::panics).
        message: String,
    },
}

impl Error {
    /// What is wrong with the input, when that is the error.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Self::Invalid(diagnostics) => Some(diagnostics),
            Self::Step { source, .. } => source.diagnostics(),
            _ => None,
        }
    }

    /// Whether the cause is the cancel that was asked for.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled => true,
            Self::Step { source, .. } | Self::Unfinished { source, .. } => source.is_cancelled(),
            _ => false,
        }
    }

    /// The step that failed, when a build had begun.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Step { step, .. } => Some(step),
            _ => None,
        }
    }

    /// The whole chain on one line, the first cause last: `install failed: starting vm 9000: ...`.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// An input that cannot be used, found where a spec is put to use.
    pub(crate) fn unusable(subject: &str, message: &str, help: &str) -> Self {
        let diagnostic = Diagnostic::error(subject, message);
        if help.is_empty() {
            diagnostic.into()
        } else {
            diagnostic.help(help).into()
        }
    }

    pub(crate) fn keys(source: russh::keys::ssh_key::Error) -> Self {
        Self::Keys { source }
    }

    /// Wraps an error of the client with what was attempted.
    pub(crate) fn api(attempt: impl Into<String>) -> impl FnOnce(proxmox_client::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Api {
            attempt,
            source: Box::new(source),
        }
    }

    /// Wraps an error of the communicator with what was attempted.
    pub(crate) fn guest(attempt: impl Into<String>) -> impl FnOnce(CommunicatorError) -> Self {
        let attempt = attempt.into();
        move |source| Self::Guest {
            attempt,
            source: Box::new(source),
        }
    }
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Invalid(diagnostic.into())
    }
}

fn cleanup_text(cleanup: &[CleanupFailure], kept: &[String]) -> String {
    let kept = if kept.is_empty() {
        String::new()
    } else {
        format!(" (kept: {})", kept.join(", "))
    };
    let failures: Vec<String> = cleanup.iter().map(ToString::to_string).collect();
    match failures.as_slice() {
        [] => kept,
        failures => format!("{kept} (not cleaned up: {})", failures.join("; ")),
    }
}

fn sight_text(sight: &Sight) -> String {
    match &sight.screen {
        Some(screen) => format!(" (screen: {})", screen.display()),
        None => String::new(),
    }
}

fn tail_text(tail: &[String]) -> String {
    if tail.is_empty() {
        " and printed nothing".to_owned()
    } else {
        format!("; its last lines: {}", tail.join(" | "))
    }
}
