//! Questions about an error: what kind, may it be repeated, was it sent, what to do.

use http::Method;

use super::{Error, TlsProblem};

/// What an error means for the caller. PVE says most of it in the text only; which text means what stands in one table here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Who the caller is was not accepted.
    Auth,
    /// The caller lacks a privilege, see [`Error::missing_privileges`].
    Permission,
    /// What was named does not exist.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// A parameter was refused, see the `params` of [`Error::Api`].
    Parameter,
    /// The VM is locked for something, for example a backup.
    Locked,
    /// Someone else changed it since the digest was read.
    Conflict,
    /// PVE could not get its lock in time; the request did nothing.
    Busy,
    /// The VM or object is not in the state that the request needs, for example not running.
    State,
    /// The guest agent is not there or refused.
    Agent,
    /// A node could not be reached through the node that was asked: 595, 596, 599.
    Proxy,
    /// The server knows no such call.
    Unsupported,
    /// The server failed in another way.
    Server,
    /// A task failed; [`Error::cause_kind`] looks at its text.
    TaskFailed,
    /// No connection.
    Connect,
    /// A broken connection.
    Transport,
    /// A certificate.
    Tls,
    /// An unreadable answer.
    Decode,
    /// A limit was reached.
    Timeout,
    /// The caller's own wish.
    Cancelled,
    /// A value that cannot be.
    Invalid,
    /// A local file.
    File,
}

/// Which privileges PVE asked for, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPrivileges {
    /// The path of the access control list, for example `/storage/local`; empty where PVE left it out (`FACTS` 12).
    pub path: String,
    /// One of these would do; empty where PVE did not name any.
    pub any_of: Vec<String>,
}

/// Part of a message, the kind it means, and the file that prints it. The first match counts; texts as recorded from PVE 9.2.
const MESSAGES: &[(&str, ErrorKind)] = &[
    // pve-http-server PVE/APIServer/AnyEvent.pm and pve-manager PVE/HTTPServer.pm
    ("' not implemented", ErrorKind::Unsupported),
    ("method '", ErrorKind::Unsupported),
    ("no formatter for uri", ErrorKind::Unsupported),
    // qemu-server PVE/API2/Qemu.pm
    ("only root can ", ErrorKind::Permission),
    ("Only root can ", ErrorKind::Permission),
    ("root-only command", ErrorKind::Permission),
    ("limiting to root user", ErrorKind::Permission),
    // qemu-server PVE/API2/Qemu.pm (create, clone, nextid), pve-storage, pve-access-control
    ("already exists", ErrorKind::AlreadyExists),
    ("already defined", ErrorKind::AlreadyExists),
    ("already used", ErrorKind::AlreadyExists),
    ("refusing to override existing file", ErrorKind::AlreadyExists),
    // pve-guest-common PVE/AbstractConfig.pm
    ("is locked (", ErrorKind::Locked),
    // pve-common PVE/Tools.pm (assert_if_modified, lock_file)
    ("checksum mismatch (file change by other user?)", ErrorKind::Conflict),
    ("detected modified configuration", ErrorKind::Conflict),
    ("can't lock file", ErrorKind::Busy),
    ("got lock timeout", ErrorKind::Busy),
    ("got lock request timeout", ErrorKind::Busy),
    // qemu-server PVE/QemuServer/Agent.pm, PVE/API2/Qemu/Agent.pm
    ("Agent error:", ErrorKind::Agent),
    ("guest agent is not running", ErrorKind::Agent),
    ("No QEMU guest agent configured", ErrorKind::Agent),
    // qemu-server PVE/API2/Qemu.pm, PVE/QemuServer.pm
    ("protection mode enabled", ErrorKind::State),
    ("is running - destroy failed", ErrorKind::State),
    ("is not running", ErrorKind::State),
    (" not running", ErrorKind::State),
    (" already running", ErrorKind::State),
    ("if it's a template", ErrorKind::State),
    ("you can't convert a template to a template", ErrorKind::State),
    ("because VM contains snapshots", ErrorKind::State),
    ("still in use by linked clone", ErrorKind::State),
    ("is disabled", ErrorKind::State),
    ("is not empty", ErrorKind::State),
    // pve-cluster PVE/INotify and PVE/Cluster.pm, pve-common PVE/Network.pm
    ("hostname lookup '", ErrorKind::NotFound),
    ("no such cluster node", ErrorKind::NotFound),
    ("no such ", ErrorKind::NotFound),
    // pve-guest-common PVE/AbstractConfig.pm; pve-storage PVE/Storage.pm; pve-access-control
    ("does not exist", ErrorKind::NotFound),
    ("unable to find configuration file", ErrorKind::NotFound),
    ("No such file or directory", ErrorKind::NotFound),
];

