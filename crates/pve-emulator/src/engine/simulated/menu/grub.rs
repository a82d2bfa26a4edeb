//! GRUB: `e` edits an entry's commands, `c` opens a command line, Ctrl-X boots.

use super::{Action, Choice, LineEditor, Lists};
use crate::engine::simulated::keys::Key;

const KERNEL: &str = "/images/pxeboot/vmlinuz";
const INITRD: &str = "/images/pxeboot/initrd.img";

#[derive(Clone, Debug)]
enum Mode {
    List,
    Edit(Editor),
    Shell(Shell),
    /// A failed boot; any key leads back to the list.
    Failed(String),
}

#[derive(Clone, Debug)]
pub(in super::super) struct Grub {
    lists: Lists,
    mode: Mode,
}

/// The entry editor: several lines and a cursor.
#[derive(Clone, Debug)]
struct Editor {
    lines: Vec<LineEditor>,
    row: usize,
}

/// The command line: what it printed, what is loaded, what is being typed.
#[derive(Clone, Debug, Default)]
struct Shell {
    output: Vec<String>,
    line: LineEditor,
    loaded: Loaded,
}

/// What `linux` and `initrd` have loaded so far.
#[derive(Clone, Debug, Default)]
struct Loaded {
    arguments: Option<String>,
    initrd: bool,
}

impl Grub {
    pub(super) fn new(lists: Lists) -> Self {
        Self {
            lists,
            mode: Mode::List,
        }
    }

    pub(super) fn key(&mut self, key: Key) -> Option<Choice> {
        match &mut self.mode {
            Mode::List => self.key_in_list(key),
            Mode::Failed(_) => {
                self.mode = Mode::List;
                None
            }
            Mode::Edit(editor) => match key {
                Key::Ctrl('x') | Key::Function(10) => {
                    let script: Vec<String> = editor.lines.iter().map(LineEditor::text).collect();
                    self.boot_script(&script)
                }
                Key::Escape => {
                    self.mode = Mode::List;
                    None
                }
                Key::Ctrl('c') | Key::Function(2) => {
                    self.mode = Mode::Shell(Shell::default());
                    None
                }
                other => {
                    editor.key(other);
                    None
                }
            },
            Mode::Shell(shell) => match key {
                Key::Enter => {
                    let line = std::mem::take(&mut shell.line).text();
                    shell.output.push(format!("grub> {line}"));
                    match run_command(&line, &mut shell.loaded) {
                        Ok(false) => None,
                        Ok(true) => shell.loaded.choice(),
                        Err(complaint) => {
                            shell.output.push(complaint);
                            None
                        }
                    }
                }
                Key::Escape => {
                    self.mode = Mode::List;
                    None
                }
                other => {
                    shell.line.key(other);
                    None
                }
            },
        }
    }

    fn key_in_list(&mut self, key: Key) -> Option<Choice> {
        match key {
            Key::Up | Key::Ctrl('p') => self.lists.step(false),
            Key::Down | Key::Ctrl('n') => self.lists.step(true),
            Key::Home | Key::PageUp => self.lists.selected = 0,
            Key::End | Key::PageDown => self.lists.selected = self.lists.entries().len() - 1,
            Key::Char('e') => {
                if let Action::Boot(extra) = self.lists.current().action {
                    self.mode = Mode::Edit(Editor::new(&self.entry_script(extra)));
                }
            }
            Key::Char('c') => self.mode = Mode::Shell(Shell::default()),
            Key::Escape if self.lists.in_submenu => self.lists.enter_submenu(false),
            Key::Enter | Key::Right | Key::Ctrl('f') => return self.boot_selected(),
            _ => {}
        }
        None
    }

