//! Files through the guest agent, in pieces, with their SHA-256 compared at the end.
//!
//! Every step may be carried out twice, so that a lost answer does no harm: a piece is written under its number, pieces are
//! joined behind a length that is set first, and what was renamed already counts as renamed.

use bytes::{Bytes, BytesMut};
use proxmox_client::FILE_WRITE_MAX_BYTES;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::AgentCommunicator;
use super::run::{LONGEST_LOOK, SILENCE_LIMIT, is_silence};
use crate::communicator::{Command, CommunicatorError, Source, Upload};

/// Pieces that are joined at a time: what is needed in the guest beside the file itself, some 4 MiB.
const BATCH: usize = 64;
/// Bytes that are read at a time where one call is not enough. The agent keeps 16 MiB of a program's output.
const PART_BYTES: u64 = 4 << 20;

/// Appends the pieces `0` to `$3`-1 of the folder `$1` to the file `$2`, which is `$4` bytes long before.
const JOIN: &str = r#"umask 077; : >>"$2" && truncate -s "$4" "$2" || exit; i=0
while [ $i -lt "$3" ]; do cat "$1/$i" >>"$2" || exit; i=$((i+1)); done"#;
/// Gives the file `$2` its mode `$1` and its name `$3`.
const FINISH: &str = r#"if [ -e "$2" ]; then chmod "$1" "$2" && mv -f "$2" "$3"; else [ -e "$3" ]; fi"#;
/// A part of the file `$1`: at most `$3` bytes from byte `$2` on, counted from 1.
const PART: &str = r#"tail -c "+$2" "$1" | head -c "$3""#;

impl AgentCommunicator {
    /// Writes a file beside its destination and moves it there once it has arrived unharmed.
    pub(super) async fn put(&self, upload: &Upload) -> Result<(), CommunicatorError> {
        let part = format!("{}.part", upload.destination);
        let expected = self.send(&upload.source, &part).await?;
        let found = self.sha256(&part).await.map_err(|error| match error {
            // What is not there did not arrive.
            CommunicatorError::Download { reason, .. } => CommunicatorError::Upload {
                path: upload.destination.clone(),
                reason,
            },
            other => other,
        })?;
        if found != expected {
            return Err(CommunicatorError::Checksum {
                path: upload.destination.clone(),
                expected,
                found,
            });
        }
        let mode = format!("{:04o}", upload.mode & 0o7777);
        let finish = Command::sh(FINISH, [mode.as_str(), &part, &upload.destination]);
        self.must(&finish, &upload.destination).await
    }

