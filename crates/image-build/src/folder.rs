//! `TemplateFolder`: a folder of variables, kickstart and scripts becomes an `ImageSpec` and a `Connection`.

mod files;
mod iso;
mod spec;
mod template;
mod uploads;

use std::path::{Path, PathBuf};

use crate::connection::{Connection, ConnectionInput, ConnectionOutcome};
use crate::diagnostic::Diagnostics;
use crate::error::Error;
use crate::spec::ImageSpec;
use crate::variables::{Inputs, Reader, Values, merge};

/// A template folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFolder {
    dir: PathBuf,
}

/// What a template folder says.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// What to build.
    pub spec: ImageSpec,
    /// What is odd, but no reason to stop.
    pub warnings: Diagnostics,
    connection: Option<Connection>,
    missing: Diagnostics,
}

/// What a verification of a template is told by a folder or by variables alone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reach {
    /// The cluster, and as whom.
    pub connection: Connection,
    /// Port of the guests' SSH servers there: the variable `ssh_port`.
    pub ssh_port: u16,
}

impl Loaded {
    /// Where to build it, and as whom.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming each variable that is not set: a folder is complete without its secrets, which are
    /// needed only when a cluster is spoken to.
    pub fn connection(&self) -> Result<&Connection, Error> {
        self.connection
            .as_ref()
            .ok_or_else(|| Error::Invalid(self.missing.clone()))
    }

    /// What the connection lacks; empty when it is complete.
    pub fn missing(&self) -> &Diagnostics {
        &self.missing
    }

    /// Builds elsewhere than the folder says.
    pub fn set_connection(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.missing = Diagnostics::new();
    }
}

impl TemplateFolder {
    /// A folder; nothing is read yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Reads the folder and checks everything that can be checked without a network.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all that is wrong, each with file, line and what to write instead; [`Error::Io`] when
    /// the folder or a file of it cannot be read.
    pub fn load(dir: impl AsRef<Path>, inputs: &Inputs) -> Result<Loaded, Error> {
        Self::new(dir.as_ref()).read(inputs)
    }

    /// See [`load`](Self::load).
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn read(&self, inputs: &Inputs) -> Result<Loaded, Error> {
        let mut found = Diagnostics::new();
        let values = merge(&self.dir, inputs, &mut found)?;
        let mut reader = Reader::new(&values);
        let (connection, missing) = connection(&mut reader);
        let spec = spec::read(&self.dir, &values, &mut reader)?;
        found.append(reader.found);
        let (errors, warnings) = found.split();
        match spec {
            Some(spec) if errors.is_empty() => Ok(Loaded {
                spec,
                warnings,
                connection,
                missing,
            }),
            // Warnings often tell the cause of an error, as a misspelt name does.
            _ => Err(Error::Invalid(errors.into_iter().chain(warnings).collect())),
        }
    }

    /// The connection alone, for commands that build nothing: the folder's image may be wrong or incomplete.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a variable of the connection is wrong or missing, or a file is no HCL.
    pub fn connection(&self, inputs: &Inputs) -> Result<Connection, Error> {
        let mut found = Diagnostics::new();
        let values = merge(&self.dir, inputs, &mut found)?;
        connection_of(&values, found)
    }

    /// The connection and how guests are reached there, for a verification: the folder's image may be wrong or incomplete.
    ///
    /// # Errors
    /// As [`connection`](Self::connection), and when `ssh_port` is no port.
    pub fn reach(&self, inputs: &Inputs) -> Result<Reach, Error> {
        let mut found = Diagnostics::new();
        let values = merge(&self.dir, inputs, &mut found)?;
        reach_of(&values, found)
    }

    /// The same from the environment and `-var` alone, without a folder.
    ///
    /// # Errors
    /// As [`reach`](Self::reach).
    pub fn reach_without_folder(inputs: &Inputs) -> Result<Reach, Error> {
        let mut found = Diagnostics::new();
        let values = crate::variables::merge_without_folder(inputs, &mut found)?;
        reach_of(&values, found)
    }

    /// A connection from the environment and `-var` alone, without a folder.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a variable of the connection is wrong or missing.
    pub fn connection_without_folder(inputs: &Inputs) -> Result<Connection, Error> {
        let mut found = Diagnostics::new();
        let values = crate::variables::merge_without_folder(inputs, &mut found)?;
        connection_of(&values, found)
    }
}

fn connection_of(values: &Values, found: Diagnostics) -> Result<Connection, Error> {
    read_connection(Reader::new(values), found)
}

fn reach_of(values: &Values, found: Diagnostics) -> Result<Reach, Error> {
    let mut reader = Reader::new(values);
    let ssh_port = reader.number("ssh_port");
    let connection = read_connection(reader, found)?;
    let ssh_port = ssh_port.ok_or(Error::Missing {
        what: "the variable ssh_port",
    })?;
    Ok(Reach { connection, ssh_port })
}

/// The connection, if nothing that was read before it or for it is wrong.
fn read_connection(mut reader: Reader<'_>, mut found: Diagnostics) -> Result<Connection, Error> {
    let (connection, missing) = connection(&mut reader);
    found.append(reader.found);
    found.append(missing);
    let (errors, _) = found.split();
    match connection {
        Some(connection) if errors.is_empty() => Ok(connection),
        _ => Err(Error::Invalid(errors)),
    }
}

fn connection(reader: &mut Reader<'_>) -> (Option<Connection>, Diagnostics) {
    let text = |name: &str| reader.text(name).unwrap_or_default().to_owned();
    let input = ConnectionInput {
        url: text("proxmox_url"),
        username: text("proxmox_username"),
        token: reader.secret("proxmox_token"),
        password: reader.secret("proxmox_password"),
        ca_file: text("proxmox_ca_file"),
        fingerprint: text("proxmox_fingerprint"),
        skip_tls_verify: reader.flag("proxmox_skip_tls_verify"),
    };
    let ConnectionOutcome {
        connection,
        found,
        missing,
    } = input.read();
    reader.take(found);
    (connection, missing)
}

#[cfg(test)]
mod tests;
