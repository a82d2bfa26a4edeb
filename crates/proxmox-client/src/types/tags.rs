//! Tags of a VM.

use crate::error::Error;

/// Brings tags into the form in which PVE keeps them: lower case, sorted, each once, joined by `;` (`FACTS` 31).
///
/// # Errors
/// [`Error::Invalid`] for a tag that PVE would refuse.
///
/// # Source
/// Format `pve-tag` of pve-common: a letter, digit or `_` first, then also `-`, `+` and `.`.
pub fn normalise_tags<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> Result<String, Error> {
    let mut list = Vec::new();
    for tag in tags {
        let tag = tag.as_ref().trim().to_ascii_lowercase();
        let first_ok = tag
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !first_ok || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+.".contains(&b)) {
            return Err(Error::invalid(
                "tags",
                format!("{tag:?} is not a tag: a letter, digit or `_` first, then also `-`, `+` and `.`"),
            ));
        }
        list.push(tag);
    }
    list.sort();
    list.dedup();
    Ok(list.join(";"))
}

/// Splits PVE's text of tags; it may use `;`, `,` or spaces, and a lone space means none (`FACTS` 26).
pub fn split_tags(text: &str) -> Vec<String> {
    text.split([';', ',', ' '])
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_lowered_sorted_and_unique() {
        assert_eq!(
            normalise_tags(["K3s", "alma9", "k3s", " b "]).expect("good tags"),
            "alma9;b;k3s"
        );
        assert_eq!(normalise_tags([] as [&str; 0]).expect("none"), "");
        for bad in ["", "-a", "a b", "a;b", "ä", "a/b", "a=b"] {
            assert!(normalise_tags([bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn splitting_knows_all_separators() {
        assert_eq!(split_tags("a;b,c d"), ["a", "b", "c", "d"]);
        assert!(split_tags(" ").is_empty());
    }
}
