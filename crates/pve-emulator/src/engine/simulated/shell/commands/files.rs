//! Programs that handle files and folders.

use crate::engine::simulated::files::{Content, FsError, Kind, base_name, parent};
use crate::engine::simulated::pattern::matches_glob;
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;

mod make;

impl Shell {
    /// Whether the user may create, change or remove what lies at a path.
    pub(in crate::engine::simulated::shell) fn may_write(&self, path: &str) -> Result<(), FsError> {
        if self.user.uid == 0 {
            return Ok(());
        }
        let system = self.host.system();
        let writable = |path: &str| {
            system.files.get(path).is_ok_and(|node| {
                node.mode & 0o002 != 0
                    || (node.owner == self.user.name && node.mode & 0o200 != 0)
                    || node.kind == Kind::Null
            })
        };
        if writable(path) || (!system.files.exists(path) && writable(parent(path))) {
            Ok(())
        } else {
            Err(FsError::Denied)
        }
    }

    /// Whether the user may remove an entry from its folder; a sticky one gives up only what is the user's own.
    fn may_remove(&self, path: &str) -> Result<(), FsError> {
        if self.user.uid == 0 {
            return Ok(());
        }
        let system = self.host.system();
        let own = system.files.get_no_follow(path)?.owner == self.user.name;
        let folder = system.files.get(parent(path))?;
        let writable = folder.mode & 0o002 != 0 || folder.owner == self.user.name;
        if writable && (own || folder.mode & 0o1000 == 0 || folder.owner == self.user.name) {
            Ok(())
        } else {
            Err(FsError::Denied)
        }
    }

    pub(super) fn file_command(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        let flags: String = args
            .iter()
            .filter(|arg| arg.starts_with('-') && !arg.starts_with("--"))
            .flat_map(|arg| arg.chars().skip(1))
            .collect();
        let has = |letter: char, long: &str| flags.contains(letter) || args.iter().any(|arg| arg == long);
        let names: Vec<String> = args
            .iter()
            .filter(|arg| !arg.starts_with('-') || arg.as_str() == "-")
            .cloned()
            .collect();
        match name {
            "mkdir" => self.mkdir(args, has('p', "--parents"), io),
            "install" => self.install(args, io),
            "truncate" => self.truncate(args, io),
            "mktemp" => self.mktemp(args, io),
            "stat" => self.stat(args, io),
            "find" => self.find(args, io),
            "ls" => self.list(&names, &flags, io),
            "rm" | "shred" => {
                // `shred` without `-u` overwrites; what was in the file is gone either way.
                let recursive = name == "rm" && (has('r', "--recursive") || flags.contains('R'));
                let force = has('f', "--force");
                if names.is_empty() && !force {
                    io.stderr.line(format!("{name}: missing operand"));
                    return 1;
                }
                self.each(name, &names, io, |shell, path| {
                    if !force || shell.host.system().files.get_no_follow(path).is_ok() {
                        shell.may_remove(path)?;
                        shell.host.system().files.remove(path, recursive)?;
                    }
                    Ok(())
                })
            }
            "rmdir" => self.each(name, &names, io, |shell, path| {
                shell.may_remove(path)?;
                shell.host.system().files.remove_dir(path)
            }),
            "mv" | "cp" => self.transfer(name, args, io),
            "ln" => {
                let (Some(target), Some(path)) = (names.first(), names.get(1)) else {
                    io.stderr.line("ln: missing file operand");
                    return 1;
                };
                let mut path = self.path(path);
                if self.host.system().files.is_dir(&path) && !flags.contains('n') && !flags.contains('T') {
                    path = format!("{path}/{}", base_name(target));
                }
                let linked = self
                    .may_write(&path)
                    .and_then(|()| self.host.system().files.link(target, &path, flags.contains('f')));
                Self::report(name, &path, linked, io)
            }
            "chmod" | "chown" | "chgrp" => {
                let recursive = has('R', "--recursive");
                let reference = args.iter().any(|arg| arg.starts_with("--reference"));
                // A mode may begin with a dash: `chmod -x file`.
                let (what, names) = match names.split_first() {
                    _ if reference => return 0,
                    Some((what, names)) => (what.clone(), names.to_vec()),
                    None => {
                        io.stderr.line(format!("{name}: missing operand"));
                        return 1;
                    }
                };
                self.each(name, &names, io, |shell, path| {
                    shell.change(name, &what, path, recursive)
                })
            }
            "touch" => self.each(name, &names, io, |shell, path| {
                if shell.host.system().files.exists(path) {
                    return Ok(());
                }
                shell.may_write(path)?;
                shell.host.system().files.write(
                    path,
                    Content::Bytes(bytes::Bytes::new()),
                    0o666 & !shell.umask,
                    &shell.user.name,
                )
            }),
            "readlink" | "realpath" => {
                let Some(file) = names.first() else { return 1 };
                let path = self.path(file);
                let system = self.host.system();
                let target = match system.files.get_no_follow(&path).map(|node| &node.kind) {
                    Ok(Kind::Link(target)) if name == "readlink" && !flags.contains('f') => Ok(target.clone()),
                    _ if name == "readlink" && !flags.contains('f') => return 1,
                    _ => system.files.resolve(&path, true),
                };
                drop(system);
                match target {
                    Ok(target) => {
                        io.stdout.line(target);
                        0
                    }
                    Err(error) => Self::report(name, file, Err(error), io),
                }
            }
            "pwd" => {
                io.stdout.line(&self.cwd);
                0
            }
            "dirname" | "basename" => {
                let Some(file) = names.first() else { return 1 };
                let trimmed = file.trim_end_matches('/');
                let text = match name {
                    "basename" => {
                        let base = base_name(trimmed);
                        names
                            .get(1)
                            .and_then(|suffix| base.strip_suffix(suffix.as_str()))
                            .unwrap_or(base)
                    }
                    _ if !trimmed.contains('/') => ".",
                    _ => parent(trimmed),
                };
                io.stdout.line(text);
                0
            }
            // SELinux labels are not kept per file; the policy's own would be the result.
            _ => self.each(
                name,
                &names
                    .iter()
                    .filter(|name| name.starts_with('/'))
                    .cloned()
                    .collect::<Vec<_>>(),
                io,
                |shell, path| shell.host.system().files.get(path).map(drop),
            ),
        }
    }

