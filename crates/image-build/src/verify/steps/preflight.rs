//! Looks at the cluster before anything is cloned.

use async_trait::async_trait;

use crate::Error;
use crate::build::{Runs as _, Step, StepName};
use crate::communicator::BuildKeys;
use crate::plan::Level;
use crate::verify::context::Context;
use crate::verify::survey::survey;

/// Refuses whatever would fail later.
#[derive(Debug)]
pub(super) struct Preflight;

#[async_trait]
impl Step<Context> for Preflight {
    fn name(&self) -> StepName {
        "preflight".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let (report, template) = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(Error::Cancelled),
            surveyed = survey(&context.client, &context.spec) => surveyed?,
        };
        for finding in report.at(Level::Warning) {
            context.emitter().warning(finding.to_string());
        }
        let Some(template) = template else {
            return Err(Error::Preflight {
                report: Box::new(report),
            });
        };
        context.template = Some(template);
        context.keys = Some(BuildKeys::generate(&context.tag()).map_err(Error::keys)?);
        Ok(report.summary())
    }
}
