//! What each clone must have by itself: a closed agent, its services, its SELinux state.

use std::collections::BTreeSet;

use super::{Seen, check};
use crate::verify::report::{Check, Outcome};

pub(super) fn agent(first: &Seen, second: &Seen) -> Check {
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

pub(super) fn services(first: &Seen, second: &Seen) -> Check {
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

pub(super) fn selinux(first: &Seen, second: &Seen) -> Check {
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
