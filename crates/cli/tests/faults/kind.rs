//! The builds that are hit: which way into the guest they take, and what they find on the cluster.

use std::fmt;

use crate::lane::ROOT_PASSWORD;
use crate::trouble::{Point, Stage, Trouble};

/// The vmid that the folder asks for.
const ASKED: u32 = 9000;
/// The template that is replaced has the first free one, and the build that replaces it the next.
pub(crate) const OLD: u32 = 100;
const BESIDE: u32 = 101;

/// A kind of build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// By SSH, with a token.
    Ssh,
    /// By SSH, with the ticket of a login.
    Ticket,
    /// By the guest's agent alone.
    Agent,
    /// In place of a template of the same name, which is deleted at the end.
    Replace,
}

/// All of them, with the names that cases and the report use.
pub(crate) const KINDS: [(&str, Kind); 4] = [
    ("ssh", Kind::Ssh),
    ("ticket", Kind::Ticket),
    ("agent", Kind::Agent),
    ("replace", Kind::Replace),
];

impl Kind {
    pub(crate) fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// The vmid of the template that it makes.
    pub(crate) fn vmid(self) -> u32 {
        if self == Self::Replace { BESIDE } else { ASKED }
    }

    /// What its command says besides.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Self::Ssh | Self::Ticket => &[],
            Self::Agent => &["-var", "communicator=agent"],
            Self::Replace => &["-var", "vm_id=0"],
        }
    }

    /// What its every command says besides.
    pub(crate) fn login_options(self) -> &'static [&'static str] {
        match self {
            Self::Ticket => &["-var", "proxmox_username=root@pam"],
            _ => &[],
        }
    }

    /// What a build is given and its resumption is not.
    pub(crate) fn build_options(self) -> &'static [&'static str] {
        match self {
            // Clones have faults of their own kind; here it is the swap that is hit.
            Self::Replace => &["--replace=delete", "--no-verify"],
            _ => &[],
        }
    }

    /// Whether a fault is tried at that point in builds of this kind. What is as in another kind is tried there.
    pub(crate) fn tries(self, trouble: Trouble, point: &Point, stage: Stage) -> bool {
        let of_ticket = trouble == Trouble::ExpiredTicket;
        match self {
            Self::Ssh => !of_ticket && !trouble.is_of_old(),
            Self::Ticket => of_ticket,
            Self::Agent => !of_ticket && !trouble.is_of_old() && point.asks_agent(),
            Self::Replace => !of_ticket && stage.is_template && !matches!(point, Point::Script(_)),
        }
    }

    /// Logs its command in.
    pub(crate) fn log_in(self, command: &mut std::process::Command) {
        if self == Self::Ticket {
            command
                .env("PKR_VAR_proxmox_password", ROOT_PASSWORD)
                .env_remove("PKR_VAR_proxmox_token");
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = KINDS.iter().find(|(_, kind)| kind == self);
        f.write_str(named.map_or("unknown", |(name, _)| name))
    }
}
