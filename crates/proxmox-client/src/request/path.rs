//! Paths, built from segments that are percent-encoded one by one.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{
    error::Error,
    types::{name::NodeName, name::StorageId, vmid::Vmid},
};

/// All but the unreserved characters of RFC 3986. Sub-delimiters are encoded too: PVE's own router cuts at some of them.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes one segment, name or value.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Puts a path together from segments that are not encoded yet.
pub(crate) fn join(segments: &[&str]) -> String {
    segments
        .iter()
        .fold(String::new(), |path, segment| path + "/" + &encode(segment))
}

pub(crate) fn node(node: &NodeName, rest: &[&str]) -> String {
    format!("/nodes/{}{}", encode(node.as_str()), join(rest))
}

pub(crate) fn storage(node: &NodeName, storage: &StorageId, rest: &[&str]) -> String {
    format!(
        "/nodes/{}/storage/{}{}",
        encode(node.as_str()),
        encode(storage.as_str()),
        join(rest)
    )
}

pub(crate) fn qemu(node: &NodeName, vmid: Vmid, rest: &[&str]) -> String {
    format!("/nodes/{}/qemu/{vmid}{}", encode(node.as_str()), join(rest))
}

/// Takes a path as the caller wrote it: encoded where it must be, and without ways out of the API.
pub(crate) fn checked(path: &str) -> Result<String, Error> {
    let refuse = |reason: &str| Err(Error::invalid("path", format!("{path:?} {reason}")));
    if !path.starts_with('/') {
        return refuse("must begin with `/`, without /api2/json, as in /nodes/pve/status");
    }
    if path.contains(['?', '#']) {
        return refuse("holds `?` or `#`: give parameters as parameters and encode the rest");
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse("holds characters that must be percent-encoded");
    }
    let dots = |segment: &str| matches!(percent_decode_str(segment).decode_utf8_lossy().as_ref(), "." | "..");
    if path.split('/').any(dots) {
        return refuse("holds a `.` or `..` segment");
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded_one_by_one() {
        let pve = NodeName::new("pve").expect("a name");
        let local = StorageId::new("local-lvm").expect("a name");
        assert_eq!(
            storage(&pve, &local, &["content", "local:iso/a b.iso"]),
            "/nodes/pve/storage/local-lvm/content/local%3Aiso%2Fa%20b.iso"
        );
        assert_eq!(
            qemu(&pve, Vmid::MIN, &["status", "current"]),
            "/nodes/pve/qemu/100/status/current"
        );
        assert_eq!(join(&["pools", "a/b"]), "/pools/a%2Fb");
        assert_eq!(encode("a?b#c%d&e=f+g"), "a%3Fb%23c%25d%26e%3Df%2Bg");
    }
}
