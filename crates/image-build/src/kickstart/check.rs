//! Checks that a kickstart leads to a guest which the build can reach, and that the installer never stops to ask.

use std::path::Path;

use super::facts::{Fact, Facts, Finish, RootPassword, facts};
use crate::diagnostic::{Diagnostic, Diagnostics, Location};

/// What a build needs of the guest.
#[derive(Clone, Debug)]
pub struct KickstartNeeds<'a> {
    /// The address, or the way in, comes from the guest agent.
    pub agent: bool,
    /// SSH is the way in, or may be.
    pub ssh: bool,
    /// The user to log in as.
    pub username: &'a str,
    /// A password is given, so no key is used.
    pub password: bool,
    /// File name of the installer's ISO.
    pub iso: &'a str,
}

/// The package that the guest agent is in.
const AGENT: &str = "qemu-guest-agent";

/// Checks a kickstart's text; `file` is what diagnostics call it.
///
/// # Source
/// Anaconda 34.25 (EL9) stops at its hub and waits when one of the answers is missing, for ever on a machine without a
/// person in front of it.
pub fn check(text: &str, file: &Path, needs: &KickstartNeeds<'_>) -> Diagnostics {
    let facts = facts(text);
    let mut checker = Checker {
        facts: &facts,
        text,
        file,
        found: Diagnostics::new(),
    };
    checker.form();
    checker.questions();
    checker.finish();
    checker.source(needs);
    if needs.agent {
        checker.agent();
    }
    if needs.ssh {
        checker.ssh(needs);
    }
    checker.found
}

struct Checker<'a> {
    facts: &'a Facts,
    text: &'a str,
    file: &'a Path,
    found: Diagnostics,
}

