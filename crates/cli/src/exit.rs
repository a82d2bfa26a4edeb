//! Exit codes: what a script can tell apart. `docs/reference/exit-codes.md` is the long form of this table.

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// Something went wrong while it was being done; what it had created is removed again, but for a complete image.
    Failed,
    /// The input is wrong: options, variables, template folder, or what the cluster has. Nothing was created.
    BadInput,
    /// The cluster could not be reached. Nothing was created; the same command may work later.
    Unreachable,
    /// Ended by SIGHUP: its terminal was closed.
    HungUp,
    /// Ended by SIGINT (Ctrl-C).
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            Self::Unreachable => 3,
            // 128 + the signal's number, as shells report it.
            Self::HungUp => 129,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// The table as `k3simage help` prints it.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    failed on the way; what was created is removed again, but for a complete image
  2    bad input: options, variables, template folder, or what the cluster has; nothing was created
  3    the cluster could not be reached; nothing was created, the same command may work later
  129  ended by SIGHUP, a closed terminal; a build is undone first, but for a complete image
  130  ended by SIGINT (Ctrl-C); the same, and a second signal stops waiting for that
  143  ended by SIGTERM; the same";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Exit; 7] = [
        Exit::Ok,
        Exit::Failed,
        Exit::BadInput,
        Exit::Unreachable,
        Exit::HungUp,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    #[test]
    fn help_and_reference_list_every_code_once() {
        let reference = include_str!("../../../docs/reference/exit-codes.md");
        for exit in ALL {
            let code = exit.code().to_string();
            let lines = |text: &str, lead: &str| text.lines().filter(|line| line.starts_with(lead)).count();
            assert_eq!(lines(HELP, &format!("  {code:<5}")), 1, "help, {code}");
            assert_eq!(lines(reference, &format!("| {code} |")), 1, "reference, {code}");
        }
        assert_eq!(HELP.lines().count(), ALL.len() + 1);
    }
}
