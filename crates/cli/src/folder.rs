//! From a template folder and the variables of the command line to a spec and a connection.

use std::path::Path;

use image_build::variables::VARIABLES;
use image_build::{Connection, Diagnostic, Inputs, Loaded, TemplateFolder};
use proxmox_client::Client;
use serde_json::json;

use crate::output::{Console, Problem};
use crate::variable_args::{VariableArg, VariableArgs, secrets_given};

/// Reads and checks a template folder, and shows its warnings.
pub(crate) fn load(dir: &Path, variables: &VariableArgs, console: &Console) -> Result<Loaded, Box<Problem>> {
    let loaded = TemplateFolder::load(dir, &inputs(variables, console)).map_err(|error| Problem::before(&error))?;
    for warning in loaded.warnings.iter() {
        show_warning(console, warning);
    }
    Ok(loaded)
}

/// A client for the cluster that a loaded folder names.
pub(crate) fn client(loaded: &Loaded) -> Result<Client, Box<Problem>> {
    connect(loaded.connection().map_err(|error| Problem::before(&error))?)
}

/// The connection of a template folder, or of the variables and the environment alone.
pub(crate) fn connection(
    dir: Option<&Path>,
    variables: &VariableArgs,
    console: &Console,
) -> Result<Connection, Box<Problem>> {
    let inputs = inputs(variables, console);
    let read = match dir {
        Some(dir) => TemplateFolder::new(dir).connection(&inputs),
        None => TemplateFolder::connection_without_folder(&inputs),
    };
    read.map_err(|error| Problem::before(&error))
}

/// A client for a connection.
pub(crate) fn connect(connection: &Connection) -> Result<Client, Box<Problem>> {
    connection
        .client()
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
