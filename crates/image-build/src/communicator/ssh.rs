//! The SSH communicator: one session with a pinned host key, one channel per command.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::client::{self, Handle};
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use russh::{ChannelMsg, ChannelWriteHalf, Disconnect, Sig};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::sync::RwLock;

use super::lines::LineSplitter;
use super::{Command, Communicator, CommunicatorError, ExitStatus, OnLine, OutputStream, Source, Upload};

mod session;

use session::{PinnedHostKey, log_in};

/// How long output may still arrive after the exit status. A daemon that inherited a script's output keeps the channel
/// open for ever; what the script itself wrote is there by then.
const AFTER_EXIT: Duration = Duration::from_secs(2);

/// Bytes of a local file read at a time: eight SSH packets, so that reading and encrypting overlap.
const FILE_CHUNK: usize = 256 * 1024;

/// How to log in.
#[derive(Clone)]
pub enum SshAuth {
    /// With a private key.
    Key(Arc<PrivateKey>),
    /// With a password that the kickstart sets.
    Password(SecretString),
}

impl std::fmt::Debug for SshAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, "Key({})", key.fingerprint(HashAlg::Sha256)),
            Self::Password(_) => f.write_str("Password(..)"),
        }
    }
}

/// Where to connect, as whom, and which host key must answer.
#[derive(Clone, Debug)]
pub struct SshTarget {
    /// Address or name of the guest.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User to log in as.
    pub user: String,
    /// Key or password.
    pub auth: SshAuth,
    /// The key that the guest must show; any other is refused.
    pub host_key: PublicKey,
    /// Limit of one attempt, from the first packet to the login.
    pub attempt_timeout: Duration,
}

impl SshTarget {
    fn address(&self) -> String {
        address(&self.host, self.port)
    }
}

/// Host and port as people write them.
pub(super) fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// [`Communicator`] over SSH.
///
/// Files are sent through `cat` on a channel's standard input: one stream, no round trip per block, and no need of an
/// sftp subsystem in the guest.
pub struct SshCommunicator {
    target: SshTarget,
    session: RwLock<Option<Arc<Handle<PinnedHostKey>>>>,
}

impl std::fmt::Debug for SshCommunicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { target, session: _ } = self;
        f.debug_struct("SshCommunicator")
            .field("target", target)
            .finish_non_exhaustive()
    }
}

impl SshCommunicator {
    /// Connects and logs in: one attempt.
    ///
    /// # Errors
    /// Each cause has its variant of [`CommunicatorError`]: refused, no answer, another host key, login refused.
    ///
    /// # Cancel safety
    /// Dropping the future ends the attempt; nothing stays.
    pub async fn connect(target: SshTarget) -> Result<Self, CommunicatorError> {
        let session = log_in(&target).await?;
        Ok(Self {
            target,
            session: RwLock::new(Some(Arc::new(session))),
        })
    }

    fn lost(&self, doing: &str, source: Option<russh::Error>) -> CommunicatorError {
        CommunicatorError::Lost {
            address: self.target.address(),
            doing: doing.to_owned(),
            source: source.map(Box::new),
        }
    }

