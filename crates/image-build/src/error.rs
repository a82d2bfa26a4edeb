//! The crate's error: each variant says what was attempted, on what, why it failed and what to do.

use std::path::PathBuf;

use thiserror::Error;

use crate::diagnostic::Diagnostics;

/// Why an image could not be described, planned or built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The input is wrong; all that is wrong with it is listed, not only the first. Nothing was created.
    ///
    /// This line names the first; `Display` of [`Diagnostics`] renders them all with their places.
    #[error("invalid input: {}", .0.summary())]
    Invalid(Diagnostics),
    /// A local file or folder could not be used.
    #[error("{attempt} {}", path.display())]
    Io {
        /// What was attempted: `writing`.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// What is wrong with the input, when that is the error.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Self::Invalid(diagnostics) => Some(diagnostics),
            _ => None,
        }
    }
}

impl From<crate::diagnostic::Diagnostic> for Error {
    fn from(diagnostic: crate::diagnostic::Diagnostic) -> Self {
        Self::Invalid(diagnostic.into())
    }
}
