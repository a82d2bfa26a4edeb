//! The bridge between Python's threads and the tokio runtime: one running piece of work, waited for in two ways.
//!
//! Work always runs as a task of the one runtime. A plain call waits for it with the GIL released and looks at signals
//! every [`SIGNAL_INTERVAL`]; an awaited call is polled by asyncio. Callbacks run in the thread that waits, so a script
//! never meets a thread that it did not start.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::coroutine::CancelHandle;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyList;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::errors::{Failure, fork_error, interpreter_ends, raise, worker_died};

/// How long a plain call may keep a Ctrl-C waiting: below what a person notices, far above what the wake costs.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// How long the end of the interpreter waits for worker threads; they end at once unless one reads a large file.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// The one runtime in its life.
#[derive(Debug)]
enum Life {
    Unborn,
    Alive { runtime: Runtime, pid: u32 },
    Over,
}

static LIFE: Mutex<Life> = Mutex::new(Life::Unborn);

/// Waits for the lock without the GIL: its holder may need that.
fn life(py: Python<'_>) -> MutexGuard<'static, Life> {
    // Nothing panics while it is held, so what a poisoned lock guards is whole.
    LIFE.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
}

/// A handle on the runtime, which is made at the first use.
fn handle(py: Python<'_>) -> PyResult<Handle> {
    let mut life = life(py);
    if let Life::Unborn = *life {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("k3simage")
            .build()
            .map_err(|cause| PyOSError::new_err(format!("starting worker threads: {cause}")))?;
        py.import("atexit")?
            .call_method1("register", (wrap_pyfunction!(shut_down, py)?,))?;
        *life = Life::Alive {
            runtime,
            pid: std::process::id(),
        };
    }
    match &*life {
        // A fork copies the memory but not the worker threads: every wait would hang.
        Life::Alive { runtime, pid } if *pid == std::process::id() => Ok(runtime.handle().clone()),
        Life::Alive { .. } => Err(fork_error()),
        Life::Unborn | Life::Over => Err(interpreter_ends()),
    }
}

/// Ends the worker threads before the interpreter does: one that wakes a coroutine while it goes would crash it.
#[pyfunction]
fn shut_down(py: Python<'_>) {
    let was = std::mem::replace(&mut *life(py), Life::Over);
    match was {
        Life::Alive { runtime, pid } if pid == std::process::id() => {
            py.detach(|| runtime.shutdown_timeout(SHUTDOWN_LIMIT));
        }
        // In a forked process there are no threads to wait for.
        other => std::mem::forget(other),
    }
}

/// Something to tell a callback: turned into its arguments with the GIL held.
pub(crate) trait Notice: Send + 'static {
    /// Calls `callback` with what this notice holds.
    fn deliver(self, py: Python<'_>, callback: &Py<PyAny>) -> PyResult<()>;
}

/// The notice of work that tells nothing.
#[derive(Debug)]
pub(crate) enum Silent {}

impl Notice for Silent {
    fn deliver(self, _: Python<'_>, _: &Py<PyAny>) -> PyResult<()> {
        match self {}
    }
}

/// What came of work that ended well although it was asked to stop: a line for people, and the value that the call would have returned.
pub(crate) type Late<T> = fn(T, Python<'_>) -> PyResult<(String, Py<PyAny>)>;

/// A piece of work that runs, with what it tells and the way to stop it.
pub(crate) struct Running<T, N> {
    task: JoinHandle<Result<T, Failure>>,
    notices: UnboundedReceiver<N>,
    callback: Option<Py<PyAny>>,
    token: CancellationToken,
    /// Of work that undoes, and so can end well after it was asked to stop.
    late: Option<Late<T>>,
}

impl<T, N> fmt::Debug for Running<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("undoes", &self.late.is_some())
            .finish_non_exhaustive()
    }
}

impl<T, N> Drop for Running<T, N> {
    /// Work that undoes goes on to do so by itself; all other work just ends.
    fn drop(&mut self) {
        self.token.cancel();
        if self.late.is_none() {
            self.task.abort();
        }
    }
}

/// What a wait came back with.
enum Turn<T, N> {
    Notice(N),
    Done(Result<T, Failure>),
    Tick,
}

