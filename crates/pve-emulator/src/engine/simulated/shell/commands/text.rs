//! Programs that read and write text.

use bytes::Bytes;
use sha2::{Digest, Sha256, Sha512};

use crate::engine::simulated::files::{Content, FsError};
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::{FileWriter, Io};

mod filters;
mod print;
mod search;

/// Options of one letter, options with a value, and the rest of a command line.
struct Args {
    flags: String,
    values: Vec<(char, String)>,
    rest: Vec<String>,
}

impl Args {
    /// Sorts a command line; `valued` are the letters that take a value. Long options keep their text in `rest`-less
    /// form: `--quiet` counts as its first letter.
    fn new(args: &[String], valued: &str) -> Self {
        let mut sorted = Self {
            flags: String::new(),
            values: Vec::new(),
            rest: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                sorted.rest.extend(args.by_ref().cloned());
            } else if let Some(long) = arg.strip_prefix("--") {
                let (name, value) = long
                    .split_once('=')
                    .map_or((long, None), |(name, value)| (name, Some(value)));
                let letter = name.chars().next().unwrap_or(' ');
                match value {
                    Some(value) => sorted.values.push((letter, value.to_owned())),
                    None => sorted.flags.push(letter),
                }
            } else if let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                for (at, letter) in letters.char_indices() {
                    if valued.contains(letter) {
                        let tail = &arg[1 + at + letter.len_utf8()..];
                        let value = if tail.is_empty() {
                            args.next().cloned().unwrap_or_default()
                        } else {
                            tail.to_owned()
                        };
                        sorted.values.push((letter, value));
                        break;
                    }
                    sorted.flags.push(letter);
                }
            } else {
                sorted.rest.push(arg.clone());
            }
        }
        sorted
    }

    fn has(&self, letter: char) -> bool {
        self.flags.contains(letter)
    }

    fn value(&self, letter: char) -> Option<&str> {
        self.values
            .iter()
            .rev()
            .find(|(given, _)| *given == letter)
            .map(|(_, value)| value.as_str())
    }
}

impl Shell {
    /// Bytes of the files named, or of standard input when none is; complaints go to stderr.
    async fn input(&self, name: &str, files: &[String], io: &Io) -> (Vec<u8>, i32) {
        let mut bytes = Vec::new();
        let mut status = 0;
        let stdin = ["-".to_owned()];
        for file in if files.is_empty() { &stdin[..] } else { files } {
            match self.read_input(file, io).await {
                Ok(part) => bytes.extend_from_slice(&part),
                Err(error) => {
                    io.stderr.line(format!("{name}: {file}: {error}"));
                    status = 1;
                }
            }
        }
        (bytes, status)
    }

    async fn read_input(&self, file: &str, io: &Io) -> Result<Bytes, FsError> {
        if matches!(file, "-" | "/dev/stdin") {
            return io.stdin.all(self.host.keep_file_bytes).await;
        }
        self.readable(file).and_then(|content| match content {
            Content::Bytes(bytes) => Ok(bytes),
            Content::Digest { .. } => Err(FsError::NotKept),
        })
    }

    fn readable(&self, file: &str) -> Result<Content, FsError> {
        if let Some(text) = self.proc_file(&self.path(file)) {
            return Ok(Content::Bytes(text.into()));
        }
        let path = self.path(file);
        let system = self.host.system();
        let node = system.files.get(&path)?;
        if self.user.uid != 0 && node.mode & 0o004 == 0 && !(node.owner == self.user.name && node.mode & 0o400 != 0) {
            return Err(FsError::Denied);
        }
        system.files.content(&path)
    }

    /// The few files of `/proc` that scripts look at.
    fn proc_file(&self, path: &str) -> Option<String> {
        Some(match path {
            "/proc/uptime" => {
                let up = self.host.booted.elapsed().as_secs_f64();
                format!("{up:.2} {up:.2}\n")
            }
            "/proc/cmdline" => "BOOT_IMAGE=(hd0,gpt3)/vmlinuz root=/dev/mapper/root ro\n".to_owned(),
            "/proc/sys/kernel/hostname" => format!("{}\n", self.host.system().hostname()),
            "/proc/sys/kernel/random/boot_id" => {
                // One id per boot, made of what is unique to this one.
                let seed = format!("{:p} {:?}", std::sync::Arc::as_ptr(&self.host), self.host.booted);
                let hash = hex::encode(&Sha256::digest(seed)[..16]);
                format!(
                    "{}-{}-{}-{}-{}\n",
                    &hash[..8],
                    &hash[8..12],
                    &hash[12..16],
                    &hash[16..20],
                    &hash[20..]
                )
            }
            _ => return None,
        })
    }

