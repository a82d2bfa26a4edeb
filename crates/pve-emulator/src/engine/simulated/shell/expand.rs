//! Words to values: parameters, substitutions, splitting, patterns.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::io::{Io, Output};
use super::syntax::{Parameter, ParameterOp, Word, WordPart};
use super::{Shell, Variable};
use crate::engine::simulated::files::normalise;
use crate::engine::simulated::host::lock;
use crate::engine::simulated::pattern::matches_pattern;

type Expanded<T> = Result<T, String>;

/// One field in the making: its text, and the same text with quoted characters escaped, as a pattern.
#[derive(Default)]
struct Field {
    text: String,
    pattern: String,
}

impl Field {
    fn push(&mut self, text: &str, quoted: bool) {
        self.text.push_str(text);
        for c in text.chars() {
            if quoted && matches!(c, '*' | '?' | '[' | ']' | '\\') {
                self.pattern.push('\\');
            }
            self.pattern.push(c);
        }
    }
}

/// Whether a word holds a command substitution.
pub(super) fn has_substitution(word: &Word) -> bool {
    word.iter().any(|part| matches!(part, WordPart::Substitution { .. }))
}

impl Shell {
    /// Expands words to fields: split at blanks, patterns matched against the tree.
    pub(super) async fn expand_words(&mut self, words: &[Word], io: &Io) -> Expanded<Vec<String>> {
        let mut values = Vec::new();
        for word in words {
            for field in self.fields(word, io).await? {
                if !self.options.noglob && has_glob(&field.pattern) {
                    let matches = self.glob(&field.pattern);
                    if !matches.is_empty() {
                        values.extend(matches);
                        continue;
                    }
                }
                values.push(field.text);
            }
        }
        Ok(values)
    }

