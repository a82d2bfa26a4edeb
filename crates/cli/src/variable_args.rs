//! `-var` and `-var-file`: read together, because their order among each other decides which value wins.

use std::fmt;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind, value_parser};

/// One `-var` or `-var-file`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum VariableArg {
    /// `-var NAME=VALUE`.
    Value {
        /// What stands before the first `=`.
        name: String,
        /// What stands behind it, as it is.
        value: String,
    },
    /// `-var-file FILE`.
    File(PathBuf),
}

/// Values may be secrets.
impl fmt::Debug for VariableArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { name, value: _ } => f.debug_struct("Value").field("name", name).finish_non_exhaustive(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// All `-var` and `-var-file` of one command line, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VariableArgs(pub(crate) Vec<VariableArg>);

const VAR: &str = "var";
const VAR_FILE: &str = "var-file";

impl Args for VariableArgs {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new(VAR)
                    .long(VAR)
                    .value_name("NAME=VALUE")
                    .value_parser(value_parser!(String))
                    .action(ArgAction::Append)
                    .help("Set a variable, also spelled -var as Packer does; of -var and -var-file the last one wins")
                    .help_heading("Variables"),
            )
            .arg(
                Arg::new(VAR_FILE)
                    .long(VAR_FILE)
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .action(ArgAction::Append)
                    .help("Read variables from a file (*.pkrvars.hcl or *.pkrvars.json), also spelled -var-file")
                    .help_heading("Variables"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for VariableArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut all = Vec::new();
        for (index, text) in indexed::<String>(matches, VAR) {
            all.push((index, parse(&text)?));
        }
        for (index, path) in indexed::<PathBuf>(matches, VAR_FILE) {
            all.push((index, VariableArg::File(path)));
        }
        all.sort_by_key(|(index, _)| *index);
        Ok(Self(all.into_iter().map(|(_, arg)| arg).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an option with their places on the command line.
fn indexed<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, id: &str) -> Vec<(usize, T)> {
    let places = matches.indices_of(id).into_iter().flatten();
    places
        .zip(matches.get_many::<T>(id).into_iter().flatten().cloned())
        .collect()
}

/// The text itself is not repeated in the error: what was meant as a value may be a secret.
fn parse(text: &str) -> Result<VariableArg, clap::Error> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok(VariableArg::Value {
            name: name.trim().to_owned(),
            value: value.to_owned(),
        }),
        Some(_) => Err(wrong("a -var has no name before its `=`: write -var NAME=VALUE")),
        None => Err(wrong(
            "a -var has no `=`: write -var NAME=VALUE, in quotes where VALUE has spaces",
        )),
    }
}

fn wrong(message: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n"))
}

/// The variables that hold secrets; on a command line every process list shows them.
pub(crate) fn secrets_given<'a>(args: &'a VariableArgs, is_secret: impl Fn(&str) -> bool + 'a) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for arg in &args.0 {
        if let VariableArg::Value { name, .. } = arg
            && is_secret(name)
            && !names.contains(&name.as_str())
        {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        variables: VariableArgs,
    }

    fn read(args: &[&str]) -> Result<Vec<VariableArg>, clap::Error> {
        let args = std::iter::once("probe").chain(args.iter().copied()).map(OsString::from);
        Probe::try_parse_from(crate::argv::normalise(args)).map(|probe| probe.variables.0)
    }

    fn value(name: &str, value: &str) -> VariableArg {
        VariableArg::Value {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn order_between_the_two_options_is_kept() {
        let read = read(&[
            "-var",
            "a=1",
            "-var-file",
            "x.hcl",
            "--var=a=2",
            "-var-file=y.hcl",
            "-var=b=3",
        ])
        .unwrap();
        let wanted = [
            value("a", "1"),
            VariableArg::File("x.hcl".into()),
            value("a", "2"),
            VariableArg::File("y.hcl".into()),
            value("b", "3"),
        ];
        assert_eq!(read, wanted);
    }

    #[test]
    fn values_arrive_as_they_are() {
        for (text, wanted) in [
            ("a=", value("a", "")),
            ("a=b=c", value("a", "b=c")),
            ("a= b ", value("a", " b ")),
            (" a =b", value("a", "b")),
            ("tags=[\"x\", \"y\"]", value("tags", "[\"x\", \"y\"]")),
            ("a=-1", value("a", "-1")),
            ("-a=1", value("-a", "1")),
        ] {
            assert_eq!(read(&["-var", text]).unwrap(), [wanted], "{text}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_refused_without_repeating_it() {
        for text in ["hunter2", "=hunter2", " =hunter2", ""] {
            let error = read(&["-var", text]).unwrap_err().to_string();
            assert!(error.contains("write -var NAME=VALUE"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(
            read(&["-var-file="])
                .unwrap_err()
                .to_string()
                .contains("--var-file <FILE>")
        );
        assert!(read(&["-var"]).unwrap_err().to_string().contains("--var <NAME=VALUE>"));
    }

    #[test]
    fn debug_shows_no_value_and_secrets_are_named_once() {
        let args = VariableArgs(
            read(&[
                "-var",
                "proxmox_token=hunter2",
                "-var",
                "proxmox_token=x",
                "-var",
                "a=1",
            ])
            .unwrap(),
        );
        assert!(!format!("{args:?}").contains("hunter2"));
        assert_eq!(secrets_given(&args, |name| name == "proxmox_token"), ["proxmox_token"]);
    }
}
