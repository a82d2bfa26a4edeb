//! The builds that are hit: which way into the guest they take, and what they find on the cluster.

use std::fmt;

use crate::lane::ROOT_PASSWORD;
use crate::trouble::{Point, Stage, Trouble};

/// The vmid that the folder asks for.
const ASKED: u32 = 9000;
/// The first free one, and the next.
const FREE: [u32; 2] = [100, 101];

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
    /// In place of one that has the vmid asked for, which is kept under another.
    Exchange,
}

/// All of them, with the names that cases and the report use.
pub(crate) const KINDS: [(&str, Kind); 5] = [
    ("ssh", Kind::Ssh),
    ("ticket", Kind::Ticket),
    ("agent", Kind::Agent),
    ("replace", Kind::Replace),
    ("exchange", Kind::Exchange),
];

impl Kind {
    pub(crate) fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// The vmid of the VM that it makes.
    pub(crate) fn vmid(self) -> u32 {
        match self {
            Self::Ssh | Self::Ticket | Self::Agent => ASKED,
            Self::Replace => FREE[1],
            Self::Exchange => FREE[0],
        }
    }

    /// The vmid of the template that it replaces.
    pub(crate) fn old(self) -> Option<u32> {
        match self {
            Self::Ssh | Self::Ticket | Self::Agent => None,
            Self::Replace => Some(FREE[0]),
            Self::Exchange => Some(ASKED),
        }
    }

    /// The vmids at which the image can be at the end, the one that was asked for last.
    pub(crate) fn image_at(self) -> Vec<u32> {
        let moved = self.old().filter(|_| self == Self::Exchange);
        [self.vmid()].into_iter().chain(moved).collect()
    }

    /// What its command says besides.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Self::Ssh | Self::Ticket | Self::Exchange => &[],
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
            Self::Exchange => &["--replace=retire", "--no-verify"],
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
            Self::Exchange => !of_ticket && stage.is_complete && !matches!(point, Point::Script(_)),
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
