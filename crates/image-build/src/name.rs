//! `ImageName`: a template's name such as `alma9-k3-node-amd64-v1.29.0-v1`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::k3s_version::{K3sVersion, KubernetesVersion};

/// The name of a k3s image: AlmaLinux release, architecture, Kubernetes version and iteration.
///
/// Ordered by release, architecture, version and iteration, each as a number.
///
/// ```
/// use image_build::ImageName;
/// let name: ImageName = "alma9-k3-node-amd64-v1.29.0-v1".parse()?;
/// let taken = ["alma9-k3-node-amd64-v1.29.0-v1", "alma9-k3-node-amd64-v1.29.0-v4", "web-1"];
/// assert_eq!(name.next_free(taken).to_string(), "alma9-k3-node-amd64-v1.29.0-v5");
/// # Ok::<(), image_build::ImageNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    alma: u32,
    arch: String,
    kubernetes: KubernetesVersion,
    iteration: u32,
}

/// Why a text is not an image name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is no image name: {reason}; the form is alma9-k3-node-amd64-v1.29.0-v1")]
pub struct ImageNameError {
    text: String,
    reason: &'static str,
}

impl ImageName {
    /// The first iteration of an image for amd64.
    pub fn first(alma: u32, k3s: &K3sVersion) -> Self {
        Self {
            alma,
            arch: "amd64".to_owned(),
            kubernetes: k3s.kubernetes(),
            iteration: 1,
        }
    }

    /// Major release of AlmaLinux.
    pub fn alma(&self) -> u32 {
        self.alma
    }

    /// CPU architecture, `amd64`.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// Version of Kubernetes inside; k3s's own counter is not part of a name.
    pub fn kubernetes(&self) -> KubernetesVersion {
        self.kubernetes
    }

    /// Counts the images of one version, from 1.
    pub fn iteration(&self) -> u32 {
        self.iteration
    }

    /// Is it an image of that k3s release? A name says nothing of k3s's counter.
    pub fn agrees_with(&self, k3s: &K3sVersion) -> bool {
        self.kubernetes == k3s.kubernetes()
    }

    /// The same name with another Kubernetes version.
    #[must_use]
    pub fn with_version(&self, k3s: &K3sVersion) -> Self {
        Self {
            kubernetes: k3s.kubernetes(),
            ..self.clone()
        }
    }

    /// The name behind the highest iteration in `existing`; the name itself if no iteration of it exists.
    ///
    /// Gaps are not filled: a deleted image's name must not come back with other content.
    #[must_use]
    pub fn next_free<'a>(&self, existing: impl IntoIterator<Item = &'a str>) -> Self {
        let highest = existing
            .into_iter()
            .filter_map(|text| text.parse::<Self>().ok())
            .filter(|name| (name.alma, &name.arch, name.kubernetes) == (self.alma, &self.arch, self.kubernetes))
            .map(|name| name.iteration)
            .max();
        let iteration = highest.map_or(self.iteration, |highest| self.iteration.max(highest.saturating_add(1)));
        Self {
            iteration,
            ..self.clone()
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            alma,
            arch,
            kubernetes,
            iteration,
        } = self;
        write!(f, "alma{alma}-k3-node-{arch}-{kubernetes}-v{iteration}")
    }
}

impl FromStr for ImageName {
    type Err = ImageNameError;
    fn from_str(text: &str) -> Result<Self, ImageNameError> {
        let bad = |reason| ImageNameError {
            text: text.to_owned(),
            reason,
        };
        let rest = text
            .strip_prefix("alma")
            .ok_or_else(|| bad("it does not begin with `alma`"))?;
        let (alma, rest) = rest
            .split_once("-k3-node-")
            .ok_or_else(|| bad("it lacks `-k3-node-`"))?;
        let alma = number(alma).ok_or_else(|| bad("the AlmaLinux release is not a number"))?;
        let (arch, rest) = rest.split_once('-').ok_or_else(|| bad("it lacks the k3s version"))?;
        if arch.is_empty() || !arch.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Err(bad("the architecture is not lower-case letters and digits"));
        }
        if rest.contains("k3s") {
            return Err(bad("the version stands in it without `+k3sN`"));
        }
        let (version, iteration) = rest
            .rsplit_once("-v")
            .ok_or_else(|| bad("it lacks the iteration `-v1` at its end"))?;
        let kubernetes = version
            .parse()
            .map_err(|_| bad("the k3s version is not of the form v1.29.0"))?;
        let iteration = number(iteration).ok_or_else(|| bad("the iteration is not a number from 1"))?;
        Ok(Self {
            alma,
            arch: arch.to_owned(),
            kubernetes,
            iteration,
        })
    }
}

