//! Script files: recorded, not interpreted; with the few effects that their text plainly names.

use std::time::Duration;

use super::Shell;
use super::io::Io;
use crate::engine::simulated::files::Content;
use crate::engine::simulated::host::Power;
use crate::engine::simulated::options::FaultKind;
use crate::engine::simulated::record::ScriptRun;

/// What befalls a script on request.
enum Fate {
    Exits(u8),
    Hangs,
    Reboots,
}

/// An effect read out of a script's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Install(Vec<String>),
    Remove(Vec<String>),
    /// `echo` of fixed text at the top level.
    Print(String),
    Reboot,
    PowerOff,
    /// `exit N` at the top level.
    Exit(i32),
    /// Something that seals the image: empties or removes these identities.
    Seal(Identity),
}

/// What a sealing script takes from an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    MachineId,
    SshHostKeys,
    RootKeys,
}

/// Reads the effects of a script, line by line.
///
/// Only lines that stand for themselves count for output, exit and power: indented ones belong to branches and functions
/// whose turn this reader cannot know. Packages and identities count wherever they stand, because a script that
/// names them is there to install or to remove them.
pub(super) fn effects(text: &str) -> Vec<Effect> {
    let joined = text.replace("\\\n", " ");
    let mut effects = Vec::new();
    for line in joined.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let top = !line.starts_with([' ', '\t']);
        let words: Vec<String> = shell_words::split(trimmed).unwrap_or_default();
        let words: Vec<&str> = words
            .iter()
            .map(String::as_str)
            .skip_while(|word| matches!(*word, "sudo" | "if" | "!" | "exec"))
            .collect();
        effects.extend(packages(&words));
        effects.extend(sealed(trimmed, &words).map(Effect::Seal));
        if !top {
            continue;
        }
        match words.as_slice() {
            ["echo", text @ ..] if text.iter().all(|word| !word.contains(['$', '`', '>', '|'])) => {
                effects.push(Effect::Print(text.join(" ")));
            }
            ["reboot"] | ["systemctl", "reboot"] | ["shutdown", "-r", ..] => effects.push(Effect::Reboot),
            ["poweroff"] | ["systemctl", "poweroff"] | ["shutdown", "-h" | "-P" | "now", ..] => {
                effects.push(Effect::PowerOff)
            }
            ["exit", code] => effects.extend(code.parse().ok().map(Effect::Exit)),
            _ => {}
        }
    }
    effects
}

fn packages(words: &[&str]) -> Option<Effect> {
    let (tool, rest) = words.split_first()?;
    if !matches!(*tool, "dnf" | "yum" | "microdnf") {
        return None;
    }
    let rest: Vec<&str> = rest
        .iter()
        .copied()
        .take_while(|word| !matches!(*word, "&&" | "||" | "|" | ";" | ">" | "then"))
        .collect();
    let action = rest.iter().find(|word| !word.starts_with('-'))?;
    let names: Vec<String> = rest
        .iter()
        .skip_while(|word| *word != action)
        .skip(1)
        .map(|word| word.trim_end_matches(';'))
        .filter(|word| !word.starts_with('-') && !word.contains(['$', '>', '/', '=']) && !word.is_empty())
        .map(str::to_owned)
        .collect();
    match *action {
        "install" | "reinstall" if !names.is_empty() => Some(Effect::Install(names)),
        "remove" | "erase" if !names.is_empty() => Some(Effect::Remove(names)),
        _ => None,
    }
}

fn sealed(line: &str, words: &[&str]) -> Option<Identity> {
    let empties = line.starts_with(": >") || line.starts_with(":>") || line.starts_with("> ");
    let removes = words
        .iter()
        .any(|word| matches!(*word, "rm" | "truncate" | "shred" | "remove"));
    let writes = words.iter().any(|word| word.starts_with('>'));
    if line.contains("etc/machine-id") && (empties || removes || writes) {
        return Some(Identity::MachineId);
    }
    if !removes {
        return None;
    }
    if line.contains("etc/ssh/ssh_host_") {
        return Some(Identity::SshHostKeys);
    }
    (line.contains("root/.ssh") && !line.contains("known_hosts")).then_some(Identity::RootKeys)
}

