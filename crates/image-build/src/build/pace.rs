//! The one way to wait for something: look at once, then ever slower, with a name, a limit and an end by cancel.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::console::GuestConsole;
use super::event::Emitter;
use crate::Error;
use crate::text::human_duration;

/// Pause after the first look. A simulated guest without delays is ready within milliseconds.
const FIRST: Duration = Duration::from_millis(10);
/// Longest pause: what our waiting may add to a state that lasts minutes, and one request each costs PVE little.
const LONGEST: Duration = Duration::from_secs(2);
/// A wait that tells does so first after this, and then each time that it has doubled.
const FIRST_TOLD: Duration = Duration::from_secs(60);

/// Paces a loop that looks at the world until it has changed.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    what: &'a str,
    limit: Duration,
    deadline: Instant,
    begun: Instant,
    next: Duration,
    longest: Duration,
    telling: Option<(&'a Emitter, Duration)>,
    console: Option<&'a GuestConsole>,
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
            telling: None,
            console: None,
            cancel,
        }
    }

    /// Never pauses longer than this.
    pub(crate) fn at_most(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Begins with this pause, for what is known to take longer than a moment.
    pub(crate) fn first(mut self, first: Duration) -> Self {
        self.next = first;
        self
    }

    /// Tells what it waits for and what it saw last, after a minute and whenever the wait has doubled: a person should not
    /// learn it only when time is up.
    pub(crate) fn telling(mut self, emitter: &'a Emitter) -> Self {
        self.telling = Some((emitter, FIRST_TOLD));
        self
    }

    /// Ends as soon as the guest's own console says that it will not get there.
    pub(crate) fn watching(mut self, console: &'a GuestConsole) -> Self {
        self.console = Some(console);
        self
    }

    pub(crate) fn waited(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Pauses before the next look. `seen` is what the last look showed; it becomes part of the error when time is up.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the limit has passed, [`Error::Cancelled`] when the build is to stop, [`Error::Impossible`] when
    /// the guest's console says so.
    pub(crate) async fn pause(&mut self, seen: &str) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if let Some(reason) = self.console.and_then(GuestConsole::verdict) {
            return Err(Error::Impossible {
                what: self.what.to_owned(),
                reason,
            });
        }
        let now = Instant::now();
        if now >= self.deadline {
            return Err(Error::Timeout {
                what: self.what.to_owned(),
                after: self.limit,
                seen: seen.to_owned(),
            });
        }
        if let Some((emitter, next)) = &mut self.telling
            && now - self.begun >= *next
        {
            *next *= 2;
            emitter.warning(format!(
                "{} has not happened for {} (limit {}): {seen}",
                self.what,
                human_duration(now - self.begun),
                human_duration(self.limit)
            ));
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
    async fn a_wait_that_tells_does_so_while_it_waits() {
        let (to, mut told) = tokio::sync::mpsc::unbounded_channel();
        let (emitter, cancel) = (Emitter::new("b".to_owned(), Some(to)), CancellationToken::new());
        let mut pace = Pace::new("the moon", Duration::from_secs(300), &cancel).telling(&emitter);
        while pace.pause("still dark").await.is_ok() {}
        let mut texts = Vec::new();
        while let Ok(event) = told.try_recv() {
            texts.push(format!("{:?}", event.kind));
        }
        // At 1, 2 and 4 of the 5 minutes.
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(
            texts.iter().all(|t| t.contains("the moon") && t.contains("still dark")),
            "{texts:?}"
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
