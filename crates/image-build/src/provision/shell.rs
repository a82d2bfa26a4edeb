//! Runs a script in the guest, with its variables in a file that only the script's user can read.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Provisioner, Workplace};
use crate::Error;
use crate::communicator::{Command, CommunicatorError, OutputStream, Source, Upload};
use crate::spec::{EnvValue, ShellSpec};

/// How many of a failed script's last lines its error carries.
const TAIL_LINES: usize = 12;
/// What stands in place of a secret.
pub(crate) const MASK: &str = "<sensitive>";
/// Shorter values are no secrets, and masking them would make every line unreadable.
pub(crate) const SHORTEST_MASKED: usize = 4;

/// Variables that a shell sets by itself: some of them end the script that assigns them, and none keeps the value.
///
/// # Source
/// bash(1), "Shell Variables": those that are read-only, and those whose assignment has no effect or that are not imported.
const SHELLS_OWN: &[&str] = &[
    "BASHOPTS",
    "BASHPID",
    "BASH_ARGC",
    "BASH_ARGV",
    "BASH_LINENO",
    "BASH_SOURCE",
    "BASH_SUBSHELL",
    "BASH_VERSINFO",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "IFS",
    "LINENO",
    "OLDPWD",
    "OPTIND",
    "PIPESTATUS",
    "PPID",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "UID",
    "_",
];

/// Loads the variables, removes their file, runs the script and removes it, and the folder `$4` if one is named. `set -a`
/// exports what is read; the values are quoted, so the shell reads them as data. All in one command: after a script that
/// seals the image no other may be possible.
const RUN_WITH_ENVIRONMENT: &str =
    r#"set -a; . "$1"; set +a; rm -f "$1"; "$2" "$3"; s=$?; rm -f "$3"; if [ -n "$4" ]; then rm -rf "$4"; fi; exit $s"#;

/// A script and what it runs with.
#[derive(Clone, Debug)]
pub struct ShellProvisioner {
    /// Name for people and for the file in the guest.
    pub name: String,
    /// The script.
    pub content: Bytes,
    /// Its variables. They travel in a file and never as arguments, so none shows in a process list.
    pub environment: BTreeMap<String, SecretString>,
    /// What is masked wherever the script prints it.
    pub masked: Vec<SecretString>,
    /// How long it may run; no limit when `None`.
    pub timeout: Option<Duration>,
    /// Whether it may end the connection: what it was doing then counts as done.
    pub expect_disconnect: bool,
}

/// The line with every secret in it masked, as Packer shows it: `set -x` in a script prints them.
fn mask<'a>(secrets: &[SecretString], line: &'a str) -> Cow<'a, str> {
    let mut line = Cow::Borrowed(line);
    // A value of several lines is printed as several.
    for part in secrets.iter().flat_map(|secret| secret.expose_secret().lines()) {
        if part.len() >= SHORTEST_MASKED && line.contains(part) {
            line = Cow::Owned(line.replace(part, MASK));
        }
    }
    line
}

impl ShellProvisioner {
    /// The provisioner for a script of a spec, with the build's own variables beneath those of the spec.
    pub(crate) fn from_spec(spec: &ShellSpec, build: &[(&str, String)]) -> Self {
        let own = build
            .iter()
            .map(|(name, value)| ((*name).to_owned(), SecretString::from(value.clone())));
        let given = spec.env.iter().map(|(name, value)| {
            let value = match value {
                EnvValue::Plain(text) => SecretString::from(text.clone()),
                EnvValue::Secret(secret) => secret.clone(),
            };
            (name.clone(), value)
        });
        Self {
            name: spec.name.clone(),
            content: Bytes::copy_from_slice(spec.content.as_bytes()),
            environment: own.chain(given).collect(),
            masked: spec
                .env
                .iter()
                .filter_map(|(_, value)| match value {
                    EnvValue::Secret(secret) => Some(secret.clone()),
                    EnvValue::Plain(_) => None,
                })
                .collect(),
            timeout: Some(spec.timeout),
            expect_disconnect: spec.expect_disconnect,
        }
    }

    /// What runs the script: its `#!` line's program, or `bash`. The script is handed to it as a file, so that a `/var/tmp`
    /// mounted `noexec`, as hardening guides want it, does no harm.
    fn interpreter(&self) -> String {
        let first = self.content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(first);
        let mut words = line.strip_prefix("#!").unwrap_or_default().split_whitespace();
        match words.next() {
            Some(env) if env.ends_with("/env") => words.next().unwrap_or("bash").to_owned(),
            Some(program) => program.to_owned(),
            None => "bash".to_owned(),
        }
    }

