//! What no two clones may have in common: ids, keys, names, passwords, secrets.

use std::collections::{BTreeMap, BTreeSet};

use super::{K3S_STATE, Seen, check};
use crate::verify::report::{Check, Outcome};

/// Digits of a hash that are shown.
const SHOWN_DIGITS: usize = 12;

/// Two values that must be there and differ.
pub(super) fn unlike(name: &str, first: Option<&str>, second: Option<&str>, shared: &str) -> Check {
    let shown = |value: Option<&str>| value.unwrap_or("-").to_owned();
    let (outcome, message) = match (first, second) {
        (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => (Outcome::Shared, shared.to_owned()),
        (Some(_), Some(_)) => (Outcome::Ok, "differ".to_owned()),
        _ => (Outcome::Failed, "a clone has none".to_owned()),
    };
    check(name, outcome, &shown(first), &shown(second), message)
}

pub(super) fn machine_id(first: &Seen, second: &Seen) -> Check {
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

pub(super) fn host_keys(first: &Seen, second: &Seen) -> Check {
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

pub(super) fn hostname(first: &Seen, second: &Seen) -> Check {
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

pub(super) fn authorized_keys(first: &Seen, second: &Seen, login_key: &str) -> Check {
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

pub(super) fn passwords(first: &Seen, second: &Seen) -> Check {
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
pub(super) fn secrets(first: &Seen, second: &Seen, name: &str, folders: &[&str], fix: &str) -> Check {
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

pub(super) fn tokens(first: &Seen, second: &Seen) -> Check {
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