    /// Runs one line in the login user's shell. Chunks of output go to `on_data`; what was sent goes through `hasher`.
    async fn run(
        &self,
        program: &str,
        line: &str,
        stdin: Option<&Source>,
        hasher: &mut Sha256,
        on_data: &mut (dyn FnMut(OutputStream, &[u8]) + Send),
    ) -> Result<ExitStatus, CommunicatorError> {
        let doing = || format!("running `{program}`");
        let session = self
            .session
            .read()
            .await
            .clone()
            .ok_or_else(|| self.lost(&doing(), None))?;
        let channel = session
            .channel_open_session()
            .await
            .map_err(|e| self.lost(&doing(), Some(e)))?;
        channel
            .exec(true, line)
            .await
            .map_err(|e| self.lost(&doing(), Some(e)))?;
        let (mut incoming, outgoing) = channel.split();

        // Both directions at once: a command that writes before it has read everything would otherwise block for ever.
        let sending = send_input(&outgoing, stdin, hasher);
        tokio::pin!(sending);
        let mut input_open = true;
        let mut status = None;
        loop {
            let message = tokio::select! {
                message = incoming.wait() => message,
                sent = &mut sending, if input_open => {
                    input_open = false;
                    match sent {
                        // A channel that takes no more: the command ended without reading its input, and its status and
                        // words tell more than this error.
                        Ok(()) | Err(SendError::Channel) => continue,
                        Err(SendError::Local(error)) => return Err(error),
                    }
                }
                () = tokio::time::sleep(AFTER_EXIT), if status.is_some() => break,
            };
            match message {
                Some(ChannelMsg::Data { data }) => on_data(OutputStream::Stdout, &data),
                Some(ChannelMsg::ExtendedData { data, .. }) => on_data(OutputStream::Stderr, &data),
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(ExitStatus::Code(exit_status)),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    status = Some(ExitStatus::Signal(signal_text(&signal_name)));
                }
                Some(ChannelMsg::Failure) => {
                    return Err(CommunicatorError::ExecRefused {
                        address: self.target.address(),
                        program: program.to_owned(),
                    });
                }
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
        }
        // The channel may be closed already; that the other side closed first is no failure.
        let _ = outgoing.close().await;
        status.ok_or_else(|| self.lost(&doing(), None))
    }

    /// Runs a short command for its output; used by the file transfers.
    async fn capture(&self, command: &Command) -> Result<(ExitStatus, String), CommunicatorError> {
        let mut text = Vec::new();
        let mut collect = |_: OutputStream, bytes: &[u8]| text.extend_from_slice(bytes);
        let status = self
            .run(
                command.program(),
                &command.to_shell_line(),
                command.stdin.as_ref(),
                &mut Sha256::new(),
                &mut collect,
            )
            .await?;
        Ok((status, String::from_utf8_lossy(&text).trim().to_owned()))
    }
}

#[async_trait]
impl Communicator for SshCommunicator {
    fn describe(&self) -> String {
        format!("ssh {}@{}", self.target.user, self.target.address())
    }

    async fn exec(&self, command: &Command, on_line: OnLine<'_>) -> Result<ExitStatus, CommunicatorError> {
        let mut stdout = LineSplitter::new(OutputStream::Stdout, on_line);
        let mut stderr = LineSplitter::new(OutputStream::Stderr, on_line);
        let mut on_data = |stream: OutputStream, bytes: &[u8]| match stream {
            OutputStream::Stdout => stdout.push(bytes),
            OutputStream::Stderr => stderr.push(bytes),
        };
        let line = command.to_shell_line();
        let mut hasher = Sha256::new();
        let run = self.run(
            command.program(),
            &line,
            command.stdin.as_ref(),
            &mut hasher,
            &mut on_data,
        );
        let ended = match command.timeout {
            None => run.await,
            Some(limit) => tokio::time::timeout(limit, run).await.unwrap_or_else(|_| {
                Err(CommunicatorError::CommandTimeout {
                    program: command.program().to_owned(),
                    after: limit,
                })
            }),
        };
        stdout.finish();
        stderr.finish();
        ended
    }

