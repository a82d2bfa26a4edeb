//! SIGINT and SIGTERM: the first asks for an orderly end, the second for an end at once.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// What has been asked from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    first: CancellationToken,
    second: CancellationToken,
    exit: Arc<OnceLock<Exit>>,
}

impl Signals {
    /// Begins to listen. SIGHUP keeps its meaning, so that `nohup` works.
    pub(crate) fn listen() -> io::Result<Self> {
        let signals = Self {
            first: CancellationToken::new(),
            second: CancellationToken::new(),
            exit: Arc::new(OnceLock::new()),
        };
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::spawn(signals.clone().forward(interrupt, terminate));
        Ok(signals)
    }

    async fn forward(self, mut interrupt: Signal, mut terminate: Signal) {
        for token in [&self.first, &self.second] {
            let exit = tokio::select! {
                _ = interrupt.recv() => Exit::Interrupted,
                _ = terminate.recv() => Exit::Terminated,
            };
            // The first signal decides the exit code; the second only presses.
            let _ = self.exit.set(exit);
            token.cancel();
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
