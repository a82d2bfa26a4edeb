//! From arguments to an exit code.

use std::ffi::OsString;

use clap::Parser as _;

use crate::args::{Cli, GlobalArgs};
use crate::exit::Exit;
use crate::output::{Console, Problem, Settings};
use crate::signals::Signals;
use crate::{argv, commands, logging};

/// Runs the command with these arguments, the first of which is the program's own name, and gives its exit code.
///
/// Prints to the process's standard output and standard error, listens to SIGINT and SIGTERM while it runs, and starts a tokio
/// runtime of its own: not to be called from within one.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    i32::from(exit_of(args).code())
}

fn exit_of(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(argv::normalise(args)) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version come this way too, to standard output; a closed pipe is no error.
            let _ = told.print();
            return if told.use_stderr() { Exit::BadInput } else { Exit::Ok };
        }
    };
    let console = Console::new(settings(&cli.global));
    let ended = start(&console, &cli.global).and_then(|runtime| {
        let ended = runtime.block_on(async {
            let signals = Signals::listen().map_err(|error| Problem::failed("listening to signals").because(&error))?;
            commands::dispatch(cli.command, &console, &signals).await
        });
        // A blocking read (a question on the terminal, a file on a dead mount) must not hold up the end.
        runtime.shutdown_background();
        ended
    });
    ended.unwrap_or_else(|problem| {
        problem.show(&console);
        problem.exit
    })
}

fn settings(global: &GlobalArgs) -> Settings {
    Settings {
        json: global.json,
        quiet: global.quiet,
        verbose: global.verbose,
        color: global.color,
        no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
    }
}

fn start(console: &Console, global: &GlobalArgs) -> Result<tokio::runtime::Runtime, Box<Problem>> {
    logging::start(console, global.log_file.as_deref()).map_err(|error| {
        let path = global.log_file.as_deref().unwrap_or_else(|| "".as_ref());
        Problem::bad_input(format!("opening the log file {}", path.display())).because(&error)
    })?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::failed("starting the runtime").because(&error))
}
