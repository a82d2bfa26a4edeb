//! A task of PVE that is waited for: remembered while its end is not known, so that what undoes its work meets no lock of it.

use std::time::Duration;

use proxmox_client::{Client, TaskOutcome, Upid, Wait};
use tokio_util::sync::CancellationToken;

use super::event::Emitter;
use crate::Error;

/// How long a task that nobody waits for any more may take to end by itself, and to be stopped after that. What creates, moves or
/// converts ends soon, and leaves the least behind when it may.
const PATIENCE: Duration = Duration::from_secs(30);

/// The task whose end was not seen yet, if there is one.
#[derive(Debug, Default)]
pub(crate) struct OpenTask(Option<Upid>);

impl OpenTask {
    /// Waits for a task to end. Its warnings become events.
    pub(crate) async fn finish(
        &mut self,
        client: &Client,
        upid: &Upid,
        what: &str,
        limit: Duration,
        emitter: &Emitter,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        self.0 = Some(upid.clone());
        let wait = Wait::at_most(limit).cancel(cancel.clone());
        match client.wait_task(upid, wait).await {
            Ok(outcome) => {
                self.0 = None;
                if let TaskOutcome::Warnings(lines) = outcome {
                    emitter.warning(format!("{what}: {}", lines.join(" | ")));
                }
                Ok(())
            }
            Err(_) if cancel.is_cancelled() => Err(Error::Cancelled),
            Err(error) => {
                if matches!(error, proxmox_client::Error::Task { .. }) {
                    self.0 = None;
                }
                Err(Error::api(what)(error))
            }
        }
    }

    /// Takes note of a task that was waited for elsewhere, and whose end was not seen.
    pub(crate) fn left(&mut self, task: Option<Upid>) {
        if task.is_some() {
            self.0 = task;
        }
    }

    /// Ends a task that a cancelled or failed step left running.
    pub(crate) async fn settle(&mut self, client: &Client, cancel: &CancellationToken) {
        let Some(upid) = self.0.take() else { return };
        // A download and a full copy take as long as they are large, and what they have so far is of no use.
        let patience = if matches!(upid.kind(), "download" | "qmclone") {
            Duration::ZERO
        } else {
            PATIENCE
        };
        let wait = |limit| Wait::at_most(limit).cancel(cancel.clone());
        // A deletion is not ended half-way: what it left would be neither there nor gone.
        let ended = client.wait_task(&upid, wait(patience)).await;
        if ended.is_err() && upid.kind() != "qmdestroy" {
            // A task that ended meanwhile cannot be stopped, and one that failed is over too: both are what is wanted.
            let _ = client.node(&upid.node()).task(&upid).stop().await;
            let _ = client.wait_task(&upid, wait(PATIENCE)).await;
        }
    }
}
