//! The agent communicator: commands and files through the QEMU guest agent, so over PVE's API port alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use proxmox_client::{EXEC_INPUT_MAX_BYTES, ErrorKind, ExecStatus, FILE_WRITE_MAX_BYTES, Qemu};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::lines::LineSplitter;
use super::{Command, Communicator, CommunicatorError, ExitStatus, OnLine, OutputStream, Source, Upload};

/// Pauses between looks at a running command: short first, since most commands are.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_secs(2);
/// The agent gives output only at a command's end. A command that may run longer than this writes it to files, which are
/// read while it runs.
const SPOOLED_FROM: Duration = Duration::from_secs(30);
/// How often the files are looked at; each look is three requests.
const SPOOL_EVERY: Duration = Duration::from_secs(3);
/// A command that is past its limit is told to end, and killed so much later.
const KILL_AFTER_SECONDS: u64 = 10;
/// Exit codes of `timeout(1)`: the limit passed; it had to kill.
const TIMED_OUT: [i64; 2] = [124, 137];
/// How long a silent agent may stay silent in the middle of a command: a guest that is frozen for a backup.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// Runs `$2...` with its output in files of the folder `$1`, and gives all of it at the end: what seals an image closes the
/// agent to new commands, but one that runs can be followed to its end.
const SPOOL: &str =
    r#"d=$1; shift; "$@" >"$d/out" 2>"$d/err"; s=$?; cat "$d/out"; cat "$d/err" >&2; rm -rf "$d"; exit $s"#;
/// Joins the numbered pieces of the folder `$1` to the file `$2` and prints its SHA-256.
const JOIN: &str = r#"umask 077; : >"$2"; i=0
while [ -e "$1/$i" ]; do cat "$1/$i" >>"$2" || exit 1; rm -f "$1/$i"; i=$((i+1)); done
sha256sum "$2""#;

