//! `sed`: substitutions, deletions and prints of lines, which is what system scripts edit files with.

use regex_lite::Regex;

/// One command with the lines it applies to.
#[derive(Debug)]
struct Command {
    address: Option<Regex>,
    negated: bool,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Substitute {
        pattern: Regex,
        replacement: String,
        all: bool,
        print: bool,
    },
    Delete,
    Print,
    Quit,
    Append(String),
}

/// A parsed script.
#[derive(Debug)]
pub(super) struct Sed {
    commands: Vec<Command>,
    quiet: bool,
}

impl Sed {
    /// Parses the scripts given with `-e`.
    ///
    /// # Errors
    /// What this `sed` cannot do, in one line.
    pub(super) fn new(scripts: &[String], extended: bool, quiet: bool) -> Result<Self, String> {
        let mut commands = Vec::new();
        for script in scripts {
            let mut rest = script.trim_start();
            while !rest.is_empty() {
                let (command, after) = parse_command(rest, extended)?;
                commands.push(command);
                rest = after.trim_start_matches([' ', ';', '\n', '\t']);
            }
        }
        Ok(Self { commands, quiet })
    }

    /// Edits a text.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut output = String::new();
        'lines: for line in text.lines() {
            let mut line = line.to_owned();
            let mut after = String::new();
            for command in &self.commands {
                let hit = command.address.as_ref().is_none_or(|address| address.is_match(&line));
                if hit == command.negated {
                    continue;
                }
                match &command.action {
                    Action::Substitute {
                        pattern,
                        replacement,
                        all,
                        print,
                    } => {
                        let limit = usize::from(!*all);
                        let hit = pattern.is_match(&line);
                        line = pattern.replacen(&line, limit, replacement.as_str()).into_owned();
                        if *print && hit {
                            output.push_str(&line);
                            output.push('\n');
                        }
                    }
                    Action::Delete => continue 'lines,
                    Action::Print => {
                        output.push_str(&line);
                        output.push('\n');
                    }
                    Action::Append(text) => {
                        after.push_str(text);
                        after.push('\n');
                    }
                    Action::Quit => {
                        if !self.quiet {
                            output.push_str(&line);
                            output.push('\n');
                        }
                        break 'lines;
                    }
                }
            }
            if !self.quiet {
                output.push_str(&line);
                output.push('\n');
            }
            output.push_str(&after);
        }
        output
    }
}

fn parse_command(text: &str, extended: bool) -> Result<(Command, &str), String> {
    let unknown = || format!("unsupported command: `{text}'");
    let (address, rest) = match text.strip_prefix('/') {
        Some(rest) => {
            let (pattern, rest) = until(rest, '/').ok_or_else(unknown)?;
            (Some(regex(&pattern, extended, false)?), rest)
        }
        None => (None, text),
    };
    let rest = rest.trim_start();
    let (negated, rest) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest));
    let mut chars = rest.chars();
    let action = match chars.next() {
        Some('d') => Action::Delete,
        Some('p') => Action::Print,
        Some('q') => Action::Quit,
        Some('a') => {
            let text = chars.as_str().trim_start_matches(['\\', '\n', ' ']);
            return Ok((
                Command {
                    address,
                    negated,
                    action: Action::Append(text.to_owned()),
                },
                "",
            ));
        }
        Some('s') => {
            let delimiter = chars.next().ok_or_else(unknown)?;
            let (pattern, rest) = until(chars.as_str(), delimiter).ok_or_else(unknown)?;
            let (replacement, rest) = until(rest, delimiter).ok_or_else(unknown)?;
            let flags: String = rest
                .chars()
                .take_while(|c| matches!(c, 'g' | 'I' | 'i' | 'p'))
                .collect();
            let pattern = regex(&pattern, extended, flags.contains(['i', 'I']))?;
            let action = Action::Substitute {
                pattern,
                replacement: template(&replacement),
                all: flags.contains('g'),
                print: flags.contains('p'),
            };
            return Ok((
                Command {
                    address,
                    negated,
                    action,
                },
                &rest[flags.len()..],
            ));
        }
        _ => return Err(unknown()),
    };
    Ok((
        Command {
            address,
            negated,
            action,
        },
        chars.as_str(),
    ))
}

/// The text up to an unescaped delimiter, and what follows it.
fn until(text: &str, delimiter: char) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == delimiter {
            return Some((found, &text[at + c.len_utf8()..]));
        }
        if c == '\\' {
            let (_, next) = chars.next()?;
            if next != delimiter {
                found.push('\\');
            }
            found.push(next);
        } else {
            found.push(c);
        }
    }
    None
}

