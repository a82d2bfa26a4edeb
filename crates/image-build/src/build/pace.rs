//! The one way to wait for something: look at once, then ever slower, with a name, a limit and an end by cancel.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Pause after the first look. A simulated guest without delays is ready within milliseconds.
const FIRST: Duration = Duration::from_millis(10);
/// Longest pause: what our waiting may add to a state that lasts minutes, and one request each costs PVE little.
const LONGEST: Duration = Duration::from_secs(2);

/// Paces a loop that looks at the world until it has changed.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    what: &'a str,
    limit: Duration,
    deadline: Instant,
    begun: Instant,
    next: Duration,
    longest: Duration,
    cancel: &'a CancellationToken,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(what: &'a str, limit: Duration, cancel: &'a CancellationToken) -> Self {
        let begun = Instant::now();
        // A limit beyond the clock's range is no limit; a century stands for it.
        let deadline = begun
            .checked_add(limit)
            .unwrap_or(begun + Duration::from_secs(100 * 365 * 86_400));
        Self {
            what,
            limit,
            deadline,
            begun,
            next: FIRST,
            longest: LONGEST,
            cancel,
        }
    }

    /// Never pauses longer than this.
    pub(crate) fn at_most(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    pub(crate) fn waited(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Pauses before the next look. `seen` is what the last look showed; it becomes part of the error when time is up.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the limit has passed, [`Error::Cancelled`] when the build is to stop.
    pub(crate) async fn pause(&mut self, seen: &str) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let now = Instant::now();
        if now >= self.deadline {
            return Err(Error::Timeout {
                what: self.what.to_owned(),
                after: self.limit,
                seen: seen.to_owned(),
            });
        }
        let pause = self.next.min(self.deadline - now);
        self.next = self.next.mul_f64(1.6).min(self.longest);
        tokio::select! {
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_looks_fast_first_and_slower_later_and_ends_at_its_limit() {
        let cancel = CancellationToken::new();
        let mut pace = Pace::new("the moon", Duration::from_secs(60), &cancel);
        let begun = Instant::now();
        let mut looks = Vec::new();
        let error = loop {
            looks.push(begun.elapsed());
            if let Err(error) = pace.pause("still dark").await {
                break error;
            }
        };
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
        assert!(
            looks.iter().filter(|l| **l < Duration::from_millis(100)).count() >= 4,
            "{looks:?}"
        );
        assert!(looks.len() < 45, "{}", looks.len());
        assert!(
            matches!(&error, Error::Timeout { what, seen, .. } if what == "the moon" && seen == "still dark"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn cancel_ends_it_at_once() {
        let cancel = CancellationToken::new();
        let mut pace = Pace::new("x", Duration::MAX, &cancel);
        pace.pause("").await.unwrap();
        cancel.cancel();
        assert!(matches!(pace.pause("").await, Err(Error::Cancelled)));
    }
}
