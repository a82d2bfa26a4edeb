//! The first clone: told nothing, it becomes what the image says.

use std::time::Duration;

use async_trait::async_trait;

use super::boot::{Boot, boot, run, settle};
use crate::Error;
use crate::build::{Step, StepName};
use crate::text::human_duration;
use crate::verify::context::Context;

/// Boots the first clone and waits for its k3s.
#[derive(Debug)]
pub(super) struct First;

#[async_trait]
impl Step<Context> for First {
    fn name(&self) -> StepName {
        "first".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let login = boot(context, 0).await?;
        let k3s = match settle(context, 0, true).await? {
            Boot::K3s => {
                let seconds = context.clone_at(0)?.k3s_seconds.unwrap_or_default();
                let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
                format!("k3s active after {}", human_duration(took))
            }
            Boot::Over => "starts no k3s".to_owned(),
            Boot::Late => "its first boot did not end in time".to_owned(),
        };
        Ok(format!("{login}, {k3s}"))
    }
}

/// The token that joins a node to the first clone's cluster; `None` when it has no cluster.
pub(super) async fn token(context: &mut Context) -> Result<Option<String>, Error> {
    let said = run(
        context,
        0,
        "cat /var/lib/rancher/k3s/server/node-token 2>/dev/null",
        &[],
    )
    .await?;
    let token = said.trim();
    Ok((!token.is_empty()).then(|| token.to_owned()))
}
