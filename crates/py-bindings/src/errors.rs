//! Rust errors as Python exceptions: the class by kind, the data as attributes, the chain as `__cause__`.

use std::error::Error as StdError;
use std::path::PathBuf;

use image_build::Error as ImageError;
use image_build::plan::Level;
use proxmox_client::{Error as ClientError, ErrorKind};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::task::JoinError;

/// Why a piece of work ended without a value.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client's error.
    Client(Box<ClientError>),
    /// The image pipeline's error.
    Image(Box<ImageError>),
    /// The emulator's error.
    #[cfg(feature = "emulator")]
    Emulator(Box<pve_emulator::Error>),
    /// The work was dropped at the caller's wish.
    Stopped,
    /// The work panicked.
    Died(String),
    /// An exception that the work has made itself.
    Raised(PyErr),
}

impl From<PyErr> for Failure {
    fn from(raised: PyErr) -> Self {
        Self::Raised(raised)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

#[cfg(feature = "emulator")]
impl From<pve_emulator::Error> for Failure {
    fn from(error: pve_emulator::Error) -> Self {
        Self::Emulator(Box::new(error))
    }
}

impl Failure {
    /// Whether the work did nothing but stop when it was asked to, and left nothing behind.
    pub(crate) fn is_clean_stop(&self) -> bool {
        match self {
            Self::Stopped => true,
            Self::Client(error) => error.kind() == ErrorKind::Cancelled,
            Self::Image(error) => error.is_cancelled() && left_behind(error).is_empty(),
            #[cfg(feature = "emulator")]
            Self::Emulator(_) => false,
            Self::Died(_) | Self::Raised(_) => false,
        }
    }
}

/// How a task of the runtime ended that returned nothing.
pub(crate) fn worker_died(end: JoinError) -> Failure {
    if end.is_cancelled() {
        Failure::Stopped
    } else {
        Failure::Died(format!("internal error: {}", image_build::panics::told_of_task(end)))
    }
}

/// The package is used in a forked process, where the worker threads do not exist.
pub(crate) fn fork_error() -> PyErr {
    let text = "k3simage was used before this process was forked, and its worker threads do not survive that";
    let help = "start processes with multiprocessing's \"spawn\" method";
    Python::attach(|py| {
        Exception {
            help: Some(help.to_owned()),
            ..Exception::new("Error", text)
        }
        .build(py)
    })
}

/// The package is used while the interpreter goes, when its worker threads have ended.
pub(crate) fn interpreter_ends() -> PyErr {
    Python::attach(|py| {
        Exception::new("Error", "k3simage cannot be used any more: the interpreter is ending").build(py)
    })
}

/// The exception for a failure.
pub(crate) fn raise(failure: Failure) -> PyErr {
    Python::attach(|py| match failure {
        Failure::Client(error) => chain(py, &*error),
        Failure::Image(error) => {
            let raised = image_exception(&error).build(py);
            if let Some(cause) = error.source() {
                raised.set_cause(py, Some(chain(py, cause)));
            }
            raised
        }
        #[cfg(feature = "emulator")]
        Failure::Emulator(error) => chain(py, &*error),
        Failure::Stopped => Exception::new("Error", "stopped").build(py),
        Failure::Died(text) => Exception::new("Error", &text).build(py),
        Failure::Raised(raised) => raised,
    })
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        raise(failure)
    }
}

/// An exception that says what is wrong with an argument.
pub(crate) fn invalid_input(text: &str) -> PyErr {
    Python::attach(|py| Exception::new("InvalidInputError", text).build(py))
}

/// An error and all that lies beneath it, each as the cause of the one above.
fn chain(py: Python<'_>, error: &(dyn StdError + 'static)) -> PyErr {
    let raised = one(py, error);
    if let Some(cause) = error.source() {
        raised.set_cause(py, Some(chain(py, cause)));
    }
    raised
}

/// One link of the chain.
fn one(py: Python<'_>, error: &(dyn StdError + 'static)) -> PyErr {
    if let Some(exception) = known(error) {
        return exception.build(py);
    }
    #[cfg(feature = "emulator")]
    if let Some(error) = error.downcast_ref::<pve_emulator::Error>() {
        return Exception::new("EmulatorError", &error.to_string()).build(py);
    }
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        // Python picks the subclass (`FileNotFoundError`, ...) from the number.
        return match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, error.to_string())),
            None => PyOSError::new_err(error.to_string()),
        };
    }
    Exception::new("Error", &error.to_string()).build(py)
}

