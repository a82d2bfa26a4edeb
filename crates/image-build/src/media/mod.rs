//! How the kickstart travels to the installer.

mod fixed_times;
mod oemdrv;

pub use oemdrv::{OEMDRV_LABEL, OemdrvError, oemdrv};
