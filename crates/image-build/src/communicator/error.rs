//! Why talking to the guest failed, separated by what a waiting caller can conclude.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use proxmox_client::ErrorKind;
use thiserror::Error;

/// An error of a [`Communicator`](super::Communicator); the crate's error wraps it with the step it happened in.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommunicatorError {
    /// Nothing listens on the port: sshd is not up yet, disabled, or on another port.
    #[error("connection to {address} refused: no sshd listens there (not started yet, disabled, or on another port)")]
    Refused {
        /// Host and port tried.
        address: String,
    },
    /// No answer from the address at all.
    #[error(
        "no answer from {address} within {after:?}: a firewall, a wrong address, or a network this machine cannot reach"
    )]
    NoAnswer {
        /// Host and port tried.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The network refused to carry the attempt.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Host and port tried.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Connected, but no SSH session came of it.
    #[error("{address} answered, but the ssh handshake failed")]
    Handshake {
        /// Host and port tried.
        address: String,
        /// What the SSH library said.
        source: Box<russh::Error>,
    },
    /// The host key is not the one that the kickstart installed for this build.
    #[error(
        "{address} shows host key {presented}, not {expected} that this build installed: another machine answers at this \
         address, or the kickstart's %post did not run"
    )]
    HostKey {
        /// Host and port tried.
        address: String,
        /// Fingerprint that was installed.
        expected: String,
        /// Fingerprint that was shown.
        presented: String,
    },
    /// The server refuses the login.
    #[error("{address} refuses {method} login for user `{user}` (it offers: {offered}): {advice}")]
    Auth {
        /// Host and port tried.
        address: String,
        /// User name tried.
        user: String,
        /// `key` or `password`.
        method: &'static str,
        /// Methods that the server says could go on.
        offered: String,
        /// What to check.
        advice: &'static str,
    },
    /// The connection broke, or was closed, before the end of the work was known.
    #[error("connection to {address} lost while {doing}")]
    Lost {
        /// Host and port.
        address: String,
        /// What was going on.
        doing: String,
        /// What the SSH library said, if anything.
        source: Option<Box<russh::Error>>,
    },
    /// The server refused to start a command.
    #[error("{address} refused to start `{program}`")]
    ExecRefused {
        /// Host and port.
        address: String,
        /// First word of the command.
        program: String,
    },
    /// A command ran longer than its limit.
    #[error("`{program}` did not end within {after:?}")]
    CommandTimeout {
        /// First word of the command.
        program: String,
        /// The limit.
        after: Duration,
    },
    /// The guest could not write a file.
    #[error("cannot write {path} in the guest: {reason}")]
    Upload {
        /// Path in the guest.
        path: String,
        /// Status and last words of the guest.
        reason: String,
    },
    /// A file arrived differently from how it was sent.
    #[error("{path} arrived damaged: sha256 {found}, sent {expected}")]
    Checksum {
        /// Path in the guest.
        path: String,
        /// SHA-256 of what was sent.
        expected: String,
        /// SHA-256 that the guest computed.
        found: String,
    },
    /// The guest could not give a file.
    #[error("cannot read {path} in the guest: {reason}")]
    Download {
        /// Path in the guest.
        path: String,
        /// Status and last words of the guest, or the limit that was passed.
        reason: String,
    },
    /// The guest agent refused, or did not answer.
    #[error("{doing} through the guest agent of vm {vmid}")]
    Agent {
        /// The VM.
        vmid: u32,
        /// What was attempted.
        doing: String,
        /// What PVE or the agent said.
        source: Box<proxmox_client::Error>,
    },
    /// The answer to the start of a command was lost, and the guest does not tell whether it ran: what seals an image closes the
    /// agent.
    #[error(
        "the answer to the start of `{program}` through the guest agent of vm {vmid} was lost ({lost}), and the guest does \
         not tell what became of it"
    )]
    Unanswered {
        /// The VM.
        vmid: u32,
        /// First word of the command.
        program: String,
        /// How the answer was lost.
        lost: Box<proxmox_client::Error>,
        /// Why nothing more is known.
        source: Box<CommunicatorError>,
    },
    /// The agent tells a command's end once. It knows it no more, and the guest does not tell what became of it either.
    #[error(
        "the guest agent of vm {vmid} does not know `{program}` any more ({unknown}): the answer that told its end was lost, or \
         the guest or its agent was restarted; and the guest does not tell what became of it"
    )]
    Forgotten {
        /// The VM.
        vmid: u32,
        /// First word of the command.
        program: String,
        /// What the agent said.
        unknown: Box<proxmox_client::Error>,
        /// Why nothing more is known.
        source: Box<CommunicatorError>,
    },
    /// A file on this machine could not be read.
    #[error("cannot read {}", path.display())]
    Local {
        /// Path on this machine.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CommunicatorError {
    /// Whether waiting and trying again cannot change it.
    ///
    /// A wrong host key stays wrong. A refused login is not settled: sshd may answer before the installed keys are in
    /// place (cloud-init rewrites them at boot), so a caller tries that again for a short while.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::HostKey { .. } | Self::Local { .. } | Self::Checksum { .. })
    }

    /// Whether the connection is gone and [`reconnect`](super::Communicator::reconnect) is the way on.
    ///
    /// A guest agent is lost with its guest: while that is stopped, or boots.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Agent { source, .. } => return matches!(source.kind(), ErrorKind::State | ErrorKind::Agent),
            Self::Unanswered { source, .. } | Self::Forgotten { source, .. } => return source.is_lost(),
            _ => {}
        }
        matches!(
            self,
            Self::Lost { .. }
                | Self::Refused { .. }
                | Self::NoAnswer { .. }
                | Self::Unreachable { .. }
                | Self::Handshake { .. }
        )
    }
}
