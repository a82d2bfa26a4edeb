//! What a person can do about an error.

use super::{Error, ErrorKind, MissingPrivileges, TlsProblem};

/// Part of PVE's text, and what to do about it where its kind alone does not say. The first match counts; which file of PVE prints
/// a text stands in the table of kinds.
const BY_TEXT: &[(&str, &str)] = &[
    // Who asks.
    (
        "invalid PVEVNC ticket",
        "such a ticket serves once, for some seconds, and for the one who asked for it: ask for a new one",
    ),
    (
        "invalid csrf token",
        "the CSRF token belongs to another ticket, or lacks: log in again and send both of one login",
    ),
    (
        "No ticket",
        "no credentials arrived: a proxy in between may drop the header Authorization or the cookie",
    ),
    // What the caller may do.
    (
        "not available with API token",
        "this call needs a login with user and password instead of an API token",
    ),
    ("user != root@pam", ROOT_ONLY),
    ("nly root ", ROOT_ONLY),
    ("root-only command", ROOT_ONLY),
    ("limiting to root user", ROOT_ONLY),
    // What is not there, or not free.
    (
        "still in use by linked clone",
        "remove the clones first, or make full ones of them",
    ),
    (
        "hostname lookup '",
        "there is no node of this name: take the short name as it stands under Datacenter",
    ),
    (
        "no such cluster node",
        "there is no node of this name: take the short name as it stands under Datacenter",
    ),
    (
        "Configuration file 'nodes/",
        "there is no VM of this number on this node; it may be on another, or gone",
    ),
    (
        "unable to find configuration file",
        "there is no VM of this number on this node; it may be on another, or gone",
    ),
    (
        "no such task",
        "the node no longer keeps this task, or the UPID is another node's",
    ),
    (
        "volume_size_info on '",
        "there is no such volume: compare its name with the content of the storage",
    ),
    (
        "volume '",
        "there is no such volume: compare its name with the content of the storage",
    ),
    (
        "No such storage",
        "compare the storage's name with those under Datacenter > Storage",
    ),
    // What was sent.
    (
        "property is not defined in schema",
        "this server's version knows no such option: check its spelling, leave it out, or update the server",
    ),
    (
        "does not support '",
        "choose a storage whose content types allow this, or add the type under Datacenter > Storage",
    ),
    (
        "is not configured for content-type",
        "choose a storage whose content types allow this, or add the type under Datacenter > Storage",
    ),
    (
        "Linked clone feature is not supported",
        "make a template of it first, or ask for a full clone",
    ),
    (
        "not allowed for linked clones",
        "ask for a full clone, or leave this out",
    ),
    // What became of a file.
    (
        "checksum mismatch: got",
        "the file is not the one that the digest belongs to, or was damaged on its way: compare with its publisher's checksums",
    ),
    (
        "No space left on device",
        "free some space there, or choose another storage; uploads are buffered in the node's /var/tmp",
    ),
    (
        "refusing to override existing file",
        "a file of this name with another content is there: delete it, or give the new one another name",
    ),
    (
        "download failed",
        "the node could not fetch it: try the URL on the node itself (`wget`), also for its proxy and name server",
    ),
    (
        "invalid server response: '",
        "the node could not fetch it: try the URL on the node itself (`wget`), also for its proxy and name server",
    ),
    (
        "not in qcow2 format",
        "the file is not what its name says: check how it was made",
    ),
    (
        "got timeout",
        "the guest or the node took too long; look at the VM, then try again",
    ),
    (
        "unexpected status",
        "its worker was killed: look at the node's own log, and at what is left of the task's work",
    ),
    (
        "received interrupt",
        "someone stopped it: look at what is left of its work",
    ),
    (
        "is disabled",
        "switch the storage on under Datacenter > Storage, or choose another",
    ),
    (
        "protection mode enabled",
        "switch the VM's protection off first if it is really to go",
    ),
    (
        "Invalid parameter 'pid'",
        "there is no such process: the end of each is told once only, and it may have been asked for already",
    ),
    (
        "Timeout while waiting for port",
        "nobody connected in time: ask for a new one and connect at once",
    ),
];

const ROOT_ONLY: &str =
    "only root@pam may do this, logged in with its password: no other account, and no API token, not even one of root";

impl Error {
    /// What a person can do about it, where that is known: one sentence, without a full stop.
    pub fn advice(&self) -> Option<String> {
        if let Some(missing) = self.missing_privileges().filter(|missing| !missing.any_of.is_empty()) {
            let MissingPrivileges { path, any_of } = missing;
            let path = if path.is_empty() { "/" } else { &path };
            return Some(format!(
                "give the user or token a role with {} on {path}",
                any_of.join(" or ")
            ));
        }
        self.by_layer()
            .or_else(|| self.by_text())
            .or_else(|| self.by_kind())
            .map(str::to_owned)
    }

