//! Running and finished tasks.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::archive::KEPT;
use super::{Archive, Record, Upid};
use crate::faults::{Faults, TaskFault};
use crate::state::{Identity, now};

/// Linux's highest process id with 64 bits, where PVE's count starts over.
const LAST_PID: u32 = 4_194_303;

/// The first process id that a task gets.
const FIRST_PID: u32 = 0x1000;

/// What a task's exit status says when its worker went away without a word (`FACTS` 51).
pub(super) const VANISHED: &str = "unexpected status";

/// Kinds whose work cleans up after itself when it fails, and so is told of a fault instead of not being begun.
const CLEANS_UP: [&str; 2] = ["qmcreate", "qmclone"];

tokio::task_local! {
    /// What is to befall the first task that the running call starts.
    static NEXT_FAULT: std::cell::Cell<Option<TaskFault>>;
}

/// Runs a call whose first task meets `fault`.
pub(crate) async fn with_fault<F: Future>(fault: TaskFault, call: F) -> F::Output {
    NEXT_FAULT.scope(std::cell::Cell::new(Some(fault)), call).await
}

/// A task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) upid: Upid,
    /// Position among all tasks, for lists in order of their start.
    order: u64,
    state: Mutex<State>,
    stop: CancellationToken,
    /// The node under it is gone.
    lost: CancellationToken,
    ended: watch::Sender<bool>,
    /// An error that its work is to meet.
    refusal: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct State {
    log: Vec<String>,
    warnings: u32,
    /// Epoch seconds and exit status, once it has ended.
    end: Option<(u64, String)>,
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

    /// The error that a fault wants this work to meet, where something can be undone.
    ///
    /// # Errors
    /// The fault's text.
    pub(crate) fn refused(&self) -> Result<(), String> {
        self.0.refusal.clone().map_or(Ok(()), Err)
    }

    /// Whether its node lost its power: nobody cleans up then.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.lost.is_cancelled()
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
    next_order: AtomicU64,
    began: Instant,
    archive: Arc<Archive>,
    faults: Arc<Faults>,
}

impl Tasks {
    /// Opens the list with the tasks of earlier runs. Those that had not ended then are over: their workers are gone.
    pub(crate) fn open(file: &Path, faults: Arc<Faults>) -> std::io::Result<Self> {
        let (archive, records) = Archive::open(file)?;
        let last = records.iter().map(|r| r.upid.pid).max();
        let mut order = 0;
        let mut all = BTreeMap::new();
        for record in records {
            let task = Task {
                order,
                state: Mutex::new(State {
                    log: record.log,
                    warnings: 0,
                    end: record.end.zip(record.exit),
                }),
                stop: CancellationToken::new(),
                lost: CancellationToken::new(),
                ended: watch::Sender::new(true),
                refusal: None,
                upid: record.upid,
            };
            order += 1;
            all.insert(task.upid.to_string(), Arc::new(task));
        }
        Ok(Self {
            all: Mutex::new(all),
            // Two runs within one second must not give the same UPID.
            next_pid: AtomicU32::new(last.map_or(FIRST_PID, |pid| pid + 2)),
            next_order: AtomicU64::new(order),
            began: Instant::now(),
            archive: Arc::new(archive),
            faults,
        })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Task>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, upid: &str) -> Option<Arc<Task>> {
        self.all().get(upid).cloned()
    }

    /// Adds a task to the list; with more than are kept, the oldest that has ended goes.
    fn keep(&self, task: &Arc<Task>) {
        let mut all = self.all();
        all.insert(task.upid.to_string(), Arc::clone(task));
        if all.len() <= KEPT {
            return;
        }
        let ended = all.values().filter(|t| t.end().is_some());
        let oldest = ended.min_by_key(|t| t.order).map(|t| t.upid.to_string());
        if let Some(oldest) = oldest {
            all.remove(&oldest);
        }
    }