fn kind_of_message(message: &str) -> Option<ErrorKind> {
    // A changed boot order with a missing device is a wrong value, not a missing object (FACTS 35).
    if message.starts_with("invalid bootorder") {
        return Some(ErrorKind::Parameter);
    }
    MESSAGES
        .iter()
        .find(|(part, _)| message.contains(part))
        .map(|(_, kind)| *kind)
}

impl Error {
    /// What the error means.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Api {
                status,
                message,
                params,
                ..
            } => api_kind(*status, message, params.values().map(String::as_str)),
            Self::Connect { .. } => ErrorKind::Connect,
            Self::Tls { .. } => ErrorKind::Tls,
            Self::Transport { .. } => ErrorKind::Transport,
            Self::Decode { .. } => ErrorKind::Decode,
            Self::Task { .. } => ErrorKind::TaskFailed,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::File { .. } => ErrorKind::File,
            Self::SecondFactor { .. } => ErrorKind::Auth,
        }
    }

    /// The same, but for a failed task what its text means: a start soon after a stop fails in its task with
    /// [`ErrorKind::Busy`] and may be repeated (`FACTS` 77).
    pub fn cause_kind(&self) -> ErrorKind {
        match self {
            Self::Task { exit, .. } if permission_text(exit).is_some() => ErrorKind::Permission,
            Self::Task { exit, .. } => kind_of_message(exit).unwrap_or(ErrorKind::TaskFailed),
            other => other.kind(),
        }
    }

    /// The status code of PVE's answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Does what was named not exist? PVE says so with 500 and a text, seldom with 404 (`FACTS` 29).
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// May the same request be sent again as it is?
    ///
    /// Yes if it was surely not sent; if it did nothing because a lock was not to be had; and for reads, if the connection broke
    /// or a proxy failed (595, 596, 599). For anything else, and for a write with a lost answer: look at the world instead.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Transport { method, .. } => method == Method::GET,
            Self::Api { method, .. } => match self.kind() {
                ErrorKind::Busy => true,
                ErrorKind::Proxy => method == Method::GET,
                _ => false,
            },
            _ => false,
        }
    }

    /// May the request have reached the server? `false` only when it surely has not.
    pub fn was_sent(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Tls { .. } | Self::Invalid { .. } | Self::File { .. } => false,
            Self::Api { .. }
            | Self::Transport { .. }
            | Self::Decode { .. }
            | Self::Task { .. }
            | Self::Timeout { .. }
            | Self::Cancelled { .. }
            | Self::SecondFactor { .. } => true,
        }
    }

    /// The privileges that were missing, if that was the reason.
    pub fn missing_privileges(&self) -> Option<MissingPrivileges> {
        let text = match self {
            Self::Api {
                status: 403, message, ..
            } => message,
            Self::Task { exit, .. } => exit,
            _ => return None,
        };
        let inner = permission_text(text)?;
        let (path, privileges) = inner.split_once(", ").unwrap_or(("", ""));
        let names = privileges
            .split('|')
            .filter(|name| name.contains('.') && !name.contains(' '));
        Some(MissingPrivileges {
            path: path.to_owned(),
            any_of: names.map(str::to_owned).collect(),
        })
    }

    /// What a person can do about it, where that is known.
    pub fn advice(&self) -> Option<String> {
        if let Some(missing) = self.missing_privileges().filter(|missing| !missing.any_of.is_empty()) {
            let MissingPrivileges { path, any_of } = missing;
            let path = if path.is_empty() { "/" } else { &path };
            return Some(format!(
                "give the user or token a role with {} on {path}",
                any_of.join(" or ")
            ));
        }
        let text = match self {
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
            Self::Api { status: 596 | 595, .. } => {
                "the other node is down or its name is wrong: compare with the names under Datacenter"
            }
            Self::Transport { path, .. } if path.ends_with("/upload") => {
                "PVE drops a large upload without an answer when the caller may not upload: check Datastore.AllocateTemplate on \
                 the storage, and the space in /var/tmp on the node"
            }
            _ => match self.kind() {
                ErrorKind::Auth => {
                    "check user, realm and token name (user@realm!token), the secret, and that neither is expired or disabled"
                }
                ErrorKind::Locked => {
                    "wait until what holds the lock has ended; `qm unlock` frees one that was left behind"
                }
                ErrorKind::Busy => "another task holds the lock; try again in some seconds",
                ErrorKind::Conflict => "read the configuration again and repeat the change",
                _ => return None,
            },
        };
        Some(text.to_owned())
    }
}

