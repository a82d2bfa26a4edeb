//! Reads the facts of a kickstart that checks need, with line numbers; everything else is passed over.

/// Something that stands on a line of the kickstart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<T> {
    /// Line, counted from 1.
    pub line: usize,
    /// What stands there.
    pub value: T,
}

/// Root's password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootPassword {
    /// `--lock`: nobody logs in by it.
    Locked,
    /// It stands in the file for everyone to read.
    Plaintext,
    /// Its hash stands in the file.
    Crypted,
}

/// What the installer does at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// It reboots.
    Reboot,
    /// It replaces its kernel by the new one without a reboot that the hypervisor could see.
    Kexec,
    /// It powers off.
    Poweroff,
    /// It halts or waits for a key: the machine stays on.
    Halt,
}

/// A user that the kickstart makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFact {
    /// Name.
    pub name: String,
    /// Can it log in with a password?
    pub password: bool,
    /// Groups.
    pub groups: Vec<String>,
}

/// A command that no other fact stands for: its name and its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Name, `timezone`.
    pub name: String,
    /// Words behind it, without quotes.
    pub words: Vec<String>,
}

impl Command {
    /// Value of `--name=value` or `--name value`.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            let Some(rest) = word.strip_prefix(name) else { continue };
            match rest.strip_prefix('=') {
                Some(value) => return Some(value),
                None if rest.is_empty() => return Some(words.next().map_or("", String::as_str)),
                None => {}
            }
        }
        None
    }

    /// Is the option there?
    pub fn has(&self, name: &str) -> bool {
        self.words
            .iter()
            .any(|word| word == name || word.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
    }

    /// Words that are no options, those of `--option value` among them.
    pub fn plain(&self) -> impl Iterator<Item = &str> {
        self.words
            .iter()
            .map(String::as_str)
            .filter(|word| !word.starts_with("--"))
    }
}

/// A section from `%name` to `%end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name without `%`.
    pub name: String,
    /// Words behind it.
    pub words: Vec<String>,
    /// Lines within, with their numbers.
    pub body: Vec<Fact<String>>,
    /// Does it end with `%end`?
    pub closed: bool,
}

/// What a kickstart says, as far as checks need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every command outside of sections.
    pub commands: Vec<Fact<Command>>,
    /// Every section.
    pub sections: Vec<Fact<Section>>,
    /// Lines that bring in other files, which are not seen here.
    pub includes: Vec<Fact<String>>,
    /// Lines whose quotes do not close.
    pub open_quotes: Vec<usize>,
}

/// Reads a kickstart. Every text has facts, if only that there are none.
///
/// # Source
/// pykickstart: commands are lines outside of sections and split like those of a shell; a section ends at the next
/// line that begins with `%end`.
pub fn facts(text: &str) -> Facts {
    let mut facts = Facts::default();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((line, raw)) = lines.next() {
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let Some(mut words) = words(trimmed) else {
            facts.open_quotes.push(line);
            continue;
        };
        if words.is_empty() {
            continue;
        }
        let name = words.remove(0);
        match name.strip_prefix('%') {
            Some("include" | "ksappend") => facts.includes.push(Fact {
                line,
                value: words.join(" "),
            }),
            Some("end") => {}
            Some(section) => {
                let mut section = Section {
                    name: section.to_owned(),
                    words,
                    body: Vec::new(),
                    closed: false,
                };
                for (line, raw) in lines.by_ref() {
                    match raw.split_whitespace().next() {
                        Some("%end") => {
                            section.closed = true;
                            break;
                        }
                        Some("%include") => facts.includes.push(Fact {
                            line,
                            value: raw.trim().to_owned(),
                        }),
                        _ => section.body.push(Fact {
                            line,
                            value: raw.to_owned(),
                        }),
                    }
                }
                facts.sections.push(Fact { line, value: section });
            }
            None => facts.commands.push(Fact {
                line,
                value: Command { name, words },
            }),
        }
    }
    facts
}

