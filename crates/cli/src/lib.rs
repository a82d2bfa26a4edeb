//! The command `k3simage` as a library: arguments in, lines and an exit code out.
//!
//! `argv` and `args` read the command line, `commands` has one file a subcommand, `viewer` follows
//! what runs long, `output` shows it, `exit` is the
//! table of exit codes. Nothing here knows how an image is built: that is `image_build`, and the Python package drives the same.

mod args;
mod argv;
mod ask;
mod commands;
#[cfg(feature = "emulator")]
mod embedded;
mod exit;
mod folder;
mod logging;
mod output;
mod run;
mod signals;
mod variable_args;
mod viewer;

pub use run::run;