    async fn upload(&self, upload: &Upload) -> Result<(), CommunicatorError> {
        let part = format!("{}.part", upload.destination);
        let failed = |reason: String| CommunicatorError::Upload {
            path: upload.destination.clone(),
            reason,
        };
        // The file is made with no rights for others before its first byte arrives: it may hold a secret.
        let write = Command::sh("umask 077 && cat > \"$1\" && sha256sum \"$1\"", [part.as_str()]);
        let mut hasher = Sha256::new();
        let mut said = Vec::new();
        let mut collect = |_: OutputStream, bytes: &[u8]| said.extend_from_slice(bytes);
        let status = self
            .run(
                "cat",
                &write.to_shell_line(),
                Some(&upload.source),
                &mut hasher,
                &mut collect,
            )
            .await?;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        if !status.success() {
            return Err(failed(format!("{status}, {said}")));
        }
        let expected = hex::encode(hasher.finalize());
        let found = said
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .trim_start_matches('\\')
            .to_owned();
        if found != expected {
            return Err(CommunicatorError::Checksum {
                path: upload.destination.clone(),
                expected,
                found,
            });
        }
        let mode = format!("{:04o}", upload.mode & 0o7777);
        let finish = Command::sh(
            super::FINISH_UPLOAD,
            [mode.as_str(), part.as_str(), upload.destination.as_str()],
        );
        let (status, said) = self.capture(&finish).await?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(format!("{status}, {said}")))
        }
    }

    async fn download(&self, path: &str, limit_bytes: u64) -> Result<Bytes, CommunicatorError> {
        let failed = |reason: String| CommunicatorError::Download {
            path: path.to_owned(),
            reason,
        };
        let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        let (mut content, mut complaint, mut too_large) = (Vec::new(), Vec::new(), false);
        let mut collect = |stream: OutputStream, bytes: &[u8]| match stream {
            OutputStream::Stdout if content.len().saturating_add(bytes.len()) <= limit => {
                content.extend_from_slice(bytes);
            }
            OutputStream::Stdout => too_large = true,
            OutputStream::Stderr => complaint.extend_from_slice(bytes),
        };
        let read = Command::new(["cat", path]);
        let status = self
            .run("cat", &read.to_shell_line(), None, &mut Sha256::new(), &mut collect)
            .await?;
        if !status.success() {
            return Err(failed(format!(
                "{status}, {}",
                String::from_utf8_lossy(&complaint).trim()
            )));
        }
        if too_large {
            return Err(failed(format!("it is larger than {limit_bytes} bytes")));
        }
        Ok(content.into())
    }

    async fn reconnect(&self) -> Result<(), CommunicatorError> {
        let mut session = self.session.write().await;
        *session = None;
        *session = Some(Arc::new(log_in(&self.target).await?));
        Ok(())
    }

    async fn close(&self) {
        if let Some(session) = self.session.write().await.take() {
            // The guest may be gone already, and then there is no one to say goodbye to.
            let _ = session.disconnect(Disconnect::ByApplication, "", "").await;
        }
    }
}

/// Why the input could not be sent.
enum SendError {
    /// The channel takes no more: the command closed its input or is gone.
    Channel,
    /// Our own file could not be read.
    Local(CommunicatorError),
}

async fn send_input(
    outgoing: &ChannelWriteHalf<client::Msg>,
    stdin: Option<&Source>,
    hasher: &mut Sha256,
) -> Result<(), SendError> {
    match stdin {
        None => {}
        Some(Source::Bytes(bytes)) => {
            hasher.update(bytes);
            outgoing
                .data_bytes(bytes.clone())
                .await
                .map_err(|_| SendError::Channel)?;
        }
        Some(Source::File(path)) => {
            let local = |source| {
                SendError::Local(CommunicatorError::Local {
                    path: path.clone(),
                    source,
                })
            };
            let mut file = tokio::fs::File::open(path).await.map_err(local)?;
            loop {
                let mut chunk = bytes::BytesMut::with_capacity(FILE_CHUNK);
                while chunk.len() < FILE_CHUNK && file.read_buf(&mut chunk).await.map_err(local)? > 0 {}
                if chunk.is_empty() {
                    break;
                }
                hasher.update(&chunk);
                outgoing
                    .data_bytes(chunk.freeze())
                    .await
                    .map_err(|_| SendError::Channel)?;
            }
        }
    }
    outgoing.eof().await.map_err(|_| SendError::Channel)
}

fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests;
