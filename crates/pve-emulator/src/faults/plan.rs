//! The faults file: TOML, read into a [`FaultPlan`].

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Error as _;

use super::{Fault, FaultAction, FaultMatch, FaultPlan, TaskFault};
use crate::error::Error;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    fault: Vec<FaultEntry>,
    #[serde(default)]
    node: Vec<NodeEntry>,
}

/// One `[[fault]]`: exactly one of `call`, `index` and `task` says what it meets.
#[derive(Deserialize)]
#[serde(try_from = "RawFault")]
struct FaultEntry(Fault);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    call: Option<String>,
    index: Option<u64>,
    task: Option<String>,
    #[serde(default)]
    skip: u32,
    times: Option<Times>,
    then: Then,
}

/// How often: a number or `"always"`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "times is a number from 1 up or \"always\"")]
enum Times {
    Number(u32),
    Word(Always),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Always {
    Always,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Then {
    Answer(Answer),
    Refuse,
    LoseAnswer,
    Delay(Seconds),
    CutAnswer,
    CutRequest(u64),
    Expired,
    TaskFails(String),
    TaskWarns(String),
    TaskHangs,
    TaskDelay(Seconds),
    NodeOffline(String),
    NodeOnline(String),
    NodeSlow(SlowNode),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: u16,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowNode {
    node: String,
    by: Seconds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    name: String,
    #[serde(default)]
    offline: bool,
    slow: Option<Seconds>,
}

/// Seconds as a number, whole or not.
#[derive(Clone, Copy)]
struct Seconds(Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|e| D::Error::custom(format!("{seconds} is no number of seconds: {e}")))
    }
}

impl TryFrom<RawFault> for FaultEntry {
    type Error = String;

    fn try_from(raw: RawFault) -> Result<Self, String> {
        let action = raw.then.action()?;
        let about_task = matches!(action, FaultAction::Task(_));
        let when = match (raw.call, raw.index, raw.task) {
            (Some(call), None, None) => {
                let (method, path) = call
                    .split_once(' ')
                    .filter(|(method, path)| {
                        ["GET", "POST", "PUT", "DELETE", "*"].contains(method) && path.starts_with(['/', '*'])
                    })
                    .ok_or_else(|| {
                        format!("call {call:?} is not METHOD PATH, such as \"POST /nodes/*/qemu\" or \"* /version\"")
                    })?;
                let (method, path) = (method.to_owned(), path.to_owned());
                if raw.skip > 0 {
                    FaultMatch::PathAfter {
                        method,
                        path,
                        skip: raw.skip,
                    }
                } else {
                    FaultMatch::Path { method, path }
                }
            }
            (None, Some(index), None) => FaultMatch::Index(index),
            (None, None, Some(task)) if about_task => {
                let (kind, id) = task.split_once(' ').unwrap_or((&task, "*"));
                FaultMatch::Task {
                    kind: kind.to_owned(),
                    id: id.to_owned(),
                }
            }
            (None, None, Some(_)) => return Err("with `task`, `then` is one of the task-... faults".into()),
            _ => return Err("a fault has one of `call`, `index` and `task`".into()),
        };
        if raw.skip > 0 && !matches!(when, FaultMatch::PathAfter { .. }) {
            return Err("`skip` goes with `call`".into());
        }
        let times = match raw.times {
            None => 1,
            Some(Times::Number(0)) => return Err("times is a number from 1 up or \"always\"".into()),
            Some(Times::Number(times)) => times,
            Some(Times::Word(Always::Always)) => u32::MAX,
        };
        Ok(Self(Fault { when, action, times }))
    }
}

impl Then {
    fn action(self) -> Result<FaultAction, String> {
        Ok(match self {
            Self::Answer(Answer { status, reason }) => {
                if !(400..=599).contains(&status) {
                    return Err(format!("status {status} is no error: give one from 400 to 599"));
                }
                if reason.is_empty() || reason.chars().any(char::is_control) {
                    return Err("reason is one line of text".into());
                }
                FaultAction::Status(status, reason)
            }
            Self::Refuse => FaultAction::Refuse,
            Self::LoseAnswer => FaultAction::LoseAnswer,
            Self::Delay(time) => FaultAction::Delay(time.0),
            Self::CutAnswer => FaultAction::CutAnswer,
            Self::CutRequest(after) => FaultAction::CutRequest(after),
            Self::Expired => FaultAction::Expired,
            Self::TaskFails(text) => FaultAction::Task(TaskFault::Fails(text)),
            Self::TaskWarns(text) => FaultAction::Task(TaskFault::Warns(text)),
            Self::TaskHangs => FaultAction::Task(TaskFault::Hangs),
            Self::TaskDelay(time) => FaultAction::Task(TaskFault::Delay(time.0)),
            Self::NodeOffline(node) => FaultAction::NodeOffline(node),
            Self::NodeOnline(node) => FaultAction::NodeOnline(node),
            Self::NodeSlow(SlowNode { node, by }) => FaultAction::NodeSlow(node, by.0),
        })
    }
}

impl FaultPlan {
    /// Reads a faults file; `docs/guide/emulator.md` describes it.
    ///
    /// # Errors
    /// [`Error::Faults`] with line and cause.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Faults {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Reads the text of a faults file.
    ///
    /// # Errors
    /// A text that names the line and what is wrong there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let offline = file.node.iter().filter(|n| n.offline).map(|n| n.name.clone());
        let slow = file.node.iter().filter_map(|n| Some((n.name.clone(), n.slow?.0)));
        Ok(Self {
            offline: offline.collect(),
            slow: slow.collect(),
            faults: file.fault.into_iter().map(|f| f.0).collect(),
        })
    }

