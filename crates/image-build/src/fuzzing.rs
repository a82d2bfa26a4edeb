//! The parsers with what must hold of them, for the targets in `fuzz/` and the replay of their corpora.

use std::path::Path;
use std::str::from_utf8;

use crate::kickstart::{KickstartNeeds, check, facts};
use crate::{BootAction, BootCommand, BootValues, Diagnostics};

pub use crate::variables::fuzzing::hcl;

/// Every diagnostic stands in the text, and can be printed.
pub(crate) fn stands_in(text: &str, found: &Diagnostics) {
    let lines = text.matches('\n').count() + 1;
    for diagnostic in found.iter() {
        let Some(location) = &diagnostic.location else { continue };
        assert!(
            (1..=lines).contains(&location.line),
            "{diagnostic} is outside of the text"
        );
        if !location.text.is_empty() {
            let columns = location.text.chars().count() + 1;
            assert!((1..=columns).contains(&location.column), "{diagnostic}");
        }
    }
    let _ = found.to_string();
}

/// Boot commands: the keys that are typed, each once.
///
/// # Panics
/// When a property does not hold.
pub fn boot_command(data: &[u8]) -> Vec<String> {
    let Ok(text) = from_utf8(data) else { return Vec::new() };
    let in_bounds = |error: &crate::BootCommandError| {
        assert!(text.get(error.range()).is_some(), "{error:?} is outside of {text:?}");
        let _ = (error.to_string(), error.help());
    };
    let command: BootCommand = match text.parse() {
        Ok(command) => command,
        Err(error) => {
            in_bounds(&error);
            return Vec::new();
        }
    };
    assert_eq!(command.to_string(), text);
    assert_eq!(command.is_empty(), text.is_empty());
    if let Err(error) = command.expand(&BootValues::default()) {
        in_bounds(&error);
    }
    let values = BootValues {
        http_ip: Some("10.0.0.1".to_owned()),
        http_port: Some("8080/x7k2".to_owned()),
        name: Some("k3s".to_owned()),
    };
    let actions = command.expand(&values).expect("all values can be typed");
    // The longest that a few characters can become: `{{.Name}}`, or two modifiers tapped by `<leftAltOff>`.
    assert!(actions.len() <= 2 * text.len() + 16, "{} actions", actions.len());
    let mut keys: Vec<String> = actions
        .into_iter()
        .filter_map(|action| match action {
            BootAction::Key(key) => Some(key.as_str().to_owned()),
            BootAction::Wait(_) => None,
        })
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Kickstarts: line, name and words of every command.
///
/// # Panics
/// When a property does not hold.
pub fn kickstart(data: &[u8]) -> Vec<(usize, String, Vec<String>)> {
    let Ok(text) = from_utf8(data) else { return Vec::new() };
    let read = facts(text);
    let lines = text.lines().count();
    let numbers = read.commands.iter().map(|fact| fact.line);
    assert!(numbers.clone().all(|line| (1..=lines).contains(&line)));
    assert!(numbers.is_sorted(), "commands come in the order of the text");
    assert!(read.sections.iter().all(|fact| (1..=lines).contains(&fact.line)));
    let _ = (read.packages(), read.users(), read.finish(), read.ssh_key_users());
    for (agent, ssh, username, password, iso) in [
        (true, true, "root", false, "AlmaLinux-9.3-x86_64-minimal.iso"),
        (false, true, "packer", true, "AlmaLinux-9.3-x86_64-boot.iso"),
    ] {
        let needs = KickstartNeeds {
            agent,
            ssh,
            username,
            password,
            iso,
        };
        stands_in(text, &check(text, Path::new("ks.cfg"), &needs));
    }
    // Written with quotes around every word, the commands are read the same.
    let quoted: String = read.commands.iter().map(|fact| quoted(&fact.value)).collect();
    let again = facts(&quoted);
    let values = |facts: &crate::kickstart::Facts| facts.commands.iter().map(|f| f.value.clone()).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&read), "{quoted:?}");
    read.commands
        .into_iter()
        .map(|fact| (fact.line, fact.value.name, fact.value.words))
        .collect()
}

fn quoted(command: &crate::kickstart::Command) -> String {
    let words = [&command.name].into_iter().chain(&command.words);
    let quoted: Vec<String> = words
        .map(|word| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    quoted.join(" ") + "\n"
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn corpora() {
        replay("boot_command", |data| {
            super::boot_command(data);
        });
        replay("kickstart", |data| {
            super::kickstart(data);
        });
        replay("hcl", super::hcl);
    }
}
