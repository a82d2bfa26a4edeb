//! The native half of the Python package `k3simage`: classes and functions over the Rust pipeline, and nothing else.
//!
//! Every call that talks to a cluster exists twice over one Rust function: plain, with the GIL released while it waits,
//! and as a coroutine whose name ends in `_async`. `python/k3simage/__init__.py` re-exports the public names.

#![expect(
    clippy::too_many_arguments,
    clippy::needless_pass_by_value,
    reason = "Python's keyword arguments arrive one by one, and by value"
)]

mod access;
mod artifact;
mod client;
mod command;
#[cfg(feature = "emulator")]
mod emulator;
mod errors;
mod event;
mod finding;
mod folder;
mod inventory;
mod json;
mod leftovers;
mod pipeline;
mod place;
mod request;
mod runtime;
mod seconds;
mod spec;
mod verify;

use pyo3::prelude::*;

/// The native module; import `k3simage` instead.
#[pymodule]
mod _k3simage {
    #[pymodule_export]
    use crate::artifact::Artifact;
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::command::run_command;
    #[cfg(feature = "emulator")]
    #[pymodule_export]
    use crate::emulator::Emulator;
    #[pymodule_export]
    use crate::event::Event;
    #[pymodule_export]
    use crate::finding::{Finding, PlanReport};
    #[pymodule_export]
    use crate::inventory::{Node, Version, Vm, Volume};
    #[pymodule_export]
    use crate::leftovers::{Leftover, gc, gc_async, resume, resume_async};
    #[pymodule_export]
    use crate::pipeline::{build, build_async, init, plan, plan_async, validate};
    #[pymodule_export]
    use crate::spec::ImageSpec;
    #[pymodule_export]
    use crate::verify::{Check, VerifyReport, verify, verify_async};

    /// Panics of this module, and of no other, are told without what they may hold.
    #[pymodule_init]
    #[allow(clippy::unnecessary_wraps, reason = "pyo3 asks for an initialiser that may fail")]
    fn hide_panics(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        image_build::panics::hide_texts();
        Ok(())
    }
}
