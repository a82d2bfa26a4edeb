//! The installation medium's menu: isolinux on SeaBIOS, GRUB on OVMF, each with its own editing keys.
//!
//! Entries and kernel lines are those of the templates that AlmaLinux 9's media are built from (lorax, `isolinux.cfg`
//! and `grub2-efi.cfg`); what is typed is what boots.

use super::firmware::{Firmware, Medium};
use super::keys::Key;

mod grub;
mod isolinux;

/// What was chosen in the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// A kernel with its arguments, without the kernel's file name; whether an initrd was loaded.
    Kernel { arguments: String, initrd: bool },
    /// The next device of the boot order.
    LocalDisk,
    /// Ctrl-Alt-Delete.
    Reset,
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    title: String,
    /// The letter that isolinux highlights.
    hotkey: char,
    /// Label at isolinux's `boot:` prompt.
    label: &'static str,
    action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// Kernel arguments after `inst.stage2=`.
    Boot(&'static str),
    LocalDisk,
    Submenu,
    Back,
}

/// The two lists of the menu: the top one and Troubleshooting.
#[derive(Clone, Debug)]
struct Lists {
    stage2: String,
    os: String,
    top: Vec<Entry>,
    troubleshooting: Vec<Entry>,
    in_submenu: bool,
    selected: usize,
}

/// Index of "Test this media & install", the default of both menus.
const DEFAULT_ENTRY: usize = 1;

impl Lists {
    fn new(medium: &Medium) -> Self {
        let os = medium.os();
        let entry = |title: String, hotkey, label, action| Entry {
            title,
            hotkey,
            label,
            action,
        };
        Self {
            stage2: format!("inst.stage2=hd:LABEL={}", medium.label),
            top: vec![
                entry(format!("Install {os}"), 'i', "linux", Action::Boot("quiet")),
                entry(
                    format!("Test this media & install {os}"),
                    'm',
                    "check",
                    Action::Boot("rd.live.check quiet"),
                ),
                entry("Troubleshooting -->".to_owned(), 't', "", Action::Submenu),
            ],
            troubleshooting: vec![
                entry(
                    format!("Install {os} in basic graphics mode"),
                    'g',
                    "text",
                    Action::Boot("nomodeset quiet"),
                ),
                entry(
                    format!("Rescue a {os} system"),
                    'r',
                    "rescue",
                    Action::Boot("inst.rescue quiet"),
                ),
                entry("Boot from local drive".to_owned(), 'l', "local", Action::LocalDisk),
                entry("Return to main menu".to_owned(), 'u', "", Action::Back),
            ],
            os,
            in_submenu: false,
            selected: DEFAULT_ENTRY,
        }
    }

    fn entries(&self) -> &[Entry] {
        if self.in_submenu {
            &self.troubleshooting
        } else {
            &self.top
        }
    }

    fn current(&self) -> &Entry {
        &self.entries()[self.selected]
    }

    fn arguments(&self, extra: &str) -> String {
        format!("{} {extra}", self.stage2)
    }

    /// Moves the selection; the lists do not wrap round.
    fn step(&mut self, down: bool) {
        let last = self.entries().len() - 1;
        self.selected = if down {
            (self.selected + 1).min(last)
        } else {
            self.selected.saturating_sub(1)
        };
    }

    fn enter_submenu(&mut self, inside: bool) {
        self.in_submenu = inside;
        self.selected = if inside { 0 } else { DEFAULT_ENTRY };
    }

    fn screen(&self) -> Vec<String> {
        let mut lines = vec![self.os.clone(), String::new()];
        for (number, entry) in self.entries().iter().enumerate() {
            lines.push(format!(
                "{} {}",
                if number == self.selected { '*' } else { ' ' },
                entry.title
            ));
        }
        lines
    }
}

/// The menu on the screen.
#[derive(Clone, Debug)]
pub(super) enum Menu {
    Isolinux(isolinux::Isolinux),
    Grub(grub::Grub),
}

impl Menu {
    pub(super) fn new(firmware: Firmware, medium: &Medium) -> Self {
        let lists = Lists::new(medium);
        match firmware {
            Firmware::SeaBios => Self::Isolinux(isolinux::Isolinux::new(lists)),
            Firmware::Ovmf => Self::Grub(grub::Grub::new(lists)),
        }
    }

    /// What boots when the countdown ends.
    pub(super) fn default_choice(medium: &Medium) -> Choice {
        let lists = Lists::new(medium);
        match lists.top[DEFAULT_ENTRY].action {
            Action::Boot(extra) => Choice::Kernel {
                arguments: lists.arguments(extra),
                initrd: true,
            },
            _ => Choice::LocalDisk,
        }
    }

    /// Feeds one key; a choice ends the menu.
    pub(super) fn key(&mut self, key: Key) -> Option<Choice> {
        if key == Key::Reset {
            return Some(Choice::Reset);
        }
        match self {
            Self::Isolinux(menu) => menu.key(key),
            Self::Grub(menu) => menu.key(key),
        }
    }

    /// Lines on the screen.
    pub(super) fn screen(&self) -> Vec<String> {
        match self {
            Self::Isolinux(menu) => menu.screen(),
            Self::Grub(menu) => menu.screen(),
        }
    }
}

/// One line with a cursor, as both boot loaders edit it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LineEditor {
    text: Vec<char>,
    cursor: usize,
}

impl LineEditor {
    /// The given text with the cursor at its end.
    fn at_end(text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        Self {
            cursor: text.len(),
            text,
        }
    }

    fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// Handles a key that edits within the line; `false` if it means something else.
    fn key(&mut self, key: Key) -> bool {
        match key {
            Key::Char(c) => {
                self.text.insert(self.cursor, c);
                self.cursor += 1;
            }
            Key::Backspace | Key::Ctrl('h') => {
                if self.cursor > 0 {
                    self.cursor -= 1;
                    self.text.remove(self.cursor);
                }
            }
            Key::Delete | Key::Ctrl('d') => {
                if self.cursor < self.text.len() {
                    self.text.remove(self.cursor);
                }
            }
            Key::Left | Key::Ctrl('b') => self.cursor = self.cursor.saturating_sub(1),
            Key::Right | Key::Ctrl('f') => self.cursor = (self.cursor + 1).min(self.text.len()),
            Key::Home | Key::Ctrl('a') => self.cursor = 0,
            Key::End | Key::Ctrl('e') => self.cursor = self.text.len(),
            Key::Ctrl('k') => self.text.truncate(self.cursor),
            Key::Ctrl('u') => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            Key::Ctrl('w') => {
                let start = self.text[..self.cursor]
                    .iter()
                    .rposition(|c| *c != ' ')
                    .and_then(|end| self.text[..end].iter().rposition(|c| *c == ' '))
                    .map_or(0, |space| space + 1);
                self.text.drain(start..self.cursor);
                self.cursor = start;
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests;
