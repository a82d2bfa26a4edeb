//! `RawCall`: any call of the API, its parameters as Python has them.

use proxmox_client::{Client as Pve, Method};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::calls::Answer;
use crate::errors::invalid_input;
use crate::json::{Json, form_text};

/// A raw call, its parameters already as text.
#[derive(Debug)]
pub(super) struct RawCall {
    method: Method,
    path: String,
    params: Vec<(String, String)>,
}

impl RawCall {
    pub(super) fn read(method: &str, path: &str, params: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let method = method
            .to_ascii_uppercase()
            .parse()
            .map_err(|_| invalid_input(&format!("method {method:?} is none: give GET, POST, PUT or DELETE")))?;
        let mut read = Self {
            method,
            path: path.to_owned(),
            params: Vec::new(),
        };
        for (name, value) in params.into_iter().flatten() {
            let name: String = name.extract()?;
            if value.is_none() {
                continue;
            }
            if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
                // PVE reads a repeated key as a list (`FACTS` 27, 48).
                for item in value.try_iter()? {
                    read.params.push((name.clone(), form_text(&name, &item?)?));
                }
            } else {
                read.params.push((name.clone(), form_text(&name, &value)?));
            }
        }
        Ok(read)
    }

    pub(super) async fn send(self, pve: Pve) -> Answer<Json> {
        let params: Vec<(&str, String)> = self
            .params
            .iter()
            .map(|(name, text)| (name.as_str(), text.clone()))
            .collect();
        Ok(Json(pve.request(self.method, &self.path, &params).await?))
    }
}