    /// Expands a word to one value: no splitting, no patterns.
    pub(super) fn expand_one<'a>(&'a mut self, word: &'a Word, io: &'a Io) -> BoxFuture<'a, Expanded<String>> {
        async move { Ok(self.joined(word, io).await?.text) }.boxed()
    }

    /// Expands a word to a pattern in which what was quoted is escaped.
    pub(super) async fn expand_pattern(&mut self, word: &Word, io: &Io) -> Expanded<String> {
        Ok(self.joined(word, io).await?.pattern)
    }

    async fn joined(&mut self, word: &Word, io: &Io) -> Expanded<Field> {
        let mut field = Field::default();
        for (number, part) in word.iter().enumerate() {
            match part {
                WordPart::Literal(text) => field.push(text, true),
                WordPart::Plain(text) => field.push(&self.tilde(text, number == 0), false),
                WordPart::Parameter { parameter, quoted } => {
                    let values = self.parameter(parameter, io).await?;
                    field.push(&values.join(" "), *quoted);
                }
                WordPart::Substitution { list, quoted } => {
                    let text = self.substitute(list, io).await;
                    field.push(&text, *quoted);
                }
                WordPart::Arithmetic(text) => field.push(&self.arithmetic(text, io).await?.to_string(), false),
            }
        }
        Ok(field)
    }

    async fn fields(&mut self, word: &Word, io: &Io) -> Expanded<Vec<Field>> {
        let mut done: Vec<Field> = Vec::new();
        let mut open: Option<Field> = None;
        for (number, part) in word.iter().enumerate() {
            match part {
                WordPart::Literal(text) => {
                    // "$@" without positional parameters is no field at all; the empty literal in front of it must not
                    // make one.
                    let before_at = text.is_empty() && word.get(number + 1).is_some_and(is_quoted_at);
                    if !before_at {
                        open.get_or_insert_default().push(text, true);
                    }
                }
                WordPart::Plain(text) => {
                    let text = self.tilde(text, number == 0);
                    open.get_or_insert_default().push(&text, false);
                }
                WordPart::Parameter {
                    parameter,
                    quoted: true,
                } if parameter.name == "@" && parameter.op.is_none() => {
                    let values = self.parameter(parameter, io).await?;
                    for (index, value) in values.iter().enumerate() {
                        if index > 0 {
                            done.extend(open.take());
                        }
                        open.get_or_insert_default().push(value, true);
                    }
                }
                WordPart::Parameter { parameter, quoted } => {
                    let text = self.parameter(parameter, io).await?.join(" ");
                    self.add_split(&text, *quoted, &mut open, &mut done);
                }
                WordPart::Substitution { list, quoted } => {
                    let text = self.substitute(list, io).await;
                    self.add_split(&text, *quoted, &mut open, &mut done);
                }
                WordPart::Arithmetic(text) => {
                    let value = self.arithmetic(text, io).await?.to_string();
                    open.get_or_insert_default().push(&value, false);
                }
            }
        }
        done.extend(open);
        Ok(done)
    }

    /// Adds expanded text: as it is when quoted, else split at the characters of IFS.
    fn add_split(&self, text: &str, quoted: bool, open: &mut Option<Field>, done: &mut Vec<Field>) {
        if quoted {
            open.get_or_insert_default().push(text, true);
            return;
        }
        let separators = self.get("IFS").unwrap_or(" \t\n").to_owned();
        let is_separator = |c: char| separators.contains(c);
        if text.starts_with(is_separator) {
            done.extend(open.take());
        }
        let mut pieces = text.split(is_separator).filter(|piece| !piece.is_empty()).peekable();
        while let Some(piece) = pieces.next() {
            open.get_or_insert_default().push(piece, false);
            if pieces.peek().is_some() {
                done.extend(open.take());
            }
        }
        if text.ends_with(is_separator) {
            done.extend(open.take());
        }
    }

    fn tilde(&self, text: &str, first: bool) -> String {
        let Some(rest) = text.strip_prefix('~').filter(|_| first) else {
            return text.to_owned();
        };
        let (name, tail) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let home = if name.is_empty() {
            self.get("HOME").map(str::to_owned)
        } else {
            self.host.system().user(name).map(|user| user.home)
        };
        home.map_or_else(|| text.to_owned(), |home| format!("{home}{tail}"))
    }

    async fn substitute(&mut self, list: &super::syntax::List, io: &Io) -> String {
        let (stdout, written) = Output::buffer();
        let inner = Io {
            stdin: io.stdin.clone(),
            stdout,
            stderr: io.stderr.clone(),
        };
        let mut shell = self.clone();
        shell.depth += 1;
        self.status = if shell.depth > 40 {
            1
        } else {
            shell.finish(list, &inner).await
        };
        self.steps = shell.steps;
        let bytes = std::mem::take(&mut *lock(&written));
        String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()
    }

    /// A plain parameter's values; `None` if unset.
    fn lookup(&self, name: &str) -> Option<Vec<String>> {
        let one = |value: String| Some(vec![value]);
        match name {
            "@" | "*" => Some(self.positional.clone()),
            "#" => one(self.positional.len().to_string()),
            "?" => one(self.status.to_string()),
            // No process stands behind the shell; any number that stays the same will do.
            "$" => one((1000 + self.host.vmid % 30_000).to_string()),
            "!" => None,
            "-" => one(if self.options.errexit { "ehB" } else { "hB" }.to_owned()),
            "0" => one(self.name.clone()),
            "PWD" => one(self.cwd.clone()),
            "UID" | "EUID" => one(self.user.uid.to_string()),
            "HOSTNAME" => one(self.host.system().hostname()),
            "RANDOM" => one((rand::random::<u16>() >> 1).to_string()),
            "LINENO" => one("1".to_owned()),
            "BASH_VERSION" => one("5.1.8(1)-release".to_owned()),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let number: usize = digits.parse().ok()?;
                self.positional
                    .get(number.checked_sub(1)?)
                    .cloned()
                    .map(|value| vec![value])
            }
            name => self.vars.get(name).map(|Variable { value, .. }| vec![value.clone()]),
        }
    }

    async fn parameter(&mut self, parameter: &Parameter, io: &Io) -> Expanded<Vec<String>> {
        let name = &parameter.name;
        let value = self.lookup(name);
        if parameter.length {
            let length = match (name.as_str(), &value) {
                ("@" | "*", Some(values)) => values.len(),
                (_, Some(values)) => values.join(" ").chars().count(),
                (_, None) => 0,
            };
            return Ok(vec![length.to_string()]);
        }
        let is_empty = |value: &Option<Vec<String>>, if_empty: bool| match value {
            None => true,
            Some(values) => values.is_empty() || (if_empty && values.iter().all(String::is_empty)),
        };
        let text = || value.clone().unwrap_or_default().join(" ");
        let result = match &parameter.op {
            None => {
                if value.is_none() && self.options.nounset && !matches!(name.as_str(), "@" | "*") {
                    return Err(format!("{name}: unbound variable"));
                }
                return Ok(value.unwrap_or_default());
            }
            Some(ParameterOp::Default { word, if_empty }) => {
                if !is_empty(&value, *if_empty) {
                    return Ok(value.unwrap_or_default());
                }
                self.expand_one(word, io).await?
            }
            Some(ParameterOp::Assign { word, if_empty }) => {
                if !is_empty(&value, *if_empty) {
                    return Ok(value.unwrap_or_default());
                }
                let fresh = self.expand_one(word, io).await?;
                self.set(name, fresh.clone());
                fresh
            }
            Some(ParameterOp::Alternative { word, if_empty }) => {
                if is_empty(&value, *if_empty) {
                    String::new()
                } else {
                    self.expand_one(word, io).await?
                }
            }
            Some(ParameterOp::Error { word, if_empty }) => {
                if !is_empty(&value, *if_empty) {
                    return Ok(value.unwrap_or_default());
                }
                let message = self.expand_one(word, io).await?;
                let message = if message.is_empty() {
                    "parameter null or not set"
                } else {
                    &message
                };
                return Err(format!("{name}: {message}"));
            }
            Some(ParameterOp::StripPrefix { pattern, longest }) => {
                let pattern = self.pattern_of(pattern, io).await?;
                strip(&text(), &pattern, *longest, true)
            }
            Some(ParameterOp::StripSuffix { pattern, longest }) => {
                let pattern = self.pattern_of(pattern, io).await?;
                strip(&text(), &pattern, *longest, false)
            }
            Some(ParameterOp::Replace {
                pattern,
                replacement,
                all,
            }) => {
                let pattern = self.pattern_of(pattern, io).await?;
                let replacement = self.expand_one(replacement, io).await?;
                replace(&text(), &pattern, &replacement, *all)
            }
            Some(ParameterOp::Case { upper: true }) => text().to_uppercase(),
            Some(ParameterOp::Case { upper: false }) => text().to_lowercase(),
        };
        Ok(vec![result])
    }

    fn pattern_of<'a>(&'a mut self, word: &'a Word, io: &'a Io) -> BoxFuture<'a, Expanded<String>> {
        async move { self.expand_pattern(word, io).await }.boxed()
    }

    fn glob(&self, pattern: &str) -> Vec<String> {
        let absolute = pattern.starts_with('/');
        let full = if absolute {
            pattern.to_owned()
        } else {
            format!("{}/{pattern}", self.cwd.trim_end_matches('/'))
        };
        // Links in the folders before the first pattern are followed.
        let folder = full
            .split('/')
            .take_while(|part| !has_glob(part))
            .collect::<Vec<_>>()
            .join("/");
        let rest = full[folder.len()..].to_owned();
        let system = self.host.system();
        let resolved = system
            .files
            .resolve(&normalise("/", &folder), true)
            .unwrap_or(folder.clone());
        let resolved = if resolved == "/" { "" } else { &resolved };
        system
            .files
            .glob(&format!("{resolved}{rest}"))
            .into_iter()
            .map(|path| {
                let shown = format!("{folder}{}", &path[resolved.len()..]);
                if absolute {
                    shown
                } else {
                    shown[self.cwd.trim_end_matches('/').len() + 1..].to_owned()
                }
            })
            .collect()
    }
}