    /// The commands of an entry as the editor shows them.
    fn entry_script(&self, extra: &str) -> Vec<String> {
        vec![
            format!("setparams '{}'", self.lists.current().title),
            String::new(),
            format!("\tlinuxefi {KERNEL} {}", self.lists.arguments(extra)),
            format!("\tinitrdefi {INITRD}"),
        ]
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

    fn boot_script(&mut self, script: &[String]) -> Option<Choice> {
        let mut loaded = Loaded::default();
        let result = script
            .iter()
            .try_for_each(|line| run_command(line, &mut loaded).map(|_| ()));
        let result = result.and_then(|()| loaded.choice().ok_or_else(|| NOT_LOADED.to_owned()));
        match result {
            Ok(choice) => Some(choice),
            Err(complaint) => {
                self.mode = Mode::Failed(complaint);
                None
            }
        }
    }

    pub(super) fn screen(&self) -> Vec<String> {
        match &self.mode {
            Mode::List => {
                let mut lines = self.lists.screen();
                lines.push("Press `e' to edit the commands before booting or `c' for a command-line.".to_owned());
                lines
            }
            Mode::Edit(editor) => editor.lines.iter().map(LineEditor::text).collect(),
            Mode::Shell(shell) => {
                let mut lines = shell.output.clone();
                lines.push(format!("grub> {}", shell.line.text()));
                lines
            }
            Mode::Failed(complaint) => vec![complaint.clone(), "Press any key to continue...".to_owned()],
        }
    }
}

const NOT_LOADED: &str = "error: ../../grub-core/loader/i386/efi/linux.c:225:you need to load the kernel first.";

impl Loaded {
    fn choice(&self) -> Option<Choice> {
        self.arguments.clone().map(|arguments| Choice::Kernel {
            arguments,
            initrd: self.initrd,
        })
    }
}

/// Runs one GRUB command; `Ok(true)` means boot.
fn run_command(line: &str, loaded: &mut Loaded) -> Result<bool, String> {
    let mut words = line.split_whitespace();
    let Some(command) = words.next() else { return Ok(false) };
    let strip = |file: &str| {
        file.strip_prefix("($root)")
            .or_else(|| file.strip_prefix("(cd0)"))
            .unwrap_or(file)
            .to_owned()
    };
    match command {
        "linux" | "linuxefi" | "linux16" => {
            let file = words.next().map(strip).ok_or("error: filename expected.")?;
            if file != KERNEL {
                return Err(format!("error: file `{file}' not found."));
            }
            loaded.arguments = Some(words.collect::<Vec<_>>().join(" "));
            loaded.initrd = false;
        }
        "initrd" | "initrdefi" | "initrd16" => {
            if loaded.arguments.is_none() {
                return Err(NOT_LOADED.to_owned());
            }
            let file = words.next().map(strip).ok_or("error: filename expected.")?;
            if file != INITRD {
                return Err(format!("error: file `{file}' not found."));
            }
            loaded.initrd = true;
        }
        "boot" => {
            return if loaded.arguments.is_some() {
                Ok(true)
            } else {
                Err(NOT_LOADED.to_owned())
            };
        }
        // Accepted without effect: the medium is the root device already.
        "setparams" | "set" | "search" | "insmod" | "load_video" | "echo" | "clear" => {}
        other => return Err(format!("error: can't find command `{other}'.")),
    }
    Ok(false)
}

impl Editor {
    fn new(script: &[String]) -> Self {
        let lines = script
            .iter()
            .map(|line| LineEditor {
                text: line.chars().collect(),
                cursor: 0,
            })
            .collect();
        Self { lines, row: 0 }
    }

    fn key(&mut self, key: Key) {
        match key {
            Key::Up | Key::Ctrl('p') => self.go_to(self.row.saturating_sub(1)),
            Key::Down | Key::Ctrl('n') => self.go_to((self.row + 1).min(self.lines.len() - 1)),
            Key::Enter => {
                let line = &mut self.lines[self.row];
                let tail = line.text.split_off(line.cursor);
                self.row += 1;
                self.lines.insert(self.row, LineEditor { text: tail, cursor: 0 });
            }
            Key::Backspace | Key::Ctrl('h') if self.lines[self.row].cursor == 0 => {
                if self.row > 0 {
                    let line = self.lines.remove(self.row);
                    self.row -= 1;
                    let above = &mut self.lines[self.row];
                    above.cursor = above.text.len();
                    above.text.extend(line.text);
                }
            }
            Key::Delete | Key::Ctrl('d') if self.lines[self.row].cursor == self.lines[self.row].text.len() => {
                if self.row + 1 < self.lines.len() {
                    let below = self.lines.remove(self.row + 1);
                    self.lines[self.row].text.extend(below.text);
                }
            }
            other => {
                self.lines[self.row].key(other);
            }
        }
    }

    /// Another row, in the same column where there is one.
    fn go_to(&mut self, row: usize) {
        let column = self.lines[self.row].cursor;
        self.row = row;
        let line = &mut self.lines[row];
        line.cursor = column.min(line.text.len());
    }
}
