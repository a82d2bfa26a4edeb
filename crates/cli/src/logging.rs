//! Where the diagnostics of the program itself go: standard error by `-v`, and `--log-file`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::json;
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
    let file = file.map(|path| LogFile::open(path, console)).transpose()?;
    let file = file.map(|file| {
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

/// The log file. One that cannot be written any more is told once, and ends nothing: a log is not worth a build.
#[derive(Debug)]
struct LogFile {
    file: File,
    path: PathBuf,
    console: Console,
    told: bool,
}

impl LogFile {
    /// A guest's output is nobody else's business, so the file is made for its owner alone.
    fn open(path: &Path, console: &Console) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        Ok(Self {
            file: OpenOptions::new().append(true).create(true).mode(0o600).open(path)?,
            path: path.to_owned(),
            console: console.clone(),
            told: false,
        })
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.file.write_all(bytes)
            && !std::mem::replace(&mut self.told, true)
        {
            let text = format!(
                "writing the log file {}: {error}; a part of it will be missing",
                self.path.display()
            );
            self.console.object(&json!({ "event": "warning", "message": text }));
            self.console
                .error_line(format_args!("{} {text}", self.console.err().warning("warning:")));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
