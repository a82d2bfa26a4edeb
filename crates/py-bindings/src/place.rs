//! Where a call goes that describes no image: to a client's cluster, or to the one that a folder, variables and keyword arguments name.

use std::fmt;
use std::path::PathBuf;

use image_build::{Inputs, TemplateFolder};
use proxmox_client::Client as Pve;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};

use crate::access::Access;
use crate::client::Client;
use crate::errors::{Failure, invalid_input, worker_died};
use crate::folder::inputs;

/// The cluster of a call, before anything is read or sent.
pub(crate) enum Place {
    /// A client that was made before.
    Client(Pve),
    /// What is to be read.
    Named { folder: Option<PathBuf>, inputs: Inputs },
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => f.debug_tuple("Client").field(client).finish(),
            // The inputs hold secrets.
            Self::Named { folder, inputs: _ } => {
                f.debug_struct("Named").field("folder", folder).finish_non_exhaustive()
            }
        }
    }
}

impl Place {
    /// Reads the arguments; `keywords` holds those of the connection and nothing else. `call` is the name of the function.
    pub(crate) fn read(
        py: Python<'_>,
        call: &str,
        folder: Option<PathBuf>,
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
        if let Some(name) = fields.keys().iter().next() {
            return Err(invalid_input(&format!("{call}() has no argument {name}")));
        }
        let Some(client) = client else {
            let inputs = access
                .variables()
                .into_iter()
                .fold(inputs(variables, &var_files)?, |inputs, (name, value)| {
                    inputs.var(name, value)
                });
            return Ok(Self::Named { folder, inputs });
        };
        if !access.is_empty() || folder.is_some() || variables.is_some() || !var_files.is_empty() {
            return Err(invalid_input(
                "client already says where and as whom: leave out folder, variables, url, token and the like",
            ));
        }
        Ok(Self::Client(client.get().pve().clone()))
    }

    /// A client for it. Files are read where neither the GIL nor the event loop waits for it; nothing is sent.
    pub(crate) async fn connected(self) -> Result<Pve, Failure> {
        let (folder, inputs) = match self {
            Self::Client(client) => return Ok(client),
            Self::Named { folder, inputs } => (folder, inputs),
        };
        let connect = move || -> Result<Pve, Failure> {
            let connection = match folder {
                Some(folder) => TemplateFolder::new(folder).connection(&inputs)?,
                None => TemplateFolder::connection_without_folder(&inputs)?,
            };
            Ok(connection.client()?)
        };
        match tokio::task::spawn_blocking(connect).await {
            Ok(client) => client,
            Err(end) => Err(worker_died(end)),
        }
    }
}