/// A POSIX expression for the regex library. Basic ones have the meaning of `\(` and `(` swapped.
pub(super) fn regex(pattern: &str, extended: bool, ignore_case: bool) -> Result<Regex, String> {
    let mut text = String::from(if ignore_case { "(?i)" } else { "" });
    if extended {
        text.push_str(&brackets(pattern));
    } else {
        let mut chars = pattern.chars();
        let mut in_class = false;
        while let Some(c) = chars.next() {
            match c {
                _ if in_class => {
                    in_class = c != ']';
                    text.push(c);
                }
                '[' => {
                    in_class = true;
                    text.push(c);
                }
                '\\' => match chars.next() {
                    Some(c @ ('(' | ')' | '{' | '}' | '+' | '?' | '|')) => text.push(c),
                    Some(c) => {
                        text.push('\\');
                        text.push(c);
                    }
                    None => text.push_str("\\\\"),
                },
                '(' | ')' | '{' | '}' | '+' | '?' | '|' => {
                    text.push('\\');
                    text.push(c);
                }
                // A star at the beginning of a basic expression stands for itself.
                '*' if text.is_empty() => text.push_str("\\*"),
                c => text.push(c),
            }
        }
    }
    Regex::new(&text).map_err(|error| format!("invalid expression `{pattern}': {error}"))
}

/// Bracket expressions in the regex library's spelling: within them a bracket stands for itself, unless it opens a class such as
/// `[:space:]`.
fn brackets(pattern: &str) -> String {
    let mut text = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        text.push(c);
        match c {
            '\\' => text.extend(chars.next()),
            '[' => {
                text.extend(chars.next_if_eq(&'^'));
                // A closing bracket at the beginning stands for itself too.
                if chars.next_if_eq(&']').is_some() {
                    text.push_str("\\]");
                }
                while let Some(c) = chars.next() {
                    match c {
                        '[' if chars.peek() == Some(&':') => {
                            text.push('[');
                            for c in chars.by_ref() {
                                text.push(c);
                                if c == ']' {
                                    break;
                                }
                            }
                        }
                        '[' => text.push_str("\\["),
                        '\\' => text.push_str("\\\\"),
                        c => {
                            text.push(c);
                            if c == ']' {
                                break;
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    text
}

/// A replacement in the regex library's spelling: `&` is the match, `\1` a group.
fn template(replacement: &str) -> String {
    let mut text = String::new();
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => text.push_str("$$"),
            '&' => text.push_str("${0}"),
            '\\' => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    text.push_str("${");
                    text.push(digit);
                    text.push('}');
                }
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits() {
        for (script, extended, quiet, input, output) in [
            (
                "s/^SELINUX=.*/SELINUX=permissive/",
                false,
                false,
                "A\nSELINUX=enforcing\n",
                "A\nSELINUX=permissive\n",
            ),
            ("s|/a/|/b/|g", false, false, "/a/x/a/\n", "/b/x/b/\n"),
            ("s/a/b/", false, false, "aa\n", "ba\n"),
            ("s/\\(x\\)\\(y\\)/\\2\\1/", false, false, "xy\n", "yx\n"),
            ("s/(x)(y)/\\2$1&/", true, false, "xy\n", "y$1xy\n"),
            ("/^#/d; s/b/c/", false, false, "# a\nb\n", "c\n"),
            ("/keep/!d", false, false, "a\nkeep\n", "keep\n"),
            ("/b/p", false, true, "a\nb\n", "b\n"),
            ("s/FOO/bar/I", false, false, "foo\n", "bar\n"),
            ("s/^K=//p", false, true, "K=1\nL=2\nK=3\n", "1\n3\n"),
            ("s/[][.]/_/g", true, false, "a[b].c\n", "a_b__c\n"),
            ("/^[[:space:]]*(#|$)/d", true, false, "  # a\n\nb\n", "b\n"),
            ("s/a/b/gp", false, false, "aa\nc\n", "bb\nbb\nc\n"),
        ] {
            let sed = Sed::new(&[script.to_owned()], extended, quiet).unwrap();
            assert_eq!(sed.apply(input), output, "{script}");
        }
        assert!(Sed::new(&["y/a/b/".to_owned()], false, false).is_err());
        assert!(Sed::new(&["s/[/b/".to_owned()], false, false).is_err());
    }
}
