//! From what two clones tell to checks: pure.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::report::{Check, Outcome};

/// Digits of a hash that are shown.
const SHOWN_DIGITS: usize = 12;

/// One clone as seen from inside and outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The name it was given.
    pub(super) name: String,
    /// MAC address of `net0` in its configuration.
    pub(super) mac: Option<String>,
    /// The host keys that its SSH server showed: at the first contact, and after all else.
    pub(super) shown_keys: Vec<String>,
    /// The address it was reached at.
    pub(super) address: String,
    /// Commands that its agent lets through, out of those that a sealed image has locked; `None` when it could not be asked.
    pub(super) open_commands: Option<Vec<String>>,
    /// What it tells of itself.
    pub(super) facts: Facts,
    /// The last lines of the unit that decides the role and of k3s, when one of them is not well.
    pub(super) journal: Vec<String>,
}

/// What the second clone was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) url: String,
    /// Hash of the token as the clone's own facts have it.
    pub(super) token: String,
}

/// Whether the second clone was seen in the first one's cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The first server lists it.
    Yes,
    /// It cannot be known, and why.
    NotChecked(String),
    /// The server is within reach and does not list it.
    No(String),
}

/// Everything that is compared and checked, in the order shown. `login_key` is the one authorised key that belongs there.
pub(super) fn checks(first: &Seen, second: &Seen, told: &Told, joined: &Joined, login_key: &str) -> Vec<Check> {
    let mut checks = vec![
        machine_id(first, second),
        host_keys(first, second),
        unlike(
            "mac address",
            first.mac.as_deref(),
            second.mac.as_deref(),
            "PVE gave both clones the same one",
        ),
        hostname(first, second),
        unlike(
            "boot id",
            first.facts.get("boot_id"),
            second.facts.get("boot_id"),
            "the kernel makes one at each boot, so both answers came from one machine",
        ),
        authorized_keys(first, second, login_key),
        passwords(first, second),
        secrets(
            first,
            second,
            "system secrets",
            &SYSTEM_SECRETS,
            "sealing must remove them",
        ),
        agent(first, second),
        services(first, second),
        selinux(first, second),
    ];
    if first.facts.has_k3s() || second.facts.has_k3s() {
        checks.extend([
            tokens(first, second),
            secrets(
                first,
                second,
                "k3s ca",
                &["/var/lib/rancher/k3s/server/tls/"],
                K3S_STATE,
            ),
            secrets(
                first,
                second,
                "k3s node password",
                &["/etc/rancher/node/", "/var/lib/rancher/k3s/server/cred/"],
                K3S_STATE,
            ),
            role(first),
            join(second, told),
            joining(first, second, joined),
        ]);
    } else {
        checks.extend(
            [
                "k3s token",
                "k3s ca",
                "k3s node password",
                "k3s role",
                "k3s join",
                "k3s joined",
            ]
            .map(|name| {
                check(
                    name,
                    Outcome::NotChecked,
                    "-",
                    "-",
                    "the image has no k3s of k3simage (/etc/k3simage/image.env)",
                )
            }),
        );
    }
    checks
}

/// Files with secrets of the system.
const SYSTEM_SECRETS: [&str; 2] = ["/var/lib/NetworkManager/", "/var/lib/systemd/"];
/// What to do about state of k3s.
const K3S_STATE: &str = "k3s ran in the image before it was sealed; the seal operation k3s-state removes what it left";

fn check(name: &str, outcome: Outcome, first: &str, second: &str, message: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        outcome,
        first: first.to_owned(),
        second: second.to_owned(),
        message: message.into(),
    }
}

