//! Addresses that a build passes on: to PVE's task log, to a guest, to an error. None of them may hold a password.

use url::Url;

use super::IsoChecksum;
use crate::diagnostic::{Diagnostic, Diagnostics};

/// Refuses an address with a user or password: PVE writes the addresses that it fetches into its task log, and a guest keeps
/// those that its scripts are told.
pub(super) fn check_open(url: &Url, subject: &str, found: &mut Diagnostics) {
    if holds_password(url) {
        found.push(
            Diagnostic::error(subject, "it holds a user or password, which would show up in logs")
                .help("fetch the file by hand and give its path, or use a mirror that asks for none"),
        );
    }
}

/// Whether the part before `@` of an address says as whom.
pub(crate) fn holds_password(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Refuses a mirror of k3s that the guest's script could not use.
pub(super) fn check_mirror(text: &str, found: &mut Diagnostics) {
    const MIRROR: &str = "k3s_mirror_url";
    match Url::parse(text) {
        Ok(url)
            if !matches!(url.scheme(), "http" | "https")
                || text.chars().any(|c| c.is_whitespace() || c.is_control()) =>
        {
            found.push(Diagnostic::error(MIRROR, format!("{text:?} is no https:// address")));
        }
        Ok(url) => check_open(&url, MIRROR, found),
        Err(error) => found.push(Diagnostic::error(
            MIRROR,
            format!("{text:?} is no https:// address: {error}"),
        )),
    }
}

/// Refuses a list of checksums that proves nothing, and warns of a checksum that could be forged.
pub(super) fn check_checksum(checksum: &IsoChecksum, found: &mut Diagnostics) {
    const CHECKSUM: &str = "alma_iso_checksum";
    match checksum {
        IsoChecksum::Listed(list) => {
            if list.scheme() != "https" {
                found.push(
                    Diagnostic::error(
                        CHECKSUM,
                        format!(
                            "a list at {}:// proves nothing, only one that comes over https://",
                            list.scheme()
                        ),
                    )
                    .help("write sha256: and the digits of the ISO's line"),
                );
            }
            check_open(list, CHECKSUM, found);
        }
        IsoChecksum::Given(sum) if sum.algorithm().is_weak() => found.push(
            Diagnostic::warning(
                CHECKSUM,
                format!(
                    "it finds damage, but no forgery: two files of one {} can be made",
                    sum.algorithm()
                ),
            )
            .help("write sha256: and the 64 digits"),
        ),
        IsoChecksum::Given(_) | IsoChecksum::Unchecked => {}
    }
}
