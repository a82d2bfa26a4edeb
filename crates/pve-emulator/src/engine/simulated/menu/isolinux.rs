//! isolinux with vesamenu: Tab edits the selected entry's line, Esc leads to the `boot:` prompt.

use super::{Action, Choice, LineEditor, Lists};
use crate::engine::simulated::keys::Key;

#[derive(Clone, Debug)]
enum Mode {
    List,
    /// The line after Tab: `vmlinuz initrd=initrd.img ...`.
    Edit(LineEditor),
    /// The `boot:` prompt, with the last complaint above it.
    Prompt(LineEditor, Option<String>),
}

#[derive(Clone, Debug)]
pub(in super::super) struct Isolinux {
    lists: Lists,
    mode: Mode,
}

impl Isolinux {
    pub(super) fn new(lists: Lists) -> Self {
        Self {
            lists,
            mode: Mode::List,
        }
    }

    pub(super) fn key(&mut self, key: Key) -> Option<Choice> {
        match &mut self.mode {
            Mode::List => self.key_in_list(key),
            Mode::Edit(line) | Mode::Prompt(line, _) => match key {
                Key::Enter => {
                    let line = line.text();
                    self.boot_line(&line)
                }
                Key::Escape => {
                    self.mode = Mode::List;
                    None
                }
                other => {
                    line.key(other);
                    None
                }
            },
        }
    }

    fn key_in_list(&mut self, key: Key) -> Option<Choice> {
        match key {
            Key::Up => self.lists.step(false),
            Key::Down => self.lists.step(true),
            Key::Home | Key::PageUp => self.lists.selected = 0,
            Key::End | Key::PageDown => self.lists.selected = self.lists.entries().len() - 1,
            Key::Tab => {
                if let Action::Boot(extra) = self.lists.current().action {
                    let line = format!("vmlinuz initrd=initrd.img {}", self.lists.arguments(extra));
                    self.mode = Mode::Edit(LineEditor::at_end(&line));
                }
            }
            Key::Escape => self.mode = Mode::Prompt(LineEditor::default(), None),
            Key::Enter => return self.boot_selected(),
            Key::Char(c) => {
                let wanted = c.to_ascii_lowercase();
                if let Some(number) = self.lists.entries().iter().position(|entry| entry.hotkey == wanted) {
                    self.lists.selected = number;
                }
            }
            _ => {}
        }
        None
    }

    fn boot_selected(&mut self) -> Option<Choice> {
        match self.lists.current().action {
            Action::Boot(extra) => Some(Choice::Kernel {
                arguments: self.lists.arguments(extra),
                initrd: true,
            }),
            Action::LocalDisk => Some(Choice::LocalDisk),
            Action::Submenu => {
                self.lists.enter_submenu(true);
                None
            }
            Action::Back => {
                self.lists.enter_submenu(false);
                None
            }
        }
    }

    /// Boots a typed line: a label of the configuration with arguments after it, or a kernel file with its own.
    fn boot_line(&mut self, line: &str) -> Option<Choice> {
        let mut words = line.split_whitespace();
        // An empty prompt boots the default label.
        let first = words.next().unwrap_or("check");
        let rest: Vec<&str> = words.collect();
        let labelled = self
            .lists
            .top
            .iter()
            .chain(&self.lists.troubleshooting)
            .find(|entry| entry.label == first);
        if let Some(entry) = labelled.filter(|entry| !entry.label.is_empty()) {
            return Some(match entry.action {
                Action::Boot(extra) => {
                    let arguments = [vec![self.lists.stage2.as_str(), extra], rest].concat().join(" ");
                    Choice::Kernel {
                        arguments,
                        initrd: true,
                    }
                }
                _ => Choice::LocalDisk,
            });
        }
        if matches!(first, "vmlinuz" | "/vmlinuz" | "/isolinux/vmlinuz") {
            let initrd = rest.iter().any(|word| {
                word.strip_prefix("initrd=")
                    .is_some_and(|file| file.ends_with("initrd.img"))
            });
            let arguments: Vec<&str> = rest.into_iter().filter(|word| !word.starts_with("initrd=")).collect();
            return Some(Choice::Kernel {
                arguments: arguments.join(" "),
                initrd,
            });
        }
        self.mode = Mode::Prompt(
            LineEditor::default(),
            Some(format!("Could not find kernel image: {first}")),
        );
        None
    }

    pub(super) fn screen(&self) -> Vec<String> {
        match &self.mode {
            Mode::List => {
                let mut lines = self.lists.screen();
                lines.push("Press Tab for full configuration options on menu items.".to_owned());
                lines
            }
            Mode::Edit(line) => {
                let mut lines = self.lists.screen();
                lines.push(format!("> {}", line.text()));
                lines
            }
            Mode::Prompt(line, complaint) => {
                let mut lines: Vec<String> = complaint.iter().cloned().collect();
                lines.push(format!("boot: {}", line.text()));
                lines
            }
        }
    }
}
