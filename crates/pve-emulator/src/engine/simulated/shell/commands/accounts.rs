//! Users, groups and passwords.

use crate::engine::simulated::crypt;
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;

impl Shell {
    pub(super) async fn account_command(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        let operand = args.iter().rev().find(|arg| !arg.starts_with('-')).cloned();
        match name {
            "whoami" => {
                io.stdout.line(&self.user.name);
                0
            }
            "id" | "groups" => self.id(name, args, io),
            "getent" => self.getent(args, io),
            "chpasswd" => {
                let encrypted = args.iter().any(|arg| arg == "-e" || arg == "--encrypted");
                let mut status = 0;
                while let Some(line) = io.stdin.line().await {
                    let Some((user, password)) = line.split_once(':') else {
                        continue;
                    };
                    status |= self.with_user("chpasswd", user, io, |system| {
                        let hash = if encrypted {
                            password.to_owned()
                        } else {
                            crypt::hash(password)
                        };
                        system.set_password_hash(user, &hash);
                    });
                }
                status
            }
            "passwd" => {
                let user = operand.unwrap_or_else(|| self.user.name.clone());
                if args.iter().any(|arg| arg == "--stdin") {
                    let password = io.stdin.line().await.unwrap_or_default();
                    return self.with_user("passwd", &user, io, |system| {
                        system.set_password_hash(&user, &crypt::hash(&password));
                    });
                }
                self.lock_password(name, args, &user, io)
            }
            "usermod" => {
                let user = operand.unwrap_or_default();
                if let Some(at) = args.iter().position(|arg| arg == "-aG" || arg == "-G") {
                    let groups = args.get(at + 1).cloned().unwrap_or_default();
                    return self.with_user(name, &user, io, |system| {
                        groups.split(',').for_each(|group| system.add_to_group(&user, group));
                    });
                }
                if let Some(at) = args.iter().position(|arg| arg == "-p") {
                    let hash = args.get(at + 1).cloned().unwrap_or_default();
                    return self.with_user(name, &user, io, |system| system.set_password_hash(&user, &hash));
                }
                self.lock_password(name, args, &user, io)
            }
            "useradd" => self.useradd(args, io),
            "userdel" => {
                let user = operand.unwrap_or_default();
                let remove_home = args.iter().any(|arg| arg == "-r");
                self.with_user(name, &user, io, |system| {
                    let home = system.user(&user).map(|user| user.home);
                    for (file, mode) in [("/etc/passwd", 0o644), ("/etc/shadow", 0), ("/etc/group", 0o644)] {
                        let text = system.files.text(file);
                        let others = |line: &&str| line.split(':').next() != Some(user.as_str());
                        let kept: String = text.split_inclusive('\n').filter(others).collect();
                        system.files.put(file, kept, mode);
                    }
                    if let Some(home) = home.filter(|_| remove_home) {
                        // Gone already is as good.
                        let _ = system.files.remove(&home, true);
                    }
                })
            }
            "groupadd" => {
                let group = operand.unwrap_or_default();
                let mut system = self.host.system();
                let text = system.files.text("/etc/group");
                if text.lines().any(|line| line.split(':').next() == Some(group.as_str())) {
                    io.stderr.line(format!("groupadd: group '{group}' already exists"));
                    return 9;
                }
                let gid = 2000 + text.lines().count();
                system
                    .files
                    .put("/etc/group", format!("{text}{group}:x:{gid}:\n"), 0o644);
                0
            }
            // Password ages are not kept.
            _ => self.with_user(name, &operand.unwrap_or_default(), io, |_| {}),
        }
    }

    fn with_user(
        &self,
        name: &str,
        user: &str,
        io: &Io,
        action: impl FnOnce(&mut crate::engine::simulated::system::System),
    ) -> i32 {
        if self.user.uid != 0 {
            io.stderr.line(format!("{name}: Permission denied."));
            return 1;
        }
        let mut system = self.host.system();
        if system.user(user).is_none() {
            io.stderr.line(format!("{name}: user '{user}' does not exist"));
            return 6;
        }
        action(&mut system);
        0
    }

