//! The grammar: `<words>`, `{{ .Values }}`, and everything else as it stands.

use std::ops::Range;
use std::time::Duration;

use super::keys::{MODIFIERS, Modifier, SPECIALS, Special};
use super::{BootCommandError, BootVariable};
use crate::diagnostic::nearest;

/// A piece of a boot command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Text(String, Range<usize>),
    Special(Special),
    On(Modifier),
    Off(Modifier),
    Wait(Duration),
    Variable(BootVariable, Range<usize>),
}

/// Longer waits than this are a slip of the pen (`<wait300m>`), and would look like a hanging build.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

pub(super) fn parse(text: &str) -> Result<Vec<Item>, BootCommandError> {
    let mut items = Vec::new();
    let mut at = 0;
    let mut literal_from = 0;
    let flush = |items: &mut Vec<Item>, from: usize, to: usize| {
        if from < to {
            items.push(Item::Text(text[from..to].to_owned(), from..to));
        }
    };
    while let Some(found) = text[at..].find(['<', '{']) {
        let start = at + found;
        let parsed = if text[start..].starts_with('<') {
            word(text, start)?
        } else {
            value(text, start)?
        };
        match parsed {
            Some((item, end)) => {
                flush(&mut items, literal_from, start);
                items.push(item);
                at = end;
                literal_from = end;
            }
            None => at = start + 1,
        }
    }
    flush(&mut items, literal_from, text.len());
    Ok(items)
}

type Parsed = Result<Option<(Item, usize)>, BootCommandError>;

/// A `<word>`; `None` when the `<` is only a character.
fn word(text: &str, start: usize) -> Parsed {
    let Some(length) = text[start + 1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '.') else {
        return Ok(None);
    };
    let end = start + 1 + length;
    if length == 0 || !text[end..].starts_with('>') {
        return Ok(None);
    }
    let range = start..end + 1;
    let written = &text[start + 1..end];
    let lower = written.to_ascii_lowercase();
    if let Some(duration) = lower.strip_prefix("wait") {
        let duration = wait(duration).map_err(|reason| {
            BootCommandError::new(range.clone(), format!("`<{written}>` is no wait: {reason}"))
                .with_help("write <wait> (one second), <wait5> (seconds), <wait1m30s> or <wait500ms>")
        })?;
        return Ok(Some((Item::Wait(duration), range.end)));
    }
    if let Some(code) = lookup(SPECIALS, &lower) {
        return Ok(Some((Item::Special(Special(code)), range.end)));
    }
    // A modifier alone is pressed and released.
    if let Some(code) = lookup(MODIFIERS, &lower) {
        return Ok(Some((Item::Special(Special(code)), range.end)));
    }
    for (suffix, on) in [("on", true), ("off", false)] {
        let Some(name) = lower.strip_suffix(suffix) else {
            continue;
        };
        if let Some(code) = lookup(MODIFIERS, name) {
            let modifier = Modifier(code);
            return Ok(Some((
                if on { Item::On(modifier) } else { Item::Off(modifier) },
                range.end,
            )));
        }
        if lookup(SPECIALS, name).is_some() || name.len() == 1 {
            return Err(BootCommandError::new(
                range,
                format!("`<{written}>`: only modifiers can be held through Proxmox VE"),
            )
            .with_help("its sendkey presses and releases at once; write the key as often as it is to be typed"));
        }
    }
    let known = SPECIALS.iter().chain(MODIFIERS).map(|(name, _)| *name).chain(["wait"]);
    let error = BootCommandError::new(range, format!("`<{written}>` is no key"));
    Err(match nearest(&lower, known).first() {
        Some(near) => error.with_help(format!("did you mean <{near}>?")),
        None => error.with_help("keys are <enter>, <esc>, <tab>, <up>, <f1>, <leftCtrlOn>, <wait5> and the like"),
    })
}

fn lookup(table: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
}

/// What follows `wait`: nothing, seconds, or a duration as Go writes them.
fn wait(text: &str) -> Result<Duration, String> {
    let duration = if text.is_empty() {
        Duration::from_secs(1)
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().map_err(|_| "the number is too large".to_owned())?)
    } else {
        crate::duration::parse(text)?
    };
    if duration > LONGEST_WAIT {
        Err("it is longer than an hour".to_owned())
    } else {
        Ok(duration)
    }
}

/// A `{{ .Value }}`; `None` when the brace is only a character.
fn value(text: &str, start: usize) -> Parsed {
    let Some(inner) = text[start..].strip_prefix("{{") else {
        return Ok(None);
    };
    let Some(length) = inner.find("}}") else {
        return Err(BootCommandError::new(start..text.len(), "`{{` is not closed by `}}`"));
    };
    let range = start..start + length + 4;
    // `{{- ` and ` -}}` trim white space in Go's templates; beside a key press there is nothing to trim.
    let name = inner[..length].trim_start_matches('-').trim_end_matches('-').trim();
    match name
        .strip_prefix('.')
        .and_then(|name| name.parse::<BootVariable>().ok())
    {
        Some(variable) => Ok(Some((Item::Variable(variable, range.clone()), range.end))),
        None => Err(
            BootCommandError::new(range, format!("`{{{{ {name} }}}}` is no value of boot commands"))
                .with_help("there are {{ .HTTPIP }}, {{ .HTTPPort }} and {{ .Name }}"),
        ),
    }
}
