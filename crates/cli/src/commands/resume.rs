//! `k3simage resume`: goes on with a build whose builder died.

use super::build::{Kind, build, read};
use super::or_ended;
use crate::args::ResumeArgs;
use crate::exit::Exit;
use crate::output::{Console, Problem};
use crate::signals::Signals;

pub(super) async fn run(args: ResumeArgs, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    let (spec, client) = or_ended(read(&args.dir, &args.variables, console), signals).await?;
    build(args.run, spec, client, Kind::Resumed(args.build), console, signals).await
}
