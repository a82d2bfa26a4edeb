//! The sink and the source of the old `scp` protocol, which clients without SFTP speak: `scp -t PATH`, `scp -f PATH`.
//!
//! # Source
//! The protocol has no standard; OpenSSH's `scp.c` is what every client agrees with.

use crate::engine::simulated::files::{Content, Kind, base_name};
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::{FileWriter, Io};

const OK: &[u8] = b"\0";

impl Shell {
    pub(super) async fn scp(&mut self, args: &[String], io: &Io) -> i32 {
        let flags: String = args
            .iter()
            .filter(|arg| arg.starts_with('-'))
            .flat_map(|arg| arg.chars().skip(1))
            .collect();
        let Some(target) = args.iter().rev().find(|arg| !arg.starts_with('-')) else {
            io.stderr.line("usage: scp -t path | scp -f path");
            return 1;
        };
        let path = self.path(target);
        if flags.contains('t') {
            self.sink(path, io).await
        } else if flags.contains('f') {
            self.source_file(&path, target, io).await
        } else {
            io.stderr.line("scp: only -t and -f are simulated");
            1
        }
    }

    fn scp_error(io: &Io, text: &str) -> i32 {
        // 1 is a warning: the other side prints it and counts the transfer as failed.
        io.stdout.write([&b"\x01scp: "[..], text.as_bytes(), b"\n"].concat());
        1
    }

    async fn sink(&mut self, target: String, io: &Io) -> i32 {
        let mut folders = vec![target];
        let mut status = 0;
        io.stdout.write(OK);
        while let Some(line) = io.stdin.line().await {
            match line.chars().next() {
                // Times of the file to come; the tree keeps none.
                Some('T') => io.stdout.write(OK),
                Some('E') => {
                    folders.pop();
                    io.stdout.write(OK);
                    if folders.is_empty() {
                        break;
                    }
                }
                Some('C' | 'D') => {
                    let mut fields = line[1..].splitn(3, ' ');
                    let mode = fields.next().and_then(|mode| u32::from_str_radix(mode, 8).ok());
                    let size = fields.next().and_then(|size| size.parse::<u64>().ok());
                    let name = fields
                        .next()
                        .map(base_name)
                        .filter(|name| !name.is_empty() && *name != "..");
                    let (Some(mode), Some(size), Some(name)) = (mode, size, name) else {
                        return Self::scp_error(io, "protocol error: bad control line");
                    };
                    let folder = folders.last().cloned().unwrap_or_default();
                    let path = if self.host.system().files.is_dir(&folder) {
                        format!("{}/{name}", folder.trim_end_matches('/'))
                    } else {
                        folder
                    };
                    if line.starts_with('D') {
                        self.host.system().files.make_dirs(&path, mode, &self.user.name);
                        folders.push(path);
                        io.stdout.write(OK);
                    } else {
                        status |= self.receive(&path, mode, size, io).await;
                    }
                }
                _ => return Self::scp_error(io, &format!("protocol error: unexpected {line:?}")),
            }
        }
        status
    }

    async fn receive(&mut self, path: &str, mode: u32, size: u64, io: &Io) -> i32 {
        let writer = self
            .may_write(path)
            .and_then(|()| FileWriter::open(&self.host, path, false, &self.user.name));
        let mut writer = match writer {
            Ok(writer) => writer,
            Err(error) => return Self::scp_error(io, &format!("{path}: {error}")),
        };
        io.stdout.write(OK);
        let mut left = size;
        while left > 0 {
            let mut chunk = io.stdin.chunk().await;
            if chunk.is_empty() {
                return 1;
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            writer.write(&chunk.split_to(take));
            left -= take as u64;
            if !chunk.is_empty() {
                io.stdin.unread(chunk).await;
            }
        }
        drop(writer);
        if let Ok(node) = self.host.system().files.get_mut(path) {
            node.mode = mode & 0o7777;
        }
        // The sender closes the file with its own status byte.
        let end = io.stdin.exactly(1).await;
        io.stdout.write(OK);
        i32::from(end.first() != Some(&0))
    }

    async fn source_file(&mut self, path: &str, shown: &str, io: &Io) -> i32 {
        let found = {
            let system = self.host.system();
            system.files.get(path).map(|node| (node.mode, node.kind.clone()))
        };
        let (mode, bytes) = match found {
            Ok((mode, Kind::File(Content::Bytes(bytes)))) => (mode, bytes),
            Ok((_, Kind::File(_))) => {
                return Self::scp_error(io, &format!("{shown}: too large to be kept by a simulated guest"));
            }
            Ok(_) => return Self::scp_error(io, &format!("{shown}: not a regular file")),
            Err(error) => return Self::scp_error(io, &format!("{shown}: {error}")),
        };
        if io.stdin.exactly(1).await.first() != Some(&0) {
            return 1;
        }
        io.stdout
            .write(format!("C{:04o} {} {}\n", mode & 0o7777, bytes.len(), base_name(path)));
        if io.stdin.exactly(1).await.first() != Some(&0) {
            return 1;
        }
        io.stdout.write(bytes);
        io.stdout.write(OK);
        i32::from(io.stdin.exactly(1).await.first() != Some(&0))
    }
}