impl<T: Send + 'static, N: Notice> Running<T, N> {
    /// Starts work that tells `callback` and, once its token is cancelled, undoes what it did before it ends; where it was too late for
    /// that, `late` says what stays.
    pub(crate) fn undoing<W, F>(callback: Option<Py<PyAny>>, late: Late<T>, work: W) -> PyResult<Self>
    where
        W: FnOnce(UnboundedSender<N>, CancellationToken) -> F,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        Self::start(callback, Some(late), work)
    }

    /// Starts work that tells `callback` and may be dropped at any time.
    pub(crate) fn telling<W, F>(callback: Option<Py<PyAny>>, work: W) -> PyResult<Self>
    where
        W: FnOnce(UnboundedSender<N>) -> F,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        Self::start(callback, None, |notices, _| work(notices))
    }

    fn start<W, F>(callback: Option<Py<PyAny>>, late: Option<Late<T>>, work: W) -> PyResult<Self>
    where
        W: FnOnce(UnboundedSender<N>, CancellationToken) -> F,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let token = CancellationToken::new();
        let (sender, notices) = unbounded_channel();
        let task = Python::attach(handle)?.spawn(work(sender, token.clone()));
        Ok(Self {
            task,
            notices,
            callback,
            token,
            late,
        })
    }

    /// Asks the work to stop; work without an undo ends at once.
    fn cancel(&self) {
        self.token.cancel();
        if self.late.is_none() {
            self.task.abort();
        }
    }

    /// Waits for a notice or the end. Notices that were sent before the end come first.
    async fn turn(&mut self) -> Turn<T, N> {
        tokio::select! {
            biased;
            Some(notice) = self.notices.recv() => Turn::Notice(notice),
            end = &mut self.task => match end {
                Ok(result) => Turn::Done(result),
                Err(end) => Turn::Done(Err(worker_died(end))),
            },
        }
    }

    fn deliver(&self, notice: N) -> PyResult<()> {
        match &self.callback {
            Some(callback) => Python::attach(|py| notice.deliver(py, callback)),
            None => Ok(()),
        }
    }

    /// Waits with the GIL released. A signal handler that raises (Ctrl-C) cancels the work and is raised once the
    /// undo is through; the second one stops waiting. A callback that raises cancels the work as well.
    pub(crate) fn wait(mut self, py: Python<'_>) -> PyResult<T> {
        let runtime = handle(py)?;
        let mut stopped: Option<PyErr> = None;
        loop {
            let turn = py.detach(|| {
                runtime.block_on(async {
                    tokio::time::timeout(SIGNAL_INTERVAL, self.turn())
                        .await
                        .unwrap_or(Turn::Tick)
                })
            });
            match turn {
                Turn::Notice(notice) if stopped.is_none() => {
                    if let Err(raised) = self.deliver(notice) {
                        stopped = Some(raised);
                        self.cancel();
                    }
                }
                Turn::Notice(_) | Turn::Tick => {}
                Turn::Done(result) => return finish(result, stopped, self.late),
            }
            if let Err(interrupt) = py.check_signals() {
                if stopped.is_some() {
                    return Err(interrupt);
                }
                stopped = Some(interrupt);
                self.cancel();
            }
        }
    }

    /// Waits as a coroutine. The first cancellation cancels the work and is passed on once the undo is through; the
    /// second one is passed on at once, and the undo goes on by itself.
    pub(crate) async fn drive(mut self, mut cancel: CancelHandle) -> PyResult<T> {
        let mut stopped: Option<PyErr> = None;
        loop {
            let turn = tokio::select! {
                biased;
                thrown = cancel.cancelled() => {
                    let thrown = Python::attach(|py| PyErr::from_value(thrown.into_bound(py)));
                    if stopped.is_some() {
                        return Err(thrown);
                    }
                    stopped = Some(thrown);
                    self.cancel();
                    continue;
                }
                turn = self.turn() => turn,
            };
            match turn {
                Turn::Notice(notice) if stopped.is_none() => {
                    if let Err(raised) = self.deliver(notice) {
                        stopped = Some(raised);
                        self.cancel();
                    }
                }
                Turn::Notice(_) | Turn::Tick => {}
                Turn::Done(result) => return finish(result, stopped, self.late),
            }
        }
    }
}

/// What the caller gets at the end: the reason to stop if there was one, with what went wrong on the way as context.
fn finish<T>(result: Result<T, Failure>, stopped: Option<PyErr>, late: Option<Late<T>>) -> PyResult<T> {
    match (result, stopped) {
        (Ok(value), None) => Ok(value),
        (Err(failure), None) => Err(raise(failure)),
        (Ok(value), Some(reason)) => {
            if let Some(late) = late {
                // An exception that takes neither a note nor an attribute is raised as it is: it is the caller's own.
                let _ = Python::attach(|py| note_result(&reason, late(value, py)?, py));
            }
            Err(reason)
        }
        (Err(failure), Some(reason)) => {
            if !failure.is_clean_stop() {
                Python::attach(|py| reason.set_context(py, Some(raise(failure))));
            }
            Err(reason)
        }
    }
}

/// Adds to the reason to stop what stays all the same: as a note, which Python 3.11 prints and earlier ones keep, and as `result`.
fn note_result(reason: &PyErr, (told, result): (String, Py<PyAny>), py: Python<'_>) -> PyResult<()> {
    let raised = reason.value(py);
    raised.setattr("result", result)?;
    let notes = match raised.getattr_opt("__notes__")? {
        Some(notes) => notes.cast_into::<PyList>()?,
        None => PyList::empty(py),
    };
    notes.append(told)?;
    raised.setattr("__notes__", notes)
}

/// Runs a call that is safe to drop and waits for it with the GIL released.
pub(crate) fn block<T, F>(py: Python<'_>, work: F) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    Running::<T, Silent>::telling(None, |_| work)?.wait(py)
}

/// Runs a call that is safe to drop as a coroutine: cancelling the awaitable drops it.
pub(crate) async fn spawn<T, F>(work: F) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    Running::<T, Silent>::telling(None, |_| work)?
        .drive(CancelHandle::new())
        .await
}