/// [`Communicator`] through the guest agent. Commands run as root.
#[derive(Debug)]
pub struct AgentCommunicator {
    vm: Qemu,
    /// A folder in the guest with no rights for others.
    folder: String,
    /// Numbers the subfolders of commands and uploads.
    next: AtomicU64,
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
        let agent = Self {
            vm,
            folder,
            next: AtomicU64::new(0),
        };
        let make = Command::sh(
            "umask 077; mkdir -p \"$1\" && chmod 700 \"$1\"",
            [agent.folder.as_str()],
        );
        let (status, said) = agent.short(&make).await?;
        if status.success() {
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

    fn subfolder(&self) -> String {
        format!("{}/agent-{}", self.folder, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts a command; the answer is lost only if the agent died with it.
    async fn start(&self, argv: &[String], input: Option<&[u8]>) -> Result<u64, CommunicatorError> {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let doing = format!("starting `{}`", words.first().copied().unwrap_or_default());
        let agent = self.vm.agent();
        match input {
            None => agent.exec(&words).await,
            Some(input) => agent.exec_with_input(&words, input).await,
        }
        .map_err(self.failed(doing))
    }

    /// One look at a command. A silent agent is `None` for a while: a frozen guest thaws.
    async fn look(
        &self,
        pid: u64,
        silent_since: &mut Option<Instant>,
    ) -> Result<Option<ExecStatus>, CommunicatorError> {
        match self.vm.agent().exec_status(pid).await {
            Ok(status) => {
                *silent_since = None;
                Ok(Some(status))
            }
            Err(error)
                if is_silence(&error) && silent_since.get_or_insert_with(Instant::now).elapsed() < SILENCE_LIMIT =>
            {
                Ok(None)
            }
            Err(error) => Err(self.failed("following a command")(error)),
        }
    }

    /// Runs a short command for its status and output.
    async fn short(&self, command: &Command) -> Result<(ExitStatus, String), CommunicatorError> {
        let pid = self.start(&command.argv, None).await?;
        let (mut pause, mut silent) = (FIRST_LOOK, None);
        loop {
            if let Some(status) = self.look(pid, &mut silent).await?.filter(|status| status.exited) {
                let mut said = status.stdout.clone();
                said.extend_from_slice(&status.stderr);
                return Ok((exit_status(&status), String::from_utf8_lossy(&said).trim().to_owned()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// What was written to a spool file since `offset`.
    async fn read_on(
        &self,
        file: &str,
        offset: &mut u64,
        lines: &mut LineSplitter<'_>,
    ) -> Result<(), CommunicatorError> {
        let from = format!("+{}", *offset + 1);
        let tail = Command::new(["tail", "-c", &from, file]);
        let pid = self.start(&tail.argv, None).await?;
        let (mut pause, mut silent) = (FIRST_LOOK, None);
        loop {
            if let Some(status) = self.look(pid, &mut silent).await?.filter(|status| status.exited) {
                *offset += status.stdout.len() as u64;
                lines.push(&status.stdout);
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// Runs a command whose output is read from files while it runs.
    async fn spooled(
        &self,
        argv: Vec<String>,
        input: Option<&[u8]>,
        stdout: &mut LineSplitter<'_>,
        stderr: &mut LineSplitter<'_>,
    ) -> Result<ExecStatus, CommunicatorError> {
        // In memory: it outlives the removal of the build's own folder, and not the boot.
        let folder = format!("/run{}", self.subfolder());
        self.make(&folder).await?;
        let mut wrapped: Vec<String> = ["sh", "-c", SPOOL, "sh", &folder].map(str::to_owned).to_vec();
        wrapped.extend(argv);
        let pid = self.start(&wrapped, input).await?;
        let files = [format!("{folder}/out"), format!("{folder}/err")];
        let mut offsets = [0, 0];
        let (mut pause, mut silent, mut read_at) = (FIRST_LOOK, None, Instant::now());
        let mut readable = true;
        let status = loop {
            if let Some(status) = self.look(pid, &mut silent).await?.filter(|status| status.exited) {
                break status;
            }
            if readable && silent.is_none() && read_at.elapsed() >= SPOOL_EVERY {
                // Nothing is lost by a failure: all output comes once more with the end.
                readable = self.read_on(&files[0], &mut offsets[0], stdout).await.is_ok()
                    && self.read_on(&files[1], &mut offsets[1], stderr).await.is_ok();
                read_at = Instant::now();
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        };
        let unread = |said: &[u8], offset: u64| -> Vec<u8> {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            said.get(from..).unwrap_or_default().to_vec()
        };
        stdout.push(&unread(&status.stdout, offsets[0]));
        stderr.push(&unread(&status.stderr, offsets[1]));
        Ok(status)
    }

    async fn make(&self, folder: &str) -> Result<(), CommunicatorError> {
        let (status, said) = self.short(&Command::sh("umask 077; mkdir -p \"$1\"", [folder])).await?;
        if status.success() {
            return Ok(());
        }
        Err(CommunicatorError::Upload {
            path: folder.to_owned(),
            reason: format!("{status}, {said}"),
        })
    }

    async fn remove(&self, folder: &str) -> Result<(), CommunicatorError> {
        self.short(&Command::new(["rm", "-rf", folder])).await.map(drop)
    }

    /// Sends bytes in pieces, joins them there, and gives the SHA-256 of what was sent and of what arrived.
    async fn send(&self, source: &Source, destination: &str) -> Result<(String, String), CommunicatorError> {
        let folder = self.subfolder();
        self.make(&folder).await?;
        let mut hasher = Sha256::new();
        let mut reader: Box<dyn tokio::io::AsyncRead + Send + Sync + Unpin> = match source {
            Source::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes.clone())),
            Source::File(path) => {
                Box::new(
                    tokio::fs::File::open(path)
                        .await
                        .map_err(|source| CommunicatorError::Local {
                            path: path.clone(),
                            source,
                        })?,
                )
            }
        };
        let local = |error| CommunicatorError::Local {
            path: match source {
                Source::File(path) => path.clone(),
                Source::Bytes(_) => std::path::PathBuf::new(),
            },
            source: error,
        };
        for index in 0_u64.. {
            let mut piece = BytesMut::with_capacity(FILE_WRITE_MAX_BYTES);
            while piece.len() < FILE_WRITE_MAX_BYTES {
                let room = FILE_WRITE_MAX_BYTES - piece.len();
                if (&mut reader)
                    .take(room as u64)
                    .read_buf(&mut piece)
                    .await
                    .map_err(local)?
                    == 0
                {
                    break;
                }
            }
            if piece.is_empty() {
                break;
            }
            hasher.update(&piece);
            // Writing the same piece twice changes nothing, so a lost answer does no harm.
            let file = format!("{folder}/{index}");
            self.vm
                .agent()
                .file_write(&file, &piece)
                .await
                .map_err(self.failed(format!("sending a piece of {destination}")))?;
        }
        let (status, said) = self.short(&Command::sh(JOIN, [folder.as_str(), destination])).await?;
        self.remove(&folder).await?;
        if !status.success() {
            return Err(CommunicatorError::Upload {
                path: destination.to_owned(),
                reason: format!("{status}, {said}"),
            });
        }
        let arrived = said
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .trim_start_matches('\\')
            .to_owned();
        Ok((hex::encode(hasher.finalize()), arrived))
    }
}

/// Whether the error says only that the agent, or the way to it, is silent for now.
fn is_silence(error: &proxmox_client::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Agent | ErrorKind::Proxy | ErrorKind::Timeout | ErrorKind::Transport | ErrorKind::Connect
    )
}

fn exit_status(status: &ExecStatus) -> ExitStatus {
    match (status.exit_code, status.signal) {
        (Some(code), _) => ExitStatus::Code(u32::try_from(code).unwrap_or(u32::MAX)),
        (None, Some(signal)) => ExitStatus::Signal(signal.to_string()),
        (None, None) => ExitStatus::Code(0),
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
                let file = format!("{}/input-{}", self.folder, self.next.fetch_add(1, Ordering::Relaxed));
                self.send(source, &file).await?;
                let mut with_input: Vec<String> = [
                    "sh",
                    "-c",
                    "f=$1; shift; \"$@\" <\"$f\"; s=$?; rm -f \"$f\"; exit $s",
                    "sh",
                    &file,
                ]
                .map(str::to_owned)
                .to_vec();
                with_input.append(&mut argv);
                argv = with_input;
                None
            }
        };
        if let Some(limit) = command.timeout {
            // It ends the whole process group, which a dropped connection would not.
            let kill_after = KILL_AFTER_SECONDS.to_string();
            let limit = limit.as_secs().max(1).to_string();
            argv.splice(0..0, ["timeout", "-k", &kill_after, &limit].map(str::to_owned));
        }
        let mut stdout = LineSplitter::new(OutputStream::Stdout, on_line);
        let mut stderr = LineSplitter::new(OutputStream::Stderr, on_line);
        let begun = Instant::now();
        let long = command.timeout.is_some_and(|limit| limit >= SPOOLED_FROM);
        let status = if long {
            self.spooled(argv, input.as_deref(), &mut stdout, &mut stderr).await?
        } else {
            let pid = self.start(&argv, input.as_deref()).await?;
            let (mut pause, mut silent) = (FIRST_LOOK, None);
            let status = loop {
                if let Some(status) = self.look(pid, &mut silent).await?.filter(|status| status.exited) {
                    break status;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_LOOK);
            };
            stdout.push(&status.stdout);
            stderr.push(&status.stderr);
            status
        };
        stdout.finish();
        stderr.finish();
        match (command.timeout, status.exit_code) {
            // A command may end with these codes of its own; only after the limit do they mean the limit.
            (Some(limit), Some(code)) if TIMED_OUT.contains(&code) && begun.elapsed() >= limit => {
                Err(CommunicatorError::CommandTimeout {
                    program: command.program().to_owned(),
                    after: limit,
                })
            }
            _ => Ok(exit_status(&status)),
        }
    }

    async fn upload(&self, upload: &Upload) -> Result<(), CommunicatorError> {
        let part = format!("{}.part", upload.destination);
        let (expected, found) = self.send(&upload.source, &part).await?;
        if found != expected {
            return Err(CommunicatorError::Checksum {
                path: upload.destination.clone(),
                expected,
                found,
            });
        }
        let mode = format!("{:04o}", upload.mode & 0o7777);
        let finish = Command::sh(super::FINISH_UPLOAD, [mode.as_str(), &part, &upload.destination]);
        let (status, said) = self.short(&finish).await?;
        if status.success() {
            Ok(())
        } else {
            Err(CommunicatorError::Upload {
                path: upload.destination.clone(),
                reason: format!("{status}, {said}"),
            })
        }
    }

    async fn download(&self, path: &str, limit_bytes: u64) -> Result<Bytes, CommunicatorError> {
        let content = self
            .vm
            .agent()
            .file_read(path)
            .await
            .map_err(self.failed(format!("reading {path}")))?;
        if content.truncated || content.bytes.len() as u64 > limit_bytes {
            let limit = limit_bytes.min(16 << 20);
            return Err(CommunicatorError::Download {
                path: path.to_owned(),
                reason: format!("it is larger than {limit} bytes"),
            });
        }
        Ok(content.bytes.into())
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