impl Checker<'_> {
    fn at(&self, line: usize) -> Location {
        // What is missing stands nowhere: then the first line is named and not shown.
        let location = Location::of_line(self.file, self.text, line.max(1));
        if line == 0 {
            return location.without_text();
        }
        // Passwords stand on these lines.
        let words = ["rootpw", "user ", "sshpw", "password"];
        if words.iter().any(|word| location.text.contains(word)) {
            location.without_text()
        } else {
            location
        }
    }

    fn error(&mut self, line: usize, message: impl Into<String>, help: &str) {
        let location = self.at(line);
        // What an included file says is not seen here: it could be what is missed.
        let diagnostic = Diagnostic::error("kickstart", message).at(location).help(help);
        self.found.push(diagnostic);
    }

    /// Something is missing: an error, unless a file that is not seen here could bring it.
    fn missing(&mut self, line: usize, message: impl Into<String>, help: &str) {
        match self.facts.includes.first() {
            None => self.error(line, message, help),
            Some(Fact { line, value }) => {
                let location = self.at(*line);
                let message = format!("{}, unless {value} says so, which is not read here", message.into());
                self.found
                    .push(Diagnostic::warning("kickstart", message).at(location).help(help));
            }
        }
    }

    fn warn(&mut self, line: usize, message: impl Into<String>, help: &str) {
        let location = self.at(line);
        self.found
            .push(Diagnostic::warning("kickstart", message).at(location).help(help));
    }

    fn form(&mut self) {
        if let Some(line) = self.text.split('\n').position(|line| line.ends_with('\r')) {
            self.error(
                line + 1,
                "its lines end with CR LF, which its scripts do not survive",
                "convert it: sed -i 's/\\r$//' http/ks.cfg",
            );
        }
        for line in &self.facts.open_quotes {
            self.error(
                *line,
                "quotes do not close on this line",
                "the installer would not take the file",
            );
        }
        let known = [
            "packages",
            "pre",
            "pre-install",
            "post",
            "onerror",
            "traceback",
            "addon",
            "anaconda",
            "certificate",
        ];
        for Fact { line, value } in &self.facts.sections {
            if !value.closed {
                self.error(
                    *line,
                    format!("%{} is not closed", value.name),
                    "write %end behind its last line",
                );
            } else if !known.contains(&value.name.as_str()) {
                self.error(
                    *line,
                    format!("%{} is no section", value.name),
                    "there are %packages, %pre, %post, %addon and others",
                );
            }
        }
    }

    fn questions(&mut self) {
        let has = |names: &[&str]| {
            self.facts
                .commands
                .iter()
                .any(|fact| names.contains(&fact.value.name.as_str()))
        };
        let image = has(&["liveimg", "ostreesetup"]);
        let root_mount = ["part", "partition", "logvol", "raid", "btrfs"]
            .iter()
            .flat_map(|name| self.facts.all(name))
            .any(|fact| fact.value.plain().any(|word| word == "/"));
        let admin = self
            .facts
            .users()
            .iter()
            .any(|user| user.value.groups.iter().any(|group| group == "wheel"));
        let mut missing = Vec::new();
        for (present, what) in [
            (has(&["lang"]), "lang"),
            (has(&["timezone"]), "timezone"),
            (image || self.facts.packages().is_some(), "%packages"),
            (has(&["autopart", "mount"]) || root_mount, "autopart, or part for /"),
            (admin || self.facts.root_password().is_some(), "rootpw"),
        ] {
            if !present {
                missing.push(what);
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "the installer would stop and ask: there is no {}",
                missing.join(", no ")
            );
            self.missing(
                0,
                message,
                "add what is missing; `rootpw --lock` answers for root without giving it a password",
            );
        }
    }

    fn finish(&mut self) {
        const HELP: &str = "write reboot --eject";
        match self.facts.finish() {
            None => self.missing(
                0,
                "the installation would never end: neither reboot nor poweroff stands in it",
                HELP,
            ),
            Some(Fact {
                line,
                value: Finish::Halt,
            }) => {
                self.error(
                    line,
                    "after halt the machine stays on, so the end of the installation is never seen",
                    HELP,
                );
            }
            Some(Fact {
                line,
                value: Finish::Kexec,
            }) => {
                self.error(
                    line,
                    "with --kexec the machine never restarts, so the end of the installation is never seen",
                    HELP,
                );
            }
            Some(Fact {
                value: Finish::Reboot | Finish::Poweroff,
                ..
            }) => {}
        }
    }

    fn source(&mut self, needs: &KickstartNeeds<'_>) {
        let has = |name: &str| self.facts.command(name).is_some();
        let elsewhere = ["url", "nfs", "harddrive", "liveimg", "ostreesetup"]
            .iter()
            .any(|name| has(name));
        let line = self.facts.command("cdrom").map(|fact| fact.line);
        if needs.iso.contains("-boot") && !elsewhere {
            let line = line.unwrap_or(0);
            self.missing(
                line,
                format!("{} holds no packages, and no url says where to get them", needs.iso),
                "write url --mirrorlist=..., or use the dvd ISO",
            );
        }
        if let (Some(line), true, false) = (line, needs.iso.contains("-minimal"), has("repo")) {
            let packages = self.facts.packages().unwrap_or_default();
            if packages.includes(AGENT).is_some() {
                let message = format!(
                    "{} lacks AppStream, where {AGENT} is, and no repo line adds it",
                    needs.iso
                );
                self.warn(
                    line,
                    message,
                    "write repo --name=AppStream --mirrorlist=..., or use the dvd ISO",
                );
            }
        }
    }

    fn agent(&mut self) {
        let Some(packages) = self.facts.packages() else { return };
        let help = format!("add {AGENT} there, or set ssh_host");
        if let Some(line) = packages.excludes(AGENT) {
            self.error(
                line,
                "the guest's address is to come from the guest agent, but the kickstart leaves it out",
                &help,
            );
        } else if packages.includes(AGENT).is_none() && !self.post_installs_agent() {
            self.missing(
                packages.line,
                "the guest's address is to come from the guest agent, but the kickstart installs none",
                &help,
            );
        }
        if let Some(unit) = self
            .facts
            .services("--disabled")
            .into_iter()
            .find(|unit| unit.value == AGENT)
        {
            self.error(
                unit.line,
                "the guest's address is to come from the guest agent, which is disabled here",
                "take it off the list, or set ssh_host",
            );
        }
    }

    /// A line of `%post` such as `dnf -y install qemu-guest-agent`.
    fn post_installs_agent(&self) -> bool {
        let lines = self.facts.sections("post").flat_map(|section| &section.value.body);
        let commands = lines
            .map(|fact| fact.value.trim())
            .filter(|line| !line.starts_with('#'));
        commands
            .into_iter()
            .any(|line| line.contains(AGENT) && ["dnf", "yum", "rpm"].iter().any(|tool| line.contains(tool)))
    }

    fn ssh(&mut self, needs: &KickstartNeeds<'_>) {
        let packages = self.facts.packages().unwrap_or_default();
        if let Some(line) = packages.excludes("openssh-server") {
            self.error(
                line,
                "the build talks to the guest by SSH, but openssh-server is left out",
                "take the line out, or set communicator = \"agent\"",
            );
        }
        if let Some(unit) = self
            .facts
            .services("--disabled")
            .into_iter()
            .find(|unit| unit.value == "sshd")
        {
            self.error(
                unit.line,
                "the build talks to the guest by SSH, but sshd is disabled",
                "take it off the list, or set communicator = \"agent\"",
            );
        }
        let root = self.facts.root_password();
        if let Some(Fact {
            line,
            value: RootPassword::Plaintext,
        }) = &root
        {
            self.warn(
                *line,
                "root's password stands here for everyone to read",
                "write rootpw --lock: the build logs in by a key of its own",
            );
        }
        if needs.username == "root" {
            if let (true, Some(root)) = (needs.password, root) {
                let allowed = self
                    .facts
                    .command("rootpw")
                    .is_some_and(|fact| fact.value.has("--allow-ssh"))
                    || self.facts.post_mentions("PermitRootLogin").is_some();
                if root.value == RootPassword::Locked {
                    self.error(
                        root.line,
                        "ssh_password is set, but root's password is locked",
                        "leave ssh_password out: the build logs in by a key of its own",
                    );
                } else if !allowed {
                    self.error(
                        root.line,
                        "sshd of AlmaLinux 9 refuses root's password",
                        "leave ssh_password out: the build logs in by a key of its own; or write rootpw --allow-ssh",
                    );
                }
            }
            return;
        }
        let user = self
            .facts
            .users()
            .into_iter()
            .find(|user| user.value.name == needs.username);
        match user {
            None => {
                let message = format!(
                    "the build logs in as {}, but the kickstart makes no such user",
                    needs.username
                );
                self.missing(0, message, "add user --name=... there, or set ssh_username = \"root\"");
            }
            Some(user) if needs.password && !user.value.password => {
                self.error(
                    user.line,
                    format!("ssh_password is set, but {} has none", needs.username),
                    "leave ssh_password out: the build logs in by a key of its own",
                );
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../../kickstart/alma9.ks.cfg");

    fn needs() -> KickstartNeeds<'static> {
        KickstartNeeds {
            agent: true,
            ssh: true,
            username: "root",
            password: false,
            iso: "AlmaLinux-9.3-x86_64-minimal.iso",
        }
    }

    fn found(text: &str, needs: &KickstartNeeds<'_>) -> String {
        check(text, Path::new("http/ks.cfg"), needs).to_string()
    }

    #[test]
    fn the_example_is_sound() {
        assert_eq!(found(GOOD, &needs()), "");
        let model = super::super::Kickstart::default().render().unwrap();
        assert_eq!(found(model.expose(), &needs()), "");
    }

    #[test]
    fn a_missing_agent_is_shown_at_packages() {
        insta::assert_snapshot!(found(&GOOD.replace("qemu-guest-agent\n", "\n").replace(",qemu-guest-agent", ""), &needs()), @"
        error: kickstart: the guest's address is to come from the guest agent, but the kickstart installs none
          --> http/ks.cfg:37:1
           |
        37 | %packages --exclude-weakdeps
           | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           = help: add qemu-guest-agent there, or set ssh_host
        ");
    }

    #[test]
    fn what_would_never_end_or_never_answer() {
        let password = KickstartNeeds {
            password: true,
            ..needs()
        };
        let packer = KickstartNeeds {
            username: "packer",
            ..needs()
        };
        let boot = KickstartNeeds {
            iso: "AlmaLinux-9.3-x86_64-boot.iso",
            ..needs()
        };
        let cases: Vec<(String, &KickstartNeeds<'_>, &str)> = vec![
            (GOOD.replace("reboot --eject", ""), &password, "would never end"),
            (GOOD.replace("reboot --eject", "halt"), &password, "after halt"),
            (GOOD.replace("reboot --eject", "reboot --kexec"), &password, "--kexec"),
            (GOOD.replace("timezone", "#timezone"), &password, "no timezone"),
            (GOOD.replace("rootpw --lock", ""), &password, "no rootpw"),
            (
                GOOD.replace("rootpw --lock", "rootpw --plaintext packer"),
                &password,
                "for everyone to read",
            ),
            (
                GOOD.replace("rootpw --lock", "rootpw --plaintext packer"),
                &password,
                "refuses root's password",
            ),
            (GOOD.to_owned(), &password, "root's password is locked"),
            (GOOD.to_owned(), &packer, "makes no such user"),
            (
                GOOD.replace("openssh-server", "-openssh-server"),
                &packer,
                "openssh-server is left out",
            ),
            (
                GOOD.replace("--disabled=kdump", "--disabled=sshd"),
                &packer,
                "sshd is disabled",
            ),
            (GOOD.replace('\n', "\r\n"), &packer, "CR LF"),
            (GOOD.replace("%addon", "%adon"), &packer, "%adon is no section"),
            (
                GOOD.replace("part / --fstype", "part /x --fstype"),
                &packer,
                "no autopart, or part for /",
            ),
            (GOOD.replace("repo ", "#repo "), &packer, "lacks AppStream"),
            (
                GOOD.replace("rootpw --lock", "%include /tmp/x"),
                &packer,
                "unless /tmp/x says so",
            ),
            (
                GOOD.replace("rootpw --lock", "rootpw \"open"),
                &packer,
                "quotes do not close",
            ),
            (GOOD.to_owned(), &boot, "holds no packages"),
        ];
        for (text, needs, want) in cases {
            let found = found(&text, needs);
            assert!(found.contains(want), "{want}: {found}");
            assert!(!found.contains("plaintext packer"), "{found}");
        }
    }
}