    pub(super) async fn text_command(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        match name {
            "cat" => self.cat(args, io).await,
            "tee" => self.tee(args, io).await,
            "sha256sum" | "sha512sum" | "md5sum" => self.checksums(name, args, io).await,
            "sed" => self.sed(args, io).await,
            "grep" | "egrep" | "fgrep" => self.grep(name, args, io).await,
            "seq" | "expr" => self.numbers(name, args, io).await,
            _ => self.filter(name, args, io).await,
        }
    }

    async fn cat(&self, args: &[String], io: &Io) -> i32 {
        let args = Args::new(args, "");
        let mut status = 0;
        let stdin = ["-".to_owned()];
        for file in if args.rest.is_empty() { &stdin[..] } else { &args.rest } {
            if matches!(file.as_str(), "-" | "/dev/stdin") {
                // Streamed: uploads come this way, and must not be held twice.
                loop {
                    let chunk = io.stdin.chunk().await;
                    if chunk.is_empty() {
                        break;
                    }
                    io.stdout.write(chunk);
                }
                continue;
            }
            match self.read_input(file, io).await {
                Ok(bytes) => io.stdout.write(bytes),
                Err(error) => {
                    io.stderr.line(format!("cat: {file}: {error}"));
                    status = 1;
                }
            }
        }
        status
    }

    async fn tee(&self, args: &[String], io: &Io) -> i32 {
        let args = Args::new(args, "");
        let mut writers = Vec::new();
        let mut status = 0;
        for file in &args.rest {
            let path = self.path(file);
            let opened = self
                .may_write(&path)
                .and_then(|()| FileWriter::open(&self.host, &path, args.has('a'), &self.user.name));
            match opened {
                Ok(writer) => writers.push(writer),
                Err(error) => {
                    io.stderr.line(format!("tee: {file}: {error}"));
                    status = 1;
                }
            }
        }
        loop {
            let chunk = io.stdin.chunk().await;
            if chunk.is_empty() {
                return status;
            }
            for writer in &mut writers {
                writer.write(&chunk);
            }
            io.stdout.write(chunk);
        }
    }

    async fn checksums(&self, name: &str, args: &[String], io: &Io) -> i32 {
        let args = Args::new(args, "");
        if args.has('c') {
            return self.check_sums(name, &args, io).await;
        }
        let mut status = 0;
        let stdin = ["-".to_owned()];
        for file in if args.rest.is_empty() { &stdin[..] } else { &args.rest } {
            match self.sum(name, file, io).await {
                Ok(sum) => io.stdout.line(format!("{sum}  {file}")),
                Err(error) => {
                    io.stderr.line(format!("{name}: {file}: {error}"));
                    status = 1;
                }
            }
        }
        status
    }

    async fn sum(&self, name: &str, file: &str, io: &Io) -> Result<String, String> {
        if file == "-" && name == "sha256sum" {
            let mut hash = Sha256::new();
            loop {
                let chunk = io.stdin.chunk().await;
                if chunk.is_empty() {
                    return Ok(hex::encode(hash.finalize()));
                }
                hash.update(&chunk);
            }
        }
        let content = if file == "-" {
            Content::Bytes(
                io.stdin
                    .all(self.host.keep_file_bytes)
                    .await
                    .map_err(|error| error.to_string())?,
            )
        } else {
            self.readable(file).map_err(|error| error.to_string())?
        };
        match (name, content) {
            ("sha256sum", content) => Ok(content.sha256()),
            ("sha512sum", Content::Bytes(bytes)) => Ok(hex::encode(Sha512::digest(&bytes))),
            ("sha512sum", Content::Digest { .. }) => Err(FsError::NotKept.to_string()),
            _ => Err("MD5 is not built in".to_owned()),
        }
    }

    async fn check_sums(&self, name: &str, args: &Args, io: &Io) -> i32 {
        let (list, mut status) = self.input(name, &args.rest, io).await;
        let mut checked = 0;
        for line in String::from_utf8_lossy(&list).lines() {
            let Some((expected, file)) = line.split_once(' ') else {
                continue;
            };
            let file = file.trim_start_matches([' ', '*']);
            checked += 1;
            match self.sum(name, file, io).await {
                Ok(sum) if sum.eq_ignore_ascii_case(expected) => {
                    if !args.has('q') && !args.has('s') {
                        io.stdout.line(format!("{file}: OK"));
                    }
                }
                Ok(_) => {
                    io.stdout.line(format!("{file}: FAILED"));
                    io.stderr
                        .line(format!("{name}: WARNING: 1 computed checksum did NOT match"));
                    status = 1;
                }
                Err(error) => {
                    io.stderr.line(format!("{name}: {file}: {error}"));
                    status = 1;
                }
            }
        }
        if checked == 0 {
            io.stderr
                .line(format!("{name}: no properly formatted checksum lines found"));
            return 1;
        }
        status
    }
}