    fn environment_file(&self) -> Result<Bytes, Error> {
        let mut text = String::new();
        for (name, value) in &self.environment {
            let plain = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !name.starts_with(|c: char| c.is_ascii_digit());
            if !plain {
                return Err(Error::unusable(
                    name,
                    "is no name of an environment variable",
                    "use letters, digits and _ only",
                ));
            }
            if SHELLS_OWN.contains(&name.as_str()) {
                return Err(Error::unusable(
                    name,
                    "is a variable that a shell sets by itself",
                    "take another name for it",
                ));
            }
            let value = value.expose_secret();
            if value.contains('\0') {
                return Err(Error::unusable(
                    name,
                    "holds a NUL character, which no environment can carry",
                    "remove it",
                ));
            }
            // Between single quotes a POSIX shell changes nothing; a single quote itself closes, escapes and opens again.
            text.extend([name, "='", &value.replace('\'', r"'\''"), "'\n"]);
        }
        Ok(text.into())
    }
}

#[async_trait]
impl Provisioner for ShellProvisioner {
    fn name(&self) -> &str {
        &self.name
    }

    fn expects_disconnect(&self) -> bool {
        self.expect_disconnect
    }

    async fn provision(&self, at: &Workplace<'_>) -> Result<String, Error> {
        let script = format!("{}/{}", at.folder, file_name(&self.name));
        let environment = format!("{script}.env");
        let uploads = [
            (&script, Source::Bytes(self.content.clone()), 0o700, "uploading"),
            (
                &environment,
                Source::Bytes(self.environment_file()?),
                0o600,
                "uploading the environment of",
            ),
        ];
        for (destination, source, mode, doing) in uploads {
            let upload = Upload {
                source,
                destination: destination.clone(),
                mode,
            };
            at.or_cancel(at.communicator.upload(&upload))
                .await?
                .map_err(Error::guest(format!("{doing} {}", self.name)))?;
        }

        let tail = Mutex::new(VecDeque::with_capacity(TAIL_LINES));
        let lines = Mutex::new(0_u64);
        let on_line = |stream: OutputStream, line: &str| {
            let line = &*mask(&self.masked, line);
            if let (Ok(mut tail), Ok(mut lines)) = (tail.lock(), lines.lock()) {
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(line.to_owned());
                *lines += 1;
            }
            (at.on_line)(stream, line);
        };
        let interpreter = self.interpreter();
        let folder = if at.is_last { at.folder.as_str() } else { "" };
        let mut command = Command::sh(
            RUN_WITH_ENVIRONMENT,
            [environment.as_str(), &interpreter, &script, folder],
        );
        if !at.is_root {
            // Non-interactive: without a rule in sudoers it says so at once instead of asking for a password.
            command.argv.splice(0..0, ["sudo".to_owned(), "-n".to_owned()]);
        }
        command.timeout = self.timeout;
        let ended = at.or_cancel(at.communicator.exec(&command, &on_line)).await?;
        let tail = || -> Vec<String> {
            tail.lock()
                .map(|tail| tail.iter().cloned().collect())
                .unwrap_or_default()
        };
        if self.expect_disconnect && ended.as_ref().is_err_and(CommunicatorError::is_lost) {
            return Ok(format!("{}, which ended the connection", self.name));
        }
        let status = ended.map_err(|error| {
            let hint = if error.is_lost() {
                " (a script that reboots the guest is to be listed in expect_disconnect)"
            } else {
                ""
            };
            // What it did last tells more than that its time was up.
            Error::guest(format!("running {}{hint}, which{}", self.name, last_words(&tail())))(error)
        })?;
        if !status.success() {
            return Err(Error::Script {
                script: self.name.clone(),
                status,
                tail: tail(),
            });
        }
        let lines = lines.lock().map(|lines| *lines).unwrap_or_default();
        Ok(format!("{}, {lines} lines", self.name))
    }
}

/// What a script that did not end had printed.
fn last_words(tail: &[String]) -> String {
    if tail.is_empty() {
        " printed nothing".to_owned()
    } else {
        format!(" printed last `{}`", tail.join(" | "))
    }
}

