//! Writes the manifest file.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::build::context::Context;
use crate::build::step::{Step, StepName};
use crate::{Error, panics};

/// Adds the build to the manifest.
#[derive(Debug)]
pub(super) struct Manifest {
    /// The file.
    pub(super) path: PathBuf,
}

#[async_trait]
impl Step<Context> for Manifest {
    fn name(&self) -> StepName {
        "manifest".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let (artifact, path) = (context.take_stock()?.clone(), self.path.clone());
        let written = tokio::task::spawn_blocking(move || artifact.write_manifest(&path)).await;
        written.unwrap_or_else(|error| {
            Err(Error::Panic {
                message: panics::told_of_task(error),
            })
        })?;
        Ok(self.path.display().to_string())
    }

    /// Nothing of it is on the cluster.
    fn is_noted(&self) -> bool {
        false
    }
}