/// Two values that must be there and differ.
fn unlike(name: &str, first: Option<&str>, second: Option<&str>, shared: &str) -> Check {
    let shown = |value: Option<&str>| value.unwrap_or("-").to_owned();
    let (outcome, message) = match (first, second) {
        (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => (Outcome::Shared, shared.to_owned()),
        (Some(_), Some(_)) => (Outcome::Ok, "differ".to_owned()),
        _ => (Outcome::Failed, "a clone has none".to_owned()),
    };
    check(name, outcome, &shown(first), &shown(second), message)
}

fn machine_id(first: &Seen, second: &Seen) -> Check {
    let id = |seen: &Seen| {
        let id = seen.facts.get("machine_id").map(str::to_owned);
        id.filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    unlike(
        "machine id",
        id(first).as_deref(),
        id(second).as_deref(),
        "it stayed in the image: leases, journals and names made of it are shared too; sealing must empty /etc/machine-id",
    )
}

fn host_keys(first: &Seen, second: &Seen) -> Check {
    let name = "ssh host keys";
    let (a, b) = (first.facts.host_keys(), second.facts.host_keys());
    let kinds = |keys: &BTreeMap<&str, &str>| {
        let kinds: Vec<&str> = keys.keys().map(|kind| kind.trim_start_matches("ssh-")).collect();
        if kinds.is_empty() {
            "-".to_owned()
        } else {
            kinds.join(" ")
        }
    };
    let shared: Vec<&str> = a
        .iter()
        .filter(|(kind, key)| b.get(*kind) == Some(key))
        .map(|(kind, _)| *kind)
        .collect();
    let unstable = [first, second].into_iter().find(|seen| {
        let own = seen.facts.host_keys();
        let known = |shown: &String| {
            let mut words = shown.split(' ');
            matches!((words.next(), words.next()), (Some(kind), Some(key)) if own.get(kind) == Some(&key))
        };
        seen.shown_keys.is_empty() || !seen.shown_keys.iter().all(known)
    });
    let (outcome, message) = if !shared.is_empty() {
        let message = format!(
            "{} in both: whoever has one clone's key can pass for the other; sealing must remove /etc/ssh/ssh_host_*",
            shared.join(" and ")
        );
        (Outcome::Shared, message)
    } else if a.is_empty() || b.is_empty() {
        (Outcome::Failed, "a clone has none".to_owned())
    } else if let Some(seen) = unstable {
        let message = format!(
            "{} showed a key over SSH that is none of its files now: it was changed during the boot, or another machine answered",
            seen.name
        );
        (Outcome::Failed, message)
    } else {
        (Outcome::Ok, "differ, and stay as they are".to_owned())
    };
    check(name, outcome, &kinds(&a), &kinds(&b), message)
}

fn hostname(first: &Seen, second: &Seen) -> Check {
    let shown = |seen: &Seen| seen.facts.get("hostname").unwrap_or("-").to_owned();
    let (a, b) = (shown(first), shown(second));
    let given = |seen: &Seen, name: &str| name == seen.name || name.starts_with(&format!("{}.", seen.name));
    let (outcome, message) = if a == b {
        (
            Outcome::Shared,
            "cloud-init gave neither its own: is cloud-init in the image, and enabled?",
        )
    } else if given(first, &a) && given(second, &b) {
        (Outcome::Ok, "each as cloud-init was told")
    } else {
        (
            Outcome::Failed,
            "not the name of the VM, which cloud-init was told: does something else set it?",
        )
    };
    check("hostname", outcome, &a, &b, message)
}

/// Every key that opens a login, with its user, but for the one of this verification.
fn strangers<'a>(seen: &'a Seen, login_key: &str) -> BTreeSet<(&'a str, &'a str)> {
    let own = |line: &str| {
        let mut words = login_key.split(' ').skip(1);
        words.next().is_some_and(|key| line.split(' ').any(|word| word == key))
    };
    let lines = seen
        .facts
        .of_kind("authorized")
        .filter(|(_, line)| !line.starts_with('#'));
    lines.filter(|(_, line)| !own(line)).collect()
}

fn authorized_keys(first: &Seen, second: &Seen, login_key: &str) -> Check {
    let (a, b) = (strangers(first, login_key), strangers(second, login_key));
    let count = |keys: &BTreeSet<_>| match keys.len() {
        0 => "the one given".to_owned(),
        more => format!("{more} more"),
    };
    let names: Vec<String> = a
        .union(&b)
        .map(|(home, line)| {
            let comment = line.split(' ').next_back().filter(|word| !word.starts_with("AAAA"));
            format!("{home} ({})", comment.unwrap_or("no comment"))
        })
        .collect();
    let (outcome, message) = match (a.is_disjoint(&b), names.is_empty()) {
        (_, true) => (Outcome::Ok, "only the key that cloud-init was told".to_owned()),
        (false, _) => (
            Outcome::Shared,
            format!(
                "a key that opens every clone stayed in the image: {}; sealing must remove .ssh",
                names.join(", ")
            ),
        ),
        (true, _) => (Outcome::Failed, format!("unknown keys: {}", names.join(", "))),
    };
    check("authorized keys", outcome, &count(&a), &count(&b), message)
}

fn passwords(first: &Seen, second: &Seen) -> Check {
    let users = |seen: &'_ Seen| -> BTreeSet<String> { seen.facts.all("password").map(str::to_owned).collect() };
    let (a, b) = (users(first), users(second));
    let shown = |users: &BTreeSet<String>| match users.len() {
        0 => "none".to_owned(),
        _ => users.iter().cloned().collect::<Vec<_>>().join(" "),
    };
    let both: Vec<String> = a.intersection(&b).cloned().collect();
    let (outcome, message) = if a.is_empty() && b.is_empty() {
        (Outcome::Ok, "nobody logs in with one".to_owned())
    } else if both.is_empty() {
        (Outcome::Failed, "a clone has a password that nobody gave it".to_owned())
    } else {
        let message = format!(
            "{} can log in with a password of the image, or with an empty one; sealing must lock it",
            both.join(", ")
        );
        (Outcome::Shared, message)
    };
    check("passwords", outcome, &shown(&a), &shown(&b), message)
}

/// Files below some folders: none may be the same in both.
fn secrets(first: &Seen, second: &Seen, name: &str, folders: &[&str], fix: &str) -> Check {
    let of = |seen: &'_ Seen| -> BTreeMap<String, String> {
        let files = seen.facts.of_kind("file");
        let wanted = files.filter(|(path, _)| folders.iter().any(|folder| path.starts_with(folder)));
        wanted.map(|(path, hash)| (path.to_owned(), hash.to_owned())).collect()
    };
    let (a, b) = (of(first), of(second));
    let shared: Vec<&str> = a
        .iter()
        .filter(|(path, hash)| b.get(*path) == Some(hash))
        .map(|(path, _)| path.as_str())
        .collect();
    let shown = |files: &BTreeMap<String, String>| match files.len() {
        0 => "none".to_owned(),
        1 => files.values().map(|hash| short(hash)).collect(),
        more => format!("{more} files"),
    };
    let (outcome, message) = if shared.is_empty() {
        (Outcome::Ok, "nothing in common".to_owned())
    } else {
        (
            Outcome::Shared,
            format!("the same {} in both; {fix}", shared.join(", ")),
        )
    };
    check(name, outcome, &shown(&a), &shown(&b), message)
}

