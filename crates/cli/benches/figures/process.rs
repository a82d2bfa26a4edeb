//! Roles as processes: started, fed, and what the operating system says of them.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A line of `/proc/self/status` in KiB: `VmHWM` is the peak of the resident memory.
pub(crate) fn memory_kib(key: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let words = line
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("no {key}"))?;
    Ok(words.parse()?)
}

pub(crate) struct Served {
    child: Child,
    input: Option<ChildStdin>,
    pub(crate) target: Value,
}

impl Served {
    pub(crate) fn start() -> Result<Self> {
        let mut child = role(&["role-serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        Ok(Self {
            child,
            input,
            target: serde_json::from_str(&line).context("the emulator did not start")?,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.input.take());
        // Nothing to do about a failure here: the figures are taken already.
        let _ = self.child.wait();
    }
}

fn role(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| PathBuf::from("figures")));
    command.args(words);
    command
}

pub(crate) fn run_role(words: &[&str], target: Option<&Value>) -> Result<Value> {
    let mut child = role(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let (Some(mut input), Some(target)) = (child.stdin.take(), target) {
        writeln!(input, "{target}")?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "role {words:?} failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A number out of what a role printed.
pub(crate) fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().with_context(|| format!("no {key} in {value}"))
}
