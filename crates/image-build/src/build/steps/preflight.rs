//! Looks at the cluster before anything is created; the same findings as `plan`.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::Error;
use crate::build::artifact::check_manifest;
use crate::build::context::Context;
use crate::build::step::{Step, StepName};
use crate::plan::survey;

/// Refuses whatever would fail later.
#[derive(Debug)]
pub(super) struct Preflight {
    /// Where the manifest will be written.
    pub(super) manifest: Option<PathBuf>,
}

#[async_trait]
impl Step<Context> for Preflight {
    fn name(&self) -> StepName {
        "preflight".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        if let Some(path) = &self.manifest {
            check_manifest(path)?;
        }
        let (report, resolved) = context
            .or_cancel(survey(&context.client, &context.spec, context.replace.as_ref()))
            .await??;
        for finding in report.at(crate::plan::Level::Warning) {
            context.emitter.warning(finding.to_string());
        }
        let Some(resolved) = resolved else {
            return Err(Error::Preflight {
                report: Box::new(report),
            });
        };
        let summary = report.summary();
        context.report = Some(report);
        context.replacing.clone_from(&resolved.replacing);
        context.resolved = Some(resolved);
        Ok(summary)
    }
}
