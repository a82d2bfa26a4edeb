//! Faults on purpose: what a test wants to go wrong, and at which call.

mod gate;
mod plan;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use gate::Gate;

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultAction {
    /// Answered with this status and reason; nothing is done.
    Status(u16, String),
    /// The connection is closed before anything is done.
    Refuse,
    /// The call is done and its answer is lost with the connection.
    LoseAnswer,
    /// The call is done after this much time.
    Delay(Duration),
    /// The call is done once the test lets it go.
    Hold(Gate),
    /// The call is done, and its answer waits until the test lets it go.
    HoldAnswer(Gate),
    /// The call is done, its answer begins, and the connection ends in the middle of the body.
    CutAnswer,
    /// The connection ends when this many bytes of the request's body have been read; nothing is done.
    CutRequest(u64),
    /// Answered as a ticket or token that is good no more: `401 Authentication failed!`. Nothing is done.
    Expired,
    /// The call is done, and the first task that it starts meets this.
    Task(TaskFault),
    /// A node loses its power before the call is done.
    NodeOffline(String),
    /// A node comes back before the call is done.
    NodeOnline(String),
    /// From this call on, all that a node does takes so much longer.
    NodeSlow(String, Duration),
}

/// What happens to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskFault {
    /// It ends with this error. Its work is not done; what a create or clone has made by then is removed, as PVE does.
    Fails(String),
    /// Its work is done, and it ends with this warning.
    Warns(String),
    /// It does nothing and never ends, until someone stops it.
    Hangs,
    /// Its work begins after this much time.
    Delay(Duration),
}

/// What a test or a faults file wants: faults that wait for their call, and the state of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// The faults, the first that fits is taken.
    pub faults: Vec<Fault>,
    /// Nodes that are offline.
    pub offline: Vec<String>,
    /// Nodes that are slow, and by how much each call takes longer there.
    pub slow: Vec<(String, Duration)>,
}

/// Which calls a fault meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultMatch {
    /// The call with this index, counted from 0 since the start, as in
    /// [`RequestRecord::index`](crate::RequestRecord::index).
    Index(u64),
    /// Calls of a method whose path below `/api2/json` fits a pattern; `*` stands for any text.
    Path {
        /// `GET`, `POST`, ..., or `*`.
        method: String,
        /// `/nodes/*/qemu/*/status/start`.
        path: String,
    },
    /// As `Path`, once this many such calls have passed unharmed.
    PathAfter {
        /// `GET`, `POST`, ..., or `*`.
        method: String,
        /// `/nodes/*/qemu/*/status/start`.
        path: String,
        /// How many pass first.
        skip: u32,
    },
    /// Tasks of a kind, whatever started them: `qmstart`, or `*`. Only for [`FaultAction::Task`].
    Task {
        /// The type in the UPID; `*` stands for any text.
        kind: String,
        /// The id in the UPID, mostly a vmid; `*` stands for any text.
        id: String,
    },
}

/// A fault to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls it meets.
    pub when: FaultMatch,
    /// What happens to them.
    pub action: FaultAction,
    /// How often before it is spent; `u32::MAX` is as good as always.
    pub times: u32,
}

/// The faults that are waiting for their call.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: Mutex<Vec<Fault>>,
    calls: AtomicU64,
}

