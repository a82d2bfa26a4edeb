//! Answers of the QEMU guest agent.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::lenient;

/// A network interface as the guest sees it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct AgentInterface {
    /// For example `ens18`; `lo`, `cni0` and the like are listed too.
    #[serde(default)]
    pub name: String,
    /// The MAC address, in lower case.
    #[serde(rename = "hardware-address", default, deserialize_with = "lenient::opt_text")]
    pub hardware_address: Option<String>,
    /// The addresses; absent while the interface has none.
    #[serde(rename = "ip-addresses", default)]
    addresses: Option<Vec<AgentAddress>>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct AgentAddress {
    #[serde(rename = "ip-address")]
    address: String,
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    prefix: Option<u64>,
}

impl AgentInterface {
    /// The interface's addresses with their prefix lengths. What is not an address is left out.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.addresses.iter().flatten().filter_map(|entry| {
            // A link-local address may carry its zone: fe80::1%ens18.
            let address = entry.address.split('%').next()?.parse().ok()?;
            Some((
                address,
                entry.prefix.and_then(|prefix| u8::try_from(prefix).ok()).unwrap_or(0),
            ))
        })
    }
}

/// What became of a program that the guest agent started.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecStatus {
    /// Has it ended?
    pub exited: bool,
    /// Its exit code; absent while it runs and when a signal ended it.
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i64>,
    /// Its standard output; the agent keeps it until the program has ended.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Did the agent drop a part of either (it keeps 16 MiB)?
    pub truncated: bool,
}

/// Counts instead of contents: a program's output can hold secrets.
impl std::fmt::Debug for ExecStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            exited,
            exit_code,
            signal,
            stdout,
            stderr,
            truncated,
        } = self;
        f.debug_struct("ExecStatus")
            .field("exited", exited)
            .field("exit_code", exit_code)
            .field("signal", signal)
            .field("stdout_bytes", &stdout.len())
            .field("stderr_bytes", &stderr.len())
            .field("truncated", truncated)
            .finish()
    }
}

#[derive(Deserialize)]
pub(crate) struct RawExecStatus {
    #[serde(default, deserialize_with = "lenient::flag")]
    exited: bool,
    #[serde(default, deserialize_with = "lenient::opt_i64")]
    exitcode: Option<i64>,
    #[serde(default, deserialize_with = "lenient::opt_i64")]
    signal: Option<i64>,
    #[serde(rename = "out-data", default, deserialize_with = "lenient::opt_text")]
    out_data: Option<String>,
    #[serde(rename = "err-data", default, deserialize_with = "lenient::opt_text")]
    err_data: Option<String>,
    #[serde(rename = "out-truncated", default, deserialize_with = "lenient::flag")]
    out_truncated: bool,
    #[serde(rename = "err-truncated", default, deserialize_with = "lenient::flag")]
    err_truncated: bool,
}

impl From<RawExecStatus> for ExecStatus {
    fn from(raw: RawExecStatus) -> Self {
        Self {
            exited: raw.exited,
            exit_code: raw.exitcode,
            signal: raw.signal,
            stdout: bytes_of_text(&raw.out_data.unwrap_or_default()),
            stderr: bytes_of_text(&raw.err_data.unwrap_or_default()),
            truncated: raw.out_truncated || raw.err_truncated,
        }
    }
}

/// The content of a file in the guest.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileContent {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Is it only the beginning? PVE reads at most 16 MiB.
    pub truncated: bool,
}

/// Counts instead of contents: a file can hold secrets.
impl std::fmt::Debug for FileContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, truncated } = self;
        f.debug_struct("FileContent")
            .field("bytes", &bytes.len())
            .field("truncated", truncated)
            .finish()
    }
}

#[derive(Deserialize)]
pub(crate) struct RawFileContent {
    #[serde(default, deserialize_with = "lenient::opt_text")]
    content: Option<String>,
    #[serde(default, deserialize_with = "lenient::flag")]
    truncated: bool,
}

impl From<RawFileContent> for FileContent {
    fn from(raw: RawFileContent) -> Self {
        Self {
            bytes: bytes_of_text(&raw.content.unwrap_or_default()),
            truncated: raw.truncated,
        }
    }
}

/// PVE decodes the agent's base64 and prints each byte as the character of that number, so `ä` in UTF-8 arrives as two
/// characters (recorded: a file of the bytes 00 to FF comes back as U+0000 to U+00FF). A text with characters beyond U+00FF
/// cannot come from that and is taken as it is.
pub(crate) fn bytes_of_text(text: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

/// The other way: bytes as the text that makes PVE hand exactly them to the agent.
pub(crate) fn text_of_bytes(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_both_ways() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes_of_text(&text_of_bytes(&all)), all);
        assert_eq!(bytes_of_text("hello äö"), b"hello \xe4\xf6");
        assert_eq!(bytes_of_text("→"), "→".as_bytes());
    }

    #[test]
    fn recorded_ends_of_programs() {
        let read = |json: &str| ExecStatus::from(serde_json::from_str::<RawExecStatus>(json).expect(json));
        let done = read(
            r#"{"err-truncated":0,"out-data":"out\n","out-truncated":0,"err-data":"err\n","exitcode":3,"exited":1}"#,
        );
        assert_eq!(
            (
                done.exited,
                done.exit_code,
                done.stdout.as_slice(),
                done.stderr.as_slice()
            ),
            (true, Some(3), &b"out\n"[..], &b"err\n"[..])
        );
        let killed = read(r#"{"signal":9,"exited":1}"#);
        assert_eq!((killed.exited, killed.exit_code, killed.signal), (true, None, Some(9)));
        assert!(!read(r#"{"exited":0}"#).exited);
        assert!(!format!("{done:?}").contains("err\\n"), "no output in Debug");
    }

    #[test]
    fn addresses_are_parsed_and_the_rest_left_out() {
        let json = r#"{"name":"ens18","hardware-address":"bc:24:11:1e:54:11","ip-addresses":[
            {"ip-address":"10.0.2.15","prefix":24,"ip-address-type":"ipv4"},
            {"ip-address":"fe80::1%ens18","prefix":"64","ip-address-type":"ipv6"},{"ip-address":"x"}]}"#;
        let interface: AgentInterface = serde_json::from_str(json).expect("well formed");
        let found: Vec<String> = interface
            .addresses()
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect();
        assert_eq!(found, ["10.0.2.15/24", "fe80::1/64"]);
        assert_eq!(
            serde_json::from_str::<AgentInterface>(r#"{"name":"lo"}"#)
                .expect("bare")
                .addresses()
                .count(),
            0
        );
    }
}
