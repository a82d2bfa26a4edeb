//! How the kickstart travels to the installer.

mod fixed_times;
mod http_server;
mod oemdrv;

pub use http_server::{HttpRequestSeen, KickstartServer, OnRequest};
pub use oemdrv::{OEMDRV_LABEL, OemdrvError, oemdrv};
