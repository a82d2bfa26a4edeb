//! What a storage may hold.

use serde::{Deserialize, Serialize};

/// A content type of a storage; words that this crate does not know are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Content {
    /// Installer images: `iso`.
    Iso,
    /// Disks of VMs: `images`.
    Images,
    /// Container templates: `vztmpl`.
    Vztmpl,
    /// Disk images and appliances to import: `import`.
    Import,
    /// Backups: `backup`.
    Backup,
    /// Container volumes: `rootdir`.
    Rootdir,
    /// Snippets such as cloud-init files: `snippets`.
    Snippets,
    /// A word that PVE used and this crate does not know.
    Other(String),
}

impl Content {
    /// The word that PVE uses.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Iso => "iso",
            Self::Images => "images",
            Self::Vztmpl => "vztmpl",
            Self::Import => "import",
            Self::Backup => "backup",
            Self::Rootdir => "rootdir",
            Self::Snippets => "snippets",
            Self::Other(word) => word,
        }
    }

    /// Reads a comma-separated list; the order of PVE's lists means nothing (`FACTS` 81), so it is sorted here.
    pub(crate) fn list(text: &str) -> Vec<Self> {
        let mut list: Vec<Self> = text
            .split(',')
            .filter(|word| !word.is_empty())
            .map(Self::from)
            .collect();
        list.sort();
        list
    }
}

impl From<&str> for Content {
    fn from(word: &str) -> Self {
        match word {
            "iso" => Self::Iso,
            "images" => Self::Images,
            "vztmpl" => Self::Vztmpl,
            "import" => Self::Import,
            "backup" => Self::Backup,
            "rootdir" => Self::Rootdir,
            "snippets" => Self::Snippets,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl From<String> for Content {
    fn from(word: String) -> Self {
        Self::from(word.as_str())
    }
}

impl From<Content> for String {
    fn from(content: Content) -> String {
        content.as_str().to_owned()
    }
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_are_kept_and_lists_sorted() {
        let list = Content::list("rootdir,images,iso,fancy");
        assert_eq!(
            list,
            [
                Content::Iso,
                Content::Images,
                Content::Rootdir,
                Content::Other("fancy".into())
            ]
        );
        for content in list {
            assert_eq!(Content::from(content.as_str()), content);
        }
        assert!(Content::list("").is_empty());
    }
}
