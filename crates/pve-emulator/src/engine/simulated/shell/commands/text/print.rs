//! `echo` and `printf`.

use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;

impl Shell {
    pub(in crate::engine::simulated::shell::commands) fn echo(args: &[String], io: &Io) -> i32 {
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

    pub(in crate::engine::simulated::shell::commands) fn printf(&self, args: &[String], io: &Io) -> i32 {
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

pub(super) fn unescape(text: &str) -> String {
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
            Some('\\') | None => output.push('\\'),
            Some(other) => {
                output.push('\\');
                output.push(other);
            }
        }
    }
    output
}