    /// All tasks of a node, the newest first.
    pub(crate) fn of_node(&self, node: &str) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.all().values().filter(|t| t.upid.node == node).cloned().collect();
        tasks.sort_by_key(|t| std::cmp::Reverse(t.order));
        tasks
    }

    /// How many have not ended.
    pub(crate) fn running(&self) -> usize {
        self.all().values().filter(|task| task.end().is_none()).count()
    }

    /// The latest tasks of all nodes, the newest first.
    pub(crate) fn latest(&self, most: usize) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.all().values().cloned().collect();
        tasks.sort_by_key(|t| std::cmp::Reverse(t.order));
        tasks.truncate(most);
        tasks
    }

    /// Starts a task and returns its UPID. The work's error becomes the exit status.
    pub(crate) fn spawn<F, W>(&self, node: &str, kind: &str, id: &str, who: &Identity, work: W) -> Arc<Task>
    where
        W: FnOnce(Worker) -> F,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let pid = self.next_pid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pid| {
            Some(if pid + 2 > LAST_PID { FIRST_PID } else { pid + 2 })
        });
        let pid = pid.unwrap_or_else(|pid| pid);
        let fault = NEXT_FAULT.try_with(std::cell::Cell::take).ok().flatten();
        let fault = fault.or_else(|| self.faults.take_task(kind, id));
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
        let refusal = match &fault {
            Some(TaskFault::Fails(text)) => Some(text.clone()),
            _ => None,
        };
        let task = Arc::new(Task {
            upid,
            order: self.next_order.fetch_add(1, Ordering::Relaxed),
            state: Mutex::default(),
            stop: CancellationToken::new(),
            lost: CancellationToken::new(),
            ended: watch::Sender::new(false),
            refusal,
        });
        // Written down before anyone is told its UPID: after a kill it is a task that ended somehow, not an unknown one.
        self.archive.began(&task.upid);
        self.keep(&task);
        let worker = Worker(Arc::clone(&task));
        let work = tokio::spawn(meet(fault, worker.clone(), work(worker)));
        let watched = Arc::clone(&task);
        let archive = Arc::clone(&self.archive);
        tokio::spawn(async move {
            let abort = work.abort_handle();
            let result = tokio::select! {
                result = work => result.unwrap_or_else(|error| {
                    tracing::error!(%error, task = %watched.upid, "a task broke");
                    Err(VANISHED.into())
                }),
                () = watched.stop.cancelled() => {
                    abort.abort();
                    Err(interrupted(&watched.upid))
                }
                () = watched.lost.cancelled() => {
                    abort.abort();
                    vanish(&watched, &archive);
                    watched.ended.send_replace(true);
                    return;
                }
            };
            finish(&watched, result, &archive);
            watched.ended.send_replace(true);
        });
        task
    }

    /// Ends the running tasks of a node, or of all of them, as a power cut does.
    pub(crate) fn lose(&self, node: Option<&str>) {
        for task in self.all().values() {
            if node.is_none_or(|n| task.upid.node == n) {
                task.lost.cancel();
            }
        }
    }
}

/// A task's work with what a fault makes of it.
async fn meet(
    fault: Option<TaskFault>,
    worker: Worker,
    work: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    match fault {
        Some(TaskFault::Fails(text)) if !CLEANS_UP.contains(&worker.0.upid.kind.as_str()) => Err(text),
        None | Some(TaskFault::Fails(_)) => work.await,
        Some(TaskFault::Warns(text)) => {
            work.await?;
            worker.warn(&text);
            Ok(())
        }
        Some(TaskFault::Hangs) => std::future::pending().await,
        Some(TaskFault::Delay(time)) => {
            tokio::time::sleep(time).await;
            work.await
        }
    }
}

/// How a task ends that was stopped. What makes a VM dies of the interrupt inside its own error path, which names the work.
fn interrupted(upid: &Upid) -> String {
    match upid.kind.as_str() {
        "qmcreate" => format!("unable to create VM {} - received interrupt", upid.id),
        "qmclone" => "clone failed: received interrupt".to_owned(),
        _ => "received interrupt".to_owned(),
    }
}

/// Ends a task without a last word in its log.
fn vanish(task: &Task, archive: &Archive) {
    let mut state = task.state();
    let end = now();
    state.end = Some((end, VANISHED.to_owned()));
    archive.ended(&Record {
        upid: task.upid.clone(),
        end: Some(end),
        exit: Some(VANISHED.to_owned()),
        log: state.log.clone(),
    });
}

fn finish(task: &Task, result: Result<(), String>, archive: &Archive) {
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
            end: Some(end),
            exit: Some(exit),
            log: state.log.clone(),
        }
    };
    archive.ended(&record);
}
