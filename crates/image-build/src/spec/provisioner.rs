//! What runs in the guest.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

/// One thing to do in the guest.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProvisionerSpec {
    /// Run a script.
    Shell(ShellSpec),
    /// Put a file there.
    File(FileSpec),
}

impl ProvisionerSpec {
    /// Its name in events and errors.
    pub fn name(&self) -> &str {
        match self {
            Self::Shell(shell) => &shell.name,
            Self::File(file) => &file.name,
        }
    }
}

/// A script to run in the guest.
#[derive(Clone, Debug, Serialize)]
pub struct ShellSpec {
    /// Its name in events and errors: `k3s-install.sh`.
    pub name: String,
    /// The script's text.
    pub content: String,
    /// Environment, in this order.
    pub env: Vec<(String, EnvValue)>,
    /// How long it may run.
    pub timeout: Duration,
    /// Whether it may end the connection, as by a reboot: the build then waits until the guest answers again, and goes on
    /// with what comes next. The script itself is not run again. Packer's word for it.
    pub expect_disconnect: bool,
}

impl ShellSpec {
    /// A script without environment, for at most half an hour.
    pub fn new(name: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
            env: Vec::new(),
            // A full dnf update over a slow mirror is the longest of the embedded scripts.
            timeout: Duration::from_secs(30 * 60),
            expect_disconnect: false,
        }
    }

    /// Lets it end the connection, as by a reboot.
    #[must_use]
    pub fn expect_disconnect(mut self) -> Self {
        self.expect_disconnect = true;
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<EnvValue>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// The value of an environment variable.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum EnvValue {
    /// May be seen in logs and process lists.
    Plain(String),
    /// Must not.
    #[serde(serialize_with = "hidden")]
    Secret(SecretString),
}

fn hidden<S: serde::Serializer>(_: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_none()
}

impl From<String> for EnvValue {
    fn from(value: String) -> Self {
        Self::Plain(value)
    }
}

impl From<&str> for EnvValue {
    fn from(value: &str) -> Self {
        Self::Plain(value.to_owned())
    }
}

impl From<SecretString> for EnvValue {
    fn from(value: SecretString) -> Self {
        Self::Secret(value)
    }
}

/// A file to put into the guest.
#[derive(Clone, Debug, Serialize)]
pub struct FileSpec {
    /// Its name in events and errors.
    pub name: String,
    /// What it holds.
    pub content: FileContent,
    /// The absolute path in the guest.
    pub destination: String,
    /// Its mode, such as `0o644`.
    pub mode: u32,
}

/// What a file holds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileContent {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file on this machine.
    Path(PathBuf),
}