    /// `passwd -l|-u|-d user`, `usermod -L|-U user`
    fn lock_password(&self, name: &str, args: &[String], user: &str, io: &Io) -> i32 {
        let wants = |letters: &[&str]| args.iter().any(|arg| letters.contains(&arg.as_str()));
        let lock = wants(&["-l", "-L", "--lock"]);
        let unlock = wants(&["-u", "-U", "--unlock"]);
        let delete = wants(&["-d", "--delete"]);
        if !(lock || unlock || delete) {
            if name == "passwd" {
                io.stderr.line("passwd: Authentication token manipulation error");
                return 1;
            }
            return self.with_user(name, user, io, |_| {});
        }
        self.with_user(name, user, io, |system| {
            let old = system.password_hash(user).unwrap_or_default();
            let bare = old.trim_start_matches('!');
            let new = if delete {
                String::new()
            } else if lock {
                format!("!{bare}")
            } else {
                bare.to_owned()
            };
            system.set_password_hash(user, &new);
        })
    }

    fn useradd(&mut self, args: &[String], io: &Io) -> i32 {
        let (mut groups, mut shell, mut hash, mut user) = (Vec::new(), "/bin/bash".to_owned(), None, None);
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            match arg.as_str() {
                "-G" | "--groups" => {
                    groups = rest
                        .next()
                        .map(|text| text.split(',').map(str::to_owned).collect())
                        .unwrap_or_default();
                }
                "-s" | "--shell" => shell = rest.next().cloned().unwrap_or(shell),
                "-p" | "--password" => hash = rest.next().cloned(),
                "-u" | "-g" | "-d" | "-c" | "--uid" | "--gid" | "--home-dir" | "--comment" => drop(rest.next()),
                arg if arg.starts_with('-') => {}
                arg => user = Some(arg.to_owned()),
            }
        }
        let Some(user) = user else { return 2 };
        if self.user.uid != 0 {
            io.stderr.line("useradd: Permission denied.");
            return 1;
        }
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let mut system = self.host.system();
        if !system.add_user(&user, &groups, &shell) {
            io.stderr.line(format!("useradd: user '{user}' already exists"));
            return 9;
        }
        if let Some(hash) = hash {
            system.set_password_hash(&user, &hash);
        }
        0
    }

    fn id(&self, name: &str, args: &[String], io: &Io) -> i32 {
        let system = self.host.system();
        let wanted = args.iter().find(|arg| !arg.starts_with('-'));
        let user = match wanted {
            None => Some(self.user.clone()),
            Some(name) => system.user(name),
        };
        let Some(user) = user else {
            io.stderr
                .line(format!("id: ‘{}’: no such user", wanted.map_or("", String::as_str)));
            return 1;
        };
        let groups = system.groups_of(&user.name);
        let flags: String = args
            .iter()
            .filter(|arg| arg.starts_with('-'))
            .flat_map(|arg| arg.chars().skip(1))
            .collect();
        let by_name = flags.contains('n');
        let text = if name == "groups" || flags.contains('G') {
            let names = groups.iter().map(|(id, group)| {
                if by_name || name == "groups" {
                    group.clone()
                } else {
                    id.to_string()
                }
            });
            names.collect::<Vec<_>>().join(" ")
        } else if flags.contains('u') {
            if by_name { user.name } else { user.uid.to_string() }
        } else if flags.contains('g') {
            groups.first().map_or(user.gid.to_string(), |(id, group)| {
                if by_name { group.clone() } else { id.to_string() }
            })
        } else {
            let list: Vec<String> = groups.iter().map(|(id, group)| format!("{id}({group})")).collect();
            let primary = list.first().cloned().unwrap_or_else(|| user.gid.to_string());
            format!(
                "uid={}({}) gid={primary} groups={}",
                user.uid,
                user.name,
                list.join(",")
            )
        };
        io.stdout.line(text);
        0
    }

    fn getent(&self, args: &[String], io: &Io) -> i32 {
        let [database, keys @ ..] = args else { return 1 };
        let file = match database.as_str() {
            "passwd" => "/etc/passwd",
            "group" => "/etc/group",
            "shadow" if self.user.uid == 0 => "/etc/shadow",
            "hosts" | "ahosts" | "ahostsv4" => "/etc/hosts",
            other => {
                io.stderr.line(format!("Unknown database: {other}"));
                return 1;
            }
        };
        let text = self.host.system().files.text(file);
        let found: Vec<&str> = text
            .lines()
            .filter(|line| keys.is_empty() || keys.iter().any(|key| line.split(':').next() == Some(key)))
            .collect();
        for line in &found {
            io.stdout.line(line);
        }
        if found.is_empty() { 2 } else { 0 }
    }
}
