//! Kickstart: the model and its text, a reader for the facts that checks need, and the build's own block. No I/O.

mod block;
mod check;
mod facts;
pub(crate) mod guard;
mod model;
mod quote;
mod render;
mod text;

pub use block::{BuildBlock, HostKey};
pub use check::{KickstartNeeds, check};
pub use facts::{Command, Fact, Facts, Finish, PackageList, RootPassword, Section, UserFact, facts};
pub use model::{InstallSource, Kickstart, Network, PostScript, Repo, User};
pub use quote::KickstartError;
pub(crate) use quote::word as quote_word;
pub use text::KickstartText;
