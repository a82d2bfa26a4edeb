//! `Event`: what a build tells while it runs, as a frozen object.

use image_build::build::Event as BuildEvent;
use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyTzInfo};
use serde_json::Value;

use crate::errors::invalid_input;
use crate::json::Json;
use crate::runtime::Notice;

/// One event of a build.
///
/// `kind` says what happened; the attributes that belong to another kind are None. The kinds are build_started,
/// step_started, progress, log, step_finished, warning, cleanup and build_finished; a verification begins with
/// verify_started and ends with verify_finished. A later version may add more.
#[pyclass(frozen, module = "k3simage")]
#[derive(Debug)]
pub(crate) struct Event {
    fields: Value,
    seconds_since_epoch: f64,
}

impl Event {
    fn text(&self, name: &str) -> Option<&str> {
        self.fields[name].as_str()
    }
}

#[pymethods]
impl Event {
    /// What happened: `step_started`, `log`, ...
    #[getter]
    fn kind(&self) -> Option<&str> {
        self.text("event")
    }

    /// Version of the event format.
    #[getter]
    fn version(&self) -> Option<u64> {
        self.fields["version"].as_u64()
    }

    /// When it happened, in UTC.
    #[getter]
    fn time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDateTime>> {
        PyDateTime::from_timestamp(py, self.seconds_since_epoch, Some(&*PyTzInfo::utc(py)?))
    }

    /// Short id of the build.
    #[getter]
    fn build(&self) -> Option<&str> {
        self.text("build")
    }

    /// The step that it belongs to.
    #[getter]
    fn step(&self) -> Option<&str> {
        self.text("step")
    }

    /// build_started: the names of all steps to come.
    #[getter]
    fn steps(&self) -> Option<Vec<&str>> {
        self.fields["steps"]
            .as_array()
            .map(|steps| steps.iter().filter_map(Value::as_str).collect())
    }

    /// build_started: the image's name, as far as it is known.
    #[getter]
    fn image(&self) -> Option<&str> {
        self.text("image")
    }

    /// build_started: the node that it is built on.
    #[getter]
    fn node(&self) -> Option<&str> {
        self.text("node")
    }

    /// progress: how much is done, in `unit`.
    #[getter]
    fn done(&self) -> Option<u64> {
        self.fields["done"].as_u64()
    }

    /// progress: how much there is to do in all, where that is known.
    #[getter]
    fn total(&self) -> Option<u64> {
        self.fields["total"].as_u64()
    }

    /// progress: what is counted: bytes, items or seconds.
    #[getter]
    fn unit(&self) -> Option<&str> {
        self.text("unit")
    }

    /// log: what printed the line.
    #[getter]
    fn source(&self) -> Option<&str> {
        self.text("source")
    }

    /// log: stdout or stderr.
    #[getter]
    fn stream(&self) -> Option<&str> {
        self.text("stream")
    }

    /// step_finished, cleanup, build_finished: whether it went well.
    #[getter]
    fn ok(&self) -> Option<bool> {
        self.fields["ok"].as_bool()
    }

    /// step_finished, build_finished: how long it took.
    #[getter]
    fn seconds(&self) -> Option<f64> {
        self.fields["seconds"].as_f64()
    }

    /// What there is to read: a log's line, a step's summary, a warning, what was cleaned up, the error of a build.
    #[getter]
    fn message(&self) -> Option<&str> {
        ["line", "summary", "message", "note", "error"]
            .into_iter()
            .find_map(|name| self.text(name))
    }

    /// All fields, as the command prints them with `--json`.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Json(self.fields.clone()).into_pyobject(py)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<Self>()
            .is_ok_and(|other| other.get().fields == self.fields)
    }

    fn __hash__(&self) -> u64 {
        // Events of one build differ in time almost always; equal ones have equal bits.
        self.seconds_since_epoch.to_bits()
    }

    fn __str__(&self) -> String {
        let words = [self.kind(), self.step(), self.source(), self.message()];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn __repr__(&self) -> String {
        format!("<k3simage.Event {self_}>", self_ = self.__str__())
    }
}

impl TryFrom<&BuildEvent> for Event {
    type Error = serde_json::Error;

    fn try_from(event: &BuildEvent) -> Result<Self, serde_json::Error> {
        Ok(Self {
            fields: serde_json::to_value(event)?,
            seconds_since_epoch: seconds_since_epoch(event.time),
        })
    }
}

/// A time as Python's `datetime` reads it.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds since 1970 fit into 53 bits until the year 2255"
)]
pub(crate) fn seconds_since_epoch(time: jiff::Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}

impl Notice for BuildEvent {
    fn deliver(self, py: Python<'_>, callback: &Py<PyAny>) -> PyResult<()> {
        let event = Event::try_from(&self).map_err(|cause| invalid_input(&format!("internal error: {cause}")))?;
        callback.call1(py, (event,)).map(drop)
    }
}
