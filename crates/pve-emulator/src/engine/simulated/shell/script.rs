//! Script files: recorded, not interpreted; with the few effects that their text plainly names.

use std::time::Duration;

use super::Shell;
use super::io::{Io, Output};
use crate::engine::simulated::files::Content;
use crate::engine::simulated::host::Power;
use crate::engine::simulated::options::FaultKind;
use crate::engine::simulated::packages;
use crate::engine::simulated::record::ScriptRun;
use crate::engine::simulated::system::System;
use crate::faults::Gate;

/// What befalls a script on request.
enum Fate {
    Exits(u8),
    Hangs,
    Waits(Gate),
    Reboots,
}

/// An effect read out of a script's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A command of those that [`Shell::command`] carries out: `dnf`, `systemctl`, `setsebool`.
    Command(Vec<String>),
    /// `echo` of fixed text at the top level.
    Print(String),
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
    AuthorizedKeys,
    Hostname,
    Passwords,
    /// The agent's leave to run programs.
    AgentAccess,
    /// What a k3s leaves that once ran.
    K3sState,
    /// None: the mark of a sealed image, which its first boot looks for.
    Mark,
}

/// Reads the effects of a script, line by line.
///
/// Only lines that stand for themselves count for output, exit and power: indented ones belong to branches and functions
/// whose turn this reader cannot know. Packages, units and identities count wherever they stand, because a script that
/// names them is there to change them.
pub(super) fn effects(text: &str) -> Vec<Effect> {
    let joined = text.replace("\\\n", " ");
    let mut effects = Vec::new();
    for line in joined.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let top = !line.starts_with([' ', '\t']);
        effects.extend(sealed(trimmed).map(Effect::Seal));
        // A line that quotes across its end has no words of its own.
        let words: Vec<String> = shell_words::split(trimmed).unwrap_or_default();
        let certain = top && is_unconditional(&words);
        for part in commands(&words) {
            effects.extend(change(&part));
            if certain {
                effects.extend(plain(&part));
            }
        }
    }
    effects
}

/// Whether a line is run whole: no branch, no function's body, nothing that hangs on another command's end.
fn is_unconditional(words: &[String]) -> bool {
    let control = [
        "if", "elif", "else", "then", "for", "while", "until", "do", "case", "function",
    ];
    !words.first().is_some_and(|word| control.contains(&word.as_str()))
        && !words
            .iter()
            .any(|word| matches!(word.as_str(), "&&" | "||" | "|" | "{" | "(") || word.contains("()"))
}

/// Words that stand in front of a command and are none of its own.
const LEADERS: &[&str] = &[
    "if", "elif", "then", "else", "while", "until", "do", "{", "(", "!", "sudo", "exec",
];

/// The commands of one line, as far as blanks set them apart.
fn commands(words: &[String]) -> Vec<Vec<&str>> {
    let mut commands: Vec<Vec<&str>> = vec![Vec::new()];
    for word in words {
        let bare = word.trim_end_matches(';');
        let last = commands.last_mut().filter(|_| !matches!(bare, "&&" | "||" | "|" | ""));
        if let Some(command) = last
            && !(command.is_empty() && (LEADERS.contains(&bare) || bare.ends_with("()")))
        {
            command.push(bare);
        }
        if bare.len() < word.len() || matches!(bare, "&&" | "||" | "|" | "") {
            commands.push(Vec::new());
        }
    }
    commands
}

/// A command that changes packages, units or policy, with words that need no expansion.
fn change(words: &[&str]) -> Option<Effect> {
    let end = words
        .iter()
        .position(|word| word.contains(['>', '<']))
        .unwrap_or(words.len());
    let words = &words[..end];
    let literal = words.iter().all(|word| !word.contains(['$', '`', '*']));
    let verb = words.iter().skip(1).find(|word| !word.starts_with('-'))?;
    let wanted = match *words.first()? {
        "dnf" | "yum" => matches!(*verb, "install" | "reinstall" | "remove" | "erase"),
        "systemctl" => matches!(*verb, "enable" | "disable" | "mask" | "unmask"),
        "setsebool" => true,
        _ => false,
    };
    (wanted && literal && words.len() > 2)
        .then(|| Effect::Command(words.iter().map(|word| (*word).to_owned()).collect()))
}

