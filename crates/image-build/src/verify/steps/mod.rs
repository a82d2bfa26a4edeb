//! The steps of a verification, one file each.

mod boot;
mod clean_up;
mod clone;
mod compare;
mod first;
mod join;
mod preflight;

use super::context::Context;
use crate::build::Step;

/// All steps in their order.
pub(super) fn all() -> Vec<Box<dyn Step<Context>>> {
    vec![
        Box::new(preflight::Preflight),
        Box::new(clone::CloneTwice),
        Box::new(first::First),
        Box::new(join::Join),
        Box::new(compare::Compare),
        Box::new(clean_up::CleanUp),
    ]
}