fn short(hash: &str) -> String {
    hash.get(..SHOWN_DIGITS).unwrap_or(hash).to_owned()
}

fn tokens(first: &Seen, second: &Seen) -> Check {
    let (a, b): (Vec<_>, Vec<_>) = (
        first.facts.of_kind("token").collect(),
        second.facts.of_kind("token").collect(),
    );
    let shared: Vec<&str> = b
        .iter()
        .filter(|(_, hash)| a.iter().any(|(_, other)| other == hash))
        .map(|(path, _)| *path)
        .collect();
    let shown = |tokens: &[(&str, &str)]| {
        tokens
            .first()
            .map_or_else(|| "none".to_owned(), |(_, hash)| short(hash))
    };
    let (outcome, message) = if shared.is_empty() {
        (Outcome::Ok, "nothing in common".to_owned())
    } else {
        let message = format!(
            "the first clone's is in {} of the second, which was not given it there: every clone of this image has it; {K3S_STATE}",
            shared.join(", ")
        );
        (Outcome::Shared, message)
    };
    check("k3s token", outcome, &shown(&a), &shown(&b), message)
}

fn agent(first: &Seen, second: &Seen) -> Check {
    let shown = |seen: &Seen| match &seen.open_commands {
        None => "no answer".to_owned(),
        Some(open) if open.is_empty() => "locked".to_owned(),
        Some(_) => "open".to_owned(),
    };
    let open: BTreeSet<&str> = [first, second]
        .into_iter()
        .flat_map(|seen| seen.open_commands.iter().flatten())
        .map(String::as_str)
        .collect();
    let (outcome, message) = if !open.is_empty() {
        let names: Vec<&str> = open.into_iter().collect();
        let message = format!(
            "it lets {} through: whoever may ask it on the cluster is root in every clone; sealing must close \
             /etc/sysconfig/qemu-ga",
            names.join(", ")
        );
        (Outcome::Failed, message)
    } else if first.open_commands.is_none() || second.open_commands.is_none() {
        let message = "the guest agent does not answer, or the VM has none (option agent)";
        (Outcome::NotChecked, message.to_owned())
    } else {
        (Outcome::Ok, "runs no programs and touches no files".to_owned())
    };
    check("agent lock", outcome, &shown(first), &shown(second), message)
}

