//! `Wait` and the loop behind `Client::wait_task`.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    api::task::{LOG_PAGE, Task},
    client::Client,
    error::{Error, ErrorKind},
    transport::reply::{one_line, printable},
    types::{
        reply::task::{LogLine, TaskExit, TaskOutcome, UNEXPECTED_STATUS},
        upid::Upid,
    },
};

/// The first look. Most tasks of a small VM have ended by then.
const FIRST_POLL: Duration = Duration::from_millis(30);
/// A look never comes later than this after the end of a short task...
const SHORT_POLL: Duration = Duration::from_millis(240);
/// ... nor later than this after that of a long one.
const LONG_POLL: Duration = Duration::from_secs(2);

/// How long a new task may be unknown: the worker that answers may not have seen it yet (`FACTS` 53).
const FRESH: Duration = Duration::from_secs(5);

/// How many lines of a failed task's log an error keeps.
const LOG_TAIL: u64 = 30;

/// How often in a row a task must look as if its worker had died before that is believed. A state read in the moment of its end, or
/// from a node that has just come back, can lack how it ended, and can even be `running` again at the next look.
const DOUBTS: u32 = 3;

/// The most warnings that are kept.
const WARNINGS_MAX: usize = 1000;

type OnLog = Arc<dyn Fn(&str) + Send + Sync>;

/// How to wait for a task: at most so long, until cancelled, with its log.
#[derive(Clone)]
#[must_use]
pub struct Wait {
    at_most: Duration,
    outage: Duration,
    cancel: Option<CancellationToken>,
    on_log: Option<OnLog>,
}

impl Wait {
    /// At most so long.
    pub fn at_most(limit: Duration) -> Self {
        Self {
            at_most: limit,
            outage: Duration::from_secs(120),
            cancel: None,
            on_log: None,
        }
    }

    /// Until this token is cancelled. The task goes on.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.cancel = Some(token);
        self
    }

    /// Is told each line of the task's log, in order, each once, without control characters. It must not block. Costs a request for
    /// each look. A log that cannot be read is told as a line too, and does not end the wait.
    pub fn on_log(mut self, on_log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_log = Some(Arc::new(on_log));
        self
    }

    /// How long the server may be out of reach at a stretch; by default two minutes, in which a node's services restart.
    pub fn outage(mut self, limit: Duration) -> Self {
        self.outage = limit;
        self
    }
}

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            at_most,
            outage,
            cancel,
            on_log,
        } = self;
        f.debug_struct("Wait")
            .field("at_most", at_most)
            .field("outage", outage)
            .field("cancel", &cancel.is_some())
            .field("on_log", &on_log.is_some())
            .finish()
    }
}

pub(crate) async fn wait_task(client: &Client, upid: &Upid, wait: &Wait) -> Result<TaskOutcome, Error> {
    let what = || format!("task {} on {}", upid.as_str(), upid.node());
    let work = tokio::time::timeout(wait.at_most, follow(client, upid, wait));
    let ended = match &wait.cancel {
        Some(token) => tokio::select! {
            biased;
            () = token.cancelled() => return Err(Error::Cancelled { what: what() }),
            ended = work => ended,
        },
        None => work.await,
    };
    ended.unwrap_or_else(|_| {
        Err(Error::Timeout {
            what: what(),
            after: wait.at_most,
        })
    })
}

async fn follow(client: &Client, upid: &Upid, wait: &Wait) -> Result<TaskOutcome, Error> {
    let task = Task::new(client.clone(), upid.clone());
    let started = Instant::now();
    let mut outage = Outage::new(wait.outage);
    let mut poll = 0;
    let mut doubts = 0;
    let mut on_log = wait.on_log.as_ref();
    let mut seen = 0;
    loop {
        tokio::time::sleep(interval(poll, started.elapsed())).await;
        poll += 1;
        let status = match task.status().await {
            Ok(status) => status,
            Err(error) if error.kind() == ErrorKind::NotFound && started.elapsed() < FRESH => continue,
            Err(error) => {
                outage.tolerate(error)?;
                continue;
            }
        };
        outage.over();
        // The state is read before the log: what is logged before the end is then surely seen.
        let exit = status.exit();
        if let Some(tell) = on_log {
            match read_on(&task, seen, tell, &mut outage).await {
                Ok(now) => seen = now,
                Err(error) if passes(&error) => return Err(error),
                Err(error) => {
                    tell(&unread(&error));
                    on_log = None;
                }
            }
        }
        match exit {
            None => doubts = 0,
            Some(TaskExit::Ok) => return Ok(TaskOutcome::Ok),
            Some(TaskExit::Warnings(_)) => {
                // It went well; a log that cannot be read must not turn that into a failure.
                return match warnings(&task, &mut outage).await {
                    Ok(lines) => Ok(TaskOutcome::Warnings(lines)),
                    Err(error) => Ok(TaskOutcome::Warnings(vec![unread(&error)])),
                };
            }
            Some(TaskExit::Failed(exit)) if is_doubtful(&exit) && doubts + 1 < DOUBTS => {
                doubts += 1;
                poll = 2;
            }
            Some(TaskExit::Failed(exit)) => {
                // The failure is the news; a log that cannot be read must not hide it.
                let log_tail = match tail(&task, LOG_TAIL, &mut outage).await {
                    Ok(lines) => lines,
                    Err(error) => vec![unread(&error)],
                };
                return Err(Error::Task {
                    upid: upid.clone(),
                    exit: one_line(&exit),
                    log_tail,
                });
            }
        }
    }
}

