//! What goes wrong, and where.

use std::fmt;
use std::str::FromStr;

use pve_emulator::{Fault, FaultAction, FaultMatch, Gate, RequestRecord, TaskFault};

use crate::kind::{KINDS, Kind};

/// The text of what goes wrong on purpose.
const ON_PURPOSE: &str = "fault on purpose";

/// Where a build can be hit. Its text reads back: `POST /nodes/pve/qemu#1`, `script seal.sh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A call of the API: the `nth` of its kind, from 0.
    Call { method: String, path: String, nth: u32 },
    /// The middle of a script in the guest.
    Script(String),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { method, path, nth } => write!(f, "{method} {path}#{}", nth + 1),
            Self::Script(name) => write!(f, "script {name}"),
        }
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("script ") {
            return Ok(Self::Script(name.to_owned()));
        }
        let bad = || format!("`{text}` is no place: METHOD PATH#NUMBER or script NAME");
        let (call, number) = text.rsplit_once('#').ok_or_else(bad)?;
        let (method, path) = call.split_once(' ').ok_or_else(bad)?;
        let number: u32 = number.parse().map_err(|_| bad())?;
        Ok(Self::Call {
            method: method.to_owned(),
            path: path.to_owned(),
            nth: number.checked_sub(1).ok_or_else(bad)?,
        })
    }
}

impl Point {
    /// The calls of a build in their order, from what the emulator saw of it.
    pub(crate) fn calls(requests: &[RequestRecord]) -> Vec<Self> {
        let mut calls: Vec<Self> = Vec::new();
        for request in requests {
            let pattern = pattern(&request.path);
            let same = |call: &&Self| matches!(call, Self::Call { method, path, .. } if *method == request.method && *path == pattern);
            let nth = u32::try_from(calls.iter().filter(same).count()).unwrap_or(u32::MAX);
            calls.push(Self::Call {
                method: request.method.clone(),
                path: pattern,
                nth,
            });
        }
        calls
    }

    fn is(&self, wanted: &str, ending: &str) -> bool {
        matches!(self, Self::Call { method, path, .. } if method == wanted && path.ends_with(ending))
    }

    /// The call that makes the VM.
    pub(crate) fn creates(&self) -> bool {
        self.is("POST", "/qemu")
    }

    /// A call that starts the guest.
    pub(crate) fn starts(&self) -> bool {
        self.is("POST", "/status/start")
    }

    /// The call that makes a template of the VM.
    pub(crate) fn converts(&self) -> bool {
        self.is("POST", "/template")
    }

    /// A call that changes this VM: of the template that is replaced the one that renames it, and of the build's VM after that the
    /// one that gives it the image's name.
    pub(crate) fn changes(&self, vmid: u32) -> bool {
        self.is("PUT", &format!("/qemu/{vmid}/config"))
    }

    /// The call that deletes this VM.
    pub(crate) fn deletes(&self, vmid: u32) -> bool {
        self.is("DELETE", &format!("/qemu/{vmid}"))
    }

    /// Whether it asks the agent, or waits in a script that runs by it.
    pub(crate) fn asks_agent(&self) -> bool {
        match self {
            Self::Call { path, .. } => path.contains("/agent/"),
            Self::Script(_) => true,
        }
    }

    fn has_body(&self) -> bool {
        matches!(self, Self::Call { method, .. } if matches!(method.as_str(), "POST" | "PUT"))
    }

    fn starts_a_task(&self) -> bool {
        let volume =
            matches!(self, Self::Call { method, path, .. } if method == "DELETE" && path.contains("/content/"));
        let power = matches!(self, Self::Call { method, path, .. } if method == "POST" && path.contains("/status/"));
        let vm = matches!(self, Self::Call { method, path, .. } if method == "DELETE" && path.contains("/qemu/"));
        let makes = self.creates() || self.converts() || self.is("POST", "/clone") || self.is("POST", "/upload");
        makes || power || volume || vm
    }
}