    /// Does one thing to each file; complaints as coreutils word them.
    fn each(
        &mut self,
        name: &str,
        files: &[String],
        io: &Io,
        mut action: impl FnMut(&mut Self, &str) -> Result<(), FsError>,
    ) -> i32 {
        let mut status = 0;
        for file in files {
            let path = self.path(file);
            let result = action(self, &path);
            status |= Self::report(name, file, result, io);
        }
        status
    }

    fn report(name: &str, file: &str, result: Result<(), FsError>, io: &Io) -> i32 {
        match result {
            Ok(()) => 0,
            Err(error) => {
                let what = match name {
                    "rm" | "rmdir" | "shred" => "cannot remove ",
                    "mv" | "cp" => "cannot stat ",
                    "mkdir" => "cannot create directory ",
                    "touch" => "cannot touch ",
                    "chmod" | "chown" | "chgrp" | "ls" => "cannot access ",
                    _ => "",
                };
                io.stderr.line(format!("{name}: {what}'{file}': {error}"));
                1
            }
        }
    }

    fn change(&mut self, name: &str, what: &str, path: &str, recursive: bool) -> Result<(), FsError> {
        let mut system = self.host.system();
        let path = system.files.resolve(path, true)?;
        let paths = if recursive {
            system.files.below(&path)
        } else {
            vec![path.clone()]
        };
        if !system.files.exists(&path) {
            return Err(FsError::NotFound);
        }
        for path in paths {
            let node = system.files.get_mut(&path)?;
            if self.user.uid != 0 && node.owner != self.user.name {
                return Err(FsError::Denied);
            }
            match name {
                "chmod" => node.mode = parse_mode(what, node.mode, node.kind == Kind::Dir),
                "chgrp" => what.clone_into(&mut node.group),
                _ => {
                    let (owner, group) = what
                        .split_once([':', '.'])
                        .map_or((what, None), |(owner, group)| (owner, Some(group)));
                    if !owner.is_empty() {
                        owner.clone_into(&mut node.owner);
                    }
                    if let Some(group) = group {
                        if group.is_empty() { owner } else { group }.clone_into(&mut node.group);
                    }
                }
            }
        }
        Ok(())
    }

