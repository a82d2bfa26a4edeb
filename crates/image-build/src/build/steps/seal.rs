//! Takes out of the guest what must not be the same in two clones, and every way in that the build had.

use async_trait::async_trait;

use super::provision::{build_variables, prepare_folder, remove_folder, run_one};
use crate::Error;
use crate::build::context::Context;
use crate::build::step::{Step, StepName};
use crate::provision::ShellProvisioner;

/// Name of the step.
pub(crate) const SEAL: &str = "seal";

/// Runs the seal script; after it, no new login is possible and none is needed.
#[derive(Debug)]
pub(super) struct Seal;

#[async_trait]
impl Step<Context> for Seal {
    fn name(&self) -> StepName {
        SEAL.into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        let Some(script) = &context.spec.seal else {
            context.emitter.warning(
                "the image is not sealed: its clones share machine id, host keys and whatever else the build left",
            );
            remove_folder(context).await?;
            return Ok("no seal script".to_owned());
        };
        let seal = ShellProvisioner::from_spec(script, &build_variables(context)?);
        prepare_folder(context).await?;
        context.console.seal();
        run_one(context, &seal, true).await
    }
}
