//! SIGINT, SIGTERM and SIGHUP: the first asks for an orderly end, the second for an end at once.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use rustix::process::Signal as Number;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// What has been asked from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    first: CancellationToken,
    second: CancellationToken,
    exit: Arc<OnceLock<Exit>>,
}

/// What SIGHUP means to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HangUp {
    /// The terminal is gone: an end like any other, unless whoever started the command wants it to outlive the terminal.
    Ends,
    /// Something of the command's own.
    Own,
}

/// One terminal that closes is told several times: by its shell, and by the kernel when that shell ends. Only what comes later than
/// this was asked for once more.
const ONE_HANG_UP: Duration = Duration::from_secs(5);

impl Signals {
    /// Begins to listen.
    pub(crate) fn listen(hang_up: HangUp) -> io::Result<Self> {
        let mut asked = vec![
            heard(SignalKind::interrupt(), Exit::Interrupted)?,
            heard(SignalKind::terminate(), Exit::Terminated)?,
        ];
        if hang_up == HangUp::Ends && !hang_up_is_ignored() {
            asked.push(heard(SignalKind::hangup(), Exit::HungUp)?);
        }
        // A file that may not grow (`ulimit -f`) is an error of the write like a full disk, and nothing that kills a build half-way. What
        // tokio has once taken, it keeps.
        drop(signal(SignalKind::from_raw(Number::XFSZ.as_raw()))?);
        let signals = Self::new();
        tokio::spawn(signals.clone().forward(futures_util::stream::select_all(asked)));
        Ok(signals)
    }

    fn new() -> Self {
        Self {
            first: CancellationToken::new(),
            second: CancellationToken::new(),
            exit: Arc::new(OnceLock::new()),
        }
    }

    async fn forward(self, mut asked: impl Stream<Item = Exit> + Unpin) {
        // The first signal decides the exit code; the second only presses.
        let Some(first) = asked.next().await else { return };
        let since = Instant::now();
        let _ = self.exit.set(first);
        self.first.cancel();
        while let Some(next) = asked.next().await {
            if (first, next) != (Exit::HungUp, Exit::HungUp) || since.elapsed() > ONE_HANG_UP {
                self.second.cancel();
                return;
            }
        }
    }

    /// Cancelled by the first signal.
    pub(crate) fn token(&self) -> CancellationToken {
        self.first.clone()
    }

    /// Waits for the first signal.
    pub(crate) async fn first(&self) {
        self.first.cancelled().await;
    }

    /// Waits for the second signal.
    pub(crate) async fn second(&self) {
        self.second.cancelled().await;
    }

    /// The exit code of the signal that came, if one came.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit.get().copied()
    }
}

/// A signal's arrivals, each as what it means.
fn heard(kind: SignalKind, exit: Exit) -> io::Result<Pin<Box<dyn Stream<Item = Exit> + Send>>> {
    let signal = signal(kind)?;
    Ok(Box::pin(futures_util::stream::unfold(
        signal,
        move |mut signal| async move { signal.recv().await.map(|()| (exit, signal)) },
    )))
}

/// Whether whoever started this wants it to outlive the terminal, as `nohup` does: by proc(5), the signals that are ignored.
fn hang_up_is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hang_up(&status))
}

fn ignores_hang_up(status: &str) -> bool {
    const SIGHUP: u64 = 1;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & SIGHUP != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_started_it_may_have_it_outlive_the_terminal() {
        for (mask, ignored) in [
            ("0000000000000001", true),
            ("0000000000001001", true),
            ("0000000000001000", false),
            ("", false),
        ] {
            let status =
                format!("Name:\tk3simage\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n");
            assert_eq!(ignores_hang_up(&status), ignored, "{mask}");
        }
        assert!(!ignores_hang_up("Name:\tk3simage\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_terminal_that_closes_counts_once() {
        let (late, soon) = (ONE_HANG_UP * 2, Duration::from_millis(10));
        // What comes, how long after the first; whether it presses.
        let table: [(&[(Exit, Duration)], bool); 7] = [
            (&[], false),
            (&[(Exit::HungUp, soon)], false),
            (&[(Exit::HungUp, soon), (Exit::HungUp, soon)], false),
            (&[(Exit::HungUp, soon), (Exit::Terminated, soon)], true),
            (&[(Exit::HungUp, soon), (Exit::HungUp, late)], true),
            (&[(Exit::Interrupted, soon)], true),
            (&[(Exit::HungUp, late)], true),
        ];
        for (more, presses) in table {
            let signals = Signals::new();
            let (to, from) = tokio::sync::mpsc::unbounded_channel();
            let stream =
                futures_util::stream::unfold(
                    from,
                    |mut from| async move { from.recv().await.map(|exit| (exit, from)) },
                );
            let forwarding = tokio::spawn(signals.clone().forward(Box::pin(stream)));
            to.send(Exit::HungUp).unwrap();
            signals.first().await;
            for (exit, after) in more {
                tokio::time::sleep(*after).await;
                to.send(*exit).unwrap();
            }
            drop(to);
            forwarding.await.unwrap();
            assert_eq!(signals.second.is_cancelled(), presses, "{more:?}");
            assert_eq!(signals.exit(), Some(Exit::HungUp));
        }
    }

    #[tokio::test]
    async fn another_signal_counts_each_time() {
        for exit in [Exit::Interrupted, Exit::Terminated] {
            let signals = Signals::new();
            signals.clone().forward(futures_util::stream::iter([exit, exit])).await;
            assert!(signals.first.is_cancelled() && signals.second.is_cancelled());
            assert_eq!(signals.exit(), Some(exit));
        }
    }
}
