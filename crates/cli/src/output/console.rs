//! `Console`: the one way out. Keeps bars and lines apart, and a reader that went away from ending a build.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use rustix::io::Errno;
use serde_json::Value;

use super::Palette;
use super::screen::Screen;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the options and the surroundings say about output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// One JSON object a line instead of text.
    pub(crate) json: bool,
    /// Results and errors only.
    pub(crate) quiet: bool,
    /// How much more than usual.
    pub(crate) verbose: u8,
    /// When to use colours.
    pub(crate) color: ColorChoice,
    /// NO_COLOR is set and not empty (<https://no-color.org>).
    pub(crate) no_color: bool,
}

/// Where output goes: results and progress lines to standard output, errors and warnings to standard error.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    settings: Settings,
    live: bool,
    out: Palette,
    err: Palette,
    bars: Arc<MultiProgress>,
    /// A question stands on the screen: nothing may be drawn over it.
    asking: Arc<AtomicBool>,
    /// Standard output is a terminal, which may be closed at any time.
    out_terminal: bool,
    /// Why standard output lacks a part.
    lost: Arc<OnceLock<io::Error>>,
}

/// How often a second the bars are drawn at most.
const FRAMES: u8 = 20;

impl Console {
    pub(crate) fn new(settings: Settings) -> Self {
        let (out_terminal, err_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        // A bar is redrawn in place, which needs both streams to end on the same screen; TERM=dumb cannot redraw.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = out_terminal && err_terminal && !dumb && !settings.json && !settings.quiet;
        let target = if live {
            ProgressDrawTarget::term_like_with_hz(Box::new(Screen::new()), FRAMES)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            settings,
            live,
            out: Palette::new(colored(settings, out_terminal)),
            err: Palette::new(colored(settings, err_terminal)),
            bars: Arc::new(MultiProgress::with_draw_target(target)),
            asking: Arc::new(AtomicBool::new(false)),
            out_terminal,
            lost: Arc::default(),
        }
    }

    /// One JSON object a line?
    pub(crate) fn json(&self) -> bool {
        self.settings.json
    }

    /// How much more than usual is to be told.
    pub(crate) fn verbose(&self) -> u8 {
        self.settings.verbose
    }

    /// Whether bars can be drawn now; otherwise there are lines only.
    pub(crate) fn is_live(&self) -> bool {
        self.live && !self.asking.load(Ordering::Relaxed)
    }

    /// Puts a question on the terminal, without an end of line, and keeps the bars away until [`Console::answered`].
    pub(crate) fn ask(&self, question: &str) {
        self.asking.store(true, Ordering::Relaxed);
        self.warn(question);
    }

    /// Lets the bars return.
    pub(crate) fn answered(&self) {
        self.asking.store(false, Ordering::Relaxed);
    }

    /// Colours of standard output.
    pub(crate) fn out(&self) -> Palette {
        self.out
    }

    /// Colours of standard error.
    pub(crate) fn err(&self) -> Palette {
        self.err
    }

    /// A line for people on standard output; nothing with `--json`.
    pub(crate) fn line(&self, text: impl Display) {
        if !self.settings.json {
            self.tell(&format!("{text}\n"));
        }
    }

    /// The same, unless `--quiet` asks for results only.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.settings.quiet {
            self.line(text);
        }
    }

    /// A line for people on standard error; nothing with `--json`, which carries the same as an object.
    pub(crate) fn error_line(&self, text: impl Display) {
        if !self.settings.json {
            self.warn(&format!("{text}\n"));
        }
    }

    /// An object for programs on standard output; nothing without `--json`.
    pub(crate) fn object(&self, object: &Value) {
        if self.settings.json {
            self.tell(&format!("{object}\n"));
        }
    }

    /// A new bar at the foot of the screen; hidden where there is none.
    pub(crate) fn bar(&self) -> ProgressBar {
        self.bars.add(ProgressBar::new_spinner())
    }

    /// Where diagnostics of the program itself are written, between the bars.
    pub(crate) fn log_writer(&self) -> LogWriter {
        LogWriter { console: self.clone() }
    }

    /// Why standard output lacks a part of what was written to it: a full disk. A reader that went away (`k3simage build | head`) and a
    /// terminal that was closed miss nothing that they wanted.
    pub(crate) fn lost(&self) -> Option<&io::Error> {
        self.lost.get()
    }

    /// A last line on standard error, with `--json` too: what would carry it cannot.
    pub(crate) fn last_line(&self, text: impl Display) {
        self.warn(&format!("{text}\n"));
    }

    /// Writes to standard output.
    fn tell(&self, text: &str) {
        match self.print(io::stdout, text) {
            Err(error) if !self.has_no_reader(&error) => drop(self.lost.set(error)),
            _ => {}
        }
    }

    /// Writes to standard error. Where that cannot be written there is no place left to say so.
    fn warn(&self, text: &str) {
        let _ = self.print(io::stderr, text);
    }

    fn has_no_reader(&self, error: &io::Error) -> bool {
        // A terminal that is gone answers each write with EIO.
        let gone = self.out_terminal && error.raw_os_error() == Some(Errno::IO.raw_os_error());
        gone || error.kind() == io::ErrorKind::BrokenPipe
    }

    /// Writes a whole text at once. A failed write is no reason to stop a build half-way: what was built stands in the manifest, how it
    /// ended in the exit code.
    fn print<W: Write>(&self, stream: impl FnOnce() -> W, text: &str) -> io::Result<()> {
        self.bars.suspend(|| {
            let mut stream = stream();
            stream.write_all(text.as_bytes()).and_then(|()| stream.flush())
        })
    }
}

fn colored(settings: Settings, terminal: bool) -> bool {
    match settings.color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => terminal && !settings.no_color,
    }
}

/// Writes to standard error without tearing the bars.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    console: Console,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.console.warn(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_option_then_no_color_then_the_terminal() {
        let table = [
            (ColorChoice::Auto, false, true, true),
            (ColorChoice::Auto, false, false, false),
            (ColorChoice::Auto, true, true, false),
            (ColorChoice::Always, true, false, true),
            (ColorChoice::Never, false, true, false),
        ];
        for (color, no_color, terminal, wanted) in table {
            let settings = Settings {
                json: false,
                quiet: false,
                verbose: 0,
                color,
                no_color,
            };
            assert_eq!(colored(settings, terminal), wanted, "{color:?} {no_color} {terminal}");
        }
    }
}