    /// The nodes that it names.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &String> {
        let of_faults = self.faults.iter().filter_map(|f| match &f.action {
            FaultAction::NodeOffline(node) | FaultAction::NodeOnline(node) | FaultAction::NodeSlow(node, _) => {
                Some(node)
            }
            _ => None,
        });
        self.offline
            .iter()
            .chain(self.slow.iter().map(|(n, _)| n))
            .chain(of_faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_understood() {
        let text = r#"
            [[fault]]
            call = "POST /nodes/*/qemu"
            skip = 2
            times = 3
            then = { answer = { status = 595, reason = "No route to host" } }
            [[fault]]
            index = 12
            then = "refuse"
            [[fault]]
            task = "qmclone 100"
            times = "always"
            then = { task-fails = "no space" }
            [[fault]]
            task = "*"
            then = { task-delay = 0.5 }
            [[fault]]
            call = "* /version"
            then = { node-slow = { node = "pve2", by = 2 } }
            [[node]]
            name = "pve2"
            offline = true
            [[node]]
            name = "pve3"
            slow = 1.5
        "#;
        let plan = FaultPlan::parse(text).unwrap();
        let first = FaultMatch::PathAfter {
            method: "POST".into(),
            path: "/nodes/*/qemu".into(),
            skip: 2,
        };
        assert_eq!(
            plan.faults[0],
            Fault {
                when: first,
                action: FaultAction::Status(595, "No route to host".into()),
                times: 3
            }
        );
        assert_eq!(plan.faults[1].when, FaultMatch::Index(12));
        let kind = |kind: &str, id: &str| FaultMatch::Task {
            kind: kind.into(),
            id: id.into(),
        };
        assert_eq!(
            (&plan.faults[2].when, plan.faults[2].times),
            (&kind("qmclone", "100"), u32::MAX)
        );
        assert_eq!(plan.faults[3].when, kind("*", "*"));
        assert_eq!(
            plan.faults[3].action,
            FaultAction::Task(TaskFault::Delay(Duration::from_millis(500)))
        );
        assert_eq!(plan.offline, ["pve2"]);
        assert_eq!(plan.slow, [("pve3".to_owned(), Duration::from_millis(1500))]);
        assert_eq!(plan.nodes().collect::<Vec<_>>(), ["pve2", "pve3", "pve2"]);
        assert_eq!(FaultPlan::parse("").unwrap(), FaultPlan::default());
    }

    #[test]
    fn every_action_has_its_word() {
        for (then, action) in [
            (r#""lose-answer""#, FaultAction::LoseAnswer),
            (r#""cut-answer""#, FaultAction::CutAnswer),
            (r#""expired""#, FaultAction::Expired),
            (r"{ cut-request = 100 }", FaultAction::CutRequest(100)),
            (r"{ delay = 2 }", FaultAction::Delay(Duration::from_secs(2))),
            (r#""task-hangs""#, FaultAction::Task(TaskFault::Hangs)),
            (
                r#"{ task-warns = "w" }"#,
                FaultAction::Task(TaskFault::Warns("w".into())),
            ),
            (r#"{ node-offline = "b" }"#, FaultAction::NodeOffline("b".into())),
            (r#"{ node-online = "b" }"#, FaultAction::NodeOnline("b".into())),
        ] {
            let plan = FaultPlan::parse(&format!("[[fault]]\ncall = \"* *\"\nthen = {then}\n")).unwrap();
            assert_eq!(plan.faults[0].action, action, "{then}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, part) in [
            (
                "[[fault]]\ncall = \"* *\"\nthen = \"refuse\"\ntimez = 2\n",
                "line 4",
                "timez",
            ),
            ("[[fault]]\ncall = \"* *\"\nthen = \"explode\"\n", "line 3", "explode"),
            (
                "\n[[fault]]\nthen = \"refuse\"\n",
                "line 2",
                "one of `call`, `index` and `task`",
            ),
            (
                "[[fault]]\ncall = \"*\"\nindex = 1\nthen = \"refuse\"\n",
                "line 1",
                "one of `call`",
            ),
            (
                "[[fault]]\ncall = \"/version\"\nthen = \"refuse\"\n",
                "line 1",
                "METHOD PATH",
            ),
            (
                "[[fault]]\ncall = \"* *\"\ntimes = 0\nthen = \"refuse\"\n",
                "line 1",
                "from 1 up",
            ),
            (
                "[[fault]]\ncall = \"* *\"\ntimes = \"often\"\nthen = \"refuse\"\n",
                "line 3",
                "always",
            ),
            ("[[fault]]\ncall = \"* *\"\nthen = { delay = -1 }\n", "line 3", "-1"),
            ("[[fault]]\ntask = \"qmclone\"\nthen = \"refuse\"\n", "line 1", "task-"),
            (
                "[[fault]]\ncall = \"* *\"\nthen = { answer = { status = 200, reason = \"OK\" } }\n",
                "line 1",
                "400 to 599",
            ),
            ("[[node]]\nname = \"a\"\noffline = \"yes\"\n", "line 3", "boolean"),
            ("[[node]\n", "line 1", ""),
        ] {
            let error = FaultPlan::parse(text).unwrap_err();
            assert!(error.contains(line) && error.contains(part), "{text}: {error}");
        }
    }
}
