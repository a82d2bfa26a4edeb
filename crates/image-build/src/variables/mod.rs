//! Variables: declarations, variable files, `PKR_VAR_*` and `-var`, merged in Packer's order.

mod evaluate;
mod folder_files;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hcl_file;
mod inputs;
mod json_file;
mod kind;
mod merge;
mod reader;
mod table;

pub use inputs::{Input, Inputs};
pub use table::{VARIABLES, VariableInfo, VariableKind, reference};

pub(crate) use folder_files::{KICKSTART_TEMPLATE, read_text};
pub(crate) use merge::{Values, merge, merge_without_folder};
pub(crate) use reader::Reader;
