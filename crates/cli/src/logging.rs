//! Where the diagnostics of the program itself go: standard error by `-v`, and `--log-file`.

use std::fs::{File, OpenOptions, Permissions};
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
    /// A guest's output is nobody else's business, so the file is made for its owner alone; one of ours that is open to others is closed
    /// to them. A device, a pipe or somebody else's file is as its owner wants it.
    fn open(path: &Path, console: &Console) -> io::Result<Self> {
        use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let now = file.metadata()?;
        if now.is_file() && now.uid() == rustix::process::geteuid().as_raw() && now.mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Ok(Self {
            file,
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::output::{ColorChoice, Settings};

    #[test]
    fn only_its_owner_can_read_it_whether_it_was_there_or_not() {
        let console = Console::new(Settings {
            json: false,
            quiet: true,
            verbose: 0,
            color: ColorChoice::Never,
            no_color: false,
        });
        let dir = tempfile::tempdir().unwrap();
        for before in [None, Some(0o644), Some(0o666), Some(0o640), Some(0o600)] {
            let path = dir.path().join("log");
            let _ = std::fs::remove_file(&path);
            if let Some(mode) = before {
                std::fs::write(&path, "earlier\n").unwrap();
                std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            let mut log = LogFile::open(&path, &console).unwrap();
            log.write_all(b"now\n").unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{before:?}");
            let kept = if before.is_some() { "earlier\nnow\n" } else { "now\n" };
            assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
        }
        LogFile::open(Path::new("/dev/null"), &console).unwrap();
        let null = std::fs::metadata("/dev/null").unwrap().permissions().mode() & 0o777;
        assert_eq!(null, 0o666, "a device stays as it is");
    }
}
