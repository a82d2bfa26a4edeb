//! From characters and named keys to the key codes of QEMU's monitor, for a US keyboard.

use std::ops::Range;
use std::time::Duration;

use super::{BootAction, BootCommandError, Key};

/// A modifier that can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modifier(pub(super) &'static str);

/// A named key: its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Special(pub(super) &'static str);

/// Packer's names in lower case, and the key codes they mean.
///
/// # Source
/// Packer's documentation of `boot_command`; the enum `QKeyCode` of QEMU.
pub(super) const SPECIALS: &[(&str, &str)] = &[
    ("bs", "backspace"),
    ("del", "delete"),
    ("down", "down"),
    ("end", "end"),
    ("enter", "ret"),
    ("esc", "esc"),
    ("f1", "f1"),
    ("f10", "f10"),
    ("f11", "f11"),
    ("f12", "f12"),
    ("f2", "f2"),
    ("f3", "f3"),
    ("f4", "f4"),
    ("f5", "f5"),
    ("f6", "f6"),
    ("f7", "f7"),
    ("f8", "f8"),
    ("f9", "f9"),
    ("home", "home"),
    ("insert", "insert"),
    ("left", "left"),
    ("menu", "menu"),
    ("pagedown", "pgdn"),
    ("pageup", "pgup"),
    ("return", "ret"),
    ("right", "right"),
    ("spacebar", "spc"),
    ("tab", "tab"),
    ("up", "up"),
];

/// Packer's modifiers in lower case, and their key codes.
pub(super) const MODIFIERS: &[(&str, &str)] = &[
    ("leftalt", "alt"),
    ("leftctrl", "ctrl"),
    ("leftshift", "shift"),
    ("leftsuper", "meta_l"),
    ("rightalt", "alt_r"),
    ("rightctrl", "ctrl_r"),
    ("rightshift", "shift_r"),
    ("rightsuper", "meta_r"),
];

/// The key that types a character, and whether Shift must be held.
pub(super) fn key_of(c: char) -> Option<(bool, &'static str)> {
    /// One-character key codes, so that each has a static name.
    const PLAIN: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
    let plain = |c: char| PLAIN.find(c).map(|at| &PLAIN[at..=at]);
    if let Some(code) = plain(c) {
        return Some((false, code));
    }
    if c.is_ascii_uppercase() {
        return plain(c.to_ascii_lowercase()).map(|code| (true, code));
    }
    Some(match c {
        ' ' => (false, "spc"),
        '-' => (false, "minus"),
        '=' => (false, "equal"),
        '[' => (false, "bracket_left"),
        ']' => (false, "bracket_right"),
        ';' => (false, "semicolon"),
        '\'' => (false, "apostrophe"),
        '`' => (false, "grave_accent"),
        '\\' => (false, "backslash"),
        ',' => (false, "comma"),
        '.' => (false, "dot"),
        '/' => (false, "slash"),
        '!' => (true, "1"),
        '@' => (true, "2"),
        '#' => (true, "3"),
        '$' => (true, "4"),
        '%' => (true, "5"),
        '^' => (true, "6"),
        '&' => (true, "7"),
        '*' => (true, "8"),
        '(' => (true, "9"),
        ')' => (true, "0"),
        '_' => (true, "minus"),
        '+' => (true, "equal"),
        '{' => (true, "bracket_left"),
        '}' => (true, "bracket_right"),
        ':' => (true, "semicolon"),
        '"' => (true, "apostrophe"),
        '~' => (true, "grave_accent"),
        '|' => (true, "backslash"),
        '<' => (true, "comma"),
        '>' => (true, "dot"),
        '?' => (true, "slash"),
        _ => return None,
    })
}

/// Writes the actions down, with the modifiers that are held at each moment.
#[derive(Debug, Default)]
pub(super) struct Typist {
    actions: Vec<BootAction>,
    held: Vec<Modifier>,
    // Set while modifiers are held and nothing was typed with them: then releasing one is a tap of the modifier.
    unused: bool,
}

impl Typist {
    pub(super) fn wait(&mut self, duration: Duration) {
        self.actions.push(BootAction::Wait(duration));
    }

    pub(super) fn special(&mut self, special: Special) {
        self.press(false, special.0);
    }

    pub(super) fn hold(&mut self, modifier: Modifier) {
        if !self.held.contains(&modifier) {
            self.held.push(modifier);
            self.unused = true;
        }
    }

    pub(super) fn release(&mut self, modifier: Modifier) {
        if self.unused && self.held.contains(&modifier) {
            let chord: Vec<&str> = self.held.iter().map(|held| held.0).collect();
            self.actions.push(BootAction::Key(Key(chord.join("-"))));
            self.unused = false;
        }
        self.held.retain(|held| *held != modifier);
    }

    pub(super) fn text(&mut self, text: &str, range: &Range<usize>) -> Result<(), BootCommandError> {
        for c in text.chars() {
            let (shift, code) = key_of(c).ok_or_else(|| {
                let error = BootCommandError::new(range.clone(), format!("no key of a US keyboard types {c:?}"));
                match c {
                    '\n' | '\r' => {
                        error.with_help("write <enter> for the key; lines of the list are joined without a break")
                    }
                    '\t' => error.with_help("write <tab> for the key"),
                    _ => error.with_help("write it with ASCII characters"),
                }
            })?;
            self.press(shift, code);
        }
        Ok(())
    }

    fn press(&mut self, shift: bool, code: &str) {
        let mut chord: Vec<&str> = self.held.iter().map(|held| held.0).collect();
        if shift && !chord.iter().any(|held| held.starts_with("shift")) {
            chord.push("shift");
        }
        chord.push(code);
        self.actions.push(BootAction::Key(Key(chord.join("-"))));
        self.unused = false;
    }

    pub(super) fn finish(self) -> Vec<BootAction> {
        self.actions
    }
}
