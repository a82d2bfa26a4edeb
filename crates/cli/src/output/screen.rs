//! `Screen`: where bars are drawn. One that is gone takes everything and shows nothing.

use std::fmt;
use std::io;

use ::console::Term;
use indicatif::TermLike;

/// Standard error as a terminal on which nothing fails: indicatif panics where a line cannot be drawn, and a terminal may be closed
/// while a build goes on.
pub(super) struct Screen(Term);

impl Screen {
    pub(super) fn new() -> Self {
        Self(Term::buffered_stderr())
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Screen").finish_non_exhaustive()
    }
}

/// What was drawn, or could not be.
#[expect(clippy::unnecessary_wraps, reason = "the trait's shape")]
fn drawn(result: io::Result<()>) -> io::Result<()> {
    drop(result);
    Ok(())
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        drawn(self.0.move_cursor_up(n))
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        drawn(self.0.move_cursor_down(n))
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        drawn(self.0.move_cursor_right(n))
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        drawn(self.0.move_cursor_left(n))
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        drawn(self.0.write_line(line))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        drawn(self.0.write_str(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        drawn(self.0.clear_line())
    }

    fn flush(&self) -> io::Result<()> {
        drawn(self.0.flush())
    }
}
