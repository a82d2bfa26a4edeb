//! Programs that turn lines into other lines.

use base64::Engine as _;

use super::Args;
use super::print::unescape;
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;

impl Shell {
    pub(super) async fn filter(&self, name: &str, args: &[String], io: &Io) -> i32 {
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
                let lines = text.matches('\n').count();
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
                    let Ok(decoded) = engine.decode(compact) else {
                        io.stderr.line("base64: invalid input");
                        return 1;
                    };
                    io.stdout.write(decoded);
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
