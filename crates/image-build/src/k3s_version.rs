//! `K3sVersion`: a k3s release such as `v1.29.0+k3s1`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A k3s release: the Kubernetes version, a release candidate if it is one, and k3s's own counter.
///
/// Ordered by release: `v1.29.0-rc1+k3s1 < v1.29.0+k3s1 < v1.29.0+k3s2 < v1.29.10+k3s1`.
///
/// ```
/// use image_build::K3sVersion;
/// let version: K3sVersion = "v1.29.0+k3s1".parse()?;
/// assert_eq!(version.url_form(), "v1.29.0%2Bk3s1");
/// assert!("v1.29.0".parse::<K3sVersion>().unwrap_err().to_string().contains("v1.29.0+k3s1"));
/// # Ok::<(), image_build::K3sVersionError>(())
/// ```
///
/// # Source
/// Tags of the k3s repository; the `+` is written `%2B` in download URLs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct K3sVersion {
    kubernetes: KubernetesVersion,
    k3s: u32,
}

/// The Kubernetes part of a k3s version, `v1.29.0` or `v1.29.0-rc1`: what an image name carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubernetesVersion {
    major: u32,
    minor: u32,
    patch: u32,
    // Releases sort behind their candidates: `Candidate` stands first.
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Candidate(u32),
    Release,
}

/// Why a text is not a k3s version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{}", self.headline(), likely.as_ref().map_or_else(String::new, |likely| format!("; did you mean {likely}?")))]
pub struct K3sVersionError {
    text: String,
    reason: &'static str,
    likely: Option<String>,
}

impl K3sVersionError {
    /// The message without the spelling that was likely meant.
    pub(crate) fn headline(&self) -> String {
        format!("`{}` names no k3s release: {}", self.text, self.reason)
    }

    /// The spelling that was likely meant.
    pub fn likely(&self) -> Option<&str> {
        self.likely.as_deref()
    }
}

impl K3sVersion {
    /// The Kubernetes part, without k3s's counter.
    pub fn kubernetes(&self) -> KubernetesVersion {
        self.kubernetes
    }

    /// The version as it stands in a download URL, where `+` must be `%2B`.
    pub fn url_form(&self) -> String {
        format!("{}%2Bk3s{}", self.kubernetes, self.k3s)
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            major,
            minor,
            patch,
            stage,
        } = self;
        write!(f, "v{major}.{minor}.{patch}")?;
        match stage {
            Stage::Candidate(number) => write!(f, "-rc{number}"),
            Stage::Release => Ok(()),
        }
    }
}

impl FromStr for KubernetesVersion {
    type Err = K3sVersionError;
    fn from_str(text: &str) -> Result<Self, K3sVersionError> {
        parse_kubernetes(text).ok_or_else(|| K3sVersionError {
            text: text.to_owned(),
            reason: "a Kubernetes version looks like v1.29.0 or v1.29.0-rc1",
            likely: None,
        })
    }
}

impl fmt::Display for K3sVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+k3s{}", self.kubernetes, self.k3s)
    }
}

impl FromStr for K3sVersion {
    type Err = K3sVersionError;
    fn from_str(text: &str) -> Result<Self, K3sVersionError> {
        match text.split_once("+k3s") {
            Some((kubernetes, counter)) => match (parse_kubernetes(kubernetes), number(counter)) {
                (Some(kubernetes), Some(k3s)) if k3s > 0 => Ok(Self { kubernetes, k3s }),
                _ => Err(bad(text, "it looks like v1.29.0+k3s1 or v1.29.0-rc1+k3s1")),
            },
            None => Err(bad(
                text,
                "it lacks k3s's own counter `+k3sN`, so it could mean several releases",
            )),
        }
    }
}

fn bad(text: &str, reason: &'static str) -> K3sVersionError {
    let likely = likely(text);
    // The reason alone would leave people guessing; the spelling is part of the message.
    let reason = if likely.is_some() {
        reason
    } else {
        "it looks like v1.29.0+k3s1 or v1.29.0-rc1+k3s1"
    };
    K3sVersionError {
        text: text.to_owned(),
        reason,
        likely,
    }
}

