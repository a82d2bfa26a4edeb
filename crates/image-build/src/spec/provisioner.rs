//! What runs in the guest.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::Error;

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

/// What a file holds. Written out it is the SHA-256 of that, wherever the bytes come from: two files that hold the same are the same.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FileContent {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file on this machine.
    Local(LocalFile),
}

impl FileContent {
    /// The SHA-256 in hexadecimal digits.
    pub fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) => hex::encode(Sha256::digest(bytes)),
            Self::Local(file) => file.sha256.clone(),
        }
    }
}

impl Serialize for FileContent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut content = serializer.serialize_struct("FileContent", 1)?;
        content.serialize_field("sha256", &self.sha256())?;
        content.end()
    }
}

/// A file on this machine, and what it held when it was looked at. Whether it still does is looked at before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    path: PathBuf,
    sha256: String,
}

impl LocalFile {
    /// Reads the file once, whatever its size, a piece at a time. Blocks: a large one is best taken off the async threads.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        match sha256_of(&path) {
            Ok(sha256) => Ok(Self { path, sha256 }),
            Err(source) => Err(Error::Io {
                attempt: "reading",
                path,
                source,
            }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of what it held, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Looks whether it still holds what it did.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Unexpected`] when it holds something else.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let path = self.path.clone();
        let now = tokio::task::spawn_blocking(move || Self::read(path)).await;
        let now = now.unwrap_or_else(|error| {
            Err(Error::Panic {
                message: crate::panics::told_of_task(error),
            })
        })?;
        if now == *self {
            return Ok(());
        }
        Err(Error::Unexpected {
            what: self.path.display().to_string(),
            reason: "it has been changed since the build began, which is known by what it held then; build anew"
                .to_owned(),
        })
    }
}

/// Bytes that are hashed at a time.
const CHUNK_BYTES: usize = 256 * 1024;

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex::encode(hash.finalize())),
            length => hash.update(chunk.get(..length).unwrap_or_default()),
        }
    }
}
