//! From what two clones tell to checks: pure.

mod health;
mod identity;
mod role;

use super::facts::Facts;
use super::report::{Check, Outcome};

pub(super) use role::unit_of;

use health::{agent, selinux, services};
use identity::{authorized_keys, host_keys, hostname, machine_id, passwords, secrets, tokens, unlike};
use role::{join, joining, role};

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

#[cfg(test)]
mod tests;
