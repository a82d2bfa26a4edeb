//! The end of a lease on what stays behind, so that others need not wait for it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::event::Emitter;
use crate::journal::Keeper;
use crate::text::human_duration;

/// How long a lease's end may take when PVE does not answer well.
const LIMIT: Duration = Duration::from_secs(30);

/// Ends the lease that `of`, a build or a verification, has on a VM; warns when that cannot be done in time.
pub(crate) async fn let_go(keeper: &Keeper, of: &str, emitter: &Emitter, cancel: &CancellationToken) {
    let problem = match tokio::time::timeout(LIMIT, keeper.release(cancel)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.chain(),
        Err(_) => format!("PVE did not take it within {}", human_duration(LIMIT)),
    };
    emitter.warning(format!(
        "the {of}'s lease could not be ended, so it counts as living for {} more: {problem}",
        human_duration(keeper.lease())
    ));
}