/// A path with a `*` for each part that is another one in the next build: task ids and volumes with the build's id.
fn pattern(path: &str) -> String {
    let parts = path.split('/').map(|part| {
        if part.starts_with("UPID:") || part.contains("k3simage-build-") {
            "*"
        } else {
            part
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// What goes wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection ends before the call is done.
    Refused,
    /// The call is done, its answer is lost.
    AnswerLost,
    /// The connection ends in the middle of the answer.
    AnswerCut,
    /// The connection ends in the middle of the request.
    RequestCut,
    /// An answer that is an error.
    Status(u16),
    /// A token that counts no more.
    ExpiredToken,
    /// A ticket that counts no more, of a build that logged in with a password.
    ExpiredTicket,
    /// The task fails, ends with a warning, never ends.
    TaskFails,
    TaskWarns,
    TaskHangs,
    /// The VM is deleted by someone else.
    VmVanishes,
    /// A backup holds the VM's lock for a while.
    VmLocked,
    /// The guest is reset.
    GuestResets,
    /// The guest's agent falls silent.
    AgentSilent,
    /// SSH connections break.
    SshCut,
    /// The template that is to be replaced is deleted by someone else.
    OldVanishes,
    /// A backup holds its lock for a while.
    OldLocked,
    /// The builder is killed before the call is done; then the build is resumed, or collected.
    KilledThenResumed,
    KilledThenCollected,
    /// The builder is killed when the call is done and not answered; then the build is resumed.
    KilledUnanswered,
}

/// All of them, with the names that cases and the report use.
pub(crate) const TROUBLES: [(&str, Trouble); 23] = [
    ("refused", Trouble::Refused),
    ("answer-lost", Trouble::AnswerLost),
    ("answer-cut", Trouble::AnswerCut),
    ("request-cut", Trouble::RequestCut),
    ("status-500", Trouble::Status(500)),
    ("status-595", Trouble::Status(595)),
    ("status-596", Trouble::Status(596)),
    ("status-599", Trouble::Status(599)),
    ("token-expired", Trouble::ExpiredToken),
    ("ticket-expired", Trouble::ExpiredTicket),
    ("task-fails", Trouble::TaskFails),
    ("task-warns", Trouble::TaskWarns),
    ("task-hangs", Trouble::TaskHangs),
    ("vm-vanishes", Trouble::VmVanishes),
    ("vm-locked", Trouble::VmLocked),
    ("guest-resets", Trouble::GuestResets),
    ("agent-silent", Trouble::AgentSilent),
    ("ssh-cut", Trouble::SshCut),
    ("old-vanishes", Trouble::OldVanishes),
    ("old-locked", Trouble::OldLocked),
    ("killed-then-resumed", Trouble::KilledThenResumed),
    ("killed-then-collected", Trouble::KilledThenCollected),
    ("killed-unanswered-then-resumed", Trouble::KilledUnanswered),
];

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = TROUBLES.iter().find(|(_, trouble)| trouble == self);
        f.write_str(named.map_or("unknown", |(name, _)| name))
    }
}

impl FromStr for Trouble {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = TROUBLES.iter().find(|(name, _)| *name == text);
        named
            .map(|(_, trouble)| *trouble)
            .ok_or_else(|| format!("`{text}` is no fault"))
    }
}

/// How far a build is at a point.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stage {
    pub(crate) vm_is_there: bool,
    pub(crate) guest_ran: bool,
    /// The guest has ended: what becomes of it no more matters to the build.
    pub(crate) is_template: bool,
    /// The template that is replaced has lost its name.
    pub(crate) old_is_renamed: bool,
    /// It is not where it was any more.
    pub(crate) old_is_gone: bool,
    /// The image is complete, and whoever removes it removes an image.
    pub(crate) is_complete: bool,
}

impl Trouble {
    /// Whether it can happen at that point at all.
    pub(crate) fn fits(self, point: &Point, stage: Stage) -> bool {
        let in_script = matches!(point, Point::Script(_));
        match self {
            Self::KilledThenResumed | Self::KilledThenCollected => true,
            Self::OldVanishes | Self::OldLocked => !stage.old_is_gone && !in_script,
            Self::VmVanishes => (stage.vm_is_there && !stage.is_complete) || in_script,
            Self::VmLocked => stage.vm_is_there || in_script,
            Self::GuestResets | Self::AgentSilent | Self::SshCut => {
                (stage.guest_ran && !stage.is_template) || in_script
            }
            Self::RequestCut => point.has_body(),
            Self::TaskFails | Self::TaskWarns | Self::TaskHangs => point.starts_a_task(),
            _ => !in_script,
        }
    }

