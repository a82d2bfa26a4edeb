//! What the tests that replay recordings share.

mod client;
mod compare;
mod replay;

pub use replay::{Outcome, replay, scenario_files};