/// Guesses the spelling that was meant: `1.29.0`, `v1.29.0-k3s1`, `v1.29.0%2Bk3s1`, `v1.29.0+k3s`.
fn likely(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase().replace("%2b", "+").replace(['_', ' '], "-");
    let with_v = if text.starts_with('v') {
        text
    } else {
        format!("v{text}")
    };
    let (head, counter) = match with_v.rsplit_once("k3s") {
        Some((head, counter)) => (
            head.trim_end_matches(['+', '-', '.']),
            number(counter).filter(|n| *n > 0).unwrap_or(1),
        ),
        None => (with_v.trim_end_matches('+'), 1),
    };
    parse_kubernetes(head).map(|kubernetes| {
        K3sVersion {
            kubernetes,
            k3s: counter,
        }
        .to_string()
    })
}

fn parse_kubernetes(text: &str) -> Option<KubernetesVersion> {
    let rest = text.strip_prefix('v')?;
    let (numbers, stage) = match rest.split_once("-rc") {
        Some((numbers, candidate)) => (numbers, Stage::Candidate(number(candidate)?)),
        None => (rest, Stage::Release),
    };
    let mut parts = numbers.split('.');
    let (major, minor, patch) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    parts.next().is_none().then_some(KubernetesVersion {
        major,
        minor,
        patch,
        stage,
    })
}

/// A number in its only spelling: digits, no leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    if plain { text.parse().ok() } else { None }
}

impl Ord for K3sVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.kubernetes, self.k3s).cmp(&(other.kubernetes, other.k3s))
    }
}

impl PartialOrd for K3sVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TryFrom<String> for K3sVersion {
    type Error = K3sVersionError;
    fn try_from(text: String) -> Result<Self, K3sVersionError> {
        text.parse()
    }
}

impl From<K3sVersion> for String {
    fn from(version: K3sVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn releases_are_read_and_printed() {
        for text in [
            "v1.29.0+k3s1",
            "v1.28.5+k3s1",
            "v1.31.3-rc1+k3s1",
            "v1.0.0+k3s12",
            "v0.9.1+k3s2",
        ] {
            let version: K3sVersion = text.parse().expect(text);
            assert_eq!(version.to_string(), text);
            assert_eq!(version.url_form(), text.replace('+', "%2B"));
        }
    }

    #[test]
    fn wrong_spellings_name_the_right_one() {
        for (text, likely) in [
            ("v1.29.0", Some("v1.29.0+k3s1")),
            ("1.29.0", Some("v1.29.0+k3s1")),
            ("1.29.0+k3s2", Some("v1.29.0+k3s2")),
            ("v1.29.0-k3s1", Some("v1.29.0+k3s1")),
            ("v1.29.0%2Bk3s1", Some("v1.29.0+k3s1")),
            ("v1.29.0+k3s", Some("v1.29.0+k3s1")),
            ("v1.29.0+k3s0", Some("v1.29.0+k3s1")),
            ("v1.29.0-rc1", Some("v1.29.0-rc1+k3s1")),
            (" v1.29.0+k3s1", Some("v1.29.0+k3s1")),
            ("V1.29.0+K3S1", Some("v1.29.0+k3s1")),
            ("v1.29", None),
            ("latest", None),
            ("", None),
            ("v1.29.0.1+k3s1", None),
            ("v01.29.0+k3s1", None),
            ("v1.29.99999999999+k3s1", None),
        ] {
            let error = text.parse::<K3sVersion>().expect_err(text);
            assert_eq!(error.likely(), likely, "{text}");
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn order_is_by_release() {
        let sorted = [
            "v1.28.5+k3s1",
            "v1.29.0-rc1+k3s1",
            "v1.29.0-rc2+k3s1",
            "v1.29.0+k3s1",
            "v1.29.0+k3s2",
            "v1.29.10+k3s1",
        ];
        let mut versions: Vec<K3sVersion> = sorted.iter().rev().map(|text| text.parse().expect(text)).collect();
        versions.sort();
        assert_eq!(versions.iter().map(ToString::to_string).collect::<Vec<_>>(), sorted);
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "v?[0-9]{1,3}\\.[0-9]{1,2}\\.[0-9]{1,2}(-rc[0-9])?(\\+k3s[0-9]{1,2})?") {
            if let Ok(version) = text.parse::<K3sVersion>() {
                prop_assert_eq!(version.to_string(), text);
            }
        }

        #[test]
        fn a_likely_spelling_is_a_version(text in "\\PC{0,20}") {
            if let Err(error) = text.parse::<K3sVersion>()
                && let Some(likely) = error.likely()
            {
                prop_assert!(likely.parse::<K3sVersion>().is_ok(), "{}", likely);
            }
        }
    }
}