fn services(first: &Seen, second: &Seen) -> Check {
    // Which unit the role starts is a check of its own, and so is whether a joining one gets through.
    let own_check = ["k3s.service", "k3s-agent.service", "k3simage-firstboot.service"];
    let troubles = |seen: &Seen| -> Vec<String> {
        let mut found: Vec<String> = seen
            .facts
            .get("failed")
            .unwrap_or_default()
            .split_whitespace()
            .filter(|unit| !own_check.contains(unit))
            .map(|unit| format!("{unit} failed"))
            .collect();
        if seen.open_commands.is_some() && seen.facts.unit("qemu-guest-agent") != "active" {
            found.push("qemu-guest-agent is not active".to_owned());
        }
        match seen.facts.get("cloud_init") {
            Some("done") => {}
            state => found.push(format!("cloud-init is {}", state.unwrap_or("not there"))),
        }
        found
    };
    let (a, b) = (troubles(first), troubles(second));
    let shown = |found: &[String]| {
        if found.is_empty() {
            "well".to_owned()
        } else {
            format!("{} not well", found.len())
        }
    };
    let all: BTreeSet<&String> = a.iter().chain(&b).collect();
    let (outcome, message) = if all.is_empty() {
        (Outcome::Ok, "cloud-init is done, no unit failed".to_owned())
    } else {
        let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
        (Outcome::Failed, all.join(", "))
    };
    check("services", outcome, &shown(&a), &shown(&b), message)
}

fn selinux(first: &Seen, second: &Seen) -> Check {
    let state = |seen: &'_ Seen| seen.facts.get("selinux").unwrap_or("-").to_owned();
    let (a, b) = (state(first), state(second));
    let (outcome, message) = match (a.as_str(), b.as_str()) {
        ("Enforcing", "Enforcing") => (Outcome::Ok, "enforcing"),
        ("-" | "Disabled", "-" | "Disabled") => (Outcome::NotChecked, "this system runs without SELinux"),
        _ => (
            Outcome::Failed,
            "not enforcing: what says so is /etc/selinux/config, the kernel line, or a setenforce at boot",
        ),
    };
    check("selinux", outcome, &a, &b, message)
}