/// Splits a line into words; `None` when quotes do not close.
///
/// # Source
/// pykickstart reads lines with Python's `shlex.split(line, comments=True)`: an unquoted `#` begins a comment even within
/// a word, only blank, tab and line ends separate, and in double quotes `\` is special before `\` and `"` alone.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => {
                let escaped = chars.next()?;
                let word = word.get_or_insert_default();
                if !matches!(escaped, '\\' | '"') {
                    word.push('\\');
                }
                word.push(escaped);
            }
            (None, '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') => break,
            (None, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Packages of all `%packages` sections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageList {
    /// Line of the first section.
    pub line: usize,
    /// Packages and groups.
    pub included: Vec<Fact<String>>,
    /// Packages and groups left out.
    pub excluded: Vec<Fact<String>>,
}

impl PackageList {
    /// The line that leaves the package out, by name or by a pattern such as `qemu-*`.
    pub fn excludes(&self, package: &str) -> Option<usize> {
        self.excluded
            .iter()
            .find(|fact| glob(&fact.value, package))
            .map(|fact| fact.line)
    }

    /// The line that names the package, itself or by a pattern. What groups bring is not known here.
    pub fn includes(&self, package: &str) -> Option<usize> {
        self.included
            .iter()
            .find(|fact| glob(&fact.value, package))
            .map(|fact| fact.line)
    }
}

/// `*` and `?`, as dnf has them.
fn glob(pattern: &str, text: &str) -> bool {
    // An architecture may stand behind a name: qemu-guest-agent.x86_64.
    let pattern = pattern.strip_suffix(".x86_64").unwrap_or(pattern).as_bytes();
    let text = text.as_bytes();
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl Facts {
    /// The last command of that name: later ones override.
    pub fn command(&self, name: &str) -> Option<&Fact<Command>> {
        self.commands.iter().rfind(|fact| fact.value.name == name)
    }

    /// Every command of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Fact<Command>> {
        self.commands.iter().filter(move |fact| fact.value.name == name)
    }

    /// Every section of that name.
    pub fn sections<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Fact<Section>> {
        self.sections.iter().filter(move |fact| fact.value.name == name)
    }

    /// Packages of all sections together; `None` without a section.
    pub fn packages(&self) -> Option<PackageList> {
        let mut list = PackageList {
            line: self.sections("packages").next()?.line,
            ..PackageList::default()
        };
        for fact in self.sections("packages").flat_map(|section| &section.value.body) {
            let entry = fact.value.split('#').next().unwrap_or_default().trim();
            let Some(name) = entry.split_whitespace().next() else {
                continue;
            };
            let (target, name) = match name.strip_prefix('-') {
                Some(name) => (&mut list.excluded, name),
                None => (&mut list.included, name),
            };
            if !name.is_empty() {
                target.push(Fact {
                    line: fact.line,
                    value: name.to_owned(),
                });
            }
        }
        Some(list)
    }

    /// Root's password.
    pub fn root_password(&self) -> Option<Fact<RootPassword>> {
        let Fact { line, value } = self.command("rootpw")?;
        let kind = if value.has("--lock") {
            RootPassword::Locked
        } else if value.has("--iscrypted") {
            RootPassword::Crypted
        } else {
            RootPassword::Plaintext
        };
        Some(Fact {
            line: *line,
            value: kind,
        })
    }

    /// Users beside root.
    pub fn users(&self) -> Vec<Fact<UserFact>> {
        self.all("user")
            .filter_map(|Fact { line, value }| {
                let groups = value.option("--groups").unwrap_or_default();
                let user = UserFact {
                    name: value.option("--name")?.to_owned(),
                    password: value.has("--password") && !value.has("--lock"),
                    groups: groups
                        .split(',')
                        .filter(|group| !group.is_empty())
                        .map(str::to_owned)
                        .collect(),
                };
                Some(Fact {
                    line: *line,
                    value: user,
                })
            })
            .collect()
    }

    /// Users that get a public key, one fact a key.
    pub fn ssh_key_users(&self) -> Vec<Fact<String>> {
        let user = |fact: &Fact<Command>| {
            Some(Fact {
                line: fact.line,
                value: fact.value.option("--username")?.to_owned(),
            })
        };
        self.all("sshkey").filter_map(user).collect()
    }

    /// What happens at the end; Anaconda waits for a key when nothing is said.
    pub fn finish(&self) -> Option<Fact<Finish>> {
        let Fact { line, value } = self
            .commands
            .iter()
            .rfind(|fact| matches!(fact.value.name.as_str(), "reboot" | "poweroff" | "shutdown" | "halt"))?;
        let finish = match value.name.as_str() {
            "reboot" if value.has("--kexec") => Finish::Kexec,
            "reboot" => Finish::Reboot,
            "halt" => Finish::Halt,
            _ => Finish::Poweroff,
        };
        Some(Fact {
            line: *line,
            value: finish,
        })
    }

    /// Does a line of a `%post` section hold the text?
    pub fn post_mentions(&self, text: &str) -> Option<usize> {
        let post = self.sections("post").flat_map(|section| &section.value.body);
        post.filter(|fact| !fact.value.trim_start().starts_with('#'))
            .find(|fact| fact.value.contains(text))
            .map(|fact| fact.line)
    }

    /// Units of `services --enabled=` or `--disabled=`.
    pub fn services(&self, option: &str) -> Vec<Fact<String>> {
        let units = |fact: &Fact<Command>| {
            let list = fact.value.option(option).unwrap_or_default().to_owned();
            let line = fact.line;
            let unit = move |unit: &str| Fact {
                line,
                value: unit.trim().trim_end_matches(".service").to_owned(),
            };
            list.split(',')
                .filter(|unit| !unit.trim().is_empty())
                .map(unit)
                .collect::<Vec<_>>()
        };
        self.all("services").flat_map(units).collect()
    }
}

#[cfg(test)]
mod tests;
