//! What each clone has become in a cluster: its role, and whether it joined as it was told.

use super::{Joined, Seen, Told, check};
use crate::verify::report::{Check, Outcome};

/// What the clone says that it has become: role and node name.
fn decided(seen: &Seen) -> (String, String) {
    let text = seen.facts.get("decided").unwrap_or_default();
    let (role, name) = text.split_once(' ').unwrap_or((text, ""));
    (role.to_owned(), name.to_owned())
}

/// The unit of a role.
pub(in crate::verify) fn unit_of(role: &str) -> Option<&'static str> {
    match role {
        "server" => Some("k3s"),
        "agent" => Some("k3s-agent"),
        _ => None,
    }
}

/// Whether the clone that was told nothing has become what the image says.
pub(super) fn role(first: &Seen) -> Check {
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
pub(super) fn join(second: &Seen, told: &Told) -> Check {
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

pub(super) fn joining(first: &Seen, second: &Seen, joined: &Joined) -> Check {
    let (_, name) = decided(second);
    let (outcome, message) = match joined {
        Joined::Yes => (Outcome::Ok, format!("{} lists the node {name}", first.name)),
        Joined::NotChecked(why) => (Outcome::NotChecked, why.clone()),
        Joined::No(why) => (Outcome::Failed, with_journal(why.clone(), second)),
    };
    check("k3s joined", outcome, "-", second.facts.unit("k3s-agent"), message)
}

fn with_journal(message: String, seen: &Seen) -> String {
    match seen.journal.as_slice() {
        [] => message,
        lines => format!("{message}; its journal: {}", lines.join(" | ")),
    }
}
