//! What the tests that replay recordings share.

mod client;
mod compare;
mod guest;
mod replay;

pub(crate) use replay::{Outcome, replay, scenario_files};
