//! What people and programs see: where lines go, colours, the view of a running build, errors.

mod build_view;
mod console;
mod figures;
mod palette;
mod problem;
mod screen;

pub(crate) use build_view::{BuildView, TICK};
pub(crate) use console::{ColorChoice, Console, Settings};
pub(crate) use figures::{bytes, duration};
pub(crate) use palette::Palette;
pub(crate) use problem::Problem;
