//! Sizes with their unit in the type.

use serde::{Deserialize, Serialize};

/// A size in mebibytes, the unit of a VM's memory in its configuration (in its status PVE counts bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MiB(pub u64);

impl MiB {
    /// The size in bytes; `None` when it does not fit.
    pub const fn checked_bytes(self) -> Option<u64> {
        self.0.checked_mul(1024 * 1024)
    }
}

impl std::fmt::Display for MiB {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// A disk's size as PVE prints it (`32G`, `528K`, `375296`) in bytes; `None` when the text is not one.
///
/// # Source
/// `size=` of recorded drives (`FACTS` 33); the suffixes are powers of 1024.
pub fn disk_size_bytes(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        b'T' => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1_u64),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(MiB(4096).checked_bytes(), Some(4_294_967_296));
        assert_eq!(MiB(u64::MAX).checked_bytes(), None);
        for (text, want) in [
            ("32G", Some(34_359_738_368)),
            ("528K", Some(540_672)),
            ("375296", Some(375_296)),
            ("0T", Some(0)),
            ("18700K", Some(19_148_800)),
            ("", None),
            ("G", None),
            ("ä", None),
            ("-1G", None),
            ("1.5G", None),
            ("99999999999T", None),
        ] {
            assert_eq!(disk_size_bytes(text), want, "{text:?}");
        }
    }
}
