//! Where Proxmox VE answers and as whom: the keyword arguments that every call for a cluster takes.

use std::fmt;
use std::path::PathBuf;

use image_build::{Inputs, TemplateFolder};
use proxmox_client::Client;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::Failure;

/// The keyword arguments as given; what is missing is taken from the environment.
#[derive(Default)]
pub(crate) struct Access {
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) insecure: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url,
            token: _,
            username,
            password: _,
            fingerprint,
            ca_file,
            insecure,
        } = self;
        f.debug_struct("Access")
            .field("url", url)
            .field("username", username)
            .field("fingerprint", fingerprint)
            .field("ca_file", ca_file)
            .field("insecure", insecure)
            .finish_non_exhaustive()
    }
}

fn take<'py, T: FromPyObjectOwned<'py>>(keywords: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<T>> {
    match keywords.get_item(name)? {
        None => Ok(None),
        Some(value) => {
            keywords.del_item(name)?;
            if value.is_none() {
                Ok(None)
            } else {
                value.extract().map(Some).map_err(Into::into)
            }
        }
    }
}

impl Access {
    /// Takes the keyword arguments of a connection out of `keywords`; what is None counts as not given.
    pub(crate) fn take(keywords: &Bound<'_, PyDict>) -> PyResult<Self> {
        Ok(Self {
            url: take(keywords, "url")?,
            token: take(keywords, "token")?,
            username: take(keywords, "username")?,
            password: take(keywords, "password")?,
            fingerprint: take(keywords, "fingerprint")?,
            ca_file: take(keywords, "ca_file")?,
            insecure: take(keywords, "insecure")?.unwrap_or(false),
        })
    }

    /// Whether nothing was given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            url,
            token,
            username,
            password,
            fingerprint,
            ca_file,
            insecure,
        } = self;
        let texts = [url, token, username, password, fingerprint];
        texts.into_iter().all(Option::is_none) && ca_file.is_none() && !insecure
    }

    /// What was given, under the names of a template folder's variables.
    pub(crate) fn variables(self) -> Vec<(&'static str, String)> {
        let Self {
            url,
            token,
            username,
            password,
            fingerprint,
            ca_file,
            insecure,
        } = self;
        let (token, username) = match (token, username) {
            // A whole token is two of Packer's variables.
            (Some(token), None) => match token.split_once('=') {
                Some((id, secret)) => (Some(secret.to_owned()), Some(id.to_owned())),
                None => (Some(token), None),
            },
            given => given,
        };
        let ca_file = ca_file.map(|path| path.display().to_string());
        let all = [
            ("proxmox_url", url),
            ("proxmox_username", username),
            ("proxmox_token", token),
            ("proxmox_password", password),
            ("proxmox_fingerprint", fingerprint),
            ("proxmox_ca_file", ca_file),
            ("proxmox_skip_tls_verify", insecure.then(|| String::from("true"))),
        ];
        all.into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
            .collect()
    }

    /// A client for them, completed from the environment. Nothing is sent yet.
    pub(crate) fn client(self) -> PyResult<Client> {
        let inputs = self
            .variables()
            .into_iter()
            .fold(Inputs::from_env(), |inputs, (name, value)| inputs.var(name, value));
        let connection = TemplateFolder::connection_without_folder(&inputs).map_err(Failure::from)?;
        Ok(connection.client().map_err(Failure::from)?)
    }
}
