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

    /// A client for it. Nothing is sent.
    pub(crate) async fn connected(self) -> Result<Pve, Failure> {
        let (folder, inputs) = match self {
            Self::Client(client) => return Ok(client),
            Self::Named { folder, inputs } => (folder, inputs),
        };
        off_thread(move || {
            let connection = match folder {
                Some(folder) => TemplateFolder::new(folder).connection(&inputs)?,
                None => TemplateFolder::connection_without_folder(&inputs)?,
            };
            Ok(connection.client()?)
        })
        .await
    }

    /// A client for it, and the port of its guests' SSH if variables tell that. Nothing is sent.
    pub(crate) async fn reached(self) -> Result<(Pve, Option<u16>), Failure> {
        let (folder, inputs) = match self {
            Self::Client(client) => return Ok((client, None)),
            Self::Named { folder, inputs } => (folder, inputs),
        };
        off_thread(move || {
            let reach = match folder {
                Some(folder) => TemplateFolder::new(folder).reach(&inputs)?,
                None => TemplateFolder::reach_without_folder(&inputs)?,
            };
            Ok((reach.connection.client()?, Some(reach.ssh_port)))
        })
        .await
    }
}

/// Reads files where neither the GIL nor the event loop waits for it.
async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read,
        Err(end) => Err(worker_died(end)),
    }
}