/// What a command at the top level does that can be told from its words alone.
fn plain(words: &[&str]) -> Option<Effect> {
    match words {
        ["echo", text @ ..] if text.iter().all(|word| !word.contains(['$', '`', '>'])) => {
            Some(Effect::Print(text.join(" ")))
        }
        ["reboot" | "poweroff"] | ["systemctl", "reboot" | "poweroff"] | ["shutdown", ..] => {
            Some(Effect::Command(words.iter().map(|word| (*word).to_owned()).collect()))
        }
        ["exit", code] => code.parse().ok().map(Effect::Exit),
        _ => None,
    }
}

fn sealed(line: &str) -> Option<Identity> {
    let has = |word: &str| {
        line.split(|c: char| c.is_whitespace() || matches!(c, ';' | '{'))
            .any(|found| found == word)
    };
    let removes = has("rm") || has("truncate") || has("shred");
    let empties = line.starts_with(": >") || line.starts_with(":>") || line.starts_with("> ");
    let edits = has("sed") && line.contains("-i");
    if (removes || empties) && line.contains("etc/machine-id") {
        Some(Identity::MachineId)
    } else if removes && line.contains("etc/ssh/ssh_host_") {
        Some(Identity::SshHostKeys)
    } else if removes && (line.contains("/.ssh") || line.contains("authorized_keys")) && !line.contains("known_hosts") {
        Some(Identity::AuthorizedKeys)
    } else if removes && line.contains("etc/hostname") {
        Some(Identity::Hostname)
    } else if (edits && line.contains("etc/shadow")) || has("passwd") && has("-l") {
        Some(Identity::Passwords)
    } else if line.contains("FILTER_RPC_ARGS=")
        && line.contains("allow-rpcs")
        && line.contains('>')
        && !line.starts_with("[[")
    {
        Some(Identity::AgentAccess)
    } else if line.contains("/var/lib/rancher/k3s/{server,") {
        // The list that the seal script removes as a whole.
        Some(Identity::K3sState)
    } else if line.contains('>') && line.contains("/etc/k3simage/sealed") && !line.starts_with('#') {
        Some(Identity::Mark)
    } else {
        None
    }
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
            FaultKind::ScriptWaits { script, gate } if path.ends_with(script.as_str()) => {
                Some(Fate::Waits(gate.clone()))
            }
            FaultKind::ScriptReboots { script } if path.ends_with(script.as_str()) => Some(Fate::Reboots),
            _ => None,
        });
        // Half of the work, then what befalls the script, then the rest.
        let half: Duration = self.host.script_time / 2;
        self.host.clock.sleep(half).await;
        if let Some(Fate::Waits(gate)) = &fate {
            gate.pass().await;
        }
        if let Some(Fate::Hangs | Fate::Reboots) = fate {
            if let Some(Fate::Reboots) = fate {
                self.host.request_power(Power::Reboot);
            }
            return std::future::pending().await;
        }
        let mut code = 0;
        self.lay_down(&content).await;
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
            Effect::Command(words) => {
                if let Some((name, args)) = words.split_first() {
                    // Read out of the text without its conditions: a unit that is not there is no complaint of the script.
                    let quiet = Io {
                        stderr: Output::Null,
                        ..io.clone()
                    };
                    self.command(name, args, &quiet).await;
                }
            }
            Effect::Seal(identity) => seal(&mut self.host.system(), identity),
            Effect::Exit(_) => {}
        }
    }
}

