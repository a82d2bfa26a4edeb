//! `Problem`: why the command ends without having done its work; shown with its causes and what to do.

use std::error::Error as StdError;
use std::fmt::Display;

use image_build::build::Sight;
use image_build::plan::{Finding, Level};
use image_build::{Diagnostics, Error};
use proxmox_client::ErrorKind;
use serde_json::{Value, json};

use super::Console;
use crate::exit::Exit;

/// Why the command ends without having done its work.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The exit code that it means.
    pub(crate) exit: Exit,
    /// What failed, in one lower-case line.
    pub(crate) message: String,
    /// Why, from the outside in, one line each.
    pub(crate) causes: Vec<String>,
    /// What the server or script said last.
    pub(crate) tail: Vec<String>,
    /// What to do about it.
    pub(crate) help: Vec<String>,
    /// What is wrong with the input, each with its place.
    pub(crate) diagnostics: Diagnostics,
    /// What the cluster does not have.
    pub(crate) findings: Vec<Finding>,
    /// What was seen of the guest.
    pub(crate) sight: Sight,
    /// What was kept on purpose.
    pub(crate) kept: Vec<String>,
    /// What could not be cleaned up, and why.
    pub(crate) left: Vec<String>,
}

impl Problem {
    fn new(exit: Exit, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            tail: Vec::new(),
            help: Vec::new(),
            diagnostics: Diagnostics::new(),
            findings: Vec::new(),
            sight: Sight::default(),
            kept: Vec::new(),
            left: Vec::new(),
        })
    }

    /// Something went wrong on the way.
    pub(crate) fn failed(message: impl Into<String>) -> Box<Self> {
        Self::new(Exit::Failed, message)
    }

    /// The input is wrong.
    pub(crate) fn bad_input(message: impl Into<String>) -> Box<Self> {
        Self::new(Exit::BadInput, message)
    }

    /// Adds an error and its own causes.
    pub(crate) fn because(mut self: Box<Self>, error: &(dyn StdError + 'static)) -> Box<Self> {
        self.push_chain(error);
        self
    }

    /// Adds what to do.
    pub(crate) fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help.push(help.into());
        self
    }

    /// A failure of the library before anything was created.
    pub(crate) fn before(error: &Error) -> Box<Self> {
        let mut problem = Self::of(error);
        problem.exit = exit_before(error);
        problem
    }

    /// A failure of the client before anything was created.
    pub(crate) fn of_client(attempt: &str, error: &proxmox_client::Error) -> Box<Self> {
        let mut problem = Self::new(exit_of_client(error), attempt);
        problem.push_chain(error);
        problem
    }

    /// A failed build: what stands inside the step's error, so that the step's own line can carry it.
    pub(crate) fn of_step(cause: &Error, sight: &Sight, created: bool) -> Box<Self> {
        let mut problem = Self::of(cause);
        problem.sight = sight.clone();
        problem.exit = if created { Exit::Failed } else { exit_before(cause) };
        problem
    }

    fn of(error: &Error) -> Box<Self> {
        let mut problem = Self::new(Exit::Failed, "");
        problem.push_chain(error);
        problem.message = problem.causes.remove(0);
        problem
    }

    /// Adds an error with all below it. Each says only what is of its own layer, so nothing is said twice.
    fn push_chain(&mut self, error: &(dyn StdError + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            let line = self.take_details(error);
            self.causes.push(line);
            next = error.source();
        }
    }

    /// Takes out of an error what deserves lines of its own; gives the line that remains.
    fn take_details(&mut self, error: &(dyn StdError + 'static)) -> String {
        if let Some(error) = error.downcast_ref::<Error>() {
            match error {
                Error::Invalid(diagnostics) => {
                    self.diagnostics.append(diagnostics.clone());
                    return "invalid input".to_owned();
                }
                Error::Preflight { report } => {
                    self.findings.extend(report.at(Level::Error).cloned());
                    return "the cluster does not have what the image needs".to_owned();
                }
                Error::Script { script, status, tail } => {
                    self.tail.extend(tail.iter().cloned());
                    return format!("{script} ended with {status}");
                }
                _ => {}
            }
        }
        if let Some(error) = client_error(error) {
            if let proxmox_client::Error::Task { log_tail, .. } = error {
                self.tail.extend(log_tail.iter().cloned());
            }
            if let Some(advice) = error.advice() {
                self.help.push(advice);
            }
        }
        error.to_string()
    }

    /// The whole chain on one line.
    pub(crate) fn chain(&self) -> String {
        let lines: Vec<&str> = std::iter::once(&self.message)
            .chain(&self.causes)
            .map(String::as_str)
            .filter(|line| !line.is_empty())
            .collect();
        lines.join(": ")
    }

    /// Everything below the first line, without indentation: causes, details, help.
    pub(crate) fn details(&self, console: &Console) -> Vec<String> {
        let palette = console.err();
        let mut lines: Vec<String> = Vec::new();
        for (depth, cause) in self.causes.iter().enumerate() {
            lines.push(format!("{:indent$}{cause}", "", indent = depth * 2));
        }
        for finding in &self.findings {
            lines.push(format!(
                "{} {}: {}",
                palette.bad("-"),
                palette.strong(&finding.check),
                finding.message
            ));
            lines.extend(
                finding
                    .fix
                    .iter()
                    .flat_map(|fix| fix.lines())
                    .map(|line| format!("    {line}")),
            );
        }
        for diagnostic in self.diagnostics.iter() {
            lines.extend(diagnostic.to_string().lines().map(str::to_owned));
        }
        lines.extend(
            self.tail
                .iter()
                .map(|line| format!("{} {}", palette.faint("|"), printable(line))),
        );
        lines.extend(
            self.sight
                .console
                .iter()
                .map(|line| format!("{} {}", palette.faint("console |"), printable(line))),
        );
        lines.extend(
            self.sight
                .screen
                .iter()
                .map(|path| format!("screen: {}", path.display())),
        );
        lines.extend(
            self.help
                .iter()
                .flat_map(|help| help.lines())
                .map(|line| format!("{} {line}", palette.strong("help:"))),
        );
        lines
    }

    /// The problem as one object for programs.
    pub(crate) fn object(&self) -> Value {
        json!({
            "event": "error",
            "exit_code": self.exit.code(),
            "message": self.chain(),
            "help": self.help,
            "log_tail": self.tail,
            "diagnostics": self.diagnostics,
            "findings": self.findings,
            "console": self.sight.console,
            "screen": self.sight.screen,
            "kept": self.kept,
            "left": self.left,
        })
    }

    /// Shows it as text on standard error, or as an object with `--json`.
    pub(crate) fn show(&self, console: &Console) {
        console.object(&self.object());
        let palette = console.err();
        // A list of diagnostics speaks for itself; its own lines begin with `error:` too.
        if self.diagnostics.is_empty() || self.causes.len() > 1 {
            console.error_line(format_args!("{} {}", palette.bad("error:"), self.message));
        }
        let indent = if self.diagnostics.is_empty() { "  " } else { "" };
        for line in self.details(console) {
            console.error_line(format_args!("{indent}{line}"));
        }
    }
}

