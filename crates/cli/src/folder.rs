//! From a template folder and the variables of the command line to a spec and a connection.

use std::path::Path;

use image_build::variables::VARIABLES;
use image_build::{Connection, Diagnostic, Inputs, Loaded, Reach, TemplateFolder};
use proxmox_client::Client;
use serde_json::json;

use crate::output::{Console, Problem};
use crate::variable_args::{VariableArg, VariableArgs, secrets_given};

/// Reads files where a signal can stop waiting for that: one may be a pipe that nobody writes to, or lie on a mount that is gone. What
/// is dropped goes on by itself and ends with the process.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // It is never aborted.
        Err(end) => std::panic::resume_unwind(end.into_panic()),
    }
}

/// Reads and checks a template folder, and shows its warnings.
pub(crate) async fn load(dir: &Path, variables: &VariableArgs, console: &Console) -> Result<Loaded, Box<Problem>> {
    let (dir, inputs) = (dir.to_owned(), inputs(variables, console));
    let loaded = off_thread(move || TemplateFolder::load(&dir, &inputs)).await;
    let loaded = loaded.map_err(|error| Problem::before(&error))?;
    for warning in loaded.warnings.iter() {
        show_warning(console, warning);
    }
    Ok(loaded)
}

/// A client for the cluster that a loaded folder names.
pub(crate) async fn client(loaded: &Loaded) -> Result<Client, Box<Problem>> {
    connect(loaded.connection().map_err(|error| Problem::before(&error))?).await
}

/// A client for the cluster that a template folder names, or the variables and the environment alone.
pub(crate) async fn connected(
    dir: Option<&Path>,
    variables: &VariableArgs,
    console: &Console,
) -> Result<Client, Box<Problem>> {
    let (folder, inputs) = (dir.map(TemplateFolder::new), inputs(variables, console));
    let read = off_thread(move || match folder {
        Some(folder) => folder.connection(&inputs),
        None => TemplateFolder::connection_without_folder(&inputs),
    });
    connect(&read.await.map_err(|error| Problem::before(&error))?).await
}

/// A client for the cluster that a template folder names, or the variables and the environment alone, and the port of its guests' SSH.
pub(crate) async fn reached(
    dir: Option<&Path>,
    variables: &VariableArgs,
    console: &Console,
) -> Result<(Client, u16), Box<Problem>> {
    let (folder, inputs) = (dir.map(TemplateFolder::new), inputs(variables, console));
    let read = off_thread(move || match folder {
        Some(folder) => folder.reach(&inputs),
        None => TemplateFolder::reach_without_folder(&inputs),
    });
    let Reach {
        connection, ssh_port, ..
    } = read.await.map_err(|error| Problem::before(&error))?;
    Ok((connect(&connection).await?, ssh_port))
}

/// A client for a connection, whose authorities are read from a file.
pub(crate) async fn connect(connection: &Connection) -> Result<Client, Box<Problem>> {
    let connection = connection.clone();
    off_thread(move || connection.client())
        .await
        .map_err(|error| Problem::of_client("setting up the connection", &error))
}

/// The variables of the command line and the environment, in Packer's order.
fn inputs(variables: &VariableArgs, console: &Console) -> Inputs {
    for name in secrets_given(variables, is_secret) {
        warn(
            console,
            &format!(
                "{name} was given with -var: process lists and the shell's history show it; set PKR_VAR_{name} instead"
            ),
        );
    }
    variables
        .0
        .iter()
        .fold(Inputs::from_env(), |inputs, variable| match variable {
            VariableArg::Value { name, value } => inputs.var(name, value),
            VariableArg::File(path) => inputs.var_file(path),
        })
}

/// Whether a variable holds a secret, by the library's own table.
fn is_secret(name: &str) -> bool {
    VARIABLES
        .iter()
        .any(|variable| variable.name == name && variable.sensitive)
}

fn show_warning(console: &Console, warning: &Diagnostic) {
    console.object(&json!({ "event": "warning", "message": warning.headline(), "diagnostic": warning }));
    console.error_line(warning);
}

fn warn(console: &Console, message: &str) {
    console.object(&json!({ "event": "warning", "message": message }));
    console.error_line(format_args!("{} {message}", console.err().warning("warning:")));
}
