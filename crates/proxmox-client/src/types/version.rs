//! The version of a PVE server.

use serde::Deserialize;

use super::lenient;

/// A release number that can be compared: `9.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// The major number: 8 or 9.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

impl Release {
    /// A release from its two numbers.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads `9.2`, `9.2.11` or `8.4-1`; what follows the second number is left out.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(['.', '-', '~']);
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next().unwrap_or("0").parse().ok()?;
        Some(Self { major, minor })
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What `/version` answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Version {
    /// The full version, for example `9.2.11`.
    #[serde(deserialize_with = "lenient::text")]
    pub version: String,
    /// The point release, for example `9.2`.
    #[serde(default, deserialize_with = "lenient::text")]
    pub release: String,
    /// The short hash of the source it was built from.
    #[serde(default)]
    pub repoid: String,
}

impl Version {
    /// The release in a form that compares; `0.0` when the server's text is not a version.
    pub fn number(&self) -> Release {
        Release::parse(&self.version)
            .or_else(|| Release::parse(&self.release))
            .unwrap_or(Release::new(0, 0))
    }

    /// Is the server at least this release?
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.number() >= Release::new(major, minor)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_as_numbers() {
        for (text, want) in [
            ("9.2.11", Some((9, 2))),
            ("8.4", Some((8, 4))),
            ("8.10-1", Some((8, 10))),
            ("9", Some((9, 0))),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(
                Release::parse(text),
                want.map(|(major, minor)| Release::new(major, minor)),
                "{text:?}"
            );
        }
        let version: Version =
            serde_json::from_str(r#"{"release":"9.2","version":"9.2.11","repoid":"14a22df3"}"#).expect("recorded");
        assert!(version.at_least(9, 2) && version.at_least(8, 4) && !version.at_least(9, 10));
    }
}
