//! A reader of kickstart files, as strict as Anaconda is where it matters for an unattended install.

use std::collections::BTreeSet;

/// A kickstart file taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kickstart {
    pub(super) commands: Vec<Command>,
    pub(super) packages: Option<Packages>,
    pub(super) scripts: Vec<Script>,
}

/// One command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// Line in the file, from 1.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) args: Vec<String>,
}

/// The `%packages` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packages {
    pub(super) line: usize,
    pub(super) options: Vec<String>,
    /// Packages and groups (`@core`, `@^minimal-environment`).
    pub(super) included: Vec<String>,
    pub(super) excluded: BTreeSet<String>,
}

/// When a script section runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Pre,
    PreInstall,
    Post,
    OnError,
}

/// A `%pre`, `%pre-install`, `%post`, `%onerror` or `%traceback` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) line: usize,
    pub(super) when: When,
    pub(super) options: Vec<String>,
    pub(super) body: String,
}

impl Script {
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }
}

/// Why Anaconda would not take the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KickstartError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Commands of RHEL 9's grammar (pykickstart, `handlers/rhel9.py`).
const COMMANDS: &[&str] = &[
    "authselect",
    "autopart",
    "bootloader",
    "btrfs",
    "cdrom",
    "clearpart",
    "cmdline",
    "driverdisk",
    "eula",
    "fcoe",
    "firewall",
    "firstboot",
    "graphical",
    "group",
    "halt",
    "harddrive",
    "hmc",
    "ignoredisk",
    "iscsi",
    "iscsiname",
    "keyboard",
    "lang",
    "liveimg",
    "logging",
    "logvol",
    "mediacheck",
    "module",
    "mount",
    "network",
    "nfs",
    "nvdimm",
    "ostreesetup",
    "part",
    "partition",
    "poweroff",
    "raid",
    "realm",
    "reboot",
    "repo",
    "reqpart",
    "rescue",
    "rhsm",
    "rootpw",
    "selinux",
    "services",
    "shutdown",
    "skipx",
    "snapshot",
    "sshkey",
    "sshpw",
    "syspurpose",
    "text",
    "timesource",
    "timezone",
    "updates",
    "url",
    "user",
    "vnc",
    "volgroup",
    "xconfig",
    "zerombr",
    "zfcp",
    "zipl",
];

/// Accepted for old files' sake, with a warning.
const DEPRECATED: &[&str] = &["auth", "authconfig", "autostep", "install", "upgrade"];

/// Reads a kickstart file.
///
/// # Errors
/// An unknown command, a section without `%end`, or quotes that do not close.
pub(super) fn parse(text: &str) -> Result<Kickstart, KickstartError> {
    let mut kickstart = Kickstart::default();
    let mut lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let fail = |message: String| KickstartError { line: number, message };
        let words = words(trimmed).map_err(|what| fail(what.to_owned()))?;
        let Some((name, args)) = words.split_first() else {
            continue;
        };
        if let Some(section) = name.strip_prefix('%') {
            match section {
                "include" | "ksappend" => {
                    let file = args.first().map_or("", String::as_str);
                    return Err(fail(format!("Unable to open input kickstart file: {file}")));
                }
                "end" => return Err(fail("Unknown command: %end".to_owned())),
                _ => {}
            }
            let mut body = Vec::new();
            loop {
                let Some((_, line)) = lines.next() else {
                    return Err(fail(format!("Section %{section} does not end with %end.")));
                };
                if line.trim_end() == "%end" {
                    break;
                }
                body.push(line);
            }
            kickstart.section(number, section, args, &body).map_err(fail)?;
        } else if COMMANDS.contains(&name.as_str()) || DEPRECATED.contains(&name.as_str()) {
            kickstart.commands.push(Command {
                line: number,
                name: name.clone(),
                args: args.to_vec(),
            });
        } else {
            return Err(fail(format!("Unknown command: {name}")));
        }
    }
    Ok(kickstart)
}

