//! What a guest's console says: its lines without control sequences, what they mean for a build, its screen as a file. Pure.

pub(crate) mod clean;
pub(crate) mod mask;
pub(crate) mod picture;
pub(crate) mod signs;
