//! Writes the manifest file.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::Error;
use crate::build::context::Context;
use crate::build::step::{Step, StepName};

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
        context.take_stock()?.write_manifest(&self.path)?;
        Ok(self.path.display().to_string())
    }

    /// Nothing of it is on the cluster.
    fn is_noted(&self) -> bool {
        false
    }
}