/// What the clone says that it has become: role and node name.
fn decided(seen: &Seen) -> (String, String) {
    let text = seen.facts.get("decided").unwrap_or_default();
    let (role, name) = text.split_once(' ').unwrap_or((text, ""));
    (role.to_owned(), name.to_owned())
}

/// The unit of a role.
pub(super) fn unit_of(role: &str) -> Option<&'static str> {
    match role {
        "server" => Some("k3s"),
        "agent" => Some("k3s-agent"),
        _ => None,
    }
}

fn with_journal(message: String, seen: &Seen) -> String {
    match seen.journal.as_slice() {
        [] => message,
        lines => format!("{message}; its journal: {}", lines.join(" | ")),
    }
}

/// Whether the clone that was told nothing has become what the image says.
fn role(first: &Seen) -> Check {
    let (role, name) = decided(first);
    let wanted = first.facts.get("image_role").unwrap_or_default();
    let state = unit_of(&role).map(|unit| first.facts.unit(unit));
    let firstboot = first.facts.unit("k3simage-firstboot");
    let (outcome, message) = match (wanted, role.as_str(), state) {
        ("agent", "", _) if firstboot == "failed" => (
            Outcome::Ok,
            "refused to start, as an image for agents does that is not told a server".to_owned(),
        ),
        (wanted, role, _) if wanted != role => {
            let message = format!(
                "it was told nothing and should be `{wanted}`, but k3simage-firstboot ({firstboot}) decided `{role}`"
            );
            (Outcome::Failed, with_journal(message, first))
        }
        (_, _, Some(state)) if state != "active" => {
            let message = format!("k3s is {state}, not active");
            (Outcome::Failed, with_journal(message, first))
        }
        _ if !role.is_empty()
            && !first
                .facts
                .get("hostname")
                .is_some_and(|own| own.eq_ignore_ascii_case(&name)) =>
        {
            (
                Outcome::Failed,
                format!("the node is called {name}, the clone {}", first.name),
            )
        }
        (_, "none", _) => (Outcome::Ok, "told nothing: starts nothing, as k3s_role says".to_owned()),
        _ => (
            Outcome::Ok,
            "told nothing: a server of its own, its unit is active".to_owned(),
        ),
    };
    let shown = if role.is_empty() { "-" } else { &role };
    check("k3s role", outcome, shown, "-", message)
}

/// Whether role, URL and token have arrived where the unit reads them.
fn join(second: &Seen, told: &Told) -> Check {
    let (role, _) = decided(second);
    let mut missing = Vec::new();
    if role != "agent" {
        missing.push(format!("role `{role}`"));
    }
    match second.facts.get("told_url") {
        Some(url) if url == told.url => {}
        other => missing.push(format!("url `{}`", other.unwrap_or_default())),
    }
    if second.facts.get("told_token") != Some(told.token.as_str()) {
        missing.push("another token or none".to_owned());
    }
    let (outcome, message) = if missing.is_empty() {
        (Outcome::Ok, format!("role, URL and token have arrived ({})", told.url))
    } else {
        let message = format!(
            "told by the volume K3SIMAGE to join {} as an agent, it has {}",
            told.url,
            missing.join(", ")
        );
        (Outcome::Failed, with_journal(message, second))
    };
    let shown = if role.is_empty() { "-" } else { &role };
    check("k3s join", outcome, "-", shown, message)
}

fn joining(first: &Seen, second: &Seen, joined: &Joined) -> Check {
    let (_, name) = decided(second);
    let (outcome, message) = match joined {
        Joined::Yes => (Outcome::Ok, format!("{} lists the node {name}", first.name)),
        Joined::NotChecked(why) => (Outcome::NotChecked, why.clone()),
        Joined::No(why) => (Outcome::Failed, with_journal(why.clone(), second)),
    };
    check("k3s joined", outcome, "-", second.facts.unit("k3s-agent"), message)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
