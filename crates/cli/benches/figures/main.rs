//! Measures the figures of `docs/benchmarks.md`: `make bench`.
//!
//! One program in several roles, each a process of its own, so that memory and processor time are the operating system's account
//! of one role: `serve` is the emulator, the others are clients. Without a role it drives the others and prints the table. The
//! figures of one subject, with their roles, are in one module; `figures GROUP` measures that group alone. `figures guest` needs a
//! guest, and is no part of the whole.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the figures are its output")]

mod build;
mod client;
mod emulator;
mod guest;
mod journal;
mod process;
mod serve;
mod table;
mod upload;

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};
use table::Table;

type Measure = fn(&mut Table) -> Result<()>;

/// What is measured, in the order in which it is printed.
const GROUPS: &[(&str, Measure)] = &[
    ("build", build::figures),
    ("journal", journal::figures),
    ("upload", upload::figures),
    ("client", client::figures),
    ("emulator", emulator::figures),
];

fn main() -> ExitCode {
    // `cargo bench` adds --bench to what it was given.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut table = Table::default();
    match run(&words, &mut table) {
        Ok(()) if table.is_missed() => ExitCode::from(1),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures {}: {error:#}", words.join(" "));
            ExitCode::from(2)
        }
    }
}

fn run(words: &[&str], table: &mut Table) -> Result<()> {
    match words {
        [] => GROUPS.iter().try_for_each(|(_, figures)| figures(table)),
        ["role-serve"] => runtime()?.block_on(serve::serve()),
        ["role-build", count] => runtime()?.block_on(build::build(count)),
        ["role-build-embedded", count] => runtime()?.block_on(build::build_embedded(count)),
        ["role-journal"] => runtime()?.block_on(journal::price()),
        ["role-builds", count] => runtime()?.block_on(journal::builds(count)),
        ["role-load", path] => one_thread()?.block_on(emulator::load(path)),
        ["role-thousand"] => runtime()?.block_on(emulator::thousand()),
        ["role-upload", file] => runtime()?.block_on(upload::upload(Path::new(file))),
        ["guest"] => guest::figures(table),
        [group] => match GROUPS.iter().find(|(name, _)| name == group) {
            Some((_, figures)) => figures(table),
            None => bail!(
                "there is no such group; there are {:?}",
                GROUPS.iter().map(|(name, _)| name).collect::<Vec<_>>()
            ),
        },
        other => bail!("unknown role {other:?}"),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// For a client that is to leave the server as much of the machine as it can.
fn one_thread() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
