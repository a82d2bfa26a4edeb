//! Programs that read and write text.

use base64::Engine as _;
use bytes::Bytes;
use sha2::{Digest, Sha256, Sha512};

use crate::engine::simulated::files::{Content, FsError};
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::{FileWriter, Io};
use crate::engine::simulated::shell::sed::{Sed, regex};

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
                let mut letters = letters.char_indices();
                while let Some((at, letter)) = letters.next() {
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
    pub(super) fn echo(args: &[String], io: &Io) -> i32 {
        let mut newline = true;
        let mut escapes = false;
        let mut rest = args;
        while let Some(flags) = rest
            .first()
            .and_then(|arg| arg.strip_prefix('-'))
            .filter(|flags| !flags.is_empty())
        {
            if !flags.chars().all(|c| matches!(c, 'n' | 'e' | 'E')) {
                break;
            }
            newline &= !flags.contains('n');
            escapes |= flags.contains('e');
            rest = &rest[1..];
        }
        let text = rest.join(" ");
        let text = if escapes { unescape(&text) } else { text };
        io.stdout.write(if newline { text + "\n" } else { text });
        0
    }

    pub(super) fn printf(&self, args: &[String], io: &Io) -> i32 {
        let args = if args.first().is_some_and(|arg| arg == "--") {
            &args[1..]
        } else {
            args
        };
        let Some((format, values)) = args.split_first() else {
            self.complain(io, "printf: usage: printf [-v var] format [arguments]");
            return 2;
        };
        let mut output = String::new();
        let mut values = values.iter();
        loop {
            let before = values.len();
            print_once(format, &mut values, &mut output);
            // The format is used again as long as it takes arguments that are left.
            if values.len() == 0 || values.len() == before {
                break;
            }
        }
        io.stdout.write(output);
        0
    }

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

    async fn sed(&self, args: &[String], io: &Io) -> i32 {
        // `-i` takes its suffix attached, so it is a flag here.
        let sorted = Args::new(args, "e");
        let in_place = args
            .iter()
            .any(|arg| arg.starts_with("-i") || arg.starts_with("--in-place"));
        let mut scripts: Vec<String> = sorted
            .values
            .iter()
            .filter(|(letter, _)| *letter == 'e')
            .map(|(_, value)| value.clone())
            .collect();
        let mut files = sorted.rest.clone();
        if scripts.is_empty() {
            if files.is_empty() {
                io.stderr
                    .line("Usage: sed [OPTION]... {script-only-if-no-other-script} [input-file]...");
                return 1;
            }
            scripts.push(files.remove(0));
        }
        let sed = match Sed::new(&scripts, sorted.has('E') || sorted.has('r'), sorted.has('n')) {
            Ok(sed) => sed,
            Err(complaint) => {
                io.stderr.line(format!("sed: {complaint}"));
                return 1;
            }
        };
        if !in_place {
            let (bytes, status) = self.input("sed", &files, io).await;
            io.stdout.write(sed.apply(&String::from_utf8_lossy(&bytes)));
            return if status == 0 { 0 } else { 2 };
        }
        let mut status = 0;
        for file in &files {
            let path = self.path(file);
            let edited = self.read_input(file, io).await.and_then(|bytes| {
                self.may_write(&path)?;
                let text = sed.apply(&String::from_utf8_lossy(&bytes));
                self.host
                    .system()
                    .files
                    .write(&path, Content::Bytes(text.into()), 0o644, &self.user.name)
            });
            if let Err(error) = edited {
                io.stderr.line(format!("sed: can't read {file}: {error}"));
                status = 2;
            }
        }
        status
    }

    async fn grep(&self, name: &str, args: &[String], io: &Io) -> i32 {
        let mut args = Args::new(args, "eABCm");
        let pattern = match args.value('e') {
            Some(pattern) => pattern.to_owned(),
            None if args.rest.is_empty() => return 2,
            None => args.rest.remove(0),
        };
        let fixed = args.has('F') || name == "fgrep";
        let extended = args.has('E') || args.has('P') || name == "egrep";
        let mut text = if fixed { regex_lite::escape(&pattern) } else { pattern };
        if args.has('w') {
            text = if extended || fixed {
                format!("\\b({text})\\b")
            } else {
                format!("\\b\\({text}\\)\\b")
            };
        }
        if args.has('x') {
            text = format!("^{text}$");
        }
        let compiled = match regex(&text, extended || fixed, args.has('i')) {
            Ok(compiled) => compiled,
            Err(complaint) => {
                io.stderr.line(format!("grep: {complaint}"));
                return 2;
            }
        };
        let quiet_errors = if args.has('s') {
            Io {
                stderr: crate::engine::simulated::shell::io::Output::Null,
                ..io.clone()
            }
        } else {
            io.clone()
        };
        let (bytes, status) = self.input("grep", &args.rest, &quiet_errors).await;
        let text = String::from_utf8_lossy(&bytes);
        let mut count = 0;
        for (number, line) in text.lines().enumerate() {
            if compiled.is_match(line) == args.has('v') {
                continue;
            }
            count += 1;
            if args.has('q') || args.has('c') || args.has('l') {
                continue;
            }
            let prefix = if args.has('n') {
                format!("{}:", number + 1)
            } else {
                String::new()
            };
            if args.has('o') {
                for found in compiled.find_iter(line) {
                    io.stdout.line(format!("{prefix}{}", found.as_str()));
                }
            } else {
                io.stdout.line(format!("{prefix}{line}"));
            }
        }
        if args.has('c') {
            io.stdout.line(count.to_string());
        }
        if args.has('l') && count > 0 {
            io.stdout
                .line(args.rest.first().map_or("(standard input)", String::as_str));
        }
        match (count, status) {
            (0, 0) => 1,
            (0, _) => 2,
            _ => 0,
        }
    }

    async fn numbers(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        if name == "expr" {
            return match self.arithmetic(&args.join(" "), io).await {
                Ok(value) => {
                    io.stdout.line(value.to_string());
                    i32::from(value == 0)
                }
                Err(complaint) => {
                    io.stderr.line(format!("expr: {complaint}"));
                    2
                }
            };
        }
        let numbers: Vec<i64> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
        let (first, step, last) = match numbers[..] {
            [last] => (1, 1, last),
            [first, last] => (first, 1, last),
            [first, step, last] if step != 0 => (first, step, last),
            _ => {
                io.stderr.line("seq: missing operand");
                return 1;
            }
        };
        let mut value = first;
        // A bound keeps a slip in a script from filling the memory.
        for _ in 0..100_000 {
            if (step > 0 && value > last) || (step < 0 && value < last) {
                break;
            }
            io.stdout.line(value.to_string());
            value += step;
        }
        0
    }

    async fn filter(&self, name: &str, args: &[String], io: &Io) -> i32 {
        let valued = match name {
            "head" | "tail" => "nc",
            "cut" => "dfc",
            "sort" => "kt",
            "base64" => "w",
            _ => "",
        };
        let args = Args::new(args, valued);
        let files = if name == "tr" { &[][..] } else { &args.rest };
        let (bytes, status) = self.input(name, files, io).await;
        let text = String::from_utf8_lossy(&bytes);
        match name {
            "head" | "tail" => {
                if let Some(count) = args.value('c').and_then(|count| count.parse::<usize>().ok()) {
                    let count = count.min(bytes.len());
                    let part = if name == "head" {
                        &bytes[..count]
                    } else {
                        &bytes[bytes.len() - count..]
                    };
                    io.stdout.write(part.to_vec());
                    return status;
                }
                // `head -5` is `head -n 5`: the digits came in as flags.
                let digits = args.flags.parse::<usize>().ok();
                let given = args.value('n').unwrap_or("10");
                let count = digits.unwrap_or_else(|| given.trim_start_matches(['+', '-']).parse().unwrap_or(10));
                let lines: Vec<&str> = text.lines().collect();
                let part = match name {
                    "head" if given.starts_with('-') => &lines[..lines.len().saturating_sub(count)],
                    "head" => &lines[..count.min(lines.len())],
                    _ if given.starts_with('+') => &lines[count.saturating_sub(1).min(lines.len())..],
                    _ => &lines[lines.len().saturating_sub(count)..],
                };
                for line in part {
                    io.stdout.line(line);
                }
            }
            "wc" => {
                let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
                let words = text.split_whitespace().count();
                let mut parts = Vec::new();
                let all = !['l', 'w', 'c', 'm'].iter().any(|letter| args.has(*letter));
                if all || args.has('l') {
                    parts.push(lines.to_string());
                }
                if all || args.has('w') {
                    parts.push(words.to_string());
                }
                if all || args.has('c') || args.has('m') {
                    parts.push(bytes.len().to_string());
                }
                parts.extend(args.rest.first().cloned());
                io.stdout.line(parts.join(" "));
            }
            "tr" => io.stdout.write(translate(&text, &args)),
            "cut" => {
                let delimiter = args.value('d').and_then(|text| text.chars().next()).unwrap_or('\t');
                let ranges = args.value('f').or_else(|| args.value('c')).unwrap_or("1-");
                for line in text.lines() {
                    let separator = delimiter.to_string();
                    if args.value('c').is_some() {
                        let characters: Vec<String> = line.chars().map(String::from).collect();
                        io.stdout.line(pick(&characters, ranges).concat());
                    } else if line.contains(delimiter) {
                        let fields: Vec<String> = line.split(delimiter).map(str::to_owned).collect();
                        io.stdout.line(pick(&fields, ranges).join(&separator));
                    } else if !args.has('s') {
                        io.stdout.line(line);
                    }
                }
            }
            "sort" => {
                let mut lines: Vec<&str> = text.lines().collect();
                if args.has('n') {
                    let value = |line: &str| {
                        line.trim()
                            .split(|c: char| !c.is_ascii_digit() && c != '-')
                            .next()
                            .and_then(|number| number.parse::<i64>().ok())
                            .unwrap_or(0)
                    };
                    lines.sort_by_key(|line| value(line));
                } else {
                    lines.sort_unstable();
                }
                if args.has('u') {
                    lines.dedup();
                }
                if args.has('r') {
                    lines.reverse();
                }
                for line in lines {
                    io.stdout.line(line);
                }
            }
            "uniq" => {
                let mut lines: Vec<&str> = text.lines().collect();
                lines.dedup();
                for line in lines {
                    io.stdout.line(line);
                }
            }
            _ => {
                let engine = base64::engine::general_purpose::STANDARD;
                if args.has('d') {
                    let compact: Vec<u8> = bytes
                        .iter()
                        .copied()
                        .filter(|byte| !byte.is_ascii_whitespace())
                        .collect();
                    match engine.decode(compact) {
                        Ok(decoded) => io.stdout.write(decoded),
                        Err(_) => {
                            io.stderr.line("base64: invalid input");
                            return 1;
                        }
                    }
                } else {
                    let encoded = engine.encode(&bytes);
                    let width = args.value('w').and_then(|width| width.parse().ok()).unwrap_or(76);
                    if width == 0 {
                        io.stdout.write(encoded);
                    } else {
                        for chunk in encoded.as_bytes().chunks(width) {
                            io.stdout.line(String::from_utf8_lossy(chunk));
                        }
                    }
                }
            }
        }
        status
    }
}

