//! Packer's boot command language: text and `<keys>` in, keys for PVE's `sendkey` and waits out.

mod keys;
mod parse;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use thiserror::Error;

use parse::Item;

/// A boot command, checked as a whole when it is read.
///
/// ```
/// use image_build::{BootAction, BootCommand, BootValues};
/// let command: BootCommand = "<up><wait500ms>e<leftCtrlOn>x<leftCtrlOff>".parse()?;
/// let typed: Vec<String> = command.expand(&BootValues::default())?.iter().map(ToString::to_string).collect();
/// assert_eq!(typed, ["up", "wait 500ms", "e", "ctrl-x"]);
/// # Ok::<(), image_build::BootCommandError>(())
/// ```
///
/// # Source
/// Packer's documentation of `boot_command`. Two differences: an unknown `<word>` is an error here, where Packer types
/// it letter by letter, and only modifiers can be held, because `sendkey` presses and releases at once.
#[derive(Clone, PartialEq, Eq)]
pub struct BootCommand {
    text: String,
    items: Vec<Item>,
}

/// A key or a chord in the words of QEMU's monitor: `ret`, `shift-a`, `ctrl-alt-delete`.
///
/// # Source
/// `traces/sendkey.json`: lower-case key codes joined by dashes; the character `-` itself is `minus`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// The value of `sendkey`'s parameter `key`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing to do while the guest shows its menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootAction {
    /// Press and release.
    Key(Key),
    /// Let the guest draw.
    Wait(Duration),
}

impl fmt::Display for BootAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Wait(duration) => write!(f, "wait {duration:?}"),
        }
    }
}

words! {
    /// A value that is known only when the build runs.
    BootVariable, "a value of boot commands" {
        /// Address of this machine as the guest sees it.
        HttpIp => "HTTPIP",
        /// Port of the kickstart's server.
        HttpPort => "HTTPPort",
        /// Name of the VM.
        Name => "Name",
    }
}

/// Values for `{{ .HTTPIP }}`, `{{ .HTTPPort }}` and `{{ .Name }}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootValues {
    /// Address of this machine as the guest sees it.
    pub http_ip: Option<String>,
    /// Port of the kickstart's server; a secret path element may follow it (`8080/x7k2`), since commands go on with
    /// `/ks.cfg`.
    pub http_port: Option<String>,
    /// Name of the VM.
    pub name: Option<String>,
}

impl BootValues {
    fn get(&self, variable: BootVariable) -> Option<&str> {
        match variable {
            BootVariable::HttpIp => self.http_ip.as_deref(),
            BootVariable::HttpPort => self.http_port.as_deref(),
            BootVariable::Name => self.name.as_deref(),
        }
    }
}

/// Why a boot command cannot be typed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct BootCommandError {
    reason: String,
    help: Option<String>,
    range: Range<usize>,
}

impl BootCommandError {
    fn new(range: Range<usize>, reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            help: None,
            range,
        }
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The bytes of the command that are wrong.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// What to write instead.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl BootCommand {
    /// The lines of a `boot_command` list, which are typed without a break.
    ///
    /// # Errors
    /// [`BootCommandError`] with its place in the joined text.
    pub fn from_lines<S: AsRef<str>>(lines: &[S]) -> Result<Self, BootCommandError> {
        lines.iter().map(AsRef::as_ref).collect::<String>().parse()
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Does it need that value?
    pub fn uses(&self, variable: BootVariable) -> bool {
        self.items
            .iter()
            .any(|item| matches!(item, Item::Variable(used, _) if *used == variable))
    }

    /// Does it type nothing at all?
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Keys and waits, with the values filled in.
    ///
    /// # Errors
    /// [`BootCommandError`] when a value is missing, or holds what a US keyboard cannot type.
    pub fn expand(&self, values: &BootValues) -> Result<Vec<BootAction>, BootCommandError> {
        let mut typist = keys::Typist::default();
        for item in &self.items {
            match item {
                Item::Wait(duration) => typist.wait(*duration),
                Item::Text(text, range) => typist.text(text, range)?,
                Item::Special(special) => typist.special(*special),
                Item::On(modifier) => typist.hold(*modifier),
                Item::Off(modifier) => typist.release(*modifier),
                Item::Variable(variable, range) => {
                    let value = values.get(*variable).ok_or_else(|| {
                        BootCommandError::new(
                            range.clone(),
                            format!("`{{{{ .{variable} }}}}` has no value in this build"),
                        )
                        .with_help("set kickstart_delivery = \"http\" so that the kickstart is served")
                    })?;
                    typist.text(value, range)?;
                }
            }
        }
        Ok(typist.finish())
    }
}

impl FromStr for BootCommand {
    type Err = BootCommandError;
    fn from_str(text: &str) -> Result<Self, BootCommandError> {
        let items = parse::parse(text)?;
        // Typed once on nothing, so that a character without a key is found now and not when the guest waits for it.
        let mut typist = keys::Typist::default();
        for item in &items {
            if let Item::Text(text, range) = item {
                typist.text(text, range)?;
            }
        }
        Ok(Self {
            text: text.to_owned(),
            items,
        })
    }
}

impl fmt::Display for BootCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for BootCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BootCommand").field(&self.text).finish()
    }
}

impl Serialize for BootCommand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