/// A number from 1 in its only spelling.
fn number(text: &str) -> Option<u32> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl TryFrom<String> for ImageName {
    type Error = ImageNameError;
    fn try_from(text: String) -> Result<Self, ImageNameError> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> ImageName {
        text.parse().expect(text)
    }

    #[test]
    fn names_are_read_and_printed() {
        for text in [
            "alma9-k3-node-amd64-v1.28.5-v1",
            "alma9-k3-node-amd64-v1.29.0-v1",
            "alma10-k3-node-arm64-v1.31.3-rc1-v12",
        ] {
            assert_eq!(name(text).to_string(), text);
        }
        let parts = name("alma9-k3-node-amd64-v1.29.0-v3");
        assert_eq!((parts.alma(), parts.arch(), parts.iteration()), (9, "amd64", 3));
        assert!(parts.agrees_with(&"v1.29.0+k3s2".parse().unwrap()));
        assert!(!parts.agrees_with(&"v1.29.1+k3s1".parse().unwrap()));
    }

    #[test]
    fn wrong_names_say_what_is_wrong() {
        for (text, reason) in [
            ("rocky9-k3-node-amd64-v1.29.0-v1", "begin with"),
            ("alma9-k3s-node-amd64-v1.29.0-v1", "-k3-node-"),
            ("alma-k3-node-amd64-v1.29.0-v1", "AlmaLinux release"),
            ("alma9.3-k3-node-amd64-v1.29.0-v1", "AlmaLinux release"),
            ("alma9-k3-node-amd64", "lacks the k3s version"),
            ("alma9-k3-node-AMD64-v1.29.0-v1", "architecture"),
            ("alma9-k3-node-amd64-v1.29.0+k3s1-v1", "without `+k3sN`"),
            ("alma9-k3-node-amd64-v1.29.0", "lacks the iteration"),
            ("alma9-k3-node-amd64-v1.29-v1", "not of the form"),
            ("alma9-k3-node-amd64-1.29.0-v1", "not of the form"),
            ("alma9-k3-node-amd64-v1.29.0-1", "lacks the iteration"),
            ("alma9-k3-node-amd64-v1.29.0-v0", "iteration"),
            ("alma9-k3-node-amd64-v1.29.0-v01", "iteration"),
            ("", "begin with"),
        ] {
            let error = text.parse::<ImageName>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn order_is_numeric() {
        let sorted = [
            "alma9-k3-node-amd64-v1.9.0-v1",
            "alma9-k3-node-amd64-v1.29.0-v2",
            "alma9-k3-node-amd64-v1.29.0-v10",
            "alma9-k3-node-amd64-v1.29.10-v1",
            "alma10-k3-node-amd64-v1.28.0-v1",
        ];
        let mut names: Vec<ImageName> = sorted.iter().rev().map(|text| name(text)).collect();
        names.sort();
        assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), sorted);
    }

    #[test]
    fn the_next_free_iteration() {
        let first = name("alma9-k3-node-amd64-v1.29.0-v1");
        for (existing, want) in [
            (vec![], 1),
            (vec!["alma9-k3-node-amd64-v1.29.0-v1"], 2),
            (
                vec!["alma9-k3-node-amd64-v1.29.0-v9", "alma9-k3-node-amd64-v1.29.0-v10"],
                11,
            ),
            (
                vec![
                    "alma9-k3-node-amd64-v1.29.1-v7",
                    "alma9-k3-node-arm64-v1.29.0-v7",
                    "VM 200",
                ],
                1,
            ),
        ] {
            assert_eq!(
                first.next_free(existing.iter().copied()).iteration(),
                want,
                "{existing:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "alma[0-9]{1,2}-k3-node-[a-z0-9]{1,5}-v[0-9]\\.[0-9]{1,2}\\.[0-9]{1,2}(-rc[0-9])?-v[0-9]{1,3}") {
            if let Ok(name) = text.parse::<ImageName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn the_next_is_higher_and_free(taken in proptest::collection::vec(1_u32..50, 0..8)) {
            let first = name("alma9-k3-node-amd64-v1.29.0-v1");
            let existing: Vec<String> = taken.iter().map(|i| ImageName { iteration: *i, ..first.clone() }.to_string()).collect();
            let next = first.next_free(existing.iter().map(String::as_str));
            prop_assert!(taken.iter().all(|i| *i < next.iteration()));
        }
    }
}