    fn transfer(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        let names: Vec<String> = args.iter().filter(|arg| !arg.starts_with('-')).cloned().collect();
        let flags: String = args
            .iter()
            .filter(|arg| arg.starts_with('-'))
            .flat_map(|arg| arg.chars().skip(1))
            .collect();
        let Some((target, sources)) = names.split_last().filter(|(_, sources)| !sources.is_empty()) else {
            io.stderr.line(format!("{name}: missing file operand"));
            return 1;
        };
        let target = self.path(target);
        let recursive = flags.contains(['r', 'R', 'a']);
        self.each(name, sources, io, |shell, source| {
            let to = if shell.host.system().files.is_dir(&target) && !flags.contains('T') {
                format!("{target}/{}", base_name(source))
            } else {
                target.clone()
            };
            if name == "cp" && shell.host.system().files.is_dir(source) && !recursive {
                return Err(FsError::IsADirectory);
            }
            shell.may_write(&to)?;
            if name == "mv" {
                shell.may_remove(source)?;
            }
            let keep_owner = name == "mv" || flags.contains(['a', 'p']);
            let mut system = shell.host.system();
            let from = if name == "cp" {
                system.files.resolve(source, true)?
            } else {
                source.to_owned()
            };
            system.files.transfer(&from, &to, name == "cp")?;
            if !keep_owner && let Ok(node) = system.files.get_mut(&to) {
                node.owner.clone_from(&shell.user.name);
                node.group.clone_from(&shell.user.name);
            }
            Ok(())
        })
    }

    fn list(&mut self, names: &[String], flags: &str, io: &Io) -> i32 {
        let here = [".".to_owned()];
        let names = if names.is_empty() { &here[..] } else { names };
        self.each("ls", names, io, |shell, path| {
            let system = shell.host.system();
            let entries: Vec<(String, String)> = if system.files.is_dir(path) && !flags.contains('d') {
                let resolved = system.files.resolve(path, true)?;
                let listed = system.files.list(path)?;
                let shown = listed
                    .into_iter()
                    .filter(|name| flags.contains(['a', 'A']) || !name.starts_with('.'));
                shown
                    .map(|name| (name.clone(), format!("{}/{name}", resolved.trim_end_matches('/'))))
                    .collect()
            } else {
                system.files.get_no_follow(path)?;
                vec![(path.to_owned(), path.to_owned())]
            };
            for (name, path) in entries {
                let node = system.files.get_no_follow(&path)?;
                if flags.contains('l') {
                    let size = if let Kind::File(content) = &node.kind {
                        content.size()
                    } else {
                        0
                    };
                    let letter = match node.kind {
                        Kind::Dir => 'd',
                        Kind::Link(_) => 'l',
                        Kind::Null => 'c',
                        Kind::File(_) => '-',
                    };
                    io.stdout.line(format!(
                        "{letter}{} 1 {} {} {size} Jan  1 00:00 {name}",
                        mode_text(node.mode),
                        node.owner,
                        node.group
                    ));
                } else {
                    io.stdout.line(name);
                }
            }
            Ok(())
        })
    }