/// Fields by `1,3-5`.
fn pick(fields: &[String], ranges: &str) -> Vec<String> {
    let wanted = |number: usize| {
        ranges.split(',').any(|range| match range.split_once('-') {
            Some((from, to)) => {
                let from = from.parse().unwrap_or(1);
                let to = to.parse().unwrap_or(usize::MAX);
                (from..=to).contains(&number)
            }
            None => range.parse() == Ok(number),
        })
    };
    fields
        .iter()
        .enumerate()
        .filter(|(index, _)| wanted(index + 1))
        .map(|(_, field)| field.clone())
        .collect()
}

/// `tr`: sets with ranges and the classes that scripts use.
fn translate(text: &str, args: &Args) -> String {
    let set = |text: &str| -> Vec<char> {
        let text = text
            .replace("[:upper:]", "A-Z")
            .replace("[:lower:]", "a-z")
            .replace("[:digit:]", "0-9")
            .replace("[:alnum:]", "a-zA-Z0-9")
            .replace("[:space:]", " \t\n\r");
        let text: Vec<char> = unescape(&text).chars().collect();
        let mut found = Vec::new();
        let mut at = 0;
        while at < text.len() {
            if text.get(at + 1) == Some(&'-') && at + 2 < text.len() && text[at] <= text[at + 2] {
                found.extend(text[at]..=text[at + 2]);
                at += 3;
            } else {
                found.push(text[at]);
                at += 1;
            }
        }
        found
    };
    let first = args.rest.first().map(|text| set(text)).unwrap_or_default();
    let complement = args.has('c');
    let hit = |c: char| first.contains(&c) != complement;
    if args.has('d') {
        return text.chars().filter(|c| !hit(*c)).collect();
    }
    let second = args.rest.get(1).map(|text| set(text)).unwrap_or_default();
    let mut output = String::new();
    let mut last = None;
    for c in text.chars() {
        let mapped = match (hit(c), second.last()) {
            (true, Some(fallback)) => {
                let index = if complement {
                    usize::MAX
                } else {
                    first.iter().position(|member| *member == c).unwrap_or(0)
                };
                *second.get(index).unwrap_or(fallback)
            }
            _ => c,
        };
        if args.has('s') && hit(c) && last == Some(mapped) {
            continue;
        }
        last = Some(mapped);
        output.push(mapped);
    }
    output
}

