//! Users and groups of an installed system, in the files where they belong.

use super::files::Kind;
use super::system::System;

/// A user as `/etc/passwd` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
    pub(super) shell: String,
}

impl System {
    pub(super) fn user(&self, name: &str) -> Option<User> {
        self.files.text("/etc/passwd").lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let _password = fields.next()?;
            Some(User {
                name: name.to_owned(),
                uid: fields.next()?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
                home: {
                    fields.next()?;
                    fields.next()?.to_owned()
                },
                shell: fields.next()?.to_owned(),
            })
        })
    }

    /// Names of the users whom a login shell awaits.
    pub(super) fn login_users(&self) -> Vec<String> {
        let passwd = self.files.text("/etc/passwd");
        let login = |line: &&str| !line.ends_with("nologin") && !line.ends_with("/false");
        passwd
            .lines()
            .filter(login)
            .filter_map(|line| line.split(':').next())
            .map(str::to_owned)
            .collect()
    }

    /// Adds a user with its group and home; `false` if the name is taken.
    pub(super) fn add_user(&mut self, name: &str, groups: &[&str], shell: &str) -> bool {
        if self.user(name).is_some() {
            return false;
        }
        let passwd = self.files.text("/etc/passwd");
        let uid = passwd
            .lines()
            .filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok())
            .filter(|uid| (1000..60000).contains(uid))
            .max()
            .map_or(1000, |uid| uid + 1);
        let home = format!("/home/{name}");
        self.files.put(
            "/etc/passwd",
            format!("{passwd}{name}:x:{uid}:{uid}::{home}:{shell}\n"),
            0o644,
        );
        let shadow = self.files.text("/etc/shadow");
        self.files
            .put("/etc/shadow", format!("{shadow}{name}:!!::0:99999:7:::\n"), 0o000);
        let group = self.files.text("/etc/group");
        self.files.put("/etc/group", format!("{group}{name}:x:{uid}:\n"), 0o644);
        for group in groups {
            self.add_to_group(name, group);
        }
        self.files.insert(home, Kind::Dir, 0o700, name);
        true
    }

    pub(super) fn add_to_group(&mut self, user: &str, group: &str) {
        let text = self.files.text("/etc/group");
        let mut found = false;
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            if line.split(':').next() == Some(group) {
                found = true;
                let members = line.rsplit(':').next().unwrap_or_default();
                if members.split(',').any(|member| member == user) {
                    lines.push(line.to_owned());
                } else {
                    let comma = if members.is_empty() { "" } else { "," };
                    lines.push(format!("{line}{comma}{user}"));
                }
            } else {
                lines.push(line.to_owned());
            }
        }
        if !found {
            let gid = 2000 + lines.len();
            lines.push(format!("{group}:x:{gid}:{user}"));
        }
        self.files.put("/etc/group", lines.join("\n") + "\n", 0o644);
    }

    /// Groups of a user, the primary one first.
    pub(super) fn groups_of(&self, user: &str) -> Vec<(u32, String)> {
        let gid = self.user(user).map(|user| user.gid);
        let text = self.files.text("/etc/group");
        let mut groups: Vec<(u32, String)> = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, id, members] = fields[..] else { continue };
            let Ok(id) = id.parse::<u32>() else { continue };
            if Some(id) == gid {
                groups.insert(0, (id, name.to_owned()));
            } else if members.split(',').any(|member| member == user) {
                groups.push((id, name.to_owned()));
            }
        }
        groups
    }

    /// The password field of `/etc/shadow`.
    pub(super) fn password_hash(&self, user: &str) -> Option<String> {
        let text = self.files.text("/etc/shadow");
        text.lines().find_map(|line| {
            let (name, rest) = line.split_once(':')?;
            (name == user).then(|| rest.split(':').next().unwrap_or_default().to_owned())
        })
    }

    /// Sets the password field; nothing happens for an unknown user.
    pub(super) fn set_password_hash(&mut self, user: &str, hash: &str) {
        let text = self.files.text("/etc/shadow");
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.split_once(':') {
                Some((name, rest)) if name == user => {
                    let after = rest.split_once(':').map_or("", |(_, after)| after);
                    format!("{name}:{hash}:{after}")
                }
                _ => line.to_owned(),
            })
            .collect();
        self.files.put("/etc/shadow", lines.join("\n") + "\n", 0o000);
    }

    /// Adds a line to a user's `authorized_keys`, with the modes that sshd insists on.
    pub(super) fn authorise_key(&mut self, user: &str, key: &str) -> bool {
        let Some(user) = self.user(user) else { return false };
        let dir = format!("{}/.ssh", user.home);
        let file = format!("{dir}/authorized_keys");
        self.files.insert(dir, Kind::Dir, 0o700, &user.name);
        let old = self.files.text(&file);
        self.files.put(&file, format!("{old}{key}\n"), 0o600);
        if let Ok(node) = self.files.get_mut(&file) {
            node.owner.clone_from(&user.name);
            node.group.clone_from(&user.name);
        }
        true
    }
}
