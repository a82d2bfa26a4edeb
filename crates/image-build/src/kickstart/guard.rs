//! Values in a filled-in kickstart: each arrives as it is, at the place where it stands, or is found out.
//!
//! The template engine marks where a value begins and ends. The text is then read as the installer reads it, and a marked
//! piece that would end a word, a quote, a line or a section is none that can stand there.

/// Begins a value that was written as it is. A noncharacter of Unicode: no text has it.
pub(crate) const PLAIN: char = '\u{fdd0}';
/// Begins a value that a filter has quoted.
pub(crate) const QUOTED: char = '\u{fdd1}';
/// Ends either.
pub(crate) const END: char = '\u{fdd2}';

/// A piece that cannot stand where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misplaced {
    /// The value.
    pub(crate) value: String,
    /// The line of the text that it stands on, counted from 1.
    pub(crate) line: usize,
    /// What is wrong with it, without a part of it: the value can be a secret.
    pub(crate) reason: &'static str,
    /// What to write instead.
    pub(crate) help: &'static str,
}

const USE_WORD: &str = "write {{ NAME | word }} without quotes around it: that makes one word of whatever it holds";
const USE_SCRIPT: &str = "a script can be told more by the environment of a provisioner; in the kickstart keep to letters, digits and \
                          - _ . / : , = + @, with blanks between quotes";

/// Whether a text holds one of the marks.
pub(crate) fn is_marked(text: &str) -> bool {
    text.contains([PLAIN, QUOTED, END])
}

/// The text without its marks.
pub(crate) fn unmarked(text: &str) -> String {
    text.replace([PLAIN, QUOTED, END], "")
}

/// A value in the text.
#[derive(Default)]
struct Value {
    text: String,
    quoted: bool,
    /// It is a block that was captured: the values are those in it.
    holds_others: bool,
}

/// The text's characters, each with the value that it belongs to, and the values.
fn read(marked: &str) -> (Vec<(char, Option<usize>)>, Vec<Value>) {
    let (mut chars, mut values, mut open) = (Vec::new(), Vec::<Value>::new(), Vec::<usize>::new());
    for c in marked.chars() {
        match c {
            PLAIN | QUOTED => {
                if let Some(outer) = open.last() {
                    values[*outer].holds_others = true;
                }
                open.push(values.len());
                values.push(Value {
                    quoted: c == QUOTED,
                    ..Value::default()
                });
            }
            END => {
                open.pop();
            }
            c => {
                if let Some(value) = open.last() {
                    values[*value].text.push(c);
                }
                chars.push((c, open.last().copied()));
            }
        }
    }
    for (_, of) in &mut chars {
        *of = of.filter(|value| !values[*value].holds_others);
    }
    (chars, values)
}

/// The first piece that cannot stand where it does.
pub(crate) fn misplaced(marked: &str) -> Option<Misplaced> {
    let (chars, values) = read(marked);
    let mut in_body = false;
    for (number, line) in (1..).zip(chars.split_inclusive(|(c, of)| *c == '\n' && of.is_none())) {
        let found = if in_body {
            in_a_section(line, &values)
        } else {
            in_a_command(line, &values)
        };
        if let Some((value, reason, help)) = found {
            return Some(Misplaced {
                value: values[value].text.clone(),
                line: number,
                reason,
                help,
            });
        }
        let text: String = line.iter().map(|(c, _)| *c).collect();
        // Only the template's own words get here: a value that begins with `%` was found out above.
        in_body = match text.split_whitespace().next().unwrap_or_default() {
            "%end" => false,
            "%include" | "%ksappend" => in_body,
            word => in_body || word.starts_with('%'),
        };
    }
    None
}

type Line<'a> = &'a [(char, Option<usize>)];
type Found = Option<(usize, &'static str, &'static str)>;

/// Where the reader of a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Bare,
    Single,
    Double,
    Comment,
}

/// Whether a character ends a line somewhere: for pykickstart, for a shell, or for a person who reads a log.
fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Reads a line as pykickstart does: `shlex.split(line, comments=True)`, POSIX mode.
fn in_a_command(line: Line<'_>, values: &[Value]) -> Found {
    let (mut at, mut escaped, mut is_first) = (At::Bare, false, true);
    // Nothing but quotes has been read of the current word.
    let mut word_begins = true;
    // Where the reader was when the current value began.
    let mut began = At::Bare;
    let mut within = None;
    for (c, of) in line.iter().copied().chain([('\n', None)]) {
        if of != within {
            if let Some(value) = within
                && (at != began || escaped)
            {
                return Some((value, "it leaves a quote open, or closes one", USE_WORD));
            }
            (within, began) = (of, at);
        }
        if let Some(value) = of {
            let reason = match (values[value].quoted, began, at, c) {
                (_, _, _, c) if breaks_line(c) => Some("it holds a line break or another control character"),
                (_, At::Comment, _, _) => None,
                (true, At::Single | At::Double, _, _) => Some("it is quoted already, and stands between quotes"),
                (true, _, At::Double, c) if escaped && !matches!(c, '"' | '\\') => {
                    Some("its escapes are those of another language")
                }
                (_, _, At::Bare, c) if c.is_whitespace() || c == '#' => {
                    Some("it holds a blank or a `#` where a single word stands")
                }
                // The installer tells options from values by this alone, quoted or not.
                (.., '-') if word_begins => Some("it begins with `-`, as an option does"),
                (_, _, At::Bare, '%') if is_first => Some("it begins with `%`, as a section does"),
                (false, _, At::Bare, '"' | '\'' | '\\')
                | (false, _, At::Double, '"' | '\\')
                | (false, _, At::Single, '\'') => Some("it holds a quote or a backslash"),
                _ => None,
            };
            if let Some(reason) = reason {
                return Some((value, reason, USE_WORD));
            }
        }
        is_first &= c.is_whitespace();
        let quotes = matches!((at, c), (At::Bare, '"' | '\'') | (At::Double, '"') | (At::Single, '\'')) && !escaped;
        word_begins = (at == At::Bare && c.is_whitespace()) || (word_begins && quotes);
        if escaped {
            escaped = false;
            continue;
        }
        match (at, c) {
            (At::Bare, '"') => at = At::Double,
            (At::Bare, '\'') => at = At::Single,
            (At::Bare, '#') => at = At::Comment,
            (At::Double, '"') | (At::Single, '\'') => at = At::Bare,
            (At::Bare | At::Double, '\\') => escaped = true,
            _ => {}
        }
    }
    None
}

/// Reads a line within a section: a script's, a package's. What a shell makes of it depends on what stands before it, so a
/// value may hold only what no shell and no list takes for its own.
fn in_a_section(line: Line<'_>, values: &[Value]) -> Found {
    let (mut quotes, mut is_first) = (0_usize, true);
    for (c, of) in line.iter().copied() {
        if let Some(value) = of {
            let inert = c.is_alphanumeric() || "-_./:,=+@".contains(c) || (c == ' ' && quotes % 2 == 1);
            let leads = is_first && matches!(c, '-' | '@' | '.');
            if !inert || leads || values[value].quoted {
                return Some((value, "it holds what a script or a list takes for its own", USE_SCRIPT));
            }
        } else if matches!(c, '"' | '\'') {
            quotes += 1;
        }
        is_first &= c.is_whitespace();
    }
    None
}

#[cfg(test)]
mod tests;