    /// Whether the builder is killed.
    pub(crate) fn kills(self) -> bool {
        matches!(
            self,
            Self::KilledThenResumed | Self::KilledThenCollected | Self::KilledUnanswered
        )
    }

    /// Whether it is the template that is replaced to which something happens.
    pub(crate) fn is_of_old(self) -> bool {
        matches!(self, Self::OldVanishes | Self::OldLocked)
    }

    /// What the emulator does at a call; with a gate, what the test does there itself.
    pub(crate) fn action(self) -> (FaultAction, Option<Gate>) {
        let gate = Gate::default();
        match self {
            Self::Refused => (FaultAction::Refuse, None),
            Self::AnswerLost => (FaultAction::LoseAnswer, None),
            Self::AnswerCut => (FaultAction::CutAnswer, None),
            Self::RequestCut => (FaultAction::CutRequest(20), None),
            Self::Status(status) => (FaultAction::Status(status, format!("{ON_PURPOSE} {status}")), None),
            Self::ExpiredToken | Self::ExpiredTicket => (FaultAction::Expired, None),
            Self::TaskFails => (FaultAction::Task(TaskFault::Fails(ON_PURPOSE.to_owned())), None),
            Self::TaskWarns => (FaultAction::Task(TaskFault::Warns(ON_PURPOSE.to_owned())), None),
            Self::TaskHangs => (FaultAction::Task(TaskFault::Hangs), None),
            Self::KilledUnanswered => (FaultAction::HoldAnswer(gate.clone()), Some(gate)),
            Self::VmVanishes
            | Self::VmLocked
            | Self::GuestResets
            | Self::AgentSilent
            | Self::SshCut
            | Self::OldVanishes
            | Self::OldLocked
            | Self::KilledThenResumed
            | Self::KilledThenCollected => (FaultAction::Hold(gate.clone()), Some(gate)),
        }
    }

    /// Of a build that failed by it, the message holds one of these.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            Self::Refused | Self::AnswerLost | Self::AnswerCut | Self::RequestCut => &["connection", "answer"],
            Self::Status(500) => &["fault on purpose 500"],
            Self::Status(595) => &["fault on purpose 595"],
            Self::Status(596) => &["fault on purpose 596"],
            Self::Status(_) => &["fault on purpose 599"],
            Self::ExpiredToken | Self::ExpiredTicket => &["Authentication failed!", "authentication"],
            Self::TaskFails | Self::TaskWarns => &[ON_PURPOSE],
            Self::TaskHangs => &["did not end within", "still runs"],
            Self::VmVanishes => &[
                "does not exist",
                "unable to find configuration file",
                "no such",
                "stopped",
                "powered off",
                "connection",
            ],
            Self::VmLocked | Self::OldLocked => &["locked"],
            Self::GuestResets => &[
                "reset",
                "connection",
                "stopped",
                "restarted",
                "lost",
                "got timeout",
                "agent is not running",
                // PVE's word for an agent that breaks off (FACTS 48).
                "Broken pipe",
            ],
            Self::AgentSilent => &["agent"],
            Self::SshCut => &["connection", "ssh", "lost"],
            // A build goes on without it.
            Self::OldVanishes | Self::KilledThenResumed | Self::KilledThenCollected | Self::KilledUnanswered => &[],
        }
    }
}

/// What goes wrong in one run. Its text reads back: `refused@GET /version#1 + ssh-cut@script seal.sh`, with the kind of build in
/// front of it where that is not by SSH: `agent: refused@...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) troubles: Vec<(Point, Trouble)>,
    /// Seconds of the builder's lease. Within a short one it shows by calls beside the build that it lives.
    pub(crate) lease: u32,
}

