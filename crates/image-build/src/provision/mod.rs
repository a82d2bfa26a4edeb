//! What is done inside the guest, over a communicator.

mod file;
mod shell;

pub use file::FileProvisioner;
pub use shell::ShellProvisioner;
pub(crate) use shell::{MASK, SHORTEST_MASKED};

use std::fmt;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::communicator::{Communicator, OnLine, Source};
use crate::spec::{FileContent, ProvisionerSpec};

/// Where and how a provisioner runs.
pub struct Workplace<'a> {
    /// The way into the guest.
    pub communicator: &'a dyn Communicator,
    /// Whether the login user is root; others run scripts through `sudo -n`.
    pub is_root: bool,
    /// A folder in the guest that belongs to this build alone, with no rights for others.
    pub folder: String,
    /// Whether nothing runs after this: the folder then goes with it.
    pub is_last: bool,
    /// Ends the work early.
    pub cancel: &'a CancellationToken,
    /// Receives the output.
    pub on_line: OnLine<'a>,
}

impl fmt::Debug for Workplace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workplace")
            .field("communicator", &self.communicator)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Workplace<'_> {
    /// Runs something that may be dropped half-way, and drops it when the build is cancelled.
    pub(crate) async fn or_cancel<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            done = work => Ok(done),
        }
    }
}

/// One thing to do in the guest.
#[async_trait]
pub trait Provisioner: fmt::Debug + Send + Sync {
    /// Its name, for events and errors: `k3s-install.sh`.
    fn name(&self) -> &str;

    /// Whether it may end the connection, as by a reboot; it then returns without an error when that happens.
    fn expects_disconnect(&self) -> bool {
        false
    }

    /// Does it; the summary is a few words for people.
    async fn provision(&self, workplace: &Workplace<'_>) -> Result<String, Error>;
}

/// The provisioner that a spec asks for. `build` are variables that every script gets beside its own; its own win.
pub(crate) fn from_spec(spec: &ProvisionerSpec, build: &[(&str, String)]) -> Box<dyn Provisioner> {
    match spec {
        ProvisionerSpec::Shell(shell) => Box::new(ShellProvisioner::from_spec(shell, build)),
        ProvisionerSpec::File(file) => Box::new(FileProvisioner {
            name: file.name.clone(),
            source: match &file.content {
                FileContent::Bytes(bytes) => Source::Bytes(bytes.clone().into()),
                FileContent::Local(local) => Source::File(local.path().to_owned()),
            },
            destination: file.destination.clone(),
            mode: file.mode,
        }),
    }
}
