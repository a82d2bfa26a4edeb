//! `k3simage resume`: goes on with a build whose builder died.

use super::build::{Kind, build};
use crate::args::ResumeArgs;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem};
use crate::signals::Signals;

pub(super) async fn run(args: ResumeArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let loaded = folder::load(&args.dir, &args.variables, console)?;
    let client = folder::client(&loaded)?;
    build(
        args.run,
        loaded.spec,
        client,
        Kind::Resumed(args.build),
        console,
        signals,
    )
    .await
}