fn api_kind<'a>(status: u16, message: &'a str, params: impl Iterator<Item = &'a str>) -> ErrorKind {
    match status {
        401 => ErrorKind::Auth,
        // PVE checks a pool that does not exist as a permission (recorded: 403 "(pool 'nosuch' does not exist)").
        403 if message.contains("does not exist") => ErrorKind::NotFound,
        403 => ErrorKind::Permission,
        404 => ErrorKind::NotFound,
        501 | 506 => ErrorKind::Unsupported,
        595 | 596 | 599 => ErrorKind::Proxy,
        400 => {
            // Some texts about single parameters are answers, not faults of the request: nextid on a taken vmid, a storage
            // or task that is not there (FACTS 29, 30, 53).
            let known = |kind| matches!(kind, ErrorKind::AlreadyExists | ErrorKind::NotFound);
            let mut texts = params.chain([message]);
            texts
                .find_map(|text| kind_of_message(text).filter(|kind| known(*kind)))
                .unwrap_or(ErrorKind::Parameter)
        }
        _ => kind_of_message(message).unwrap_or(ErrorKind::Server),
    }
}

/// The part in brackets of `Permission check failed (/path, Priv|Priv)`; empty where PVE gives none.
fn permission_text(message: &str) -> Option<&str> {
    // A task prints the status in front of it: `403 Permission check failed (...)`.
    let rest = message
        .strip_prefix("403 ")
        .unwrap_or(message)
        .strip_prefix("Permission check failed")?;
    Some(rest.trim().strip_prefix('(').unwrap_or("").trim_end_matches(')'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn api(status: u16, message: &str) -> Error {
        Error::Api {
            method: Method::POST,
            path: "/x".into(),
            status,
            message: message.into(),
            params: BTreeMap::new(),
        }
    }

    fn task(exit: &str) -> Error {
        let upid = "UPID:pve:0000778E:000B3A73:6B046495:qmstart:100:root@pam:"
            .parse()
            .expect("a UPID");
        Error::Task {
            upid,
            exit: exit.into(),
            log_tail: Vec::new(),
        }
    }

    #[test]
    fn recorded_texts_have_their_kind() {
        use ErrorKind as K;
        for (status, message, want) in [
            (401, "Authentication failed!", K::Auth),
            (403, "Permission check failed (/vms/201, VM.Console)", K::Permission),
            (
                403,
                "Permission check failed (pool 'nosuch' does not exist)",
                K::NotFound,
            ),
            (400, "Parameter verification failed.", K::Parameter),
            (400, "Bad Request", K::Parameter),
            (400, "no such task", K::NotFound),
            (
                500,
                "Configuration file 'nodes/pve/qemu-server/999.conf' does not exist",
                K::NotFound,
            ),
            (
                500,
                "hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Name or service not known",
                K::NotFound,
            ),
            (500, "storage 'nosuch' does not exist", K::NotFound),
            (
                500,
                "unable to create VM 200 - VM 200 already exists on node 'pve'",
                K::AlreadyExists,
            ),
            (
                500,
                "unable to create VM 213: config file already exists",
                K::AlreadyExists,
            ),
            (500, "VM is locked (backup)", K::Locked),
            (500, "checksum mismatch (file change by other user?)", K::Conflict),
            (
                500,
                "can't lock file '/var/lock/qemu-server/lock-202.conf' - got timeout",
                K::Busy,
            ),
            (500, "VM 201 is not running", K::State),
            (500, "VM 202 not running", K::State),
            (500, "QEMU guest agent is not running", K::Agent),
            (500, "No QEMU guest agent configured", K::Agent),
            (
                500,
                "Agent error: failed to open file '/nosuch' (mode: 'r'): No such file or directory",
                K::Agent,
            ),
            (500, "can't remove VM 231 - protection mode enabled", K::State),
            (500, "invalid bootorder: device 'ide2' does not exist'", K::Parameter),
            (500, "only root can set 'args' config", K::Permission),
            (501, "Method 'GET /nosuch' not implemented", K::Unsupported),
            (506, "upload 'Content-Type 'text/plain' not implemented", K::Unsupported),
            (595, "No route to host", K::Proxy),
            (596, "Broken pipe", K::Proxy),
            (599, "Too many redirections", K::Proxy),
            (500, "something new", K::Server),
        ] {
            assert_eq!(api(status, message).kind(), want, "{status} {message}");
        }
    }

    #[test]
    fn a_parameter_text_can_be_an_answer() {
        let with = |name: &str, text: &str| Error::Api {
            method: Method::GET,
            path: "/x".into(),
            status: 400,
            message: "Parameter verification failed.".into(),
            params: BTreeMap::from([(name.to_owned(), text.to_owned())]),
        };
        assert_eq!(with("vmid", "VM 200 already exists\n").kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            with("storage", "storage 'nosuch' does not exist").kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            with("cores", "type check ('integer') failed").kind(),
            ErrorKind::Parameter
        );
        let text = with("net0", "invalid format\nnet0.model: property is missing\n").to_string();
        assert_eq!(
            text,
            "GET /x: 400 Parameter verification failed. (net0: invalid format net0.model: property is missing)"
        );
    }

    #[test]
    fn missing_privileges_are_read() {
        for (message, path, any_of) in [
            (
                "Permission check failed (/storage/local, Datastore.Audit|Datastore.AllocateSpace)",
                "/storage/local",
                vec!["Datastore.Audit", "Datastore.AllocateSpace"],
            ),
            ("Permission check failed (, Sys.Audit)", "", vec!["Sys.Audit"]),
            ("Permission check failed", "", vec![]),
            ("Permission check failed (user != root@pam)", "", vec![]),
        ] {
            let missing = api(403, message).missing_privileges().expect(message);
            assert_eq!(
                (missing.path.as_str(), missing.any_of),
                (path, any_of.iter().map(ToString::to_string).collect()),
                "{message}"
            );
        }
        assert!(
            api(500, "Permission check failed (/x, A.B)")
                .missing_privileges()
                .is_none()
        );
        let in_task = task("403 Permission check failed (/storage/local, Datastore.AllocateSpace)");
        assert_eq!(
            in_task.missing_privileges().expect("in a task too").any_of,
            ["Datastore.AllocateSpace"]
        );
        assert_eq!(
            (in_task.kind(), in_task.cause_kind()),
            (ErrorKind::TaskFailed, ErrorKind::Permission)
        );
        assert!(
            in_task
                .advice()
                .expect("says what to do")
                .contains("Datastore.AllocateSpace on /storage/local")
        );
    }

    #[test]
    fn failed_tasks_tell_their_cause() {
        for (exit, want) in [
            (
                "can't lock file '/var/lock/qemu-server/lock-280.conf' - got timeout",
                ErrorKind::Busy,
            ),
            ("VM 201 already running", ErrorKind::State),
            ("VM is locked (backup)", ErrorKind::Locked),
            (
                "unable to create VM 140 - volume 'local:iso/nosuch.iso' does not exist",
                ErrorKind::NotFound,
            ),
            ("start failed: QEMU exited with code 1", ErrorKind::TaskFailed),
        ] {
            assert_eq!(task(exit).cause_kind(), want, "{exit}");
        }
        assert_eq!(task("x").to_string(), "task qmstart 100 on pve failed: x");
    }

    #[test]
    fn what_may_be_repeated() {
        let get = |status, message: &str| Error::Api {
            method: Method::GET,
            path: "/x".into(),
            status,
            message: message.into(),
            params: BTreeMap::new(),
        };
        let io = || Box::new(std::io::Error::other("reset"));
        assert!(get(596, "Broken pipe").is_retryable() && !api(596, "Broken pipe").is_retryable());
        assert!(api(500, "can't lock file 'x' - got timeout").is_retryable());
        assert!(!api(500, "VM is locked (backup)").is_retryable());
        let connect = Error::Connect {
            endpoint: "e".into(),
            method: Method::POST,
            path: "/x".into(),
            attempts: 1,
            source: io(),
        };
        assert!(connect.is_retryable() && !connect.was_sent());
        for (method, want) in [(Method::GET, true), (Method::POST, false), (Method::DELETE, false)] {
            let broken = Error::Transport {
                method,
                path: "/x".into(),
                attempts: 1,
                source: io(),
            };
            assert!(broken.is_retryable() == want && broken.was_sent());
        }
    }

    #[test]
    fn the_cause_is_only_in_source() {
        use std::error::Error as _;
        let broken = Error::Transport {
            method: Method::GET,
            path: "/x".into(),
            attempts: 1,
            source: Box::new(std::io::Error::other("reset by peer")),
        };
        assert!(!broken.to_string().contains("reset by peer"));
        assert_eq!(broken.source().expect("kept").to_string(), "reset by peer");
    }
}
