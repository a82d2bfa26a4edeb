//! Unique process ids of tasks: `UPID:pve:0000556E:000A4834:6B046229:qmcreate:100:root@pam!build:`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The parts of a UPID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upid {
    pub(crate) node: String,
    pub(crate) pid: u32,
    pub(crate) pstart: u64,
    /// Epoch seconds.
    pub(crate) starttime: u64,
    pub(crate) kind: String,
    pub(crate) id: String,
    /// User or full token id.
    pub(crate) user: String,
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            pid,
            pstart,
            starttime,
            kind,
            id,
            user,
        } = self;
        write!(
            f,
            "UPID:{node}:{pid:08X}:{pstart:08X}:{starttime:08X}:{kind}:{id}:{user}:"
        )
    }
}

/// # Source
/// The expression in `upid_decode` of pve-common.
impl FromStr for Upid {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(':').collect();
        let ["UPID", node, pid, pstart, starttime, kind, id, user, ""] = parts.as_slice() else {
            return Err(());
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let bad_node = node.is_empty() || !node.chars().all(plain) || node.starts_with('-') || node.ends_with('-');
        let spaced = |t: &str| t.contains(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
        if bad_node || kind.is_empty() || user.is_empty() || [kind, id, user].into_iter().any(|t| spaced(t)) {
            return Err(());
        }
        // Eight digits each; the start of a process takes nine on a machine that has been up for 497 days.
        let number = |t: &str, most: usize| {
            // PVE fills up to eight digits, so a ninth is no zero; with one, two texts would name the same task.
            let filled = t.len() == 8 || !t.starts_with('0');
            let fits = filled && (8..=most).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_hexdigit());
            u64::from_str_radix(t, 16).ok().filter(|_| fits).ok_or(())
        };
        Ok(Self {
            node: (*node).to_owned(),
            pid: u32::try_from(number(pid, 8)?).map_err(|_| ())?,
            pstart: number(pstart, 9)?,
            starttime: number(starttime, 8)?,
            kind: (*kind).to_owned(),
            id: (*id).to_owned(),
            user: (*user).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_upids_survive() {
        for text in [
            "UPID:pve:0000556E:000A4834:6B046229:qmcreate:100:root@pam!build:",
            "UPID:pve:0000778E:000B3A73:6B046495:imgcopy::root@pam!build:",
        ] {
            assert_eq!(text.parse::<Upid>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "UPID:pve",
            "UPID:pve:x:0:0:a:b:c:",
            "UPID:pve:0:0:0:a:b:c",
            "UPID:pve:0:0:0:a:b:c:d:",
            "UPID:pve:+0000556E:000A4834:6B046229:qmcreate:100:root@pam:",
            "UPID:pve:0000783F:0002B40CA:6B0464A5:imgdel:local:root@pam!build:",
            "UPID:pve:556E:A4834:6B046229:qmcreate:100:root@pam:",
            "UPID:../x:0000556E:000A4834:6B046229:qmcreate:100:root@pam:",
            "UPID:pve:0000556E:000A4834:6B046229:qm create:100:root@pam:",
            "UPID:pve:0000556E:000A4834:6B046229:qmcreate:100::",
        ] {
            assert!(bad.parse::<Upid>().is_err(), "{bad}");
        }
    }
}
