//! What a simulated guest did and was given, for tests to read back; outlives the guest's process.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a guest is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuestState {
    /// No process.
    #[default]
    Stopped,
    /// The firmware looks for something to boot.
    Firmware,
    /// The firmware found nothing; it stays so.
    NoBootDevice,
    /// The medium's menu is on the screen.
    Menu,
    /// The installer starts, checks its medium, and finds its kickstart.
    InstallerBoot,
    /// The installer works.
    Installing,
    /// The installer asks a question and waits for ever.
    InstallerWaits,
    /// The installer, or dracut before it, stopped with an error.
    InstallerFailed,
    /// The installer is done and waits for somebody to press Enter (no `reboot` in the kickstart).
    InstallerDone,
    /// A rescue shell of the medium.
    Rescue,
    /// The installed system boots.
    Booting,
    /// The installed system is up.
    Running,
    /// The installed system goes down.
    ShuttingDown,
    /// Halted, process alive.
    Halted,
    /// The kernel panicked.
    Panicked,
}

/// One script that ran in a guest. Its `Debug` names the variables and keeps their values to itself: tokens are among
/// them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRun {
    /// Path as it was called.
    pub name: String,
    /// Arguments after the path.
    #[serde(default)]
    pub args: Vec<String>,
    /// The script's text; empty when its bytes were too many to keep.
    pub content: String,
    /// Every variable in its environment.
    pub env: BTreeMap<String, String>,
    /// User it ran as.
    pub user: String,
    /// Its exit code; `None` while it runs, and for ever when the guest went down under it.
    pub exit_code: Option<i32>,
}

/// The installed system in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledSummary {
    /// Name and release, `AlmaLinux 9.3`.
    pub os: String,
    /// Host name.
    pub hostname: String,
    /// Content of `/etc/machine-id`, trimmed; empty on a sealed image.
    pub machine_id: String,
    /// Public host key of sshd in OpenSSH's one-line form; `None` if there is no key file.
    pub ssh_host_key: Option<String>,
    /// Installed packages beyond the base system, groups as `@name`.
    pub packages: Vec<String>,
    /// Enabled units.
    pub enabled_units: Vec<String>,
    /// Users that can log in.
    pub users: Vec<String>,
}

/// Everything known of one guest. Its `Debug` leaves the kickstart's text out: it may hold passwords and keys.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// The VM's id.
    pub vmid: u32,
    /// Where it is now.
    pub state: GuestState,
    /// How often the firmware began, over all starts and reboots of this guest.
    pub boots: u32,
    /// Keys typed since the last start, in QEMU's spelling.
    pub typed_keys: Vec<String>,
    /// Kernel line of the last boot from a medium.
    pub kernel_line: Option<String>,
    /// Where the kickstart came from: a URL, or `OEMDRV:/ks.cfg`.
    pub kickstart_source: Option<String>,
    /// The kickstart's text.
    pub kickstart_text: Option<String>,
    /// What is on the disk, as of the last look.
    pub installed: Option<InstalledSummary>,
    /// Scripts that ran, in order, over the guest's life.
    pub script_runs: Vec<ScriptRun>,
    /// Console text; that of the last run after a stop.
    pub console: String,
    /// Address of the running guest.
    pub address: Option<String>,
}

impl fmt::Debug for ScriptRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptRun")
            .field("name", &self.name)
            .field("args", &self.args)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("user", &self.user)
            .field("exit_code", &self.exit_code)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for GuestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestRecord")
            .field("vmid", &self.vmid)
            .field("state", &self.state)
            .field("boots", &self.boots)
            .field("kernel_line", &self.kernel_line)
            .field("kickstart_source", &self.kickstart_source)
            .field("installed", &self.installed)
            .field("script_runs", &self.script_runs)
            .field("console", &self.console)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_keeps_secrets() {
        let run = ScriptRun {
            name: "a.sh".into(),
            args: Vec::new(),
            content: "export KEY=canary".into(),
            env: [("TOKEN".to_owned(), "canary".to_owned())].into(),
            user: "root".into(),
            exit_code: Some(0),
        };
        let record = GuestRecord {
            kickstart_text: Some("rootpw canary".into()),
            script_runs: vec![run],
            ..GuestRecord::default()
        };
        let shown = format!("{record:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("canary"), "{shown}");
    }
}
