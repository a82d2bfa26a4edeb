//! Tasks: their state, their log, and how they ended.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::{lenient, upid::Upid};

/// How PVE calls the end of a worker that was killed and so left no last line in its log (`FACTS` 51).
pub(crate) const UNEXPECTED_STATUS: &str = "unexpected status";

/// What `/nodes/{node}/tasks/{upid}/status` answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct TaskStatus {
    /// The task.
    pub upid: Upid,
    /// `running` or `stopped`.
    pub status: String,
    /// Absent while it runs; then `OK`, `WARNINGS: n`, or the text of the error (`FACTS` 51).
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub exitstatus: Option<String>,
    /// When it started, in seconds since the epoch.
    #[serde(default, deserialize_with = "lenient::opt_i64")]
    pub starttime: Option<i64>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl TaskStatus {
    /// How it ended; `None` while it runs.
    pub fn exit(&self) -> Option<TaskExit> {
        match (self.status.as_str(), self.exitstatus.as_deref()) {
            ("stopped", Some(text)) => Some(TaskExit::read(text)),
            ("stopped", None) => Some(TaskExit::Failed(UNEXPECTED_STATUS.to_owned())),
            _ => None,
        }
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskExit {
    /// Well.
    Ok,
    /// Well, with so many warnings in its log.
    Warnings(u64),
    /// With this error.
    Failed(String),
}

impl TaskExit {
    /// Reads PVE's text.
    pub fn read(text: &str) -> Self {
        if text == "OK" {
            return Self::Ok;
        }
        match text.strip_prefix("WARNINGS: ").map(str::parse) {
            Some(Ok(count)) => Self::Warnings(count),
            _ => Self::Failed(text.to_owned()),
        }
    }
}

/// An entry of `/nodes/{node}/tasks`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct TaskEntry {
    /// The task.
    pub upid: Upid,
    /// How it ended; absent or `RUNNING` while it runs. The text is that of [`TaskStatus::exitstatus`].
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub status: Option<String>,
    /// When it started, in seconds since the epoch.
    #[serde(default, deserialize_with = "lenient::opt_i64")]
    pub starttime: Option<i64>,
    /// When it ended, in seconds since the epoch.
    #[serde(default, deserialize_with = "lenient::opt_i64")]
    pub endtime: Option<i64>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl TaskEntry {
    /// Does it still run?
    ///
    /// # Source
    /// `pve/scenarios/09-tasks.json`: a running task is listed with the status `RUNNING` and without `endtime`.
    pub fn is_running(&self) -> bool {
        self.endtime.is_none() && self.status.as_deref().is_none_or(|status| status == "RUNNING")
    }
}

/// A line of a task's log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// Its number, from 1.
    #[serde(deserialize_with = "lenient::u64")]
    pub n: u64,
    /// Its text; absent in PVE's answer for an empty line.
    #[serde(rename = "t", default, deserialize_with = "lenient::opt_text")]
    text: Option<String>,
}

impl LogLine {
    /// The text.
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

/// A part of a task's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskLog {
    /// The lines asked for.
    pub lines: Vec<LogLine>,
    /// How many lines the log had in all.
    pub total: u64,
}

impl TaskLog {
    /// Is it PVE's stand-in for a log with nothing in it (`FACTS` 52) or for a missing one (`FACTS` 53)?
    pub fn is_placeholder(&self) -> bool {
        matches!(self.lines.as_slice(), [line] if line.text() == "no content" || line.text().starts_with("unable to open file"))
    }
}

/// How a waited-for task ended well; a failed one is [`Error::Task`](crate::Error::Task).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum TaskOutcome {
    /// Well.
    Ok,
    /// Well, with these warnings from its log.
    Warnings(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits() {
        for (text, want) in [
            ("OK", TaskExit::Ok),
            ("WARNINGS: 1", TaskExit::Warnings(1)),
            ("WARNINGS: x", TaskExit::Failed("WARNINGS: x".into())),
            ("received interrupt", TaskExit::Failed("received interrupt".into())),
            ("", TaskExit::Failed(String::new())),
        ] {
            assert_eq!(TaskExit::read(text), want);
        }
    }

    #[test]
    fn a_running_task_is_told_from_one_that_has_ended() {
        let read = |rest: &str| -> TaskEntry {
            serde_json::from_str(&format!(
                r#"{{"upid":"UPID:pve:0000778E:000B3A73:6B046495:qmdestroy:100:root@pam:"{rest}}}"#
            ))
            .expect("well formed")
        };
        assert!(read("").is_running());
        assert!(read(r#","status":"RUNNING","saved":"0""#).is_running());
        assert!(!read(r#","status":"OK","endtime":1764161700"#).is_running());
        assert!(!read(r#","endtime":1764161700"#).is_running());
    }

    #[test]
    fn a_running_task_has_no_exit() {
        let read = |status: &str| -> TaskStatus {
            serde_json::from_str(&format!(
                r#"{{"upid":"UPID:pve:0000778E:000B3A73:6B046495:imgcopy::root@pam:",{status},"pid":30606}}"#
            ))
            .expect("well formed")
        };
        assert_eq!(read(r#""status":"running""#).exit(), None);
        assert_eq!(
            read(r#""status":"stopped","exitstatus":"OK""#).exit(),
            Some(TaskExit::Ok)
        );
        assert!(matches!(
            read(r#""status":"stopped""#).exit(),
            Some(TaskExit::Failed(_))
        ));
    }
}