impl Shell {
    /// Runs a script file as a program of its own.
    pub(super) async fn run_script(&mut self, name: &str, path: &str, args: &[String], io: &Io) -> i32 {
        let content = match self.host.system().files.content(path) {
            Ok(Content::Bytes(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(Content::Digest { .. }) => String::new(),
            Err(error) => {
                io.stderr.line(format!("{}: {name}: {error}", self.name));
                return 127;
            }
        };
        let number = self.host.script_began(ScriptRun {
            name: name.to_owned(),
            args: args.to_vec(),
            content: content.clone(),
            env: self.environment(),
            user: self.user.name.clone(),
            exit_code: None,
        });
        let fate = self.host.faults.strike(self.host.vmid, |kind| match kind {
            FaultKind::ScriptExits { script, code } if path.ends_with(script.as_str()) => Some(Fate::Exits(*code)),
            FaultKind::ScriptHangs { script } if path.ends_with(script.as_str()) => Some(Fate::Hangs),
            FaultKind::ScriptReboots { script } if path.ends_with(script.as_str()) => Some(Fate::Reboots),
            _ => None,
        });
        // Half of the work, then what befalls the script, then the rest.
        let half: Duration = self.host.script_time / 2;
        self.host.clock.sleep(half).await;
        match fate {
            Some(Fate::Hangs) => std::future::pending().await,
            Some(Fate::Reboots) => {
                self.host.request_power(Power::Reboot);
                std::future::pending().await
            }
            Some(Fate::Exits(_)) | None => {}
        }
        let mut code = 0;
        for effect in effects(&content) {
            if let Effect::Exit(given) = effect {
                code = given & 0xff;
                break;
            }
            self.apply(effect, io).await;
        }
        self.host.clock.sleep(half).await;
        if let Some(Fate::Exits(given)) = fate {
            io.stderr.line(format!("{name}: failed"));
            code = i32::from(given);
        }
        self.host.script_ended(number, code);
        code
    }

    async fn apply(&mut self, effect: Effect, io: &Io) {
        match effect {
            Effect::Print(text) => io.stdout.line(text),
            Effect::Install(names) => {
                let args: Vec<String> = ["-y".to_owned(), "install".to_owned()]
                    .into_iter()
                    .chain(names)
                    .collect();
                self.command("dnf", &args, io).await;
            }
            Effect::Remove(names) => {
                let args: Vec<String> = ["-y".to_owned(), "remove".to_owned()]
                    .into_iter()
                    .chain(names)
                    .collect();
                self.command("dnf", &args, io).await;
            }
            Effect::Reboot => drop(self.host.request_power(Power::Reboot)),
            Effect::PowerOff => drop(self.host.request_power(Power::Off)),
            Effect::Seal(identity) => {
                let mut system = self.host.system();
                match identity {
                    Identity::MachineId => system.files.put("/etc/machine-id", "", 0o444),
                    Identity::SshHostKeys => {
                        for path in system.files.glob("/etc/ssh/ssh_host_*") {
                            // The path came from the tree a line above.
                            let _ = system.files.remove(&path, false);
                        }
                    }
                    // Absent keys are as good as removed ones.
                    Identity::RootKeys => drop(system.files.remove("/root/.ssh", true)),
                }
            }
            Effect::Exit(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_of_lines() {
        for (text, expected) in [
            (
                "dnf -y install a \\\n  b-c @guest-agents # x",
                vec![Effect::Install(vec!["a".into(), "b-c".into(), "@guest-agents".into()])],
            ),
            (
                "  sudo dnf install -y qemu-guest-agent && echo ok",
                vec![Effect::Install(vec!["qemu-guest-agent".into()])],
            ),
            ("dnf -y update", vec![]),
            ("dnf install -y \"$PKG\"", vec![]),
            (
                "echo hello world\n  echo not this",
                vec![Effect::Print("hello world".into())],
            ),
            ("# exit 1\nexit 3", vec![Effect::Exit(3)]),
            ("  exit 3", vec![]),
            ("truncate -s 0 /etc/machine-id", vec![Effect::Seal(Identity::MachineId)]),
            (
                "  : > \"${root}/etc/machine-id\"",
                vec![Effect::Seal(Identity::MachineId)],
            ),
            ("rm -f /etc/ssh/ssh_host_*", vec![Effect::Seal(Identity::SshHostKeys)]),
            ("cat /etc/machine-id", vec![]),
            ("reboot", vec![Effect::Reboot]),
        ] {
            let text = text.replace(" # x", "");
            assert_eq!(effects(&text), expected, "{text}");
        }
    }
}
