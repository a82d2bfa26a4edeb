//! What a communicator is asked to do: commands, files, and what came of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Which of a command's two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Receives each line of output as it comes, without its line end.
pub type OnLine<'a> = &'a (dyn Fn(OutputStream, &str) + Send + Sync);

/// Bytes to send: from memory or from a local file that is read while it is sent.
#[derive(Clone)]
pub enum Source {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file on this machine.
    File(PathBuf),
}

impl fmt::Debug for Source {
    // The bytes may be a secret (an environment file), so only their number is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A command for the guest.
///
/// `argv` is passed word by word: no shell reads it unless its first word is one. `env` travels as arguments of `env(1)`
/// and so is visible in the guest's process list; secrets go into a file instead, as the shell provisioner does.
#[derive(Clone, Debug)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables added to the environment; not for secrets.
    pub env: BTreeMap<String, String>,
    /// What the command reads on standard input.
    pub stdin: Option<Source>,
    /// How long it may run; no limit when `None`.
    pub timeout: Option<Duration>,
}

impl Command {
    /// A command of these words, with empty input and no time limit.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            stdin: None,
            timeout: None,
        }
    }

    /// A script for `sh -c`, with `args` as its `$1`, `$2` and so on.
    pub fn sh<'a>(script: &'a str, args: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(["sh", "-c", script, "sh"].into_iter().chain(args))
    }

    /// Sets what the command reads on standard input.
    #[must_use]
    pub fn stdin(mut self, source: Source) -> Self {
        self.stdin = Some(source);
        self
    }

    /// Limits how long the command may run.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// The command as one line for a POSIX shell. The only place where words become text that a shell splits again.
    pub fn to_shell_line(&self) -> String {
        shell_words::join(self.words())
    }

    /// Program and arguments, with `env(1)` before them when there are variables.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        if !self.env.is_empty() {
            words.push("env".to_owned());
            words.extend(self.env.iter().map(|(name, value)| format!("{name}={value}")));
        }
        words.extend(self.argv.iter().cloned());
        words
    }

    /// The program's name, for messages.
    pub(crate) fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u32),
    /// It was killed by this signal, named without `SIG`: `KILL`.
    Signal(String),
}

impl ExitStatus {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// A file to write in the guest.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its bytes.
    pub source: Source,
    /// Absolute path in the guest; the folder must exist.
    pub destination: String,
    /// Permission bits, for instance `0o600`.
    pub mode: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for argv in [
            vec!["true"],
            vec![
                "echo",
                "a b",
                "",
                "it's",
                "$HOME",
                "`id`",
                "\\",
                "*",
                "a\nb",
                "-n",
                "ü\u{1F600}",
            ],
            vec!["sh", "-c", "exit \"$1\"", "sh", "3"],
        ] {
            let line = Command::new(argv.clone()).to_shell_line();
            assert_eq!(shell_words::split(&line).unwrap(), argv, "{line}");
        }
    }

    #[test]
    fn environment_precedes_the_program() {
        let mut command = Command::new(["printenv", "A"]);
        command.env.insert("A".into(), "x; rm -rf /".into());
        assert_eq!(command.to_shell_line(), "env 'A=x; rm -rf /' printenv A");
    }

    #[test]
    fn debug_of_a_source_shows_no_content() {
        let shown = format!("{:?}", Source::Bytes(Bytes::from_static(b"K3S_TOKEN=canary")));
        assert_eq!(shown, "Bytes(16 bytes)");
    }
}