/// The class for what a client's error means.
fn client_class(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Auth => "AuthError",
        ErrorKind::Permission => "PermissionDeniedError",
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::AlreadyExists => "AlreadyExistsError",
        ErrorKind::Parameter => "ParameterError",
        ErrorKind::Locked | ErrorKind::Conflict | ErrorKind::Busy => "ConflictError",
        ErrorKind::State => "StateError",
        ErrorKind::Agent => "AgentError",
        ErrorKind::Unsupported | ErrorKind::Server => "ServerError",
        ErrorKind::TaskFailed => "TaskError",
        ErrorKind::Connect => "ConnectError",
        ErrorKind::Tls => "TlsError",
        ErrorKind::Transport | ErrorKind::Proxy | ErrorKind::Decode => "TransportError",
        ErrorKind::Timeout => "WaitTimeoutError",
        ErrorKind::Invalid => "InvalidInputError",
        ErrorKind::File => "FileError",
        _ => "Error",
    }
}

fn client_exception(error: &ClientError) -> Exception {
    let mut exception = Exception::new(client_class(error.kind()), &error.to_string());
    exception.status = error.status();
    exception.help = error.advice();
    if let Some(missing) = error.missing_privileges() {
        exception.path = Some(missing.path);
        exception.privileges = missing.any_of;
    }
    match error {
        ClientError::Api { params, .. } => {
            exception.params = params.iter().map(|(name, text)| (name.clone(), text.clone())).collect();
        }
        ClientError::Task { upid, log_tail, .. } => {
            exception.upid = Some(upid.to_string());
            exception.log_tail.clone_from(log_tail);
        }
        _ => {}
    }
    exception
}

/// One exception to be: its class in the package's Python half, its text and its attributes.
#[derive(Debug, Default)]
struct Exception {
    class: &'static str,
    text: String,
    status: Option<u16>,
    upid: Option<String>,
    step: Option<String>,
    log_tail: Vec<String>,
    help: Option<String>,
    params: Vec<(String, String)>,
    path: Option<String>,
    privileges: Vec<String>,
    findings: Vec<String>,
    console: Vec<String>,
    screen: Option<PathBuf>,
    kept: Vec<String>,
    left: Vec<String>,
}