fn seal(system: &mut System, identity: Identity) {
    // Removing what is not there leaves it as gone.
    match identity {
        Identity::MachineId => system.files.put("/etc/machine-id", "", 0o444),
        Identity::SshHostKeys => {
            for path in system.files.glob("/etc/ssh/ssh_host_*") {
                let _ = system.files.remove(&path, false);
            }
        }
        Identity::AuthorizedKeys => {
            for user in system.login_users() {
                if let Some(user) = system.user(&user) {
                    let _ = system.files.remove(&format!("{}/.ssh", user.home), true);
                }
            }
        }
        Identity::Hostname => drop(system.files.remove("/etc/hostname", false)),
        Identity::Passwords => {
            for user in system.login_users() {
                system.set_password_hash(&user, "!!");
            }
        }
        Identity::AgentAccess => {
            for (path, text, mode) in packages::files("qemu-guest-agent") {
                if system.files.exists(path) {
                    system.files.put(path, *text, *mode);
                }
            }
            system.selinux_booleans.remove("virt_qemu_ga_run_unconfined");
        }
        Identity::K3sState => {
            for path in [
                "/var/lib/rancher/k3s/server",
                "/etc/rancher/node",
                "/etc/k3simage/k3s.env",
                "/var/lib/k3simage/firstboot.done",
            ] {
                let _ = system.files.remove(path, true);
            }
        }
        Identity::Mark => system.files.put("/etc/k3simage/sealed", "", 0o644),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_of_lines() {
        let command = |text: &str| Effect::Command(text.split(' ').map(str::to_owned).collect());
        for (text, expected) in [
            (
                "dnf -y install a \\\n  b-c @guest-agents",
                vec![command("dnf -y install a b-c @guest-agents")],
            ),
            (
                "  sudo dnf install -y git && echo ok",
                vec![command("dnf install -y git")],
            ),
            (
                "rpm -q x >/dev/null 2>&1 || dnf -y install x \\\n || fail 'no'",
                vec![command("dnf -y install x")],
            ),
            (
                "if has_unit f.service; then systemctl disable --now f.service; fi",
                vec![command("systemctl disable --now f.service")],
            ),
            ("dnf -y update", vec![]),
            ("dnf install -y \"$PKG\"", vec![]),
            (
                "echo hello world\n  echo not this",
                vec![Effect::Print("hello world".into())],
            ),
            ("# exit 1\nexit 3", vec![Effect::Exit(3)]),
            ("  exit 3", vec![]),
            ("fail() { echo no; exit 1; }", vec![]),
            ("test -e x || exit 1", vec![]),
            ("echo a; exit 2", vec![Effect::Print("a".into()), Effect::Exit(2)]),
            ("truncate -s 0 /etc/machine-id", vec![Effect::Seal(Identity::MachineId)]),
            (
                "  : >\"${root}/etc/machine-id\"",
                vec![Effect::Seal(Identity::MachineId)],
            ),
            (
                "do_keys() { rm -f \"${root}\"/etc/ssh/ssh_host_*; }",
                vec![Effect::Seal(Identity::SshHostKeys)],
            ),
            (
                "for h in \"${homes[@]}\"; do rm -rf \"${h}/.ssh\"; done",
                vec![Effect::Seal(Identity::AuthorizedKeys)],
            ),
            ("rm -f /etc/hostname", vec![Effect::Seal(Identity::Hostname)]),
            (
                "    sed -i -E 's/x/y/' \"${root}/etc/shadow\"",
                vec![Effect::Seal(Identity::Passwords)],
            ),
            (
                "  printf 'FILTER_RPC_ARGS=\"--allow-rpcs=%s\"\\n' \"${rpcs}\" >>\"${f}\"",
                vec![Effect::Seal(Identity::AgentAccess)],
            ),
            (
                "printf 'A=%s' x >\"${root}/etc/k3simage/sealed\"",
                vec![Effect::Seal(Identity::Mark)],
            ),
            (
                "    printf '%s' \"${root}\"/var/lib/rancher/k3s/{server,data} \\\n x",
                vec![Effect::Seal(Identity::K3sState)],
            ),
            ("cat /etc/machine-id /etc/hostname", vec![]),
            ("reboot", vec![command("reboot")]),
        ] {
            assert_eq!(effects(text), expected, "{text}");
        }
    }
}