/// Splits a line as pykickstart does, by Python's `shlex.split(line, comments=True)`: not quite a shell's rules.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    /// What encloses the next character.
    enum State {
        Between,
        Word,
        Quoted(char),
    }
    let mut state = State::Between;
    let mut found = Vec::new();
    let mut current = String::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        state = match state {
            State::Quoted(quote) if c == quote => State::Word,
            State::Quoted('"') if c == '\\' => {
                let next = rest.next().ok_or("No escaped character")?;
                // Elsewhere than before itself and the quote, the backslash stays.
                if next != '"' && next != '\\' {
                    current.push(c);
                }
                current.push(next);
                State::Quoted('"')
            }
            State::Quoted(quote) => {
                current.push(c);
                State::Quoted(quote)
            }
            // A comment begins within a word, too.
            State::Between | State::Word if c == '#' => {
                if matches!(state, State::Word) {
                    found.push(current);
                }
                return Ok(found);
            }
            State::Between | State::Word if c == '"' || c == '\'' => State::Quoted(c),
            State::Between | State::Word if c == '\\' => {
                current.push(rest.next().ok_or("No escaped character")?);
                State::Word
            }
            State::Between if " \t\r\n".contains(c) => State::Between,
            State::Word if " \t\r\n".contains(c) => {
                found.push(std::mem::take(&mut current));
                State::Between
            }
            State::Between | State::Word => {
                current.push(c);
                State::Word
            }
        };
    }
    match state {
        State::Between => Ok(found),
        State::Word => {
            found.push(current);
            Ok(found)
        }
        State::Quoted(_) => Err("No closing quotation"),
    }
}

impl Kickstart {
    fn section(&mut self, line: usize, name: &str, args: &[String], body: &[&str]) -> Result<(), String> {
        let when = match name {
            "packages" => {
                let mut packages = Packages {
                    line,
                    options: args.to_vec(),
                    ..Packages::default()
                };
                for entry in body {
                    let entry = entry.split(" #").next().unwrap_or_default().trim();
                    match entry.strip_prefix('-') {
                        _ if entry.is_empty() || entry.starts_with('#') => {}
                        Some(excluded) => {
                            packages.excluded.insert(excluded.trim().to_owned());
                        }
                        None => packages
                            .included
                            .push(entry.split(" --").next().unwrap_or(entry).trim().to_owned()),
                    }
                }
                self.packages = Some(packages);
                return Ok(());
            }
            // Configuration of add-ons changes nothing that a simulated guest shows.
            "addon" | "anaconda" => return Ok(()),
            "pre" => When::Pre,
            "pre-install" => When::PreInstall,
            "post" => When::Post,
            "onerror" | "traceback" => When::OnError,
            other => return Err(format!("Unknown kickstart section: %{other}")),
        };
        self.scripts.push(Script {
            line,
            when,
            options: args.to_vec(),
            body: body.join("\n"),
        });
        Ok(())
    }

    /// The last command of that name: later lines override earlier ones.
    pub(super) fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().rev().find(|command| command.name == name)
    }

    pub(super) fn has(&self, names: &[&str]) -> bool {
        self.commands
            .iter()
            .any(|command| names.contains(&command.name.as_str()))
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Command> {
        self.commands.iter().filter(move |command| command.name == name)
    }

    /// What the installer has to ask before it can begin, in Anaconda's words for its hub; empty when nothing is missing.
    pub(super) fn questions(&self, medium_has_packages: bool) -> Vec<&'static str> {
        let mut missing = Vec::new();
        let mut need = |present: bool, what| {
            if !present {
                missing.push(what);
            }
        };
        need(self.has(&["lang"]), "Language settings (no lang)");
        need(self.has(&["timezone"]), "Time settings (no timezone)");
        let source = ["cdrom", "url", "harddrive", "nfs", "liveimg", "ostreesetup", "hmc"];
        let source = medium_has_packages || self.has(&source);
        need(source, "Installation source (no url, and the medium has no packages)");
        let image = self.has(&["liveimg", "ostreesetup"]);
        need(image || self.packages.is_some(), "Software selection (no %packages)");
        let storage = self.has(&["autopart"])
            || self.has(&["mount"])
            || ["part", "partition", "logvol", "raid", "btrfs"]
                .iter()
                .any(|name| self.all(name).any(|command| command.args.iter().any(|arg| arg == "/")));
        need(storage, "Installation Destination (no autopart, and no part for /)");
        let admin = self.all("user").any(|user| {
            user.option("groups")
                .is_some_and(|groups| groups.split(',').any(|group| group == "wheel"))
        });
        need(admin || self.command("rootpw").is_some(), "Root password (no rootpw)");
        missing
    }
}

