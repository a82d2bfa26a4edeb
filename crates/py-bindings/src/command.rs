//! The command of the same name, which the wheel carries.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command `k3simage`; the first argument is its own name. Returns the exit code.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> i32 {
    py.detach(|| k3simage_cli::run(arguments))
}
