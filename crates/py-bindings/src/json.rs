//! JSON values as Python objects and back: the shape of replies that have no class of their own.

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList};
use serde_json::Value;

/// A JSON value that turns into `None`, `bool`, `int`, `float`, `str`, `list` or `dict`.
#[derive(Debug)]
pub(crate) struct Json(pub(crate) Value);

impl<'py> IntoPyObject<'py> for Json {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.0 {
            Value::Null => Ok(py.None().into_bound(py)),
            Value::Bool(value) => value.into_bound_py_any(py),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), _, _) => value.into_bound_py_any(py),
                (None, Some(value), _) => value.into_bound_py_any(py),
                (None, None, value) => value.into_bound_py_any(py),
            },
            Value::String(text) => text.into_bound_py_any(py),
            Value::Array(items) => {
                let items = items
                    .into_iter()
                    .map(|item| Self(item).into_pyobject(py))
                    .collect::<PyResult<Vec<_>>>()?;
                Ok(PyList::new(py, items)?.into_any())
            }
            Value::Object(fields) => {
                let dict = PyDict::new(py);
                for (name, value) in fields {
                    dict.set_item(name, Self(value).into_pyobject(py)?)?;
                }
                Ok(dict.into_any())
            }
        }
    }
}

/// The text that Proxmox VE's forms want for a parameter: booleans are `1` and `0` (`FACTS` 25).
pub(crate) fn form_text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(String::from(if flag.is_true() { "1" } else { "0" }));
    }
    if let Ok(number) = value.extract::<i64>() {
        return Ok(number.to_string());
    }
    if let Ok(text) = value.extract::<String>() {
        return Ok(text);
    }
    if let Ok(number) = value.extract::<f64>() {
        return Ok(number.to_string());
    }
    let kind = value.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "parameter {name} is a {kind}; give str, int, float or bool, or a list of them"
    )))
}