/// The client's error, boxed or not.
fn client_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a proxmox_client::Error> {
    error
        .downcast_ref::<proxmox_client::Error>()
        .or_else(|| error.downcast_ref::<Box<proxmox_client::Error>>().map(AsRef::as_ref))
}

/// A guest's or server's line without what would steer the terminal.
pub(crate) fn printable(line: impl Display) -> String {
    line.to_string()
        .chars()
        .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}

/// What an error means while nothing has been created.
fn exit_before(error: &Error) -> Exit {
    match error {
        // A file that fails here is the folder, a variable file or the manifest, all of them named by the user. A build that lives,
        // is another's or has ended is not touched.
        Error::Invalid(_)
        | Error::Preflight { .. }
        | Error::Io { .. }
        | Error::NotResumable { .. }
        | Error::TakenOver { .. } => Exit::BadInput,
        Error::Api { source, .. } => exit_of_client(source),
        Error::Step { source, .. } => exit_before(source),
        _ => Exit::Failed,
    }
}

fn exit_of_client(error: &proxmox_client::Error) -> Exit {
    match error.kind() {
        ErrorKind::Connect | ErrorKind::Transport | ErrorKind::Timeout | ErrorKind::Proxy => Exit::Unreachable,
        ErrorKind::Auth
        | ErrorKind::Permission
        | ErrorKind::NotFound
        | ErrorKind::Tls
        | ErrorKind::Invalid
        | ErrorKind::File => Exit::BadInput,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proxmox_client::{Error as ClientError, Method};

    use super::*;
    use crate::output::{ColorChoice, Settings};

    fn console() -> Console {
        Console::new(Settings {
            json: false,
            quiet: false,
            verbose: 0,
            color: ColorChoice::Never,
            no_color: false,
        })
    }

    fn api(status: u16, message: &str) -> ClientError {
        ClientError::Api {
            method: Method::POST,
            path: "/nodes/pve/qemu".to_owned(),
            status,
            message: message.to_owned(),
            params: BTreeMap::new(),
        }
    }

    fn refused() -> ClientError {
        ClientError::Connect {
            endpoint: "https://pve:8006".to_owned(),
            method: Method::GET,
            path: "/version".to_owned(),
            attempts: 3,
            source: "connection refused".into(),
        }
    }

    #[test]
    fn what_an_error_means_before_anything_is_created() {
        let attempt = || "asking".to_owned();
        let table = [
            (
                Error::Api {
                    attempt: attempt(),
                    source: Box::new(refused()),
                },
                Exit::Unreachable,
            ),
            (
                Error::Api {
                    attempt: attempt(),
                    source: Box::new(api(596, "Broken pipe")),
                },
                Exit::Unreachable,
            ),
            (
                Error::Api {
                    attempt: attempt(),
                    source: Box::new(api(401, "authentication failure")),
                },
                Exit::BadInput,
            ),
            (
                Error::Api {
                    attempt: attempt(),
                    source: Box::new(api(403, "Permission check failed (/, Sys.Audit)")),
                },
                Exit::BadInput,
            ),
            (
                Error::Api {
                    attempt: attempt(),
                    source: Box::new(api(500, "got no worker upid")),
                },
                Exit::Failed,
            ),
            (Error::Invalid(Diagnostics::new()), Exit::BadInput),
            (
                Error::Io {
                    attempt: "reading",
                    path: "x".into(),
                    source: std::io::ErrorKind::NotFound.into(),
                },
                Exit::BadInput,
            ),
            (Error::Cancelled, Exit::Failed),
        ];
        for (error, exit) in table {
            assert_eq!(Problem::before(&error).exit, exit, "{error}");
            // Once something was created it is a failed build, whatever the cause.
            assert_eq!(
                Problem::of_step(&error, &Sight::default(), true).exit,
                Exit::Failed,
                "{error}"
            );
        }
    }

    #[test]
    fn causes_are_indented_and_followed_by_what_to_do() {
        let error = Error::Api {
            attempt: "asking for the version".to_owned(),
            source: Box::new(refused()),
        };
        let problem = Problem::before(&error);
        assert_eq!(problem.message, "asking for the version");
        assert_eq!(
            problem.details(&console()),
            [
                "cannot connect to https://pve:8006 for GET /version (3 attempts)",
                "  connection refused",
                "help: check the address, the port (8006) and the network in between",
            ]
        );
        assert_eq!(
            problem.chain(),
            "asking for the version: cannot connect to https://pve:8006 for GET /version (3 attempts): connection refused"
        );
    }

    #[test]
    fn a_guests_line_cannot_steer_the_terminal() {
        assert_eq!(printable("\u{1b}[2Jok\tgo\u{7}"), "\u{fffd}[2Jok\tgo\u{fffd}");
    }
}
