//! Running and finished tasks.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Upid;
use crate::state::{Identity, now};

/// A task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) upid: Upid,
    /// Position among all tasks, for lists in order of their start.
    order: u64,
    state: Mutex<State>,
    stop: CancellationToken,
    ended: watch::Sender<bool>,
}

#[derive(Clone, Debug, Default)]
struct State {
    log: Vec<String>,
    warnings: u32,
    /// Epoch seconds and exit status, once it has ended.
    end: Option<(u64, String)>,
}

/// A finished task as it is written down.
#[derive(Serialize, Deserialize)]
struct Record {
    upid: Upid,
    end: u64,
    exit: String,
    log: Vec<String>,
}

impl Task {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Epoch seconds and exit status, once it has ended.
    pub(crate) fn end(&self) -> Option<(u64, String)> {
        self.state().end.clone()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Asks it to stop; it ends as `received interrupt`.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for its end, at most `limit`; whether it has ended.
    pub(crate) async fn wait(&self, limit: Duration) -> bool {
        let mut ended = self.ended.subscribe();
        let _ = tokio::time::timeout(limit, ended.wait_for(|e| *e)).await;
        self.state().end.is_some()
    }
}

/// The task's side of a task: where it writes its log.
#[derive(Clone, Debug)]
pub(crate) struct Worker(Arc<Task>);

impl Worker {
    pub(crate) fn log(&self, line: impl Into<String>) {
        self.0.state().log.push(line.into());
    }

    /// Appends to the last line, as output without a line end does.
    pub(crate) fn append(&self, text: &str) {
        if let Some(last) = self.0.state().log.last_mut() {
            last.push_str(text);
        }
    }

    /// A line that makes the task end with warnings.
    pub(crate) fn warn(&self, line: &str) {
        let mut state = self.0.state();
        state.log.push(format!("WARN: {line}"));
        state.warnings += 1;
    }
}

/// All tasks of the cluster.
#[derive(Debug)]
pub(crate) struct Tasks {
    all: Mutex<BTreeMap<String, Arc<Task>>>,
    next_pid: AtomicU32,
    began: Instant,
    archive: PathBuf,
}

impl Tasks {
    /// Opens the list with the finished tasks of earlier runs.
    pub(crate) fn open(archive: PathBuf) -> std::io::Result<Self> {
        let mut all = BTreeMap::new();
        if archive.exists() {
            for (order, line) in std::fs::read_to_string(&archive)?.lines().enumerate() {
                // A line cut short by a crash is the last one, and no task anyone was told the end of.
                let Ok(record) = serde_json::from_str::<Record>(line) else {
                    continue;
                };
                let task = Task {
                    order: order as u64,
                    state: Mutex::new(State {
                        log: record.log,
                        warnings: 0,
                        end: Some((record.end, record.exit)),
                    }),
                    stop: CancellationToken::new(),
                    ended: watch::Sender::new(true),
                    upid: record.upid,
                };
                all.insert(task.upid.to_string(), Arc::new(task));
            }
        }
        Ok(Self {
            all: Mutex::new(all),
            next_pid: AtomicU32::new(0x1000),
            began: Instant::now(),
            archive,
        })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Task>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, upid: &str) -> Option<Arc<Task>> {
        self.all().get(upid).cloned()
    }

    /// All tasks of a node, the newest first.
    pub(crate) fn of_node(&self, node: &str) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.all().values().filter(|t| t.upid.node == node).cloned().collect();
        tasks.sort_by_key(|t| std::cmp::Reverse(t.order));
        tasks
    }

    /// Starts a task and returns its UPID. The work's error becomes the exit status.
    pub(crate) fn spawn<F, W>(&self, node: &str, kind: &str, id: &str, who: &Identity, work: W) -> Arc<Task>
    where
        W: FnOnce(Worker) -> F,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let pid = self.next_pid.fetch_add(2, Ordering::Relaxed);
        let order = u64::from(pid) + (1 << 32);
        let upid = Upid {
            node: node.to_owned(),
            pid,
            // Clock ticks since boot, a hundred a second.
            pstart: u64::try_from(self.began.elapsed().as_millis() / 10).unwrap_or(u64::MAX) + 0xA000,
            starttime: now(),
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: who.full(),
        };
        let task = Arc::new(Task {
            upid,
            order,
            state: Mutex::default(),
            stop: CancellationToken::new(),
            ended: watch::Sender::new(false),
        });
        self.all().insert(task.upid.to_string(), Arc::clone(&task));
        let work = tokio::spawn(work(Worker(Arc::clone(&task))));
        let watched = Arc::clone(&task);
        let file = self.archive.clone();
        tokio::spawn(async move {
            let abort = work.abort_handle();
            let result = tokio::select! {
                result = work => result.unwrap_or_else(|error| {
                    tracing::error!(%error, task = %watched.upid, "a task broke");
                    Err("unexpected status".into())
                }),
                () = watched.stop.cancelled() => {
                    abort.abort();
                    Err("received interrupt".into())
                }
            };
            finish(&watched, result, &file);
            watched.ended.send_replace(true);
        });
        task
    }
}

fn finish(task: &Task, result: Result<(), String>, archive: &PathBuf) {
    let record = {
        let mut state = task.state();
        let (last, exit) = match result {
            Ok(()) if state.warnings == 0 => ("TASK OK".to_owned(), "OK".to_owned()),
            Ok(()) => (
                format!("TASK WARNINGS: {}", state.warnings),
                format!("WARNINGS: {}", state.warnings),
            ),
            Err(error) => {
                let error = error.trim_end_matches('\n').to_owned();
                // The status is one line, the log has all of them.
                (
                    format!("TASK ERROR: {error}"),
                    error.lines().next().unwrap_or_default().to_owned(),
                )
            }
        };
        state.log.extend(last.lines().map(str::to_owned));
        let end = now();
        state.end = Some((end, exit.clone()));
        Record {
            upid: task.upid.clone(),
            end,
            exit,
            log: state.log.clone(),
        }
    };
    let written = serde_json::to_string(&record)
        .map_err(std::io::Error::from)
        .and_then(|line| {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(archive)?;
            file.write_all(format!("{line}\n").as_bytes())
        });
    if let Err(error) = written {
        tracing::error!(%error, upid = %task.upid, "task not archived");
    }
}
