//! Builds golden AlmaLinux 9 images with k3s as Proxmox VE templates.

#[macro_use]
mod words;

pub mod assets;
mod boot_command;
pub mod build;
pub mod communicator;
mod connection;
mod diagnostic;
mod duration;
mod error;
mod folder;
mod k3s_version;
pub mod kickstart;
pub mod media;
mod name;
pub mod plan;
pub mod preset;
pub mod provision;
pub mod spec;
mod text;
pub mod variables;

pub use boot_command::{BootAction, BootCommand, BootCommandError, BootValues, BootVariable, Key};
pub use build::{Artifact, Build, Event, EventKind, build};
pub use connection::{Connection, ConnectionInput, ConnectionOutcome, Credentials, TlsTrust};
pub use diagnostic::{Diagnostic, Diagnostics, Location, Severity, nearest};
pub use error::Error;
pub use folder::{Loaded, TemplateFolder};
pub use k3s_version::{K3sVersion, K3sVersionError, KubernetesVersion};
pub use kickstart::Kickstart;
pub use name::{ImageName, ImageNameError};
pub use plan::{PlanReport, plan};
pub use spec::{ImageSpec, ImageSpecBuilder};
pub use variables::Inputs;
pub use words::UnknownWord;
