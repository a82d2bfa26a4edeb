//! Programs that make files and folders: `mkdir`, `install`, `truncate`, `mktemp`.

use super::parse_mode;
use crate::engine::simulated::files::{Content, FsError, base_name, parent};
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;

impl Shell {
    pub(super) fn mkdir(&mut self, args: &[String], parents: bool, io: &Io) -> i32 {
        let (mode, _, _, _, names) = install_options(args);
        let mode = mode.unwrap_or(0o777 & !self.umask);
        self.each("mkdir", &names, io, |shell, path| {
            let mut folder = path;
            if parents {
                // The nearest folder that exists decides whether the rest may be made.
                while !shell.host.system().files.exists(folder) && folder != "/" {
                    folder = parent(folder);
                }
                if shell.host.system().files.is_dir(path) {
                    return Ok(());
                }
                if !shell.host.system().files.is_dir(folder) {
                    return Err(FsError::NotADirectory);
                }
            } else {
                folder = parent(path);
                if shell.host.system().files.exists(path) {
                    return Err(FsError::Exists);
                }
            }
            shell.may_write(folder)?;
            let owner = shell.user.name.clone();
            let mut system = shell.host.system();
            if parents {
                system.files.make_dirs(parent(path), 0o755, &owner);
            }
            system.files.make_dir(path, mode, &owner)
        })
    }

    /// `install [-d] [-D] [-m mode] [-o owner] [-g group] source... target`
    pub(super) fn install(&mut self, args: &[String], io: &Io) -> i32 {
        let (mode, owner, group, flags, names) = install_options(args);
        let owner = owner.unwrap_or_else(|| self.user.name.clone());
        let mode = mode.unwrap_or(0o755);
        let finish = |shell: &Self, path: &str| {
            if let Ok(node) = shell.host.system().files.get_mut(path) {
                node.mode = mode;
                node.owner.clone_from(&owner);
                node.group = group.clone().unwrap_or_else(|| owner.clone());
            }
        };
        if flags.contains('d') {
            return self.each("install", &names, io, |shell, path| {
                shell.may_write(path)?;
                shell.host.system().files.make_dirs(path, 0o755, "root");
                finish(shell, path);
                Ok(())
            });
        }
        let Some((target, sources)) = names.split_last().filter(|(_, sources)| !sources.is_empty()) else {
            io.stderr.line("install: missing file operand");
            return 1;
        };
        let target = self.path(target);
        self.each("install", sources, io, |shell, source| {
            let to = if shell.host.system().files.is_dir(&target) {
                format!("{target}/{}", base_name(source))
            } else {
                target.clone()
            };
            let content = shell.host.system().files.content(source)?;
            shell.may_write(&to)?;
            let mut system = shell.host.system();
            if flags.contains('D') {
                system.files.make_dirs(parent(&to), 0o755, "root");
            }
            // A new file, not the old one written over: links are replaced.
            let _ = system.files.remove(&to, false);
            system.files.write(&to, content, mode, &owner)?;
            drop(system);
            finish(shell, &to);
            Ok(())
        })
    }

    pub(super) fn truncate(&mut self, args: &[String], io: &Io) -> i32 {
        let mut size = None;
        let mut names = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "-s" || arg == "--size" {
                size = args.next().cloned();
            } else if let Some(given) = arg.strip_prefix("--size=").or_else(|| arg.strip_prefix("-s")) {
                size = Some(given.to_owned());
            } else if !arg.starts_with('-') {
                names.push(arg.clone());
            }
        }
        let Some(size) = size
            .and_then(|size| size.parse::<usize>().ok())
            .filter(|size| *size as u64 <= self.host.keep_file_bytes)
        else {
            io.stderr.line("truncate: invalid or missing size");
            return 1;
        };
        self.each("truncate", &names, io, |shell, path| {
            shell.may_write(path)?;
            let mut system = shell.host.system();
            let mut bytes = match system.files.bytes(path) {
                Ok(bytes) => bytes.to_vec(),
                Err(FsError::NotFound) => Vec::new(),
                Err(error) => return Err(error),
            };
            bytes.resize(size, 0);
            system
                .files
                .write(path, Content::Bytes(bytes.into()), 0o644, &shell.user.name)
        })
    }

    pub(super) fn mktemp(&mut self, args: &[String], io: &Io) -> i32 {
        let directory = args.iter().any(|arg| arg == "-d" || arg == "--directory");
        let template = args.iter().find(|arg| arg.contains("XXX")).cloned();
        let in_tmp = args.iter().any(|arg| arg == "-t");
        let mut template = template.unwrap_or_else(|| "/tmp/tmp.XXXXXXXXXX".to_owned());
        if in_tmp && !template.starts_with('/') {
            template = format!("/tmp/{template}");
        }
        let random = hex::encode(rand::random::<[u8; 16]>());
        let xs = template.chars().rev().take_while(|c| *c == 'X').count();
        let path = self.path(&format!(
            "{}{}",
            &template[..template.len() - xs],
            &random[..xs.min(32)]
        ));
        let owner = self.user.name.clone();
        let made = {
            let mut system = self.host.system();
            if directory {
                system.files.make_dir(&path, 0o700, &owner)
            } else {
                system
                    .files
                    .write(&path, Content::Bytes(bytes::Bytes::new()), 0o600, &owner)
            }
        };
        if made.is_ok() {
            io.stdout.line(&path);
        }
        Self::report("mktemp", &path, made, io)
    }
}

/// Mode, owner, group, flags and names of an `install` or `mkdir` command line.
fn install_options(args: &[String]) -> (Option<u32>, Option<String>, Option<String>, String, Vec<String>) {
    let (mut mode, mut owner, mut group) = (None, None, None);
    let (mut flags, mut names) = (String::new(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if let Some(long) = arg.strip_prefix("--") {
            match long.split_once('=') {
                Some(("mode", value)) => mode = Some(parse_mode(value, 0, false)),
                Some(("owner", value)) => owner = Some(value.to_owned()),
                Some(("group", value)) => group = Some(value.to_owned()),
                _ if long == "directory" => flags.push('d'),
                _ => {}
            }
            continue;
        }
        let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            names.push(arg.clone());
            continue;
        };
        for (at, letter) in letters.char_indices() {
            if !matches!(letter, 'm' | 'o' | 'g') {
                flags.push(letter);
                continue;
            }
            let tail = &letters[at + 1..];
            let value = if tail.is_empty() {
                args.next().cloned().unwrap_or_default()
            } else {
                tail.to_owned()
            };
            match letter {
                'm' => mode = Some(parse_mode(&value, 0, false)),
                'o' => owner = Some(value),
                _ => group = Some(value),
            }
            break;
        }
    }
    (mode, owner, group, flags, names)
}
