//! What `build` and `plan` are asked: a folder, a spec or keyword arguments, and a cluster.

use std::path::PathBuf;

use image_build::ImageSpec as Spec;
use proxmox_client::Client as Pve;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};

use crate::access::Access;
use crate::client::Client;
use crate::errors::{Failure, invalid_input};
use crate::folder::FolderInputs;
use crate::spec::{ImageSpec, from_keywords};

/// Where the description of the image comes from.
#[derive(Debug)]
enum Source {
    Folder(FolderInputs),
    Spec(Box<Spec>),
}

/// A checked call of `build` or `plan`, before anything is read or sent.
#[derive(Debug)]
pub(crate) struct Request {
    source: Source,
    client: Option<Pve>,
    access: Access,
}

impl Request {
    /// Reads the arguments. `keywords` holds those of the connection and of the image.
    pub(crate) fn read(
        py: Python<'_>,
        folder: Option<PathBuf>,
        spec: Option<&Py<ImageSpec>>,
        variables: Option<&Bound<'_, PyMapping>>,
        var_files: Vec<PathBuf>,
        client: Option<&Py<Client>>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let fields = match keywords {
            Some(keywords) => keywords.copy()?,
            None => PyDict::new(py),
        };
        let access = Access::take(&fields)?;
        let client = client.map(|client| client.get().pve().clone());
        if client.is_some() && !access.is_empty() {
            return Err(invalid_input(
                "client already says where and as whom: leave out url, token and the like",
            ));
        }
        let has_variables = !variables.map_or(Ok(true), PyMappingMethods::is_empty)? || !var_files.is_empty();
        let source = match (folder, spec) {
            (Some(_), Some(_)) => return Err(invalid_input("both a folder and a spec: give one of them")),
            (Some(folder), None) => {
                refuse_fields(
                    &fields,
                    "a folder is given: describe the image in its variables, or with variables={...}",
                )?;
                Source::Folder(FolderInputs::read(folder, variables, var_files)?)
            }
            _ if has_variables => {
                return Err(invalid_input(
                    "variables and var_files belong to a folder: give folder=",
                ));
            }
            (None, Some(spec)) => {
                refuse_fields(&fields, "a spec is given: describe the image there")?;
                Source::Spec(Box::new(spec.get().spec().clone()))
            }
            (None, None) => Source::Spec(Box::new(from_keywords(Some(&fields))?)),
        };
        Ok(Self { source, client, access })
    }

    /// The cluster and what to do there. Reads files; sends nothing.
    pub(crate) fn resolve(self) -> PyResult<(Pve, Spec)> {
        let Self { source, client, access } = self;
        match (source, client) {
            (Source::Spec(spec), Some(client)) => Ok((client, *spec)),
            (Source::Spec(spec), None) => Ok((access.client()?, *spec)),
            (Source::Folder(inputs), Some(client)) => Ok((client, inputs.load()?.spec)),
            (Source::Folder(inputs), None) => {
                let loaded = inputs.with_access(access).load()?;
                let client = loaded
                    .connection()
                    .map_err(Failure::from)?
                    .client()
                    .map_err(Failure::from)?;
                Ok((client, loaded.spec))
            }
        }
    }
}

fn refuse_fields(fields: &Bound<'_, PyDict>, reason: &str) -> PyResult<()> {
    match fields.keys().iter().next() {
        None => Ok(()),
        Some(name) => Err(PyTypeError::new_err(format!("'{name}' cannot be used here: {reason}"))),
    }
}
