//! Connections from which no request has come yet: only so many are kept, so that silent ones shut nobody out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// So many connections may wait for their first request; one more ends the oldest of them.
pub(super) const MAX_HALF_OPEN: usize = 128;

/// The connections that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    waiting: Mutex<VecDeque<(u64, CancellationToken)>>,
    next: AtomicU64,
}

impl HalfOpen {
    /// Counts a new connection until its first request arrives or it is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Waiting {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let evicted = CancellationToken::new();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == MAX_HALF_OPEN
            && let Some((_, oldest)) = waiting.pop_front()
        {
            oldest.cancel();
        }
        waiting.push_back((id, evicted.clone()));
        Waiting {
            list: Arc::clone(self),
            id,
            evicted,
        }
    }
}

/// A connection's place among those that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    list: Arc<HalfOpen>,
    id: u64,
    evicted: CancellationToken,
}

impl Waiting {
    /// Returns when the place is needed for another connection; never once a request has arrived.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// A request has arrived: from now on the connection is one like others.
    pub(super) fn arrived(&self) {
        let mut waiting = self.list.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.arrived();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_still_waits_gives_way() {
        let list = Arc::new(HalfOpen::default());
        let mut waiting: Vec<Waiting> = (0..MAX_HALF_OPEN).map(|_| list.enter()).collect();
        waiting[0].arrived();
        drop(waiting.remove(1));
        let _two_more = [list.enter(), list.enter()];
        assert!(
            waiting.iter().all(|one| !one.evicted.is_cancelled()),
            "places were free"
        );
        let _third = list.enter();
        let evicted: Vec<u64> = waiting
            .iter()
            .filter(|one| one.evicted.is_cancelled())
            .map(|one| one.id)
            .collect();
        assert_eq!(evicted, [2], "0 had sent a request and 1 was gone");
    }
}
