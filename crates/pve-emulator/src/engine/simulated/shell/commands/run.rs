//! Programs that run other programs: shells, `env`, `sudo`, `timeout`.

use std::time::Duration;

use crate::engine::simulated::host::login_environment;
use crate::engine::simulated::shell::io::Io;
use crate::engine::simulated::shell::{Shell, Unknown, Variable};

impl Shell {
    pub(super) async fn run_wrapper(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        match name {
            "bash" | "sh" => self.shell_program(name, args, io).await,
            "env" | "printenv" => self.env(args, io).await,
            "sudo" | "su" => self.sudo(name, args, io).await,
            "sleep" => {
                let total: f64 = args.iter().filter_map(|arg| seconds(arg)).sum();
                let Ok(duration) = Duration::try_from_secs_f64(total) else {
                    io.stderr
                        .line(format!("sleep: invalid time interval ‘{}’", args.join(" ")));
                    return 1;
                };
                self.host.clock.sleep(duration).await;
                0
            }
            "timeout" => {
                let mut rest = args;
                while rest.first().is_some_and(|arg| arg.starts_with('-')) {
                    // `-k 5` and `-s TERM` carry a value, `--kill-after=5` does not.
                    let skip = if matches!(rest[0].as_str(), "-k" | "-s") { 2 } else { 1 };
                    rest = rest.get(skip..).unwrap_or_default();
                }
                let Some((limit, command)) = rest.split_first() else {
                    return 125;
                };
                let Some(limit) = seconds(limit).and_then(|limit| Duration::try_from_secs_f64(limit).ok()) else {
                    return 125;
                };
                let clock = self.host.clock.clone();
                // With instant time every limit has passed before the command begins, so only a command that never
                // ends is timed out, after the limit in host time.
                let limit = if clock.is_instant() {
                    limit.min(Duration::from_secs(1))
                } else {
                    clock.host(limit)
                };
                tokio::select! {
                    code = self.run_argv(command, io) => code,
                    () = clock.sleep_host(limit) => 124,
                }
            }
            "xargs" => {
                let input = io.stdin.all(self.host.keep_file_bytes).await.unwrap_or_default();
                let words = String::from_utf8_lossy(&input)
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>();
                let own: Vec<String> = args.iter().skip_while(|arg| arg.starts_with('-')).cloned().collect();
                if words.is_empty() && args.iter().any(|arg| arg == "-r") {
                    return 0;
                }
                let mut command = if own.is_empty() { vec!["echo".to_owned()] } else { own };
                command.extend(words);
                self.run_argv(&command, io).await
            }
            // nohup, stdbuf: the program behind the options.
            _ => {
                let command: Vec<String> = args.iter().skip_while(|arg| arg.starts_with('-')).cloned().collect();
                self.run_argv(&command, io).await
            }
        }
    }

    /// `bash [options] [-c text [name [args]] | file [args]]`.
    async fn shell_program(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        let mut child = self.child(name);
        let mut args = args;
        let mut text = false;
        let mut stdin = false;
        while let Some((first, rest)) = args.split_first() {
            let Some(letters) = first.strip_prefix(['-', '+']).filter(|letters| !letters.is_empty()) else {
                break;
            };
            args = rest;
            match letters {
                "-" => break,
                "o" => {
                    if let Some((option, rest)) = args.split_first() {
                        child.options.pipefail |= option == "pipefail";
                        child.options.errexit |= option == "errexit";
                        child.options.nounset |= option == "nounset";
                        args = rest;
                    }
                }
                "-login" | "-norc" | "-noprofile" | "-posix" => {}
                letters if letters.starts_with('-') => {
                    io.stderr.line(format!("{name}: {first}: invalid option"));
                    return 2;
                }
                letters => {
                    for letter in letters.chars() {
                        match letter {
                            'c' => text = true,
                            's' => stdin = true,
                            'e' => child.options.errexit = true,
                            'u' => child.options.nounset = true,
                            'a' => child.options.allexport = true,
                            'x' | 'l' | 'i' | 'v' => {}
                            _ => {
                                io.stderr.line(format!("{name}: {first}: invalid option"));
                                return 2;
                            }
                        }
                    }
                }
            }
        }
        if text {
            let Some((command, rest)) = args.split_first() else {
                io.stderr.line(format!("{name}: -c: option requires an argument"));
                return 2;
            };
            if let Some((zero, positional)) = rest.split_first() {
                child.name.clone_from(zero);
                child.positional = positional.to_vec();
            }
            return child.run(command, io).await;
        }
        if let (Some((file, rest)), false) = (args.split_first(), stdin) {
            let path = self.path(file);
            return child.run_script(file, &path, rest, io).await;
        }
        child.positional = args.to_vec();
        let Ok(input) = io.stdin.all(self.host.keep_file_bytes).await else {
            return 1;
        };
        child.run(&String::from_utf8_lossy(&input), io).await
    }

