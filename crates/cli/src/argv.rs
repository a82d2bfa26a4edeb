//! Packer's spelling of the variable options, `-var` with one dash, in terms that clap reads.

use std::ffi::{OsStr, OsString};

/// The options that Packer spells with one dash and that people bring along in their fingers and scripts.
const SINGLE_DASH: [&str; 2] = ["var", "var-file"];

/// The engines that may stand behind `--emulator` without an equals sign; anything else there is the folder.
const ENGINES: [&str; 2] = ["simulated", "qemu"];

/// Rewrites `-var X`, `-var=X`, `--var X` and the same of `var-file` to the one form `--var=X`, and `--emulator qemu` to `--emulator=qemu`.
///
/// The joined form also keeps a value that begins with a dash from being read as an option. What stands after `--` is
/// left alone, and so is the first argument, which is the program's own name.
pub(crate) fn normalise(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter().peekable();
    let mut normal: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        if arg == "--" {
            normal.push(arg);
            normal.extend(args);
            break;
        }
        let engine = |next: &OsString| ENGINES.iter().any(|name| next == name);
        if arg == "--emulator"
            && let Some(engine) = args.next_if(engine)
        {
            normal.push(joined("emulator", &engine));
            continue;
        }
        normal.push(match option_named(&arg) {
            Some(name) => match args.next() {
                Some(value) => joined(name, &value),
                // clap says what is missing.
                None => format!("--{name}").into(),
            },
            None => with_two_dashes(arg),
        });
    }
    normal
}

/// The variable option that `arg` is, when its value stands in the next argument.
fn option_named(arg: &OsStr) -> Option<&'static str> {
    let text = arg.to_str()?;
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    SINGLE_DASH.into_iter().find(|option| *option == name)
}

fn joined(name: &str, value: &OsStr) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value);
    option
}

/// `-var=X` gets its second dash; everything else stays as it is.
fn with_two_dashes(arg: OsString) -> OsString {
    let bytes = arg.as_encoded_bytes();
    let single = SINGLE_DASH.iter().any(|name| {
        bytes
            .strip_prefix(b"-")
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.starts_with(b"="))
    });
    if !single {
        return arg;
    }
    let mut option = OsString::from("-");
    option.push(arg);
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_options_get_one_form() {
        let table: &[(&[&str], &[&str])] = &[
            (&[], &[]),
            (&["-var", "a=1"], &["--var=a=1"]),
            (&["-var=a=1"], &["--var=a=1"]),
            (&["d", "--emulator", "qemu"], &["d", "--emulator=qemu"]),
            (&["--emulator", "qemu", "d"], &["--emulator=qemu", "d"]),
            (&["--emulator", "d"], &["--emulator", "d"]),
            (&["d", "--emulator"], &["d", "--emulator"]),
            (&["--var", "a=1"], &["--var=a=1"]),
            (&["--var=a=1"], &["--var=a=1"]),
            (&["-var-file", "f.hcl"], &["--var-file=f.hcl"]),
            (&["-var-file=f.hcl"], &["--var-file=f.hcl"]),
            (&["--var-file", "f.hcl"], &["--var-file=f.hcl"]),
            // Order between the two is kept, because the last one wins.
            (
                &["-var", "a=1", "-var-file", "f", "-var=a=2"],
                &["--var=a=1", "--var-file=f", "--var=a=2"],
            ),
            // The argument behind an option is its value, whatever it looks like.
            (&["-var", "-x=1"], &["--var=-x=1"]),
            (&["-var", "-var"], &["--var=-var"]),
            (&["-var", "--", "-var", "a=1"], &["--var=--", "--var=a=1"]),
            (&["-var", ""], &["--var="]),
            // A value that misses is clap's to report.
            (&["-var"], &["--var"]),
            (&["a", "-var-file"], &["a", "--var-file"]),
            // After `--` nothing is an option any more.
            (&["--", "-var", "a=1"], &["--", "-var", "a=1"]),
            (&["-var=a=1", "--", "-var=b=2"], &["--var=a=1", "--", "-var=b=2"]),
            // Neighbours that only look alike.
            (
                &["-v", "-vv", "--var-files", "-vars=1", "-variable", "var", "-"],
                &["-v", "-vv", "--var-files", "-vars=1", "-variable", "var", "-"],
            ),
        ];
        for (given, wanted) in table {
            let args = |list: &[&str]| {
                std::iter::once("k3simage")
                    .chain(list.iter().copied())
                    .map(OsString::from)
                    .collect::<Vec<_>>()
            };
            assert_eq!(normalise(args(given)), args(wanted), "{given:?}");
        }
    }

    #[test]
    fn the_programs_own_name_is_no_option() {
        assert_eq!(normalise(["-var".into(), "list".into()]), ["-var", "list"]);
        assert_eq!(normalise([]), Vec::<OsString>::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_value_need_not_be_unicode() {
        use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
        let path = OsStr::from_bytes(b"dir-\xff/f.hcl").to_owned();
        let normal = normalise(["k3simage".into(), "-var-file".into(), path]);
        assert_eq!(normal[1].clone().into_vec(), b"--var-file=dir-\xff/f.hcl");
        let joined = OsString::from_vec(b"-var-file=\xff".to_vec());
        assert_eq!(
            normalise(["k3simage".into(), joined])[1].clone().into_vec(),
            b"--var-file=\xff"
        );
    }
}
