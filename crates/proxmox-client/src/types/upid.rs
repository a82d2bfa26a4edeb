//! `Upid`: the name of a task.

use super::{name::NodeName, name::text_newtype};
use crate::error::Error;

text_newtype!(
    /// The name that PVE gives to a task: `UPID:node:pid:pstart:starttime:type:id:user:`.
    ///
    /// The text is kept as it came; the parts are read out of it. `pid`, `pstart` and `starttime` are hexadecimal, `id` may
    /// be empty, the user may carry `!token` (`FACTS` 50).
    ///
    /// ```
    /// use proxmox_client::Upid;
    /// let upid: Upid = "UPID:pve:0000778E:000B3A73:6B046495:qmcreate:9000:root@pam!build:".parse()?;
    /// assert_eq!((upid.node().as_str(), upid.kind(), upid.id()), ("pve", "qmcreate", "9000"));
    /// # Ok::<(), proxmox_client::Error>(())
    /// ```
    Upid, "upid", check
);

/// The parts of a UPID, borrowed from its text.
struct Parts<'a> {
    node: &'a str,
    start: u64,
    kind: &'a str,
    id: &'a str,
    user: &'a str,
}

/// Longer texts are no UPID: node 63, numbers 35, type and id some 80 each, user 64 with token.
const MAX_LENGTH: usize = 512;

fn parts(text: &str) -> Result<Parts<'_>, &'static str> {
    if text.len() > MAX_LENGTH {
        return Err("is not a UPID: it is too long");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['/', '?', '#', '%', '\\']) {
        return Err("is not a UPID: it holds characters that PVE never puts there");
    }
    let mut fields = text.split(':');
    let mut next = || {
        fields
            .next()
            .ok_or("is not a UPID: it must have the form UPID:node:pid:pstart:starttime:type:id:user:")
    };
    if next()? != "UPID" {
        return Err("is not a UPID: it must begin with `UPID:`");
    }
    let node = next()?;
    // pstart grows beyond eight digits on a machine that has been up for over 497 days; pid and time do not.
    let pid = hex(next()?, 8..=8)?;
    let pstart = hex(next()?, 8..=16)?;
    let start = hex(next()?, 8..=8)?;
    let _ = (pid, pstart);
    let (kind, id, user) = (next()?, next()?, next()?);
    if !next()?.is_empty() || fields.next().is_some() {
        return Err("is not a UPID: it must end with the colon after the user");
    }
    if kind.is_empty() || !user.contains('@') {
        return Err("is not a UPID: type or user is missing");
    }
    Ok(Parts {
        node,
        start,
        kind,
        id,
        user,
    })
}

fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Result<u64, &'static str> {
    if !digits.contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("is not a UPID: process id, process start and time are hexadecimal");
    }
    u64::from_str_radix(text, 16).map_err(|_| "is not a UPID: a number is out of range")
}

fn check(text: &str) -> Result<(), &'static str> {
    let parts = parts(text)?;
    NodeName::new(parts.node)
        .map(|_| ())
        .map_err(|_| "is not a UPID: the node's name is not one")
}

impl Upid {
    fn parts(&self) -> Parts<'_> {
        // The constructor has run the same function on the same text.
        parts(self.as_str()).unwrap_or(Parts {
            node: "",
            start: 0,
            kind: "",
            id: "",
            user: "",
        })
    }

    /// The node that the task runs on; its status and log are asked there.
    ///
    /// # Panics
    /// Never: a UPID is only made from a text whose node name was checked.
    pub fn node(&self) -> NodeName {
        NodeName::new(self.parts().node).expect("the node's name was checked when the UPID was parsed")
    }

    /// The kind of task, for example `qmcreate` or `imgcopy`.
    pub fn kind(&self) -> &str {
        self.parts().kind
    }

    /// What the task works on: a vmid, a storage, `vmid@storage`, or nothing.
    pub fn id(&self) -> &str {
        self.parts().id
    }

    /// Who started it: `user@realm` or `user@realm!token`.
    pub fn user(&self) -> &str {
        self.parts().user
    }

    /// When it was started, in seconds since the epoch.
    pub fn start_epoch_seconds(&self) -> u64 {
        self.parts().start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_read() {
        let upid = Upid::new("UPID:pve:000011FE:0002FDFB:6B044F80:imgdel:110@local:root@pam!build:").expect("recorded");
        assert_eq!(upid.node().as_str(), "pve");
        assert_eq!(upid.kind(), "imgdel");
        assert_eq!(upid.id(), "110@local");
        assert_eq!(upid.user(), "root@pam!build");
        assert_eq!(upid.start_epoch_seconds(), 0x6B04_4F80);
        let empty_id = Upid::new("UPID:pve:0000778E:000B3A73:6B046495:imgcopy::root@pam!build:").expect("recorded");
        assert_eq!(empty_id.id(), "");
    }

    #[test]
    fn bad_numbers_and_forms_are_errors() {
        let good = "UPID:pve:0000778E:000B3A73:6B046495:qmcreate:100:root@pam:";
        assert!(Upid::new(good).is_ok());
        assert!(
            Upid::new(good.replace("000B3A73", "000B3A730")).is_ok(),
            "nine digits of pstart are real"
        );
        for bad in [
            "",
            "UPID",
            "UPID:",
            ":::::::::",
            "upid:pve:0000778E:000B3A73:6B046495:qmcreate:100:root@pam:",
            "UPID:pve:0000778E:000B3A73:6B046495:qmcreate:100:root@pam",
            "UPID:pve:0000778E:000B3A73:6B046495:qmcreate:100:root@pam:extra",
            "UPID:pve:0000778G:000B3A73:6B046495:qmcreate:100:root@pam:",
            "UPID:pve:FFFFFFFFF:000B3A73:6B046495:qmcreate:100:root@pam:",
            "UPID:pve:0000778E:FFFFFFFFFFFFFFFFF:6B046495:qmcreate:100:root@pam:",
            "UPID:pve:0000778E:000B3A73:6B046495::100:root@pam:",
            "UPID:pve:0000778E:000B3A73:6B046495:qmcreate:100:root:",
            "UPID:../..:0000778E:000B3A73:6B046495:qmcreate:100:root@pam:",
            "UPID:pve:0000778E:000B3A73:6B046495:qm/create:100:root@pam:",
            "UPID:pve:0000778E:000B3A73:6B046495:qmcreate:100:root@pam:\n",
        ] {
            assert!(Upid::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_upid_or_an_error(text in "\\PC{0,80}") {
            if let Ok(upid) = Upid::new(text.clone()) {
                prop_assert_eq!(upid.to_string(), text);
            }
        }

        #[test]
        fn made_upids_round_trip(node in "[a-z][a-z0-9]{0,8}", pid: u32, pstart in any::<u32>(), time: u32, kind in "[a-z]{1,9}", id in "[0-9]{0,5}") {
            let text = format!("UPID:{node}:{pid:08X}:{pstart:08X}:{time:08X}:{kind}:{id}:root@pam!t:");
            let upid = Upid::new(text.clone()).expect("well formed");
            prop_assert_eq!(upid.node().to_string(), node);
            prop_assert_eq!(upid.kind(), kind);
            prop_assert_eq!(upid.id(), id);
            prop_assert_eq!(upid.start_epoch_seconds(), u64::from(time));
            prop_assert_eq!(upid.to_string(), text);
        }
    }
}
