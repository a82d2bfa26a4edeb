//! From arguments to an exit code.

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::Parser as _;

use crate::args::{Cli, Command, GlobalArgs};
use crate::exit::Exit;
use crate::output::{Console, Problem, Settings};
use crate::signals::{HangUp, Signals};
use crate::{argv, commands, logging};

/// Runs the command with these arguments, the first of which is the program's own name, and gives its exit code.
///
/// Prints to the process's standard output and standard error, listens to SIGINT, SIGTERM and SIGHUP while it runs, and starts a tokio
/// runtime of its own: not to be called from within one.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    i32::from(exit_of(args).code())
}

fn exit_of(args: impl IntoIterator<Item = OsString>) -> Exit {
    image_build::panics::hide_texts();
    let cli = match Cli::try_parse_from(argv::normalise(args)) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version come this way too, to standard output; a closed pipe is no error.
            let printed = told.print();
            let lost = |error: &io::Error| error.kind() != io::ErrorKind::BrokenPipe;
            return match printed {
                _ if told.use_stderr() => Exit::BadInput,
                Err(error) if lost(&error) => {
                    let _ = writeln!(io::stderr(), "error: writing standard output: {error}");
                    Exit::Failed
                }
                _ => Exit::Ok,
            };
        }
    };
    let console = Console::new(settings(&cli.global));
    let (hang_up, output_is_all) = (hang_up(&cli.command), cli.command.output_is_all());
    let ended = start(&console, &cli.global).and_then(|runtime| {
        let ended = runtime.block_on(async {
            let signals =
                Signals::listen(hang_up).map_err(|error| Problem::failed("listening to signals").because(&error))?;
            commands::dispatch(cli.command, &console, &signals).await
        });
        // A blocking read (a question on the terminal, a file on a dead mount) must not hold up the end.
        runtime.shutdown_background();
        ended
    });
    let exit = ended.unwrap_or_else(|problem| {
        problem.show(&console);
        problem.exit
    });
    match console.lost() {
        Some(error) => told_in_part(exit, output_is_all, error, &console),
        None => exit,
    }
}

/// What standard output lacks is a failure of a command that is run to be read. What a build has made is there all the same.
fn told_in_part(exit: Exit, output_is_all: bool, error: &io::Error, console: &Console) -> Exit {
    console.last_line(format_args!(
        "{} writing standard output: {error}; a part of it is missing",
        console.err().bad("error:")
    ));
    if exit == Exit::Ok && output_is_all {
        Exit::Failed
    } else {
        exit
    }
}

/// An emulator with a faults file reads it again at SIGHUP, as daemons do.
fn hang_up(command: &Command) -> HangUp {
    match command {
        #[cfg(feature = "emulator")]
        Command::Emulator(args) if args.faults.is_some() => HangUp::Own,
        _ => HangUp::Ends,
    }
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