    /// What only the layer, the status or the path tells.
    fn by_layer(&self) -> Option<&'static str> {
        Some(match self {
            Self::Tls {
                problem: TlsProblem::FingerprintMismatch { .. },
                ..
            } => {
                "compare with `pvenode cert info` on the node; if the certificate was renewed, set the new fingerprint"
            }
            Self::Tls {
                problem: TlsProblem::Untrusted { .. },
                ..
            } => {
                "pin the fingerprint after comparing it with `pvenode cert info` on the node, or give /etc/pve/pve-root-ca.pem as CA file"
            }
            Self::Tls { .. } => "check that the address and port are those of Proxmox VE's HTTPS (port 8006)",
            Self::Connect { .. } => "check the address, the port (8006) and the network in between",
            Self::Api {
                status: 595 | 596,
                path,
                ..
            } if !path.contains("/agent/") => {
                "the other node is down or its name is wrong: compare with the names under Datacenter"
            }
            Self::Api { status: 599, .. } => {
                "the node that was asked could not hand the call on: try again, or ask the other node itself"
            }
            Self::Api { status: 502..=504, .. } => "this is a reverse proxy's answer: is Proxmox VE behind it up?",
            Self::Api { status: 301..=308, .. } => {
                "this is not the API of Proxmox VE, or a proxy in front of it: check address and port; no redirect is followed"
            }
            Self::Transport { path, .. } if path.ends_with("/upload") => {
                "PVE drops a large upload without an answer when the caller may not upload: check Datastore.AllocateTemplate on \
                 the storage, and the space in /var/tmp on the node"
            }
            // PVE's answer to a request line or part that its server itself refuses (FACTS 2, 54).
            Self::Api {
                status: 400,
                message,
                path,
                ..
            } if message == "Bad Request" => match path.rsplit('/').next() {
                Some("sendkey") => "the key is none of QEMU's names, such as ret, shift-a or ctrl-alt-delete",
                Some("upload") => {
                    "the parts of an upload must come in the order content, checksum-algorithm, checksum, file"
                }
                _ => "PVE does not say which value: look for control characters in them",
            },
            Self::Api {
                status: 403, message, ..
            } if message.trim() == "Permission check failed" => {
                "PVE does not say which privilege: to create a VM it is VM.Allocate on /vms, or on its pool"
            }
            Self::Decode { .. } => "is this Proxmox VE 8 or 9, and nothing in front of it that answers in its place?",
            _ => return None,
        })
    }

    fn by_text(&self) -> Option<&'static str> {
        let texts: Vec<&str> = match self {
            Self::Api { message, params, .. } => {
                params.values().map(String::as_str).chain([message.as_str()]).collect()
            }
            Self::Task { exit, .. } => vec![exit],
            _ => return None,
        };
        // A lock that was not to be had says `got timeout` too; its kind knows better.
        if matches!(self.cause_kind(), ErrorKind::Busy | ErrorKind::Agent) {
            return None;
        }
        let found = BY_TEXT
            .iter()
            .find(|(part, _)| texts.iter().any(|text| text.contains(part)));
        found.map(|(_, advice)| *advice)
    }

    fn by_kind(&self) -> Option<&'static str> {
        Some(match self.cause_kind() {
            ErrorKind::Auth => {
                "check user, realm and token name (user@realm!token), the secret, and that neither is expired or disabled"
            }
            ErrorKind::Agent => {
                "is qemu-guest-agent installed and running in the guest, and does the program exist there?"
            }
            ErrorKind::Locked => "wait until what holds the lock has ended; `qm unlock` frees one that was left behind",
            ErrorKind::Busy => "another task holds the lock; try again in some seconds",
            ErrorKind::Conflict => "read the configuration again and repeat the change",
            ErrorKind::AlreadyExists => "take another name or number, or remove the one that is there",
            ErrorKind::NotFound => {
                "compare the name with what is there; an account also sees only what it has a right to"
            }
            ErrorKind::Unsupported => "this server's version has no such call; compare with its own API viewer",
            ErrorKind::Server => "the node's own log says more: `journalctl -u pvedaemon -u pveproxy`",
            ErrorKind::TaskFailed => "the end of the task's log says more",
            ErrorKind::Timeout => "look whether it was done after all before it is asked for again",
            _ => return None,
        })
    }
}
