//! What a test or a demo may choose about simulated guests: pace, durations, port, and what goes wrong.

use std::time::Duration;

use crate::faults::Gate;

/// How guest time passes on the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TimeScale {
    /// Nothing takes time. A menu boots its default entry at once when an `OEMDRV` volume is attached; without one it
    /// waits for keys up to [`SimulatedOptions::instant_menu_wait`], because only typed keys can lead anywhere then.
    Instant,
    /// So many guest seconds pass in one host second. Values that are not positive and finite count as 1.
    Scaled(f64),
    /// As on a real host.
    Real,
}

/// How long the stages of a guest's life take, in guest time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    /// From power-on until the firmware hands over to a boot device.
    pub firmware: Duration,
    /// Countdown of the medium's menu. AlmaLinux 9: 60 s on both firmwares.
    pub menu_timeout: Duration,
    /// The check of the medium that `rd.live.check` asks for.
    pub media_check: Duration,
    /// From the kernel line to Anaconda reading its kickstart.
    pub installer_boot: Duration,
    /// Partitioning, packages, `%post`.
    pub install: Duration,
    /// From the boot loader to a login prompt.
    pub boot: Duration,
    /// From the login prompt until sshd listens.
    pub sshd: Duration,
    /// From the login prompt until the guest agent answers.
    pub agent: Duration,
    /// From the decision to power off or reboot until it happens.
    pub shutdown: Duration,
    /// The run of one script.
    pub script: Duration,
    /// From the start of k3s until its unit is active.
    pub k3s: Duration,
    /// How long dracut tries to fetch a kickstart before it gives up.
    pub fetch_timeout: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            firmware: s(5),
            menu_timeout: s(60),
            media_check: s(60),
            installer_boot: s(30),
            install: s(300),
            boot: s(25),
            sshd: s(3),
            agent: s(6),
            shutdown: s(5),
            script: s(20),
            k3s: s(15),
            fetch_timeout: s(180),
        }
    }
}

/// Something that shall go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The guest it strikes; `None` strikes any.
    pub vmid: Option<u32>,
    /// How many times it strikes; `None` is always.
    pub times: Option<u32>,
    /// What happens.
    pub kind: FaultKind,
}

impl Fault {
    /// A fault that strikes every guest, always.
    #[must_use]
    pub fn always(kind: FaultKind) -> Self {
        Self {
            vmid: None,
            times: None,
            kind,
        }
    }

    /// A fault that strikes the first guest that meets it, once.
    #[must_use]
    pub fn once(kind: FaultKind) -> Self {
        Self {
            vmid: None,
            times: Some(1),
            kind,
        }
    }

    /// The same fault for one guest only.
    #[must_use]
    pub fn on(mut self, vmid: u32) -> Self {
        self.vmid = Some(vmid);
        self
    }
}

/// What can go wrong. Scripts are named by the end of their path: `k3s-install.sh` matches `/tmp/script-k3s-install.sh`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The script ends with this exit code, after it has printed its lines.
    ScriptExits {
        /// End of the script's path.
        script: String,
        /// Exit code, 0 to 255.
        code: u8,
    },
    /// The script never ends.
    ScriptHangs {
        /// End of the script's path.
        script: String,
    },
    /// The script stands still in its middle until the test lets it go on.
    ScriptWaits {
        /// End of the script's path.
        script: String,
        /// Tells when it stands, and lets it go.
        gate: Gate,
    },
    /// The guest reboots in the middle of the script.
    ScriptReboots {
        /// End of the script's path.
        script: String,
    },
    /// The installer stops with this message half-way.
    InstallFails {
        /// What the console shows.
        message: String,
    },
    /// The installed system's agent never starts.
    AgentNever,
    /// The installed system's sshd never starts.
    SshdNever,
    /// The kernel panics while it boots, of the installer or of the installed system.
    KernelPanic,
    /// The installed system ignores the ACPI power button.
    IgnoresAcpi,
    /// The installed system powers itself off so long after its login prompt.
    PowersOff {
        /// Guest time after the login prompt.
        after: Duration,
    },
    /// The installed system reboots so long after its login prompt.
    Reboots {
        /// Guest time after the login prompt.
        after: Duration,
    },
}

/// Options of the engine `simulated`.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedOptions {
    /// Pace of guest time.
    pub time: TimeScale,
    /// Port of every guest's sshd, on its own loopback address. 0 chooses a free one at start.
    pub ssh_port: u16,
    /// Durations in guest time.
    pub durations: Durations,
    /// What shall go wrong.
    pub faults: Vec<Fault>,
    /// Largest file whose bytes a guest keeps; of a larger one it keeps size and SHA-256.
    pub keep_file_bytes: u64,
    /// With [`TimeScale::Instant`] and no `OEMDRV` volume: how long, in host time, a menu waits for the first key.
    pub instant_menu_wait: Duration,
}

impl Default for SimulatedOptions {
    fn default() -> Self {
        Self {
            time: TimeScale::Instant,
            ssh_port: 0,
            durations: Durations::default(),
            faults: Vec::new(),
            keep_file_bytes: 64 << 20,
            instant_menu_wait: Duration::from_secs(10),
        }
    }
}
