//! `words!`: an enum of fixed words with `FromStr`, `Display` and serde by the same text.

/// Defines an enum whose variants are words that people write.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every word that stands for a value.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::UnknownWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::words::UnknownWord::new(text, $what, Self::WORDS)),
                }
            }
        }
    };
}

/// A word that is none of the fixed ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: write {}", one_of(known))]
pub struct UnknownWord {
    text: String,
    what: &'static str,
    known: &'static [&'static str],
}

impl UnknownWord {
    pub(crate) fn new(text: &str, what: &'static str, known: &'static [&'static str]) -> Self {
        Self {
            text: text.to_owned(),
            what,
            known,
        }
    }

    /// The words that would do.
    pub fn known(&self) -> &'static [&'static str] {
        self.known
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}
