//! Work that outlives whoever waits for it: it undoes what it did even when its future is dropped.

use tokio_util::sync::CancellationToken;

use crate::{Error, panics};

/// Runs it as a task of its own, cancelled when the caller drops this future. The task gets a child of the caller's token, so that a
/// drop cancels this work and not whatever else shares the token.
///
/// # Errors
/// Its own, and [`Error::Panic`].
pub(crate) async fn in_own_task<T, F>(
    cancel: &CancellationToken,
    run: impl FnOnce(CancellationToken) -> F,
) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let cancel = cancel.child_token();
    let on_drop = cancel.clone().drop_guard();
    let ended = tokio::spawn(run(cancel)).await;
    on_drop.disarm();
    ended.unwrap_or_else(|error| {
        Err(Error::Panic {
            message: panics::told_of_task(error),
        })
    })
}