/// A name that is safe as a file's name in the guest.
fn file_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c
            } else {
                '_'
            }
        })
        .collect();
    // Neither hidden nor an option.
    if safe.starts_with(['.', '-']) || safe.is_empty() {
        format!("script{safe}")
    } else {
        safe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provisioner(content: &'static str, environment: &[(&str, &str)]) -> ShellProvisioner {
        ShellProvisioner {
            name: "x.sh".to_owned(),
            content: Bytes::from_static(content.as_bytes()),
            environment: environment
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned().into()))
                .collect(),
            masked: Vec::new(),
            timeout: None,
            expect_disconnect: false,
        }
    }

    #[test]
    fn secrets_are_masked_in_what_a_script_prints() {
        let spec = ShellSpec::new("x.sh", "true")
            .env("PLAIN", "visible")
            .env("TOKEN", SecretString::from("K10abc::server:s3cret"))
            .env("SHORT", SecretString::from("on"));
        let shell = ShellProvisioner::from_spec(&spec, &[]);
        for (line, expected) in [
            (
                "+ TOKEN=K10abc::server:s3cret visible on",
                "+ TOKEN=<sensitive> visible on",
            ),
            ("K10abc::server:s3cretK10abc::server:s3cret", "<sensitive><sensitive>"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(mask(&shell.masked, line), expected);
        }
        assert!(!format!("{shell:?}").contains("s3cret"));
    }

    #[test]
    fn the_interpreter_is_the_scripts_own() {
        for (content, program) in [
            ("#!/bin/bash\ntrue", "/bin/bash"),
            ("#!/usr/bin/env bash\n", "bash"),
            ("#! /usr/bin/python3 -u\n", "/usr/bin/python3"),
            ("#!/usr/bin/env", "bash"),
            ("echo no line", "bash"),
            ("", "bash"),
        ] {
            assert_eq!(provisioner(content, &[]).interpreter(), program, "{content:?}");
        }
    }

    /// What a program sees of a variable that went the way of a script's environment.
    fn arrived(shell: &str, name: &str, file: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let (path, script) = (folder.path().join("env"), folder.path().join("script"));
        std::fs::write(&path, file).unwrap();
        std::fs::write(&script, format!("exec printenv {name}\n")).unwrap();
        let output = std::process::Command::new("sh")
            .args(["-c", RUN_WITH_ENVIRONMENT, "sh"])
            .args([path.as_os_str(), shell.as_ref(), script.as_os_str(), "".as_ref()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{shell}: {output:?}");
        assert!(!path.exists() && !script.exists(), "both are gone afterwards");
        let mut text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.pop(), Some('\n'));
        text
    }

    #[test]
    fn a_real_shell_reads_back_every_value_as_it_was() {
        let values = [
            "",
            "plain",
            "it's",
            "$HOME `id` \\ \"q\"",
            "two\nlines",
            "ü\u{1F600}",
            "'; touch /tmp/pwned; '",
            "a=b #c",
            "trailing\n\n",
            "\r",
        ];
        for value in values {
            for shell in ["sh", "bash"] {
                let file = provisioner("", &[("VALUE", value)]).environment_file().unwrap();
                assert_eq!(arrived(shell, "VALUE", &file), value, "{shell} {value:?}");
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..proptest::prelude::ProptestConfig::default() })]

        #[test]
        fn any_text_arrives_in_a_script_s_environment_or_is_refused(
            value in "(?s)(.|[\\\\'\"$`\n\r;&|#!*? -]){0,30}",
            name in "[A-Z_][A-Z0-9_]{0,8}",
        ) {
            // The linker's own would change the shell that reads them, which is what they are for.
            proptest::prop_assume!(!name.starts_with("LD_") && name != "PATH");
            match provisioner("", &[(&name, &value)]).environment_file() {
                Ok(file) => for shell in ["sh", "bash"] {
                    proptest::prop_assert_eq!(arrived(shell, &name, &file), value.clone(), "{}", shell);
                },
                Err(error) => {
                    let told = error.diagnostics().unwrap().to_string();
                    proptest::prop_assert!(told.contains(&name), "{}", told);
                    proptest::prop_assert!(value.contains('\0') || SHELLS_OWN.contains(&name.as_str()));
                }
            }
        }
    }

    #[test]
    fn what_a_shell_sets_by_itself_is_refused_by_name() {
        for name in SHELLS_OWN {
            let error = provisioner("", &[(name, "x")]).environment_file().unwrap_err();
            assert!(error.diagnostics().unwrap().to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn names_and_values_that_no_environment_can_carry_are_refused() {
        for (name, value) in [("A-B", "x"), ("1A", "x"), ("", "x"), ("A;id", "x"), ("A", "nul\0")] {
            let error = provisioner("", &[(name, value)]).environment_file().unwrap_err();
            assert!(error.diagnostics().is_some(), "{error}");
        }
    }

    #[test]
    fn file_names_are_harmless() {
        for (name, expected) in [
            ("os-update.sh", "os-update.sh"),
            ("../../etc/x", "script.._.._etc_x"),
            ("a b;c", "a_b_c"),
            ("", "script"),
            ("-rf", "script-rf"),
        ] {
            assert_eq!(file_name(name), expected);
        }
    }
}