    fn stat(&mut self, args: &[String], io: &Io) -> i32 {
        let mut format = None;
        let mut names = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-c" | "--format" => format = args.next().cloned(),
                arg if arg.starts_with("--format=") => {
                    format = arg.split_once('=').map(|(_, format)| format.to_owned());
                }
                arg if arg.starts_with('-') => {}
                arg => names.push(arg.to_owned()),
            }
        }
        self.each("stat", &names, io, |shell, path| {
            let system = shell.host.system();
            let node = system.files.get_no_follow(path)?;
            let size = if let Kind::File(content) = &node.kind {
                content.size()
            } else {
                0
            };
            let text = format
                .as_deref()
                .unwrap_or("  File: %n\n  Size: %s\nAccess: (%a)  Uid: (%U)   Gid: (%G)");
            let text = text
                .replace("%n", path)
                .replace("%s", &size.to_string())
                .replace("%a", &format!("{:o}", node.mode))
                .replace("%U", &node.owner)
                .replace("%G", &node.group)
                .replace(
                    "%F",
                    if node.kind == Kind::Dir {
                        "directory"
                    } else {
                        "regular file"
                    },
                );
            io.stdout.line(text);
            Ok(())
        })
    }

    /// `find path... [-name glob] [-type f|d|l] [-maxdepth n] [-delete]`
    fn find(&mut self, args: &[String], io: &Io) -> i32 {
        let split = args
            .iter()
            .position(|arg| arg.starts_with('-') || arg == "(" || arg == "!")
            .unwrap_or(args.len());
        let (names, tests) = args.split_at(split);
        let (mut glob, mut kind, mut depth, mut least, mut delete) = (None, None, usize::MAX, 0, false);
        let mut rest = tests.iter();
        while let Some(test) = rest.next() {
            match test.as_str() {
                "-name" => glob = rest.next().cloned(),
                "-type" => kind = rest.next().cloned(),
                "-maxdepth" => depth = rest.next().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX),
                "-mindepth" => least = rest.next().and_then(|text| text.parse().ok()).unwrap_or(0),
                "-delete" => delete = true,
                "-print" | "-xdev" => {}
                other => {
                    io.stderr.line(format!("find: unknown predicate `{other}'"));
                    return 1;
                }
            }
        }
        self.each("find", names, io, |shell, path| {
            let mut system = shell.host.system();
            system.files.get_no_follow(path)?;
            let levels = |path: &str| path.split('/').filter(|part| !part.is_empty()).count();
            let mut found: Vec<String> = system
                .files
                .below(path)
                .into_iter()
                .filter(|entry| (least..=depth).contains(&(levels(entry) - levels(path))))
                .filter(|entry| glob.as_ref().is_none_or(|glob| matches_glob(glob, base_name(entry))))
                .filter(|entry| {
                    let node = system.files.get_no_follow(entry).map(|node| node.kind.clone());
                    match kind.as_deref() {
                        None => true,
                        Some("f") => matches!(node, Ok(Kind::File(_))),
                        Some("d") => matches!(node, Ok(Kind::Dir)),
                        Some(_) => matches!(node, Ok(Kind::Link(_))),
                    }
                })
                .collect();
            if delete {
                found.reverse();
                for entry in &found {
                    system.files.remove(entry, true)?;
                }
            } else {
                for entry in &found {
                    io.stdout.line(entry);
                }
            }
            Ok(())
        })
    }
}

/// `0755`, `u+x`, `go-rwx`, `a=r`.
fn parse_mode(text: &str, old: u32, is_dir: bool) -> u32 {
    if let Ok(mode) = u32::from_str_radix(text, 8) {
        return mode & 0o7777;
    }
    let mut mode = old;
    for clause in text.split(',') {
        let Some(at) = clause.find(['+', '-', '=']) else {
            continue;
        };
        let (who, rest) = clause.split_at(at);
        let mut bits = 0;
        for letter in rest.chars().skip(1) {
            bits |= match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || old & 0o111 != 0 => 0o111,
                _ => 0,
            };
        }
        let mask = if who.is_empty() || who.contains('a') {
            0o777
        } else {
            who.chars().fold(0, |mask, letter| {
                mask | match letter {
                    'u' => 0o700,
                    'g' => 0o070,
                    'o' => 0o007,
                    _ => 0,
                }
            })
        };
        mode = match rest.chars().next() {
            Some('+') => mode | (bits & mask),
            Some('-') => mode & !(bits & mask),
            _ => (mode & !mask) | (bits & mask),
        };
    }
    mode
}

fn mode_text(mode: u32) -> String {
    (0..9)
        .map(|bit| {
            if mode & (0o400 >> bit) != 0 {
                ['r', 'w', 'x'][bit % 3]
            } else {
                '-'
            }
        })
        .collect()
}