impl Exception {
    fn new(class: &'static str, text: &str) -> Self {
        Self {
            class,
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// Fills in what this one does not say itself.
    fn take_missing_from(&mut self, inner: Self) {
        let Self {
            class: _,
            text: _,
            status,
            upid,
            step,
            log_tail,
            help,
            params,
            path,
            privileges,
            findings,
            console,
            screen,
            kept,
            left,
        } = inner;
        self.status = self.status.or(status);
        self.upid = self.upid.take().or(upid);
        self.step = self.step.take().or(step);
        self.help = self.help.take().or(help);
        self.path = self.path.take().or(path);
        if self.log_tail.is_empty() {
            self.log_tail = log_tail;
        }
        if self.params.is_empty() {
            self.params = params;
        }
        if self.privileges.is_empty() {
            self.privileges = privileges;
        }
        if self.findings.is_empty() {
            self.findings = findings;
        }
        if self.console.is_empty() {
            self.console = console;
        }
        self.screen = self.screen.take().or(screen);
        if self.kept.is_empty() {
            self.kept = kept;
        }
        if self.left.is_empty() {
            self.left = left;
        }
    }

    /// Makes the Python object; what goes wrong on the way (an interrupted import) is the exception instead.
    fn build(self, py: Python<'_>) -> PyErr {
        match self.try_build(py) {
            Ok(raised) | Err(raised) => raised,
        }
    }

    fn try_build(self, py: Python<'_>) -> PyResult<PyErr> {
        let raised = py
            .import("k3simage._errors")?
            .getattr(self.class)?
            .call1((&self.text,))?;
        // Python 3.11 prints notes under the text; before that they are kept and not printed.
        let notes: Vec<String> = self
            .findings
            .iter()
            .cloned()
            .chain(self.help.iter().map(|help| format!("help: {help}")))
            .collect();
        if !notes.is_empty() {
            raised.setattr("__notes__", notes)?;
        }
        raised.setattr("status", self.status)?;
        raised.setattr("upid", self.upid)?;
        raised.setattr("step", self.step)?;
        raised.setattr("log_tail", self.log_tail)?;
        raised.setattr("help", self.help)?;
        let params = PyDict::new(py);
        for (name, text) in self.params {
            params.set_item(name, text)?;
        }
        raised.setattr("params", params)?;
        raised.setattr("path", self.path)?;
        raised.setattr("privileges", self.privileges)?;
        raised.setattr("findings", self.findings)?;
        raised.setattr("console", self.console)?;
        raised.setattr("screen", self.screen)?;
        raised.setattr("kept", self.kept)?;
        raised.setattr("left", self.left)?;
        Ok(PyErr::from_value(raised))
    }
}

/// What an undo could not remove, or left on purpose, or as a complete image.
fn left_behind(error: &ImageError) -> Vec<String> {
    match error {
        ImageError::Unfinished { .. } => vec![error.to_string()],
        ImageError::Step { source, .. } if matches!(**source, ImageError::Unfinished { .. }) => {
            vec![source.to_string()]
        }
        ImageError::Step { cleanup, kept, .. } => cleanup
            .iter()
            .map(ToString::to_string)
            .chain(kept.iter().cloned())
            .collect(),
        _ => Vec::new(),
    }
}

fn image_exception(error: &ImageError) -> Exception {
    let mut exception = image_link(error);
    // The attributes of what lies beneath count for the whole: the status and task of the call on which a step failed.
    let mut cause = error.source();
    while let Some(beneath) = cause {
        if let Some(inner) = known(beneath) {
            exception.take_missing_from(inner);
        }
        cause = beneath.source();
    }
    exception
}

/// The exception for an error of ours, without its causes.
fn known(error: &(dyn StdError + 'static)) -> Option<Exception> {
    if let Some(error) = error.downcast_ref::<ImageError>() {
        return Some(image_link(error));
    }
    if let Some(error) = error.downcast_ref::<Box<ImageError>>() {
        return Some(image_link(error));
    }
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return Some(client_exception(error));
    }
    error
        .downcast_ref::<Box<ClientError>>()
        .map(|error| client_exception(error))
}

fn image_link(error: &ImageError) -> Exception {
    let mut exception = Exception::new(image_class(error), &error.to_string());
    exception.step = error.step().map(str::to_owned);
    match error {
        ImageError::Invalid(diagnostics) => exception.findings = diagnostics.iter().map(ToString::to_string).collect(),
        ImageError::Preflight { report } => {
            exception.findings = report.at(Level::Error).map(ToString::to_string).collect();
        }
        ImageError::Script { tail, .. } => exception.log_tail.clone_from(tail),
        ImageError::Step {
            sight, cleanup, kept, ..
        } => {
            exception.kept.clone_from(kept);
            exception.left = cleanup.iter().map(ToString::to_string).collect();
            exception.console.clone_from(&sight.console);
            exception.screen.clone_from(&sight.screen);
        }
        _ => {}
    }
    exception
}

/// The class for what an error of the pipeline means.
fn image_class(error: &ImageError) -> &'static str {
    match error {
        // A build that was refused has created nothing, and says so by the same class as a plan or a spec.
        ImageError::Step { source, cleanup, .. } if cleanup.is_empty() => match **source {
            ImageError::Preflight { .. } => "PlanError",
            ImageError::Invalid(_) => "InvalidInputError",
            _ => "BuildError",
        },
        ImageError::Preflight { .. } => "PlanError",
        ImageError::Invalid(_) => "InvalidInputError",
        ImageError::Api { source, .. } => client_class(source.kind()),
        ImageError::Taken { .. } | ImageError::TakenOver { .. } => "AlreadyExistsError",
        ImageError::Timeout { .. } => "WaitTimeoutError",
        ImageError::Io { .. } => "FileError",
        _ => "BuildError",
    }
}
