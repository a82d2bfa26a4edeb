//! `Seconds`: a duration as Python gives it.

use std::time::Duration;

use pyo3::prelude::*;

use crate::errors::invalid_input;

/// Seconds, or a `timedelta`.
#[derive(Clone, Copy, Debug, FromPyObject)]
pub(crate) enum Seconds {
    Delta(Duration),
    Number(f64),
}

impl Seconds {
    /// The duration of the argument `name`.
    pub(crate) fn duration(self, name: &str) -> PyResult<Duration> {
        match self {
            Self::Delta(duration) => Ok(duration),
            Self::Number(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| {
                invalid_input(&format!(
                    "{name} {seconds} is no duration: give seconds from 0 on, or a timedelta"
                ))
            }),
        }
    }
}
