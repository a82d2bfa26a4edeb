//! How the build talks to the guest.

use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

words! {
    /// The way to the guest.
    CommunicatorKind, "a communicator" {
        /// SSH, or the agent when the VM has no network device and no `ssh_host` is set; the build says which and why.
        Auto => "auto",
        /// SSH.
        Ssh => "ssh",
        /// The QEMU guest agent: nothing but PVE's API is needed.
        Agent => "agent",
    }
}

/// How the build talks to the guest.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CommunicatorSpec {
    /// The way.
    pub kind: CommunicatorKind,
    /// What SSH needs.
    pub ssh: SshSpec,
}

impl Default for CommunicatorSpec {
    fn default() -> Self {
        Self {
            kind: CommunicatorKind::Auto,
            ssh: SshSpec::default(),
        }
    }
}

/// What SSH needs beside the key that is made for each build.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SshSpec {
    /// The user.
    pub username: String,
    /// A password, for a kickstart that sets one; `None` uses the build's own key.
    #[serde(skip)]
    pub password: Option<SecretString>,
    /// Address or name of the guest; `None` asks the guest agent.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// From the first boot of the installed system until SSH answers.
    pub timeout: Duration,
}

impl Default for SshSpec {
    fn default() -> Self {
        Self {
            username: "root".to_owned(),
            password: None,
            host: None,
            port: 22,
            timeout: Duration::from_secs(30 * 60),
        }
    }
}
