//! Colours, and when there are none.

use std::fmt::Display;

use clap::builder::styling::{AnsiColor, Style};

/// The styles of one stream; all of them plain where colours are off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Palette {
    enabled: bool,
}

impl Palette {
    pub(crate) const fn new(enabled: bool) -> Self {
        Self { enabled }
    }

    /// What is good.
    pub(crate) fn good(self, text: impl Display) -> String {
        self.paint(Style::new().fg_color(Some(AnsiColor::Green.into())), text)
    }

    /// What is wrong.
    pub(crate) fn bad(self, text: impl Display) -> String {
        self.paint(Style::new().fg_color(Some(AnsiColor::Red.into())).bold(), text)
    }

    /// What deserves a look.
    pub(crate) fn warning(self, text: impl Display) -> String {
        self.paint(Style::new().fg_color(Some(AnsiColor::Yellow.into())).bold(), text)
    }

    /// What is going on.
    pub(crate) fn running(self, text: impl Display) -> String {
        self.paint(Style::new().fg_color(Some(AnsiColor::Cyan.into())), text)
    }

    /// What matters most on its line.
    pub(crate) fn strong(self, text: impl Display) -> String {
        self.paint(Style::new().bold(), text)
    }

    /// What may be read past.
    pub(crate) fn faint(self, text: impl Display) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    fn paint(self, style: Style, text: impl Display) -> String {
        if self.enabled {
            format!("{}{text}{}", style.render(), style.render_reset())
        } else {
            text.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_on_or_off() {
        assert_eq!(Palette::new(false).bad("ERR"), "ERR");
        assert_eq!(Palette::new(true).bad("ERR"), "\u{1b}[1m\u{1b}[31mERR\u{1b}[0m");
    }
}
