//! Builds golden AlmaLinux 9 images with k3s inside, as templates on Proxmox VE.
//!
//! An [`ImageSpec`] says what to build, a [`Connection`] where; both come from a [`TemplateFolder`], or from Rust:
//!
//! ```no_run
//! use image_build::{Connection, Credentials, ImageSpec, TlsTrust};
//!
//! # async fn example(secret: secrecy::SecretString) -> Result<(), Box<dyn std::error::Error>> {
//! let image = ImageSpec::builder().k3s_version("v1.31.3+k3s1".parse()?).node("pve").build()?;
//! let credentials = Credentials::Token { id: "packer@pve!packer-token".to_owned(), secret };
//! let trust = TlsTrust::CaFile("pve-root-ca.pem".into());
//! let pve = Connection::new("https://10.23.45.10:8006".parse()?, credentials, trust).client()?;
//! let artifact = image_build::build(&pve, image).await?;
//! println!("{} is template {} on {}", artifact.name, artifact.vmid, artifact.node);
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//! - [`variables`] and [`TemplateFolder`]: declarations, variable files, `PKR_VAR_*` and `-var`, merged in Packer's order
//! - [`spec`] and [`preset`]: what to build, and the k3s image as one value of it
//! - [`kickstart`], [`media`], [`BootCommand`]: what drives the installer, and how it travels
//! - [`communicator`], [`provision`]: the way into the guest, and what is done there
//! - [`mod@plan`]: what is checked on the cluster before anything is created
//! - [`mod@build`]: the steps, each with its undo; events; the manifest
//! - [`mod@verify`]: two clones of a template, booted and compared
//! - [`panics`]: what may be told of one
//! - [`assets`]: the scripts and the template folder that the library carries
//!
//! What is wrong with the input is an [`Error::Invalid`] with all [`Diagnostics`], each with its place and what to write
//! instead. The library never prints; secrets are in no error, event or `Debug`.

#[macro_use]
mod words;

pub mod assets;
mod boot_command;
pub mod build;
mod checksum_list;
pub mod communicator;
mod confined;
mod connection;
mod console;
mod diagnostic;
mod duration;
mod error;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gc;
mod journal;
mod k3s_version;
pub mod kickstart;
pub mod media;
mod name;
pub mod panics;
pub mod plan;
pub mod preset;
pub mod provision;
mod replace;
pub mod spec;
mod text;
pub mod variables;
pub mod verify;
mod whole_file;

pub use boot_command::{BootAction, BootCommand, BootCommandError, BootValues, BootVariable, Key};
pub use build::{Artifact, Build, Event, EventKind, build, resume};
pub use connection::{Connection, ConnectionInput, ConnectionOutcome, Credentials, TlsTrust};
pub use console::{
    clean::ConsoleLines,
    picture::{png_of, save_screen},
};
pub use diagnostic::{Diagnostic, Diagnostics, Location, Severity, nearest};
pub use error::Error;
pub use folder::{Loaded, Reach, TemplateFolder};
pub use k3s_version::{K3sVersion, K3sVersionError, KubernetesVersion};
pub use kickstart::Kickstart;
pub use name::{ImageName, ImageNameError};
pub use plan::{PlanReport, plan};
pub use replace::{OldTemplate, RETIRED_TAG, Replace};
pub use spec::{ImageSpec, ImageSpecBuilder};
pub use variables::Inputs;
pub use verify::{Verify, VerifyReport, VerifySpec, verify};
pub use words::UnknownWord;