impl Faults {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, fault: Fault) {
        self.waiting().push(fault);
    }

    pub(crate) fn count(&self) -> usize {
        self.waiting().len()
    }

    /// Puts these in the place of all that wait.
    pub(crate) fn replace(&self, faults: Vec<Fault>) {
        *self.waiting() = faults;
    }

    /// How many calls have come.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Counts a call and takes the fault that meets it.
    pub(crate) fn take(&self, method: &str, path: &str) -> (u64, Option<FaultAction>) {
        let index = self.calls.fetch_add(1, Ordering::Relaxed);
        let meets = |m: &str, p: &str| (m == "*" || m == method) && fits(p, path);
        let action = self.spend(|when| match when {
            FaultMatch::Index(i) => *i == index,
            FaultMatch::Path { method, path } => meets(method, path),
            FaultMatch::PathAfter { method, path, skip } => {
                let met = meets(method, path);
                if met && *skip > 0 {
                    *skip -= 1;
                    return false;
                }
                met
            }
            FaultMatch::Task { .. } => false,
        });
        (index, action)
    }

    /// Takes the fault that meets a task.
    pub(crate) fn take_task(&self, kind: &str, id: &str) -> Option<TaskFault> {
        let action = self.spend(|when| match when {
            FaultMatch::Task { kind: k, id: i } => fits(k, kind) && fits(i, id),
            _ => false,
        })?;
        match action {
            FaultAction::Task(fault) => Some(fault),
            other => {
                tracing::warn!(?other, kind, id, "a fault that no task can meet");
                None
            }
        }
    }

    fn spend(&self, mut meets: impl FnMut(&mut FaultMatch) -> bool) -> Option<FaultAction> {
        let mut waiting = self.waiting();
        let at = waiting.iter_mut().position(|f| f.times > 0 && meets(&mut f.when))?;
        let fault = &mut waiting[at];
        let action = fault.action.clone();
        if fault.times < u32::MAX {
            fault.times -= 1;
        }
        if fault.times == 0 {
            waiting.remove(at);
        }
        Some(action)
    }
}

/// Whether `text` fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_paths() {
        for (pattern, text, expected) in [
            ("/version", "/version", true),
            ("/version", "/versions", false),
            ("/nodes/*/qemu", "/nodes/pve/qemu", true),
            ("/nodes/*/qemu", "/nodes/pve/qemu/100", false),
            ("*/start", "/nodes/pve/qemu/100/status/start", true),
            ("/a*b*c", "/a1b2c", true),
            ("/a*b*c", "/abd", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_fault_is_spent() {
        let faults = Faults::default();
        let when = FaultMatch::Path {
            method: "GET".into(),
            path: "/version".into(),
        };
        faults.add(Fault {
            when,
            action: FaultAction::Refuse,
            times: 1,
        });
        faults.add(Fault {
            when: FaultMatch::Index(2),
            action: FaultAction::LoseAnswer,
            times: 1,
        });
        assert_eq!(faults.take("POST", "/version"), (0, None));
        assert_eq!(faults.take("GET", "/version"), (1, Some(FaultAction::Refuse)));
        assert_eq!(faults.take("GET", "/version"), (2, Some(FaultAction::LoseAnswer)));
        assert_eq!(faults.take("GET", "/version"), (3, None));
    }

    #[test]
    fn calls_can_pass_first_and_tasks_are_met_by_kind() {
        let faults = Faults::default();
        let when = FaultMatch::PathAfter {
            method: "*".into(),
            path: "/nodes/*".into(),
            skip: 1,
        };
        faults.add(Fault {
            when,
            action: FaultAction::Expired,
            times: u32::MAX,
        });
        faults.add(Fault {
            when: FaultMatch::Task {
                kind: "qm*".into(),
                id: "100".into(),
            },
            action: FaultAction::Task(TaskFault::Hangs),
            times: 1,
        });
        let take = |path| faults.take("PUT", path).1;
        assert_eq!(take("/version"), None);
        assert_eq!(take("/nodes/a"), None, "one passes");
        assert_eq!(take("/nodes/a"), Some(FaultAction::Expired));
        assert_eq!(take("/nodes/b"), Some(FaultAction::Expired), "for ever");
        assert_eq!(faults.take_task("imgcopy", "100"), None);
        assert_eq!(faults.take_task("qmstart", "101"), None);
        assert_eq!(faults.take_task("qmstart", "100"), Some(TaskFault::Hangs));
        assert_eq!(faults.take_task("qmstart", "100"), None);
    }
}
