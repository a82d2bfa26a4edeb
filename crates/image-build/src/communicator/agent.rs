//! The agent communicator: commands and files through the QEMU guest agent, so over PVE's API port alone.
//!
//! [`run`] follows commands to their end, [`files`] carries files in pieces.

mod files;
mod run;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proxmox_client::{EXEC_INPUT_MAX_BYTES, Qemu};
use tokio::time::Instant;

use super::lines::LineSplitter;
use super::{Command, Communicator, CommunicatorError, ExitStatus, OnLine, OutputStream, Source, Upload};
use crate::journal::new_holder;

/// A command that is past its limit is told to end, and killed so much later.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// Exit codes of `timeout(1)`: the limit passed; it had to kill.
const TIMED_OUT: [u32; 2] = [124, 137];

/// Makes the build's folder `$1`, and says `scope` where commands can have a scope of systemd's of their own.
const MAKE: &str = r#"umask 077; mkdir -p "$1" && chmod 700 "$1" || exit
if [ -d /run/systemd/system ] && systemd-run --quiet --scope --collect true 2>/dev/null; then echo scope; fi"#;
/// Opens the file `$1` as the input of `$2...` and removes it after.
const WITH_INPUT: &str = r#"f=$1; shift; "$@" <"$f"; s=$?; rm -f "$f"; exit $s"#;

/// [`Communicator`] through the guest agent. Commands run as root.
#[derive(Debug)]
pub struct AgentCommunicator {
    vm: Qemu,
    /// A folder in the guest with no rights for others.
    folder: String,
    /// Of this process alone: one that was killed has left folders of commands that may still run.
    word: String,
    /// Numbers the subfolders of commands and uploads.
    next: AtomicU64,
    /// Whether commands get a scope of their own: an update of the agent restarts its service, and systemd then ends all that
    /// runs below it.
    scoped: bool,
}

impl AgentCommunicator {
    /// A communicator for a VM whose agent answers; `folder` is an absolute path in the guest that may be made and removed.
    ///
    /// # Errors
    /// [`CommunicatorError::Agent`] when the agent does not answer or refuses to run commands, as EL9's does until its
    /// allow-list is opened.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most an empty folder in the guest.
    pub async fn connect(vm: Qemu, folder: String) -> Result<Self, CommunicatorError> {
        let mut agent = Self {
            vm,
            folder,
            word: new_holder(),
            next: AtomicU64::new(0),
            scoped: false,
        };
        let (status, said) = agent.short(&Command::sh(MAKE, [agent.folder.as_str()])).await?;
        if status.success() {
            agent.scoped = said == "scope";
            Ok(agent)
        } else {
            Err(CommunicatorError::Upload {
                path: agent.folder,
                reason: format!("{status}, {said}"),
            })
        }
    }

    fn failed(&self, doing: impl Into<String>) -> impl FnOnce(proxmox_client::Error) -> CommunicatorError {
        let (vmid, doing) = (self.vm.vmid().get(), doing.into());
        move |source| CommunicatorError::Agent {
            vmid,
            doing,
            source: Box::new(source),
        }
    }

    /// A name for a subfolder that nothing else of this build has, be it of another process.
    fn numbered(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("agent-{}-{number}", self.word)
    }
}

#[async_trait]
impl Communicator for AgentCommunicator {
    fn describe(&self) -> String {
        format!("guest agent of vm {}", self.vm.vmid())
    }

    async fn exec(&self, command: &Command, on_line: OnLine<'_>) -> Result<ExitStatus, CommunicatorError> {
        let mut argv = command.words();
        let input = match &command.stdin {
            None => None,
            Some(Source::Bytes(bytes)) if bytes.len() <= EXEC_INPUT_MAX_BYTES => Some(bytes.clone()),
            Some(source) => {
                // More than one call can carry: it becomes a file that a shell opens.
                let file = format!("{}/{}", self.folder, self.numbered());
                self.send(source, &file).await?;
                argv.splice(0..0, ["sh", "-c", WITH_INPUT, "sh", &file].map(str::to_owned));
                None
            }
        };
        if let Some(limit) = command.timeout {
            // It ends the whole process group, which a dropped connection would not.
            let kill_after = KILL_AFTER.as_secs().to_string();
            let limit = limit.as_secs().max(1).to_string();
            argv.splice(0..0, ["timeout", "-k", &kill_after, &limit].map(str::to_owned));
        }
        let mut stdout = LineSplitter::new(OutputStream::Stdout, on_line);
        let mut stderr = LineSplitter::new(OutputStream::Stderr, on_line);
        let begun = Instant::now();
        let run = run::Spooled::new(self, command.program());
        let status = run.to_its_end(argv, input.as_deref(), &mut stdout, &mut stderr).await?;
        stdout.finish();
        stderr.finish();
        match (command.timeout, &status) {
            // A command may end with these codes of its own; only after the limit do they mean the limit.
            (Some(limit), ExitStatus::Code(code)) if TIMED_OUT.contains(code) && begun.elapsed() >= limit => {
                run.end_the_rest().await;
                Err(CommunicatorError::CommandTimeout {
                    program: command.program().to_owned(),
                    after: limit,
                })
            }
            _ => Ok(status),
        }
    }

    async fn upload(&self, upload: &Upload) -> Result<(), CommunicatorError> {
        self.put(upload).await
    }

    async fn download(&self, path: &str, limit_bytes: u64) -> Result<Bytes, CommunicatorError> {
        self.get(path, limit_bytes).await
    }

    async fn reconnect(&self) -> Result<(), CommunicatorError> {
        self.vm
            .agent()
            .ping()
            .await
            .map_err(self.failed("waiting for the agent"))
    }

    async fn close(&self) {
        // The agent may be locked or the guest down by now; its folder went with the build's own.
    }
}
