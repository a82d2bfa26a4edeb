//! The subcommands, one file each.

mod build;
mod console;
#[cfg(feature = "emulator")]
mod emulator;
mod gc;
mod init;
mod list;
mod plan;
mod replace;
mod resume;
mod validate;
mod verify;

use crate::args::Command;
use crate::exit::Exit;
use crate::output::{Console, Problem};
use crate::signals::Signals;

/// Runs a subcommand.
pub(crate) async fn dispatch(command: Command, console: &Console, signals: &Signals) -> Result<Exit, Box<Problem>> {
    match command {
        Command::Init(args) => unless_ended(init::run(&args, console), signals).await,
        Command::Validate(args) => unless_ended(validate::run(&args, console), signals).await,
        Command::Plan(args) => unless_ended(plan::run(&args, console), signals).await,
        Command::List(args) => unless_ended(list::run(&args, console), signals).await,
        Command::Console(args) => unless_ended(console::run(&args, console), signals).await,
        Command::Gc(args) => gc::run(&args, console, signals).await,
        Command::Resume(args) => Box::pin(resume::run(args, console, signals)).await,
        Command::Build(args) => Box::pin(build::run(args, console, signals)).await,
        Command::Verify(args) => Box::pin(verify::run(args, console, signals)).await,
        #[cfg(feature = "emulator")]
        Command::Emulator(args) => Box::pin(emulator::run(&args, console, signals)).await,
    }
}

/// The addresses of two clones, given both or not at all.
fn ip_configs(given: &[String]) -> Result<Option<[String; 2]>, Box<Problem>> {
    match given {
        [] => Ok(None),
        [first, second] => Ok(Some([first.clone(), second.clone()])),
        other => {
            let message = format!("--ipconfig is given {} times, but there are two clones", other.len());
            Err(Problem::bad_input(message).help("give it twice: --ipconfig ip=10.0.0.5/24 --ipconfig ip=10.0.0.6/24"))
        }
    }
}

/// Work that leaves nothing behind ends with the first signal.
async fn unless_ended(
    work: impl Future<Output = Result<Exit, Box<Problem>>>,
    signals: &Signals,
) -> Result<Exit, Box<Problem>> {
    tokio::select! {
        ended = work => ended,
        () = signals.first() => Ok(signals.exit().unwrap_or(Exit::Interrupted)),
    }
}

/// What comes before anything is begun, and leaves nothing behind either: the first signal ends the command.
async fn or_ended<T>(
    work: impl Future<Output = Result<T, Box<Problem>>>,
    signals: &Signals,
) -> Result<T, Box<Problem>> {
    tokio::select! {
        ended = work => ended,
        () = signals.first() => {
            let mut problem = Problem::failed("ended by a signal before anything was begun");
            problem.exit = signals.exit().unwrap_or(Exit::Interrupted);
            Err(problem)
        }
    }
}
