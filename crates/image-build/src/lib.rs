//! Builds golden AlmaLinux 9 images with k3s as Proxmox VE templates.

#[macro_use]
mod words;

mod boot_command;
mod connection;
mod diagnostic;
mod duration;
mod error;
mod k3s_version;
pub mod kickstart;
pub mod media;
mod name;
pub mod preset;
pub mod spec;

pub use boot_command::{BootAction, BootCommand, BootCommandError, BootValues, BootVariable, Key};
pub use connection::{Connection, Credentials, TlsTrust};
pub use diagnostic::{Diagnostic, Diagnostics, Location, Severity, nearest};
pub use error::Error;
pub use k3s_version::{K3sVersion, K3sVersionError, KubernetesVersion};
pub use kickstart::Kickstart;
pub use name::{ImageName, ImageNameError};
pub use spec::{ImageSpec, ImageSpecBuilder};
pub use words::UnknownWord;