/// No run takes so long that a third of it would pass.
pub(crate) const LONG_LEASE: u32 = 3600;
const SHORT_LEASE: u32 = 1;
/// What the text of a case with a short lease begins with.
const SHORT: &str = "short lease: ";

impl Case {
    pub(crate) fn of(kind: Kind, point: Point, trouble: Trouble) -> Self {
        Self {
            kind,
            troubles: vec![(point, trouble)],
            lease: LONG_LEASE,
        }
    }

    pub(crate) fn several(kind: Kind, troubles: Vec<(Point, Trouble)>) -> Self {
        Self {
            kind,
            troubles,
            lease: SHORT_LEASE,
        }
    }

    pub(crate) fn any(&self, holds: impl Fn(Trouble) -> bool) -> bool {
        self.troubles.iter().any(|(_, trouble)| holds(*trouble))
    }

    /// Whether limits have to pass until it ends. A build by the agent waits two minutes for one that is silent.
    pub(crate) fn is_slow(&self) -> bool {
        self.any(|trouble| {
            trouble == Trouble::TaskHangs || (trouble == Trouble::AgentSilent && self.kind == Kind::Agent)
        })
    }

    /// The faults at calls, for the emulator, with the gates at which the test acts.
    pub(crate) fn faults(&self) -> (Vec<Fault>, Vec<(Gate, Trouble)>) {
        let (mut faults, mut gates) = (Vec::new(), Vec::new());
        for (point, trouble) in &self.troubles {
            let Point::Call { method, path, nth } = point else {
                continue;
            };
            let (action, gate) = trouble.action();
            let when = FaultMatch::PathAfter {
                method: method.clone(),
                path: path.clone(),
                skip: *nth,
            };
            faults.push(Fault { when, action, times: 1 });
            gates.extend(gate.map(|gate| (gate, *trouble)));
        }
        (faults, gates)
    }

    /// The scripts in whose middle something happens.
    pub(crate) fn scripts(&self) -> Vec<(String, Gate, Trouble)> {
        let of = |(point, trouble): &(Point, Trouble)| match point {
            Point::Script(name) => Some((name.clone(), Gate::default(), *trouble)),
            Point::Call { .. } => None,
        };
        self.troubles.iter().filter_map(of).collect()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != Kind::Ssh {
            write!(f, "{}: ", self.kind)?;
        }
        if self.lease == SHORT_LEASE {
            f.write_str(SHORT)?;
        }
        for (index, (point, trouble)) in self.troubles.iter().enumerate() {
            write!(f, "{}{trouble}@{point}", if index > 0 { " + " } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = KINDS
            .iter()
            .find_map(|(name, kind)| Some((*kind, text.strip_prefix(name)?.strip_prefix(": ")?)));
        let (kind, rest) = named.unwrap_or((Kind::Ssh, text));
        let (lease, rest) = match rest.strip_prefix(SHORT) {
            Some(rest) => (SHORT_LEASE, rest),
            None => (LONG_LEASE, rest),
        };
        let one = |part: &str| {
            let (trouble, point) = part
                .split_once('@')
                .ok_or_else(|| format!("`{part}` is not FAULT@PLACE"))?;
            Ok::<_, String>((point.parse()?, trouble.parse()?))
        };
        let troubles = rest.split(" + ").map(one).collect::<Result<_, _>>()?;
        Ok(Self { kind, troubles, lease })
    }
}

#[test]
fn a_case_reads_back() {
    for text in [
        "refused@GET /version#1",
        "short lease: status-595@POST /nodes/pve/qemu#1 + ssh-cut@script seal.sh",
        "killed-then-resumed@DELETE /nodes/pve/storage/local/content/local:iso/*#1",
        "agent: status-500@POST /nodes/pve/qemu/9000/agent/exec#3",
        "replace: short lease: old-locked@PUT /nodes/pve/qemu/100/config#1",
    ] {
        let case: Case = text.parse().unwrap();
        assert_eq!(case.to_string(), text);
    }
    for text in [
        "refused",
        "refused@GET /version",
        "refused@GET /version#0",
        "sneezes@GET /version#1",
    ] {
        assert!(text.parse::<Case>().is_err(), "{text}");
    }
}
