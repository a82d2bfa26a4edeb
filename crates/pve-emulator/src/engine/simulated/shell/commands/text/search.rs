//! `grep`, `sed`, and what counts: `seq`, `expr`.

use super::Args;
use crate::engine::simulated::files::Content;
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;
use crate::engine::simulated::shell::sed::{Sed, regex};

impl Shell {
    pub(super) async fn sed(&self, args: &[String], io: &Io) -> i32 {
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

    pub(super) async fn grep(&self, name: &str, args: &[String], io: &Io) -> i32 {
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

    pub(super) async fn numbers(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
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
}
