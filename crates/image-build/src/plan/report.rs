//! What preflight found: one finding per check, each with what to do when it is bad.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The check that has a finding only where the guest's console and screen cannot be seen.
pub(super) const CONSOLE_CHECK: &str = "console";

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it must be.
    Ok,
    /// Possible, but a person should know.
    Warning,
    /// A build would fail: it does not begin.
    Error,
}

/// One checked fact about the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked, in a word: `node`, `storage`, `privileges`.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was found, with names and numbers.
    pub message: String,
    /// What to do about it; set for each warning and error.
    pub fix: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.message)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// The findings of a preflight, and what it resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// Name of the image, its iteration chosen.
    pub image: String,
    /// Node that it would be built on.
    pub node: String,
    /// Version of Proxmox VE.
    pub pve_version: String,
    /// Id that the template would get, as far as it can be known before it is taken.
    pub vmid: Option<u32>,
    /// Id of the template that would be replaced, when that was asked for and there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u32>,
    /// All findings in the order of the checks.
    pub findings: Vec<Finding>,
}

impl PlanReport {
    pub(crate) fn ok(&mut self, check: &str, message: impl Into<String>) {
        self.push(check, Level::Ok, message.into(), None);
    }

    pub(crate) fn warning(&mut self, check: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.push(check, Level::Warning, message.into(), Some(fix.into()));
    }

    pub(crate) fn error(&mut self, check: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.push(check, Level::Error, message.into(), Some(fix.into()));
    }

    fn push(&mut self, check: &str, level: Level, message: String, fix: Option<String>) {
        self.findings.push(Finding {
            check: check.to_owned(),
            level,
            message,
            fix,
        });
    }

    /// Whether the guest's console and screen cannot be seen.
    pub(crate) fn lacks_console(&self) -> bool {
        self.findings.iter().any(|finding| finding.check == CONSOLE_CHECK)
    }

    /// Whether a build could begin.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.level < Level::Error)
    }

    /// The findings of one level.
    pub fn at(&self, level: Level) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.level == level)
    }

    /// The good findings on one line.
    pub fn summary(&self) -> String {
        let parts: Vec<&str> = self.at(Level::Ok).map(|finding| finding.message.as_str()).collect();
        parts.join(", ")
    }

    /// The bad findings on one line.
    pub(crate) fn failure_text(&self) -> String {
        let bad: Vec<String> = self.at(Level::Error).map(ToString::to_string).collect();
        match bad.as_slice() {
            [] => "the cluster has what the image needs".to_owned(),
            [one] => format!("the cluster does not have what the image needs: {one}"),
            many => format!(
                "the cluster does not have what the image needs ({} findings): {}",
                many.len(),
                many.join(" | ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_decide_and_are_all_told() {
        let mut report = PlanReport::default();
        report.ok("node", "node pve");
        report.warning("cpu", "slow", "use host");
        assert!(report.is_ok());
        assert_eq!(report.summary(), "node pve");
        report.error("storage", "no storage `x`", "did you mean `y`?");
        assert!(!report.is_ok());
        assert_eq!(
            report.failure_text(),
            "the cluster does not have what the image needs: storage: no storage `x`; did you mean `y`?"
        );
        report.error("iso", "gone", "upload it");
        assert!(
            report.failure_text().contains("(2 findings): storage: ")
                && report.failure_text().ends_with("| iso: gone; upload it")
        );
    }
}