    async fn env(&mut self, args: &[String], io: &Io) -> i32 {
        let mut child = self.child(&self.name);
        let mut args = args.iter();
        let mut command = Vec::new();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-i" | "-" => child.vars.clear(),
                "-u" => {
                    args.next().map(|name| child.vars.remove(name));
                }
                "-C" => {
                    if let Some(dir) = args.next() {
                        child.cwd = self.path(dir);
                    }
                }
                "--" => {}
                arg if arg.starts_with('-') => {
                    io.stderr
                        .line(format!("env: invalid option -- '{}'", arg.trim_start_matches('-')));
                    return 125;
                }
                arg => {
                    if let Some((name, value)) = arg.split_once('=') {
                        let value = value.to_owned();
                        child.vars.insert(name.to_owned(), Variable { value, exported: true });
                    } else {
                        command.push(arg.to_owned());
                        command.extend(args.by_ref().cloned());
                    }
                }
            }
        }
        if command.is_empty() {
            for (name, value) in child.environment() {
                io.stdout.line(format!("{name}={value}"));
            }
            return 0;
        }
        if child.find_program(&command[0]).is_none() && self.unknown == Unknown::NotFound {
            io.stderr
                .line(format!("env: ‘{}’: No such file or directory", command[0]));
            return 127;
        }
        child.run_argv(&command, io).await
    }

    /// `sudo [-n] [-E] [-H] [-u user] [NAME=value] command`: wheel and root may, without a password only when a
    /// sudoers file says so.
    async fn sudo(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        let mut target = "root".to_owned();
        let mut keep = false;
        let mut password_from_stdin = false;
        let mut rest = args.iter().peekable();
        let mut assigns = Vec::new();
        let mut command: Vec<String> = Vec::new();
        while let Some(arg) = rest.next() {
            match arg.as_str() {
                "-u" => target = rest.next().cloned().unwrap_or_default(),
                "-E" | "--preserve-env" => keep = true,
                "-S" => password_from_stdin = true,
                "-c" if name == "su" => {
                    command = vec![
                        "bash".to_owned(),
                        "-c".to_owned(),
                        rest.next().cloned().unwrap_or_default(),
                    ];
                }
                "--" => {}
                option if option.starts_with('-') => {}
                word if name == "su" => word.clone_into(&mut target),
                word => {
                    if let Some((name, value)) = word.split_once('=') {
                        assigns.push((name.to_owned(), value.to_owned()));
                    } else {
                        command.push(word.to_owned());
                        command.extend(rest.by_ref().cloned());
                    }
                }
            }
        }
        if self.user.uid != 0 && !self.may_sudo(password_from_stdin, name, io).await {
            return 1;
        }
        let Some(user) = self.host.system().user(&target) else {
            io.stderr.line(format!("{name}: unknown user: {target}"));
            return 1;
        };
        let mut child = self.child(name);
        if !keep {
            child.vars = login_environment(&user.name, &user.home, &user.shell)
                .into_iter()
                .map(|(name, value)| (name, Variable { value, exported: true }))
                .collect();
        }
        for (name, value) in assigns {
            child.vars.insert(name, Variable { value, exported: true });
        }
        child.user = user;
        if command.is_empty() {
            command = vec!["bash".to_owned()];
        }
        if child.find_program(&command[0]).is_none() && self.unknown == Unknown::NotFound {
            io.stderr.line(format!("{name}: {}: command not found", command[0]));
            return 1;
        }
        child.run_argv(&command, io).await
    }

    async fn may_sudo(&self, password_from_stdin: bool, name: &str, io: &Io) -> bool {
        let user = self.user.name.clone();
        let (rules, in_wheel, hash) = {
            let system = self.host.system();
            let rules: String = system
                .files
                .glob("/etc/sudoers.d/*")
                .iter()
                .map(|path| system.files.text(path))
                .collect();
            let wheel = system.groups_of(&user).iter().any(|(_, group)| group == "wheel");
            (rules, wheel, system.password_hash(&user).unwrap_or_default())
        };
        let named = |line: &str| {
            let who = line.split_whitespace().next().unwrap_or_default();
            who == user || (in_wheel && who == "%wheel")
        };
        if rules.lines().any(|line| named(line) && line.contains("NOPASSWD")) {
            return true;
        }
        let allowed = name == "sudo" && (in_wheel || rules.lines().any(named));
        if allowed && password_from_stdin {
            let given = io.stdin.line().await.unwrap_or_default();
            if crate::engine::simulated::crypt::verify(&given, &hash) {
                return true;
            }
            io.stderr.line("Sorry, try again.");
            return false;
        }
        let complaint = if allowed {
            format!("{name}: a password is required")
        } else {
            format!("{user} is not in the sudoers file.  This incident will be reported.")
        };
        io.stderr.line(complaint);
        false
    }
}

/// `5`, `0.5`, `3m` as seconds.
fn seconds(text: &str) -> Option<f64> {
    let (number, factor) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (
            number,
            match text.as_bytes().last() {
                Some(b'm') => 60.0,
                Some(b'h') => 3600.0,
                Some(b'd') => 86_400.0,
                _ => 1.0,
            },
        ),
        None => (text, 1.0),
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}