fn unescape(text: &str) -> String {
    let mut output = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            output.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => output.push('\n'),
            Some('t') => output.push('\t'),
            Some('r') => output.push('\r'),
            Some('0') => {
                let mut code = 0;
                for _ in 0..3 {
                    match chars.peek().and_then(|digit| digit.to_digit(8)) {
                        Some(digit) => {
                            code = code * 8 + digit;
                            chars.next();
                        }
                        None => break,
                    }
                }
                output.extend(char::from_u32(code));
            }
            Some('\\') => output.push('\\'),
            Some(other) => {
                output.push('\\');
                output.push(other);
            }
            None => output.push('\\'),
        }
    }
    output
}

/// One pass of `printf` over its format.
fn print_once<'a>(format: &str, values: &mut impl Iterator<Item = &'a String>, output: &mut String) {
    let format = unescape(format);
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            output.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| c.is_ascii_digit() || matches!(c, '-' | '+' | ' ' | '#' | '.')) {
            flags.push(flag);
        }
        let (width, precision) = flags
            .split_once('.')
            .map_or((flags.as_str(), None), |(width, precision)| {
                (width, precision.parse::<usize>().ok())
            });
        let left = width.contains('-');
        let zero = width.starts_with('0') && !left;
        // A width beyond this is a slip, not a wish.
        let size = width
            .trim_start_matches(['-', '+', ' ', '#', '0'])
            .parse::<usize>()
            .unwrap_or(0)
            .min(4096);
        let value = |values: &mut dyn Iterator<Item = &'a String>| values.next().cloned().unwrap_or_default();
        let text = match chars.next() {
            Some('%') => {
                output.push('%');
                continue;
            }
            Some('s') => {
                let text = value(values);
                precision.map_or(text.clone(), |precision| text.chars().take(precision).collect())
            }
            Some('b') => unescape(&value(values)),
            Some('q') => shell_words::quote(&value(values)).into_owned(),
            Some('d' | 'i' | 'u') => value(values).trim().parse::<i64>().unwrap_or(0).to_string(),
            Some('x') => format!("{:x}", value(values).trim().parse::<i64>().unwrap_or(0)),
            Some('o') => format!("{:o}", value(values).trim().parse::<i64>().unwrap_or(0)),
            Some('c') => value(values).chars().take(1).collect(),
            Some(other) => format!("%{flags}{other}"),
            None => "%".to_owned(),
        };
        let padding = size.saturating_sub(text.chars().count());
        let fill = |character: &str| character.repeat(padding);
        if left {
            output.push_str(&text);
            output.push_str(&fill(" "));
        } else {
            output.push_str(&fill(if zero { "0" } else { " " }));
            output.push_str(&text);
        }
    }
}
