//! How a build talks to the guest: run a command, send a file, fetch a file.
//!
//! [`Communicator`] is the seam: [`SshCommunicator`] speaks SSH with a key and a host key made for one build. Errors are
//! separated by what a waiting caller can conclude from them: [`CommunicatorError::is_settled`] says that waiting longer
//! changes nothing.

mod address;
mod agent;
mod command;
mod error;
mod host_key;
mod keys;
mod lines;
mod ssh;

pub(crate) use address::{AddressLook, look_for_address};
pub use address::{GuestAddress, choose_address};
pub use agent::AgentCommunicator;
pub use command::{Command, ExitStatus, OnLine, OutputStream, Source, Upload};
pub use error::CommunicatorError;
pub use host_key::host_key;
pub use keys::BuildKeys;
pub use ssh::{SshAuth, SshCommunicator, SshTarget};

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::spec::{CommunicatorKind, ImageSpec};

/// Gives a file that has arrived its mode and its name: mode, name it arrived under, name it gets.
const FINISH_UPLOAD: &str = "chmod \"$1\" \"$2\" && mv -f \"$2\" \"$3\"";

/// Whether a build of this spec goes through the guest agent: when it is asked to, and with `auto` when the VM has no
/// network device that SSH could use.
///
/// `auto` decides before the install and not by trying: the agent must be opened for commands in the kickstart, which an
/// image that is built over SSH should not need.
pub(crate) fn goes_by_agent(spec: &ImageSpec) -> bool {
    match spec.communicator.kind {
        CommunicatorKind::Agent => true,
        CommunicatorKind::Auto => spec.nics.is_empty() && spec.communicator.ssh.host.is_none(),
        CommunicatorKind::Ssh => false,
    }
}

/// A way to run commands in the guest and to move files.
#[async_trait]
pub trait Communicator: fmt::Debug + Send + Sync {
    /// One line for people: `ssh root@10.23.45.117:22`.
    fn describe(&self) -> String;

    /// Runs a command to its end; lines of its output go to `on_line` while it runs.
    ///
    /// # Errors
    /// [`CommunicatorError::Lost`] when the connection broke before the command's end was known,
    /// [`CommunicatorError::CommandTimeout`] when it ran longer than its limit. A command that ends with another status
    /// than 0 is no error here: see [`ExitStatus`].
    ///
    /// # Cancel safety
    /// Dropping the future stops listening; the command may go on in the guest.
    async fn exec(&self, command: &Command, on_line: OnLine<'_>) -> Result<ExitStatus, CommunicatorError>;

    /// Writes a file in the guest: under another name first, moved into place once its SHA-256 was compared there.
    ///
    /// # Errors
    /// [`CommunicatorError::Upload`] with the guest's complaint, [`CommunicatorError::Checksum`], and those of [`exec`](Self::exec).
    ///
    /// # Cancel safety
    /// The destination is either as before or complete; a `.part` file may stay beside it.
    async fn upload(&self, upload: &Upload) -> Result<(), CommunicatorError>;

    /// Reads a file of at most `limit_bytes`.
    ///
    /// # Errors
    /// [`CommunicatorError::Download`] when it cannot be read or is larger, and those of [`exec`](Self::exec).
    async fn download(&self, path: &str, limit_bytes: u64) -> Result<Bytes, CommunicatorError>;

    /// Drops the connection and makes one attempt at a new one, for use after a reboot of the guest.
    ///
    /// # Errors
    /// Why the attempt failed; [`CommunicatorError::is_settled`] tells whether another one could end differently.
    async fn reconnect(&self) -> Result<(), CommunicatorError>;

    /// Ends the connection politely. Later calls fail with [`CommunicatorError::Lost`].
    async fn close(&self);
}
