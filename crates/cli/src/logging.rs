//! Where the diagnostics of the program itself go: standard error by `-v`, and `--log-file`.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::output::Console;

/// Target of a build's events in the log file; on the screen the view shows them in its own way.
pub(crate) const EVENTS: &str = "k3simage::events";

const OURS: [&str; 4] = ["proxmox_client", "image_build", "pve_emulator", "k3simage_cli"];

/// Sets up logging for the process. A second call in one process changes nothing.
///
/// # Errors
/// When the log file cannot be opened.
pub(crate) fn start(console: &Console, file: Option<&Path>) -> io::Result<()> {
    let level = match console.verbose() {
        0 => tracing::Level::ERROR,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let writer = console.log_writer();
    let screen = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .with_filter(
            OURS.iter()
                .fold(Targets::new(), |targets, name| targets.with_target(*name, level)),
        );
    let file = file.map(open).transpose()?.map(|file| {
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(Mutex::new(file))
            .with_filter(OURS.iter().chain([&EVENTS]).fold(Targets::new(), |targets, name| {
                targets.with_target(*name, level.max(tracing::Level::DEBUG))
            }))
    });
    // The wheel's process may have called us before: then the first call's settings stay.
    let _ = tracing_subscriber::registry().with(screen).with(file).try_init();
    Ok(())
}

/// A guest's output is nobody else's business, so the file is made for its owner alone.
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