fn is_quoted_at(part: &WordPart) -> bool {
    matches!(part, WordPart::Parameter { parameter, quoted: true } if parameter.name == "@" && parameter.op.is_none())
}

/// Whether a pattern has a special character that is not escaped.
fn has_glob(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Cuts what the pattern matches off the front or the back.
fn strip(text: &str, pattern: &str, longest: bool, front: bool) -> String {
    let mut cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    // The shortest match first: small cuts at the front, late ones at the back; the other way round for the longest.
    if front == longest {
        cuts.reverse();
    }
    for cut in cuts {
        let (head, tail) = text.split_at(cut);
        let (matched, rest) = if front { (head, tail) } else { (tail, head) };
        if matches_pattern(pattern, matched) {
            return rest.to_owned();
        }
    }
    text.to_owned()
}

fn replace(text: &str, pattern: &str, replacement: &str, all: bool) -> String {
    let mut result = String::new();
    let mut rest = text;
    while !rest.is_empty() && !pattern.is_empty() {
        let ends: Vec<usize> = rest
            .char_indices()
            .map(|(at, _)| at)
            .skip(1)
            .chain([rest.len()])
            .collect();
        if let Some(end) = ends
            .into_iter()
            .rev()
            .find(|end| matches_pattern(pattern, &rest[..*end]))
        {
            result.push_str(replacement);
            rest = &rest[end..];
            if !all {
                break;
            }
        } else {
            let step = rest.chars().next().map_or(0, char::len_utf8);
            result.push_str(&rest[..step]);
            rest = &rest[step..];
        }
    }
    result + rest
}