    /// Sends bytes in pieces and joins them there; gives the SHA-256 of what was sent.
    pub(super) async fn send(&self, source: &Source, destination: &str) -> Result<String, CommunicatorError> {
        let folder = format!("{}/{}", self.folder, self.numbered());
        self.must(&Command::new(["mkdir", "-p", &folder]), &folder).await?;
        let mut reader: Box<dyn AsyncRead + Send + Sync + Unpin> = match source {
            Source::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes.clone())),
            Source::File(path) => Box::new(tokio::fs::File::open(path).await.map_err(local(source))?),
        };
        let mut hasher = Sha256::new();
        let (mut joined, mut waiting, mut waiting_bytes) = (0_u64, 0, 0_u64);
        loop {
            let piece = piece_of(&mut reader).await.map_err(local(source))?;
            if waiting == BATCH || piece.is_empty() {
                let (pieces, before) = (waiting.to_string(), joined.to_string());
                let join = Command::sh(JOIN, [folder.as_str(), destination, &pieces, &before]);
                self.must(&join, destination).await?;
                joined += waiting_bytes;
                (waiting, waiting_bytes) = (0, 0);
            }
            if piece.is_empty() {
                break;
            }
            hasher.update(&piece);
            self.write(&format!("{folder}/{waiting}"), &piece, destination).await?;
            waiting += 1;
            waiting_bytes += piece.len() as u64;
        }
        self.must(&Command::new(["rm", "-rf", &folder]), &folder).await?;
        Ok(hex::encode(hasher.finalize()))
    }

    /// Writes a piece, again while the agent is silent.
    async fn write(&self, file: &str, piece: &[u8], destination: &str) -> Result<(), CommunicatorError> {
        let begun = Instant::now();
        loop {
            match self.vm.agent().file_write(file, piece).await {
                Ok(()) => return Ok(()),
                Err(error) if is_silence(&error) && begun.elapsed() < SILENCE_LIMIT => {
                    tokio::time::sleep(LONGEST_LOOK).await;
                }
                Err(error) => return Err(self.failed(format!("sending a piece of {destination}"))(error)),
            }
        }
    }

    /// Reads a file, in one call where that is enough.
    pub(super) async fn get(&self, path: &str, limit_bytes: u64) -> Result<Bytes, CommunicatorError> {
        let beginning = self
            .vm
            .agent()
            .file_read(path)
            .await
            .map_err(self.failed(format!("reading {path}")))?;
        let mut bytes = beginning.bytes;
        let mut complete = !beginning.truncated;
        while !complete && bytes.len() as u64 <= limit_bytes {
            let from = (bytes.len() as u64 + 1).to_string();
            let part = Command::sh(PART, [path, &from, &PART_BYTES.to_string()]);
            let status = self.short_status(&part).await?;
            complete = (status.stdout.len() as u64) < PART_BYTES;
            bytes.extend_from_slice(&status.stdout);
        }
        if bytes.len() as u64 > limit_bytes {
            return Err(CommunicatorError::Download {
                path: path.to_owned(),
                reason: format!("it is larger than {limit_bytes} bytes"),
            });
        }
        let found = hex::encode(Sha256::digest(&bytes));
        match self.sha256(path).await {
            Ok(expected) if expected == found => Ok(bytes.into()),
            Ok(expected) => Err(CommunicatorError::Checksum {
                path: path.to_owned(),
                expected,
                found,
            }),
            Err(error) => Err(error),
        }
    }

    /// The SHA-256 of a file in the guest, as the guest computes it.
    async fn sha256(&self, path: &str) -> Result<String, CommunicatorError> {
        let (status, said) = self.short(&Command::new(["sha256sum", path])).await?;
        // `sha256sum` puts a backslash before the line of a name that it had to escape.
        let sum = said
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .trim_start_matches('\\');
        if status.success() && sum.len() == 64 {
            return Ok(sum.to_owned());
        }
        Err(CommunicatorError::Download {
            path: path.to_owned(),
            reason: format!("{status}, {said}"),
        })
    }

    /// Runs a command without which there will be no file at `path`.
    async fn must(&self, command: &Command, path: &str) -> Result<(), CommunicatorError> {
        let (status, said) = self.short(command).await?;
        if status.success() {
            return Ok(());
        }
        Err(CommunicatorError::Upload {
            path: path.to_owned(),
            reason: format!("{status}, {said}"),
        })
    }
}

fn local(source: &Source) -> impl Fn(std::io::Error) -> CommunicatorError {
    let path = match source {
        Source::File(path) => path.clone(),
        Source::Bytes(_) => std::path::PathBuf::new(),
    };
    move |source| CommunicatorError::Local {
        path: path.clone(),
        source,
    }
}

/// As many bytes as one call carries, fewer at the end, none after it.
async fn piece_of(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<BytesMut> {
    let mut piece = BytesMut::with_capacity(FILE_WRITE_MAX_BYTES);
    while piece.len() < FILE_WRITE_MAX_BYTES {
        let room = (FILE_WRITE_MAX_BYTES - piece.len()) as u64;
        if (&mut *reader).take(room).read_buf(&mut piece).await? == 0 {
            break;
        }
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one of the scripts above with a real shell.
    fn sh(script: &str, args: &[&str]) -> bool {
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", script, "sh"])
            .args(args)
            .status()
            .unwrap()
            .success()
    }

    #[test]
    fn each_step_of_an_upload_may_be_carried_out_twice() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        for (name, piece) in [("0", "first "), ("1", "second "), ("2", "of another batch")] {
            std::fs::write(at(name), piece).unwrap();
        }
        let (folder, part, done) = (root.path().to_str().unwrap(), at("x.part"), at("x"));
        for _ in 0..2 {
            assert!(sh(JOIN, &[folder, &part, "2", "0"]));
        }
        std::fs::write(at("0"), "third").unwrap();
        for _ in 0..2 {
            assert!(sh(JOIN, &[folder, &part, "1", "13"]));
        }
        assert_eq!(std::fs::read_to_string(&part).unwrap(), "first second third");
        assert!(!sh(JOIN, &[folder, &part, "9", "18"]), "a piece is missing");
        std::fs::write(&part, "whole").unwrap();
        for _ in 0..2 {
            assert!(sh(FINISH, &["0640", &part, &done]));
        }
        assert_eq!(std::fs::read_to_string(&done).unwrap(), "whole");
    }
}
