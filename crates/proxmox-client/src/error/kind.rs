//! Questions about an error: what kind, may it be repeated, was it sent, what was missing.

use http::Method;

use super::Error;

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
    /// The guest agent is not there: not configured, not running, or it broke off (596). It may come, or come back.
    Agent,
    /// The guest agent is there and answered with an error of its own, for example on an unknown process id or file.
    AgentError,
    /// A node could not be reached through the one that was asked: 595, 596, 599; or 502 to 504 from a reverse proxy.
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
    ("Only root may ", ErrorKind::Permission),
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
    ("Agent error:", ErrorKind::AgentError),
    ("guest agent is not running", ErrorKind::Agent),
    // A guest under load answers late, and while it boots its end of the socket is not there yet.
    ("qga command '", ErrorKind::Agent),
    ("qmp command 'guest-", ErrorKind::Agent),
    ("qga socket", ErrorKind::Agent),
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
    ("you can't convert a VM to template if VM is running", ErrorKind::State),
    ("is already attached", ErrorKind::State),
    ("is disabled", ErrorKind::State),
    ("is not empty", ErrorKind::State),
    // What is wrong with the request, said with 500: qemu-server PVE/API2/Qemu.pm, pve-storage PVE/Storage/Plugin.pm and
    // PVE/API2/Storage/Status.pm, pve-http-server PVE/APIServer/AnyEvent.pm, pve-common PVE/JSONSchema.pm
    ("no options specified", ErrorKind::Parameter),
    ("not allowed for linked clones", ErrorKind::Parameter),
    ("Linked clone feature is not supported", ErrorKind::Parameter),
    ("you can't move to the same storage", ErrorKind::Parameter),
    ("unable to use snapshot name", ErrorKind::Parameter),
    ("SSH public key validation error", ErrorKind::Parameter),
    ("unable to parse ", ErrorKind::Parameter),
    ("does not support '", ErrorKind::Parameter),
    ("is not configured for content-type", ErrorKind::Parameter),
    ("cannot be used together with", ErrorKind::Parameter),
    ("wrong field name", ErrorKind::Parameter),
    ("malformed JSON string", ErrorKind::Parameter),
    ("Not a HASH reference", ErrorKind::Parameter),
    // A volume that is not there has no format either (pve-storage PVE/API2/Storage/Content.pm).
    ("failed - no format", ErrorKind::NotFound),
    // pve-cluster PVE/INotify and PVE/Cluster.pm, pve-common PVE/Network.pm
    ("hostname lookup '", ErrorKind::NotFound),
    ("no such cluster node", ErrorKind::NotFound),
    ("no such ", ErrorKind::NotFound),
    ("No such ", ErrorKind::NotFound),
    // pve-guest-common PVE/AbstractConfig.pm; pve-storage PVE/Storage.pm; pve-access-control
    ("does not exist", ErrorKind::NotFound),
    ("unable to find configuration file", ErrorKind::NotFound),
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
            // A program that does not exist breaks the agent's answer, which looks as if a node were gone (FACTS 48).
            Self::Api { status: 596, path, .. } if path.contains("/agent/") => ErrorKind::Agent,
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
            Self::Console { .. } => ErrorKind::State,
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

    /// May what was asked for have reached the server? `false` only when it surely has not.
    ///
    /// The login before a request is not what was asked for: where that needs a second factor, nothing else was sent. Its other
    /// failures say `true`, which is never wrong, only careful.
    pub fn was_sent(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Invalid { .. }
            | Self::File { .. }
            | Self::SecondFactor { .. } => false,
            Self::Api { .. }
            | Self::Transport { .. }
            | Self::Decode { .. }
            | Self::Task { .. }
            | Self::Timeout { .. }
            | Self::Cancelled { .. }
            | Self::Console { .. } => true,
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
}

fn api_kind<'a>(status: u16, message: &'a str, params: impl Iterator<Item = &'a str>) -> ErrorKind {
    match status {
        401 => ErrorKind::Auth,
        // PVE checks a pool that does not exist as a permission (recorded: 403 "(pool 'nosuch' does not exist)").
        403 if message.contains("does not exist") => ErrorKind::NotFound,
        403 => ErrorKind::Permission,
        404 => ErrorKind::NotFound,
        501 | 506 => ErrorKind::Unsupported,
        // PVE itself says 595 and up; the others come from a reverse proxy in front of it.
        502..=504 | 595 | 596 | 599 => ErrorKind::Proxy,
        400 => {
            // Some texts about single parameters are answers, not faults of the request: nextid on a taken vmid, a storage
            // or task that is not there (FACTS 29, 30, 53).
            let known = |kind| {
                matches!(
                    kind,
                    ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::Permission
                )
            };
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
mod tests;
