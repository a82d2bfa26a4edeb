//! `test`, `[` and `[[`.

use crate::engine::simulated::files::Kind;
use crate::engine::simulated::pattern::matches_pattern;
use crate::engine::simulated::shell::io::Io;
use crate::engine::simulated::shell::syntax::Word;
use crate::engine::simulated::shell::{Flow, Shell, Unwind, sed};

/// The words of one test and how far they were read.
struct Reader<'a> {
    words: &'a [String],
    /// The same words as patterns, for `[[ x == pattern ]]`; empty for `test`.
    patterns: &'a [String],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.at).map(String::as_str)
    }

    fn left(&self) -> usize {
        self.words.len() - self.at
    }
}

impl Shell {
    pub(super) fn test_command(&self, name: &str, args: &[String], io: &Io) -> i32 {
        let words = match (name, args.split_last()) {
            ("[", Some((last, words))) if last == "]" => words,
            ("[", _) => {
                io.stderr.line(format!("{}: line 1: [: missing `]'", self.name));
                return 2;
            }
            _ => args,
        };
        self.evaluate_test(words, &[], io)
    }

    /// `[[ ... ]]`
    pub(in crate::engine::simulated::shell) async fn double_bracket(&mut self, words: &[Word], io: &Io) -> Flow {
        let mut values = Vec::new();
        let mut patterns = Vec::new();
        for word in words {
            let expanded = match self.expand_one(word, io).await {
                Ok(value) => self.expand_pattern(word, io).await.map(|pattern| (value, pattern)),
                Err(complaint) => Err(complaint),
            };
            match expanded {
                Ok((value, pattern)) => {
                    values.push(value);
                    patterns.push(pattern);
                }
                Err(complaint) => {
                    self.complain(io, &complaint);
                    return Err(Unwind::Exit(1));
                }
            }
        }
        Ok(self.evaluate_test(&values, &patterns, io))
    }

    fn evaluate_test(&self, words: &[String], patterns: &[String], io: &Io) -> i32 {
        if words.is_empty() {
            return 1;
        }
        let mut reader = Reader { words, patterns, at: 0 };
        match self.either(&mut reader, 0) {
            Ok(value) if reader.left() == 0 => i32::from(!value),
            Ok(_) => {
                self.complain(io, "test: too many arguments");
                2
            }
            Err(complaint) => {
                self.complain(io, &format!("test: {complaint}"));
                2
            }
        }
    }

    fn either(&self, reader: &mut Reader<'_>, depth: u32) -> Result<bool, String> {
        let mut value = self.both(reader, depth)?;
        while matches!(reader.peek(), Some("-o" | "||")) {
            reader.at += 1;
            let right = self.both(reader, depth)?;
            value |= right;
        }
        Ok(value)
    }

    fn both(&self, reader: &mut Reader<'_>, depth: u32) -> Result<bool, String> {
        let mut value = self.one(reader, depth)?;
        while matches!(reader.peek(), Some("-a" | "&&")) && reader.left() > 1 {
            reader.at += 1;
            let right = self.one(reader, depth)?;
            value &= right;
        }
        Ok(value)
    }

    fn one(&self, reader: &mut Reader<'_>, depth: u32) -> Result<bool, String> {
        if depth > 20 {
            return Err("expression too deep".to_owned());
        }
        let first = reader.peek().ok_or("argument expected")?.to_owned();
        let operator = reader.words.get(reader.at + 1).map(String::as_str);
        let is_binary = operator.is_some_and(|operator| {
            matches!(
                operator,
                "=" | "=="
                    | "!="
                    | "=~"
                    | "<"
                    | ">"
                    | "-eq"
                    | "-ne"
                    | "-lt"
                    | "-le"
                    | "-gt"
                    | "-ge"
                    | "-nt"
                    | "-ot"
                    | "-ef"
            )
        });
        if is_binary && reader.left() >= 3 {
            let right = reader.words[reader.at + 2].clone();
            let pattern = reader.patterns.get(reader.at + 2).cloned();
            let operator = operator.unwrap_or_default().to_owned();
            reader.at += 3;
            return self.binary_test(&first, &operator, &right, pattern.as_deref());
        }
        reader.at += 1;
        match first.as_str() {
            "!" if reader.left() > 0 => Ok(!self.one(reader, depth + 1)?),
            "(" if reader.left() > 0 => {
                let value = self.either(reader, depth + 1)?;
                if reader.peek() != Some(")") {
                    return Err("`)' expected".to_owned());
                }
                reader.at += 1;
                Ok(value)
            }
            flag if flag.len() == 2 && flag.starts_with('-') && reader.left() > 0 => {
                let operand = reader.words[reader.at].clone();
                reader.at += 1;
                self.unary_test(flag, &operand)
            }
            text => Ok(!text.is_empty()),
        }
    }

    fn unary_test(&self, flag: &str, operand: &str) -> Result<bool, String> {
        let path = self.path(operand);
        let system = self.host.system();
        let node = system.files.get(&path);
        let root = self.user.uid == 0;
        Ok(match flag {
            "-z" => operand.is_empty(),
            "-n" => !operand.is_empty(),
            "-e" | "-a" => node.is_ok(),
            "-f" => node.is_ok_and(|node| matches!(node.kind, Kind::File(_))),
            "-d" => node.is_ok_and(|node| node.kind == Kind::Dir),
            "-c" => node.is_ok_and(|node| node.kind == Kind::Null),
            "-L" | "-h" => system
                .files
                .get_no_follow(&path)
                .is_ok_and(|node| matches!(node.kind, Kind::Link(_))),
            "-s" => system.files.content(&path).is_ok_and(|content| content.size() > 0),
            "-x" => node.is_ok_and(|node| node.mode & 0o111 != 0),
            "-r" => node.is_ok_and(|node| root || node.mode & 0o444 != 0),
            "-w" => node.is_ok_and(|node| root || node.owner == self.user.name || node.mode & 0o002 != 0),
            "-v" => self.get(operand).is_some(),
            // No terminal, no devices, no sockets here.
            "-t" | "-b" | "-p" | "-S" => false,
            other => return Err(format!("{other}: unary operator expected")),
        })
    }

    fn binary_test(&self, left: &str, operator: &str, right: &str, pattern: Option<&str>) -> Result<bool, String> {
        let number = |text: &str| {
            text.trim()
                .parse::<i64>()
                .map_err(|_| format!("{text}: integer expression expected"))
        };
        Ok(match operator {
            "=" | "==" => pattern.map_or(left == right, |pattern| matches_pattern(pattern, left)),
            "!=" => !pattern.map_or(left == right, |pattern| matches_pattern(pattern, left)),
            "=~" => sed::regex(right, true, false)?.is_match(left),
            "<" => left < right,
            ">" => left > right,
            "-eq" => number(left)? == number(right)?,
            "-ne" => number(left)? != number(right)?,
            "-lt" => number(left)? < number(right)?,
            "-le" => number(left)? <= number(right)?,
            "-gt" => number(left)? > number(right)?,
            "-ge" => number(left)? >= number(right)?,
            "-ef" => {
                let system = self.host.system();
                system.files.resolve(&self.path(left), true) == system.files.resolve(&self.path(right), true)
            }
            // The tree keeps no times.
            other => return Err(format!("{other}: not supported here")),
        })
    }
}
