//! A template folder with the variables that stand above its own.

use std::fmt;
use std::path::PathBuf;

use image_build::{Inputs, Loaded, TemplateFolder};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyList, PyMapping, PyTuple};

use crate::access::Access;
use crate::errors::Failure;

/// The folder and its inputs, as given.
pub(crate) struct FolderInputs {
    folder: PathBuf,
    inputs: Inputs,
}

impl fmt::Debug for FolderInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderInputs")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// The environment, then files, then single values, so that the nearer to the call the stronger.
pub(crate) fn inputs(variables: Option<&Bound<'_, PyMapping>>, var_files: &[PathBuf]) -> PyResult<Inputs> {
    let mut inputs = var_files.iter().fold(Inputs::from_env(), Inputs::var_file);
    if let Some(variables) = variables {
        for item in variables.items()? {
            let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
            if !value.is_none() {
                inputs = inputs.var(&name, variable_text(&name, &value)?);
            }
        }
    }
    Ok(inputs)
}

impl FolderInputs {
    /// The folder with its variables.
    pub(crate) fn read(
        folder: PathBuf,
        variables: Option<&Bound<'_, PyMapping>>,
        var_files: Vec<PathBuf>,
    ) -> PyResult<Self> {
        let inputs = inputs(variables, &var_files)?;
        Ok(Self { folder, inputs })
    }

    /// With the keyword arguments of a connection as the strongest variables.
    pub(crate) fn with_access(mut self, access: Access) -> Self {
        for (name, value) in access.variables() {
            self.inputs = self.inputs.var(name, value);
        }
        self
    }

    /// Reads the folder.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        Ok(TemplateFolder::load(&self.folder, &self.inputs)?)
    }
}

/// A value as Packer's `-var` spells it: a text is itself, a list or number is HCL.
fn variable_text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let mut items = Vec::new();
        for item in value.try_iter()? {
            let item = item?;
            let text = scalar_text(name, &item)?;
            // In HCL a text in quotes is a template; doubled, the marks stand for themselves.
            let quoted = item.extract::<String>().is_ok().then(|| {
                serde_json::Value::from(text.as_str())
                    .to_string()
                    .replace("${", "$${")
                    .replace("%{", "%%{")
            });
            items.push(quoted.unwrap_or(text));
        }
        return Ok(format!("[{}]", items.join(", ")));
    }
    scalar_text(name, value)
}

fn scalar_text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = value.extract::<String>() {
        return Ok(text);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(flag.is_true().to_string());
    }
    if let Ok(number) = value.extract::<i64>() {
        return Ok(number.to_string());
    }
    if let Ok(number) = value.extract::<f64>() {
        return Ok(number.to_string());
    }
    if let Ok(path) = value.extract::<PathBuf>() {
        return Ok(path.display().to_string());
    }
    let kind = value.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "variable {name} is a {kind}; give str, int, float, bool or a list of them"
    )))
}