impl Command {
    /// Value of `--name=value` or `--name value`; empty for a flag at the end.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            let Some(rest) = arg.strip_prefix("--").and_then(|arg| arg.strip_prefix(name)) else {
                continue;
            };
            if let Some(value) = rest.strip_prefix('=') {
                return Some(value);
            }
            if rest.is_empty() {
                return Some(args.next().map_or("", String::as_str));
            }
        }
        None
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.args.iter().any(|arg| arg.strip_prefix("--") == Some(name))
    }

    /// Arguments that are neither options nor, for the named options, their separate values.
    pub(super) fn positional<'a>(&'a self, valued: &[&str]) -> Vec<&'a str> {
        let mut found = Vec::new();
        let mut skip = false;
        for arg in &self.args {
            if std::mem::take(&mut skip) {
                continue;
            }
            match arg.strip_prefix("--") {
                Some(option) => skip = valued.contains(&option),
                None => found.push(arg.as_str()),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
# a comment
text
lang en_US.UTF-8
timezone UTC --utc    # trailing comment
rootpw --lock
cdrom
autopart --type=plain
network --bootproto=dhcp --hostname "node one"
sshkey --username root "ssh-ed25519 AAAA a b"
reboot --eject
%packages --ignoremissing
@^minimal-environment
qemu-guest-agent  # needed
# not this
-iwl*firmware
%end
%post --log=/root/ks.log --erroronfail
echo "%end is not here"
  %end
%end
"#;

    #[test]
    fn reads_commands_and_sections() {
        let kickstart = parse(GOOD).unwrap();
        assert_eq!(kickstart.questions(true), Vec::<&str>::new());
        assert_eq!(
            kickstart.command("network").unwrap().option("hostname"),
            Some("node one")
        );
        let key = kickstart.command("sshkey").unwrap();
        assert_eq!(key.option("username"), Some("root"));
        assert_eq!(key.positional(&["username"]), ["ssh-ed25519 AAAA a b"]);
        assert!(kickstart.command("reboot").unwrap().flag("eject"));
        assert_eq!(kickstart.command("timezone").unwrap().args, ["UTC", "--utc"]);
        let packages = kickstart.packages.as_ref().unwrap();
        assert_eq!(packages.included, ["@^minimal-environment", "qemu-guest-agent"]);
        assert!(packages.excluded.contains("iwl*firmware"));
        let post = &kickstart.scripts[0];
        assert!(post.has("--erroronfail"));
        assert_eq!(post.body, "echo \"%end is not here\"\n  %end");
    }

    #[test]
    fn words_are_those_of_shlex() {
        // Each as Python's shlex.split(line, comments=True) gives it.
        for (line, want) in [
            ("a#b c", &["a"][..]),
            (r#"a "x#y" z"#, &["a", "x#y", "z"]),
            (r"rootpw x\#y b", &["rootpw", "x#y", "b"]),
            ("a\u{a0}b c", &["a\u{a0}b", "c"]),
            (r#""a\b" "c\"d" "e\\f" "\$g""#, &[r"a\b", "c\"d", r"e\f", r"\$g"]),
            (r"'a\b' ''#", &[r"a\b", ""]),
            ("a\rb", &["a", "b"]),
        ] {
            assert_eq!(words(line).unwrap(), want, "{line}");
        }
        for (line, error) in [("a 'b", "No closing quotation"), ("a\\", "No escaped character")] {
            assert_eq!(words(line), Err(error), "{line}");
        }
    }

    #[test]
    fn refuses_what_anaconda_refuses() {
        for (text, line, message) in [
            ("text\nfrobnicate yes\n", 2, "Unknown command: frobnicate"),
            ("%post\necho\n", 1, "Section %post does not end with %end."),
            ("%nonsense\n%end\n", 1, "Unknown kickstart section: %nonsense"),
            ("\nrootpw \"open\n", 2, "No closing quotation"),
            (
                "%include /tmp/part\n",
                1,
                "Unable to open input kickstart file: /tmp/part",
            ),
            ("%end\n", 1, "Unknown command: %end"),
        ] {
            assert_eq!(
                parse(text),
                Err(KickstartError {
                    line,
                    message: message.into()
                }),
                "{text:?}"
            );
        }
    }

    #[test]
    fn asks_for_what_is_missing() {
        for (remove, question) in [
            ("lang en_US.UTF-8", "Language"),
            ("timezone UTC --utc    # trailing comment", "Time"),
            ("rootpw --lock", "Root password"),
            ("autopart --type=plain", "Installation Destination"),
        ] {
            let questions = parse(&GOOD.replace(remove, "")).unwrap().questions(true);
            assert_eq!(questions.len(), 1, "{remove}: {questions:?}");
            assert!(questions[0].starts_with(question), "{questions:?}");
        }
        assert!(parse(&GOOD.replace("cdrom", "")).unwrap().questions(false)[0].starts_with("Installation source"));
        assert_eq!(parse("").unwrap().questions(true).len(), 5);
    }
}