fn unread(error: &Error) -> String {
    format!("(the log could not be read: {error})")
}

/// Does it say no more than that the worker is gone?
fn is_doubtful(exit: &str) -> bool {
    exit.is_empty() || exit == UNEXPECTED_STATUS
}

/// The pause before look number `poll`: doubled each time, at most 0.24 s or a twelfth of the time so far, at most 2 s. So a
/// wait adds at most 0.3 s or a tenth to the task's own time, the looks themselves included.
fn interval(poll: u32, so_far: Duration) -> Duration {
    let doubled = FIRST_POLL.saturating_mul(2_u32.saturating_pow(poll));
    doubled.min(SHORT_POLL.max(so_far / 12)).min(LONG_POLL)
}

/// Is it an error that passes by itself: the server or the way to it is away for a while?
fn passes(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Connect | ErrorKind::Transport | ErrorKind::Proxy | ErrorKind::Timeout
    )
}

/// How long the server has been out of reach.
struct Outage {
    limit: Duration,
    since: Option<Instant>,
}

impl Outage {
    fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    fn over(&mut self) {
        self.since = None;
    }

    /// Takes note of an error; gives it back when it is none that passes, or the outage has lasted too long.
    fn tolerate(&mut self, error: Error) -> Result<(), Error> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if passes(&error) && since.elapsed() < self.limit {
            tracing::debug!(%error, "the server is out of reach, waiting on");
            Ok(())
        } else {
            Err(error)
        }
    }

    /// Repeats a read until it comes through.
    async fn ride_out<T, F: Future<Output = Result<T, Error>>>(
        &mut self,
        mut read: impl FnMut() -> F,
    ) -> Result<T, Error> {
        loop {
            match read().await {
                Ok(done) => {
                    self.over();
                    return Ok(done);
                }
                Err(error) => self.tolerate(error)?,
            }
            tokio::time::sleep(SHORT_POLL).await;
        }
    }
}

/// Hands on the lines that have come since; answers how many there are now.
async fn read_on(task: &Task, seen: u64, on_log: &OnLog, outage: &mut Outage) -> Result<u64, Error> {
    let mut seen = seen;
    loop {
        let page = outage.ride_out(|| task.log_page(seen, LOG_PAGE)).await?;
        // An empty log is one line that says so (FACTS 52); real lines take its place later.
        if page.is_placeholder() {
            return Ok(seen);
        }
        let new: Vec<&LogLine> = page.lines.iter().filter(|line| line.n > seen).collect();
        for line in &new {
            on_log(&printable(line.text()));
        }
        seen = new.iter().map(|line| line.n).max().unwrap_or(seen);
        if (page.lines.len() as u64) < LOG_PAGE || new.is_empty() {
            return Ok(seen);
        }
    }
}

/// The last lines of the log: of a short one from its first part, of a long one from where its end begins.
async fn tail(task: &Task, lines: u64, outage: &mut Outage) -> Result<Vec<String>, Error> {
    let mut page = outage.ride_out(|| task.log_page(0, LOG_PAGE)).await?;
    if page.total > LOG_PAGE {
        let start = page.total.saturating_sub(lines);
        page = outage.ride_out(|| task.log_page(start, LOG_PAGE)).await?;
    }
    let skip = page
        .lines
        .len()
        .saturating_sub(usize::try_from(lines).unwrap_or(usize::MAX));
    Ok(page
        .lines
        .iter()
        .skip(skip)
        .map(|line| printable(line.text()))
        .collect())
}

/// The warnings in the whole log, wherever they stand; its last lines where none is marked as one.
async fn warnings(task: &Task, outage: &mut Outage) -> Result<Vec<String>, Error> {
    let (mut found, mut read) = (Vec::new(), 0);
    loop {
        let page = outage.ride_out(|| task.log_page(read, LOG_PAGE)).await?;
        read += page.lines.len() as u64;
        found.extend(page.lines.iter().filter_map(|line| warning(line.text())));
        if (page.lines.len() as u64) < LOG_PAGE || found.len() >= WARNINGS_MAX {
            break;
        }
    }
    found.truncate(WARNINGS_MAX);
    if found.is_empty() {
        tail(task, LOG_TAIL, outage).await
    } else {
        Ok(found)
    }
}

/// # Source
/// `log_warn` of pve-common (PVE/RESTEnvironment.pm) prints `WARN: ` before each warning.
fn warning(line: &str) -> Option<String> {
    line.strip_prefix("WARN: ").map(|text| printable(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the end of a task that takes `length` is seen.
    fn seen_after(length: Duration) -> Duration {
        let mut now = Duration::ZERO;
        let mut poll = 0;
        loop {
            now += interval(poll, now);
            poll += 1;
            if now >= length {
                return now;
            }
        }
    }

    #[test]
    fn a_wait_adds_little_and_asks_seldom() {
        for ms in [1, 29, 31, 100, 500, 1000, 3000, 10_000, 60_000, 600_000] {
            let length = Duration::from_millis(ms);
            let added = seen_after(length).saturating_sub(length);
            assert!(
                added <= Duration::from_millis(300).max(length / 10),
                "{ms} ms: {added:?} more"
            );
        }
        assert_eq!(interval(0, Duration::ZERO), FIRST_POLL);
        assert_eq!(interval(u32::MAX, Duration::from_secs(3600)), LONG_POLL);
    }

    #[test]
    fn warnings_are_the_marked_lines() {
        assert_eq!(warning("WARN: b ").as_deref(), Some("b"));
        assert!(warning("TASK WARNINGS: 1").is_none() && warning("a WARN: b").is_none());
    }
}
