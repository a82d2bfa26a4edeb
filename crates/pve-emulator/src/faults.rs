//! Faults on purpose: what a test wants to go wrong, and at which call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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
}

/// A fault to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls it meets.
    pub when: FaultMatch,
    /// What happens to them.
    pub action: FaultAction,
    /// How often before it is spent.
    pub times: u32,
}

/// The faults that are waiting for their call.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: Mutex<Vec<Fault>>,
    calls: AtomicU64,
}

impl Faults {
    pub(crate) fn add(&self, fault: Fault) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Counts a call and takes the fault that meets it.
    pub(crate) fn take(&self, method: &str, path: &str) -> (u64, Option<FaultAction>) {
        let index = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let hit = waiting.iter_mut().find(|f| {
            f.times > 0
                && match &f.when {
                    FaultMatch::Index(i) => *i == index,
                    FaultMatch::Path { method: m, path: p } => (m == "*" || m == method) && fits(p, path),
                }
        });
        let action = hit.map(|fault| {
            fault.times -= 1;
            fault.action.clone()
        });
        waiting.retain(|f| f.times > 0);
        (index, action)
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
}
